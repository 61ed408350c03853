//! What the kernel's verifier says of limiter's program.

use crate::limiter::Limiter;
use anyhow::{Context as _, Result};
use serde_json::Value;
use std::process::Command;

/// Instructions that it followed, and the bytes of stack that the program
/// takes, as a note.
pub(crate) fn note(limiter: &mut Limiter) -> Result<String> {
    let followed = match limiter.plane.verified_instructions()? {
        Some(count) => count.to_string(),
        None => "an unknown number of".to_owned(),
    };
    let (instructions, own, deepest) = stack(limiter.plane.program_id()?)?;
    Ok(format!(
        "limiter's program: {instructions} instructions; the verifier followed {followed} of a \
         million; stack {own} bytes and {deepest} in the function that takes most, of 512"
    ))
}

/// Instructions of a loaded program; bytes of stack of its main function, and
/// the most that one of its other functions takes.
fn stack(id: u32) -> Result<(usize, u64, u64)> {
    let output = Command::new("bpftool")
        .args(["-j", "prog", "dump", "xlated", "id", &id.to_string()])
        .output()
        .context("running bpftool")?;
    let dump: Value = serde_json::from_slice(&output.stdout).context("reading bpftool's JSON")?;
    let lines = dump.as_array().context("bpftool prints no list")?;
    let mut functions: Vec<u64> = Vec::new();
    let mut pointer = None;
    for line in lines {
        // The first line of a function says what it takes and returns.
        if line["proto"].is_string() || functions.is_empty() {
            functions.push(0);
        }
        // `(7b) *(u64 *)(r10 -8) = r1`: the operation's code first.
        let text = line["disasm"].as_str().unwrap_or_default();
        let text = text.split_once(") ").map_or(text, |(_code, text)| text);
        if let (Some(used), Some(bytes)) = (functions.last_mut(), depth(text, pointer)) {
            *used = bytes.max(*used);
        }
        pointer = copied_frame_pointer(text);
    }
    let mut functions = functions.into_iter();
    let own = functions.next().context("bpftool prints no program")?;
    Ok((lines.len(), own, functions.max().unwrap_or(0)))
}

/// How far below the frame pointer an instruction reaches: `(r10 -8)`, or
/// `r2 += -8` where r2 is a copy of it.
fn depth(text: &str, pointer: Option<&str>) -> Option<u64> {
    let offset = match text.split_once("(r10 -") {
        Some((_, rest)) => rest.split(')').next()?,
        None => text.strip_prefix(pointer?)?.strip_prefix(" += -")?,
    };
    offset.parse().ok()
}

/// `r2` of `r2 = r10`.
fn copied_frame_pointer(text: &str) -> Option<&str> {
    text.strip_suffix(" = r10").filter(|it| it.starts_with('r'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stack_is_found_in_both_forms() {
        assert_eq!(depth("*(u64 *)(r10 -96) = r1", None), Some(96));
        assert_eq!(depth("r1 = *(u8 *)(r10 -1)", None), Some(1));
        assert_eq!(copied_frame_pointer("r2 = r10"), Some("r2"));
        assert_eq!(depth("r2 += -104", Some("r2")), Some(104));
        assert_eq!(depth("r3 += -104", Some("r2")), None);
        assert_eq!(depth("r3 += -104", None), None);
    }
}

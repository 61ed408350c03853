//! How large a loaded program is, and how much stack it takes.

use anyhow::{Context as _, Result};
use serde_json::Value;
use std::process::Command;

/// What can be read off a program's instructions.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Instructions, as the kernel runs them.
    pub instructions: usize,
    /// Bytes of stack of its main function.
    pub own_stack_bytes: u64,
    /// The most that one of its other functions takes.
    pub deepest_stack_bytes: u64,
}

impl Shape {
    /// That of the loaded program with a number.
    ///
    /// # Errors
    ///
    /// bpftool cannot be run, or prints something else.
    pub fn of_program(id: u32) -> Result<Self> {
        let output = Command::new("bpftool")
            .args(["-j", "prog", "dump", "xlated", "id", &id.to_string()])
            .output()
            .context("running bpftool")?;
        let dump: Value =
            serde_json::from_slice(&output.stdout).context("reading bpftool's JSON")?;
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
        Ok(Self {
            instructions: lines.len(),
            own_stack_bytes: own,
            deepest_stack_bytes: functions.max().unwrap_or(0),
        })
    }
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

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
    /// The most that it and the functions take that call each other, as older
    /// kernels add it up: in steps of 32 (`check_max_stack_depth`).
    pub stack_bytes: u64,
}

/// A function of a program.
#[derive(Debug, Default)]
struct Function {
    name: String,
    stack_bytes: u64,
    calls: Vec<String>,
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
        let functions = functions(lines)?;
        let main = functions.first().context("bpftool prints no program")?;
        Ok(Self {
            instructions: lines.len(),
            own_stack_bytes: main.stack_bytes,
            stack_bytes: chain(main, &functions)?,
        })
    }
}

fn functions(lines: &[Value]) -> Result<Vec<Function>> {
    let mut functions: Vec<Function> = Vec::new();
    let mut pointer = None;
    for line in lines {
        // The first line of a function says what it takes and returns.
        if let Some(prototype) = line["proto"].as_str() {
            functions.push(Function {
                name: name(prototype).to_owned(),
                ..Function::default()
            });
        }
        let Some(function) = functions.last_mut() else {
            continue;
        };
        // `(7b) *(u64 *)(r10 -8) = r1`: the operation's code first.
        let text = line["disasm"].as_str().unwrap_or_default();
        let text = text.split_once(") ").map_or(text, |(_code, text)| text);
        if let Some(bytes) = depth(text, pointer) {
            function.stack_bytes = bytes.max(function.stack_bytes);
        }
        if text.starts_with("call pc") {
            let callee = callee(text).with_context(|| format!("no name in \"{text}\""))?;
            function.calls.push(callee.to_owned());
        }
        pointer = copied_frame_pointer(text);
    }
    Ok(functions)
}

/// What a function and those that it calls take at most. The verifier has made
/// sure that none calls itself.
fn chain(function: &Function, all: &[Function]) -> Result<u64> {
    let mut below = 0;
    for name in &function.calls {
        let called = all.iter().find(|it| it.name == *name);
        let called = called.with_context(|| format!("{name} is called and not there"))?;
        below = below.max(chain(called, all)?);
    }
    Ok(function.stack_bytes.max(1).next_multiple_of(32) + below)
}

/// `release` of `u32 release(struct a * b)`.
fn name(prototype: &str) -> &str {
    let head = prototype.split('(').next().unwrap_or_default();
    head.rsplit([' ', '*']).next().unwrap_or_default()
}

/// `release` of `call pc+12#bpf_prog_0123456789abcdef_release`.
fn callee(text: &str) -> Option<&str> {
    let (_, symbol) = text.strip_prefix("call pc")?.split_once("#bpf_prog_")?;
    Some(symbol.split_once('_')?.1)
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
    fn what_is_called_is_added_up() {
        let line = |proto: Option<&str>, disasm: &str| {
            let mut line = serde_json::json!({ "disasm": disasm });
            if let Some(proto) = proto {
                line["proto"] = proto.into();
            }
            line
        };
        let dump = [
            line(Some("u32 main(void * c)"), "(7b) *(u64 *)(r10 -96) = r1"),
            line(None, "(85) call pc+3#bpf_prog_0123456789abcdef_one_two"),
            line(None, "(85) call pc+9#bpf_prog_0123456789abcdef_leaf"),
            line(Some("u32 one_two(u64 a)"), "(bf) r2 = r10"),
            line(None, "(07) r2 += -40"),
            line(None, "(85) call pc+1#bpf_prog_0123456789abcdef_leaf"),
            line(Some("void leaf()"), "(95) exit"),
        ];
        let functions = functions(&dump).unwrap();
        assert_eq!(chain(&functions[0], &functions).unwrap(), 96 + 64 + 32);
        assert!(chain(&functions[0], &functions[..2]).is_err());
    }

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

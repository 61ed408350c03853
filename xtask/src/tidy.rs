//! House rules that neither rustfmt nor clippy knows.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, bail};

/// Looks at every file that git has.
pub(crate) fn run(root: &Path) -> Result<()> {
    let output = Command::new("git")
        .args(["ls-files", "-z"])
        .current_dir(root)
        .output()
        .context("running git ls-files")?;
    if !output.status.success() {
        println!("not a git checkout: nothing to say which files are its own");
        return Ok(());
    }
    let names = String::from_utf8(output.stdout).context("reading what git ls-files prints")?;
    let mut faults = Vec::new();
    for name in names.split_terminator('\0') {
        let path = root.join(name);
        // Deleted and not yet committed, or a link to somewhere else.
        if !path.is_file() || path.is_symlink() {
            continue;
        }
        let bytes = fs::read(&path).with_context(|| format!("reading {name}"))?;
        match String::from_utf8(bytes) {
            Ok(text) if !text.contains('\0') => {
                if name.ends_with(".rs") {
                    faults.extend(rust_faults(name, &text));
                }
            }
            _ => faults.push(format!(
                "{name}: a binary file; build or generate it instead"
            )),
        }
    }
    if !faults.is_empty() {
        bail!("{} faults\n{}", faults.len(), faults.join("\n"));
    }
    Ok(())
}

/// What is wrong in one source file, as `file:line: what`.
fn rust_faults(name: &str, text: &str) -> Vec<String> {
    // In pieces, so that this file is not among the faults.
    let forbidden = [
        (concat!("to", "do!("), "unfinished code"),
        (concat!("unimple", "mented!("), "unfinished code"),
        (concat!("#[ign", "ore"), "a test that nobody runs"),
    ];
    // Libraries that one module of the control plane hides from the rest.
    let hidden = [("aya", "dataplane"), ("rusqlite", "store")].map(|(library, module)| {
        let own = format!("limiter-user/src/{module}");
        let may = !name.starts_with("limiter-user/src/") || name.starts_with(&own);
        (library, module, may)
    });
    let mut faults = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let mut fault = |what: &str| faults.push(format!("{name}:{}: {what}", index + 1));
        let code = line.trim_start();
        if code.starts_with("//") {
            continue;
        }
        for (pattern, what) in forbidden {
            if code.contains(pattern) {
                fault(what);
            }
        }
        if (code.starts_with("#[allow(") || code.starts_with("#![allow("))
            && !attribute(text, index).contains("reason")
        {
            fault("allow without a reason");
        }
        for (library, module, may_import) in hidden {
            if !may_import && names(code, library) {
                fault(&format!(
                    "{library} belongs into {module}, which hides it from the rest"
                ));
            }
        }
    }
    faults
}

/// The attribute that starts on a line, which may go on over several.
fn attribute(text: &str, first_line: usize) -> String {
    let mut attribute = String::new();
    for line in text.lines().skip(first_line) {
        attribute.push_str(line);
        if line.contains(")]") {
            break;
        }
    }
    attribute
}

fn names(code: &str, library: &str) -> bool {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let is_used = code
        .strip_prefix("use ")
        .is_some_and(|of| of.starts_with(library));
    code.match_indices(library).any(|(at, word)| {
        let after = &code[at + word.len()..];
        !code[..at].ends_with(is_name)
            && (after.starts_with("::") || (is_used && !after.starts_with(is_name)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unfinished_code_is_a_fault_and_a_comment_about_it_is_not() {
        let text = concat!("fn f() {\n    to", "do!()\n}\n// to", "do!()\n");
        assert_eq!(rust_faults("a.rs", text), ["a.rs:2: unfinished code"]);
        let text = concat!("#[ign", "ore = \"slow\"]\n");
        assert_eq!(
            rust_faults("a.rs", text),
            ["a.rs:1: a test that nobody runs"]
        );
    }

    #[test]
    fn allow_needs_a_reason_on_any_of_its_lines() {
        assert_eq!(rust_faults("a.rs", "#[allow(dead_code)]\n").len(), 1);
        let text = "#[allow(\n    dead_code,\n    reason = \"for the layout\"\n)]\n";
        assert!(rust_faults("a.rs", text).is_empty());
    }

    #[test]
    fn rusqlite_is_for_store_alone() {
        let line = "use rusqlite::Connection;";
        assert_eq!(rust_faults("limiter-user/src/keeper/mod.rs", line).len(), 1);
        assert_eq!(
            rust_faults("limiter-user/src/dataplane/mod.rs", line).len(),
            1
        );
        assert!(rust_faults("limiter-user/src/store/rows.rs", line).is_empty());
        assert!(rust_faults("tests/tests/edge/state.rs", line).is_empty());
    }

    #[test]
    fn aya_is_for_dataplane_alone() {
        for line in [
            "use aya::Ebpf;",
            "    let m: aya::maps::MapData;",
            "use aya;",
        ] {
            assert_eq!(rust_faults("limiter-user/src/engine.rs", line).len(), 1);
            assert!(rust_faults("limiter-user/src/dataplane/maps.rs", line).is_empty());
            assert!(rust_faults("limiter-user/src/dataplane.rs", line).is_empty());
            assert!(rust_faults("tests/src/lib.rs", line).is_empty());
        }
        for line in [
            "use aya_log::Logger;",
            "maya::x()",
            "// aya::x",
            "use maya;",
        ] {
            assert!(
                rust_faults("limiter-user/src/engine.rs", line).is_empty(),
                "{line}"
            );
        }
    }
}

//! Two ways to keep the program off a machine that it would lock somebody out
//! of: a file, and a word for the boot loader.

use std::path::Path;

/// While this file exists, nothing is attached.
pub const FLAG: &str = "/etc/limiter/disabled";

/// On the kernel's command line it does the same until the next boot.
pub const WORD: &str = "limiter=off";

/// Why nothing is to be attached, and how that ends; `None`: go on.
#[must_use]
pub fn held_back() -> Option<String> {
    // Not `exists`: also a link to nowhere is somebody's wish, and what cannot
    // be looked at may be.
    let flag = match Path::new(FLAG).symlink_metadata() {
        Ok(_) => true,
        Err(error) => !matches!(
            error.kind(),
            std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
        ),
    };
    let line = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    reason(flag, &line)
}

fn reason(flag: bool, line: &str) -> Option<String> {
    if flag {
        return Some(format!("{FLAG} exists; remove it and start limiter again"));
    }
    let is_off = line.split_ascii_whitespace().any(|word| word == WORD);
    is_off.then(|| {
        format!("the kernel was booted with {WORD}; boot without it, and limiter attaches again")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_and_a_word_hold_it_back() {
        assert_eq!(reason(false, "quiet limiter=offside xlimiter=off"), None);
        let word = reason(false, "root=/dev/sda1 limiter=off quiet\n").unwrap();
        assert!(word.contains("limiter=off"), "{word}");
        let file = reason(true, "").unwrap();
        assert!(file.contains(FLAG), "{file}");
    }
}

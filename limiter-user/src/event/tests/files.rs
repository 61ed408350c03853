use std::io::{self, Read};

use crate::event::file::{EventFile, FileError};
use crate::event::formats::Format;

#[test]
fn events_have_the_numbers_of_their_lines() {
    let long = "x".repeat(300_000);
    let text = format!(
        "{{\"source\":\"192.0.2.1\"}}\r\n\nnonsense\x1b\n{long}\n{{\"source\":\"192.0.2.2\"}}"
    );
    let found: Vec<_> = EventFile::new(text.as_bytes(), Format::Json).collect();
    let lines: Vec<_> = found
        .iter()
        .map(|read| match read {
            Ok((line, event)) => format!("{line} {}", event.source),
            Err(FileError::Line { line, misread }) => format!("{line} {}", misread.cause),
            Err(error) => error.to_string(),
        })
        .collect();
    assert_eq!(
        lines,
        [
            "1 192.0.2.1",
            "3 byte 2: expected ident",
            "4 300000 bytes; 262144 are read at most",
            "5 192.0.2.2",
        ]
    );
    let words = found[1].as_ref().unwrap_err().to_string();
    assert!(
        words.starts_with("line 3: byte 2: ") && words.ends_with("nonsense\\u{1b}"),
        "{words}"
    );
}

/// Gives a line, then fails.
struct Broken(bool);

impl Read for Broken {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if std::mem::replace(&mut self.0, true) {
            return Err(io::Error::other("the disk is gone"));
        }
        (&b"{\"source\":\"192.0.2.1\"}\n{"[..]).read(buffer)
    }
}

#[test]
fn a_file_that_fails_says_so_and_ends() {
    let mut file = EventFile::new(Broken(false), Format::Json);
    assert!(file.next().unwrap().is_ok());
    let error = file.next().unwrap().unwrap_err().to_string();
    assert_eq!(error, "reading events behind line 1: the disk is gone");
    assert!(file.next().is_none());
}

//! What the spawner and its worker write to the log: passed on line by line, with nothing
//! that a terminal obeys, and not more than a log takes.

use std::io::{self, BufRead, BufReader, Read, Write as _};
use std::time::{Duration, Instant};

use super::rate::Rate;
use crate::policy::escape;
use crate::seldom::Seldom;

/// Bytes of a line; a longer one is cut.
const LINE: usize = 4_096;

/// What stands at the end of a line that was cut.
const CUT: &str = " [cut]";

/// Lines a second, and at once.
const LINES: (f64, f64) = (1_000.0, 10_000.0);

/// How often it is said that lines were left out.
const COMPLAINTS: Duration = Duration::from_secs(10);

/// Passes on what comes until it ends.
pub(super) fn pass_on(said: impl Read) {
    let mut said = BufReader::new(said);
    let mut rate = Rate::new(LINES.0, LINES.1);
    let complaints = Seldom::new(COMPLAINTS);
    // Who wrote the pipe has gone where it fails.
    while let Ok(Some(line)) = next_line(&mut said) {
        let now = Instant::now();
        if rate.take(1, now) == 1 {
            // Nobody reads the log.
            let _written = writeln!(io::stderr(), "{line}");
        } else if let Some(left_out) = complaints.due(now) {
            tracing::warn!(left_out, "the process that hears events says too much");
        }
    }
}

/// The next line without its end, harmless to a terminal, cut and marked where it is too
/// long; `None`: there are no more.
fn next_line(said: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    let mut is_cut = false;
    loop {
        let some = said.fill_buf()?;
        let end = some.iter().position(|byte| *byte == b'\n');
        let part = &some[..end.unwrap_or(some.len())];
        let room = LINE - line.len();
        line.extend_from_slice(&part[..part.len().min(room)]);
        is_cut |= part.len() > room;
        let is_over = some.is_empty();
        let read = part.len() + usize::from(end.is_some());
        said.consume(read);
        if end.is_some() || (is_over && !line.is_empty()) {
            break;
        }
        if is_over {
            return Ok(None);
        }
    }
    let text = String::from_utf8_lossy(&line);
    let mark = if is_cut { CUT } else { "" };
    Ok(Some(format!("{}{mark}", escape(&text))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_is_cut_and_the_next_one_is_whole() {
        let long = "x".repeat(LINE * 3 + 1);
        let exact = "y".repeat(LINE);
        let text = format!("one\n{long}\n\n{exact}\nthe\u{1b}last");
        // Also where a line comes in many parts.
        for capacity in [7, 1 << 20] {
            let mut said = BufReader::with_capacity(capacity, text.as_bytes());
            let mut next = || next_line(&mut said).unwrap();
            assert_eq!(next().unwrap(), "one");
            assert_eq!(next().unwrap(), format!("{}{CUT}", &long[..LINE]));
            assert_eq!(next().unwrap(), "");
            assert_eq!(next().unwrap(), exact);
            assert_eq!(next().unwrap(), escape("the\u{1b}last"));
            assert_eq!(next(), None);
        }
    }
}

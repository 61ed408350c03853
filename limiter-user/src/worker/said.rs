//! What the spawner and its worker write to the log: passed on line by line, with nothing
//! that a terminal obeys, and not more than a log takes.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::time::{Duration, Instant};

use super::rate::Rate;
use crate::policy::escape;
use crate::seldom::Seldom;

/// Bytes of a line; the rest of a longer one is a line of its own.
const LINE: u64 = 16_384;

/// Lines a second, and at once.
const LINES: (f64, f64) = (1_000.0, 10_000.0);

/// How often it is said that lines were left out.
const COMPLAINTS: Duration = Duration::from_secs(10);

/// Passes on what comes until it ends.
pub(super) fn pass_on(said: impl Read) {
    let mut said = BufReader::new(said);
    let mut rate = Rate::new(LINES.0, LINES.1);
    let complaints = Seldom::new(COMPLAINTS);
    let mut line = Vec::new();
    loop {
        line.clear();
        match said.by_ref().take(LINE).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let now = Instant::now();
        if rate.take(1, now) == 1 {
            let text = String::from_utf8_lossy(&line);
            let text = escape(text.trim_end_matches('\n'));
            // Nobody reads the log.
            let _written = writeln!(std::io::stderr(), "{text}");
        } else if let Some(left_out) = complaints.due(now) {
            tracing::warn!(left_out, "the process that hears events says too much");
        }
    }
}

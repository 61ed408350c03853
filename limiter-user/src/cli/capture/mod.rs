//! `capture`: a sample of refused packets, as a file that other tools read.

mod file;
mod pcapng;

use std::io::{Write as _, stderr};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use super::show::reason;
use super::signals::Signals;
use super::words::{count, duration};
use hyper::StatusCode;

use super::{Client, ClientError, Failure, args};
use crate::control::api::{
    CaptureBegun, CaptureOrder, CapturedPackets, OutcomeRow, PacketRow, RefusedRow,
};
use crate::policy::{escape, units::duration_text};
use file::{CaptureFile, Target};
use pcapng::Packet;

/// How often the daemon is asked for packets.
const PAUSE: Duration = Duration::from_millis(100);

/// Exit status of who is ended by a signal, as shells tell it of SIGINT.
const INTERRUPTED: i32 = 130;

/// Why a capture came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Full,
    Over,
    Interrupted,
}

pub(super) fn capture(client: &Client, arguments: &args::Capture) -> Result<(), Failure> {
    // Before signals are caught: to open a pipe may take for ever.
    let target = Target::open(&arguments.file)?;
    let interrupted = interruption()?;
    let order = CaptureOrder {
        reason: arguments.reason.clone(),
        count: Some(arguments.count),
        lasting: Some(duration_text(arguments.lasting)),
        snap_length: Some(arguments.snap_length),
    };
    let begun: CaptureBegun = match client.post("/v1/captures", &order) {
        Ok(begun) => begun,
        Err(error) => {
            target.give_up();
            return Err(error.into());
        }
    };
    let mut session = Session {
        client,
        id: begun.id.to_string(),
        count: arguments.count,
        started: Instant::now(),
    };
    let mut file = None;
    let followed = target
        .begin(arguments.snap_length, &begun.interfaces)
        .and_then(|begun| session.follow(file.insert(begun), &interrupted));
    // Whatever happened: from here on nothing is sampled for it any more.
    let rest = session.end();
    let end = followed?;
    let rest = rest?;
    if let Some(file) = &mut file {
        write(file, &rest.packets)?;
    }
    let words = summary(&rest, end, session.started.elapsed());
    // Whoever closed standard error does not want it.
    let _written = writeln!(stderr(), "{words}");
    Ok(())
}

/// Becomes ready when somebody wants the end. From here on a first signal does
/// not end the process unseen, nor its file in the middle of a packet; a second
/// one does, if a reader or the daemon lets the process wait.
fn interruption() -> Result<Receiver<()>, Failure> {
    let mut signals = Signals::catch()?;
    let (tell, told) = sync_channel(1);
    let thread = thread::Builder::new().name("signals".to_owned());
    let _thread = thread.spawn(move || {
        signals.wait();
        let _told = tell.send(());
        signals.wait();
        std::process::exit(INTERRUPTED);
    })?;
    Ok(told)
}

/// A capture under way at the daemon.
struct Session<'a> {
    client: &'a Client,
    id: String,
    count: u64,
    started: Instant,
}

impl Session<'_> {
    /// Writes what the daemon captures until there will be no more.
    fn follow(
        &mut self,
        file: &mut CaptureFile,
        interrupted: &Receiver<()>,
    ) -> Result<End, Failure> {
        loop {
            let batch = self.client.get("/v1/captures", &[("id", &self.id)]);
            let batch: CapturedPackets = batch.map_err(given_up)?;
            write(file, &batch.packets)?;
            if !batch.under_way {
                let is_full = batch.taken >= self.count;
                return Ok(if is_full { End::Full } else { End::Over });
            }
            if interrupted.recv_timeout(PAUSE).is_ok() {
                return Ok(End::Interrupted);
            }
        }
    }

    /// Ends it at the daemon; returns what was not fetched yet.
    fn end(&self) -> Result<CapturedPackets, Failure> {
        Ok(self.client.delete("/v1/captures", &[("id", &self.id)])?)
    }
}

/// What to say where the daemon knows the capture no more.
fn given_up(error: ClientError) -> Failure {
    match error {
        ClientError::Refused(refusal) if refusal.status == StatusCode::NOT_FOUND => Failure::Words(
            "the daemon has given this capture up, because nothing was fetched for a while (who \
             reads it was slower); the file is whole up to there"
                .to_owned(),
        ),
        error => error.into(),
    }
}

fn write(file: &mut CaptureFile, packets: &[PacketRow]) -> Result<(), Failure> {
    for row in packets {
        let comment = comment(row);
        let interface = match &row.interface {
            Some(name) => name.clone(),
            None => format!("index {}", row.index),
        };
        let frame = bytes(&row.frame).ok_or_else(|| {
            let words =
                "the daemon's answer has no bytes in it; are daemon and command of one version?";
            Failure::Words(words.to_owned())
        })?;
        file.packet(&interface, |number| Packet {
            interface: number,
            time_ns: row.time_unix_ns,
            length: row.length,
            frame: &frame,
            action: if row.outcome.verdict == "drop" { 1 } else { 2 },
            comment: &comment,
        })?;
    }
    file.flush()
}

/// `drop: limit (packets) login`, in the words of `stats`.
fn comment(row: &PacketRow) -> String {
    let OutcomeRow { verdict, .. } = &row.outcome;
    let limit = row.limit.as_deref().map(|limit| format!(" {limit}"));
    let limit = limit.unwrap_or_default();
    escape(&format!("{verdict}: {}{limit}", reason(&row.outcome)))
}

/// The bytes of hexadecimal digits.
fn bytes(digits: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    let digit = |digit: u8| char::from(digit).to_digit(16);
    let byte = |[high, low]: &[u8; 2]| Some((digit(*high)? << 4 | digit(*low)?) as u8);
    pairs.iter().map(byte).collect()
}

/// `37 packets of 1,204,112 dropped, in 12s; interrupted`.
fn summary(ended: &CapturedPackets, end: End, elapsed: Duration) -> String {
    let plural = if ended.taken == 1 { "" } else { "s" };
    let mut words = format!("{} packet{plural}", count(ended.taken));
    match ended.refused {
        Some(RefusedRow { drop, would_drop }) => {
            words.push_str(&format!(" of {} dropped", count(drop)));
            if would_drop > 0 {
                words.push_str(&format!(" and {} that would be", count(would_drop)));
            }
        }
        None => words.push_str(" (how many were dropped is not known)"),
    }
    words.push_str(&format!(", in {}", duration(elapsed.as_secs())));
    words.push_str(match end {
        End::Full => "; as many as asked for (--count)",
        End::Over => "; the time is over (--for)",
        End::Interrupted => "; interrupted",
    });
    if ended.lost > 0 {
        words.push_str(&format!(
            "; {} more were sampled and lost, because they came faster than they were fetched",
            count(ended.lost)
        ));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_says_of_how_many() {
        let mut ended = CapturedPackets {
            taken: 37,
            refused: Some(RefusedRow {
                drop: 1_204_112,
                would_drop: 0,
            }),
            ..CapturedPackets::default()
        };
        let seconds = Duration::from_secs(12);
        assert_eq!(
            summary(&ended, End::Interrupted, seconds),
            "37 packets of 1,204,112 dropped, in 12s; interrupted"
        );
        (ended.taken, ended.lost) = (1, 3);
        ended.refused = Some(RefusedRow {
            drop: 0,
            would_drop: 5,
        });
        let words = summary(&ended, End::Over, seconds);
        assert!(
            words.starts_with("1 packet of 0 dropped and 5 that would be, in 12s"),
            "{words}"
        );
        assert!(words.contains("; 3 more"), "{words}");
    }

    #[test]
    fn bytes_are_read_from_digits() {
        assert_eq!(bytes("00ff7a"), Some(vec![0, 255, 122]));
        assert_eq!(bytes(""), Some(Vec::new()));
        for wrong in ["0", "0g", "+1", "é"] {
            assert_eq!(bytes(wrong), None, "{wrong}");
        }
    }
}

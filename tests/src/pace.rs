//! Requests at a steady pace, however slowly they are answered. Each is due at a moment of its
//! own, and what it took is counted from then: a server that stops for a while is not asked less,
//! and its pause is seen by all requests that fell into it.

use crate::{
    clients,
    netns::Namespace,
    ready::{self, Ready, Way},
};
use anyhow::{Context as _, Result, bail, ensure};
use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

/// How long after the last was due the answers may come.
const LATE: Duration = Duration::from_secs(10);

/// Who asks, and how often.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Requests a second, over all connections.
    pub per_second: f64,
    /// For how long.
    pub lasts: Duration,
    /// Connections, which stay open and ask in turn.
    pub connections: usize,
}

impl Pace {
    fn requests(&self) -> usize {
        (self.per_second * self.lasts.as_secs_f64()) as usize
    }

    /// When the one with this number is due, after the beginning.
    fn due(&self, number: usize) -> Duration {
        Duration::from_secs_f64(number as f64 / self.per_second)
    }
}

/// What came of a request.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// When it was due, after the beginning.
    pub due: Duration,
    /// From then to its answer.
    pub took: Duration,
}

/// Asks the same, which has no body, again and again over connections that are opened before;
/// returns what became of each request, in no order. A connection that waits for an answer when its
/// next request is due asks as soon as it has it.
///
/// # Errors
/// An answer is none or not a 2xx, a connection ends, or not all are answered.
pub fn ask(
    namespace: &Namespace,
    to: SocketAddr,
    request: &[u8],
    pace: Pace,
) -> Result<Vec<Taken>> {
    namespace.run(|| {
        ready::punctual()?;
        let open = |number| Client::open(namespace, to, number);
        let mut all: Vec<Client> = (0..pace.connections).map(open).collect::<Result<_>>()?;
        let ready = Ready::new()?;
        for client in &all {
            ready.add(&client.stream, Way::In, client.next as u64)?;
        }
        let wanted = pace.requests();
        let mut taken = Vec::with_capacity(wanted);
        let began = Instant::now();
        let end = began + pace.lasts + LATE;
        while taken.len() < wanted {
            let now = Instant::now();
            ensure!(now < end, "{} of {wanted} answered", taken.len());
            let mut next = end;
            for client in all.iter_mut().filter(|it| it.asked.is_none()) {
                if client.next >= wanted {
                    continue;
                }
                let due = pace.due(client.next);
                if began + due <= now {
                    client.ask(request, due)?;
                    client.next += pace.connections;
                } else {
                    next = next.min(began + due);
                }
            }
            for number in ready.wait(next)? {
                taken.extend(all[usize::try_from(number)?].hear(began)?);
            }
        }
        Ok(taken)
    })
}

struct Client {
    stream: TcpStream,
    /// The number of its next request.
    next: usize,
    /// When the one was due that waits for its answer.
    asked: Option<Duration>,
    heard: Vec<u8>,
}

impl Client {
    fn open(namespace: &Namespace, to: SocketAddr, number: usize) -> Result<Self> {
        let stream = clients::connect(namespace, to, LATE)?;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            next: number,
            asked: None,
            heard: Vec::new(),
        })
    }

    fn ask(&mut self, request: &[u8], due: Duration) -> Result<()> {
        let written = self.stream.write(request).context("asking")?;
        ensure!(
            written == request.len(),
            "{written} bytes of a request sent"
        );
        self.asked = Some(due);
        Ok(())
    }

    /// Reads what has come; what became of the request if its answer is whole.
    fn hear(&mut self, began: Instant) -> Result<Option<Taken>> {
        let mut bytes = [0; 16 << 10];
        let count = match self.stream.read(&mut bytes) {
            Ok(0) => bail!("a connection was closed"),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error).context("reading an answer"),
        };
        self.heard.extend_from_slice(&bytes[..count]);
        let Some(answer) = clients::parse(&self.heard) else {
            return Ok(None);
        };
        let length = answer.header("content-length").map(str::parse);
        if answer.body.len() < length.transpose()?.unwrap_or(0) {
            return Ok(None);
        }
        let due = self.asked.take();
        let due = due.context("an answer that nobody asked for")?;
        let took = began.elapsed().saturating_sub(due);
        ensure!((200..300).contains(&answer.status), "{answer:?}");
        self.heard.clear();
        Ok(Some(Taken { due, took }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_has_its_moment() {
        let pace = Pace {
            per_second: 250.0,
            lasts: Duration::from_millis(100),
            connections: 4,
        };
        assert_eq!(pace.requests(), 25);
        assert_eq!(pace.due(24), Duration::from_millis(96));
    }
}

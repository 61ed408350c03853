//! An application that takes its time, and always the same.

use crate::{
    cpu,
    netns::Namespace,
    ready::{self, Ready, Way},
};
use anyhow::{Context as _, Result};
use std::{
    collections::{HashMap, VecDeque},
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\nok\n";
/// The largest head that is taken.
const MOST_HEAD: usize = 64 << 10;
/// The number of its listener.
const LISTENER: u64 = 0;
/// How often it looks whether it is to end.
const LOOK: Duration = Duration::from_millis(50);

/// It answers every request, which has no body, with 200, over connections that stay open;
/// stopped when dropped.
#[derive(Debug)]
pub struct Delayed {
    answered: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Delayed {
    /// Starts one on `address` in `namespace`, on a CPU. Each answer leaves `delay` after its
    /// question came.
    pub fn start(
        namespace: &Namespace,
        address: SocketAddr,
        delay: Duration,
        cpu: usize,
    ) -> Result<Self> {
        let listener = namespace.run(|| TcpListener::bind(address));
        let listener = listener.with_context(|| format!("listening on {address}"))?;
        listener.set_nonblocking(true)?;
        let ready = Ready::new()?;
        ready.add(&listener, Way::In, LISTENER)?;
        let mut server = Server {
            listener,
            ready,
            next: LISTENER,
            delay,
            connections: HashMap::new(),
            due: VecDeque::new(),
            answered: Arc::default(),
        };
        let (answered, over) = (Arc::clone(&server.answered), Arc::<AtomicBool>::default());
        let is_over = Arc::clone(&over);
        let thread = thread::spawn(move || {
            let mut served = cpu::pin(cpu).and_then(|()| ready::punctual());
            while served.is_ok() && !is_over.load(Relaxed) {
                served = server.serve();
            }
            if let Err(error) = served {
                eprintln!("an application ended: {error:#}");
            }
        });
        Ok(Self {
            answered,
            over,
            thread: Some(thread),
        })
    }

    /// Requests that it has answered.
    pub fn answered(&self) -> u64 {
        self.answered.load(Relaxed)
    }
}

impl Drop for Delayed {
    fn drop(&mut self) {
        self.over.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

struct Server {
    listener: TcpListener,
    ready: Ready,
    /// The number of the last connection.
    next: u64,
    delay: Duration,
    /// What has come of a request on each.
    connections: HashMap<u64, (TcpStream, Vec<u8>)>,
    /// Who is answered when, in that order.
    due: VecDeque<(Instant, u64)>,
    answered: Arc<AtomicU64>,
}

impl Server {
    /// Waits for what is next, and does it.
    fn serve(&mut self) -> Result<()> {
        let next = self.due.front().map(|(due, _)| *due);
        let until = next.unwrap_or_else(|| Instant::now() + LOOK);
        for number in self.ready.wait(until)? {
            match number {
                LISTENER => self.accept()?,
                number => self.hear(number),
            }
        }
        self.answer();
        Ok(())
    }

    fn accept(&mut self) -> Result<()> {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(true)?;
                    stream.set_nodelay(true)?;
                    self.next += 1;
                    self.ready.add(&stream, Way::In, self.next)?;
                    self.connections.insert(self.next, (stream, Vec::new()));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("accepting"),
            }
        }
    }

    /// Reads what has come. Whoever has gone, or sends what is no head, is forgotten.
    fn hear(&mut self, number: u64) {
        let mut bytes = [0; 8 << 10];
        let Some((stream, head)) = self.connections.get_mut(&number) else {
            return;
        };
        let read = stream.read(&mut bytes);
        match read {
            Ok(count) if count > 0 && head.len() < MOST_HEAD => {
                head.extend_from_slice(&bytes[..count]);
                if head.ends_with(b"\r\n\r\n") {
                    head.clear();
                    self.due.push_back((Instant::now() + self.delay, number));
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            _ => drop(self.connections.remove(&number)),
        }
    }

    fn answer(&mut self) {
        let now = Instant::now();
        while let Some((due, number)) = self.due.front().copied()
            && due <= now
        {
            self.due.pop_front();
            if let Some((stream, _)) = self.connections.get_mut(&number)
                && stream.write(ANSWER).is_ok_and(|it| it == ANSWER.len())
            {
                self.answered.fetch_add(1, Relaxed);
            }
        }
    }
}

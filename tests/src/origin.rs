//! A small application behind a proxy.

use crate::netns::Namespace;
use anyhow::{Context as _, Result};
use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// A request as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Method, target and version.
    pub line: String,
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

/// It answers what a function makes of each request; stopped when dropped.
#[derive(Debug)]
pub struct Origin {
    asked: Arc<Mutex<Vec<Asked>>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// The head of a response behind its version, without `Content-Length`: `200 OK`, and
/// lines of headers; and its body.
pub type Said = (&'static str, Vec<u8>);

impl Origin {
    /// Starts one on `address` in `namespace`.
    pub fn start(
        namespace: &Namespace,
        address: SocketAddr,
        say: impl Fn(&Asked) -> Said + Send + 'static,
    ) -> Result<Self> {
        let listener = namespace.run(|| TcpListener::bind(address));
        let listener = listener.with_context(|| format!("listening on {address}"))?;
        listener.set_nonblocking(true)?;
        let (asked, over) = (Arc::default(), Arc::<AtomicBool>::default());
        let (kept, is_over) = (Arc::clone(&asked), Arc::clone(&over));
        let thread = thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                match listener.accept() {
                    // Whoever has gone meanwhile wants no answer.
                    Ok((stream, _)) => drop(answer(stream, &kept, &say)),
                    Err(_) => thread::sleep(Duration::from_millis(1)),
                }
            }
        });
        Ok(Self {
            asked,
            over,
            thread: Some(thread),
        })
    }

    /// What it was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

fn answer(
    stream: TcpStream,
    asked: &Mutex<Vec<Asked>>,
    say: &impl Fn(&Asked) -> Said,
) -> Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut reader = BufReader::new(&stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut headers = Vec::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let Some((name, value)) = header.trim_end().split_once(':') else {
            break;
        };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length = length.map_or(Ok(0), |(_, length)| length.parse())?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let request = Asked {
        line: line.trim_end().to_owned(),
        headers,
        body,
    };
    let (head, body) = say(&request);
    let mut asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
    asked.push(request);
    drop(asked);
    let length = body.len();
    let head = format!("HTTP/1.1 {head}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
    (&stream).write_all(&[head.as_bytes(), &body].concat())?;
    Ok(())
}

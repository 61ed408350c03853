//! Clients as they are behind an interface.

use crate::netns::Namespace;
use anyhow::{Context as _, Result};
use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    thread,
    time::Duration,
};

/// Opens a TCP connection from inside `namespace`.
pub fn connect(namespace: &Namespace, to: SocketAddr, at_most: Duration) -> Result<TcpStream> {
    let stream = namespace.run(|| TcpStream::connect_timeout(&to, at_most));
    let stream = stream.with_context(|| format!("connecting to {to}"))?;
    stream.set_read_timeout(Some(at_most))?;
    stream.set_write_timeout(Some(at_most))?;
    Ok(stream)
}

/// An HTTP answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// What follows.
    pub body: Vec<u8>,
}

impl Answer {
    /// The first header of this name, given in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(it, _)| it == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// Asks for `path` over a connection of its own.
pub fn get(namespace: &Namespace, to: SocketAddr, path: &str, at_most: Duration) -> Result<Answer> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n");
    ask(namespace, to, request.as_bytes(), at_most)
}

/// Sends a request as it is, over a connection of its own; it must ask the
/// server to close it.
pub fn ask(
    namespace: &Namespace,
    to: SocketAddr,
    request: &[u8],
    at_most: Duration,
) -> Result<Answer> {
    let mut stream = connect(namespace, to, at_most)?;
    stream.write_all(request).context("sending a request")?;
    let mut bytes = Vec::new();
    stream
        .read_to_end(&mut bytes)
        .context("reading the answer")?;
    parse(&bytes).with_context(|| format!("no HTTP: {:?}", String::from_utf8_lossy(&bytes)))
}

/// Sends a request with a large body, and reads while it does so, as browsers do: a server may
/// answer before it has read all, and close then.
pub fn upload(
    namespace: &Namespace,
    to: SocketAddr,
    head: &[u8],
    body: &[u8],
    at_most: Duration,
) -> Result<Answer> {
    let stream = connect(namespace, to, at_most)?;
    thread::scope(|scope| {
        scope.spawn(|| {
            // What comes back says whether that was too much.
            let _sent = (&stream).write_all(&[head, body].concat());
        });
        let mut bytes = Vec::new();
        let answer = loop {
            let mut more = [0; 4_096];
            let read = (&stream).read(&mut more).context("reading the answer")?;
            bytes.extend_from_slice(&more[..read]);
            let answer = parse(&bytes);
            let is_whole = |it: &Answer| {
                let length = it.header("content-length").and_then(|it| it.parse().ok());
                length.is_some_and(|length: usize| it.body.len() >= length)
            };
            if read == 0 || answer.as_ref().is_some_and(is_whole) {
                break answer;
            }
        };
        // Whoever still sends is done with.
        let _closed = stream.shutdown(Shutdown::Both);
        answer.with_context(|| format!("no HTTP: {:?}", String::from_utf8_lossy(&bytes)))
    })
}

/// What has come so far; `None`: the head is not whole, or no HTTP.
pub(crate) fn parse(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers = lines.filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_ascii_lowercase(), value.trim().to_owned()))
    });
    Some(Answer {
        status,
        headers: headers.collect(),
        body: bytes[end + 4..].to_vec(),
    })
}

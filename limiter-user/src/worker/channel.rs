//! The channel between the daemon and its worker: whole messages, and file descriptors
//! beside them, over a pair of Unix sockets. Both ends are the same program, so that
//! messages need no version.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes of a message at most.
pub const MAX_MESSAGE: usize = 16 << 20;

/// File descriptors beside a message at most.
pub const MAX_FILES: usize = 128;

/// Bytes of the length before a message.
const HEAD: usize = 4;

/// For how long the other end may not read before it is given up.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why nothing more comes, or nothing can be sent.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The other end is gone.
    #[error("the other end has gone")]
    Gone,
    /// The socket failed.
    #[error("{0}")]
    Failed(#[from] io::Error),
    /// What came is no message, or one that is too long.
    #[error("what came is no message: {0}")]
    Garbage(String),
}

impl From<rustix::io::Errno> for ChannelError {
    fn from(error: rustix::io::Errno) -> Self {
        Self::Failed(error.into())
    }
}

/// Two ends.
///
/// # Errors
/// The kernel gives no sockets.
pub fn pair() -> io::Result<(UnixStream, UnixStream)> {
    UnixStream::pair()
}

/// What messages of one type are sent with; all threads may.
#[derive(Debug)]
pub struct Sender<T> {
    stream: Mutex<UnixStream>,
    message: PhantomData<fn(T)>,
}

impl<T: Serialize> Sender<T> {
    /// The sending half of an end.
    ///
    /// # Errors
    /// The socket takes no time-out.
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self {
            stream: Mutex::new(stream),
            message: PhantomData,
        })
    }

    /// Sends a message with file descriptors, of which the other end gets copies.
    ///
    /// # Errors
    /// The other end has gone, or does not read; then the channel is closed.
    pub fn send(&self, message: &T, files: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        let mut bytes = vec![0; HEAD];
        bytes = postcard::to_extend(message, bytes).map_err(garbage)?;
        let length = bytes.len() - HEAD;
        if length > MAX_MESSAGE || files.len() > MAX_FILES {
            // What is not said would be missed: better nothing more is.
            self.close();
            return Err(garbage(format!("{length} bytes, {} files", files.len())));
        }
        bytes[..HEAD].copy_from_slice(&u32::try_from(length).map_err(garbage)?.to_le_bytes());
        // A message that was sent in part closes the channel: nothing can follow it.
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = send_whole(&mut stream, &bytes, files);
        if sent.is_err() {
            let _closed = stream.shutdown(std::net::Shutdown::Both);
        }
        sent
    }

    /// Closes both directions: the other end finds that this one has gone.
    pub fn close(&self) {
        let stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        let _closed = stream.shutdown(std::net::Shutdown::Both);
    }
}

fn send_whole(
    stream: &mut UnixStream,
    bytes: &[u8],
    files: &[BorrowedFd<'_>],
) -> Result<(), ChannelError> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FILES))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(files)) {
        return Err(garbage("too many files"));
    }
    let flags = SendFlags::NOSIGNAL;
    let sent = rustix::net::sendmsg(&*stream, &[IoSlice::new(bytes)], &mut beside, flags);
    let sent = match sent {
        Ok(sent) => sent,
        Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => {
            return Err(ChannelError::Gone);
        }
        Err(error) => return Err(error.into()),
    };
    Ok(stream.write_all(&bytes[sent..])?)
}

/// What messages of one type arrive at.
#[derive(Debug)]
pub struct Receiver<T> {
    stream: UnixStream,
    files: VecDeque<OwnedFd>,
    bytes: Vec<u8>,
    most_bytes: usize,
    message: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Receiver<T> {
    /// The receiving half of an end; it takes messages of at most `most_bytes`.
    #[must_use]
    pub const fn new(stream: UnixStream, most_bytes: usize) -> Self {
        Self {
            stream,
            files: VecDeque::new(),
            bytes: Vec::new(),
            most_bytes,
            message: PhantomData,
        }
    }

    /// Waits for the next message.
    ///
    /// # Errors
    /// The other end has gone or sends no messages; nothing can follow.
    pub fn receive(&mut self) -> Result<T, ChannelError> {
        let mut head = [0; HEAD];
        let mut read = 0;
        while read < HEAD {
            read += self.receive_some(&mut head[read..])?;
        }
        let length = u32::from_le_bytes(head) as usize;
        if length > self.most_bytes {
            return Err(garbage(format!("{length} bytes")));
        }
        self.bytes.resize(length, 0);
        self.bytes.shrink_to(1 << 20);
        match self.stream.read_exact(&mut self.bytes) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(ChannelError::Gone);
            }
            Err(error) => return Err(error.into()),
        }
        postcard::from_bytes(&self.bytes).map_err(garbage)
    }

    /// The next file descriptor that came beside a message, in the order of the sender.
    pub fn file(&mut self) -> Option<OwnedFd> {
        self.files.pop_front()
    }

    fn receive_some(&mut self, into: &mut [u8]) -> Result<usize, ChannelError> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FILES))];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let into = &mut [IoSliceMut::new(into)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let received = loop {
            match rustix::net::recvmsg(&self.stream, into, &mut beside, flags) {
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::CONNRESET) => return Err(ChannelError::Gone),
                received => break received?,
            }
        };
        for message in beside.drain() {
            if let RecvAncillaryMessage::ScmRights(files) = message {
                self.files.extend(files);
            }
        }
        // Who sends more than are asked for has lost its mind.
        if self.files.len() > MAX_FILES {
            return Err(garbage("too many files"));
        }
        match received.bytes {
            0 => Err(ChannelError::Gone),
            bytes => Ok(bytes),
        }
    }
}

fn garbage(cause: impl ToString) -> ChannelError {
    ChannelError::Garbage(cause.to_string())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Seek as _, Write as _};
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn messages_and_files_arrive_in_order() {
        let (here, there) = pair().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"in the file").unwrap();
        file.rewind().unwrap();
        let text = "x".repeat(3 << 20);
        let sending = std::thread::spawn({
            let text = text.clone();
            move || {
                let sender = Sender::new(here).unwrap();
                sender.send(&(1_u64, text), &[]).unwrap();
                sender.send(&(2, String::new()), &[file.as_fd()]).unwrap();
            }
        });
        let mut receiver = Receiver::<(u64, String)>::new(there, MAX_MESSAGE);
        assert_eq!(receiver.receive().unwrap(), (1, text));
        assert!(receiver.file().is_none());
        assert_eq!(receiver.receive().unwrap(), (2, String::new()));
        let mut read = String::new();
        let mut file = File::from(receiver.file().unwrap());
        file.read_to_string(&mut read).unwrap();
        assert_eq!(read, "in the file");
        sending.join().unwrap();
        assert!(matches!(receiver.receive(), Err(ChannelError::Gone)));
    }

    #[test]
    fn garbage_is_refused_before_it_is_kept() {
        let (mut here, there) = pair().unwrap();
        let mut receiver = Receiver::<(u64, String)>::new(there, MAX_MESSAGE);
        here.write_all(&u32::MAX.to_le_bytes()).unwrap();
        assert!(matches!(receiver.receive(), Err(ChannelError::Garbage(_))));
        let (mut here, there) = pair().unwrap();
        let mut receiver = Receiver::<(u64, String)>::new(there, MAX_MESSAGE);
        here.write_all(&[3, 0, 0, 0, 1, 200, 200]).unwrap();
        assert!(matches!(receiver.receive(), Err(ChannelError::Garbage(_))));
        here.write_all(&[3, 0]).unwrap();
        drop(here);
        assert!(matches!(receiver.receive(), Err(ChannelError::Gone)));
    }

    #[test]
    fn who_has_gone_is_noticed_by_the_sender() {
        let (here, there) = pair().unwrap();
        drop(there);
        let sender = Sender::new(here).unwrap();
        let sent = sender.send(&(1_u64, String::new()), &[]);
        assert!(matches!(sent, Err(ChannelError::Gone)), "{sent:?}");
    }
}

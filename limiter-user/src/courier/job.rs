//! What the daemon has the courier do, and what comes of it.

use serde::{Deserialize, Serialize};

use crate::daemon::logging;

/// Bytes of an answer's body that are read; what follows is left.
pub const MOST_BODY: usize = 64 << 10;

/// Something that leaves this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Job {
    /// A request with method POST. Redirections are not followed.
    Post(Post),
    /// A mail.
    Mail(Box<Mail>),
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Post {
    /// Where to: `http` or `https`.
    pub url: String,
    /// Headers beside those of the protocol.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// How long it may take in all, in milliseconds.
    pub timeout_ms: u64,
    /// Certificates in PEM that are trusted instead of the system's.
    pub certificates: Option<Vec<u8>>,
}

/// A mail in plain text, and who takes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mail {
    /// The server, by whose name its certificate is judged.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How what is sent is kept from others.
    pub tls: Tls,
    /// User and password, where somebody logs in.
    pub login: Option<(String, String)>,
    /// What this host calls itself.
    pub own_name: String,
    /// The sender, a mailbox.
    pub from: String,
    /// To whom, an address.
    pub to: String,
    /// One line.
    pub subject: String,
    /// The text.
    pub text: String,
    /// By which a mail that comes twice is known, without its brackets.
    pub id: String,
    /// Its date, in seconds since the Unix epoch.
    pub date_s: u64,
    /// How long each step may take, in milliseconds; from MAIL on twice as long.
    pub timeout_ms: u64,
    /// Certificates in PEM that are trusted instead of the system's.
    pub certificates: Option<Vec<u8>>,
}

/// See `notify.smtp.tls`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tls {
    /// Required, and begun by STARTTLS.
    StartTls,
    /// From the first byte on.
    Wrapped,
    /// None.
    None,
}

impl Job {
    /// How long to wait for its answer, in milliseconds. A mail takes some ten steps, and no
    /// server is as slow as it may be in more than a few of them.
    #[must_use]
    pub const fn patience_ms(&self) -> u64 {
        match self {
            Self::Post(post) => post.timeout_ms,
            Self::Mail(mail) => mail.timeout_ms * 6,
        }
    }
}

/// What came of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// The server of a [`Post`] answered.
    Replied {
        /// With this status.
        status: u16,
        /// And this, up to [`MOST_BODY`].
        body: Vec<u8>,
    },
    /// The server of a [`Mail`] took it, with these words.
    Accepted(String),
    /// It will never work as it is, and why.
    Refused(String),
    /// It may work later; why it did not now.
    Later(String),
}

/// To the courier.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToCourier {
    /// Begin; the first message.
    Start {
        /// How it writes its log.
        log: (logging::Format, logging::Level),
        /// The number of the spawner, without which it does not go on.
        spawner: u32,
    },
    /// Do this.
    Job {
        /// By which its answer is known.
        id: u64,
        /// What.
        job: Job,
    },
}

/// From the courier.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Answered {
    /// Of the job.
    pub(super) id: u64,
    /// What came of it.
    pub(super) answer: Answer,
}

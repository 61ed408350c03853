//! `[decide]`: where requests are asked about and events come from, and whose
//! word is taken. The validated model; what each key means stands in
//! `docs/rules.md`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::Serialize;

use super::rule::Rule;
use crate::event::formats::Format;

/// What decides on requests and logins.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Decide {
    /// Where the proxy asks.
    pub listen: Listen,
    /// Where applications ask and report.
    pub api: Api,
    /// The group that may use the Unix sockets; `None`: their owner alone.
    pub group: Option<String>,
    /// Where datagrams come in.
    pub feedback: Vec<Feedback>,
    /// Log files that are followed.
    pub logs: Vec<LogFile>,
    /// Proxies whose headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// The header in which they name the client, as it is usually written.
    pub client_header: String,
    /// Whether the proxy that asks runs on this host and sees the peer.
    pub local_proxy: bool,
    /// Sources that no rule with a source key applies to.
    pub exempt: Vec<IpNet>,
    /// `false`: every rule is simulated.
    pub enforce: bool,
    /// How accounts are found and compared.
    pub accounts: Accounts,
    /// In the order of the file; at most [`MAX_RULES`](super::MAX_RULES), with
    /// distinct names.
    pub rules: Vec<Rule>,
}

/// `decide.listen`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Listen {
    /// A TCP port.
    Tcp(SocketAddr),
    /// A Unix socket; absolute, at most 107 bytes.
    Unix(PathBuf),
}

/// `decide.api`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Api {
    /// A Unix socket; absolute, at most 107 bytes.
    Unix(PathBuf),
    /// A TCP port, for those who show the token.
    Tcp {
        /// The port.
        listen: SocketAddr,
        /// The file that holds the token; absolute.
        token_file: PathBuf,
    },
}

/// One of `decide.feedback`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Feedback {
    /// Where datagrams arrive.
    pub at: Datagrams,
    /// What they hold, behind a syslog header or bare.
    pub format: Format,
    /// For [`Format::Fields`]: where each field is, as JSON pointers (RFC 6901).
    pub fields: BTreeMap<Field, String>,
}

/// Where datagrams arrive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Datagrams {
    /// A Unix socket; absolute, at most 107 bytes.
    Unix(PathBuf),
    /// A UDP port, for the senders listed.
    Udp {
        /// The port.
        listen: SocketAddr,
        /// The senders that are heard; never empty.
        from: Vec<IpNet>,
    },
}

/// One of `decide.logs`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LogFile {
    /// Absolute.
    pub path: PathBuf,
    /// What its lines hold.
    pub format: Format,
    /// For [`Format::Fields`]: where each field is, as JSON pointers (RFC 6901).
    pub fields: BTreeMap<Field, String>,
}

/// What of an event a field may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Field {
    /// When.
    At,
    /// What joins question and report.
    Id,
    /// The client.
    Source,
    /// The TCP peer.
    Peer,
    /// The method.
    Method,
    /// The host.
    Host,
    /// The path.
    Path,
    /// The status.
    Status,
    /// Whose login it is.
    Account,
    /// The authentication backend.
    Backend,
    /// `success` or `failure`.
    Outcome,
    /// The headers of the request, an object.
    Headers,
    /// The headers of the response, an object.
    ResponseHeaders,
    /// The first line of the request: method, path and version.
    Request,
}

/// `[decide.accounts]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Accounts {
    /// Where the account is looked for, in this order, where the event does not
    /// name it.
    pub from: Vec<AccountPlace>,
    /// Whether Unicode is brought to the form NFKC.
    pub nfkc: bool,
    /// Whether case is ignored.
    pub ignore_case: bool,
    /// Whether space around it is taken off.
    pub trim: bool,
}

/// Where an account may stand in a request or its response.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AccountPlace {
    /// The user's name in `Authorization: Basic`.
    Basic,
    /// A request header, by its name in lower case.
    Header(String),
    /// A response header, by its name in lower case.
    ResponseHeader(String),
    /// A cookie.
    Cookie(String),
    /// A parameter of the query.
    Query(String),
}

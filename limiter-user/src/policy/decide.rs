//! `[decide]`: where requests are asked about and events come from, and whose
//! word is taken. The validated model; what each key means stands in
//! `docs/rules.md`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::Serialize;

use super::challenge::Challenge;
use super::pages::Pages;
use super::rule::Rule;
use crate::challenge::Keys;
use crate::event::formats::Format;

/// What decides on requests and logins.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Decide {
    /// Where the proxy asks.
    pub listen: Listen,
    /// Where HAProxy asks and reports.
    pub spoe: Option<Listen>,
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
    /// What clients have to compute, and what that is good for.
    pub challenge: Challenge,
    /// In the order of the file; at most [`MAX_RULES`](super::MAX_RULES), with
    /// distinct names.
    pub rules: Vec<Rule>,
    /// The files that their refusals are made of.
    #[serde(skip)]
    pub pages: Pages,
    /// What challenges are signed with.
    #[serde(skip)]
    pub challenge_keys: Keys,
}

impl Default for Decide {
    /// What an empty section says, without rules.
    fn default() -> Self {
        Self {
            listen: Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], 4480))),
            spoe: None,
            api: Api::Unix(PathBuf::from("/run/limiter/api.sock")),
            group: None,
            feedback: Vec::new(),
            logs: Vec::new(),
            trusted_proxies: Vec::new(),
            client_header: "X-Forwarded-For".to_owned(),
            local_proxy: true,
            exempt: Vec::new(),
            enforce: true,
            accounts: Accounts::default(),
            challenge: Challenge::default(),
            rules: Vec::new(),
            pages: Pages::default(),
            challenge_keys: Keys::default(),
        }
    }
}

impl Default for Accounts {
    /// What an empty section says.
    fn default() -> Self {
        Self {
            from: Vec::new(),
            nfkc: true,
            ignore_case: true,
            trim: true,
            owner_header: None,
        }
    }
}

/// `decide.listen` and `decide.spoe`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Listen {
    /// A TCP port.
    Tcp(SocketAddr),
    /// A Unix socket; absolute, at most 107 bytes.
    Unix(PathBuf),
}

impl std::fmt::Display for Listen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
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
    /// For [`Format::Fields`]: where each field is, as JSON pointers (RFC 6901), by
    /// its name as in [`Fields::new`](crate::event::formats::Fields::new).
    pub fields: BTreeMap<String, String>,
    /// Whether whoever the server names as its client is its TCP peer on this host.
    pub direct: bool,
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
    /// For [`Format::Fields`]: where each field is, as JSON pointers (RFC 6901), by
    /// its name as in [`Fields::new`](crate::event::formats::Fields::new).
    pub fields: BTreeMap<String, String>,
    /// Whether whoever the server names as its client is its TCP peer on this host.
    pub direct: bool,
    /// Whether its requests were asked about, though no id joins question and report:
    /// only what became of them counts.
    pub asked: bool,
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
    /// The response header in which the origin names the mail address of the account's owner,
    /// in lower case.
    pub owner_header: Option<String>,
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
    /// A field of a body that is a form.
    Form(String),
    /// A value of a body that is JSON, by its pointer (RFC 6901).
    Json(String),
    /// A claim of a JSON Web Token, which nobody has verified.
    Token {
        /// The claim.
        claim: String,
        /// Where the token stands.
        place: TokenPlace,
    },
}

/// Where a token stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenPlace {
    /// `Authorization: Bearer`.
    Bearer,
    /// A request header, by its name in lower case.
    Header(String),
    /// A cookie.
    Cookie(String),
}

impl Accounts {
    /// Whether an account is looked for in bodies.
    #[must_use]
    pub fn reads_bodies(&self) -> bool {
        let is_body =
            |place: &AccountPlace| matches!(place, AccountPlace::Form(_) | AccountPlace::Json(_));
        self.from.iter().any(is_body)
    }
}

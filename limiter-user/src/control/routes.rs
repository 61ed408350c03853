//! What a request asks for: method, path and parameters, before anything is
//! done.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use hyper::header::HeaderMap;
use hyper::{Method, StatusCode, Uri};

use super::access::Right;
use super::api::{CaptureOrder, Entry, Refusal};
use super::audit::Asked;
use crate::engine::Mode;
use crate::keeper::ListKind;
use crate::nic::sockets::Connection;
use crate::policy::units::{duration_text, parse_duration};

/// What a client would like of an answer (RFC 7240).
pub(super) const PREFER: &str = "prefer";

/// The SSH connection by which whoever asks is logged in.
pub(super) const SSH_CONNECTION: &str = "ssh-connection";

/// Sources in an answer unless the request says how many.
const DEFAULT_SOURCES: usize = 20;

/// How long sources are observed unless the request says so.
const DEFAULT_OBSERVATION: Duration = Duration::from_secs(30);

/// How long they can be.
const OBSERVATIONS: RangeInclusive<Duration> = Duration::from_secs(2)..=Duration::from_hours(1);

/// How long a pause is unless the request says so.
const DEFAULT_PAUSE: Duration = Duration::from_mins(10);

/// How long it can be.
const PAUSES: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(24);

/// How long a policy can wait for its confirmation.
const TRIALS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(1);

const ACCOUNT: &str = "name the account, as it is typed at the login";

const REASON: &str = "say why in some words: the audit log keeps them";

/// What can be asked and ordered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Status,
    Policy,
    Stats,
    Sources {
        count: usize,
    },
    Observation {
        lasting: Duration,
    },
    BeginCapture,
    Captured {
        id: u64,
    },
    EndCapture {
        id: u64,
    },
    Blocks,
    List(ListKind),
    Explain {
        source: String,
    },
    Audit(Box<Asked>),
    EraseAccount,
    Reload {
        is_forced: bool,
        /// Rolled back unless confirmed within this time.
        confirm: Option<Duration>,
    },
    Confirm,
    Pause {
        lasting: Duration,
    },
    Resume,
    AddBlocks {
        is_forced: bool,
    },
    DeleteBlock {
        network: String,
        limit: Option<String>,
    },
    AddToList {
        kind: ListKind,
        is_forced: bool,
    },
    DeleteFromList {
        kind: ListKind,
        network: String,
        is_forced: bool,
    },
    Detach {
        interface: Option<String>,
    },
    Rules,
    Origins,
    SwitchRule {
        name: String,
        mode: Mode,
    },
    Account {
        account: String,
    },
    Unlock {
        account: String,
        reason: String,
    },
    TestNotify,
}

impl Route {
    /// What whoever asks for this must be allowed to do.
    pub(super) fn needs(&self) -> Right {
        match self {
            Self::Status
            | Self::Policy
            | Self::Stats
            | Self::Sources { .. }
            | Self::Observation { .. }
            | Self::Blocks
            | Self::List(_)
            | Self::Rules
            | Self::Origins
            | Self::Explain { .. } => Right::Look,
            Self::Audit(asked) => asked.needs(),
            // Captured packets have payload, and who fetches them takes them
            // away from whoever began the capture.
            Self::BeginCapture
            | Self::Captured { .. }
            | Self::EndCapture { .. }
            | Self::EraseAccount
            | Self::Reload { .. }
            | Self::Confirm
            | Self::Pause { .. }
            | Self::Resume
            | Self::AddBlocks { .. }
            | Self::DeleteBlock { .. }
            | Self::AddToList { .. }
            | Self::DeleteFromList { .. }
            | Self::SwitchRule { .. }
            // Who fails to log in where is nobody else's business.
            | Self::Account { .. }
            | Self::Unlock { .. }
            | Self::TestNotify
            | Self::Detach { .. } => Right::Change,
        }
    }
}

/// The outcome of [`route`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Routed {
    /// This is meant.
    Found(Route),
    /// The path exists; these methods do.
    WrongMethod(&'static str),
    /// There is no such path, or its parameters are wrong.
    Refused(Refusal),
}

/// Finds what a request is for.
pub(super) fn route(method: &Method, uri: &Uri) -> Routed {
    let mut parameters = Parameters::of(uri);
    let found = match (uri.path(), method.as_str()) {
        ("/v1/status", "GET") => Ok(Route::Status),
        ("/v1/policy", "GET") => Ok(Route::Policy),
        ("/v1/stats", "GET") => Ok(Route::Stats),
        ("/v1/sources", "GET") => parameters.count().map(|count| Route::Sources { count }),
        ("/v1/observation", "GET") => parameters
            .lasting("for", &OBSERVATIONS, "nothing can be observed for")
            .map(|lasting| lasting.unwrap_or(DEFAULT_OBSERVATION))
            .map(|lasting| Route::Observation { lasting }),
        ("/v1/captures", "POST") => Ok(Route::BeginCapture),
        ("/v1/captures", "GET") => parameters.id().map(|id| Route::Captured { id }),
        ("/v1/captures", "DELETE") => parameters.id().map(|id| Route::EndCapture { id }),
        ("/v1/blocks", "GET") => Ok(Route::Blocks),
        ("/v1/blocks", "POST") => {
            (parameters.force()).map(|is_forced| Route::AddBlocks { is_forced })
        }
        ("/v1/blocks", "DELETE") => parameters.need("network").map(|network| {
            let limit = parameters.take("limit");
            Route::DeleteBlock { network, limit }
        }),
        (path @ ("/v1/lists/allow" | "/v1/lists/deny"), method) => {
            let kind = match path {
                "/v1/lists/allow" => ListKind::Allow,
                _ => ListKind::Deny,
            };
            match method {
                "GET" => Ok(Route::List(kind)),
                // An allow cuts nobody off.
                "POST" if kind == ListKind::Allow => Ok(Route::AddToList {
                    kind,
                    is_forced: false,
                }),
                "POST" => {
                    (parameters.force()).map(|is_forced| Route::AddToList { kind, is_forced })
                }
                // Nor does the end of a deny.
                "DELETE" => parameters.need("network").and_then(|network| {
                    let is_forced = kind == ListKind::Allow && parameters.force()?;
                    Ok(Route::DeleteFromList {
                        kind,
                        network,
                        is_forced,
                    })
                }),
                _ => return Routed::WrongMethod("GET, POST, DELETE"),
            }
        }
        ("/v1/explain", "GET") => parameters
            .need("source")
            .map(|source| Route::Explain { source }),
        ("/v1/audit", "GET") => {
            Asked::read(&mut parameters).map(|asked| Route::Audit(Box::new(asked)))
        }
        ("/v1/audit/erase", "POST") => Ok(Route::EraseAccount),
        ("/v1/reload", "POST") => parameters.force().and_then(|is_forced| {
            let confirm = parameters.lasting("confirm", &TRIALS, "no policy can be tried for")?;
            Ok(Route::Reload { is_forced, confirm })
        }),
        ("/v1/confirm", "POST") => Ok(Route::Confirm),
        ("/v1/pause", "POST") => parameters
            .lasting("for", &PAUSES, "limiter cannot be paused for")
            .map(|lasting| Route::Pause {
                lasting: lasting.unwrap_or(DEFAULT_PAUSE),
            }),
        ("/v1/resume", "POST") => Ok(Route::Resume),
        ("/v1/notify/test", "POST") => Ok(Route::TestNotify),
        ("/v1/interfaces", "DELETE") => Ok(Route::Detach {
            interface: parameters.take("name"),
        }),
        ("/v1/rules", "GET") => Ok(Route::Rules),
        ("/v1/rules", "POST") => parameters.need("name").and_then(|name| {
            let mode = parameters.mode()?;
            Ok(Route::SwitchRule { name, mode })
        }),
        ("/v1/origins", "GET") => Ok(Route::Origins),
        ("/v1/accounts", "GET") => parameters
            .need_words("account", ACCOUNT)
            .map(|account| Route::Account { account }),
        ("/v1/accounts", "DELETE") => {
            (parameters.need_words("account", ACCOUNT)).and_then(|account| {
                let reason = parameters.need_words("reason", REASON)?;
                Ok(Route::Unlock { account, reason })
            })
        }
        ("/v1/rules", _) => return Routed::WrongMethod("GET, POST"),
        ("/v1/accounts", _) => return Routed::WrongMethod("GET, DELETE"),
        (
            "/v1/status" | "/v1/origins" | "/v1/policy" | "/v1/stats" | "/v1/sources"
            | "/v1/observation" | "/v1/explain" | "/v1/audit",
            _,
        ) => {
            return Routed::WrongMethod("GET");
        }
        ("/v1/blocks" | "/v1/captures", _) => return Routed::WrongMethod("GET, POST, DELETE"),
        (
            "/v1/reload" | "/v1/confirm" | "/v1/pause" | "/v1/resume" | "/v1/audit/erase"
            | "/v1/notify/test",
            _,
        ) => {
            return Routed::WrongMethod("POST");
        }
        ("/v1/interfaces", _) => return Routed::WrongMethod("DELETE"),
        _ => Err(Refusal::new(
            StatusCode::NOT_FOUND,
            "there is nothing here",
            "there are /v1/status, stats, sources, observation, captures, blocks, lists/allow, lists/deny, \
             rules, origins, accounts, explain, audit, audit/erase, reload, confirm, pause, resume, notify/test, interfaces",
        )),
    };
    match found.and_then(|route| parameters.none_left().map(|()| route)) {
        Ok(route) => Routed::Found(route),
        Err(refusal) => Routed::Refused(refusal),
    }
}

/// The parameters of a request that nobody has asked for yet.
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    fn of(uri: &Uri) -> Self {
        let query = uri.query().unwrap_or_default().as_bytes();
        let pairs = form_urlencoded::parse(query);
        Self(
            pairs
                .map(|(k, v)| (k.into_owned(), v.into_owned()))
                .collect(),
        )
    }

    pub(super) fn of_pairs(pairs: &[(&str, &str)]) -> Self {
        let pairs = pairs.iter();
        Self(
            pairs
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
        )
    }

    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(key, _)| key == name)?;
        Some(self.0.swap_remove(at).1)
    }

    fn need(&mut self, name: &str) -> Result<String, Refusal> {
        self.take(name).ok_or_else(|| {
            let detail = format!("the parameter `{name}` is missing");
            bad(detail, format!("add ?{name}=… to the address"))
        })
    }

    /// A value that is more than space; `help` says what to write.
    fn need_words(&mut self, name: &str, help: &str) -> Result<String, Refusal> {
        let text = self.need(name)?;
        match text.trim().is_empty() {
            false => Ok(text),
            true => {
                let detail = format!("the {name} is empty");
                Err(bad(detail, help).at(format!("parameter {name}")))
            }
        }
    }

    fn count(&mut self) -> Result<usize, Refusal> {
        let Some(text) = self.take("count") else {
            return Ok(DEFAULT_SOURCES);
        };
        text.parse().map_err(|_| {
            let detail = format!("`{text}` is not a count");
            bad(detail, "write a whole number, as ?count=20").at("parameter count")
        })
    }

    fn id(&mut self) -> Result<u64, Refusal> {
        let text = self.need("id")?;
        text.parse().map_err(|_| {
            let detail = format!("`{text}` is no number of a capture");
            bad(detail, "POST /v1/captures answers with one").at("parameter id")
        })
    }

    fn lasting(
        &mut self,
        name: &str,
        allowed: &RangeInclusive<Duration>,
        wrong: &str,
    ) -> Result<Option<Duration>, Refusal> {
        let Some(text) = self.take(name) else {
            return Ok(None);
        };
        let at = |detail, help| bad(detail, help).at(format!("parameter {name}"));
        let lasting = parse_duration(&text).map_err(|problem| at(problem.message, problem.help))?;
        if !allowed.contains(&lasting) {
            let [least, most] = [allowed.start(), allowed.end()].map(|end| duration_text(*end));
            let detail = format!("{wrong} {}", duration_text(lasting));
            return Err(at(detail, format!("allowed: {least} to {most}")));
        }
        Ok(Some(lasting))
    }

    fn force(&mut self) -> Result<bool, Refusal> {
        self.flag("force")
    }

    pub(super) fn flag(&mut self, name: &str) -> Result<bool, Refusal> {
        match self.take(name).as_deref() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(text) => {
                let detail = format!("`{text}` is neither true nor false");
                Err(bad(detail, format!("write ?{name}=true")).at(format!("parameter {name}")))
            }
        }
    }

    fn mode(&mut self) -> Result<Mode, Refusal> {
        let text = self.need("mode")?;
        let mode = Mode::ALL.into_iter().find(|mode| mode.name() == text);
        mode.ok_or_else(|| {
            let detail = format!("`{text}` is no mode of a rule");
            bad(detail, "allowed: on, simulate, off").at("parameter mode")
        })
    }

    pub(super) fn none_left(&self) -> Result<(), Refusal> {
        let Some((name, _)) = self.0.first() else {
            return Ok(());
        };
        let detail = format!("the parameter `{name}` is not known here, or stands twice");
        Err(bad(detail, "take it away"))
    }
}

pub(super) fn bad(detail: impl Into<String>, help: impl Into<String>) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, detail, help)
}

/// Whether whoever asks does not want what was changed listed in the answer
/// (RFC 7240, without commas in quoted values, which no preference known here
/// has).
pub(super) fn prefers_minimal(headers: &HeaderMap) -> bool {
    let values = headers.get_all(PREFER).into_iter();
    let values = values.filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .filter_map(|preference| preference.split(';').next())
        .map(|preference| preference.split_once('=').unwrap_or((preference, "")))
        // Of one that stands twice the first counts.
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("return"))
        .is_some_and(|(_, value)| {
            let value = value.trim().trim_matches('"');
            value.eq_ignore_ascii_case("minimal")
        })
}

/// The SSH connection by which whoever asks is logged in, if the request says so.
pub(super) fn login(headers: &HeaderMap) -> Result<Option<Connection>, Refusal> {
    let Some(value) = headers.get(SSH_CONNECTION) else {
        return Ok(None);
    };
    let read = value.to_str().ok().and_then(ssh_connection);
    read.map(Some).ok_or_else(|| {
        let detail = "the header does not name an SSH connection";
        let help =
            "send what $SSH_CONNECTION says, as 198.51.100.7 50122 192.0.2.1 22, or leave it out";
        bad(detail, help).at("header SSH-Connection")
    })
}

/// What `sshd` says in its session's `SSH_CONNECTION`: the client's address and
/// port, then the server's.
pub(super) fn ssh_connection(text: &str) -> Option<Connection> {
    let mut parts = text.split_ascii_whitespace();
    let mut end = || {
        let address = parts.next()?;
        // With its interface, where it is link-local.
        let address = address
            .split_once('%')
            .map_or(address, |(address, _)| address);
        Some((address.parse::<IpAddr>().ok()?, parts.next()?.parse().ok()?))
    };
    let (peer, local) = (end()?, end()?);
    let is_whole = parts.next().is_none() && peer.0.is_ipv4() == local.0.is_ipv4();
    is_whole.then(|| Connection::new(peer, local))
}

/// The entries of a body: one object, or an array of them.
pub(super) fn entries(body: &[u8]) -> Result<Vec<Entry>, Refusal> {
    let is_array = body.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'[');
    let read = if is_array {
        serde_json::from_slice(body)
    } else {
        serde_json::from_slice(body).map(|entry| vec![entry])
    };
    read.map_err(|error| {
        let help =
            r#"send {"network": "192.0.2.1", "for": "15m", "reason": "…"}, or an array of them"#;
        bad(format!("the body is not what is asked for: {error}"), help).at("body")
    })
}

/// The body of an order for a capture.
pub(super) fn capture_order(body: &[u8]) -> Result<CaptureOrder, Refusal> {
    serde_json::from_slice(body).map_err(|error| {
        let help = r#"send {"reason": "limit", "count": 100, "for": "1m"}, or {}"#;
        bad(format!("the body is not what is asked for: {error}"), help).at("body")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(method: Method, uri: &str) -> Routed {
        route(&method, &uri.parse().unwrap())
    }

    #[test]
    fn preferences() {
        let minimal = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                let value = hyper::header::HeaderValue::from_static(value);
                headers.append(PREFER, value);
            }
            prefers_minimal(&headers)
        };
        for values in [
            &["return=minimal"][..],
            &["Return = \"minimal\"; why=not"],
            &["respond-async, return=minimal"],
            &["wait=5", "return=minimal"],
        ] {
            assert!(minimal(values), "{values:?}");
        }
        for values in [
            &[][..],
            &["return=representation"],
            &["minimal"],
            &["a=\"return=minimal\""],
            &["return=representation, return=minimal"],
        ] {
            assert!(!minimal(values), "{values:?}");
        }
    }

    #[test]
    fn paths_parameters_and_methods() {
        assert_eq!(
            get(Method::GET, "/v1/sources?count=3"),
            Routed::Found(Route::Sources { count: 3 })
        );
        assert_eq!(
            get(Method::DELETE, "/v1/blocks?network=2001%3Adb8::/64&limit=a"),
            Routed::Found(Route::DeleteBlock {
                network: "2001:db8::/64".to_owned(),
                limit: Some("a".to_owned())
            })
        );
        assert_eq!(
            get(Method::GET, "/v1/observation?for=5m"),
            Routed::Found(Route::Observation {
                lasting: Duration::from_mins(5)
            })
        );
        assert_eq!(
            get(Method::DELETE, "/v1/captures?id=7"),
            Routed::Found(Route::EndCapture { id: 7 })
        );
        for (uri, is_forced) in [("?force=true", true), ("?force=false", false), ("", false)] {
            let kind = ListKind::Deny;
            for (path, route) in [
                (
                    "/v1/reload",
                    Route::Reload {
                        is_forced,
                        confirm: None,
                    },
                ),
                ("/v1/blocks", Route::AddBlocks { is_forced }),
                ("/v1/lists/deny", Route::AddToList { kind, is_forced }),
            ] {
                let found = get(Method::POST, &format!("{path}{uri}"));
                assert_eq!(found, Routed::Found(route), "{path}{uri}");
            }
        }
        assert_eq!(
            get(Method::PUT, "/v1/blocks"),
            Routed::WrongMethod("GET, POST, DELETE")
        );
    }

    #[test]
    fn accounts_and_reasons_are_words() {
        for (method, query, says) in [
            (Method::GET, "account=", "the account is empty"),
            (Method::GET, "account=%20", "the account is empty"),
            (Method::DELETE, "account=&reason=x", "the account is empty"),
            (Method::DELETE, "account=ann&reason=", "the reason is empty"),
            (Method::DELETE, "account=ann", "`reason` is missing"),
        ] {
            match get(method, &format!("/v1/accounts?{query}")) {
                Routed::Refused(refusal) => {
                    assert_eq!(refusal.status, 400);
                    assert!(refusal.detail.contains(says), "{query}: {refusal:?}");
                    assert!(!refusal.help.is_empty());
                }
                other => panic!("{query}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_lasts_for_a_time() {
        let minute = Duration::from_mins(1);
        for (uri, expected) in [
            (
                "/v1/reload?confirm=1m&force=true",
                Route::Reload {
                    is_forced: true,
                    confirm: Some(minute),
                },
            ),
            ("/v1/confirm", Route::Confirm),
            ("/v1/pause?for=60s", Route::Pause { lasting: minute }),
            (
                "/v1/pause",
                Route::Pause {
                    lasting: DEFAULT_PAUSE,
                },
            ),
            ("/v1/resume", Route::Resume),
        ] {
            assert_eq!(expected.needs(), Right::Change);
            assert_eq!(get(Method::POST, uri), Routed::Found(expected), "{uri}");
            let path = uri.split('?').next().unwrap();
            assert_eq!(get(Method::GET, path), Routed::WrongMethod("POST"));
        }
        for uri in [
            "/v1/reload?confirm=0s",
            "/v1/reload?confirm=2h",
            "/v1/pause?for=25h",
            "/v1/pause?for=",
            "/v1/resume?for=1s",
        ] {
            match get(Method::POST, uri) {
                Routed::Refused(refusal) => assert_eq!(refusal.status, 400, "{uri}"),
                other => panic!("{uri}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_is_not_known_is_refused_and_named() {
        for (uri, status) in [
            ("/", 404),
            ("/v1/status?x=1", 400),
            ("/v1/sources?count=-1", 400),
            ("/v1/observation?for=1s", 400),
            ("/v1/observation?for=61m", 400),
            ("/v1/observation?for=x", 400),
            ("/v1/captures", 400),
            ("/v1/captures?id=x", 400),
            ("/v1/explain", 400),
            ("/v1/explain?source=a&source=b", 400),
        ] {
            match get(Method::GET, uri) {
                Routed::Refused(refusal) => assert_eq!(refusal.status, status, "{uri}"),
                other => panic!("{uri}: {other:?}"),
            }
        }
    }

    #[test]
    fn force_is_yes_or_no_and_only_where_it_matters() {
        for (method, uri) in [
            (Method::POST, "/v1/reload?force=yes"),
            (Method::POST, "/v1/lists/allow?force=true"),
            (Method::DELETE, "/v1/lists/deny?network=::1&force=true"),
        ] {
            match get(method, uri) {
                Routed::Refused(refusal) => assert_eq!(refusal.status, 400, "{uri}"),
                other => panic!("{uri}: {other:?}"),
            }
        }
        let uri = "/v1/lists/allow?network=::1&force=true";
        let route = Route::DeleteFromList {
            kind: ListKind::Allow,
            network: "::1".to_owned(),
            is_forced: true,
        };
        assert_eq!(get(Method::DELETE, uri), Routed::Found(route));
    }

    #[test]
    fn logins() {
        for (text, peer, local) in [
            (
                "198.51.100.7 50122 192.0.2.1 22",
                "198.51.100.7:50122",
                "192.0.2.1:22",
            ),
            (
                "fe80::7%eth0 1 fe80::1%eth0 2222",
                "[fe80::7]:1",
                "[fe80::1]:2222",
            ),
            (
                "::ffff:192.0.2.7 1 ::ffff:192.0.2.1 22",
                "192.0.2.7:1",
                "192.0.2.1:22",
            ),
        ] {
            let found = ssh_connection(text).unwrap();
            assert_eq!(found.peer, peer.parse().unwrap());
            assert_eq!(found.local, local.parse().unwrap());
        }
        for text in [
            "",
            "198.51.100.7 50122 192.0.2.1",
            "198.51.100.7 50122 192.0.2.1 22 x",
            "198.51.100.7 65536 192.0.2.1 22",
            "198.51.100.7 1 2001:db8::1 22",
            "UNKNOWN 65535 UNKNOWN 65535",
        ] {
            assert_eq!(ssh_connection(text), None, "{text}");
        }
        let mut headers = HeaderMap::new();
        assert_eq!(login(&headers), Ok(None));
        let value = hyper::header::HeaderValue::from_static("x");
        headers.insert(SSH_CONNECTION, value);
        assert_eq!(login(&headers).unwrap_err().status, 400);
    }

    #[test]
    fn bodies_are_one_entry_or_many() {
        assert_eq!(entries(br#" {"network":"192.0.2.1"}"#).unwrap().len(), 1);
        assert_eq!(
            entries(br#"[{"network":"a","for":"1s"}]"#).unwrap().len(),
            1
        );
        for wrong in [&b""[..], b"[", b"{}", b"\xff", br#"{"network":"a","x":1}"#] {
            assert_eq!(entries(wrong).unwrap_err().place, "body");
        }
    }
}

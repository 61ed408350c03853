//! Servers that log JSON objects.

use std::sync::LazyLock;

use crate::event::draft::Field;
use crate::event::fault::NotUnderstood;
use crate::event::json::KEYS;
use crate::event::map::{FieldMap, Prefix};
use crate::event::value::{Manner, Message};
use crate::event::{Event, Outcome};

/// The event's keys, and nginx's variables by their own names. Where a log has
/// both `request` and its parts, the later one is believed; all of them say the
/// same.
static NGINX: LazyLock<FieldMap> = LazyLock::new(|| {
    let variables = [
        ("time", Field::At),
        ("time_iso8601", Field::At),
        ("msec", Field::At),
        ("request_id", Field::Id),
        ("remote_addr", Field::Source),
        ("realip_remote_addr", Field::Peer),
        ("request_method", Field::Method),
        ("request_uri", Field::Path),
        ("request", Field::Request),
        ("remote_user", Field::Account),
    ];
    FieldMap::of(KEYS.into_iter().chain(variables)).with_prefixes(&[
        header("http_", false),
        header("sent_http_", true),
        header("upstream_http_", true),
    ])
});

const fn header(begins: &'static str, response: bool) -> Prefix {
    Prefix {
        begins,
        response,
        underscores: true,
    }
}

pub(super) fn nginx(line: &[u8]) -> Result<Event, NotUnderstood> {
    NGINX.read(line, Manner::Logged)?.finish()
}

/// Caddy 2: `client_ip` is what `trusted_proxies` found (since 2.7), `remote_ip`
/// the peer. The id is the X-Limiter-Id of the response, which the configuration sets:
/// the log has the request as it came, and an X-Request-Id may be the client's own.
static CADDY: LazyLock<FieldMap> = LazyLock::new(|| {
    FieldMap::of([
        ("ts", Field::At),
        ("msg", Field::Message),
        ("request.remote_ip", Field::Peer),
        ("request.client_ip", Field::Source),
        ("request.method", Field::Method),
        ("request.host", Field::Host),
        ("request.uri", Field::Path),
        ("request.headers", Field::Headers),
        ("user_id", Field::Account),
        ("status", Field::Status),
        ("resp_headers", Field::ResponseHeaders),
    ])
});

/// Other lines than those of handled requests tell of the server, or of the same
/// request once more.
pub(super) fn caddy(line: &[u8]) -> Result<Option<Event>, NotUnderstood> {
    let mut draft = CADDY.read(line, Manner::Logged)?;
    if draft.message != Some(Message::Handled) {
        return Ok(None);
    }
    draft.event.id = header_of(&draft.event.response_headers, "x-limiter-id");
    draft.finish_by_peer().map(Some)
}

/// The first header of a name.
fn header_of(headers: &[(Box<str>, Box<str>)], name: &str) -> Option<Box<str>> {
    let mut headers = headers.iter();
    let found = headers.find(|(held, _)| held.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.clone())
}

/// Traefik: `ClientAddr` is the peer with its port, `ClientHost` the
/// X-Forwarded-For that Traefik trusted, else the peer.
static TRAEFIK: LazyLock<FieldMap> = LazyLock::new(|| {
    let header = |begins, response| Prefix {
        begins,
        response,
        underscores: false,
    };
    FieldMap::of([
        ("StartUTC", Field::At),
        ("ClientAddr", Field::Peer),
        ("ClientHost", Field::Forwarded),
        ("RequestMethod", Field::Method),
        ("RequestHost", Field::Host),
        ("RequestPath", Field::Path),
        ("DownstreamStatus", Field::Status),
        ("ClientUsername", Field::Account),
    ])
    .with_prefixes(&[header("request_", false), header("downstream_", true)])
});

pub(super) fn traefik(line: &[u8]) -> Result<Event, NotUnderstood> {
    TRAEFIK.read(line, Manner::Logged)?.finish_by_peer()
}

/// Envoy's operators have no names of their own; these are Istio's, and the
/// event's.
static ENVOY: LazyLock<FieldMap> = LazyLock::new(|| {
    let istio = [
        ("start_time", Field::At),
        ("request_id", Field::Id),
        ("downstream_remote_address", Field::Source),
        ("downstream_direct_remote_address", Field::Peer),
        ("authority", Field::Host),
        ("response_code", Field::Status),
        ("user_agent", Field::Header("User-Agent".into())),
        ("x_forwarded_for", Field::Header("X-Forwarded-For".into())),
    ];
    FieldMap::of(KEYS.into_iter().chain(istio))
});

pub(super) fn envoy(line: &[u8]) -> Result<Event, NotUnderstood> {
    ENVOY.read(line, Manner::Logged)?.finish_by_peer()
}

/// Kratos: one line when a request begins, one when it is done, and between them
/// one that says how a login ended. The address is the peer of Kratos.
static KRATOS: LazyLock<FieldMap> = LazyLock::new(|| {
    FieldMap::of([
        ("time", Field::At),
        ("msg", Field::Message),
        ("http_request.remote", Field::Peer),
        ("http_request.method", Field::Method),
        ("http_request.host", Field::Host),
        ("http_request.path", Field::Path),
        ("http_request.headers", Field::Headers),
        ("http_response.status", Field::Status),
        ("http_response.headers", Field::ResponseHeaders),
        ("identity_id", Field::Account),
    ])
});

/// The id of both lines is the X-Request-Id that a proxy gave, so that the
/// request is counted once.
pub(super) fn kratos(line: &[u8]) -> Result<Option<Event>, NotUnderstood> {
    let mut draft = KRATOS.read(line, Manner::Logged)?;
    draft.event.outcome = match draft.message {
        Some(Message::Handled) => None,
        Some(Message::LoginFailed) => Some(Outcome::Failure),
        Some(Message::LoginSucceeded) => Some(Outcome::Success),
        Some(Message::Other) | None => return Ok(None),
    };
    draft.event.id = header_of(&draft.event.headers, "x-request-id");
    draft.finish_by_peer().map(Some)
}

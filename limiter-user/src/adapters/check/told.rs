//! What a proxy tells of the request that it asks about.

use std::net::IpAddr;
use std::time::Duration;

use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};

use crate::challenge::CLEARANCE;
use crate::control::api::Refusal;
use crate::event::{Body, Event, address_in, without_port};
use crate::http::read_body;
use crate::policy::{AccountPlace, Count, Decide, KeyPart, TokenPlace};

/// Bytes of a body that is looked at, and how long it may take.
const MOST_BODY: usize = 64 << 10;
const BODY_TIME: Duration = Duration::from_secs(5);

/// Bytes of an id at most.
const MOST_ID: usize = 128;

/// What proxies tell, by the names of the headers in which they do.
static LIMITER_PEER: HeaderName = HeaderName::from_static("x-limiter-peer");
static LIMITER_ID: HeaderName = HeaderName::from_static("x-limiter-id");
static LIMITER_METHOD: HeaderName = HeaderName::from_static("x-limiter-method");
static LIMITER_URI: HeaderName = HeaderName::from_static("x-limiter-uri");
static LIMITER_HOST: HeaderName = HeaderName::from_static("x-limiter-host");
static FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
static FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
static FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// The headers of a request that anything asks for; the others are left where they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted(Vec<HeaderName>);

impl Wanted {
    pub(super) fn of(decide: &Decide) -> Self {
        let mut names = vec![
            decide.client_header.to_ascii_lowercase(),
            "authorization".to_owned(),
            "access-control-request-method".to_owned(),
            // Every question has it. An event without headers is one of which nobody told
            // them; with this one it is known that credentials were not sent.
            "host".to_owned(),
        ];
        for place in &decide.accounts.from {
            match place {
                AccountPlace::Header(name) => names.push(name.clone()),
                AccountPlace::Cookie(_) => names.push("cookie".to_owned()),
                AccountPlace::Form(_) | AccountPlace::Json(_) => {
                    names.extend(["content-type", "content-encoding"].map(str::to_owned));
                }
                AccountPlace::Token { place, .. } => match place {
                    TokenPlace::Header(name) => names.push(name.clone()),
                    TokenPlace::Cookie(_) => names.push("cookie".to_owned()),
                    TokenPlace::Bearer => {}
                },
                AccountPlace::Basic | AccountPlace::ResponseHeader(_) | AccountPlace::Query(_) => {}
            }
        }
        if decide.challenges() {
            names.extend(["cookie".to_owned(), CLEARANCE.to_owned()]);
        }
        for rule in &decide.rules {
            let distinct = match &rule.count {
                Count::Distinct(part) => Some(part),
                _ => None,
            };
            for part in rule.key.iter().chain(distinct) {
                match part {
                    KeyPart::Header(name) => names.push(name.clone()),
                    KeyPart::Cookie(_) => names.push("cookie".to_owned()),
                    _ => {}
                }
            }
        }
        names.sort_unstable();
        names.dedup();
        // The policy's are names of headers, or it would have been refused.
        let names = names.iter();
        Self(names.filter_map(|name| name.parse().ok()).collect())
    }

    /// Those of a request, each as often as it came.
    fn pick(&self, headers: &HeaderMap) -> Vec<(Box<str>, Box<str>)> {
        let each = self.0.iter().flat_map(|name| {
            let values = headers.get_all(name).iter();
            values.map(|value| (name.as_str().into(), text(value).into()))
        });
        each.collect()
    }
}

/// What nginx tells: each header is one that its configuration sets, and so overwrites.
pub(super) fn by_nginx(headers: &HeaderMap, wanted: &Wanted) -> Result<Event, Refusal> {
    let peer = needed(headers, &LIMITER_PEER)?;
    let peer = address_in(peer.trim()).ok_or_else(|| no_address(&LIMITER_PEER, &peer))?;
    let id = needed(headers, &LIMITER_ID)?;
    let method = needed(headers, &LIMITER_METHOD)?;
    let uri = needed(headers, &LIMITER_URI)?;
    let host = one(headers, &LIMITER_HOST)?;
    let headers = wanted.pick(headers);
    event(peer, Some(&id), method, uri, host, headers)
}

/// What Caddy and Traefik tell in forward authentication. Both overwrite these headers,
/// and put the address that their socket saw at the right of `X-Forwarded-For`. The id
/// stands in the query, which is the configuration's: no client can write it.
pub(super) fn by_forward_auth(
    headers: &HeaderMap,
    query: Option<&str>,
    wanted: &Wanted,
) -> Result<Event, Refusal> {
    let forwarded = needed(headers, &FORWARDED_FOR)?;
    let last = forwarded.rsplit(',').next().unwrap_or_default().trim();
    let peer = address_in(last).ok_or_else(|| no_address(&FORWARDED_FOR, last))?;
    let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    let id = pairs
        .filter(|(key, _)| key == "id")
        .map(|(_, id)| id)
        .next();
    let method = needed(headers, &FORWARDED_METHOD)?;
    let uri = needed(headers, &FORWARDED_URI)?;
    let host = one(headers, &FORWARDED_HOST)?;
    let headers = wanted.pick(headers);
    event(peer, id.as_deref(), method, uri, host, headers)
}

/// The body that came with a question; without one, or where the proxy sends none, nothing.
pub(super) async fn body(body: Incoming) -> Option<Body> {
    match read_body(body, MOST_BODY, BODY_TIME).await {
        Ok(bytes) if bytes.is_empty() => None,
        Ok(bytes) => Some(Body {
            bytes: bytes.as_ref().into(),
            is_whole: true,
        }),
        Err(_) => Some(Body {
            bytes: Box::default(),
            is_whole: false,
        }),
    }
}

/// Whether who is throttled is to wait at a question of its own.
pub(super) fn waits_later(query: Option<&str>) -> bool {
    let mut pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    pairs.any(|(key, value)| key == "throttle" && value == "later")
}

fn event(
    peer: IpAddr,
    id: Option<&str>,
    method: String,
    uri: String,
    host: Option<String>,
    headers: Vec<(Box<str>, Box<str>)>,
) -> Result<Event, Refusal> {
    if id.is_some_and(|id| id.is_empty() || id.len() > MOST_ID) {
        let detail = format!("an id that is empty or longer than {MOST_ID} bytes");
        return Err(unheard(detail));
    }
    Ok(Event {
        id: id.map(Into::into),
        peer: Some(peer),
        method: Some(method.into()),
        path: Some(uri.into()),
        host: host.map(|host| without_port(&host).into()),
        headers,
        ..Event::of(peer)
    })
}

/// Bytes of all headers as they were sent.
pub(super) fn length(headers: &HeaderMap) -> usize {
    // A colon, a space and the end of the line.
    const AROUND: usize = 4;
    let lines = headers.iter();
    lines
        .map(|(name, value)| name.as_str().len() + value.len() + AROUND)
        .sum()
}

/// The one header of a name.
pub(super) fn one(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>, Refusal> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => Ok(Some(text(value))),
        (Some(_), Some(_)) => Err(unheard(format!("{name} came more than once"))),
    }
}

fn needed(headers: &HeaderMap, name: &HeaderName) -> Result<String, Refusal> {
    one(headers, name)?.ok_or_else(|| unheard(format!("{name} did not come")))
}

fn no_address(name: &HeaderName, value: &str) -> Refusal {
    let value: String = value.chars().take(64).collect();
    unheard(format!("{name} is no address: {}", value.escape_debug()))
}

fn unheard(detail: String) -> Refusal {
    let help = "let the proxy set it once, whatever the client sends; `limiter integration` writes \
                the configuration";
    Refusal::new(StatusCode::BAD_REQUEST, detail, help)
}

/// What a header says; bytes that are no UTF-8 are shown as such.
fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

//! Solutions of challenges, as clients send them to the site that posed the puzzle.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{
    CACHE_CONTROL, CONTENT_TYPE, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN,
    SET_COOKIE,
};
use hyper::{Method, Response, StatusCode};
use serde_json::json;

use super::{Check, told};
use crate::adapters::api::random_id;
use crate::challenge::{CLEARANCE, SOLUTION, Solved, Unsolved, surplus};
use crate::control::api::Refusal;
use crate::engine::OWN_RESPONSE_HEADER;
use crate::http::Answer;

impl Check {
    /// Takes a solution; what it has bought is a cookie, and stands in the body for who keeps
    /// none.
    pub(super) async fn solution(
        &self,
        method: &Method,
        headers: &HeaderMap,
    ) -> Result<Answer, Refusal> {
        let solution = told::one(headers, &HeaderName::from_static(SOLUTION))?.unwrap_or_default();
        let host = told::one(headers, &HOST)?;
        let solved = match (method == Method::POST, random_id()) {
            (false, _) => Err(Unsolved::Malformed),
            (_, None) => Err(Unsolved::Unable),
            (_, Some(id)) => self.intake.redeem(&solution, host.as_deref(), id).await,
        };
        let is_https = headers
            .get(ORIGIN)
            .is_some_and(|it| it.as_bytes().starts_with(b"https:"));
        Ok(match solved {
            Ok(solved) => given(&solved, &surplus(names(headers), &solved.cookie), is_https),
            Err(unsolved) => refused(unsolved),
        })
    }
}

/// The names of a browser's cookies, the oldest first.
fn names(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(COOKIE).iter();
    let lines = lines.filter_map(|line| line.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';'));
    pairs.filter_map(|pair| pair.split_once('=').map(|(name, _)| name))
}

fn given(solved: &Solved, surplus: &[String], is_https: bool) -> Answer {
    let body = json!({
        "clearance": solved.clearance,
        "header": CLEARANCE,
        "expires": solved.end_ms / 1_000,
    });
    let mut answer = answer(StatusCode::OK, "application/json", &body, "solved");
    let secure = if is_https { "; Secure" } else { "" };
    let cookie = format!(
        "{}={}; Max-Age={}; Path=/; HttpOnly; SameSite=Lax{secure}",
        solved.cookie, solved.clearance, solved.life_s
    );
    let gone = surplus
        .iter()
        .map(|name| format!("{name}=; Max-Age=0; Path=/{secure}"));
    for cookie in std::iter::once(cookie).chain(gone) {
        // A token is of letters, digits and a few marks.
        if let Ok(cookie) = HeaderValue::from_str(&cookie) {
            let _more = answer.headers_mut().append(SET_COOKIE, cookie);
        }
    }
    answer
}

fn refused(unsolved: Unsolved) -> Answer {
    let status = StatusCode::from_u16(unsolved.status()).unwrap_or(StatusCode::FORBIDDEN);
    let body = json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or("Refused"),
        "status": status.as_u16(),
        "detail": unsolved.to_string(),
        "challenge_error": unsolved.name(),
    });
    answer(status, "application/problem+json", &body, "unsolved")
}

fn answer(
    status: StatusCode,
    kind: &'static str,
    body: &serde_json::Value,
    what: &'static str,
) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(format!("{body}\n"))));
    *answer.status_mut() = status;
    for (name, value) in [
        (CONTENT_TYPE, kind),
        (CACHE_CONTROL, "no-store"),
        (HeaderName::from_static(OWN_RESPONSE_HEADER), what),
    ] {
        let value = HeaderValue::from_static(value);
        let _old = answer.headers_mut().insert(name, value);
    }
    answer
}

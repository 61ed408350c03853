//! Answers in JSON.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;

use super::Answer;

/// `value` as JSON of the type `kind`, ended by LF; nobody keeps it.
pub fn json(status: StatusCode, kind: &'static str, value: &impl Serialize) -> Answer {
    // What is answered holds nothing that JSON cannot say.
    let mut text = serde_json::to_vec(value).unwrap_or_default();
    text.push(b'\n');
    let mut answer = Response::new(Full::new(Bytes::from(text)));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    let _old = headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    let _old = headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

//! Headers that tell a limit.
//!
//! `X-RateLimit-*` have no standard: their reset is a Unix time for most, and seconds
//! from now for others. `RateLimit` and `RateLimit-Policy` are those of
//! draft-ietf-httpapi-ratelimit-headers-10: structured fields (RFC 9651), `q` the
//! quota, `r` what is left of it, `t` the seconds until it is whole again. The
//! window, `w`, is left out: not every algorithm has one.

use hyper::header::{HeaderMap, HeaderName};

use super::set;
use crate::engine::Decision;
use crate::policy::LimitHeaders;

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// The headers of a style, as they are usually written.
#[must_use]
pub const fn names(style: LimitHeaders) -> &'static [&'static str] {
    match style {
        LimitHeaders::XRatelimit | LimitHeaders::XRatelimitDelta => &[
            "X-RateLimit-Limit",
            "X-RateLimit-Remaining",
            "X-RateLimit-Reset",
        ],
        LimitHeaders::Ietf => &["RateLimit", "RateLimit-Policy"],
        LimitHeaders::None => &[],
    }
}

/// What is known of the limit; nothing where no rule shows one.
pub(super) fn headers(style: LimitHeaders, decision: &Decision, now_s: u64) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let (Some(limit), Some(remaining)) = (decision.limit, decision.remaining) else {
        return headers;
    };
    let reset_s = match decision.retry_after_s {
        Some(retry_after_s) if decision.refuses() => Some(now_s.saturating_add(retry_after_s)),
        _ => decision.reset_s,
    };
    let left_s = reset_s.map(|reset_s| reset_s.saturating_sub(now_s));
    match style {
        LimitHeaders::XRatelimit | LimitHeaders::XRatelimitDelta => {
            set(&mut headers, LIMIT, &limit.to_string());
            set(&mut headers, REMAINING, &remaining.to_string());
            let is_delta = style == LimitHeaders::XRatelimitDelta;
            if let Some(reset) = if is_delta { left_s } else { reset_s } {
                set(&mut headers, RESET, &reset.to_string());
            }
        }
        LimitHeaders::Ietf => {
            let name = decision.shown.as_deref().unwrap_or("default");
            let left = left_s.map_or_else(String::new, |left_s| format!(";t={left_s}"));
            set(&mut headers, POLICY, &format!("\"{name}\";q={limit}"));
            set(
                &mut headers,
                RATELIMIT,
                &format!("\"{name}\";r={remaining}{left}"),
            );
        }
        LimitHeaders::None => {}
    }
    headers
}

//! Accounts in JSON Web Tokens (RFC 7519). Their signatures are not looked at: anybody can
//! write one in anybody's name.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::body::{self, Said};
use super::{cookie, header};
use crate::event::Event;
use crate::policy::TokenPlace;

/// Bytes of a token that is looked at; cookies and headers are hardly longer.
const MOST: usize = 16 << 10;

/// What a token claims; nothing where there is no token, or not one that can be read for sure.
pub(super) fn claim(event: &Event, claim: &str, place: &TokenPlace) -> Option<String> {
    let token = match place {
        TokenPlace::Bearer => bearer(header(&event.headers, "authorization")?)?,
        TokenPlace::Header(name) => {
            let value = header(&event.headers, name)?;
            bearer(value).unwrap_or(value)
        }
        TokenPlace::Cookie(name) => cookie(event, name)?,
    };
    let mut parts = token.split('.');
    let payload = parts.nth(1)?;
    let is_signed = parts.next().is_some() && parts.next().is_none();
    if !is_signed || payload.len() > MOST {
        return None;
    }
    let payload = URL_SAFE_NO_PAD.decode(payload).ok()?;
    match body::json(&payload, &[claim.to_owned()]) {
        Said::Account(account) => Some(account.into_owned()),
        Said::Nothing | Said::Unclear => None,
    }
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(payload: &str) -> String {
        format!("e30.{}.c2lnbmF0dXJl", URL_SAFE_NO_PAD.encode(payload))
    }

    fn event(name: &str, value: &str) -> Event {
        Event {
            headers: vec![(name.into(), value.into())],
            ..Event::of([192, 0, 2, 1].into())
        }
    }

    #[test]
    fn a_claim_is_read_where_the_policy_says() {
        let ann = token(r#"{"sub":"ann","exp":1}"#);
        let bearer = format!("bearer {ann}");
        let cookie = format!("a=b; session={ann}");
        let header = TokenPlace::Header("x-token".to_owned());
        for (place, name, value) in [
            (&TokenPlace::Bearer, "Authorization", &bearer),
            (&header, "X-Token", &ann),
            (&header, "X-Token", &bearer),
            (&TokenPlace::Cookie("session".to_owned()), "Cookie", &cookie),
        ] {
            let event = event(name, value);
            assert_eq!(
                claim(&event, "sub", place).as_deref(),
                Some("ann"),
                "{value}"
            );
            assert_eq!(claim(&event, "email", place), None);
        }
    }

    #[test]
    fn what_is_no_token_claims_nothing() {
        let twice = token(r#"{"sub":"ann","sub":"bob"}"#);
        let (ann, list) = (token(r#"{"sub":"ann"}"#), token(r#"{"sub":["ann"]}"#));
        let long = token(&format!(r#"{{"sub":"{}"}}"#, "a".repeat(MOST)));
        let more = format!("{ann}.e30");
        let unsigned = &ann[..ann.rfind('.').unwrap()];
        for value in [
            "", "ann", "..", "a.b.c", &twice, &list, &long, &more, unsigned,
        ] {
            let event = event("x-token", value);
            let place = TokenPlace::Header("x-token".to_owned());
            assert_eq!(claim(&event, "sub", &place), None, "{value}");
        }
    }
}

//! What a provider of CAPTCHAs is asked, and what its word is worth. Nothing here connects anywhere:
//! requests are made by the daemon, which has the secret, answers are read by who gets them.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::courier::{Answer, Post};
use crate::event::without_port;
use crate::policy::{Captcha, Provider};

/// Bytes of a client's answer at most: with a puzzle before it, it fits into a header as nginx
/// takes it (8 KiB).
pub const MOST_RESPONSE: usize = 7_000;

/// What a widget is told that it is for, where the provider has a word for that, and what has to
/// come back.
pub const ACTION: &str = "limiter";

/// What a page sends whose browser could not load the provider's script. The provider says of it
/// that it is no answer, unless it is away.
pub const UNLOADED: &str = "unloaded";

/// What a provider is asked about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// What the client has brought.
    pub response: String,
    /// Its address, where the provider is told.
    pub source: Option<IpAddr>,
}

/// What a provider's word comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It says that its CAPTCHA was solved on this site.
    Passed,
    /// It does not.
    Failed,
    /// Nobody knows, and why.
    Away(String),
}

/// Whether this can be a client's answer: 1 to [`MOST_RESPONSE`] characters of ASCII without spaces.
#[must_use]
pub fn is_response(text: &str) -> bool {
    (1..=MOST_RESPONSE).contains(&text.len()) && text.bytes().all(|it| it.is_ascii_graphic())
}

/// The request by which the provider's documentation has an answer verified.
#[must_use]
pub fn request(captcha: &Captcha, question: &Question) -> Post {
    let mut form = form_urlencoded::Serializer::new(String::new());
    let mut headers = vec![(
        "Content-Type".to_owned(),
        "application/x-www-form-urlencoded".to_owned(),
    )];
    let secret = &captcha.secret.0;
    match captcha.provider {
        Provider::FriendlyCaptcha => headers.push(("X-API-Key".to_owned(), secret.clone())),
        _ => {
            form.append_pair("secret", secret);
        }
    }
    form.append_pair("response", &question.response);
    if matches!(
        captcha.provider,
        Provider::Hcaptcha | Provider::FriendlyCaptcha
    ) {
        form.append_pair("sitekey", &captcha.site_key);
    }
    if let Some(source) = question.source.filter(|_| captcha.send_address) {
        form.append_pair("remoteip", &source.to_string());
    }
    Post {
        url: captcha.verify_url.clone(),
        headers,
        body: form.finish().into_bytes(),
        timeout_ms: u64::try_from(captcha.timeout.as_millis()).unwrap_or(u64::MAX),
        certificates: None,
    }
}

/// Statuses that say nothing of the client's answer: who asks is not let in, or comes too often or
/// too slowly.
const ABOUT_US: [u16; 4] = [401, 407, 408, 429];

/// Error codes of the providers that say nothing of it either: the secret or the site key is not
/// right, or the provider has failed.
const OURS: [&str; 6] = [
    "missing-input-secret",
    "invalid-input-secret",
    "internal-error",
    "auth_required",
    "auth_invalid",
    "sitekey_invalid",
];

/// Reads a provider's answer. `is_host` tells whether a name is that of the site that posed the
/// CAPTCHA. What a client could bring about by what it sends is never [`Finding::Away`].
pub fn judge(captcha: &Captcha, answer: &Answer, is_host: impl Fn(&str) -> bool) -> Finding {
    let (status, body) = match answer {
        Answer::Replied { status, body } => (*status, body),
        Answer::Later(why) | Answer::Refused(why) => return Finding::Away(why.clone()),
        Answer::Accepted(_) => return Finding::Away("that is no web server".to_owned()),
    };
    if !(200..500).contains(&status) || ABOUT_US.contains(&status) {
        return Finding::Away(format!("status {status}"));
    }
    let said: Value = serde_json::from_slice(body).unwrap_or_default();
    let codes = said["error-codes"].as_array().into_iter().flatten();
    let codes = codes.chain([&said["error"]["error_code"]]);
    let mut codes = codes.filter_map(Value::as_str);
    match said["success"].as_bool() {
        Some(true) if status < 300 => match is_meant(captcha, &said, is_host) {
            true => Finding::Passed,
            false => Finding::Failed,
        },
        Some(_) => match codes.find(|code| OURS.contains(code)) {
            Some(code) => Finding::Away(format!("status {status}, {code}")),
            None => Finding::Failed,
        },
        None if status < 400 => {
            Finding::Away(format!("status {status}, and what it says is no verdict"))
        }
        None => Finding::Failed,
    }
}

/// Whether a success is one of this site, and for this.
fn is_meant(captcha: &Captcha, said: &Value, is_host: impl Fn(&str) -> bool) -> bool {
    let names_host = || said["hostname"].as_str().is_some_and(&is_host);
    let is_action = || said["action"].as_str() == Some(ACTION);
    match captcha.provider {
        Provider::Turnstile => names_host() && is_action(),
        Provider::Hcaptcha => names_host(),
        Provider::RecaptchaV3 => {
            let score = said["score"].as_f64();
            names_host() && is_action() && score.is_some_and(|score| score >= captcha.score)
        }
        Provider::FriendlyCaptcha => {
            // It may not know; that it was asked of this site's key is known all the same.
            let origin = said["data"]["challenge"]["origin"].as_str();
            let origin = origin.unwrap_or_default();
            let host = origin.split_once("://").map_or(origin, |(_, host)| host);
            host.is_empty() || is_host(without_port(host))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::policy::{Hidden, OnFailure};

    fn captcha(provider: Provider) -> Captcha {
        Captcha {
            provider,
            site_key: "the-site".to_owned(),
            secret: Hidden("a secret & more".to_owned()),
            verify_url: provider.verify_url().to_owned(),
            script_url: provider.script_url().to_owned(),
            timeout: Duration::from_secs(5),
            on_failure: OnFailure::Closed,
            score: 0.5,
            send_address: true,
        }
    }

    fn replied(status: u16, said: &Value) -> Answer {
        let body = said.to_string().into_bytes();
        Answer::Replied { status, body }
    }

    fn found(provider: Provider, answer: &Answer) -> Finding {
        judge(&captcha(provider), answer, |host| host == "example.com")
    }

    #[test]
    fn each_provider_is_asked_as_it_documents() {
        let question = Question {
            response: "a+b/c".to_owned(),
            source: Some([192, 0, 2, 1].into()),
        };
        let secret = "secret=a+secret+%26+more&";
        let response = "response=a%2Bb%2Fc";
        let address = "&remoteip=192.0.2.1";
        for (provider, body) in [
            (Provider::Turnstile, format!("{secret}{response}{address}")),
            (
                Provider::Hcaptcha,
                format!("{secret}{response}&sitekey=the-site{address}"),
            ),
            (
                Provider::RecaptchaV3,
                format!("{secret}{response}{address}"),
            ),
        ] {
            let post = request(&captcha(provider), &question);
            assert_eq!(String::from_utf8(post.body).unwrap(), body);
            assert_eq!(post.url, provider.verify_url());
            assert_eq!((post.headers.len(), post.timeout_ms), (1, 5_000));
        }
        let chosen = Captcha {
            send_address: false,
            ..captcha(Provider::FriendlyCaptcha)
        };
        let post = request(&chosen, &question);
        let body = format!("{response}&sitekey=the-site");
        assert_eq!(String::from_utf8(post.body).unwrap(), body);
        let key = ("X-API-Key".to_owned(), "a secret & more".to_owned());
        assert_eq!(post.headers[1], key);
    }

    #[test]
    fn a_success_counts_where_it_is_of_this_site_and_for_this() {
        use Provider::{FriendlyCaptcha, Hcaptcha, RecaptchaV3, Turnstile};
        let of = |host: &str, action: &str, score: f64| json!({ "success": true, "hostname": host, "action": action, "score": score });
        let friendly = |origin: &str| json!({ "success": true, "data": { "challenge": { "origin": origin } } });
        for (provider, said, passes) in [
            (Turnstile, of("example.com", ACTION, 0.0), true),
            (Turnstile, of("evil.example", ACTION, 1.0), false),
            (Turnstile, of("example.com", "login", 1.0), false),
            (Turnstile, json!({ "success": true }), false),
            (Hcaptcha, of("example.com", "", 0.0), true),
            (Hcaptcha, of("evil.example", "", 0.0), false),
            (RecaptchaV3, of("example.com", ACTION, 0.5), true),
            (RecaptchaV3, of("example.com", ACTION, 0.4), false),
            (RecaptchaV3, of("example.com", "login", 0.9), false),
            (RecaptchaV3, of("evil.example", ACTION, 0.9), false),
            (
                RecaptchaV3,
                json!({ "success": true, "hostname": "example.com", "action": ACTION }),
                false,
            ),
            (FriendlyCaptcha, friendly("https://example.com:8443"), true),
            (FriendlyCaptcha, friendly("example.com"), true),
            (FriendlyCaptcha, friendly(""), true),
            (FriendlyCaptcha, friendly("https://evil.example"), false),
        ] {
            let expected = if passes {
                Finding::Passed
            } else {
                Finding::Failed
            };
            assert_eq!(
                found(provider, &replied(200, &said)),
                expected,
                "{provider:?} {said}"
            );
            // With another status it is no success.
            assert_ne!(found(provider, &replied(400, &said)), Finding::Passed);
        }
    }

    #[test]
    fn what_a_client_can_bring_about_is_never_the_providers_failure() {
        let failed = |code: &str| json!({ "success": false, "error-codes": [code] });
        let friendly = |code: &str| json!({ "success": false, "error": { "error_code": code } });
        let is_away =
            |answer: &Answer| matches!(found(Provider::Turnstile, answer), Finding::Away(_));
        for (answer, away) in [
            (replied(200, &failed("invalid-input-response")), false),
            (replied(200, &failed("timeout-or-duplicate")), false),
            (replied(400, &failed("bad-request")), false),
            (replied(400, &friendly("response_missing")), false),
            (replied(403, &json!("no")), false),
            (replied(413, &json!("too large")), false),
            (replied(200, &failed("invalid-input-secret")), true),
            (replied(400, &failed("internal-error")), true),
            (replied(400, &friendly("sitekey_invalid")), true),
            (replied(401, &friendly("auth_invalid")), true),
            (replied(429, &json!({})), true),
            (replied(500, &json!({ "success": true })), true),
            (replied(302, &json!("elsewhere")), true),
            (replied(200, &json!({ "success": "true" })), true),
            (replied(200, &json!("a".repeat(9_000))), true),
            (Answer::Later("no answer within 5 s".to_owned()), true),
        ] {
            assert_eq!(is_away(&answer), away, "{answer:?}");
        }
        let cut = Answer::Replied {
            status: 200,
            body: b"{\"success\": true, \"hostname\": \"example.com\"".to_vec(),
        };
        assert!(is_away(&cut));
    }

    #[test]
    fn an_answer_is_bounded() {
        assert!(is_response("a.B-_~:/+="));
        assert!(is_response(&"a".repeat(MOST_RESPONSE)));
        for bad in ["", "a b", "ä", "a\r\n", &"a".repeat(MOST_RESPONSE + 1)] {
            assert!(!is_response(bad), "{bad}");
        }
    }
}

//! What is answered where a challenge has to be solved: a page for who navigates, else an object
//! that holds the same puzzle.
//!
//! The page has all that it needs in it, and its policy (CSP) lets nothing else in: scripts and
//! styles by their hashes, the worker as a blob of the page's own. What is filled in is limiter's,
//! but for the contact, which is the policy's and escaped.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hyper::header::{CONTENT_SECURITY_POLICY, HeaderMap, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use hyper::header::{HeaderValue, VARY};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::body::{HTML, PROBLEM, Told, filled, html, problem, problem_value};
use super::challenge_words::{ENGLISH, GERMAN, Words};
use super::{Asked, accept, set};
use crate::challenge::{PATH, Posed, SOLUTION};

const PAGE: &str = include_str!("../../assets/challenge/page.html");
const STYLE: &str = include_str!("../../assets/challenge/page.css");
const SCRIPT: &str = include_str!("../../assets/challenge/page.js");
const SOLVER: &str = include_str!("../../assets/challenge/solver.js");

/// What the page may do: that alone which stands in it.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = |text: &str| BASE64_STANDARD.encode(Sha256::digest(text));
    format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; worker-src blob:; \
         connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
        hash(SCRIPT),
        hash(STYLE)
    )
});

/// A page for who navigates, else an object. Without a puzzle, which needs a key, both only say
/// that there is a challenge.
pub(super) fn body(
    told: &Told,
    asked: Asked<'_>,
    contact: Option<&str>,
    headers: &mut HeaderMap,
) -> (Option<&'static str>, String) {
    let varies = HeaderValue::from_static("Accept, Accept-Language, Sec-Fetch-Mode");
    let _old = headers.insert(VARY, varies);
    let is_page = navigates(asked);
    match (asked.puzzle, is_page) {
        (None, true) => (Some(HTML), html(told)),
        (None, false) => (Some(PROBLEM), problem(told)),
        (Some(posed), true) => {
            set(headers, CONTENT_SECURITY_POLICY, &POLICY);
            set(headers, X_CONTENT_TYPE_OPTIONS, "nosniff");
            set(headers, REFERRER_POLICY, "same-origin");
            let languages = [&ENGLISH, &GERMAN];
            let offered = languages.map(|words| words.lang);
            let words = languages[accept::language(asked.language, &offered)];
            (Some(HTML), page(posed, words, contact))
        }
        (Some(posed), false) => (Some(PROBLEM), object(told, posed)),
    }
}

/// Whether a browser would show the answer. It says so itself; who says nothing does if it likes
/// pages best.
fn navigates(asked: Asked<'_>) -> bool {
    let is_navigation = |mode: &str| mode.eq_ignore_ascii_case("navigate");
    asked.mode.is_none_or(is_navigation) && accept::wants_html(asked.accept)
}

fn object(told: &Told, posed: &Posed) -> String {
    let mut problem = problem_value(told);
    problem["puzzle"] = json!({
        "algorithm": "SHA-256",
        "token": posed.token,
        "seed": posed.seed(),
        "zero_bits": posed.bits,
        "expires": posed.end_ms / 1_000,
        "path": PATH,
        "header": SOLUTION,
    });
    format!("{problem}\n")
}

fn page(posed: &Posed, words: &Words, contact: Option<&str>) -> String {
    filled(PAGE, |word| {
        let text = match word {
            "token" => return Some(posed.token.clone()),
            "seed" => return Some(posed.seed().to_owned()),
            "bits" => return Some(posed.bits.to_string()),
            "resend" => return Some(posed.resend.to_string()),
            "contact" => return Some(reaching(words, contact)),
            "unsent" if posed.resend => return Some(format!("<p>{}</p>\n", words.unsent)),
            "path" => PATH,
            "style" => STYLE,
            "script" => SCRIPT,
            "solver" => SOLVER,
            word => words.of(word)?,
        };
        Some(text.to_owned())
    })
}

/// How to reach a human.
fn reaching(words: &Words, contact: Option<&str>) -> String {
    let Some(contact) = contact else {
        return words.nobody.to_owned();
    };
    let shown = contact.strip_prefix("mailto:");
    let shown = escaped(shown.or(contact.strip_prefix("tel:")).unwrap_or(contact));
    let is_link = ["mailto:", "tel:", "https://"]
        .iter()
        .any(|scheme| contact.starts_with(scheme));
    let shown = match is_link {
        true => format!("<a href=\"{}\">{shown}</a>", escaped(contact)),
        false => shown,
    };
    format!("{} {shown}", words.reach)
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use hyper::StatusCode;

    use super::*;
    use crate::policy::Action;

    const TOLD: Told = Told {
        action: Action::JsChallenge,
        status: StatusCode::FORBIDDEN,
        retry_after_s: 5,
    };
    const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

    fn posed(resend: bool) -> Posed {
        Posed {
            token: "c2FpZA.bWFyaw".to_owned(),
            bits: 18,
            end_ms: 5_000,
            resend,
        }
    }

    fn answer(asked: Asked<'_>, contact: Option<&str>) -> (HeaderMap, &'static str, String) {
        let mut headers = HeaderMap::new();
        let (kind, body) = body(&TOLD, asked, contact, &mut headers);
        (headers, kind.unwrap(), body)
    }

    #[test]
    fn only_navigations_get_a_page() {
        let posed = posed(false);
        let asked = |accept, mode| Asked {
            accept,
            mode,
            puzzle: Some(&posed),
            ..Asked::default()
        };
        for (accept, mode, is_page) in [
            (Some(BROWSER), Some("navigate"), true),
            (Some(BROWSER), None, true),
            (Some(BROWSER), Some("cors"), false),
            (Some("*/*"), Some("navigate"), false),
            (Some("image/avif,*/*"), Some("no-cors"), false),
            (None, None, false),
        ] {
            let (headers, kind, body) = answer(asked(accept, mode), None);
            assert_eq!(kind == HTML, is_page, "{accept:?} {mode:?}");
            let has_policy = headers.contains_key(CONTENT_SECURITY_POLICY);
            assert_eq!(has_policy, is_page, "{headers:?}");
            if !is_page {
                let said: serde_json::Value = serde_json::from_str(&body).unwrap();
                let puzzle = json!({
                    "algorithm": "SHA-256", "token": "c2FpZA.bWFyaw", "seed": "bWFyaw",
                    "zero_bits": 18, "expires": 5, "path": "/.limiter/challenge",
                    "header": "x-limiter-solution",
                });
                assert_eq!(
                    (&said["challenge"], &said["puzzle"]),
                    (&json!("js_challenge"), &puzzle)
                );
            }
        }
    }

    #[test]
    fn the_page_is_whole_and_speaks_two_languages() {
        let (sent, unsent) = (posed(false), posed(true));
        for (language, lang) in [
            (None, "en"),
            (Some("de-AT,de;q=0.9,en;q=0.8"), "de"),
            (Some("en-GB,de;q=0.9"), "en"),
            (Some("fr, de;q=0.2"), "de"),
            (Some("fr"), "en"),
            (Some("de;q=0, *"), "en"),
        ] {
            for posed in [&sent, &unsent] {
                let asked = Asked {
                    accept: Some(BROWSER),
                    language,
                    puzzle: Some(posed),
                    ..Asked::default()
                };
                let (_, _, page) = answer(asked, None);
                assert!(
                    page.contains(&format!("<html lang=\"{lang}\">")),
                    "{language:?}"
                );
                assert!(!page.contains("{{") && !page.contains("}}"), "{page}");
                assert!(page.contains("data-token=\"c2FpZA.bWFyaw\""), "{page}");
                let words = if lang == "de" { &GERMAN } else { &ENGLISH };
                assert_eq!(page.contains(words.unsent), posed.resend, "{page}");
                assert!(
                    !page.contains("<p></p>") && !page.contains("hidden></p>"),
                    "{page}"
                );
            }
        }
    }

    #[test]
    fn a_contact_is_escaped_and_a_link_where_it_is_one() {
        let shown = |contact| reaching(&ENGLISH, contact);
        let mail = shown(Some("mailto:help@example.com"));
        assert!(
            mail.ends_with("<a href=\"mailto:help@example.com\">help@example.com</a>"),
            "{mail}"
        );
        let text = shown(Some("<b>javascript:\"x\"</b>"));
        assert!(
            text.ends_with("&lt;b&gt;javascript:&quot;x&quot;&lt;/b&gt;"),
            "{text}"
        );
        assert_eq!(shown(None), ENGLISH.nobody);
    }

    #[test]
    fn the_policy_names_what_stands_in_the_page() {
        let posed = posed(false);
        let page = page(&posed, &ENGLISH, None);
        for (tag, end) in [("<script>", "</script>"), ("<style>", "</style>")] {
            let text = page.split_once(tag).unwrap().1.split_once(end).unwrap().0;
            let hash = BASE64_STANDARD.encode(Sha256::digest(text));
            assert!(
                POLICY.contains(&format!("'sha256-{hash}'")),
                "{tag} {}",
                *POLICY
            );
        }
    }
}

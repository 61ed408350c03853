//! What is answered where a challenge has to be solved: a page for who navigates, else an object
//! that holds the same puzzle.
//!
//! The page has all that it needs in it, and its policy (CSP) lets nothing else in: scripts and
//! styles by their hashes, the worker as a blob of the page's own. Where a provider poses a CAPTCHA,
//! its script comes too, and what that needs. What is filled in is limiter's, but for the contact
//! and the provider's settings, which are the policy's and escaped.

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
use crate::challenge::{PATH, Posed, Price, SOLUTION, captcha};
use crate::policy::{Captcha, Challenge, Provider};

const PAGE: &str = include_str!("../../assets/challenge/page.html");
const STYLE: &str = include_str!("../../assets/challenge/page.css");
const SOLVER: &str = include_str!("../../assets/challenge/solver.js");

/// The page's script where something is computed, and where a provider is asked.
const WORK: &str = concat!(
    include_str!("../../assets/challenge/work.js"),
    include_str!("../../assets/challenge/page.js")
);
const ASK: &str = concat!(
    include_str!("../../assets/challenge/captcha.js"),
    include_str!("../../assets/challenge/page.js")
);

/// What the page may do that computes: that alone which stands in it.
static WORK_POLICY: LazyLock<String> = LazyLock::new(|| {
    format!(
        "{}; script-src {}; style-src {}; worker-src blob:; connect-src 'self'",
        BOUNDS,
        hash(WORK),
        hash(STYLE)
    )
});

const BOUNDS: &str =
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'";

/// How a source of scripts or styles that stands in the page is named.
fn hash(text: &str) -> String {
    format!("'sha256-{}'", BASE64_STANDARD.encode(Sha256::digest(text)))
}

/// What the page may do where a provider poses a CAPTCHA: what stands in it, and what the provider
/// documents that its widget needs.
fn captcha_policy(asked: &Captcha) -> String {
    let (own, style) = (hash(ASK), hash(STYLE));
    let origin = origin(&asked.script_url);
    let [script, frame, more] = match asked.provider {
        _ if asked.script_url != asked.provider.script_url() => [origin; 3],
        Provider::Turnstile => [origin, origin, ""],
        Provider::Hcaptcha => ["https://hcaptcha.com https://*.hcaptcha.com"; 3],
        Provider::RecaptchaV3 => [
            "https://www.google.com/recaptcha/ https://www.gstatic.com/recaptcha/",
            "https://www.google.com/recaptcha/ https://recaptcha.google.com/recaptcha/",
            "https://www.google.com/recaptcha/",
        ],
        Provider::FriendlyCaptcha => [origin, "https://*.frcapi.com", "https://*.frcapi.com"],
    };
    format!(
        "{BOUNDS}; script-src {own} {script}; style-src {style} {more}; frame-src {frame}; \
         connect-src 'self' {more}"
    )
}

/// Scheme, host and port of an address.
fn origin(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = rest.find(['/', '?', '#']).map_or(0, |at| rest.len() - at);
    &url[..url.len() - path]
}

/// A page for who navigates, else an object. Without a puzzle, which needs a key, both only say
/// that there is a challenge.
pub(super) fn body(
    told: &Told,
    asked: Asked<'_>,
    challenge: &Challenge,
    headers: &mut HeaderMap,
) -> (Option<&'static str>, String) {
    let varies = HeaderValue::from_static("Accept, Accept-Language, Sec-Fetch-Mode");
    let _old = headers.insert(VARY, varies);
    let is_page = navigates(asked);
    let Some((posed, task)) = asked.puzzle.and_then(|it| Some((it, task(it, challenge)?))) else {
        return match is_page {
            true => (Some(HTML), html(told)),
            false => (Some(PROBLEM), problem(told)),
        };
    };
    if !is_page {
        return (Some(PROBLEM), object(told, posed, &task));
    }
    let policy = match &task {
        Task::Work(_) => WORK_POLICY.clone(),
        Task::Ask(captcha) => captcha_policy(captcha),
    };
    set(headers, CONTENT_SECURITY_POLICY, &policy);
    set(headers, X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(headers, REFERRER_POLICY, "same-origin");
    let languages = [&ENGLISH, &GERMAN];
    let offered = languages.map(|words| words.lang);
    let words = languages[accept::language(asked.language, &offered)];
    let contact = challenge.contact.as_deref();
    (Some(HTML), page(posed, &task, words, contact))
}

/// What the page has somebody do.
enum Task<'a> {
    /// The browser: look for a number, with so many zero bits.
    Work(u8),
    /// Whoever sits before it: a CAPTCHA.
    Ask(&'a Captcha),
}

/// `None`: another policy has posed the puzzle.
fn task<'a>(posed: &Posed, challenge: &'a Challenge) -> Option<Task<'a>> {
    match posed.price {
        Price::Work(bits) => Some(Task::Work(bits)),
        Price::Captcha(provider) => {
            let captcha = challenge.captcha.as_ref();
            captcha.filter(|it| it.provider == provider).map(Task::Ask)
        }
    }
}

/// Whether a browser would show the answer. It says so itself; who says nothing does if it likes
/// pages best.
fn navigates(asked: Asked<'_>) -> bool {
    let is_navigation = |mode: &str| mode.eq_ignore_ascii_case("navigate");
    asked.mode.is_none_or(is_navigation) && accept::wants_html(asked.accept)
}

fn object(told: &Told, posed: &Posed, task: &Task<'_>) -> String {
    let mut problem = problem_value(told);
    let mut puzzle = match task {
        Task::Work(bits) => json!({
            "algorithm": "SHA-256",
            "seed": posed.seed(),
            "zero_bits": bits,
        }),
        Task::Ask(captcha) => json!({
            "provider": captcha.provider.name(),
            "site_key": captcha.site_key,
            "action": captcha::ACTION,
        }),
    };
    puzzle["token"] = json!(posed.token);
    puzzle["expires"] = json!(posed.end_ms / 1_000);
    puzzle["path"] = json!(PATH);
    puzzle["header"] = json!(SOLUTION);
    let name = match task {
        Task::Work(_) => "puzzle",
        Task::Ask(_) => "captcha",
    };
    problem[name] = puzzle;
    format!("{problem}\n")
}

fn page(posed: &Posed, task: &Task<'_>, words: &Words, contact: Option<&str>) -> String {
    let (told, script) = match task {
        Task::Work(_) => (&words.work, WORK),
        Task::Ask(_) => (&words.captcha, ASK),
    };
    filled(PAGE, |word| {
        let text = match word {
            "token" => return Some(posed.token.clone()),
            "task" => return Some(attributes(posed, task)),
            "widget" => return Some(widget(task, words)),
            "what" => return Some(what(task, told.what)),
            "resend" => return Some(posed.resend.to_string()),
            "contact" => return Some(reaching(words, contact)),
            "unsent" if posed.resend => return Some(format!("<p>{}</p>\n", words.unsent)),
            "path" => PATH,
            "style" => STYLE,
            "script" => script,
            word => told.of(word).or_else(|| words.of(word))?,
        };
        Some(text.to_owned())
    })
}

/// What the page's script has to know of the task.
fn attributes(posed: &Posed, task: &Task<'_>) -> String {
    match task {
        Task::Work(bits) => format!("data-seed=\"{}\" data-bits=\"{bits}\"", posed.seed()),
        Task::Ask(captcha) => format!(
            "data-provider=\"{}\" data-site-key=\"{}\" data-script=\"{}\" data-action=\"{}\" \
             data-unloaded=\"{}\"",
            captcha.provider.name(),
            escaped(&captcha.site_key),
            escaped(&captcha.script_url),
            captcha::ACTION,
            captcha::UNLOADED,
        ),
    }
}

/// What is seen of the task while it is under way.
fn widget(task: &Task<'_>, words: &Words) -> String {
    match task {
        Task::Work(_) => format!(
            "<progress data-state=\"working sending\" max=\"1\" value=\"0\" aria-label=\"{}\" hidden></progress>\n\
             <script type=\"text/plain\" id=\"solver\">{SOLVER}</script>",
            words.progress
        ),
        Task::Ask(_) => "<div id=\"widget\" data-state=\"working wrong\" hidden></div>".to_owned(),
    }
}

/// What the task is for, and who learns of it.
fn what(task: &Task<'_>, text: &str) -> String {
    match task {
        Task::Work(_) => text.to_owned(),
        Task::Ask(captcha) => text.replace("{provider}", captcha.provider.title()),
    }
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
        retry_after_s: Some(5),
    };
    const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

    fn posed(resend: bool) -> Posed {
        Posed {
            token: "c2FpZA.bWFyaw".to_owned(),
            price: Price::Work(18),
            end_ms: 5_000,
            resend,
        }
    }

    fn answer(asked: Asked<'_>, contact: Option<&str>) -> (HeaderMap, &'static str, String) {
        let challenge = Challenge {
            contact: contact.map(str::to_owned),
            ..Challenge::default()
        };
        answer_of(asked, &challenge)
    }

    fn answer_of(asked: Asked<'_>, challenge: &Challenge) -> (HeaderMap, &'static str, String) {
        let mut headers = HeaderMap::new();
        let (kind, body) = body(&TOLD, asked, challenge, &mut headers);
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

    /// One whose provider is this.
    fn asking(provider: Provider, script_url: &str) -> Challenge {
        Challenge {
            captcha: Some(Captcha {
                provider,
                site_key: "a\"b<c".to_owned(),
                secret: crate::policy::Hidden("a secret".to_owned()),
                verify_url: provider.verify_url().to_owned(),
                script_url: script_url.to_owned(),
                timeout: std::time::Duration::from_secs(5),
                on_failure: crate::policy::OnFailure::Closed,
                score: 0.5,
                send_address: false,
            }),
            ..Challenge::default()
        }
    }

    #[test]
    fn a_captcha_is_asked_for_by_its_provider() {
        let posed = Posed {
            price: Price::Captcha(Provider::Turnstile),
            ..posed(false)
        };
        let asked = |accept, language| Asked {
            accept: Some(accept),
            language,
            puzzle: Some(&posed),
            ..Asked::default()
        };
        let challenge = asking(Provider::Turnstile, Provider::Turnstile.script_url());
        for (language, words) in [("en", &ENGLISH), ("de", &GERMAN)] {
            let (headers, _, page) = answer_of(asked(BROWSER, Some(language)), &challenge);
            for part in [
                "data-provider=\"turnstile\" data-site-key=\"a&quot;b&lt;c\"",
                "Cloudflare Turnstile",
                words.captcha.of("why").unwrap(),
                words.captcha.of("wrong").unwrap(),
            ] {
                assert!(page.contains(part), "{part}: {page}");
            }
            for part in ["{{", "{provider}", "id=\"solver\"", "a secret"] {
                assert!(!page.contains(part), "{part}: {page}");
            }
            let policy = headers[CONTENT_SECURITY_POLICY].to_str().unwrap();
            let frames = "; frame-src https://challenges.cloudflare.com;";
            assert!(policy.contains(frames), "{policy}");
        }
        let (_, _, body) = answer_of(asked("*/*", None), &challenge);
        let said: serde_json::Value = serde_json::from_str(&body).unwrap();
        let captcha = json!({
            "provider": "turnstile", "site_key": "a\"b<c", "action": "limiter",
            "token": "c2FpZA.bWFyaw", "expires": 5, "path": "/.limiter/challenge",
            "header": "x-limiter-solution",
        });
        assert_eq!(
            (&said["captcha"], &said["puzzle"]),
            (&captcha, &json!(null))
        );
        // Another policy has posed it.
        let other = asking(Provider::Hcaptcha, Provider::Hcaptcha.script_url());
        let (headers, _, page) = answer_of(asked(BROWSER, None), &other);
        assert!(!page.contains("data-token") && !headers.contains_key(CONTENT_SECURITY_POLICY));
    }

    #[test]
    fn a_script_from_elsewhere_is_let_in_from_there_alone() {
        let url = "https://captcha.example:8443/api.js?a=b";
        for provider in Provider::ALL {
            let challenge = asking(provider, url);
            let policy = captcha_policy(challenge.captcha.as_ref().unwrap());
            assert_eq!(policy.matches("https://").count(), 4, "{policy}");
            let there = " https://captcha.example:8443;";
            assert!(
                policy.contains(&format!("{}{there}", hash(ASK))),
                "{policy}"
            );
        }
        assert_eq!(origin("http://[::1]:80"), "http://[::1]:80");
    }

    #[test]
    fn the_policy_names_what_stands_in_the_page() {
        let challenge = asking(Provider::Turnstile, "https://captcha.example/");
        let captcha = challenge.captcha.as_ref().unwrap();
        for (task, policy) in [
            (Task::Work(18), WORK_POLICY.clone()),
            (Task::Ask(captcha), captcha_policy(captcha)),
        ] {
            let page = page(&posed(false), &task, &ENGLISH, None);
            for (tag, end) in [("<script>", "</script>"), ("<style>", "</style>")] {
                let text = page.split_once(tag).unwrap().1.split_once(end).unwrap().0;
                assert!(policy.contains(&hash(text)), "{tag} {policy}");
            }
        }
    }
}

//! What is said: the texts of mail, and the body of a webhook's request. Pure.
//!
//! The only words of a stranger are an account's name. They stand in the text alone, of
//! bounded length and without control characters, and nothing there is a link.

use serde::Serialize;

use super::queue::Letter;
use super::{Happening, Reached};
use crate::keeper::{timestamp, unix_time};
use crate::policy::{Language, Templates};

/// Characters of an account's name that are shown.
const ACCOUNT_CHARS: usize = 80;

/// The texts of mail: the first line is the subject.
const RUNG_EN: &str = "Sign-in to your account was limited on {{host}}\n\
    Hello,\n\nafter several failed attempts, sign-in to the account \"{{account}}\" is limited\n\
    until {{until}}.\n\nThe last attempt came from {{source}} at {{time}}.\n\
    If it was not you, somebody may be guessing your password; it was not accepted.\n\
    This mail has no links on purpose: go to the site as you always do.\n\n\
    Rule: {{rule}}, step {{rung}} ({{action}}), host {{host}}\n";
const RUNG_DE: &str = "Die Anmeldung an Ihrem Konto wurde auf {{host}} eingeschränkt\n\
    Guten Tag,\n\nnach mehreren Fehlversuchen ist die Anmeldung am Konto \"{{account}}\" bis\n\
    {{until}} eingeschränkt.\n\nDer letzte Versuch kam von {{source}} um {{time}}.\n\
    Wenn Sie das nicht waren, versucht vielleicht jemand, Ihr Passwort zu erraten;\n\
    angenommen wurde es nicht. Diese Mail hat mit Absicht keine Links: Gehen Sie zur\n\
    Seite wie sonst auch.\n\nRegel: {{rule}}, Stufe {{rung}} ({{action}}), Rechner {{host}}\n";
const ABOUT_EN: &str = "An account was limited on {{host}}\n\
    Rule {{rule}} has reached step {{rung}} ({{action}}) for the account \"{{account}}\" at {{time}},\n\
    until {{until}}. The last attempt came from {{source}}.\n\
    No address of its owner is known. `limiter audit --rule {{rule}}` shows more.\n";
const ABOUT_DE: &str = "Ein Konto wurde auf {{host}} eingeschränkt\n\
    Regel {{rule}} hat um {{time}} Stufe {{rung}} ({{action}}) für das Konto \"{{account}}\" erreicht,\n\
    bis {{until}}. Der letzte Versuch kam von {{source}}.\n\
    Eine Adresse des Inhabers ist nicht bekannt. `limiter audit --rule {{rule}}` zeigt mehr.\n";
const BEGUN_EN: &str = "Flood of new sources on {{host}}\n\
    Since {{time}} more new sources come than limiter can follow (edge.flood).\n\
    Only those seen before are admitted. `limiter status` shows more.\n";
const BEGUN_DE: &str = "Flut neuer Absender auf {{host}}\n\
    Seit {{time}} kommen mehr neue Absender, als limiter verfolgen kann (edge.flood).\n\
    Nur schon gesehene werden eingelassen. `limiter status` zeigt mehr.\n";
const OVER_EN: &str = "Flood of new sources on {{host}} is over\n\
    At {{time}} new sources are few again, and are admitted as always.\n";
const OVER_DE: &str = "Flut neuer Absender auf {{host}} ist vorüber\n\
    Um {{time}} sind neue Absender wieder wenige und werden wie immer eingelassen.\n";
const TEST_EN: &str = "Test of limiter on {{host}}\n\
    Somebody has tried the notifications of limiter (`limiter notify test`) at {{time}}.\n";
const TEST_DE: &str = "Test von limiter auf {{host}}\n\
    Jemand hat um {{time}} die Benachrichtigungen von limiter geprüft (`limiter notify test`).\n";

/// Subject and text of a mail.
#[must_use]
pub fn mail(
    happening: &Happening,
    host: &str,
    language: Language,
    templates: &Templates,
) -> (String, String) {
    let (template, own) = match happening {
        Happening::Rung(reached) if reached.owner.is_some() => {
            (&templates.rung, [RUNG_EN, RUNG_DE])
        }
        Happening::Rung(_) => (&None, [ABOUT_EN, ABOUT_DE]),
        Happening::FloodBegun { .. } => (&templates.flood_begun, [BEGUN_EN, BEGUN_DE]),
        Happening::FloodOver { .. } => (&templates.flood_over, [OVER_EN, OVER_DE]),
        Happening::Test { .. } => (&None, [TEST_EN, TEST_DE]),
    };
    let own = match language {
        Language::En => own[0],
        Language::De => own[1],
    };
    let text = template.as_deref().unwrap_or(own);
    let (subject, text) = text.split_once('\n').unwrap_or((text, ""));
    (
        fill(subject.trim_end(), happening, host, ""),
        fill(text, happening, host, "-"),
    )
}

/// Fills in what stands between `{{` and `}}`; `none` where there is nothing.
fn fill(template: &str, happening: &Happening, host: &str, none: &str) -> String {
    let mut filled = String::with_capacity(template.len() + 128);
    let mut rest = template;
    while let Some((before, more)) = rest.split_once("{{") {
        filled.push_str(before);
        let Some((word, after)) = more.split_once("}}") else {
            rest = more;
            break;
        };
        let value = word_of(word.trim(), happening, host);
        filled.push_str(value.as_deref().unwrap_or(none));
        rest = after;
    }
    filled.push_str(rest);
    filled
}

/// The words are those of [`TEMPLATE_WORDS`](crate::policy::TEMPLATE_WORDS).
fn word_of(word: &str, happening: &Happening, host: &str) -> Option<String> {
    let reached = match happening {
        Happening::Rung(reached) => Some(reached),
        _ => None,
    };
    match word {
        "host" => Some(host.to_owned()),
        "time" => Some(time(happening.at_ms())),
        "rule" => reached.map(|it| it.rule.clone()),
        "rung" => reached.map(|it| it.rung.to_string()),
        "action" => reached.map(|it| it.action.clone()),
        "source" => reached.map(|it| it.source.clone()),
        "account" => reached?.account.as_deref().map(harmless),
        "until" => reached.map(|it| time(it.until_ms)),
        _ => None,
    }
}

/// A name as it may stand in a text: nothing of it makes a line or a mark-up, and with its dots in
/// brackets no mail program takes it for the address of a page.
fn harmless(account: &str) -> String {
    let mut shown = String::new();
    for c in account.chars().take(ACCOUNT_CHARS) {
        match c {
            '.' => shown.push_str("[.]"),
            c if c.is_alphanumeric() || " @_+-".contains(c) => shown.push(c),
            _ => shown.push('?'),
        }
    }
    if account.chars().nth(ACCOUNT_CHARS).is_some() {
        shown.push('…');
    }
    shown
}

/// The body of a webhook's request.
#[derive(Debug, Serialize)]
struct Body<'a> {
    id: &'a str,
    event: &'static str,
    at: String,
    host: &'a str,
    #[serde(flatten)]
    reached: Option<ReachedBody<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    began: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unknown_packets: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused_packets: Option<u64>,
}

#[derive(Debug, Serialize)]
struct ReachedBody<'a> {
    rule: &'a str,
    rung: u64,
    action: &'a str,
    source: &'a str,
    account: Option<&'a str>,
    until: String,
}

/// The JSON that a webhook gets.
#[must_use]
pub fn webhook(letter: &Letter, host: &str) -> Vec<u8> {
    let happening = &letter.happening;
    let mut body = Body {
        id: &letter.id,
        event: happening.word(),
        at: time(happening.at_ms()),
        host,
        reached: None,
        began: None,
        unknown_packets: None,
        refused_packets: None,
    };
    match happening {
        Happening::Rung(reached) => body.reached = Some(reached.body()),
        Happening::FloodOver {
            began_ms,
            unknown,
            refused,
            ..
        } => {
            body.began = Some(time(*began_ms));
            body.unknown_packets = Some(*unknown);
            body.refused_packets = Some(*refused);
        }
        Happening::FloodBegun { .. } | Happening::Test { .. } => {}
    }
    // Strings and numbers become JSON without fail.
    serde_json::to_vec(&body).unwrap_or_default()
}

impl Reached {
    fn body(&self) -> ReachedBody<'_> {
        ReachedBody {
            rule: &self.rule,
            rung: self.rung,
            action: &self.action,
            source: &self.source,
            account: self.account.as_deref(),
            until: time(self.until_ms),
        }
    }
}

/// `X-Limiter-Signature`: when, and HMAC-SHA256 of that, a point and the body, in hexadecimal.
#[must_use]
pub fn signature(secret: &str, at_s: u64, body: &[u8]) -> String {
    use std::fmt::Write as _;
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.as_bytes());
    let mut context = ring::hmac::Context::with_key(&key);
    context.update(format!("{at_s}.").as_bytes());
    context.update(body);
    let mut text = format!("t={at_s},v1=");
    for byte in context.sign().as_ref() {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn time(at_ms: u64) -> String {
    timestamp(unix_time(at_ms.saturating_mul(1_000_000)))
}

#[cfg(test)]
mod tests {
    use super::super::queue::Channel;
    use super::*;
    use crate::policy::TEMPLATE_WORDS;

    const NOW: u64 = 1_700_000_000_000;

    fn rung(account: &str) -> Happening {
        Happening::Rung(Reached {
            at_ms: NOW,
            rule: "lockout".to_owned(),
            rung: 3,
            action: "reject".to_owned(),
            until_ms: NOW + 86_400_000,
            source: "192.0.2.7".to_owned(),
            account: Some(account.to_owned()),
            owner: Some("ann@example.com".to_owned()),
        })
    }

    fn told(account: &str, language: Language) -> (String, String) {
        mail(&rung(account), "web1", language, &Templates::default())
    }

    #[test]
    fn an_owner_reads_what_happened() {
        let (subject, text) = told("ann@example.com", Language::En);
        assert_eq!(subject, "Sign-in to your account was limited on web1");
        for part in [
            "account \"ann@example[.]com\" is limited",
            "2023-11-15T22:13:20Z",
            "came from 192.0.2.7 at 2023-11-14T22:13:20Z",
            "Rule: lockout, step 3 (reject), host web1",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        let (subject, text) = told("ann", Language::De);
        assert!(subject.starts_with("Die Anmeldung"), "{subject}");
        assert!(text.contains("Konto \"ann\" bis"), "{text}");
        assert!(!text.contains("{{"), "{text}");
    }

    #[test]
    fn who_is_not_the_owner_reads_something_else() {
        let Happening::Rung(reached) = rung("ann") else {
            panic!();
        };
        let happening = Happening::Rung(Reached {
            owner: None,
            account: None,
            ..reached
        });
        let (subject, text) = mail(&happening, "web1", Language::En, &Templates::default());
        assert_eq!(subject, "An account was limited on web1");
        assert!(text.contains("for the account \"-\""), "{text}");
    }

    #[test]
    fn words_of_a_stranger_do_no_harm() {
        let evil = "a\r\nBcc: all@example.com\n\n<b>https://evil.example/ www.evil.example {{rule}}\u{202e}";
        let (subject, text) = told(evil, Language::En);
        assert!(!subject.contains("evil"), "{subject}");
        for part in ["\nBcc", "<b>", "://", "www.", "{{", "\u{202e}", "\r"] {
            assert!(!text.contains(part), "{part}\n{text}");
        }
        // Letters whose small form is longer, or shorter, than they are.
        let (_, text) = told(
            "\u{23a}www.example.org \u{130}www.a \u{212a}\u{212a}www.b",
            Language::En,
        );
        assert!(text.contains("\u{23a}www[.]example[.]org"), "{text}");
        let (_, text) = told(&"x".repeat(4_000), Language::En);
        assert!(text.contains(&format!("\"{}…\"", "x".repeat(80))), "{text}");
    }

    #[test]
    fn a_template_takes_the_place_of_the_text() {
        let every = TEMPLATE_WORDS
            .map(|word| format!("{{{{ {word} }}}}"))
            .join("|");
        let templates = Templates {
            rung: Some(format!("Look at {{{{host}}}}\n{every}\n")),
            ..Templates::default()
        };
        let (subject, text) = mail(&rung("ann"), "web1", Language::De, &templates);
        assert_eq!(subject, "Look at web1");
        let expected =
            "web1|2023-11-14T22:13:20Z|lockout|3|reject|192.0.2.7|ann|2023-11-15T22:13:20Z\n";
        assert_eq!(text, expected);
        let flood = Happening::FloodBegun { at_ms: NOW };
        let (subject, _) = mail(&flood, "web1", Language::En, &templates);
        assert_eq!(subject, "Flood of new sources on web1");
    }

    #[test]
    fn a_webhook_reads_json() {
        let mut letter = Letter {
            id: "7f".to_owned(),
            channel: Channel::Webhook,
            to: None,
            happening: rung("a\"b"),
            born_ms: NOW,
            due_ms: NOW,
            failures: 0,
        };
        let body = String::from_utf8(webhook(&letter, "web1")).unwrap();
        assert_eq!(
            body,
            r#"{"id":"7f","event":"rung","at":"2023-11-14T22:13:20Z","host":"web1","rule":"lockout","rung":3,"action":"reject","source":"192.0.2.7","account":"a\"b","until":"2023-11-15T22:13:20Z"}"#
        );
        letter.happening = Happening::FloodOver {
            at_ms: NOW,
            began_ms: NOW - 1_000,
            unknown: 9,
            refused: 4,
        };
        let body = String::from_utf8(webhook(&letter, "web1")).unwrap();
        assert_eq!(
            body,
            r#"{"id":"7f","event":"flood_over","at":"2023-11-14T22:13:20Z","host":"web1","began":"2023-11-14T22:13:19Z","unknown_packets":9,"refused_packets":4}"#
        );
    }

    /// Computed with `openssl dgst -sha256 -hmac`.
    #[test]
    fn a_signature_is_that_of_others() {
        assert_eq!(
            signature("0123456789abcdef", 1_700_000_000, b"{}"),
            "t=1700000000,v1=e4f8e2ecae2295b2ddb2f0b5584c8275e226c0ebe9b3b819e70156bb67122e3e"
        );
    }
}

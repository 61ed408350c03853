//! CAPTCHAs through nginx, with a stand-in for their provider: a server of this test's that says what
//! Cloudflare Turnstile documents, and a script in the place of its widget. Neither is Turnstile.

use crate::challenges::{Posing, visit};
use limiter_tests::{
    browser::Browser,
    clients::Answer,
    origin::{Asked, Origin, Said},
};
use serde_json::{Value, json};
use std::{
    fs,
    net::{SocketAddr, TcpListener},
};

const RULES: &str = r#"
[[rule]]
name = "visits"
requests = ["GET /page*"]
limit = 1
period = "1h"
action = "captcha"
difficulty = 10
"#;

const SECRET: &str = "the-secret-of-the-stand-in";
const VERIFIES: &str = "127.0.0.1:4490";
const SCRIPT_PORT: u16 = 4491;

/// The widget's stand-in: its first answer is wrong, the next one right.
const WIDGET: &str = "
const { searchParams } = new URL(document.currentScript.src);
let settings;
window.turnstile = {
  render(element, given) {
    settings = given;
    element.textContent = `a stand-in of ${given.sitekey} for ${given.action}`;
    setTimeout(() => settings.callback('wrong-answer'));
    return 'it';
  },
  reset: (id) => setTimeout(() => settings.callback(id === 'it' ? 'good-answer' : 'nothing')),
};
window[searchParams.get('onload')]();
";

/// A site whose CAPTCHAs a stand-in poses.
struct Standing {
    posing: Posing,
    provider: Origin,
    _script: Origin,
}

impl Standing {
    fn new() -> Self {
        let posing = Posing::nginx_by(RULES);
        let host = posing.at().ip().to_string();
        let server = posing.hearing.site.server();
        let provider = Origin::start(server, VERIFIES.parse().unwrap(), move |asked| {
            verdict(asked, &host)
        });
        let script = SocketAddr::from(([0, 0, 0, 0], SCRIPT_PORT));
        let script = Origin::start(server, script, |_| {
            ("200 OK\r\nContent-Type: text/javascript", WIDGET.into())
        });
        fs::write(posing.hearing.path("secret"), format!("{SECRET}\n")).unwrap();
        let standing = Self {
            provider: provider.unwrap(),
            _script: script.unwrap(),
            posing,
        };
        standing.ask_at(&format!("http://{VERIFIES}/siteverify"), "");
        standing
    }

    /// Has answers verified there.
    fn ask_at(&self, url: &str, more: &str) {
        let hearing = &self.posing.hearing;
        let captcha = format!(
            "[decide.challenge]\ncaptcha = {{ provider = \"turnstile\", site_key = \"the-site\", \
             secret_file = {:?}, verify_url = \"{url}\", timeout = \"1s\", \
             script_url = \"http://{}:{SCRIPT_PORT}/api.js\"{more} }}\n{RULES}",
            hearing.path("secret"),
            self.posing.at().ip(),
        );
        let daemon = &hearing.site.daemon;
        daemon
            .write_policy(&hearing.policy("", "", &captcha))
            .unwrap();
        daemon.ask(&["reload"]).unwrap();
    }

    /// The CAPTCHA that a request is asked for, if the worker goes by the policy already.
    fn posed(&self) -> Value {
        self.posing.hearing.until("a CAPTCHA", || {
            let answer = self.posing.send("GET /page", "Accept: */*\r\n");
            let said: Value = serde_json::from_slice(&answer.body).ok()?;
            said.get("captcha").cloned()
        })
    }

    fn solve(&self, captcha: &Value, answer: &str) -> Answer {
        let token = captcha["token"].as_str().unwrap();
        let solution = format!("X-Limiter-Solution: {token}:{answer}\r\n");
        self.posing.send("POST /.limiter/challenge", &solution)
    }

    /// What the daemon's provider was asked.
    fn bodies(&self) -> Vec<String> {
        let asked = self.provider.asked().into_iter();
        asked
            .map(|it| String::from_utf8(it.body).unwrap())
            .collect()
    }
}

/// What the stand-in says of an answer.
fn verdict(asked: &Asked, host: &str) -> Said {
    let fields = String::from_utf8_lossy(&asked.body).into_owned();
    let field = |name: &str| {
        let pairs = fields.split('&').filter_map(|pair| pair.split_once('='));
        pairs
            .filter(|(key, _)| *key == name)
            .map(|(_, value)| value.to_owned())
            .next()
    };
    let success = |host: &str| json!({ "success": true, "hostname": host, "action": "limiter", "error-codes": [] });
    let failure = |code: &str| json!({ "success": false, "error-codes": [code] });
    let said = match field("response").as_deref() {
        _ if field("secret").as_deref() != Some(SECRET) => failure("invalid-input-secret"),
        Some("good-answer") => success(host),
        Some("elsewhere") => success("evil.example"),
        Some("garbage") => return ("200 OK", b"<html>{\"success\":true}".to_vec()),
        Some("huge") => json!({ "padding": "x".repeat(300_000), "success": true }),
        Some("broken") => {
            return (
                "500 Internal Server Error",
                success(host).to_string().into(),
            );
        }
        _ => failure("invalid-input-response"),
    };
    (
        "200 OK\r\nContent-Type: application/json",
        said.to_string().into(),
    )
}

fn error(answer: &Answer) -> (u16, String) {
    let said: Value = serde_json::from_slice(&answer.body).unwrap();
    let word = said["challenge_error"].as_str().unwrap_or_default();
    (answer.status, word.to_owned())
}

#[test]
fn a_browser_solves_a_captcha_through_nginx_and_goes_on() {
    let standing = Standing::new();
    // It counts as the one visit that is free.
    let _captcha = standing.posed();
    let [go, there] = visit(&standing.posing, "/page?1");
    let [again, still_there] = visit(&standing.posing, "/page?2");
    let wrong = "document.querySelector('p[data-state=wrong]:not([hidden])')?.textContent";
    let steps = json!([
        go, { "until": wrong },
        { "run": "document.getElementById('widget').textContent" },
        { "run": "document.documentElement.lang + document.querySelector('footer').textContent" },
        { "run": "document.activeElement.id" },
        { "run": "document.getElementById('anew').click()" },
        there, again, still_there,
    ]);
    let browser = Browser {
        language: "de",
        dark: true,
        ..Browser::USUAL
    };
    let said = standing.posing.browse(browser, &steps);
    let text = |at: usize| said[at].as_str().unwrap_or_default();
    assert!(text(0).contains("nicht angenommen"), "{said:?}");
    assert_eq!(text(1), "a stand-in of the-site for limiter", "{said:?}");
    assert!(
        text(2).starts_with("de") && text(2).contains("Cloudflare Turnstile"),
        "{said:?}"
    );
    assert_eq!(text(3), "anew", "{said:?}");
    assert_eq!((text(5), text(6)), ("?1", "?2"), "{said:?}");
    let asked = |answer: &str| format!("secret={SECRET}&response={answer}");
    assert_eq!(
        standing.bodies(),
        [asked("wrong-answer"), asked("good-answer")]
    );
}

#[test]
fn a_provider_that_is_down_or_lies_is_no_way_in() {
    let standing = Standing::new();
    let captcha = standing.posed();
    let wrong = (403, "wrong".to_owned());
    let away = (503, "away".to_owned());
    for (answer, expected) in [
        ("nonsense", &wrong),
        ("elsewhere", &wrong),
        ("unloaded", &wrong),
        ("broken", &away),
        ("garbage", &away),
        ("huge", &away),
    ] {
        let said = standing.solve(&captcha, answer);
        assert_eq!(&error(&said), expected, "{answer}: {said:?}");
    }
    let long = standing.solve(&captcha, &"a".repeat(7_001));
    assert_eq!(error(&long), (400, "malformed".to_owned()));
    // One that takes connections, and says nothing; and one that is not there.
    let server = standing.posing.hearing.site.server();
    let silent = server.run(|| TcpListener::bind("127.0.0.1:0")).unwrap();
    let silent_url = format!("http://{}/", silent.local_addr().unwrap());
    for url in [silent_url.as_str(), "http://127.0.0.1:9/"] {
        standing.ask_at(url, "");
        let said = standing.solve(&captcha, "good-answer");
        assert_eq!(
            error(&said),
            away,
            "{url}: {}",
            standing.posing.complaints()
        );
    }
    let log = standing.posing.hearing.site.daemon.log().unwrap();
    assert!(
        log.contains("does not say what an answer is worth"),
        "{log}"
    );
    assert!(!log.contains(SECRET), "{log}");
    // Where the policy says so, it is.
    standing.ask_at(&silent_url, ", on_failure = \"open\"");
    let open = standing.posing.hearing.until("the policy", || {
        let said = standing.solve(&captcha, "good-answer");
        (said.status == 200).then_some(said)
    });
    let cookie = open.header("set-cookie").unwrap();
    let cookie = format!(
        "Cookie: {}\r\nAccept: */*\r\n",
        cookie.split(';').next().unwrap()
    );
    let passed = standing.posing.send("GET /page", &cookie);
    assert_eq!(passed.status, 200, "{passed:?}");
    // It is spent now.
    let again = standing.solve(&captcha, "good-answer");
    assert_eq!(error(&again), (409, "replayed".to_owned()));
}

//! Challenges through real proxies: solved by a browser, and by a program.

use crate::{hearing::Hearing, proxies::configuration, site::LATE};
use anyhow::Context as _;
use limiter_tests::{
    browser::Browser,
    clients::{self, Answer},
    origin::{Asked, Origin, Said},
    servers::{Caddy, Nginx},
};
use serde_json::{Value, json};
use std::net::SocketAddr;

const RULES: &str = r#"
[decide.challenge]
contact = "mailto:help@example.com"
[[rule]]
name = "visits"
requests = ["GET /page*"]
limit = 2
period = "1h"
action = "js_challenge"
difficulty = 12
[[rule]]
name = "forms"
requests = ["POST /send"]
limit = 1
period = "1h"
action = "captcha"
difficulty = 13
"#;

const BEHIND: &str = "127.0.0.1:8080";

/// A site that poses challenges, behind a proxy.
pub(crate) struct Posing {
    pub(crate) hearing: Hearing,
    proxy: Proxy,
    origin: Origin,
}

enum Proxy {
    Nginx(Nginx),
    Caddy(Caddy),
}

impl Posing {
    fn nginx() -> Self {
        Self::nginx_by(RULES)
    }

    /// Behind nginx, by these rules.
    pub(crate) fn nginx_by(rules: &str) -> Self {
        Self::new(rules, |hearing, at| {
            let part = |part| configuration(hearing, &["nginx", "--part", part]);
            let (http, server) = (part("http"), part("server"));
            let pass = format!("location / {{ proxy_pass http://{BEHIND}; }}");
            let text = format!("{http}\nserver {{\nlisten {at};\n{server}\n{pass}\n}}\n");
            Proxy::Nginx(Nginx::start(hearing.site.server(), at, &text).unwrap())
        })
    }

    fn caddy() -> Self {
        Self::new(RULES, |hearing, at| {
            let site = configuration(hearing, &["caddy"]);
            Proxy::Caddy(Caddy::start(hearing.site.server(), at, &site).unwrap())
        })
    }

    fn new(rules: &str, start: impl Fn(&Hearing, SocketAddr) -> Proxy) -> Self {
        let hearing = Hearing::new("", "", rules);
        let behind = BEHIND.parse().unwrap();
        let origin = Origin::start(hearing.site.server(), behind, say).unwrap();
        let proxy = start(&hearing, SocketAddr::from(([0, 0, 0, 0], 80)));
        Self {
            hearing,
            proxy,
            origin,
        }
    }

    pub(crate) fn at(&self) -> SocketAddr {
        SocketAddr::new(self.hearing.site.pairs[0].right.ipv4.into(), 80)
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.at().ip())
    }

    pub(crate) fn send(&self, request: &str, headers: &str) -> Answer {
        let host = self.at().ip();
        let request = format!(
            "{request} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: 0\r\n{headers}\r\n"
        );
        let client = self.hearing.site.client();
        clients::ask(client, self.at(), request.as_bytes(), LATE).unwrap()
    }

    #[track_caller]
    pub(crate) fn browse(&self, browser: Browser, steps: &Value) -> Vec<Value> {
        let done = browser.run(self.hearing.site.client(), steps);
        done.with_context(|| self.complaints()).unwrap()
    }

    /// What the proxy and limiter say.
    pub(crate) fn complaints(&self) -> String {
        let proxy = match &self.proxy {
            Proxy::Nginx(nginx) => nginx.log("error.log").unwrap(),
            Proxy::Caddy(caddy) => caddy.log().unwrap(),
        };
        format!("{proxy}\n{}", self.hearing.site.daemon.log().unwrap())
    }

    fn lines(&self) -> Vec<String> {
        let asked = self.origin.asked().into_iter();
        let line = |asked: Asked| asked.line.rsplit_once(' ').unwrap().0.to_owned();
        let lines = asked.map(line);
        lines.filter(|it| !it.contains("favicon")).collect()
    }
}

/// Pages with a form, and what was sent by it.
fn say(asked: &Asked) -> Said {
    let sent = String::from_utf8_lossy(&asked.body);
    let body = match asked.line.starts_with("POST /send") {
        true => format!("<!DOCTYPE html><title>sent</title><p>{sent}</p>"),
        false => "<!DOCTYPE html><title>origin</title><link rel=icon href=data:,>\
                  <form method=post action=/send><input name=a value=b></form>"
            .to_owned(),
    };
    ("200 OK\r\nContent-Type: text/html", body.into_bytes())
}

const AT_ORIGIN: &str = "document.title === 'origin' && location.search";
const AT_SENT: &str = "document.title === 'sent' && document.body.textContent";
const ROUNDS: &str = "JSON.parse(sessionStorage.getItem('limiter') || '[]').length";

pub(crate) fn visit(posing: &Posing, path: &str) -> [Value; 2] {
    [
        json!({ "go": posing.url(path) }),
        json!({ "until": AT_ORIGIN }),
    ]
}

#[test]
fn a_browser_solves_a_challenge_through_nginx_and_goes_on() {
    let posing = Posing::nginx();
    let mut steps: Vec<Value> = Vec::new();
    for path in [
        "/page?1", "/page?2", "/page?3", "/page?4", "/page?5", "/page?6",
    ] {
        steps.extend(visit(&posing, path));
        steps.push(json!({ "run": ROUNDS }));
    }
    steps.push(json!({ "run": "document.cookie" }));
    let said = posing.browse(Browser::USUAL, &Value::from(steps));
    // It was challenged once, and the clearance holds beyond the limit.
    let expected = [
        json!("?1"),
        json!(0),
        json!("?2"),
        json!(0),
        json!("?3"),
        json!(1),
        json!("?4"),
        json!(1),
        json!("?5"),
        json!(1),
        json!("?6"),
        json!(1),
        json!(""),
    ];
    assert_eq!(said, expected, "{}", posing.complaints());
    let expected = [
        "/page?1", "/page?2", "/page?3", "/page?4", "/page?5", "/page?6",
    ];
    assert_eq!(posing.lines(), expected.map(|path| format!("GET {path}")));
    // Nobody else has it.
    let forged = "Cookie: limiter-00000000=AA.AA\r\nAccept: */*\r\n";
    let answer = posing.send("GET /page?7", forged);
    assert_eq!(answer.status, 403, "{answer:?}");
    assert_eq!(
        answer.header("x-limiter"),
        Some("js_challenge"),
        "{answer:?}"
    );
}

#[test]
fn what_a_form_sent_is_not_lost_in_silence() {
    let posing = Posing::nginx();
    let submit = json!({ "run": "document.forms[0].submit()" });
    let sent = json!({ "until": AT_SENT });
    let [go, there] = visit(&posing, "/");
    let text = "!document.getElementById('back').hidden && document.body.innerText";
    let steps = json!([
        go, there, submit, sent, go, there, submit,
        { "until": text },
        { "run": "document.documentElement.lang" },
        { "run": "document.getElementById('back').click()" },
        there, submit, sent,
    ]);
    let browser = Browser {
        language: "de",
        width: 390,
        height: 844,
        dark: true,
    };
    // An empty query is no reason to go on.
    let steps: Value = serde_json::from_str(
        &steps
            .to_string()
            .replace("&& location.search", "&& location.pathname"),
    )
    .unwrap();
    let said = posing.browse(browser, &steps);
    let page = said[5].as_str().unwrap_or_default();
    assert!(page.contains("wurde nicht verarbeitet"), "{said:?}");
    assert!(page.contains("help@example.com"), "{said:?}");
    assert_eq!(said[6], "de");
    assert_eq!(said.last().unwrap(), "a=b", "{said:?}");
    let sent = posing
        .lines()
        .into_iter()
        .filter(|line| line == "POST /send");
    assert_eq!(sent.count(), 2);
}

#[test]
fn who_comes_back_again_and_again_is_told_why() {
    let posing = Posing::nginx();
    // As if three had been solved here of late.
    let solved =
        "sessionStorage.setItem('limiter', JSON.stringify([1, 2, 3].map(() => Date.now())))";
    let [go, there] = visit(&posing, "/page?1");
    let [again, _] = visit(&posing, "/page?2");
    let [third, _] = visit(&posing, "/page?3");
    let stopped = "document.querySelector('p[data-state=again]:not([hidden])')?.textContent";
    let steps = json!([
        go, there, { "run": solved }, again, { "until": "document.title === 'origin'" }, third,
        { "until": stopped },
        { "run": "document.getElementById('once-more').click()" },
        { "until": "document.title === 'origin' && location.search === '?3'" },
    ]);
    let said = posing.browse(Browser::USUAL, &steps);
    let why = said[3].as_str().unwrap_or_default();
    assert!(
        why.contains("address on the internet keeps changing"),
        "{said:?}"
    );
}

/// The example of the manual, and what else may come.
fn by_program(posing: &Posing) {
    let script = format!(
        "const url = {:?};\n\
         const statuses = [];\n\
         for (let n = 0; n < 6; n++) statuses.push((await patiently(url)).status);\n\
         const held = await fetch(url, {{ headers: {{ Accept: '*/*' }} }});\n\
         const said = await held.json();\n\
         const send = (token, number) => fetch(new URL(said.puzzle.path, url), {{\n\
           method: 'POST', headers: {{ [said.puzzle.header]: `${{token}}:${{number}}` }} }});\n\
         const {{ token }} = said.puzzle;\n\
         const right = solve(said.puzzle);\n\
         const answers = [];\n\
         for (const [it, number] of [[`${{token}}A`, right], [token, 'x'], [token, right], [token, right]]) {{\n\
           const answer = await send(it, number);\n\
           answers.push([answer.status, (await answer.json()).challenge_error ?? '']);\n\
         }}\n\
         console.log(JSON.stringify([statuses, held.status, said.challenge, answers]));\n",
        posing.url("/page")
    );
    let said = posing
        .hearing
        .program("patiently, solve", "solve.mjs", &script);
    let said = said.with_context(|| posing.complaints()).unwrap();
    let answers = json!([
        [403, "forged"],
        [400, "malformed"],
        [200, ""],
        [409, "replayed"]
    ]);
    // Two are within the limit. The third is solved for, and zeroes the tier: so it and the next
    // one count, and the fifth is solved for again.
    assert_eq!(said[0], json!([200, 200, 200, 200, 200, 200]), "{said}");
    assert_eq!(said[1], 403, "{said}");
    assert_eq!(said[2], "js_challenge", "{said}");
    assert_eq!(said[3], answers, "{said}");
}

#[test]
fn a_program_solves_a_challenge_through_nginx() {
    by_program(&Posing::nginx());
}

#[test]
fn challenges_work_behind_caddy() {
    let posing = Posing::caddy();
    let mut steps: Vec<Value> = Vec::new();
    for path in ["/page?1", "/page?2", "/page?3"] {
        steps.extend(visit(&posing, path));
    }
    steps.push(json!({ "run": ROUNDS }));
    let said = posing.browse(Browser::USUAL, &Value::from(steps));
    assert_eq!(said.last().unwrap(), &json!(1), "{said:?}");
}

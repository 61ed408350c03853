use std::path::PathBuf;

use super::*;
use crate::policy::{NoFiles, Page, PageKind, parse};

const NOW: u64 = 1_800_000_000;

/// Responses of a policy with the rule `r`, whose response is this.
fn responses(response: &str) -> Responses {
    Responses::of(&decide(response))
}

fn decide(response: &str) -> Decide {
    let text = format!(
        "[[rule]]\nname = 'r'\ncount = 'requests'\nlimit = 60\nperiod = '1m'\n\
         action = 'reject'\nresponse = {{ {response} }}\n"
    );
    let loaded = parse("limiter.toml", &text, &NoFiles);
    let loaded = loaded.unwrap_or_else(|fault| panic!("{fault}"));
    loaded.policy.decide.unwrap()
}

fn shown(limit: u64, remaining: u64, left_s: u64) -> Decision {
    Decision {
        limit: Some(limit),
        remaining: Some(remaining),
        reset_s: Some(NOW + left_s),
        shown: Some("r".into()),
        ..Decision::default()
    }
}

fn refused(action: Action) -> Decision {
    Decision {
        action: Some(action),
        rule: Some("r".into()),
        retry_after_s: Some(17),
        ..shown(60, 0, 99)
    }
}

fn asked(accept: Option<&str>) -> Asked<'_> {
    Asked {
        accept,
        now_s: NOW,
        ..Asked::default()
    }
}

/// `name: value` of all headers, sorted.
fn lines(headers: &HeaderMap) -> Vec<String> {
    let line =
        |(name, value): (&HeaderName, &HeaderValue)| format!("{name}: {}", value.to_str().unwrap());
    let mut lines: Vec<String> = headers.iter().map(line).collect();
    lines.sort_unstable();
    lines
}

#[test]
fn each_style_tells_the_limit() {
    let expose = "access-control-expose-headers: ";
    let x = "X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset";
    let told = |style: &str| {
        let headers = responses(&format!("headers = '{style}'")).limits(&shown(60, 59, 30), NOW);
        lines(&headers)
    };
    assert_eq!(
        told("x-ratelimit"),
        [
            format!("{expose}{x}"),
            "x-ratelimit-limit: 60".to_owned(),
            "x-ratelimit-remaining: 59".to_owned(),
            format!("x-ratelimit-reset: {}", NOW + 30),
        ]
    );
    assert_eq!(told("x-ratelimit-delta")[3], "x-ratelimit-reset: 30");
    assert_eq!(
        told("ietf"),
        [
            format!("{expose}RateLimit, RateLimit-Policy"),
            "ratelimit-policy: \"r\";q=60".to_owned(),
            "ratelimit: \"r\";r=59;t=30".to_owned(),
        ]
    );
    assert!(told("none").is_empty());
}

#[test]
fn a_refusal_tells_when_to_come_back() {
    let reply = responses("").refusal(&refused(Action::Reject), asked(None));
    assert_eq!(reply.status, 429);
    assert_eq!(
        lines(&reply.headers),
        [
            "access-control-expose-headers: X-RateLimit-Limit, X-RateLimit-Remaining, \
             X-RateLimit-Reset, Retry-After"
                .to_owned(),
            "cache-control: no-store".to_owned(),
            "content-type: application/problem+json".to_owned(),
            "retry-after: 17".to_owned(),
            "x-limiter: reject".to_owned(),
            "x-ratelimit-limit: 60".to_owned(),
            "x-ratelimit-remaining: 0".to_owned(),
            format!("x-ratelimit-reset: {}", NOW + 17),
        ]
    );
    let problem: serde_json::Value = serde_json::from_str(&reply.body).unwrap();
    let expected = serde_json::json!({
        "type": "about:blank", "title": "Too Many Requests", "status": 429,
        "detail": "Rate limit exceeded. Please try again in 17 seconds.", "retry_after": 17,
    });
    assert_eq!(problem, expected);
    // Of a rule that shows nothing, as those of accounts do, only that.
    let decision = Decision {
        rule: Some("r".into()),
        action: Some(Action::Reject),
        ..Decision::default()
    };
    let reply = responses("").refusal(&decision, asked(None));
    assert_eq!(reply.headers["retry-after"], "1");
    assert!(!reply.headers.contains_key("x-ratelimit-limit"));
}

#[test]
fn the_status_is_the_rules_and_a_block_is_forbidden() {
    let responses = responses("status = 418, body = 'ory-json'");
    let reply = responses.refusal(&refused(Action::Reject), asked(None));
    assert_eq!(reply.status, 418);
    let error: serde_json::Value = serde_json::from_str(&reply.body).unwrap();
    assert_eq!(error["error"]["code"], 418);
    assert_eq!(error["error"]["id"], "rate_limit_exceeded");
    let reply = responses.refusal(&refused(Action::Block), asked(None));
    assert_eq!(reply.status, 403);
    assert_eq!(reply.headers["x-limiter"], "block");
    let error: serde_json::Value = serde_json::from_str(&reply.body).unwrap();
    assert_eq!(error["error"]["id"], "blocked");
}

#[test]
fn bodies_are_what_the_rule_says() {
    let of = |body: &str| responses(body).refusal(&refused(Action::Reject), asked(None));
    let html = of("body = 'html'");
    assert_eq!(html.headers["content-type"], "text/html; charset=utf-8");
    assert!(
        html.body.contains("<h1>Too Many Requests</h1>"),
        "{}",
        html.body
    );
    let empty = of("body = 'empty'");
    assert_eq!(empty.body, "");
    assert!(!empty.headers.contains_key("content-type"));
    // A rule that the policy has no longer answers as one that says nothing.
    let mut gone = refused(Action::Reject);
    gone.rule = Some("gone".into());
    assert_eq!(
        responses("status = 418").refusal(&gone, asked(None)).status,
        429
    );
}

#[test]
fn of_several_pages_the_client_chooses() {
    let mut decide = decide("body = '/etc/limiter/refused'");
    let page = |kind, text: &str| Page {
        kind,
        text: text.to_owned(),
    };
    let pages = vec![
        page(PageKind::Html, "<p>{{title}}, {{ retry_after }} s</p>"),
        page(
            PageKind::Json,
            "{\"status\":{{status}},\"action\":\"{{action}}\"}",
        ),
    ];
    let path = PathBuf::from("/etc/limiter/refused");
    decide.pages.0.insert(path.clone(), pages);
    let responses = Responses::of(&decide);
    let of = |accept: Option<&str>| {
        let reply = responses.refusal(&refused(Action::Reject), asked(accept));
        (reply.headers["content-type"].clone(), reply.body)
    };
    let (kind, text) = of(Some("text/html,application/xhtml+xml,*/*;q=0.8"));
    assert_eq!(kind, "text/html; charset=utf-8");
    assert_eq!(text, "<p>Too Many Requests, 17 s</p>");
    let (kind, text) = of(Some("text/html;q=0.2, application/json"));
    assert_eq!(kind, "application/json");
    assert_eq!(text, "{\"status\":429,\"action\":\"reject\"}");
    assert_eq!(of(None).0, "text/html; charset=utf-8");
    assert_eq!(of(Some("image/png")).0, "text/html; charset=utf-8");
    // Pages that did not come do not leave the client without an answer.
    decide.pages.0.remove(&path);
    let reply = Responses::of(&decide).refusal(&refused(Action::Reject), asked(None));
    assert_eq!(reply.headers["content-type"], "application/problem+json");
}

#[test]
fn a_challenge_is_a_page_only_for_who_reads_pages() {
    let responses = responses("status = 429");
    let browser = Some("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8");
    let page = responses.refusal(&refused(Action::JsChallenge), asked(browser));
    assert_eq!(
        (page.status.as_u16(), &page.headers["x-limiter"]),
        (403, &HeaderValue::from_static("js_challenge"))
    );
    assert_eq!(page.headers["content-type"], "text/html; charset=utf-8");
    for accept in [
        None,
        Some("*/*"),
        Some("application/json"),
        Some("text/html;q=0, */*"),
    ] {
        let reply = responses.refusal(&refused(Action::Captcha), asked(accept));
        let problem: serde_json::Value = serde_json::from_str(&reply.body).unwrap();
        assert_eq!(problem["challenge"], "captcha", "{accept:?}");
    }
}

#[test]
fn weights_are_those_of_the_most_specific_range() {
    let offered = ["application/json", "text/html"];
    let cases = [
        ("text/*", 1),
        ("*/*", 0),
        ("text/*;q=0.4, application/*;q=0.3", 1),
        ("text/html;q=0.1, text/*;q=1, application/json;q=0.5", 0),
        ("TEXT/HTML", 1),
        ("text/html; charset=utf-8; q=0.9, application/json;q=1.0", 0),
        ("text/html;q=2, application/json;q=0.001", 0),
        ("", 0),
        (",;,=;q", 0),
    ];
    for (accept, expected) in cases {
        assert_eq!(accept::best(Some(accept), &offered), expected, "{accept}");
    }
}

#[test]
fn what_is_no_header_is_left_out() {
    let mut decision = refused(Action::Reject);
    decision.shown = Some("a\r\nb".into());
    let mut response = USUAL.clone();
    response.headers = LimitHeaders::Ietf;
    let responses = Responses {
        by_rule: [("a\r\nb".to_owned(), response)].into(),
        pages: Pages::default(),
        challenge: Challenge::default(),
    };
    let headers = responses.refusal(&decision, asked(None)).headers;
    assert!(!headers.contains_key("ratelimit"), "{headers:?}");
}

#[test]
fn at_a_gate_no_waiting_helps() {
    let decision = Decision {
        action: Some(Action::Reject),
        rule: Some("r".into()),
        reason: Some(Reason::NotFrom),
        ..Decision::default()
    };
    for (body, expected) in [
        ("ory-json", "\"id\":\"forbidden\""),
        ("problem-json", "\"status\":403"),
        ("html", "<h1>Forbidden</h1>"),
        ("empty", ""),
    ] {
        let responses = responses(&format!("status = 404, body = '{body}'"));
        let reply = responses.refusal(&decision, asked(None));
        assert_eq!(reply.status, 403, "{reply:?}");
        let headers = lines(&reply.headers);
        assert!(
            headers.contains(&"x-limiter: reject".to_owned()),
            "{headers:?}"
        );
        assert!(headers.contains(&"cache-control: no-store".to_owned()));
        for name in ["retry-after", "x-ratelimit-limit"] {
            assert!(!reply.headers.contains_key(name), "{headers:?}");
        }
        assert!(reply.body.contains(expected), "{reply:?}");
        for word in ["retry", "again"] {
            assert!(!reply.body.contains(word), "{reply:?}");
        }
        assert_eq!(reply.body.is_empty(), body == "empty");
    }
}

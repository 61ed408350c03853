//! The presets as they are shipped, in front of small origins that behave as the systems do that
//! they are modelled on: what a client gets of nginx, and whether its packets arrive.

use crate::{
    front::{DROPPED, Front, number, stranger},
    site::LATE,
};
use limiter_tests::{
    clients,
    origin::{Asked, Said},
    wait,
};
use serde_json::Value;
use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

/// Kratos: pages of flows are redirects, a wrong password in an API flow is a 400.
pub(crate) fn kratos(asked: &Asked) -> Said {
    let (request, _) = asked.line.rsplit_once(' ').unwrap_or_default();
    match request {
        "GET /self-service/login/browser" => ("303 See Other\r\nLocation: /login?flow=1", vec![]),
        "POST /self-service/login" if asked.body == b"password=right" => ("200 OK", b"{}".to_vec()),
        "POST /self-service/login" => ("400 Bad Request", b"{\"ui\":{}}".to_vec()),
        _ => ("200 OK", b"{}".to_vec()),
    }
}

/// The rate of a proxy before it is another test's.
pub(crate) const NO_RATE: &str = "rule.kratos-public-rate.burst=1000";

#[test]
fn kratos_lets_pass_by_how_sensitive_an_endpoint_is() {
    let front = Front::new("kratos", &[NO_RATE], kratos);
    for (request, limit, address) in [
        ("GET /sessions/whoami", 60, 1),
        ("GET /self-service/login/browser", 30, 2),
    ] {
        front.come_from(stranger(address));
        let first = front.send(request, "", "");
        assert_eq!(number(&first, "x-ratelimit-limit"), limit, "{first:?}");
        assert_eq!(number(&first, "x-ratelimit-remaining"), limit - 1);
        let (passed, refused) = front.until_refused(request);
        assert_eq!(passed as u64 + 1, limit, "{request}");
        assert_eq!(refused.status, 429, "{refused:?}");
        assert_eq!(number(&refused, "x-ratelimit-limit"), limit);
        assert_eq!(number(&refused, "x-ratelimit-remaining"), 0);
        assert!(
            (1..=60).contains(&number(&refused, "retry-after")),
            "{refused:?}"
        );
        let body: Value = serde_json::from_slice(&refused.body).unwrap();
        assert_eq!(body["error"]["code"], 429, "{body}");
        // Whoever came in their place is not concerned.
        front.come_from(stranger(100 + address));
        let other = front.send(request, "", "");
        assert_eq!(number(&other, "x-ratelimit-remaining"), limit - 1);
    }
}

#[test]
fn kratos_exempts_the_internal_network() {
    let front = Front::new("kratos", &[], kratos);
    // From 10.0.0.0/8.
    for _ in 0..70 {
        let answer = front.get("/sessions/whoami");
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    front.come_from(stranger(1));
    let (passed, _) = front.until_refused("GET /sessions/whoami");
    assert!(passed < 60, "the rate of a proxy holds strangers: {passed}");
}

#[test]
fn kratos_admin_is_stricter_and_its_port_internal() {
    let front = Front::new("kratos", &["rule.kratos-admin-rate.burst=1000"], kratos);
    let (passed, refused) = front.until_refused("GET /admin/identities");
    assert_eq!(passed, 10);
    assert_eq!(refused.status, 429, "{refused:?}");
    assert_eq!(number(&refused, "x-ratelimit-limit"), 10);
    // Its own port, for those inside and for strangers.
    let address = SocketAddr::new(front.to().ip(), 4434);
    let listening = front
        .site
        .server()
        .run(|| std::net::TcpListener::bind(address));
    let _listening = listening.unwrap();
    drop(clients::connect(front.site.client(), address, LATE).unwrap());
    front.come_from(stranger(1));
    clients::connect(front.site.client(), address, DROPPED).unwrap_err();
    let counts = front.site.counts();
    assert!(counts["kratos-admin drop not_from -"].0 > 0, "{counts:?}");
}

/// By path and by host it is closed to strangers, and nothing else is.
#[test]
fn kratos_admin_answers_nobody_outside() {
    let front = Front::new("kratos", &["rule.kratos-admin-rate.burst=1000"], kratos);
    let host = "Host: admin.example.com\r\n";
    assert_eq!(front.get("/admin/identities").status, 200);
    assert_eq!(front.send("GET /health/alive", host, "").status, 200);
    front.come_from(stranger(1));
    // Neither what is written otherwise nor who claims to be somebody else comes through.
    let claims = "X-Forwarded-For: 10.0.0.1\r\nX-Real-IP: 10.0.0.1\r\n";
    for (request, headers) in [
        ("GET /admin/identities", ""),
        ("POST /admin/identities", claims),
        ("GET //a/../%61dmin", ""),
        ("GET /health/alive", host),
        ("DELETE /sessions/1", "Host: ADMIN.example.com.:80\r\n"),
    ] {
        let answer = front.send(request, headers, "");
        assert_eq!(answer.status, 403, "{request}: {answer:?}");
        assert_eq!(answer.header("x-limiter"), Some("reject"), "{answer:?}");
        for header in ["retry-after", "x-ratelimit-limit", "x-ratelimit-remaining"] {
            assert_eq!(answer.header(header), None, "{answer:?}");
        }
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(body["error"]["id"], "forbidden", "{body}");
    }
    assert_eq!(front.get("/sessions/whoami").status, 200);
    let daemon = &front.site.daemon;
    let refused = wait::until("the audit log", LATE, || {
        let rows = daemon
            .json(&["audit", "--rule", "kratos-high"])?
            .to_string();
        Ok(rows.contains("\"reason\":\"not_from\"").then_some(rows))
    });
    assert!(refused.unwrap().contains("198.51.100.1"));
    let explained = daemon.ask(&["explain", "198.51.100.1"]).unwrap();
    let closed = "rule kratos-high on 198.51.100.1: reject, not_from";
    assert!(explained.contains(closed), "{explained}");
    let rules = daemon.json(&["rule", "list"]).unwrap();
    let mut rows = rules["rules"].as_array().unwrap().iter();
    let row = rows.find(|row| row["name"] == "kratos-high").unwrap();
    assert_eq!((&row["not_from"], &row["counted"]), (&3.into(), &1.into()));
}

#[test]
fn kratos_asks_for_a_captcha_after_more_than_three_failures() {
    let front = Front::new("kratos", &[NO_RATE], kratos);
    front.come_from(stranger(1));
    let (failed, challenged) = front.until_refused("POST /self-service/login");
    assert_eq!(failed, 4);
    assert_eq!(challenged.status, 403, "{challenged:?}");
    assert_eq!(challenged.header("x-limiter"), Some("captcha"));
    // Nobody else is asked, and nothing else.
    assert_eq!(front.get("/sessions/whoami").status, 200);
    front.come_from(stranger(2));
    let other = front.send("POST /self-service/login", "", "password=right");
    assert_eq!(other.status, 200, "{other:?}");
}

/// OpenSearch: 401 unless the password is right.
fn opensearch(asked: &Asked) -> Said {
    // admin:right
    let right = (
        "authorization".to_owned(),
        "Basic YWRtaW46cmlnaHQ=".to_owned(),
    );
    if asked.headers.contains(&right) {
        ("200 OK", b"{\"cluster_name\":\"logs\"}".to_vec())
    } else {
        let head = "401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"OpenSearch Security\"";
        (head, b"Unauthorized".to_vec())
    }
}

#[test]
fn opensearch_blocks_an_address_after_one_failure() {
    let front = Front::new("opensearch", &[], opensearch);
    let [right, wrong] =
        ["YWRtaW46cmlnaHQ=", "YWRtaW46d3Jvbmc="].map(|it| format!("Authorization: Basic {it}\r\n"));
    let source = stranger(1);
    front.come_from(source);
    assert_eq!(front.send("GET /_cluster/health", &right, "").status, 200);
    front.settle();
    // What a browser asks first has no credentials, and is no failed login.
    for _ in 0..5 {
        let answer = front.get("/_cluster/health");
        assert_eq!(answer.status, 401, "{answer:?}");
        assert_eq!(answer.body, b"Unauthorized", "{answer:?}");
        front.settle();
    }
    assert_eq!(front.send("GET /_cluster/health", &wrong, "").status, 401);
    front.expect_blocked(source, 3);
    front.come_from(stranger(2));
    assert_eq!(front.send("GET /_cluster/health", &right, "").status, 200);
}

/// With the listener by address only counting, and that by name as the preset says where only
/// a proxy reports.
#[test]
fn opensearch_refuses_a_name_after_three_failures() {
    let listener = "internal_authentication_backend_limiting";
    let backends = format!("rule.{listener}.backends=[]");
    let sets = ["rule.ip_rate_limiting.simulate=true", &backends];
    let front = Front::new("opensearch", &sets, opensearch);
    // admin:wrong, bob:wrong
    let [admin, bob] =
        ["YWRtaW46d3Jvbmc=", "Ym9iOndyb25n"].map(|it| format!("Authorization: Basic {it}\r\n"));
    let login = |name: &str| front.send("GET /_cluster/health", name, "");
    for _ in 0..3 {
        assert_eq!(login(&admin).body, b"Unauthorized");
    }
    // It looks like a wrong password, to whoever comes.
    front.come_from(stranger(1));
    let refused = login(&admin);
    assert_eq!((refused.status, &refused.body[..]), (401, &b""[..]));
    assert_eq!(login(&bob).body, b"Unauthorized");
}

/// A page that takes passwords and answers 200 to all, as the seed's does.
fn page(_: &Asked) -> Said {
    ("200 OK", b"<form>".to_vec())
}

#[test]
fn a_login_page_takes_five_attempts_and_drops_after_the_sixth() {
    let front = Front::new("protect-login", &["path=/signin"], page);
    let source = stranger(1);
    front.come_from(source);
    for _ in 0..6 {
        let answer = front.send("POST /signin", "", "user=ann&password=x");
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    front.expect_blocked(source, 15);
    front.come_from(stranger(2));
    assert_eq!(front.get("/signin").status, 200);
}

#[test]
fn boruta_passes_ten_has_clients_wait_and_refuses_from_five_seconds_on() {
    let front = Front::new("boruta", &[], page);
    front.come_from(stranger(1));
    // Whoever asks for one after the other is slowed down and never refused.
    let slowed = (0..30).any(|_| {
        let asked = Instant::now();
        let answer = front.get("/oauth/authorize");
        assert_eq!(answer.status, 200, "{answer:?}");
        asked.elapsed() >= Duration::from_millis(400)
    });
    assert!(slowed);
    // Whoever asks for many at once is, since what waits does not count before it has waited.
    let refused = wait::until("a refusal", LATE, || {
        let answers = thread::scope(|scope| {
            let asking = [(); 16].map(|()| scope.spawn(|| front.get("/oauth/authorize")));
            asking.map(|thread| thread.join().unwrap())
        });
        Ok(answers.into_iter().find(|answer| answer.status == 429))
    });
    let refused = refused.unwrap();
    assert_eq!(refused.header("x-limiter"), Some("reject"), "{refused:?}");
    assert_eq!(refused.body, b"", "{refused:?}");
}

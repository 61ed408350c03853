//! Each format on lines of its server (`samples/README.md`).

use std::net::IpAddr;

use super::{event, events, header, request, with_bytes};
use crate::event::formats::{Fields, FieldsError, Format};
use crate::event::{Event, Outcome};

const LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
const SIX: IpAddr = IpAddr::V6(std::net::Ipv6Addr::LOCALHOST);

/// What the client asked, as nginx logs it.
const ASKED: [&str; 17] = [
    "GET /index.html?q=1",
    "POST /login",
    "GET /café/\u{fffd}\u{fffd}\"q{}|<>",
    "GET /plain",
    "GET /abs?x=1",
    "GET /nine",
    "- -",
    "GET /a b",
    "- -",
    "GET /nul%00\0x",
    "OPTIONS *",
    "GET /private/x",
    "GET /long?aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "GET /frag#x\"y",
    "GET /c",
    "GET /c2",
    "GET /index.html?q=1",
];

/// The lines of a file; nginx's last one is about a client on a unix socket.
fn nginx(format: &Format, file: &str) -> Vec<Event> {
    let (known, unix) = file.trim_end().rsplit_once('\n').unwrap();
    let cause = format.read(unix.as_bytes()).expect_err("no address");
    assert!(
        cause.to_string().contains("set_real_ip_from unix:"),
        "{cause}"
    );
    events(format, known.as_bytes())
}

#[test]
fn of_a_request_that_nobody_asks_for_combined_keeps_who_it_was_when_and_the_status() {
    let line = br#"192.0.2.7 - ann [22/Nov/2026:18:29:28 +0000] "GET /a?b HTTP/1.1" 404 1 "http://h/" "agent" "203.0.113.9""#;
    let whole = Format::Nginx.read(line).unwrap().unwrap();
    let is_asked = |method: Option<&str>, target: Option<&str>| {
        assert_eq!((method, target), (Some("GET"), Some("/a?b")));
        false
    };
    let little = Format::Nginx.read_asked(line, &is_asked).unwrap().unwrap();
    let forwarded: Box<str> = "203.0.113.9".into();
    let wanted = Event {
        method: None,
        path: None,
        headers: vec![("X-Forwarded-For".into(), forwarded)],
        ..whole.clone()
    };
    assert_eq!(little, wanted);
    assert_eq!((whole.headers.len(), whole.status), (3, Some(404)));
    // What is no line is none, whoever asks.
    for end in 0..line.len() {
        let (kept, all) = (
            Format::Nginx.read_asked(&line[..end], &|_, _| false),
            Format::Nginx.read(&line[..end]),
        );
        assert_eq!(kept.is_ok(), all.is_ok(), "{end}");
    }
}

#[test]
fn nginx_combined() {
    let events = nginx(&Format::Nginx, include_str!("../samples/nginx.log"));
    let asked: Vec<_> = events.iter().map(request).collect();
    assert_eq!(asked, ASKED);
    let login = &events[1];
    assert_eq!(login.at_ns, Some(1_795_372_168_000_000_000));
    assert_eq!(
        (login.source, login.peer, login.status),
        (LOCAL, None, Some(401))
    );
    assert_eq!(
        header(&login.headers, "User-Agent"),
        Some("Mozilla/5.0 (X11; Linux) \"quoted\" \\x22 \\back {brace|pipe} #23 tab\there")
    );
    assert_eq!(
        header(&login.headers, "Referer"),
        Some("https://example.com/\"x\"")
    );
    assert_eq!(
        header(&events[2].headers, "User-Agent"),
        Some("\u{fffd}\u{fffd}é \x7f \x1b[31m")
    );
    // A user name that wants to be a time.
    assert_eq!(events[3].account.as_deref(), Some("x [22/Nov/2026"));
    assert_eq!(events[4].host.as_deref(), Some("other.example"));
    assert_eq!(events[6].status, Some(400));
    assert_eq!(header(&events[0].headers, "Referer"), None);
    assert_eq!(header(&events[14].headers, "User-Agent"), Some(""));
    assert_eq!(events[16].source, SIX);
}

#[test]
fn nginx_with_fields_behind() {
    let main = events(&Format::Nginx, include_bytes!("../samples/nginx-main.log"));
    assert_eq!(header(&main[0].headers, "X-Forwarded-For"), None);
    assert_eq!(
        header(&main[1].headers, "X-Forwarded-For"),
        Some("9.9.9.9, \"8.8.8.8\"")
    );
    assert_eq!(main[1].source, LOCAL);
    let timed = events(&Format::Nginx, include_bytes!("../samples/nginx-timed.log"));
    assert_eq!(header(&timed[0].headers, "User-Agent"), Some("curl/7.88.1"));
    assert_eq!(header(&timed[0].headers, "X-Forwarded-For"), None);
    let common = br#"192.0.2.1 - bob [22/Nov/2026:18:29:28 -0130] "GET / HTTP/1.0" 200 5"#;
    let common = event(&Format::Nginx, common);
    assert_eq!(common.account.as_deref(), Some("bob"));
    assert_eq!(common.at_ns, Some(1_795_377_568_000_000_000));
    // As Apache escapes.
    let apache = br#"192.0.2.1 - a\"b [22/Nov/2026:18:29:28 +0000] "GET /\xc3\xa9\"\\ HTTP/1.1" 200 5 "-" "\"x\n""#;
    let apache = event(&Format::Nginx, apache);
    assert_eq!(apache.account.as_deref(), Some("a\"b"));
    assert_eq!(apache.path.as_deref(), Some("/é\"\\"));
    assert_eq!(header(&apache.headers, "User-Agent"), Some("\"x\n"));
}

#[test]
fn nginx_json() {
    let file = with_bytes(include_str!("../samples/nginx-json.log"));
    let file = String::from_utf8_lossy(&file);
    let found = nginx(&Format::NginxJson, &file);
    let login = &found[1];
    assert_eq!(request(login), "POST /login");
    assert_eq!(login.at_ns, Some(1_795_372_168_918_000_000));
    assert_eq!((login.source, login.peer), (LOCAL, Some(LOCAL)));
    assert_eq!(
        login.id.as_deref(),
        Some("04422470993d67fc8df668eb8eb17af3")
    );
    assert_eq!(login.account.as_deref(), Some("ali\"ce"));
    assert_eq!(header(&login.response_headers, "X-CF-Block"), Some("low"));
    // Absent is absent.
    assert_eq!(
        (&found[3].account, found[3].response_headers.len()),
        (&None, 0)
    );
    assert_eq!(
        (request(&found[6]), found[6].host.clone()),
        ("- -".into(), None)
    );
    assert_eq!(found[4].host.as_deref(), Some("other.example"));
    // The same lines are events as they stand.
    assert_eq!(nginx(&Format::Json, &file), found);
}

#[test]
fn a_byte_that_is_no_utf_8_hides_nothing() {
    let file = with_bytes(include_str!("../samples/nginx-json.log"));
    let line = file.split(|byte| *byte == b'\n').nth(2).unwrap();
    assert!(std::str::from_utf8(line).is_err());
    let event = event(&Format::NginxJson, line);
    assert_eq!(request(&event), ASKED[2]);
    assert_eq!(event.status, Some(401));
}

#[test]
fn nginx_variables() {
    let file = with_bytes(include_str!("../samples/nginx-variables.log"));
    let file = String::from_utf8_lossy(&file);
    let events = nginx(&Format::NginxJson, &file);
    let asked: Vec<_> = events.iter().map(request).collect();
    assert_eq!(asked, ASKED);
    assert_eq!(events[1].at_ns, Some(1_795_372_168_000_000_000));
    assert_eq!(events[3].account.as_deref(), Some("x [22/Nov/2026"));
    assert_eq!(
        header(&events[0].headers, "user-agent"),
        Some("curl/7.88.1")
    );
    assert_eq!(events[0].status, Some(401));
    let none = br#"{"remote_addr":"192.0.2.1","status":"009","upstream_http_x_cf_block":"low"}"#;
    let none = event(&Format::NginxJson, none);
    assert_eq!(none.status, None);
    assert_eq!(header(&none.response_headers, "x-cf-block"), Some("low"));
}

#[test]
fn haproxy() {
    let file = include_bytes!("../samples/haproxy.log");
    let events = events(&Format::Haproxy, file);
    let mut asked: Vec<_> = events.iter().map(request).collect();
    let long = asked.remove(6);
    assert!(
        long.starts_with("GET /long?aaaa") && long.len() > 900,
        "{long}"
    );
    assert_eq!(
        asked,
        [
            "GET /index.html?q=1",
            "POST /login",
            "- -",
            "GET /plain",
            "OPTIONS *",
            "GET /private/x",
            "GET /c",
            "GET /c2",
            "GET /index.html?q=1",
        ]
    );
    assert_eq!(events[0].at_ns, Some(1_795_372_170_925_000_000));
    assert_eq!((events[0].source, events[0].status), (LOCAL, Some(401)));
    assert_eq!(events[2].status, Some(400));
    // `::ffff:127.0.0.1:46946`, without brackets.
    assert_eq!(events[9].source, LOCAL);
}

#[test]
fn haproxy_escapes_and_other_lines() {
    let line = |rest: &str| {
        let line = format!("::1:1 [22/Nov/2026:18:29:30.925] fe be/s1 0/0/0/0/0 -1 166 {rest}");
        event(&Format::Haproxy, line.as_bytes())
    };
    let plain = line("- - ---- 2/2/0/0/0 0/0 \"GET https://a.example/#23#22#7Fx#zz HTTP/2.0\"");
    assert_eq!(request(&plain), "GET /#\"\x7fx#zz");
    assert_eq!(
        (plain.host.as_deref(), plain.status),
        (Some("a.example"), None)
    );
    let fields_behind =
        line("- - ---- 2/2/0/0/0 0/0 \"GET /a HTTP/1.1\" 0/0 \"POST /b HTTP/1.1\" x");
    assert_eq!(request(&fields_behind), "GET /a");
    // Cut off behind a cookie that looks like the end of a line.
    let cut = line("s=x - ---- 1/1/0/0/0 0/0 \"GET /forged HTTP/1.1\" y - ---- 1/1/0");
    assert_eq!(request(&cut), "- -");
    for other in [
        "Proxy fe started.",
        "Server be/s1 is DOWN, reason: Layer4 connection problem",
        "Connect from 127.0.0.1:4 to 127.0.0.1:80 (fe/TCP)",
        "127.0.0.1:4 [22/Nov/2026:18:29:30.925] fe/1: SSL handshake failure",
        "",
    ] {
        assert_eq!(Format::Haproxy.read(other.as_bytes()), Ok(None), "{other}");
    }
    let tcp = b"127.0.0.1:4 [22/Nov/2026:18:29:30.925] fe be/s1 0/0/0 212 -- 1/1/1/1/0 0/0";
    let cause = Format::Haproxy.read(tcp).unwrap_err();
    assert_eq!(
        cause.to_string(),
        "byte 49: five timers (`option httplog`) was expected"
    );
}

#[test]
fn haproxy_json() {
    let file = include_bytes!("../samples/haproxy-json.log");
    let events = events(&Format::Json, file);
    let login = &events[1];
    assert_eq!(request(login), "POST /login");
    assert_eq!(login.host.as_deref(), Some("example.com"));
    assert_eq!(
        (login.peer, login.account.as_deref()),
        (Some(LOCAL), Some("ali\"ce"))
    );
    assert_eq!(
        header(&login.headers, "User-Agent"),
        Some("Mozilla/5.0 (X11; Linux) \"quoted\" \\x22 \\back {brace|pipe} #23 tab\there")
    );
    let bad = &events[2];
    assert_eq!(
        (request(bad), bad.account.clone(), bad.headers.len()),
        ("- -".into(), None, 0)
    );
}

#[test]
fn caddy() {
    let file = include_str!("../samples/caddy.log");
    let (requests, about_itself) = file.trim_end().rsplit_once('\n').unwrap();
    assert_eq!(Format::Caddy.read(about_itself.as_bytes()), Ok(None));
    let events = events(&Format::Caddy, requests.as_bytes());
    let login = &events[1];
    assert_eq!(request(login), "POST /login");
    assert_eq!(login.at_ns, Some(1_795_372_338_971_934_000));
    assert_eq!(
        (login.source, login.peer, login.status),
        (LOCAL, Some(LOCAL), Some(401))
    );
    assert_eq!(login.host.as_deref(), Some("example.com"));
    assert_eq!(header(&login.response_headers, "X-Cf-Block"), Some("low"));
    assert_eq!(header(&login.headers, "Cookie"), None);
    assert_eq!(
        (request(&events[3]), events[3].host.as_deref()),
        ("GET /abs?x=1".into(), Some("other.example"))
    );
    let newer = br#"{"ts":1.5,"msg":"handled request","request":{"remote_ip":"10.0.0.1","client_ip":"fe80::1%eth0","uri":"/"},"status":200}"#;
    let newer = event(&Format::Caddy, newer);
    assert_eq!(newer.source, "fe80::1".parse::<IpAddr>().unwrap());
    assert_eq!(newer.peer, Some(IpAddr::from([10, 0, 0, 1])));
    // Only the configuration sets this one; another may be the client's.
    let named = br#"{"msg":"handled request","request":{"remote_ip":"10.0.0.1"},"resp_headers":{"X-Request-Id":["a"],"X-Limiter-Id":["b"]}}"#;
    assert_eq!(event(&Format::Caddy, named).id.as_deref(), Some("b"));
    // An error of the same request is not another request.
    let error = br#"{"logger":"http.log.error","msg":"dial tcp: refused","request":{"remote_ip":"10.0.0.1"},"status":502}"#;
    assert_eq!(Format::Caddy.read(error), Ok(None));
}

#[test]
fn traefik_json() {
    let line = br#"{"ClientAddr":"10.0.0.5:1234","ClientHost":"9.9.9.9, 192.0.2.7","ClientPort":"1234","ClientUsername":"-","DownstreamStatus":401,"Duration":176911,"OriginStatus":401,"RequestAddr":"example.com:443","RequestHost":"example.com","RequestMethod":"POST","RequestPath":"/login?a=1","StartLocal":"2026-11-22T19:29:28.009808429+01:00","StartUTC":"2026-11-22T18:29:28.009808429Z","level":"info","msg":"","request_User-Agent":"curl","downstream_X-CF-Block":"low","time":"2026-11-22T18:29:28Z"}"#;
    let found = event(&Format::Traefik, line);
    assert_eq!(request(&found), "POST /login?a=1");
    assert_eq!(found.at_ns, Some(1_795_372_168_009_808_429));
    assert_eq!(found.source, IpAddr::from([192, 0, 2, 7]));
    assert_eq!(found.peer, Some(IpAddr::from([10, 0, 0, 5])));
    assert_eq!((found.account, found.status), (None, Some(401)));
    assert_eq!(header(&found.headers, "User-Agent"), Some("curl"));
    assert_eq!(header(&found.response_headers, "X-CF-Block"), Some("low"));
    let direct =
        br#"{"ClientAddr":"[2001:db8::5]:5678","ClientHost":"2001:db8::5","RequestPath":"/"}"#;
    assert_eq!(
        event(&Format::Traefik, direct).source,
        "2001:db8::5".parse::<IpAddr>().unwrap()
    );
    let nonsense = br#"{"ClientAddr":"10.0.0.5:1","ClientHost":"unknown"}"#;
    assert_eq!(
        event(&Format::Traefik, nonsense).source,
        IpAddr::from([10, 0, 0, 5])
    );
}

#[test]
fn traefik_common() {
    let line = br#"192.0.2.7 - bob [22/Nov/2026:18:29:28 +0000] "POST /login"x HTTP/1.1" 401 19 "-" "a" "GET /b HTTP/1.1" 200 1" 7 "web@file" "http://10.0.0.1" 3ms"#;
    let found = event(&Format::Traefik, line);
    assert_eq!(request(&found), "POST /login\"x");
    assert_eq!(
        (found.status, found.account.as_deref()),
        (Some(401), Some("bob"))
    );
    let none =
        br#"192.0.2.7 - - [22/Nov/2026:18:29:28 +0000] "GET / HTTP/2.0" - - "-" "-" 8 "-" "-" 0ms"#;
    assert_eq!(event(&Format::Traefik, none).status, None);
    for forged in [
        r#"192.0.2.7 - x [22/Nov/2026:00:00:00 +0000] "GET / HTTP/1.1" 200 [22/Nov/2026:18:29:28 +0000] "POST /login HTTP/1.1" 401 19"#,
        r#"9.9.9.9, 192.0.2.7 - - [22/Nov/2026:18:29:28 +0000] "POST /login HTTP/1.1" 401 19"#,
        r#"192.0.2.7 - a b [22/Nov/2026:18:29:28 +0000] "POST /login HTTP/1.1" 401 19"#,
    ] {
        let cause = Format::Traefik.read(forged.as_bytes()).unwrap_err();
        assert!(
            cause.to_string().contains("could mean two things"),
            "{cause}"
        );
    }
    // Nobody gets out of the log by an agent, for without a name it is clear.
    let agent =
        r#"192.0.2.7 - - [22/Nov/2026:18:29:28 +0000] "POST /login HTTP/1.1" 401 19 "-" "[x] "a"#;
    assert_eq!(event(&Format::Traefik, agent.as_bytes()).status, Some(401));
}

#[test]
fn envoy() {
    let line = br#"{"start_time":"2026-11-22T18:29:28.310Z","method":"POST","path":"/login","protocol":"HTTP/2","response_code":401,"request_id":"cc21","authority":"example.com:443","downstream_remote_address":"[2001:db8::1]:52310","downstream_direct_remote_address":"10.0.0.5:1","user_agent":"nsq2http","x_forwarded_for":null,"upstream_host":"10.0.2.1:80","bytes_sent":"-"}"#;
    let found = event(&Format::EnvoyJson, line);
    assert_eq!(request(&found), "POST /login");
    assert_eq!(found.at_ns, Some(1_795_372_168_310_000_000));
    assert_eq!(
        (found.id.as_deref(), found.host.as_deref()),
        (Some("cc21"), Some("example.com"))
    );
    assert_eq!(found.source, "2001:db8::1".parse::<IpAddr>().unwrap());
    assert_eq!(found.peer, Some(IpAddr::from([10, 0, 0, 5])));
    assert_eq!(found.status, Some(401));
    assert_eq!(found.headers.len(), 1);
    let reset =
        br#"{"start_time":"[2026-11-22T18:29:28.310Z]","response_code":0,"source":"192.0.2.1"}"#;
    assert_eq!(event(&Format::EnvoyJson, reset).status, None);
}

#[test]
fn kratos() {
    let line = |message: &str, rest: &str| {
        let line = format!(
            r#"{{"audience":"application","http_request":{{"headers":{{"user-agent":"curl","x-request-id":"r1","cookie":["Value is sensitive"]}},"host":"127.0.0.1:4433","method":"POST","path":"/self-service/login","query":"Value is sensitive","remote":"192.0.2.7:33580","scheme":"http"}},{rest}"level":"info","msg":"{message}","service_name":"Ory Kratos","time":"2026-11-22T18:29:28Z"}}"#
        );
        Format::KratosJson.read(line.as_bytes()).unwrap()
    };
    let response = r#""http_response":{"headers":{"location":"/x"},"size":20,"status":303,"text_status":"See Other","took":1234},"#;
    let done = line("completed handling request", response).unwrap();
    assert_eq!(
        (request(&done), done.status, done.outcome),
        ("POST /self-service/login".into(), Some(303), None)
    );
    assert_eq!(
        (done.id.as_deref(), done.host.as_deref()),
        (Some("r1"), Some("127.0.0.1"))
    );
    assert_eq!(
        (done.source, done.peer),
        (
            IpAddr::from([192, 0, 2, 7]),
            Some(IpAddr::from([192, 0, 2, 7]))
        )
    );
    assert_eq!(header(&done.response_headers, "location"), Some("/x"));
    assert_eq!(line("started handling request", ""), None);
    let failed = line("Encountered self-service login error.", "").unwrap();
    assert_eq!(
        (failed.outcome, failed.id.as_deref()),
        (Some(Outcome::Failure), Some("r1"))
    );
    let message =
        "Identity authenticated successfully and was issued an Ory Kratos Session Cookie.";
    let passed = line(message, r#""identity_id":"7f2c","#).unwrap();
    assert_eq!(
        (passed.outcome, passed.account.as_deref()),
        (Some(Outcome::Success), Some("7f2c"))
    );
}

#[test]
fn a_field_map() {
    let fields = Fields::new([
        ("source", "/client/ips/0"),
        ("status", "/res~1ult/code"),
        ("request", "/line"),
        ("at", "/@timestamp"),
        ("headers.User-Agent", "/client/~0agent"),
    ])
    .unwrap();
    let format = Format::Fields(fields);
    let line = br#"{"@timestamp":"2026-11-22T18:29:28Z","client":{"ips":["192.0.2.1",{"a":[1]}],"~agent":"x","other":{}},"res/ult":{"code":"404"},"line":"GET /a HTTP/1.1"}"#;
    let found = event(&format, line);
    assert_eq!(
        (request(&found), found.status),
        ("GET /a".into(), Some(404))
    );
    assert_eq!(found.source, IpAddr::from([192, 0, 2, 1]));
    assert_eq!(header(&found.headers, "User-Agent"), Some("x"));
    let twice = br#"{"client":{"ips":["192.0.2.1"]},"client":{"ips":["192.0.2.2"]}}"#;
    assert_eq!(
        format.read(twice).unwrap_err().to_string(),
        "`client` twice in one object"
    );
    assert_eq!(
        format.read(br#"{"client":7}"#).unwrap_err().to_string(),
        "`source` is missing"
    );
}

#[test]
fn field_maps_that_are_none() {
    let fields = |pairs: &[(&'static str, &'static str)]| Fields::new(pairs.iter().copied());
    assert_eq!(fields(&[("status", "/a")]), Err(FieldsError::NoSource));
    assert_eq!(
        fields(&[("sorce", "/a")]),
        Err(FieldsError::Field("sorce".into()))
    );
    assert_eq!(
        fields(&[("headers.", "/a")]),
        Err(FieldsError::Field("headers.".into()))
    );
    assert_eq!(
        fields(&[("source", "a")]),
        Err(FieldsError::Pointer("a".into()))
    );
    assert_eq!(
        fields(&[("source", "")]),
        Err(FieldsError::Pointer(String::new()))
    );
    assert_eq!(
        fields(&[("source", "/~2")]),
        Err(FieldsError::Pointer("/~2".into()))
    );
    for taken in ["/a", "/a/b"] {
        let both = fields(&[("source", "/a"), ("peer", taken)]);
        assert_eq!(both, Err(FieldsError::Taken(taken.into())));
    }
    assert_eq!(
        fields(&[("source", "/a/b"), ("peer", "/a")]),
        Err(FieldsError::Taken("/a".into()))
    );
    let many: Vec<_> = (0..65)
        .map(|n| (format!("headers.h{n}"), format!("/h{n}")))
        .collect();
    let many = Fields::new(many.iter().map(|(name, pointer)| (&**name, &**pointer)));
    assert_eq!(many, Err(FieldsError::Full));
}

#[test]
fn names_are_read_back() {
    for name in Format::names() {
        assert_eq!(name.parse::<Format>().unwrap().to_string(), name);
    }
    assert!("fields".parse::<Format>().is_err());
}

use super::{RULES, address, decide};
use crate::adapters::origin::{About, CHECK, OneSource, Origins, Row, Told, Warning, warnings};
use crate::event::Event;
use crate::event::formats::Format;
use crate::event::reader::{Reader, Tally};

const S: u64 = 1_000_000_000;
const START: u64 = 1_800_000_000 * S;

fn understood(events: u64) -> Tally {
    Tally {
        read: events,
        understood: events,
        ..Tally::default()
    }
}

fn about(warnings: &[Warning]) -> Vec<&About> {
    warnings.iter().map(|warning| &warning.about).collect()
}

/// A POST of `/login` by the client 192.0.2.n.
fn login(n: u64) -> Event {
    Event {
        method: Some("POST".into()),
        path: Some("//login?x=1".into()),
        ..Event::of(address(&format!("192.0.2.{}", n % 250)))
    }
}

#[test]
fn who_asked_and_may_not_is_forgotten_after_an_hour() {
    let policy = decide(&format!("[decide]\nlisten = '127.0.0.1:0'\n{RULES}"));
    let origins = Origins::of(&policy);
    let origin = origins.get(CHECK).unwrap();
    let hour = 3_600 * S;
    let warned = |now_ns| {
        let all = warnings(&policy, &origins.rows(now_ns), now_ns);
        let strangers = |it: &&About| matches!(it, About::Strangers { .. });
        about(&all).into_iter().filter(strangers).count()
    };
    assert_eq!(warned(START), 0);
    origin.count_forged(1, START);
    assert_eq!((warned(START + hour - 1), warned(START + hour)), (1, 0));
    origin.count_forged(1, START + 2 * hour);
    assert_eq!(warned(START + 2 * hour), 1);
    // What was counted stays.
    assert_eq!(origin.row(START + 9 * hour).forged, 2);
}

#[test]
fn names_are_those_of_the_policy() {
    let text = "[decide]\nfeedback = ['unix:/run/f', { udp = '[::1]:514', from = ['10.0.0.5'] }]\n\
        logs = [{ path = '/var/log/x', format = 'caddy' }]\n";
    let origins = Origins::of(&decide(text));
    let rows = origins.rows(START);
    let names: Vec<(&str, Option<&str>)> = rows
        .iter()
        .map(|row| (&*row.name, row.format.as_deref()))
        .collect();
    assert_eq!(
        names,
        [
            ("api", None),
            ("check", None),
            ("feedback:udp:[::1]:514", Some("json")),
            ("feedback:unix:/run/f", Some("json")),
            ("log:/var/log/x", Some("caddy")),
        ]
    );
    // A reload keeps what it names with the same format.
    let log = origins.get("log:/var/log/x").unwrap();
    log.count(understood(7), &[], START);
    origins
        .get("feedback:unix:/run/f")
        .unwrap()
        .count(understood(7), &[], START);
    origins.reload(&decide(
        &text.replace("'unix:/run/f'", "{ unix = '/run/f', format = 'nginx' }"),
    ));
    let counts: Vec<u64> = origins
        .rows(START)
        .iter()
        .map(|row| row.understood)
        .collect();
    assert_eq!(counts, [0, 0, 0, 0, 7]);
    origins.reload(&decide("[decide]\n"));
    assert_eq!(origins.rows(START).len(), 2);
    assert!(origins.get("log:/var/log/x").is_none());
}

#[test]
fn lag_is_that_of_the_last_event_and_the_most_of_a_minute() {
    let origins = Origins::of(&decide("[decide]\n"));
    let api = origins.get("api").unwrap();
    let event = |at_ns| Event {
        at_ns: Some(at_ns),
        ..Event::of(address("192.0.2.7"))
    };
    let lag = |now_ns| {
        let row = api.row(now_ns);
        (row.lag_ns, row.most_lag_ns)
    };
    assert_eq!(lag(START), (None, None));
    api.count(understood(1), &[Event::of(address("192.0.2.7"))], START);
    assert_eq!(lag(START), (None, None));
    api.count(understood(1), &[event(START - 9 * S)], START);
    api.count(understood(1), &[event(START + 9 * S)], START + S);
    assert_eq!(lag(START + S), (Some(0), Some(9 * S)));
    api.count(understood(1), &[event(START)], START + 30 * S);
    assert_eq!(lag(START + 31 * S), (Some(30 * S), Some(30 * S)));
    assert_eq!(lag(START + 85 * S), (Some(30 * S), Some(30 * S)));
    assert_eq!(lag(START + 95 * S), (Some(30 * S), None));
    // Absurd ones do not break it.
    api.count(understood(1), &[event(0), event(u64::MAX)], START + 100 * S);
    assert_eq!(lag(START + 100 * S).1, Some(START + 100 * S));
    // The clock went back: what is of the future is not looked at.
    assert_eq!(lag(START - 60 * S), (Some(0), None));
}

#[test]
fn a_format_that_understands_nothing() {
    let decide = decide(&format!(
        "[decide]\nlogs = [{{ path = '/x', format = 'nginx-json' }}]\n{RULES}"
    ));
    let origins = Origins::of(&decide);
    let log = origins.get("log:/x").unwrap();
    let mut reader = Reader::new(Format::NginxJson, false);
    let mut read = |lines: usize, line: &[u8]| {
        for _ in 0..lines {
            reader.line(&crate::event::lines::Line::Whole(line), &|_, _| true);
        }
        log.count(reader.take_tally(), &[], START);
        warnings(&decide, &origins.rows(START), START)
    };
    assert_eq!(about(&read(19, b"\x1b[31m combined")), [] as [&About; 0]);
    let found = read(1, b"\x1b[31m combined");
    let origin = "log:/x".to_owned();
    assert_eq!(about(&found), [&About::Format { origin }]);
    let text = found[0].to_string();
    for part in [
        "log:/x: 20 in a row",
        "nginx-json",
        "combined",
        "explain --events",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert!(!text.contains('\x1b'), "{text}");
    // Told once.
    let mut told = Told::default();
    assert_eq!(told.news(&found).len(), 1);
    assert_eq!(told.news(&found).len(), 0);
    let found = read(1, br#"{"remote_addr":"192.0.2.7"}"#);
    assert_eq!(about(&found), [] as [&About; 0]);
    assert_eq!(told.news(&read(20, b"x")).len(), 0);
}

#[test]
fn an_application_that_sends_no_events() {
    let row = Row {
        name: "api".to_owned(),
        misread_in_a_row: 20,
        sample: Some("`source` is missing; add it: {}".to_owned()),
        ..Row::default()
    };
    let text = warnings(&decide("[decide]\n"), &[row], START)[0].to_string();
    assert!(text.contains("api: 20 in a row are no events"), "{text}");
    assert!(text.contains("`source` is missing"), "{text}");
}

#[test]
fn all_events_from_one_source() {
    let text = format!(
        "[decide]\nlogs = [{{ path = '/x', format = 'json' }}]\ntrusted_proxies = ['10.0.0.0/8']\n{RULES}"
    );
    let decide = decide(&text);
    let row = |source: &str, events, seconds| {
        let row = Row {
            name: "log:/x".to_owned(),
            source: Some(OneSource {
                source: address(source),
                events,
                first_ns: START,
                last_ns: START + seconds * S,
            }),
            ..Row::default()
        };
        warnings(&decide, &[row], START + seconds * S)
    };
    assert_eq!(row("192.0.2.1", 999, 300).len(), 0);
    assert_eq!(row("192.0.2.1", 1_000, 299).len(), 0);
    let found = row("192.0.2.1", 1_000, 300);
    let text = found[0].to_string();
    for part in [
        "all 1000 events",
        "192.0.2.1",
        "add it to decide.trusted_proxies",
    ] {
        assert!(text.contains(part), "{text}");
    }
    let text = row("10.0.0.1", 1_000, 300)[0].to_string();
    assert!(
        text.contains("names no client in X-Forwarded-For"),
        "{text}"
    );
    // From events to the row: one of another source ends it.
    let origins = Origins::of(&decide);
    let log = origins.get("log:/x").unwrap();
    let one = vec![Event::of(address("192.0.2.1")); 1_000];
    log.count(understood(500), &one[..500], START);
    log.count(understood(500), &one[500..], START + 300 * S);
    let source = log.row(START).source.unwrap();
    assert_eq!((source.events, source.first_ns), (1_000, START));
    assert_eq!(source.last_ns, START + 300 * S);
    log.count(understood(1), &[Event::of(address("192.0.2.2"))], START);
    log.count(understood(500), &one[..500], START);
    assert_eq!(log.row(START).source, None);
}

const BY_ACCOUNT: &str = "
[[rule]]
name = 'lockout'
requests = ['POST /login']
key = ['account']
limit = 5
period = '1h'
action = 'reject'
";

#[test]
fn a_part_of_a_key_that_never_comes() {
    let text = format!("[decide]\nlogs = [{{ path = '/x', format = 'json' }}]\n{BY_ACCOUNT}");
    let decide = decide(&text);
    let origins = Origins::of(&decide);
    let log = origins.get("log:/x").unwrap();
    let found = || warnings(&decide, &origins.rows(START), START);
    let other = Event {
        path: Some("/".into()),
        ..login(1)
    };
    log.count(understood(1_000), &vec![other; 1_000], START);
    let logins: Vec<Event> = (0..100).map(login).collect();
    log.count(understood(99), &logins[..99], START);
    assert_eq!(found().len(), 0);
    log.count(understood(1), &logins[99..], START);
    let warning = found();
    let expected = About::Key {
        origin: "log:/x".to_owned(),
        rule: "lockout".to_owned(),
        part: "account".to_owned(),
    };
    assert_eq!(about(&warning), [&expected]);
    let text = warning[0].to_string();
    assert!(
        text.contains("100 events") && text.contains("decide.accounts.from"),
        "{text}"
    );
    // One of another path changes nothing, one login with it does.
    let named = Event {
        account: Some("alice".into()),
        ..login(1)
    };
    let elsewhere = Event {
        path: Some("/".into()),
        ..named.clone()
    };
    log.count(understood(1), &[elsewhere], START);
    assert_eq!(found().len(), 1);
    log.count(understood(1), &[named], START);
    assert_eq!(found().len(), 0);
}

#[test]
fn what_a_report_lacks_its_question_may_have() {
    let text = format!("[decide]\nlogs = [{{ path = '/x', format = 'json' }}]\n{BY_ACCOUNT}");
    let decide = decide(&text);
    let origins = Origins::of(&decide);
    let reports: Vec<Event> = (0..200)
        .map(|n| Event {
            id: Some(n.to_string().into()),
            ..login(n)
        })
        .collect();
    let log = origins.get("log:/x").unwrap();
    let api = origins.get("api").unwrap();
    api.count_question(understood(1), &[login(1)], START);
    log.count(understood(200), &reports, START);
    assert_eq!(warnings(&decide, &origins.rows(START), START).len(), 0);
}

#[test]
fn what_no_format_can_tell() {
    let logs = |formats: &[&str]| {
        let logs: Vec<String> = formats
            .iter()
            .map(|format| format!("{{ path = '/{}', {format} }}", format.len()))
            .collect();
        let logs = logs.join(", ");
        decide(&format!(
            "[decide]\nlogs = [{logs}]\n
            [[rule]]\nname = 'cost'\ncount = {{ score_header = 'X-Cost' }}\n
            limit = 5\nperiod = '1h'\naction = 'reject'\n
            [[rule]]\nname = 'peers'\nkey = ['peer']\nlimit = 5\nperiod = '1h'\naction = 'reject'\n
            [[rule]]\nname = 'fails'\nhosts = ['a.example']\ncount = 'failures'\nlimit = 5\n
            failure = {{ statuses = [401] }}\nperiod = '1h'\naction = 'reject'\n"
        ))
    };
    let untold = |decide: &crate::policy::Decide, rows: &[Row]| {
        let all = warnings(decide, rows, START);
        let of = all.into_iter().map(|warning| match warning.about {
            About::Untold { rule, what } => format!("{rule}: {what}"),
            other => panic!("{other:?}"),
        });
        of.collect::<Vec<_>>()
    };
    let nginx = logs(&["format = 'nginx'"]);
    assert_eq!(
        untold(&nginx, &[]),
        [
            "cost: response headers",
            "peers: the key's `peer`",
            "fails: a host",
        ]
    );
    assert_eq!(
        untold(&logs(&["format = 'nginx', direct = true"]), &[]).len(),
        2
    );
    assert!(untold(&logs(&["format = 'nginx'", "format = 'nginx-json'"]), &[]).is_empty());
    let fields = "format = 'fields', fields = { source = '/a', status = '/b', host = '/c', \
         response_headers.X-Cost = '/d' }";
    assert_eq!(untold(&logs(&[fields]), &[]), ["peers: the key's `peer`"]);
    // Applications tell everything, once they do.
    let api = |understood| Row {
        name: "api".to_owned(),
        understood,
        ..Row::default()
    };
    assert_eq!(untold(&nginx, &[api(0)]).len(), 3);
    assert!(untold(&nginx, &[api(1)]).is_empty());
    // Without servers there is nothing to compare with.
    assert!(untold(&logs(&[]), &[]).is_empty());
    let text = warnings(&nginx, &[], START)[0].to_string();
    assert!(text.contains("log:/16 (nginx)"), "{text}");
}

#[test]
fn a_request_is_asked_for_if_a_rule_has_a_say_about_it_however_it_is_written() {
    let origins = Origins::of(&decide(
        "[decide]\n[[rule]]\nname = 'login'\nrequests = ['POST /login', 'GET /a*']\n\
         apply = ['/account/*']\ncount = 'requests'\nlimit = 5\nperiod = '1m'\naction = 'reject'\n",
    ));
    let wants = origins.wants();
    let asks = |method, target| wants.asks(Some(method), Some(target));
    for target in [
        "/login",
        "/login?a=//b",
        "//login",
        "/x/../login",
        "/%6cogin",
        "http://h/login",
    ] {
        assert!(asks("POST", target), "{target}");
        assert!(!asks("GET", target), "{target}");
    }
    assert!(asks("HEAD", "/articles/1") && asks("PUT", "/account/1"));
    assert!(!asks("GET", "/") && !wants.asks(None, None));
    let every = "[decide]\n[[rule]]\nname = 'all'\ncount = 'requests'\nlimit = 5\n\
        period = '1m'\naction = 'reject'\n";
    origins.reload(&decide(every));
    assert!(origins.wants().asks(None, None));
}

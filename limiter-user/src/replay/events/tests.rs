use super::*;
use crate::policy::{NoFiles, parse};
use serde_json::Value;
use std::fmt::Write as _;

const PER_MINUTE: &str =
    "[[rule]]\nname = 'per-minute'\nlimit = 60\nperiod = '1m'\naction = 'reject'\n";

const LOCKOUT: &str = "[[rule]]\nname = 'lockout'\nrequests = ['POST /login']\n\
    failure = { statuses = [401] }\ncount = 'failures'\nkey = ['account']\n\
    ladder = [{ limit = 5, period = '5m', action = 'reject', for = '15m', notify = 'owner' }]\n";

const BLOCK: &str = "[[rule]]\nname = 'block'\ncount = { statuses = [401] }\n\
    limit = 2\nperiod = '1m'\naction = 'block'\nfor = '1h'\n";

const START: u64 = 1_800_000_000;

fn policy(rules: &str) -> Policy {
    let text = format!("[edge]\ninterfaces = ['eth0']\nallow = ['203.0.113.0/24']\n{rules}");
    parse("limiter.toml", &text, &NoFiles).unwrap().policy
}

fn said(
    rules: &str,
    format: &str,
    input: &str,
    form: Form,
) -> (Result<(), EventsError>, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let format = format.parse().unwrap();
    let input = input.as_bytes();
    let told = explain(&policy(rules), &format, input, form, &mut out, &mut err);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (out, err) = (text(out), text(err));
    println!("{out}{err}");
    (told, out, err)
}

#[track_caller]
fn fine(rules: &str, format: &str, input: &str, form: Form) -> (String, String) {
    let (told, out, err) = said(rules, format, input, form);
    told.unwrap();
    (out, err)
}

/// Everything that is said as text; the listing and the summary, then the warnings.
#[track_caller]
fn text(rules: &str, input: &str) -> String {
    let (out, err) = fine(rules, "json", input, Form::Text);
    out + &err
}

fn decisions(out: &str) -> Vec<Value> {
    let lines = out.lines();
    lines.map(|it| serde_json::from_str(it).unwrap()).collect()
}

/// Events a second apart.
fn requests(number: u64, more: &str) -> String {
    (0..number).fold(String::new(), |mut text, second| {
        let at = START + second;
        writeln!(text, "{{\"at\":{at},\"source\":\"192.0.2.7\"{more}}}").unwrap();
        text
    })
}

#[test]
fn sixty_pass_and_the_61st_is_refused() {
    let input: String = (0..61)
        .map(|n| format!("{{\"at\":{START}.{n:02},\"source\":\"192.0.2.7\"}}\n"))
        .collect();
    let (out, err) = fine(PER_MINUTE, "json", &input, Form::Json);
    let decisions = decisions(&out);
    assert_eq!(decisions.len(), 61);
    for (at, decision) in decisions[..60].iter().enumerate() {
        assert_eq!(decision["action"], "pass", "{at}");
        assert_eq!(decision["line"], at + 1);
        assert_eq!(decision["remaining"], 59 - at);
    }
    let last = &decisions[60];
    assert_eq!(
        (&last["action"], &last["rule"], &last["source"]),
        (&"reject".into(), &"per-minute".into(), &"192.0.2.7".into())
    );
    assert!(last["retry_after_s"].as_u64().unwrap() >= 1);
    assert!(out.contains("\"at\":1800000000.600000000,"));
    for part in [
        "61 events of format json, 2027-01-15T08:00:00.000Z to 2027-01-15T08:00:00.600Z",
        "    61 matched, 60 counted, 1 over\n",
        "    requests: 1 reject\n",
        "    sources: 192.0.2.7 (1)\n",
    ] {
        assert!(err.contains(part), "no {part:?}");
    }
}

#[test]
fn after_the_fifth_failure_the_next_attempt_is_refused() {
    let attempt = ",\"method\":\"POST\",\"path\":\"/login\",\"status\":401,\"account\":\" Alice\"";
    let input = requests(6, attempt);
    let (out, err) = fine(LOCKOUT, "json", &input, Form::Json);
    let actions: Vec<Value> = decisions(&out)
        .into_iter()
        .map(|mut it| it["action"].take())
        .collect();
    assert_eq!(
        actions,
        ["pass", "pass", "pass", "pass", "pass", "reject"].map(Value::from)
    );
    assert!(err.contains("accounts: alice (1)"));
}

#[test]
fn what_began_and_ended_is_listed_and_the_rest_where_it_is_little() {
    let attempt =
        ",\"method\":\"POST\",\"path\":\"/login?x=1\",\"status\":401,\"account\":\"al\\u001bice\"";
    let later = format!("{{\"at\":{},\"source\":\"192.0.2.8\"}}\n", START + 1_000);
    let few = text(LOCKOUT, &(requests(6, attempt) + &later));
    assert!(!few.contains('\u{1b}'));
    let rows: Vec<Vec<&str>> = few
        .lines()
        .map(|line| {
            line.split("  ")
                .map(str::trim)
                .filter(|it| !it.is_empty())
                .collect()
        })
        .collect();
    let begun = [
        "2027-01-15T08:00:04.000Z",
        "5",
        "begins reject, rung 1, owner to be told",
        "lockout",
        "2027-01-15T08:15:04.000Z",
        "al\\u{1b}ice, last from 192.0.2.7",
    ];
    assert_eq!(rows[6], begun);
    assert_eq!(rows[5][2], "pass");
    assert_eq!(rows[5][5], "192.0.2.7 POST /login 401 al\\u{1b}ice");
    assert_eq!(rows[7][2], "reject");
    let ended = [
        "2027-01-15T08:15:04.000Z",
        "-",
        "ends",
        "lockout",
        "-",
        "al\\u{1b}ice",
    ];
    assert_eq!(rows[8], ended);

    let many = text(LOCKOUT, &(requests(30, attempt) + &later));
    let rows: Vec<&str> = many.lines().collect();
    assert!(rows[1].contains("begins reject"), "{}", rows[1]);
    assert!(rows[2].contains("ends"), "{}", rows[2]);
    assert!(rows[3].starts_with("31 events"), "{}", rows[3]);
    let (all, _) = fine(LOCKOUT, "json", &requests(30, attempt), Form::All);
    assert_eq!(all.matches(" pass ").count(), 5);
    assert_eq!(all.matches(" reject ").count(), 25);
}

#[test]
fn a_block_says_where_it_is() {
    let from = |source: &str, peer: &str| {
        let event = format!(
            "{{\"at\":{START},\"source\":\"{source}\",\"peer\":\"{peer}\",\"status\":401}}\n"
        );
        event.repeat(3)
    };
    let input = from("192.0.2.1", "192.0.2.1") + &from("192.0.2.2", "10.0.0.1");
    // The edge allows this one.
    let input = input + &from("203.0.113.9", "203.0.113.9");
    let told = text(BLOCK, &input);
    for part in [
        "begins block at the NIC     block                 2027-01-15T09:00:00.000Z  192.0.2.1\n",
        "begins block as a 403       block                 2027-01-15T09:00:00.000Z  192.0.2.2\n",
        "begins block as a 403       block                 2027-01-15T09:00:00.000Z  203.0.113.9\n",
        "actions: 3 begun, 1 block at the NIC, 2 blocks as a 403",
        "3 sources blocked at the end",
        "requests: 3 block\n",
    ] {
        assert!(told.contains(part), "no {part:?}");
    }
    let elsewhere = format!("[decide]\nlocal_proxy = false\n{BLOCK}");
    assert!(!text(&elsewhere, &input).contains("at the NIC"));
    let simulated = format!("[decide]\nenforce = false\n{BLOCK}");
    let told = text(&simulated, &input);
    for part in [
        "would begin block  ",
        "pass (would block)",
        "rule block (simulated)\n",
        "requests: 3 would block\n",
    ] {
        assert!(told.contains(part), "no {part:?}");
    }
}

#[test]
fn lines_that_are_not_understood_are_told_and_do_not_end_it() {
    let bad = "nonsense\u{1b}[2J\n".repeat(25);
    let input = format!("{}{bad}{}", requests(1, ""), requests(1, ""));
    let (out, err) = fine(PER_MINUTE, "json", &input, Form::Json);
    assert_eq!(decisions(&out).len(), 2);
    assert_eq!(decisions(&out)[1]["line"], 27);
    assert!(err.contains("line 2: ") && err.contains("nonsense\\u{1b}[2J"));
    assert_eq!(err.matches("nonsense").count(), 10);
    assert!(err.contains("15 more lines not understood"));
    assert!(err.contains("\n25 lines not understood\n"));
    assert!(!err.contains('\u{1b}'));
}

#[test]
fn a_file_without_events_says_what_it_may_be() {
    let log = include_str!("../../event/samples/nginx.log");
    for (format, input, part) in [
        ("json", log, "add --format nginx"),
        ("nginx", "", "it is empty"),
        (
            "json",
            "\u{1f}x\n{}\n",
            "2 lines, and no format reads them; json, nginx, ",
        ),
        (
            "caddy",
            "{\"msg\":\"serving\"}\n",
            "1 line, and none tells of a request",
        ),
        (
            "nginx",
            &requests(3, ""),
            "3 of the first are json: add --format json",
        ),
    ] {
        let (told, out, _) = said(PER_MINUTE, format, input, Form::Json);
        let error = told.unwrap_err().to_string();
        assert_eq!(out, "");
        let tried = format!("no event of format {format} is in it: ");
        assert!(error.starts_with(&tried) && error.contains(part), "{error}");
    }
    let mut gzip: &[u8] = b"\x1f\x8b\x08\0";
    let rules = policy(PER_MINUTE);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let told = explain(
        &rules,
        &Format::Nginx,
        &mut gzip,
        Form::Json,
        &mut out,
        &mut err,
    );
    assert!(told.unwrap_err().to_string().contains("zcat"));
}

#[test]
fn a_policy_without_rules_is_an_error() {
    for rules in ["", "[decide]\n"] {
        let (told, ..) = said(rules, "json", &requests(1, ""), Form::Json);
        let error = told.unwrap_err().to_string();
        assert!(
            error.contains("no [[rule]]") && error.contains("limiter init"),
            "{error}"
        );
    }
}

#[test]
fn times_that_are_doubtful_are_told() {
    let event = |at: u64| format!("{{\"at\":{at},\"source\":\"192.0.2.7\"}}\n");
    let input = event(START) + &event(4_000_000_000) + &event(START + 1) + &event(START + 2);
    let told = text(PER_MINUTE, &input);
    let part = "2 events earlier than one before, line 3 by 69years ";
    assert!(
        told.contains(part) && told.contains("than line 2;"),
        "{told}"
    );

    let timeless = "{\"source\":\"192.0.2.7\"}\n";
    assert!(text(PER_MINUTE, timeless).contains("no event has a time"));
    let told = text(PER_MINUTE, &(event(START) + timeless));
    assert!(told.contains("1 event without a time, decided at the latest before"));

    let absurd = event(START) + &event(253_402_300_799) + "{\"at\":-1,\"source\":\"192.0.2.7\"}\n";
    let told = text(PER_MINUTE, &absurd);
    assert!(told.contains("line 2: ") && told.contains("line 3: "));
    assert_eq!(told.matches("not between 1970 and 2100").count(), 2);
}

#[test]
fn a_rule_that_has_nothing_to_go_by_is_told() {
    let rules = format!(
        "{PER_MINUTE}{}{LOCKOUT}{BLOCK}",
        PER_MINUTE.replace("per-minute", "elsewhere") + "hosts = ['example.com']\n"
    );
    let log =
        "192.0.2.7 - - [15/Jan/2027:08:00:00 +0000] \"POST /login HTTP/1.1\" 200 2 \"-\" \"-\"\n";
    let (_, err) = fine(&rules, "nginx", &log.repeat(10), Form::Text);
    for part in [
        "rule elsewhere has not matched: no event tells a host",
        "rule lockout has counted nothing: all that it selects (10 events) lacks a part of its key, \
         account, as far as format nginx tells it",
        "all 10 events are from 192.0.2.7, which is not one of trusted_proxies",
    ] {
        assert!(err.contains(part), "no {part:?}");
    }
    // It found no failure, and could have.
    assert!(!err.contains("rule block"));
    let (_, err) = fine(BLOCK, "json", &requests(3, ""), Form::Text);
    assert!(err.contains("rule block has counted nothing: no event tells a status"));
    let proxy = format!("[decide]\ntrusted_proxies = ['192.0.2.0/24']\n{PER_MINUTE}");
    let told = text(&proxy, &requests(10, ""));
    assert!(told.contains("one of trusted_proxies: the log has the proxy where"));
}

#[test]
fn the_same_question_has_the_same_answer() {
    let input = include_str!("../../event/samples/nginx.log");
    let rules = format!("{PER_MINUTE}{BLOCK}jitter = 50\n");
    let ask = || said(&rules, "nginx", input, Form::All);
    let (first, second) = (ask(), ask());
    assert_eq!((first.1, first.2), (second.1, second.2));
}

#[test]
fn the_format_is_that_of_the_log_in_the_policy() {
    let of = |rules: &str, file: &str, named| {
        let policy = policy(rules);
        let format = format_of(policy.decide.as_ref(), file.as_ref(), named);
        format.map(|format| format.to_string())
    };
    let logs = "[decide]\nlogs = [{ path = '/a', format = 'caddy' }, \
        { path = '/b', format = 'fields', fields = { source = '/ip' } }]\n";
    let more = "feedback = [{ unix = '/c', format = 'fields', fields = { source = '/who' } }]\n";
    for (rules, file, named, format) in [
        (logs, "/a", None, Ok("caddy")),
        (logs, "/a", Some("nginx"), Ok("nginx")),
        (logs, "/b", None, Ok("fields")),
        (logs, "-", Some("fields"), Ok("fields")),
        (logs, "-", None, Ok("json")),
        ("", "-", None, Ok("json")),
        ("", "-", Some("fields"), Err(FieldMapError::None)),
        (
            &format!("{logs}{more}"),
            "-",
            Some("fields"),
            Err(FieldMapError::Many(2)),
        ),
        (&format!("{logs}{more}"), "/b", Some("fields"), Ok("fields")),
    ] {
        let wanted = format.map(str::to_owned);
        assert_eq!(of(rules, file, named), wanted, "{file} {named:?}");
    }
}

#[test]
fn who_is_outside_a_gate_is_refused_for_that() {
    let rules = "[[rule]]\nname = 'admin'\nrequests = ['/admin/*']\nfrom = ['10.0.0.0/8']\n";
    let input = format!(
        "{{\"at\":{START},\"source\":\"10.0.0.1\",\"path\":\"/admin/a\"}}\n\
         {{\"at\":{START},\"source\":\"192.0.2.7\",\"path\":\"/admin/a\"}}\n"
    );
    let (out, _) = fine(rules, "json", &input, Form::Json);
    let decisions = decisions(&out);
    assert_eq!(decisions[0]["action"], "pass");
    assert!(decisions[0].get("reason").is_none(), "{out}");
    assert_eq!(decisions[1]["action"], "reject");
    assert_eq!(decisions[1]["reason"], "not_from");
    let all = text(rules, &input);
    for part in [
        "reject, not_from",
        "    2 matched, 0 counted, 1 over, 1 from outside\n",
        "    requests: 1 reject\n",
    ] {
        assert!(all.contains(part), "no {part:?} in {all}");
    }
    let all = text(&format!("{rules}simulate = true\n"), &input);
    assert!(all.contains("pass (would reject, not_from)"), "{all}");
}

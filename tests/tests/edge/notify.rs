//! Who is told what happens: by a mail server as Debian has it, and by a webhook.

use crate::hearing::{Hearing, failure};
use limiter_tests::exim::{Certificates, Exim, PASSWORD, USER};
use limiter_tests::process::Scratch;
use serde_json::{Value, json};
use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::Command,
    sync::mpsc,
    time::Duration,
};

const LOCK: &str = r#"
[[rule]]
name = "lock"
requests = ["POST /login"]
failure = { statuses = [401] }
count = "failures"
key = ["account"]
action = "reject"
ladder = [{ limit = 3, period = "5m", for = "15m", notify = "owner" }]
"#;

const OWNERS: &str = "[decide.accounts]\nowner_header = \"X-Account-Email\"\n";

const SECRET: &str = "a secret of more than sixteen bytes";

/// A failed login for which the origin names the owner's address; so does the client, which
/// counts for nothing.
fn told(account: &str, owner: &str) -> Value {
    let mut event = failure("198.51.100.7");
    event["account"] = json!(account);
    event["headers"] = json!({ "X-Account-Email": "mallory@example.com" });
    if !owner.is_empty() {
        event["response_headers"] = json!({ "X-Account-Email": owner });
    }
    event
}

fn fail(hearing: &Hearing, account: &str, owner: &str) {
    for _ in 0..3 {
        hearing.tell(&told(account, owner));
    }
}

fn row(hearing: &Hearing, channel: &str) -> Value {
    let status = hearing.ask(&["status"]);
    let rows = status["notify"].as_array().unwrap();
    rows.iter()
        .find(|row| row["channel"] == channel)
        .unwrap()
        .clone()
}

/// A request, in its lines; the last one is the body.
fn read_request(stream: &TcpStream) -> Vec<String> {
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let line = line.trim_end().to_owned();
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
            length = value.parse().unwrap();
        }
        let is_end = line.is_empty();
        lines.push(line);
        if is_end {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    lines.push(String::from_utf8(body).unwrap());
    lines
}

/// A receiver that answers each request with the next of these statuses, and 0 with nothing until
/// the other end has gone; then with 204.
fn receiver(hearing: &Hearing, statuses: &'static [u16]) -> (u16, mpsc::Receiver<Vec<String>>) {
    let namespace = hearing.site.server();
    let listener = namespace.run(|| TcpListener::bind("127.0.0.1:0")).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sending, requests) = mpsc::channel();
    std::thread::spawn(move || {
        let mut statuses = statuses.iter();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            if sending.send(read_request(&stream)).is_err() {
                return;
            }
            let status = statuses.next().copied().unwrap_or(204);
            if status == 0 {
                let _gone = stream.read_to_end(&mut Vec::new());
            } else {
                let answer = format!("HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n");
                stream.write_all(answer.as_bytes()).unwrap();
            }
        }
    });
    (port, requests)
}

fn header<'a>(request: &'a [String], name: &str) -> &'a str {
    let found = request.iter().filter_map(|line| line.split_once(": "));
    let mut found = found.filter(|(it, _)| it.eq_ignore_ascii_case(name));
    found.next().unwrap().1
}

/// As a receiver would, by another program than the one that has signed.
fn assert_signed(request: &[String]) {
    let signature = header(request, "X-Limiter-Signature");
    let (at, signature) = signature.split_once(",v1=").unwrap();
    let at = at.strip_prefix("t=").unwrap();
    let signed = format!("{at}.{}", request.last().unwrap());
    let scratch = Scratch::new().unwrap();
    fs::write(scratch.path("signed"), signed).unwrap();
    let made = Command::new("openssl")
        .args(["dgst", "-sha256", "-hmac", SECRET])
        .arg(scratch.path("signed"))
        .output()
        .unwrap();
    let made = String::from_utf8(made.stdout).unwrap();
    assert!(
        made.trim_end().ends_with(&format!("= {signature}")),
        "{made} {signature}"
    );
}

const LATE: Duration = Duration::from_secs(60);

#[test]
fn a_webhook_is_told_again_until_it_answers_and_can_tell_who_said_it() {
    let hearing = Hearing::new("", "", LOCK);
    let (port, requests) = receiver(&hearing, &[0, 500, 204]);
    fs::write(hearing.path("secret"), SECRET).unwrap();
    let notify = format!(
        "{LOCK}\n[notify]\nwebhook = {{ url = \"http://127.0.0.1:{port}/hook\", secret_file = {:?} }}\n",
        hearing.path("secret")
    );
    hearing
        .site
        .daemon
        .write_policy(&hearing.policy("", OWNERS, &notify))
        .unwrap();
    hearing.site.daemon.ask(&["reload"]).unwrap();
    // One that hangs is given up after ten seconds, and said.
    let tested = hearing.site.daemon.output(&["notify", "test"]).unwrap();
    let words = String::from_utf8(tested.stdout).unwrap();
    assert!(words.contains("not sent: no answer within 10 s"), "{words}");
    assert_eq!(tested.status.code(), Some(1));
    let request = requests.recv_timeout(LATE).unwrap();
    assert_signed(&request);

    fail(&hearing, "ann", "ann@example.com");
    let first = requests.recv_timeout(LATE).unwrap();
    assert_signed(&first);
    let body: Value = serde_json::from_str(first.last().unwrap()).unwrap();
    assert_eq!(body["event"], "rung");
    assert_eq!(body["rule"], "lock");
    assert_eq!(body["account"], "ann");
    assert_eq!(body["source"], "198.51.100.7");
    assert!(!first.last().unwrap().contains("@"), "{body}");
    let second = requests.recv_timeout(LATE).unwrap();
    assert_signed(&second);
    assert_eq!(second.last(), first.last());
    assert_eq!(
        header(&second, "X-Limiter-Id"),
        header(&first, "X-Limiter-Id")
    );
    hearing.until("the answer", || {
        (row(&hearing, "webhook")["sent"] == 1).then_some(())
    });
    // Of an account whose owner nobody knows the name is not told.
    fail(&hearing, "hunter2", "");
    let third = requests.recv_timeout(LATE).unwrap();
    let body: Value = serde_json::from_str(third.last().unwrap()).unwrap();
    assert_eq!(body["account"], Value::Null);
    // It may not do what it does not need.
    courier_is_confined(&hearing);
}

/// The courier has no capabilities, and its system calls are filtered.
fn courier_is_confined(hearing: &Hearing) {
    let worker = hearing.worker();
    let status = |pid: u32| fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let parent = |pid| {
        let status = status(pid);
        let line = status
            .lines()
            .find(|line| line.starts_with("PPid:"))
            .unwrap();
        line[5..].trim().parse::<u32>().unwrap()
    };
    let spawner = parent(worker);
    let children = format!("/proc/{spawner}/task/{spawner}/children");
    let children = fs::read_to_string(children).unwrap();
    let children = children.split_whitespace().map(|pid| pid.parse().unwrap());
    let others: Vec<u32> = children.filter(|pid| *pid != worker).collect();
    assert_eq!(others.len(), 1, "{others:?}");
    let courier = others[0];
    let line = fs::read_to_string(format!("/proc/{courier}/cmdline")).unwrap();
    assert_eq!(line.trim_end_matches('\0'), "limiter-courier");
    let status = status(courier);
    for line in ["CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(status.contains(line), "{status}");
    }
}

#[test]
fn mail_waits_for_its_server_through_a_restart_and_goes_to_the_owner_alone() {
    let hearing = Hearing::new("", OWNERS, LOCK);
    let certificates = Certificates::new().unwrap();
    fs::write(hearing.path("password"), PASSWORD).unwrap();
    let port = 2525;
    let policy = |to: &str| {
        let notify = format!(
            "{LOCK}\n[notify]\nto = \"{to}\"\nca_file = {:?}\nsmtp = {{ server = \"localhost:{port}\", \
             from = \"limiter@example.com\", user = \"{USER}\", password_file = {:?} }}\n",
            certificates.root(),
            hearing.path("password"),
        );
        hearing.policy("", OWNERS, &notify)
    };
    let daemon = &hearing.site.daemon;
    daemon.write_policy(&policy("ops@example.com")).unwrap();
    daemon.ask(&["reload"]).unwrap();
    // Nobody is there to take it.
    fail(&hearing, "ann", "ann@example.com");
    hearing.until("the failure", || {
        let row = row(&hearing, "mail");
        let error = row["last_error"].as_str()?;
        assert!(error.contains("refused"), "{row}");
        assert_eq!(row["waiting"], 1, "{row}");
        Some(())
    });
    daemon.stop().unwrap();
    daemon.launch().unwrap();
    assert_eq!(row(&hearing, "mail")["waiting"], 1);
    let exim = Exim::start(hearing.site.server(), port, &certificates).unwrap();
    let mails = hearing.until("the mail", || {
        let mails = exim.mails().unwrap();
        (!mails.is_empty()).then_some(mails)
    });
    let [mail] = &mails[..] else {
        panic!("{mails:#?}");
    };
    assert!(mail.contains("\nann@example.com\n"), "{mail}");
    assert!(!mail.contains("mallory"), "{mail}");
    assert!(
        mail.contains("Subject: Sign-in to your account was limited"),
        "{mail}"
    );
    assert!(mail.contains("came from 198.51.100.7"), "{mail}");
    assert!(mail.contains("Auto-Submitted: auto-generated"), "{mail}");
    hearing.until("the answer", || {
        (row(&hearing, "mail")["sent"] == 1).then_some(())
    });
    let tested = daemon.ask(&["notify", "test"]).unwrap();
    assert!(
        tested.starts_with("mail to ops@example.com: sent: 250 OK"),
        "{tested}"
    );
    // What the server refuses is said in its words.
    for (to, password, words) in [
        ("ops@elsewhere.example", PASSWORD, "no such receiver"),
        ("ops@example.com", "wrong", "535"),
    ] {
        fs::write(hearing.path("password"), password).unwrap();
        daemon.write_policy(&policy(to)).unwrap();
        daemon.ask(&["reload"]).unwrap();
        let tested = daemon.output(&["notify", "test"]).unwrap();
        let said = String::from_utf8(tested.stdout).unwrap();
        assert!(said.contains("not sent") && said.contains(words), "{said}");
    }
}

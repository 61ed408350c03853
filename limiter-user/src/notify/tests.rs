//! The notifier with a courier that only writes down.

use std::sync::mpsc;
use std::time::UNIX_EPOCH;

use super::*;
use crate::courier::{Mail, Post};
use crate::engine::Cause;
use crate::policy::{Action, Hidden, Smtp, SmtpTls, Webhook};

/// What a courier was given, and what it is to answer; without an answer it accepts.
#[derive(Clone)]
struct Fake {
    jobs: mpsc::Sender<Job>,
    answers: Arc<Mutex<Vec<Answer>>>,
}

impl Deliver for Fake {
    fn deliver(&self, job: Job) -> Answer {
        let _gone = self.jobs.send(job.clone());
        let next = self.answers.lock().unwrap().pop();
        next.unwrap_or_else(|| match job {
            Job::Mail(_) => Answer::Accepted("250 ok".to_owned()),
            Job::Post(_) => Answer::Replied {
                status: 204,
                body: Vec::new(),
            },
        })
    }
}

struct Bench {
    directory: tempfile::TempDir,
    jobs: mpsc::Receiver<Job>,
    fake: Fake,
    notifier: Notifier,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.notifier.end();
    }
}

fn settings() -> Notify {
    Notify {
        smtp: Some(Smtp {
            host: "mail.example".to_owned(),
            port: 587,
            tls: SmtpTls::StartTls,
            from: "limiter@example.com".to_owned(),
            login: None,
        }),
        webhook: Some(Webhook {
            url: "https://hooks.example/".to_owned(),
            secret: Hidden("0123456789abcdef".to_owned()),
        }),
        to: Some("ops@example.com".to_owned()),
        per_hour: 3,
        accounts: false,
        language: crate::policy::Language::En,
        templates: crate::policy::Templates::default(),
        certificates: None,
    }
}

/// A policy whose rule tells of its third rung.
fn policy(notify: Option<Notify>) -> Policy {
    let text = "[decide.accounts]\nowner_header = 'X-Owner'\n\
        [[rule]]\nname = 'lockout'\ncount = 'failures'\nkey = ['account']\naction = 'reject'\n\
        ladder = [\n{ limit = 5, period = '5m', for = '15m' },\n\
        { limit = 5, period = '1h', for = '1h' },\n\
        { limit = 5, period = '1d', for = '1d', notify = 'owner' }]\n";
    let loaded = crate::policy::parse("limiter.toml", text, &crate::policy::NoFiles).unwrap();
    Policy {
        notify,
        ..loaded.policy
    }
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (sending, jobs) = mpsc::channel();
        let fake = Fake {
            jobs: sending,
            answers: Arc::default(),
        };
        let notifier = notifier(directory.path(), fake.clone());
        notifier.follow(&policy(Some(settings())));
        Self {
            directory,
            jobs,
            fake,
            notifier,
        }
    }

    /// What a thread has sent within a time that is long enough on any machine.
    fn job(&self) -> Job {
        self.jobs.recv_timeout(Duration::from_secs(30)).unwrap()
    }

    fn mail(&self) -> Mail {
        loop {
            if let Job::Mail(mail) = self.job() {
                return *mail;
            }
        }
    }

    fn post(&self) -> Post {
        loop {
            if let Job::Post(post) = self.job() {
                return post;
            }
        }
    }

    fn waiting(&self) -> usize {
        let health = self.notifier.health();
        health.channels.iter().map(|(_, _, waiting)| waiting).sum()
    }

    fn await_health(&self, is_so: impl Fn(&Health) -> bool) -> Health {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let health = self.notifier.health();
            if is_so(&health) {
                return health;
            }
            assert!(Instant::now() < deadline, "{health:?}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

fn notifier(directory: &std::path::Path, fake: Fake) -> Notifier {
    let outbox = OutboxFile::of(directory);
    Notifier::new(Box::new(fake), outbox, [7; 16], "web1".to_owned())
}

fn change(account: &str, owner: Option<&str>) -> Change {
    Change {
        at_ns: 1_700_000_000_000_000_000,
        rule: "lockout".into(),
        key: 7,
        part: 2,
        what: What::Began {
            action: Action::Reject,
            until_ns: 1_700_000_900_000_000_000,
            rung: 3,
            simulated: false,
            notify_owner: true,
        },
        event: Some(Cause {
            source: [192, 0, 2, 7].into(),
            account: Some(account.into()),
            path: None,
            status: None,
            owner: owner.map(Box::from),
        }),
    }
}

#[test]
fn an_owner_is_told_once_a_day_and_only_at_the_address_of_the_origin() {
    let bench = Bench::new();
    bench.notifier.start().unwrap();
    bench.notifier.hear(&change("ann", Some("ann@example.com")));
    let mail = bench.mail();
    assert_eq!(mail.to, "ann@example.com");
    assert!(mail.text.contains("\"ann\""), "{}", mail.text);
    bench.await_health(|health| health.channels.iter().all(|it| it.1.sent == 1));
    bench.notifier.hear(&change("ann", Some("ann@example.com")));
    let health = bench.notifier.health();
    assert_eq!(health.kept[0], (Kept::Account, 1));
    // What is no address, or more than one, goes to whom the policy names, without the name.
    for (account, owner) in [
        ("bob", "a@b.example, c@d.example"),
        ("eve", "x\r\nBcc: a@b.example"),
    ] {
        bench.notifier.hear(&change(account, Some(owner)));
        let mail = bench.mail();
        assert_eq!(mail.to, "ops@example.com");
        assert!(!mail.text.contains(account), "{}", mail.text);
    }
    // Three an hour.
    bench.notifier.hear(&change("joe", None));
    assert_eq!(bench.notifier.health().kept[1], (Kept::Rate, 1));
}

#[test]
fn what_is_simulated_or_does_not_say_so_is_told_to_nobody() {
    let bench = Bench::new();
    for (simulated, notify_owner) in [(true, true), (false, false)] {
        let mut change = change("ann", None);
        change.what = What::Began {
            action: Action::Reject,
            until_ns: 1,
            rung: 1,
            simulated,
            notify_owner,
        };
        bench.notifier.hear(&change);
    }
    // The policy's rules could not bring that about.
    let strange = Change {
        part: 1,
        ..change("ann", None)
    };
    bench.notifier.hear(&strange);
    let strange = Change {
        rule: "other".into(),
        ..change("ann", None)
    };
    bench.notifier.hear(&strange);
    assert_eq!(bench.waiting(), 0);
    bench.notifier.follow(&policy(None));
    bench.notifier.hear(&change("ann", None));
    bench.notifier.flood_begun(UNIX_EPOCH);
    bench.notifier.follow(&policy(Some(settings())));
    assert_eq!(bench.waiting(), 0);
}

#[test]
fn what_waits_outlives_the_daemon_and_keeps_its_id() {
    let bench = Bench::new();
    let busy = Answer::Later("busy".to_owned());
    *bench.fake.answers.lock().unwrap() = vec![busy.clone(), busy];
    bench.notifier.start().unwrap();
    bench.notifier.hear(&change("ann", None));
    let first = bench.post();
    let health = bench.await_health(|health| health.channels.iter().all(|it| it.1.retried == 1));
    assert_eq!(health.channels[1].1.last_error.as_deref(), Some("busy"));
    bench.notifier.end();
    let file = OutboxFile::of(bench.directory.path());
    // The thread writes it after it has counted.
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut stored = loop {
        let stored = file.read().unwrap();
        if stored.letters.iter().all(|it| it.failures == 1) && stored.letters.len() == 2 {
            break stored;
        }
        assert!(Instant::now() < deadline, "{stored:?}");
        std::thread::sleep(Duration::from_millis(2));
    };
    // As if ten seconds had passed.
    stored.letters.iter_mut().for_each(|it| it.due_ms = 0);
    file.write(&stored).unwrap();
    let next = notifier(bench.directory.path(), bench.fake.clone());
    next.follow(&policy(Some(settings())));
    next.start().unwrap();
    let second = bench.post();
    assert_eq!(first.body, second.body);
    assert_eq!(first.headers[2], second.headers[2]);
    next.hear(&change("ann", None));
    assert_eq!(next.health().kept[0], (Kept::Account, 1));
    next.end();
}

#[test]
fn a_flood_that_comes_and_goes_is_told_of_once() {
    let bench = Bench::new();
    let at = |seconds: u64| UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds);
    bench.notifier.flood_begun(at(0));
    bench.notifier.flood_over(at(0), at(10), 9, 4);
    assert_eq!(bench.waiting(), 4);
    bench.notifier.flood_begun(at(20));
    bench.notifier.flood_over(at(20), at(30), 9, 4);
    assert_eq!(bench.waiting(), 4);
    bench.notifier.flood_begun(at(900));
    assert_eq!(bench.waiting(), 6);
}

#[test]
fn a_test_says_what_the_servers_answer() {
    let bench = Bench::new();
    let mut tried = bench.notifier.test();
    tried.sort_by(|a, b| a.channel.cmp(&b.channel));
    assert_eq!(tried[0].to, "ops@example.com");
    assert_eq!(tried[0].answer, "250 ok");
    assert_eq!(tried[1].to, "https://hooks.example/");
    assert_eq!(tried[1].answer, "status 204");
    assert!(tried.iter().all(|it| it.sent));
    for answer in [
        Answer::Replied {
            status: 500,
            body: b"<h1>\x1b[31mno</h1>".to_vec(),
        },
        Answer::Refused("550 no".to_owned()),
        Answer::Later("no answer".to_owned()),
    ] {
        *bench.fake.answers.lock().unwrap() = vec![answer.clone(), answer];
        let tried = bench.notifier.test();
        assert!(
            tried
                .iter()
                .all(|it| !it.sent && !it.answer.contains('\x1b')),
            "{tried:?}"
        );
    }
    assert_eq!(bench.waiting(), 0);
}

#[test]
fn what_waits_for_a_channel_that_is_gone_waits_for_it_to_come_back() {
    let bench = Bench::new();
    bench.notifier.hear(&change("ann", None));
    assert_eq!(bench.waiting(), 2);
    // As a policy that is tried for a minute.
    bench.notifier.follow(&policy(None));
    bench.notifier.follow(&policy(Some(Notify {
        webhook: None,
        ..settings()
    })));
    assert_eq!(bench.waiting(), 1);
    bench.notifier.follow(&policy(Some(settings())));
    bench.notifier.start().unwrap();
    bench.await_health(|health| health.channels.iter().all(|it| it.1.sent == 1));
}

#[test]
fn an_owner_is_told_once_whatever_the_account_is_called() {
    let bench = Bench::new();
    bench.notifier.hear(&change("ann", Some("ann@example.com")));
    bench
        .notifier
        .hear(&change("ann+1", Some("Ann@Example.com")));
    assert_eq!(bench.waiting(), 2);
    assert_eq!(bench.notifier.health().kept[0], (Kept::Account, 1));
}

#[test]
fn what_has_nobody_to_go_to_uses_up_nothing() {
    let bench = Bench::new();
    bench.notifier.follow(&policy(Some(Notify {
        webhook: None,
        to: None,
        per_hour: 1,
        ..settings()
    })));
    for account in ["ann", "bob", "eve"] {
        bench.notifier.hear(&change(account, None));
    }
    bench.notifier.hear(&change("ann", Some("ann@example.com")));
    assert_eq!(bench.waiting(), 1);
}

#[test]
fn an_account_that_is_erased_leaves_no_letter() {
    let bench = Bench::new();
    for account in ["ann", "bob"] {
        let owner = format!("{account}@example.com");
        bench.notifier.hear(&change(account, Some(&owner)));
    }
    assert_eq!(bench.waiting(), 4);
    bench.notifier.erase("ann");
    assert_eq!(bench.waiting(), 2);
    let stored = OutboxFile::of(bench.directory.path()).read().unwrap();
    let text = serde_json::to_string(&stored).unwrap();
    assert!(!text.contains("ann@") && text.contains("bob@"), "{text}");
}

//! Keys and answers in, screens out.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::model::{Event, Model, Next, Order};
use super::sources::Reading;
use super::view;
use crate::control::api::{
    AuditRow, CounterRow, FloodRow, InterfaceRow, MapRow, OutcomeRow, ReloadState, Requests,
    RuleRow, SourceRow, StateRow, Stats, Status, WorkerRow,
};
use crate::engine::Tally;

/// A model and its clock, which only tests move.
struct Session {
    model: Model,
    now: Instant,
    packets: [u64; 2],
}

impl Session {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            model: Model::new(now),
            now,
            packets: [0; 2],
        }
    }

    fn update(&mut self, event: Event) -> Next {
        self.model.update(event, self.now)
    }

    fn press(&mut self, keys: &str) -> Next {
        let mut next = Next::Nothing;
        for key in keys.chars() {
            let code = match key {
                '\u{1b}' => KeyCode::Esc,
                '\n' => KeyCode::Enter,
                c => KeyCode::Char(c),
            };
            next = self.update(Event::Key(KeyEvent::from(code)));
        }
        next
    }

    /// A second goes by in which so many packets pass and are dropped.
    fn second(&mut self, passed: u64, dropped: u64) {
        self.now += Duration::from_secs(1);
        self.packets[0] += passed;
        self.packets[1] += dropped;
        let stats = Stats {
            counters: vec![
                counter("pass", None, self.packets[0]),
                counter("drop", Some("packets"), self.packets[1]),
            ],
        };
        let next = self.update(Event::Counters(Ok(Box::new((stats, status())))));
        assert_eq!(next, Next::Nothing);
    }

    /// A second goes by, after which rules have seen and refused so many in all.
    fn rules(&mut self, tallies: &[(&str, u64, u64)]) {
        self.now += Duration::from_secs(1);
        let row = |(name, matched, rejected): &(&str, u64, u64)| RuleRow {
            name: (*name).to_owned(),
            mode: "on".to_owned(),
            tally: Tally {
                matched: *matched,
                by_action: [0, 0, 0, *rejected, 0],
                ..Tally::default()
            },
        };
        let requests = Requests {
            rules: tallies.iter().map(row).collect(),
            ..Requests::default()
        };
        let status = Status {
            rules: tallies
                .iter()
                .map(|(name, ..)| (*name).to_owned())
                .collect(),
            requests: Some(requests),
            ..status()
        };
        self.told(status);
    }

    fn told(&mut self, status: Status) {
        let none = Stats {
            counters: Vec::new(),
        };
        self.update(Event::Counters(Ok(Box::new((none, status)))));
    }

    fn sources(&mut self, rows: &[(&str, u64, u64)]) {
        let sources: Vec<SourceRow> = rows
            .iter()
            .map(|(address, passed, dropped)| source(address, *passed, *dropped))
            .collect();
        let reading = Reading {
            total: sources.len() as u64,
            sources,
            blocks: Some(Vec::new()),
            allow: Some(Vec::new()),
            deny: Some(Vec::new()),
        };
        self.update(Event::Sources(Ok(reading)));
    }

    fn screen_of(&self, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        let drawn = terminal.draw(|frame| view::draw(frame, &self.model, self.now));
        let buffer = drawn.unwrap().buffer.clone();
        let lines = buffer.content.chunks(usize::from(width.max(1)));
        lines
            .map(|cells| cells.iter().map(|cell| cell.symbol()).collect())
            .collect()
    }

    fn screen(&self) -> String {
        self.screen_of(110, 30).join("\n")
    }

    /// The line of the screen that begins with these words.
    fn line(&self, beginning: &str) -> String {
        let lines = self.screen_of(110, 30);
        let found = lines.iter().find(|line| line.starts_with(beginning));
        found.map_or_else(|| panic!("{}", self.screen()), Clone::clone)
    }
}

fn counter(verdict: &str, budget: Option<&str>, packets: u64) -> CounterRow {
    CounterRow {
        interface: Some("eth0".to_owned()),
        limit: Some("https".to_owned()),
        outcome: outcome(verdict, budget),
        packets,
        bytes: packets * 60,
    }
}

fn outcome(verdict: &str, budget: Option<&str>) -> OutcomeRow {
    OutcomeRow {
        verdict: verdict.to_owned(),
        reason: "limit".to_owned(),
        budget: budget.map(str::to_owned),
    }
}

fn source(address: &str, passed: u64, dropped: u64) -> SourceRow {
    SourceRow {
        source: net(address),
        limit: "https".to_owned(),
        packets_per_second: Some(passed + dropped),
        passed,
        dropped,
        last_refusal: (dropped > 0).then(|| outcome("drop", Some("packets"))),
    }
}

fn net(text: &str) -> IpNet {
    IpNet::from(text.parse::<std::net::IpAddr>().unwrap())
}

fn status() -> Status {
    let map = |map: &str, entries, capacity| MapRow {
        map: map.to_owned(),
        capacity,
        entries,
    };
    Status {
        term: None,
        version: "0.1.0".to_owned(),
        pid: 7,
        started: String::new(),
        uptime_seconds: 3_660,
        config: String::new(),
        enforce: true,
        reload: ReloadState {
            successful: true,
            succeeded: String::new(),
            succeeded_unix: 0,
            error: None,
        },
        interfaces: vec![InterfaceRow {
            interface: "eth0".to_owned(),
            index: 2,
            mode: "native".to_owned(),
            fallback: None,
            present: true,
            state: "attached".to_owned(),
            since: None,
            cause: None,
        }],
        limits: vec!["https".to_owned()],
        blocks: [("operator".to_owned(), 0)].into(),
        blocks_refused: 0,
        flood: FloodRow {
            active: false,
            since: None,
            unknown_per_second: None,
            unknown_percent: None,
            admitted: 0,
        },
        captures: 0,
        state: StateRow {
            directory: "/var/lib/limiter".to_owned(),
            writable: true,
            error: None,
        },
        audit: AuditRow::default(),
        allow: 0,
        deny: 0,
        list_files: Vec::new(),
        maps: vec![map("sources", None, 1_000), map("lists", Some(95), 100)],
        pins: None,
        pins_error: None,
        rules: Vec::new(),
        rules_enforce: None,
        switched: BTreeMap::new(),
        worker: WorkerRow::default(),
        notify: Vec::new(),
        warnings: Vec::new(),
        requests: None,
        metrics: None,
    }
}

#[test]
fn rates_tables_and_sources_are_shown() {
    let mut session = Session::new();
    session.second(0, 0);
    session.second(1_500, 20);
    session.second(1_000, 80);
    session.sources(&[("192.0.2.1", 10, 0), ("192.0.2.2", 5, 0)]);
    session.sources(&[("192.0.2.1", 20, 30), ("192.0.2.2", 6, 0)]);
    let words = |line: String| {
        line.split_whitespace()
            .take(3)
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(words(session.line("passed")), "passed 1,000 1,500");
    assert_eq!(words(session.line("dropped")), "dropped 80 80");
    let by_reason = session.line("  dropped: limit (packets)");
    assert!(
        by_reason.contains("80") && by_reason.contains('█'),
        "{by_reason}"
    );
    assert!(
        session
            .line("limiter")
            .contains("0.1.0  up 1h 1m  eth0 (native)  enforced")
    );
    let tables = session.line("sources ");
    assert!(tables.contains("1% 2/1,000"), "{tables}");
    assert!(tables.contains("95% 95/100"), "{tables}");
    let busiest = session.line("192.0.2.1 ");
    assert!(busiest.contains("drops 75 %: limit (packets)"), "{busiest}");
    assert!(session.line("192.0.2.2 ").contains("passes"));
}

/// The words of a line, with single spaces.
fn words(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn rules_that_act_come_first_and_rates_are_of_ten_seconds() {
    let mut session = Session::new();
    session.rules(&[("quiet", 5, 0), ("search", 100, 10)]);
    assert_eq!(words(&session.line("quiet")), "quiet - - - 0 0 -");
    for second in 1..=20 {
        session.rules(&[("quiet", 5, 0), ("search", 100 + 300 * second, 10 + second)]);
    }
    assert_eq!(
        words(&session.line("search")),
        "search 300 0 0 0 0 reject 1.0/s"
    );
    let rows: Vec<String> = session.screen_of(110, 30);
    let heading = rows.iter().position(|row| row.starts_with("RULE")).unwrap();
    assert!(rows[heading + 1].starts_with("search"), "{rows:#?}");
    // What no longer happens is gone ten seconds later.
    for _ in 0..10 {
        session.rules(&[("quiet", 5, 0), ("search", 6_100, 30)]);
    }
    assert_eq!(words(&session.line("search")), "search 0 0 0 0 0 -");
    // Another process counts from zero: nothing is known but that.
    session.rules(&[("quiet", 5, 0), ("search", 6, 3)]);
    assert_eq!(words(&session.line("search")), "search - - - 0 0 -");
}

#[test]
fn thirty_rules_leave_room_for_the_rest() {
    let mut session = Session::new();
    session.sources(&[("192.0.2.1", 9, 0)]);
    let names: Vec<String> = (0..30).map(|number| format!("rule-{number}")).collect();
    for second in 0..5 {
        let tallies = (0..).zip(&names);
        let tallies: Vec<_> = tallies
            .map(|(number, name)| (name.as_str(), second * (number + 1), second * number))
            .collect();
        session.rules(&tallies);
    }
    for (width, height) in [(80, 24), (120, 40)] {
        let screen = session.screen_of(width, height);
        let shown = screen
            .iter()
            .filter(|line| line.starts_with("rule-"))
            .count();
        assert!((3..15).contains(&shown), "{screen:#?}");
        let title = format!("(the busiest {shown} of 30 rules)");
        assert!(
            screen.iter().any(|line| line.contains(&title)),
            "{screen:#?}"
        );
        let first = screen
            .iter()
            .find(|line| line.starts_with("rule-"))
            .unwrap();
        assert!(
            first.starts_with("rule-29 ") && first.contains("reject 29/s"),
            "{first}"
        );
        assert!(
            screen.iter().any(|line| line.starts_with("192.0.2.1")),
            "{screen:#?}"
        );
    }
}

#[test]
fn the_panel_says_what_keeps_rules_from_working() {
    let mut session = Session::new();
    assert!(!session.screen().contains("Requests"));
    session.rules(&[("login", 0, 0)]);
    assert!(session.screen().contains("nobody can ask"));
    let dead = Status {
        rules: vec!["login".to_owned()],
        warnings: vec!["events are not heard just now".to_owned()],
        worker: WorkerRow {
            restarts: 2,
            last_end: Some("signal 9".to_owned()),
            ..WorkerRow::default()
        },
        ..status()
    };
    session.told(dead);
    let screen = session.screen();
    assert!(
        screen.contains("events are not heard just now: packets are judged"),
        "{screen}"
    );
    assert!(
        screen.contains("worker restarted 2 times, last: signal 9"),
        "{screen}"
    );
    let mut warned = status();
    warned.rules = vec!["login".to_owned()];
    warned.requests = Some(Requests::default());
    warned.warnings = vec!["log:/x: not of the format".to_owned(), "another".to_owned()];
    session.told(warned);
    let screen = session.screen();
    assert!(
        screen.contains("(1 of 2, see `limiter status`) log:/x: not of"),
        "{screen}"
    );
}

#[test]
fn a_flood_stands_in_the_first_line() {
    let mut session = Session::new();
    session.second(0, 0);
    assert!(!session.line("limiter").contains("FLOOD"));
    let mut status = status();
    status.flood.active = true;
    status.flood.unknown_per_second = Some(3_100_000);
    let none = Stats {
        counters: Vec::new(),
    };
    session.update(Event::Counters(Ok(Box::new((none, status)))));
    let line = session.line("limiter");
    assert!(line.contains("FLOOD of new sources: 3,100,000/s"), "{line}");
}

#[test]
fn a_block_is_asked_for_and_names_the_source_that_was_selected() {
    let mut session = Session::new();
    assert_eq!(session.press("b"), Next::Nothing);
    assert_eq!(session.model.prompt, None, "nothing is there to block");
    session.sources(&[("192.0.2.1", 9, 0), ("192.0.2.2", 5, 0)]);
    session.press("j");
    // It moves up; the selection and the question go with it.
    session.press("b");
    session.sources(&[("192.0.2.2", 50, 0), ("192.0.2.1", 9, 0)]);
    let question = "block 192.0.2.2 for 15 minutes? y/n";
    assert!(session.screen().contains(question), "{}", session.screen());
    assert_eq!(session.press("x"), Next::Nothing);
    assert_eq!(session.press("n"), Next::Nothing);
    assert!(!session.screen().contains(question));
    assert_eq!(session.press("y"), Next::Nothing);
    let block = Order::Block(net("192.0.2.2"));
    assert_eq!(session.press("by"), Next::Order(block));
    // One order at a time.
    assert_eq!(session.press("ay"), Next::Nothing);
    assert!(session.screen().contains("has not answered the last order"));
    let done = Ok(vec!["192.0.2.2 is blocked for 15 minutes".to_owned()]);
    session.update(Event::Done(block, done));
    assert!(session.screen().contains("192.0.2.2 is blocked"));
    session.now += Duration::from_secs(11);
    assert!(!session.screen().contains("192.0.2.2 is blocked"));
    let allow = Order::Allow(net("192.0.2.2"));
    assert_eq!(session.press("ay"), Next::Order(allow));
    session.update(Event::Done(allow, Err("the table is full".to_owned())));
    assert!(session.screen().contains("192.0.2.2: the table is full"));
}

#[test]
fn the_selection_stays_with_its_source() {
    let mut session = Session::new();
    let place = |session: &Session| session.model.selected();
    assert_eq!(place(&session), None);
    session.press("jk");
    session.sources(&[
        ("192.0.2.1", 9, 0),
        ("192.0.2.2", 5, 0),
        ("192.0.2.3", 1, 0),
    ]);
    assert_eq!(place(&session), Some(0));
    session.press("jjjj");
    assert_eq!(place(&session), Some(2));
    session.sources(&[("192.0.2.3", 9, 0), ("192.0.2.2", 5, 0)]);
    assert_eq!(place(&session), Some(0));
    session.press("G");
    assert_eq!(place(&session), Some(1));
    // It is gone: whoever stands there now.
    session.sources(&[("192.0.2.4", 9, 0)]);
    assert_eq!(place(&session), Some(0));
    session.sources(&[]);
    assert_eq!(place(&session), None);
}

#[test]
fn the_pane_explains_and_closes() {
    let mut session = Session::new();
    session.second(1, 0);
    session.sources(&[("192.0.2.1", 9, 0)]);
    let explain = Order::Explain(net("192.0.2.1"));
    assert_eq!(session.press("\n"), Next::Order(explain));
    assert!(session.screen().contains("asking the daemon"));
    let lines = vec!["192.0.2.1: within its limits".to_owned()];
    session.update(Event::Done(explain, Ok(lines)));
    assert!(session.screen().contains("192.0.2.1: within its limits"));
    assert_eq!(session.press("\u{1b}"), Next::Nothing);
    assert!(!session.screen().contains("within its limits"));
    // An answer for which nobody waits any more.
    session.press("e");
    session.press("e");
    session.update(Event::Done(explain, Ok(vec!["late".to_owned()])));
    assert!(!session.screen().contains("late"));
    assert_eq!(session.press("\u{1b}"), Next::Quit);
}

#[test]
fn a_pause_keeps_the_screen_and_loses_nothing() {
    let mut session = Session::new();
    session.second(0, 0);
    session.second(1_000, 0);
    session.sources(&[("192.0.2.1", 9, 0)]);
    session.press("p");
    session.second(70_000, 0);
    session.second(2_000, 0);
    session.sources(&[("192.0.2.9", 9, 0)]);
    let screen = session.screen();
    assert!(
        screen.contains("PAUSED") && screen.contains("192.0.2.1"),
        "{screen}"
    );
    assert!(
        !screen.contains("2,000") && !screen.contains("192.0.2.9"),
        "{screen}"
    );
    session.press("p");
    let passed = session.line("passed");
    assert!(
        passed.contains("2,000") && passed.contains("70,000"),
        "{passed}"
    );
    assert!(session.screen().contains("192.0.2.9"));
}

#[test]
fn trouble_is_shown_until_it_is_over() {
    let mut session = Session::new();
    session.second(0, 0);
    session.second(5, 0);
    let error = "no limiter answers on /run/x";
    session.update(Event::Counters(Err(error.to_owned())));
    session.update(Event::Sources(Err(error.to_owned())));
    let screen = session.screen();
    assert!(
        screen.contains(&format!("not up to date: {error}")),
        "{screen}"
    );
    // The last that was known is still there.
    assert!(session.line("passed").contains('5'));
    session.second(5, 0);
    assert!(
        session.screen().contains(error),
        "the sources are still missing"
    );
    session.sources(&[]);
    assert!(!session.screen().contains(error));
    assert!(session.screen().contains("? help"));
}

#[test]
fn nothing_that_a_terminal_obeys_is_drawn() {
    let hostile = "a\u{1b}[2J\u{202e}b\u{9b}1m\u{7}";
    let mut session = Session::new();
    session.second(0, 0);
    let mut stats = Stats {
        counters: vec![counter("drop", Some(hostile), 9)],
    };
    stats.counters[0].outcome.reason = hostile.to_owned();
    let mut status = status();
    status.version = hostile.to_owned();
    status.interfaces[0].interface = hostile.to_owned();
    status.maps[0].map = hostile.to_owned();
    status.rules = vec![hostile.to_owned()];
    status.warnings = vec![hostile.to_owned()];
    status.worker.restarts = 1;
    status.worker.last_end = Some(hostile.to_owned());
    status.requests = Some(Requests {
        rules: vec![RuleRow {
            name: hostile.to_owned(),
            mode: hostile.to_owned(),
            tally: Tally::default(),
        }],
        ..Requests::default()
    });
    session.update(Event::Refused(Some(hostile.to_owned())));
    session.now += Duration::from_secs(1);
    let none = Stats {
        counters: Vec::new(),
    };
    session.update(Event::Counters(Ok(Box::new((none, status.clone())))));
    session.now += Duration::from_secs(1);
    session.update(Event::Counters(Ok(Box::new((stats, status)))));
    let mut row = source("192.0.2.1", 1, 1);
    row.limit = hostile.to_owned();
    row.last_refusal = Some(outcome("drop", Some(hostile)));
    let reading = Reading {
        sources: vec![row],
        ..Reading::default()
    };
    session.update(Event::Sources(Ok(reading)));
    session.update(Event::Sources(Err(hostile.to_owned())));
    let mut screens = session.screen();
    let next = session.press("e");
    let Next::Order(order) = next else {
        panic!("{next:?}");
    };
    session.update(Event::Done(order, Ok(vec![hostile.to_owned()])));
    screens.push_str(&session.screen());
    let block = Order::Block(net("192.0.2.1"));
    session.update(Event::Done(block, Ok(vec![hostile.to_owned()])));
    screens.push_str(&session.screen());
    let unsafe_characters = |c: &char| *c != '\n' && (c.is_control() || *c == '\u{202e}');
    assert_eq!(screens.chars().find(unsafe_characters), None, "{screens:?}");
    assert!(screens.contains("\\u{202e}"), "{screens}");
}

#[test]
fn every_size_can_be_drawn() {
    let mut session = Session::new();
    session.second(0, 0);
    session.second(5, 5);
    session.rules(&[("login", 9, 1), ("search", 5, 0), ("admin", 0, 0)]);
    session.sources(&[("192.0.2.1", 9, 0), ("2001:db8::1", 5, 0)]);
    session.press("e?");
    let explain = Order::Explain(net("192.0.2.1"));
    session.update(Event::Done(explain, Ok(vec!["word ".repeat(100)])));
    for width in [1, 2, 10, 39, 40, 41, 80, 300] {
        for height in [1, 2, 5, 10, 24, 100] {
            assert_eq!(session.screen_of(width, height).len(), usize::from(height));
        }
    }
}

#[test]
fn keys_and_signals_end_it() {
    let mut session = Session::new();
    assert_eq!(session.press("q"), Next::Quit);
    session.sources(&[("192.0.2.1", 9, 0)]);
    // Esc takes back one thing at a time.
    session.press("?b");
    for _ in 0..2 {
        assert_eq!(session.press("\u{1b}"), Next::Nothing);
    }
    assert_eq!(session.press("\u{1b}"), Next::Quit);
    session.press("b");
    let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(session.update(Event::Key(control_c)), Next::Quit);
    assert_eq!(session.update(Event::End), Next::Quit);
    assert_eq!(session.update(Event::Broken("keys")), Next::Fail("keys"));
}

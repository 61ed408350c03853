//! The live screen on a real terminal, in front of a real daemon.

use crate::{
    hearing::Hearing,
    site::{LATE, Site, limit, row, udp},
};
use limiter_tests::terminal::Terminal;
use serde_json::json;
use std::{
    num::NonZeroU16,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

const BUSY: &str = "198.51.100.7";

/// Ten packets a second pass, the rest is dropped.
fn site() -> Site {
    let packets = "packets = { rate = \"10/s\", burst = 10 }";
    Site::new("native", &limit("game", "udp", 1_000, packets))
}

fn top(site: &Site) -> Terminal {
    Terminal::start(site.daemon.command(&["top"]).unwrap()).unwrap()
}

/// What `edge` shows while a source sends some hundred packets a second.
fn under_traffic<T>(site: &Site, work: impl FnOnce() -> T) -> T {
    let over = AtomicBool::new(false);
    let sender = site.sender();
    let frame = site.frame(BUSY, udp(1_000)).build();
    std::thread::scope(|scope| {
        let traffic = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                sender.send(&frame).unwrap();
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        over.store(true, Ordering::Relaxed);
        traffic.join().unwrap();
        match worked {
            Ok(worked) => worked,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// The line of the screen about the busy source.
fn line_of(screen: &str) -> &str {
    let line = screen.lines().find(|line| line.starts_with(BUSY));
    line.unwrap_or_default()
}

#[test]
fn the_screen_shows_the_traffic_and_its_keys_work() {
    let site = site();
    under_traffic(&site, || {
        let mut top = top(&site);
        let shown = |screen: &str| line_of(screen).contains("drops");
        let screen = top.until("the busy source", LATE, shown).unwrap();
        let interface = format!("{} (native)", site.pairs[0].right.name);
        assert!(screen.contains(&interface), "{screen}");
        assert!(screen.contains("dropped: limit (packets)"), "{screen}");
        assert!(line_of(&screen).contains("game"), "{screen}");
        // Without rules there is nothing to say about requests.
        assert!(!screen.contains("Requests"), "{screen}");

        top.press("e").unwrap();
        let explained = |screen: &str| screen.contains("of its packets were over a limit");
        top.until("the explanation", LATE, explained).unwrap();
        top.press("\u{1b}").unwrap();
        let closed = |screen: &str| !explained(screen);
        top.until("the pane to close", LATE, closed).unwrap();

        let before = site.daemon.json(&["block", "list"]).unwrap();
        assert_eq!(before["blocks"].as_array().unwrap().len(), 0, "{before}");
        top.press("b").unwrap();
        let question = format!("block {BUSY} for 15 minutes? y/n");
        let asked = |screen: &str| screen.contains(&question);
        top.until("the question", LATE, asked).unwrap();
        top.press("n").unwrap();
        top.until("no question", LATE, |screen| !asked(screen))
            .unwrap();
        top.press("by").unwrap();
        let blocked = |screen: &str| line_of(screen).contains("blocked by operator");
        top.until("the block", LATE, blocked).unwrap();
        top.press("q").unwrap();
        let (status, _) = top.end().unwrap();
        assert!(status.success(), "{status}");
    });
    // It really blocks.
    let blocks = site.daemon.json(&["block", "list"]).unwrap();
    assert_eq!(blocks["blocks"][0]["network"], format!("{BUSY}/32"));
    assert_eq!(blocks["blocks"][0]["reason"], "limiter top");
    let dropped = || row(&site.counts(), "- drop block -");
    let before = dropped();
    let frame = site.frame(BUSY, udp(1_000)).build();
    site.sender().send(&frame).unwrap();
    assert_eq!(dropped(), before + 1);
}

/// Who asks twice is refused; the other rules have nothing to do.
fn rules(number: usize) -> String {
    let rule = |name: &str, path: &str| {
        format!(
            "[[rule]]\nname = {name:?}\nrequests = [{path:?}]\ncount = \"requests\"\n\
             key = [\"source\"]\nlimit = 2\nperiod = \"1h\"\naction = \"reject\"\n"
        )
    };
    let quiet = (1..number).map(|place| rule(&format!("quiet-{place}"), "/quiet"));
    quiet.chain([rule("search", "/search")]).collect()
}

#[test]
fn what_rules_do_stands_beside_the_packets() {
    const CLIENT: &str = "203.0.113.5";
    let hearing = Hearing::new("", "", &rules(1));
    let question = json!({ "source": CLIENT, "method": "GET", "path": "/search" });
    let sizes = [(24, 80), (40, 120)].map(|(rows, columns)| {
        let size = |number| NonZeroU16::new(number).unwrap();
        (size(rows), size(columns))
    });
    for number in [1, 30] {
        let policy = hearing.policy("", "", &rules(number));
        hearing.site.daemon.write_policy(&policy).unwrap();
        hearing.site.daemon.ask(&["reload"]).unwrap();
        for (rows, columns) in sizes {
            let command = hearing.site.daemon.command(&["top"]).unwrap();
            let mut top = Terminal::sized(command, rows, columns).unwrap();
            let line = |screen: &str| {
                let line = screen.lines().find(|line| line.starts_with("search "));
                line.unwrap_or_default().to_owned()
            };
            let refused = |screen: &str| {
                hearing.post("/v1/check", &question);
                line(screen).contains("reject ")
                    && (rows.get() < 40 || screen.contains(&format!("minute: {CLIENT} ")))
            };
            let screen = top.until("the refusals", LATE, refused).unwrap();
            println!("{screen}");
            assert!(screen.contains("/s asked"), "{screen}");
            assert!(screen.contains("decided: reject "), "{screen}");
            assert!(screen.contains("SOURCE"), "{screen}");
            // What acts comes first, and what has no room is said.
            let heading = screen.lines().position(|line| line.starts_with("RULE"));
            let first = screen.lines().nth(heading.unwrap() + 1).unwrap();
            assert!(first.starts_with("search "), "{screen}");
            assert_eq!(screen.contains(" of 30 rules)"), number == 30, "{screen}");
            top.press("q").unwrap();
            top.end().unwrap();
        }
    }
    let status = hearing.ask(&["status"]);
    let requests = &status["requests"];
    let decided = |name: &str| {
        let rules = requests["rules"].as_array().unwrap();
        let row = rules.iter().find(|row| row["name"] == name).unwrap();
        row["by_action"][3].as_u64().unwrap()
    };
    assert!(decided("search") > 0, "{status}");
    assert_eq!(decided("quiet-1"), 0, "{status}");
    assert!(
        requests["decisions"]["count"].as_u64().unwrap() > decided("search"),
        "{status}"
    );
    let words = hearing.site.daemon.ask(&["status"]).unwrap();
    println!("{words}");
    assert!(words.contains("asked: reject "), "{words}");
    assert!(words.contains("and 10 more rules"), "{words}");
    let first = words
        .lines()
        .skip_while(|line| !line.starts_with("RULE"))
        .nth(1);
    assert!(first.unwrap().starts_with("search "), "{words}");
}

#[test]
fn the_screen_outlives_the_daemon() {
    let site = site();
    let mut top = top(&site);
    let interface = format!("{} (native)", site.pairs[0].right.name);
    let up = |screen: &str| screen.contains(&interface) && screen.contains("? help");
    top.until("the daemon", LATE, up).unwrap();
    site.daemon.stop().unwrap();
    let lost = |screen: &str| screen.contains("not up to date");
    top.until("the trouble", LATE, lost).unwrap();
    site.daemon.launch().unwrap();
    top.until("the daemon again", LATE, up).unwrap();
    // And a signal leaves the terminal as it was.
    top.signal(libc::SIGTERM).unwrap();
    let (status, _) = top.end().unwrap();
    assert!(status.success(), "{status}");
}

#[test]
fn without_a_terminal_it_says_what_to_use() {
    let site = site();
    let output = site.daemon.output(&["top"]).unwrap();
    assert_eq!(output.status.code(), Some(1));
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(words.contains("stats --watch"), "{words}");
    assert_eq!(output.stdout, b"");
}

use std::sync::Arc;

use super::*;
use crate::policy::{NoFiles, parse};

const NOW: u64 = 1_800_000_000_000;
const MINUTE: u64 = 60_000;
const HOST: Option<&str> = Some("Example.com:8443");

const RULES: &str = "
[decide.challenge]
clearance = '20m'
[[rule]]
name = 'all'
limit = 2
period = '1h'
tiers = [{ action = 'js_challenge', difficulty = 4 }, { action = 'captcha', difficulty = 5 }]
[[rule]]
name = 'lock'
count = 'failures'
key = ['account']
limit = 2
period = '1h'
action = 'captcha'
difficulty = 4
[[rule]]
name = 'usual'
limit = 2
period = '1h'
tiers = [{ action = 'js_challenge' }, { action = 'captcha' }]
";

fn decide(keys: &Keys) -> Decide {
    let text = format!("[decide]\n{RULES}\n");
    let loaded = parse("limiter.toml", &text, &NoFiles);
    let loaded = loaded.unwrap_or_else(|fault| panic!("{fault}"));
    let mut decide = loaded.policy.decide.unwrap();
    decide.challenge_keys = keys.clone();
    decide
}

fn keys(secret: u8) -> Keys {
    Keys::default()
        .rotated(NOW / 1_000, 86_400, 3_600, [secret; 32])
        .unwrap()
}

fn challenges() -> Challenges {
    Challenges::new(&decide(&keys(1)), NOW)
}

fn challenged(rule: &str, part: usize, action: Action) -> Decision {
    Decision {
        action: Some(action),
        rule: Some(rule.into()),
        part: Some(part),
        bound: Some(Bound {
            key: 7,
            host: Some("example.com".into()),
            resend: false,
        }),
        ..Decision::default()
    }
}

fn posed(challenges: &Challenges, id: u128) -> Posed {
    let decision = challenged("all", 0, Action::JsChallenge);
    challenges.pose(&decision, NOW, id).unwrap()
}

fn solution(posed: &Posed) -> String {
    format!("{}:{}", posed.token, solve(posed.seed(), posed.bits))
}

fn cleared(challenges: &Challenges, decision: &Decision, id: u128) -> Solved {
    let posed = challenges.pose(decision, NOW, id).unwrap();
    challenges.redeem(&solution(&posed), HOST, NOW, id).unwrap()
}

/// A request with these cookies.
fn request(cookies: &str) -> Event {
    Event {
        host: Some("EXAMPLE.com.".into()),
        headers: vec![("Cookie".into(), cookies.into())],
        ..Event::of([192, 0, 2, 1].into())
    }
}

/// What a request with these cookies was cleared of, at this time.
fn seen(challenges: &Challenges, event: &Event, now_ms: u64) -> Vec<Cleared> {
    let mut seen = Vec::new();
    challenges.ask(event, now_ms, |cleared| {
        seen = cleared.to_vec();
        Decision::default()
    });
    seen
}

#[test]
fn a_solution_is_spent_once_and_buys_a_clearance() {
    let challenges = challenges();
    let posed = posed(&challenges, 1);
    assert_eq!((posed.bits, posed.end_ms), (4, NOW + 5 * MINUTE));
    let solution = solution(&posed);
    let solved = challenges.redeem(&solution, HOST, NOW, 2).unwrap();
    assert_eq!(
        (solved.rule.as_str(), solved.part, solved.key),
        ("all", 0, 7)
    );
    assert_eq!((solved.end_ms, solved.life_s), (NOW + 20 * MINUTE, 1_200));
    let again = challenges.redeem(&solution, HOST, NOW + 1, 3);
    assert_eq!(again, Err(Unsolved::Replayed));
    // The same number spelled otherwise is no other solution.
    let spelled = solution.replacen(':', ":0", 1);
    let again = challenges.redeem(&spelled, HOST, NOW + 1, 3);
    assert_eq!(again, Err(Unsolved::Replayed));
    let counts = [("posed", 1), ("replayed", 2), ("solved", 1)];
    let happened = challenges.counts().into_iter().filter(|(_, it)| *it > 0);
    assert_eq!(happened.collect::<Vec<_>>(), counts);
}

#[test]
fn what_solves_nothing_is_told_apart() {
    let challenges = challenges();
    let posed = posed(&challenges, 1);
    let right = solution(&posed);
    let redeem = |solution: &str, host, now_ms| challenges.redeem(solution, host, now_ms, 2);
    for malformed in ["", "a", "a:", "a:b", "a:-1", &posed.token] {
        assert_eq!(
            redeem(malformed, HOST, NOW),
            Err(Unsolved::Malformed),
            "{malformed}"
        );
    }
    let wrong = (0..).find(|it| !work::is_done(posed.seed(), *it, posed.bits));
    let wrong = format!("{}:{}", posed.token, wrong.unwrap());
    assert_eq!(redeem(&wrong, HOST, NOW), Err(Unsolved::Wrong));
    let expired = redeem(&right, HOST, NOW + 5 * MINUTE);
    assert_eq!(expired, Err(Unsolved::Expired));
    assert_eq!(
        redeem(&right, Some("other.example"), NOW),
        Err(Unsolved::Foreign)
    );
    assert_eq!(redeem(&right, None, NOW), Err(Unsolved::Foreign));
    let stranger = Challenges::new(&decide(&keys(2)), NOW);
    assert_eq!(stranger.redeem(&right, HOST, NOW, 2), Err(Unsolved::Forged));
    // A clearance is no puzzle, whoever has signed it.
    let solved = redeem(&right, HOST, NOW).unwrap();
    let clearance = format!("{}:1", solved.clearance);
    assert_eq!(redeem(&clearance, HOST, NOW), Err(Unsolved::Forged));
    // Nobody knows what was spent before this process began.
    let later = Challenges::new(&decide(&keys(1)), NOW + 1);
    let before = later.redeem(&right, HOST, NOW + 2, 3);
    assert_eq!(before, Err(Unsolved::Expired));
}

#[test]
fn a_clearance_is_for_its_host_and_its_time() {
    let challenges = challenges();
    let decision = challenged("all", 1, Action::Captcha);
    let solved = cleared(&challenges, &decision, 1);
    let cookie = format!("a=b; {}={}; c", solved.cookie, solved.clearance);
    let expected = [Cleared {
        rule: "all".into(),
        key: 7,
        challenge: Action::Captcha,
    }];
    assert_eq!(seen(&challenges, &request(&cookie), NOW), expected);
    let last = NOW + 20 * MINUTE - 1;
    assert_eq!(seen(&challenges, &request(&cookie), last), expected);
    assert_eq!(seen(&challenges, &request(&cookie), last + 1), []);
    let mut elsewhere = request(&cookie);
    elsewhere.host = Some("other.example".into());
    assert_eq!(seen(&challenges, &elsewhere, NOW), []);
    let by_header = Event {
        headers: vec![("X-Limiter-Clearance".into(), solved.clearance.into())],
        ..request("")
    };
    assert_eq!(seen(&challenges, &by_header, NOW), expected);
    // A puzzle clears of nothing, solved or not.
    let posed = posed(&challenges, 2);
    let forged = format!("limiter-1={}", posed.token);
    assert_eq!(seen(&challenges, &request(&forged), NOW), []);
    // Other keys of before still hold; gone ones do not.
    challenges.reload(&decide(&keys(2)));
    assert_eq!(seen(&challenges, &request(&cookie), NOW), []);
    let both = Keys::parse(&format!("{}{}", keys(2).text(), keys(1).text())).unwrap();
    challenges.reload(&decide(&both));
    assert_eq!(seen(&challenges, &request(&cookie), NOW), expected);
}

#[test]
fn a_clearance_for_an_account_is_good_for_one_request() {
    let challenges = challenges();
    let decision = challenged("lock", 0, Action::Captcha);
    let solved = cleared(&challenges, &decision, 1);
    let event = request(&format!("{}={}", solved.cookie, solved.clearance));
    let ask = |decision: Decision| {
        let mut brought = 0;
        challenges.ask(&event, NOW, |cleared| {
            brought = cleared.len();
            // Of two at once the second has nothing.
            challenges.ask(&event, NOW, |cleared| {
                assert!(cleared.is_empty(), "{cleared:?}");
                Decision::default()
            });
            decision
        });
        brought
    };
    let used = Decision {
        cleared: 1,
        ..Decision::default()
    };
    // It was not needed, or did not help: it is still there.
    assert_eq!(ask(Decision::default()), 1);
    assert_eq!(
        ask(Decision {
            action: Some(Action::Reject),
            ..used.clone()
        }),
        1
    );
    assert_eq!(ask(used.clone()), 1);
    assert_eq!(ask(used), 0);
}

#[test]
fn a_tier_says_how_hard_its_challenge_is() {
    let challenges = challenges();
    let bits = |rule: &str, part, action| {
        let posed = challenges.pose(&challenged(rule, part, action), NOW, 1);
        posed.map(|posed| posed.bits)
    };
    assert_eq!(bits("all", 1, Action::Captcha), Some(5));
    assert_eq!(bits("usual", 0, Action::JsChallenge), Some(18));
    assert_eq!(bits("usual", 1, Action::Captcha), Some(21));
    assert_eq!(bits("gone", 0, Action::Captcha), None);
    assert_eq!(bits("all", 9, Action::Captcha), None);
    assert_eq!(bits("all", 0, Action::Reject), None);
    challenges.reload(&decide(&Keys::default()));
    assert_eq!(bits("all", 1, Action::Captcha), None);
}

#[test]
fn addresses_have_cookies_of_their_own() {
    let challenges = challenges();
    let name = |key, id| {
        let mut decision = challenged("all", 0, Action::JsChallenge);
        decision.bound = Some(Bound {
            key,
            host: Some(Arc::from("example.com")),
            resend: true,
        });
        cleared(&challenges, &decision, id).cookie
    };
    let (first, second) = (name(1, 1), name(2, 2));
    assert_ne!(first, second);
    assert_eq!(first, name(1, 3));
}

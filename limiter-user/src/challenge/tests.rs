use std::net::Ipv4Addr;
use std::ops::Add;
use std::sync::Arc;

use super::captcha::{ACTION, Finding, UNLOADED};
use super::*;
use crate::courier::Answer;
use crate::engine::Cleared;
use crate::event::Event;
use crate::policy::{NoFiles, parse};

const NOW: Moment = Moment {
    wall_ms: 1_800_000_000_000,
    steady_ms: 1_000,
};
/// Of this run, and of another one.
const RUN: u64 = 1;
const OTHER: u64 = 2;
const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
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

impl Add<u64> for Moment {
    type Output = Self;

    fn add(self, more_ms: u64) -> Self {
        Self {
            wall_ms: self.wall_ms + more_ms,
            steady_ms: self.steady_ms + more_ms,
        }
    }
}

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
        .rotated(NOW.wall_ms / 1_000, 86_400, 3_600, [secret; 32])
        .unwrap()
}

fn challenges() -> Challenges {
    Challenges::new(&decide(&keys(1)), NOW.wall_ms, RUN)
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
    challenges.pose(&decision, SOURCE, NOW.wall_ms, id).unwrap()
}

fn bits(posed: &Posed) -> u8 {
    match posed.price {
        Price::Work(bits) => bits,
        Price::Captcha(_) => panic!("{posed:?}"),
    }
}

fn solution(posed: &Posed) -> String {
    format!("{}:{}", posed.token, solve(posed.seed(), bits(posed)))
}

/// What a solution comes to that nobody has to be asked about.
fn redeemed(
    challenges: &Challenges,
    solution: &str,
    host: Option<&str>,
    now: Moment,
    id: u128,
) -> Result<Solved, Unsolved> {
    match challenges.redeem(solution, host, now, id)? {
        Redeemed::Solved(solved) => Ok(solved),
        Redeemed::Pending(pending) => panic!("{pending:?}"),
    }
}

fn cleared(challenges: &Challenges, decision: &Decision, id: u128) -> Solved {
    let posed = challenges.pose(decision, SOURCE, NOW.wall_ms, id).unwrap();
    redeemed(challenges, &solution(&posed), HOST, NOW, id).unwrap()
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
fn seen(challenges: &Challenges, event: &Event, now: Moment) -> Vec<Cleared> {
    let mut seen = Vec::new();
    challenges.ask(event, now, |cleared| {
        seen = cleared.to_vec();
        Decision::default()
    });
    seen
}

#[test]
fn a_solution_is_spent_once_and_buys_a_clearance() {
    let challenges = challenges();
    let posed = posed(&challenges, 1);
    assert_eq!(posed.price, Price::Work(4));
    assert_eq!(posed.end_ms, NOW.wall_ms + 5 * MINUTE);
    let solution = solution(&posed);
    let solved = redeemed(&challenges, &solution, HOST, NOW, 2).unwrap();
    assert_eq!(
        (solved.rule.as_str(), solved.part, solved.key),
        ("all", 0, 7)
    );
    assert_eq!(solved.end_ms, NOW.wall_ms + 20 * MINUTE);
    assert_eq!(solved.life_s, 1_200);
    let again = redeemed(&challenges, &solution, HOST, NOW + 1, 3);
    assert_eq!(again, Err(Unsolved::Replayed));
    // The same number spelled otherwise is no other solution.
    let spelled = solution.replacen(':', ":0", 1);
    let again = redeemed(&challenges, &spelled, HOST, NOW + 1, 3);
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
    let redeem = |solution: &str, host, now| redeemed(&challenges, solution, host, now, 2);
    let with = |number: &str| format!("{}:{number}", posed.token);
    for malformed in [
        "",
        "a",
        "a:",
        "a:b c",
        &with("b"),
        &with("-1"),
        &posed.token,
    ] {
        assert_eq!(
            redeem(malformed, HOST, NOW),
            Err(Unsolved::Malformed),
            "{malformed}"
        );
    }
    let wrong = (0..).find(|it| !work::is_done(posed.seed(), *it, 4));
    let wrong = format!("{}:{}", posed.token, wrong.unwrap());
    assert_eq!(redeem(&wrong, HOST, NOW), Err(Unsolved::Wrong));
    let expired = redeem(&right, HOST, NOW + 5 * MINUTE);
    assert_eq!(expired, Err(Unsolved::Expired));
    assert_eq!(
        redeem(&right, Some("other.example"), NOW),
        Err(Unsolved::Foreign)
    );
    assert_eq!(redeem(&right, None, NOW), Err(Unsolved::Foreign));
    let stranger = Challenges::new(&decide(&keys(2)), NOW.wall_ms, OTHER);
    let forged = redeemed(&stranger, &right, HOST, NOW, 2);
    assert_eq!(forged, Err(Unsolved::Forged));
    // A clearance is no puzzle, whoever has signed it.
    let solved = redeem(&right, HOST, NOW).unwrap();
    let clearance = format!("{}:1", solved.clearance);
    assert_eq!(redeem(&clearance, HOST, NOW), Err(Unsolved::Forged));
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
        bits: 5,
    }];
    assert_eq!(seen(&challenges, &request(&cookie), NOW), expected);
    let last = NOW + (20 * MINUTE - 1);
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
        let decision = challenged(rule, part, action);
        let posed = challenges.pose(&decision, SOURCE, NOW.wall_ms, 1);
        posed.as_ref().map(super::tests::bits)
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

#[test]
fn what_another_run_may_have_spent_is_not_taken() {
    let here = challenges();
    let posed = posed(&here, 1);
    let solution = solution(&posed);
    let run = |began: Moment| Challenges::new(&decide(&keys(1)), began.wall_ms, OTHER);
    // One that began later does not know what was spent before; another node does not care.
    let later = redeemed(&run(NOW + 1), &solution, HOST, NOW + 2, 3);
    assert_eq!(later, Err(Unsolved::Expired));
    assert!(redeemed(&run(NOW), &solution, HOST, NOW + 2, 3).is_ok());
    // A clock that was set back makes no difference to one's own.
    let back = Moment {
        wall_ms: NOW.wall_ms - 60 * MINUTE,
        steady_ms: NOW.steady_ms + 1,
    };
    assert!(redeemed(&here, &solution, HOST, back, 3).is_ok());
    let again = redeemed(&here, &solution, HOST, back, 3);
    assert_eq!(again, Err(Unsolved::Replayed));
}

#[test]
fn a_clearance_for_an_account_does_not_outlive_the_run() {
    let here = challenges();
    let decision = challenged("lock", 0, Action::Captcha);
    let solved = cleared(&here, &decision, 1);
    let event = request(&format!("{}={}", solved.cookie, solved.clearance));
    let next = Challenges::new(&decide(&keys(1)), NOW.wall_ms + 1, OTHER);
    assert_eq!(seen(&next, &event, NOW + 2), []);
    assert_eq!(seen(&here, &event, NOW + 2).len(), 1);
    // One that is good for all requests does.
    let solved = cleared(&here, &challenged("all", 0, Action::JsChallenge), 2);
    let event = request(&format!("{}={}", solved.cookie, solved.clearance));
    assert_eq!(seen(&next, &event, NOW + 2).len(), 1);
}

/// Challenges whose CAPTCHAs a provider poses.
fn asking(more: &str) -> Challenges {
    let text = RULES.replace(
        "[decide.challenge]",
        &format!(
            "[decide.challenge]\ncaptcha = {{ provider = 'turnstile', site_key = 'k', \
             secret_file = '/secret'{more} }}"
        ),
    );
    let loaded = parse("limiter.toml", &format!("[decide]\n{text}"), &NoFiles).unwrap();
    let mut decide = loaded.policy.decide.unwrap();
    decide.challenge_keys = keys(1);
    Challenges::new(&decide, NOW.wall_ms, RUN)
}

fn captcha(challenges: &Challenges, id: u128) -> Posed {
    let decision = challenged("all", 1, Action::Captcha);
    let posed = challenges.pose(&decision, SOURCE, NOW.wall_ms, id).unwrap();
    assert_eq!(posed.price, Price::Captcha(Provider::Turnstile));
    posed
}

fn pending<'a>(
    challenges: &'a Challenges,
    posed: &Posed,
    answer: &str,
) -> Result<Pending<'a>, Unsolved> {
    let solution = format!("{}:{answer}", posed.token);
    match challenges.redeem(&solution, HOST, NOW, 9)? {
        Redeemed::Pending(pending) => Ok(pending),
        Redeemed::Solved(solved) => panic!("{solved:?}"),
    }
}

fn verdict(host: &str) -> Answer {
    let body = format!("{{\"success\":true,\"hostname\":\"{host}\",\"action\":\"{ACTION}\"}}");
    Answer::Replied {
        status: 200,
        body: body.into_bytes(),
    }
}

#[test]
fn an_answer_to_a_captcha_is_worth_what_its_provider_says() {
    let challenges = asking("");
    let posed = captcha(&challenges, 1);
    let first = pending(&challenges, &posed, "an-answer").unwrap();
    assert_eq!(
        (first.question().response.as_str(), first.question().source),
        ("an-answer", None)
    );
    // While it is asked about, neither it nor the puzzle is spent again.
    let (again, other) = (Err(Unsolved::Replayed), captcha(&challenges, 2));
    assert_eq!(pending(&challenges, &posed, "another").map(drop), again);
    assert_eq!(pending(&challenges, &other, "an-answer").map(drop), again);
    // A success for another site is none, and both are good again.
    let finding = first.judge(&verdict("evil.example"));
    assert_eq!(finding, Finding::Failed);
    assert_eq!(first.settle(&finding, NOW, 3), Err(Unsolved::Wrong));
    let second = pending(&challenges, &posed, "an-answer").unwrap();
    let finding = second.judge(&verdict("example.com"));
    assert_eq!(finding, Finding::Passed);
    let solved = second.settle(&finding, NOW, 3).unwrap();
    // Only now they are not.
    assert_eq!(pending(&challenges, &posed, "another").map(drop), again);
    assert_eq!(pending(&challenges, &other, "an-answer").map(drop), again);
    let event = request(&format!("{}={}", solved.cookie, solved.clearance));
    assert_eq!(seen(&challenges, &event, NOW).len(), 1);
    let counts: Vec<_> = challenges.counts();
    assert!(
        counts.contains(&("solved", 1)) && counts.contains(&("wrong", 1)),
        "{counts:?}"
    );
}

#[test]
fn a_provider_that_is_away_opens_or_closes_as_the_policy_says() {
    let away = Finding::Away("no answer".to_owned());
    let closed = asking("");
    let posed = captcha(&closed, 1);
    let settled = pending(&closed, &posed, "a").unwrap().settle(&away, NOW, 2);
    assert_eq!(settled, Err(Unsolved::Away));
    let open = asking(", on_failure = 'open'");
    // Also for who could not load the script, as often as that is.
    for id in 1..3 {
        let posed = captcha(&open, id);
        let asked = pending(&open, &posed, UNLOADED).unwrap();
        assert!(asked.settle(&away, NOW, 7).is_ok());
        assert!(
            open.counts()
                .contains(&("unverified", u64::try_from(id).unwrap()))
        );
    }
    // What the provider says counts in both.
    let posed = captcha(&open, 3);
    let settled = pending(&open, &posed, "b")
        .unwrap()
        .settle(&Finding::Failed, NOW, 2);
    assert_eq!(settled, Err(Unsolved::Wrong));
}

#[test]
fn what_is_asked_at_once_is_bounded_and_given_back() {
    let challenges = asking(", send_address = true");
    let posed: Vec<Posed> = (0..5).map(|id| captcha(&challenges, id)).collect();
    let answers = ["a", "b", "c", "d", "e"];
    let ask = |at: usize| pending(&challenges, &posed[at], answers[at]);
    let mut held: Vec<Pending<'_>> = (0..4).map(|at| ask(at).unwrap()).collect();
    assert_eq!(ask(4).map(drop), Err(Unsolved::Unable));
    assert_eq!(held[0].question().source, Some(SOURCE));
    // Who hangs up gives back all.
    held.remove(0);
    drop(ask(4).unwrap());
    assert!(ask(0).is_ok());
}

#[test]
fn a_puzzle_and_a_captcha_do_not_stand_for_one_another() {
    let (worked, asked) = (challenges(), asking(""));
    // A policy that names a provider takes no puzzle for its CAPTCHA any more.
    let solved = cleared(&worked, &challenged("all", 1, Action::Captcha), 1);
    let event = request(&format!("{}={}", solved.cookie, solved.clearance));
    assert_eq!(seen(&worked, &event, NOW).len(), 1);
    assert_eq!(seen(&asked, &event, NOW), []);
    let decision = challenged("all", 1, Action::Captcha);
    let posed = worked.pose(&decision, SOURCE, NOW.wall_ms, 2).unwrap();
    let stale = redeemed(&asked, &solution(&posed), HOST, NOW, 3);
    assert_eq!(stale, Err(Unsolved::Expired));
    // One without takes no answers.
    let posed = captcha(&asked, 3);
    assert_eq!(
        pending(&worked, &posed, "a").map(drop),
        Err(Unsolved::Expired)
    );
    // A puzzle of js_challenge stays one.
    let decision = challenged("all", 0, Action::JsChallenge);
    let posed = asked.pose(&decision, SOURCE, NOW.wall_ms, 4).unwrap();
    assert!(redeemed(&asked, &solution(&posed), HOST, NOW, 5).is_ok());
}

#[test]
fn of_too_many_cookies_the_newest_count() {
    let challenges = challenges();
    let solved = cleared(&challenges, &challenged("all", 0, Action::JsChallenge), 1);
    let names: Vec<String> = (0..10)
        .map(|number| format!("limiter-{number:08x}"))
        .collect();
    let old: String = names.iter().map(|name| format!("{name}=A.B; ")).collect();
    let others = "limiter-0000000=A.B; limiter-0000000G=A.B; limiter-x=A.B; ".repeat(9);
    let cookies = format!("{old}{}={}; {others}", solved.cookie, solved.clearance);
    assert_eq!(seen(&challenges, &request(&cookies), NOW).len(), 1);
    // With a new one there are as many as are looked at.
    let all = || names.iter().map(String::as_str).chain(["limiter-x", "a"]);
    assert_eq!(surplus(all(), &solved.cookie), names[..3]);
    assert_eq!(surplus(all(), &names[0]), names[1..3]);
    assert!(surplus(all().skip(4), &names[9]).is_empty());
}

#[test]
fn a_clearance_takes_the_place_of_no_other() {
    let challenges = challenges();
    let easy = cleared(&challenges, &challenged("all", 0, Action::JsChallenge), 1);
    let hard = cleared(&challenges, &challenged("all", 1, Action::Captcha), 2);
    assert_ne!(easy.cookie, hard.cookie);
}

//! LoginWith on limiting logins: what its text leaves open. The file says what was
//! chosen, and it is so.

use super::*;

fn login(source: &str) -> Event {
    by("alice", request("POST /login", source))
}

/// Five failures, each told by its report alone.
fn lock(site: &mut Site, now_ns: u64) -> Vec<u64> {
    for number in 0..5 {
        site.told(&login(&address(number)), 401, now_ns);
    }
    let began = site.began("login-account").into_iter();
    began.map(|(_, until_ns, ..)| until_ns - now_ns).collect()
}

#[test]
fn five_more_count_within_the_time_of_the_lock_that_they_lead_to() {
    let mut site = Site::of("loginwith");
    lock(&mut site, START);
    let free_ns = START + 15 * MINUTE;
    // Twelve minutes apart, five are within an hour; fifteen apart, they are not.
    for (apart, locks) in [(15, 0), (12, 1)] {
        let from_ns = free_ns + (apart == 12) as u64 * 2 * HOUR;
        for number in 0..5 {
            site.told(&login(CLIENT), 401, from_ns + number * apart * MINUTE);
        }
        assert_eq!(site.began("login-account").len(), locks, "{apart}");
    }
    assert!(site.remarks("as long as the lock that they lead to"));
}

#[test]
fn a_quiet_day_after_a_lock_takes_one_step_back() {
    let hour_ns = vec![HOUR];
    for (quiet_ns, expected) in [(DAY - 1, hour_ns), (DAY, vec![15 * MINUTE])] {
        let mut site = Site::of("loginwith");
        assert_eq!(lock(&mut site, START), [15 * MINUTE]);
        let again_ns = START + 15 * MINUTE + quiet_ns;
        assert_eq!(lock(&mut site, again_ns), expected);
    }
    assert!(Site::of("loginwith").remarks("a quiet day takes one step back"));
}

#[test]
fn a_success_forgives_nothing() {
    let mut site = Site::of("loginwith");
    for _ in 0..4 {
        site.told(&login(OTHER), 401, START);
    }
    site.told(&login(CLIENT), 200, START);
    site.told(&login(OTHER), 401, START);
    assert_eq!(site.began("login-account").len(), 1);
    assert!(site.remarks("a success forgives nothing"));
}

#[test]
fn a_short_block_is_one_of_five_minutes_since_the_hammering_ended() {
    let mut site = Site::of("loginwith");
    for attempt in 0..1_000 {
        let guess = by("", request("POST /login", CLIENT));
        site.serve(&guess, 401, START + attempt * 100 * MS);
    }
    let last_ns = START + 999 * 100 * MS;
    let home = request("GET /", CLIENT);
    let decision = site.ask(&home, last_ns);
    assert_eq!(decision.until_ns, Some(last_ns + 5 * MINUTE));
    assert_eq!(site.ask(&home, last_ns + 5 * MINUTE).action, None);
    assert!(site.remarks("a short block, of five minutes"));
}

#[test]
fn a_captcha_is_asked_for_while_three_failures_lie_within_a_quarter_of_an_hour() {
    let mut site = Site::of("loginwith");
    for minute in 0..3 {
        site.told(&login(OTHER), 401, START + minute * 5 * MINUTE);
    }
    let end_ns = START + 15 * MINUTE;
    let decision = site.ask(&login(CLIENT), end_ns - 1);
    assert_eq!(decision.action, Some(Action::Captcha));
    assert_eq!(site.ask(&login(CLIENT), end_ns).action, None);
    assert!(site.remarks("three failures lie within a quarter of an hour; the time is our choice"));
}

#[test]
fn a_reset_that_was_finished_unlocks_the_login() {
    let mut site = Site::of("loginwith");
    assert_eq!(lock(&mut site, START), [15 * MINUTE]);
    let finish = by("alice", request("POST /password-reset/finish", CLIENT));
    site.told(&finish, 400, START + S);
    assert!(site.ask(&login(CLIENT), START + S).refuses());
    site.told(&finish, 200, START + 2 * S);
    assert_eq!(site.ask(&login(CLIENT), START + 2 * S).action, None);
    assert!(site.remarks("A reset that was finished proves whose account it is"));
}

#[test]
fn an_account_can_be_told_by_where_the_application_has_it() {
    let place = [("decide.accounts.from", r#"["header:X-Account"]"#)];
    let mut site = Site::with("loginwith", &place);
    for number in 0..5 {
        let mut guess = request("POST /login", &address(number));
        guess.headers = vec![("x-account".into(), "alice".into())];
        site.told(&guess, 401, START);
    }
    assert!(site.ask(&login(CLIENT), START).refuses());
    assert!(Site::of("loginwith").remarks("`accounts.from` in [decide]"));
}

//! The preset `loginwith` behind nginx: accounts that are locked, addresses that are dropped.

use crate::front::{Front, Kind, number, stranger};
use limiter_tests::origin::{Asked, Said};

/// Accounts are told by `Authorization: Basic`, for nginx does not wait for a body.
pub(crate) const SETS: [&str; 3] = [
    "decide.accounts.from=[\"basic\"]",
    "rule.login-captcha-account.difficulty=6",
    "rule.login-captcha-source.difficulty=6",
];

const ANN: &str = "Authorization: Basic YW5uOndyb25n\r\n";
const ANN_RIGHT: &str = "Authorization: Basic YW5uOnJpZ2h0\r\n";
const BOB_RIGHT: &str = "Authorization: Basic Ym9iOnJpZ2h0\r\n";
const CID: &str = "Authorization: Basic Y2lkOndyb25n\r\n";

/// `right` is everybody's password; resets and codes are taken as they come.
pub(crate) fn accounts(asked: &Asked) -> Said {
    let has = |text: &str| asked.headers.iter().any(|(_, value)| value == text);
    let right = [ANN_RIGHT, BOB_RIGHT].map(|line| line[15..].trim_end().to_owned());
    match asked.line.starts_with("POST /login") && !right.iter().any(|text| has(text)) {
        true => ("401 Unauthorized", b"wrong".to_vec()),
        false => ("200 OK", b"welcome".to_vec()),
    }
}

/// Three failures are a CAPTCHA, five lock the account for a quarter of an hour, wherever it is
/// tried from; nobody else is locked.
pub(crate) fn expect_lockout(kind: Kind) -> Front {
    let front = Front::behind(kind, "loginwith", &SETS, accounts);
    front.come_from(stranger(1));
    let met = front.climb("POST /login", ANN, 4);
    // For the account and for the address; then the account alone.
    let at: Vec<usize> = met.iter().map(|(at, _)| *at).collect();
    assert_eq!(at, [3, 3], "{met:?}");
    assert!(met.iter().all(|(_, what)| what == "captcha"), "{met:?}");
    let posed = front.send("POST /login", ANN, "");
    assert_eq!(posed.header("x-limiter"), Some("captcha"), "{posed:?}");
    front.solve(&posed);
    assert_eq!(front.send("POST /login", ANN, "").status, 401);
    front.settle();
    for (source, password) in [(1, ANN), (2, ANN_RIGHT)] {
        front.come_from(stranger(source));
        let locked = front.send("POST /login", password, "");
        assert_eq!(locked.status, 429, "{locked:?}");
        assert_eq!(locked.header("x-limiter"), Some("reject"), "{locked:?}");
        let retry = number(&locked, "retry-after");
        assert!((840..=900).contains(&retry), "{locked:?}");
    }
    let other = front.send("POST /login", BOB_RIGHT, "");
    assert_eq!((other.status, &other.body[..]), (200, &b"welcome"[..]));
    front
}

#[test]
fn five_failures_lock_an_account_until_its_reset_is_done() {
    let front = expect_lockout(Kind::Nginx);
    // Resets and codes have counts of their own, of attempts.
    for path in ["/password-reset/code", "/mfa"] {
        let (passed, locked) = front.until_refused_with(&format!("POST {path}"), CID);
        assert_eq!((passed, locked.status), (5, 429), "{path} {locked:?}");
        let retry = number(&locked, "retry-after");
        assert!((840..=900).contains(&retry), "{locked:?}");
    }
    assert_eq!(
        front.send("POST /password-reset/finish", ANN, "").status,
        200
    );
    front.settle();
    let unlocked = front.send("POST /login", ANN_RIGHT, "");
    assert_eq!(unlocked.status, 200, "{unlocked:?}");
}

#[test]
fn a_hundred_attempts_of_an_address_are_a_short_block() {
    let front = Front::new("loginwith", &SETS, accounts);
    let source = stranger(1);
    front.come_from(source);
    // What the CAPTCHA holds back counts too.
    let statuses: Vec<u16> = (0..100)
        .map(|_| front.send("POST /login", CID, "").status)
        .collect();
    assert_eq!(statuses[..3], [401; 3]);
    assert_eq!(statuses[3..], [403; 97]);
    front.expect_blocked(source, 5);
}

//! The presets of Cloudflare's examples behind nginx: steps that are climbed by those who solve
//! what they meet, and ends at the NIC.

use crate::front::{Front, stranger};
use limiter_tests::origin::{Asked, Said};

const DAY: u64 = 24 * 60;

/// The origin names who is to be blocked.
fn signals(asked: &Asked) -> Said {
    let path = asked.line.split(' ').nth(1).unwrap_or_default();
    match path {
        "/low" => ("200 OK\r\nX-CF-Block: low", vec![]),
        "/medium" => ("200 OK\r\nX-CF-Block: Medium", vec![]),
        "/high" => ("200 OK\r\nx-cf-block: HIGH", vec![]),
        _ => ("200 OK", b"welcome".to_vec()),
    }
}

#[test]
fn an_origin_that_says_so_has_sources_dropped() {
    let front = Front::new("cloudflare-headers", &[], signals);
    for (path, minutes, source) in [
        ("/low", 5, stranger(1)),
        ("/medium", 15, stranger(2)),
        ("/high", 60, stranger(3)),
    ] {
        front.come_from(source);
        assert_eq!(front.get("/").body, b"welcome");
        let answer = front.get(path);
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("x-cf-block"), None, "{answer:?}");
        front.expect_blocked(source, minutes);
    }
    // The others go on, and who is let in again too.
    front.come_from(stranger(4));
    assert_eq!(front.get("/").status, 200);
    front.come_from(stranger(1));
    front.let_in(stranger(1));
    assert_eq!(front.get("/").status, 200);
}

/// Every password is wrong, and nothing is there but what is called `known`.
fn site(asked: &Asked) -> Said {
    let (request, _) = asked.line.rsplit_once(' ').unwrap_or_default();
    if request == "POST /login" {
        ("401 Unauthorized", b"wrong".to_vec())
    } else if request.ends_with("known") {
        ("200 OK", b"here".to_vec())
    } else {
        ("404 Not Found", b"nothing".to_vec())
    }
}

/// What was posed, after so many answers of the origin.
fn posed(steps: &[(usize, &str)]) -> Vec<(usize, String)> {
    let steps = steps.iter();
    steps.map(|(at, what)| (*at, (*what).to_owned())).collect()
}

#[test]
fn failed_logins_are_challenged_then_shown_a_captcha_and_dropped_for_a_day() {
    let front = Front::new("cloudflare-login", &["rule.login.difficulty=6"], site);
    let source = stranger(1);
    front.come_from(source);
    let met = front.climb("POST /login", "", 19);
    assert_eq!(met, posed(&[(4, "js_challenge"), (10, "captcha")]));
    // Other pages are nobody's business, until the twentieth failure.
    assert_eq!(front.get("/known").status, 200);
    assert_eq!(front.send("POST /login", "", "").status, 401);
    front.expect_blocked(source, DAY);
    front.come_from(stranger(2));
    assert_eq!(front.send("POST /login", "", "").status, 401);
}

#[test]
fn ten_pages_that_are_not_there_are_a_captcha() {
    let front = Front::new("cloudflare-not-found", &[], site);
    front.come_from(stranger(1));
    let (missed, refused) = front.until_refused("GET /guess");
    assert_eq!(missed, 10);
    assert_eq!(refused.status, 403, "{refused:?}");
    assert_eq!(refused.header("x-limiter"), Some("captcha"), "{refused:?}");
    // It is the whole site's, and nobody else's.
    assert_eq!(front.get("/known").header("x-limiter"), Some("captcha"));
    front.come_from(stranger(2));
    for _ in 0..12 {
        assert_eq!(front.get("/known").status, 200);
    }
}

#[test]
fn profiles_that_are_guessed_are_challenged_and_then_dropped_for_four_hours() {
    let easy = [
        "rule.profiles-missed.difficulty=6",
        "rule.profiles-found.difficulty=6",
    ];
    let front = Front::new("cloudflare-enumeration", &easy, site);
    let (miss, hit) = (
        "GET /public/profile?id=1",
        "GET /public/profile/7?as=/known",
    );
    front.come_from(stranger(1));
    let met = front.climb(miss, "", 12);
    assert_eq!(met, posed(&[(10, "js_challenge")]));
    let source = stranger(2);
    front.come_from(source);
    let met = front.climb(hit, "", 49);
    assert_eq!(met, posed(&[(25, "captcha")]));
    assert_eq!(front.send(miss, "", "").status, 404);
    front.expect_blocked(source, 4 * 60);
}

#[test]
fn copied_images_are_a_captcha_where_they_are_small_and_a_block_where_they_are_many() {
    let easy = ["thumbs-missed", "thumbs", "images-missed"];
    let easy = easy.map(|rule| format!("rule.{rule}.difficulty=6"));
    let easy: Vec<&str> = easy.iter().map(String::as_str).collect();
    let front = Front::new("cloudflare-scraping", &easy, site);
    // Of any image, and of small ones.
    front.come_from(stranger(1));
    let met = front.climb("GET /img/thumbs/guess", "", 11);
    assert_eq!(met, posed(&[(5, "captcha"), (10, "captcha")]));
    let source = stranger(2);
    front.come_from(source);
    let met = front.climb("GET /img/thumbs/known", "", 26);
    assert_eq!(met, posed(&[(25, "captcha")]));
    // 75 in a minute are no block, and the next one is.
    let met = front.climb("GET /img/known", "", 75 - 26);
    assert_eq!(met, []);
    assert_eq!(front.get("/img/known").status, 200);
    front.expect_blocked(source, 4 * 60);
}

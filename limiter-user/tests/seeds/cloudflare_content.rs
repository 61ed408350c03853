//! Cloudflare's rate limiting: enumeration, and content that is scraped. The table of
//! what stands elsewhere is in `cloudflare`.

use super::*;

#[test]
fn who_crosses_ten_missing_pages_in_a_minute_proves_to_be_a_person() {
    let mut site = Site::of("cloudflare-not-found");
    for page in 0..10 {
        let guess = request(&format!("GET /{page}"), CLIENT);
        assert_eq!(site.serve(&guess, 404, START + page * S), None);
    }
    let guess = request("GET /anything", CLIENT);
    assert_eq!(
        site.serve(&guess, 404, START + 10 * S),
        Some(Action::Captcha)
    );
    assert_eq!(
        site.serve_solving(&guess, 200, START + 10 * S),
        Some(Action::Captcha)
    );
    assert_eq!(site.serve(&guess, 200, START + 10 * S), None);
}

#[test]
fn only_what_is_got_and_not_found_counts_and_only_for_a_minute() {
    let mut site = Site::of("cloudflare-not-found");
    assert_eq!(site.served(&request("POST /x", CLIENT), 404, 50, START), 50);
    assert_eq!(site.served(&request("GET /x", CLIENT), 200, 50, START), 50);
    assert_eq!(site.served(&request("GET /x", CLIENT), 404, 50, START), 10);
    assert_eq!(site.served(&request("GET /x", OTHER), 404, 50, START), 10);
    let later_ns = START + MINUTE;
    assert_eq!(
        site.served(&request("GET /x", CLIENT), 404, 50, later_ns),
        10
    );
}

#[test]
fn profiles_that_miss_are_challenged_at_ten_in_a_minute_with_javascript() {
    let mut site = Site::of("cloudflare-enumeration");
    let guess = request("GET /public/profile/zzz", CLIENT);
    assert_eq!(site.served(&guess, 404, 50, START), 10);
    assert_eq!(site.serve(&guess, 404, START), Some(Action::JsChallenge));
    // Elsewhere it goes on.
    assert_eq!(site.serve(&request("GET /", CLIENT), 404, START), None);
}

#[test]
fn profiles_that_hit_are_shown_a_captcha_at_twenty_five_in_a_minute() {
    let mut site = Site::of("cloudflare-enumeration");
    let guess = request("GET /public/profile?id=7", CLIENT);
    assert_eq!(site.served(&guess, 200, 50, START), 25);
    assert_eq!(site.serve(&guess, 200, START), Some(Action::Captcha));
}

#[test]
fn a_repeat_offender_is_cautioned_and_then_blocked_for_four_hours() {
    let (js, captcha) = (Action::JsChallenge, Action::Captcha);
    for (status, cautions) in [
        (404, vec![(10, js), (20, js), (30, js), (40, js)]),
        (200, vec![(25, captcha)]),
    ] {
        let mut site = Site::of("cloudflare-enumeration");
        let guess = request("GET /public/profile/zzz", CLIENT);
        let mut met = Vec::new();
        for guesses in 0..=50 {
            let now_ns = START + guesses * S;
            if let Some(action) = site.serve_solving(&guess, status, now_ns) {
                met.push((guesses, action));
            }
        }
        assert_eq!(met.pop(), Some((50, Action::Block)));
        assert_eq!(met, cautions);
        let until_ns = START + 49 * S + 4 * HOUR;
        assert_eq!(site.ordered(), [(format!("{CLIENT}/32"), until_ns)]);
        let home = request("GET /", CLIENT);
        assert_eq!(site.ask(&home, until_ns - 1).action, Some(Action::Block));
        assert_eq!(site.ask(&home, until_ns).action, None);
    }
}

#[test]
fn hits_and_misses_together_lead_to_the_block() {
    let mut site = Site::of("cloudflare-enumeration");
    let guess = request("GET /public/profile/zzz", CLIENT);
    for second in 0..50_u64 {
        // Four misses and six hits a minute stay below both cautions.
        let status = if second % 10 < 4 { 404 } else { 200 };
        let now_ns = START + second * 11 * S;
        assert_eq!(site.serve(&guess, status, now_ns), None, "{second}");
    }
    assert_eq!(
        site.ask(&guess, START + 550 * S).action,
        Some(Action::Block)
    );
}

#[test]
fn of_an_attack_of_six_hours_the_database_sees_a_hundred_requests() {
    let mut site = Site::of("cloudflare-enumeration");
    let mut let_through = 0;
    for number in 0..6 * 3_600 {
        let guess = request(&format!("GET /public/profile/{number}"), CLIENT);
        let action = site.serve(&guess, 404, START + number * S);
        let_through += u32::from(action.is_none());
    }
    // Fifty before each block of four hours.
    assert_eq!(let_through, 100);
}

/// A page of a product: the image and three small ones.
fn view_product(site: &mut Site, number: usize, now_ns: u64) -> Vec<Action> {
    let paths = ["GET /img/large/N.jpg"].into_iter();
    let paths = paths.chain(["a", "b", "c"].map(|_| "GET /img/thumbs/N.jpg"));
    let loads = paths.map(|path| request(&path.replace('N', &number.to_string()), CLIENT));
    loads
        .filter_map(|load| site.serve_solving(&load, 200, now_ns))
        .collect()
}

#[test]
fn who_browses_as_heavily_as_anybody_meets_a_captcha_at_most_and_never_a_block() {
    let mut site = Site::of("cloudflare-scraping");
    let mut met = Vec::new();
    // Fifteen products in a few seconds of each minute: sixty loads.
    for minute in 0..30 {
        for product in 0..15 {
            let now_ns = START + minute * 61 * S + product as u64 * 300 * MS;
            met.extend(view_product(&mut site, product, now_ns));
        }
    }
    assert!(
        met.iter().all(|action| *action == Action::Captcha),
        "{met:?}"
    );
    assert!(site.ordered().is_empty());
    assert_eq!(site.tally("images").counted, 30 * 60);
}

#[test]
fn few_products_a_minute_meet_nothing() {
    let mut site = Site::of("cloudflare-scraping");
    for product in 0..100 {
        // Eight a minute.
        let now_ns = START + product as u64 * 7_500 * MS;
        assert_eq!(view_product(&mut site, product, now_ns), []);
    }
}

#[test]
fn above_seventy_five_images_in_a_minute_the_user_is_blocked_for_four_hours() {
    for (loads, blocked) in [(75, false), (76, true)] {
        let mut site = Site::of("cloudflare-scraping");
        // Of all endpoints of the store together.
        for load in 0..loads {
            let kind = if load % 4 == 0 { "thumbs" } else { "large" };
            let image = request(&format!("GET /img/{kind}/{load}.jpg"), CLIENT);
            assert_eq!(site.serve(&image, 200, START + load * 500 * MS), None);
        }
        let last_ns = START + (loads - 1) * 500 * MS;
        let until_ns = last_ns + 4 * HOUR;
        let home = request("GET /", CLIENT);
        let action = |ended: bool| (blocked && !ended).then_some(Action::Block);
        assert_eq!(site.ask(&home, last_ns).action, action(false));
        assert_eq!(site.ask(&home, until_ns - 1).action, action(false));
        assert_eq!(site.ask(&home, until_ns).action, action(true));
    }
}

#[test]
fn small_images_are_counted_by_themselves() {
    let mut site = Site::of("cloudflare-scraping");
    let thumb = request("GET /img/thumbs/7.jpg", CLIENT);
    assert_eq!(site.served(&thumb, 200, 50, START), 25);
    assert_eq!(site.serve(&thumb, 200, START), Some(Action::Captcha));
    let large = request("GET /img/large/7.jpg", CLIENT);
    assert_eq!(site.serve(&large, 200, START), None);
    // Those that are missing, too: the wider rule comes first, at five.
    let mut site = Site::with(
        "cloudflare-scraping",
        &[("rule.images-missed.simulate", "true")],
    );
    assert_eq!(site.served(&thumb, 404, 50, START), 10);
    assert_eq!(site.serve(&thumb, 404, START), Some(Action::Captcha));
}

#[test]
fn names_that_are_guessed_are_challenged_by_the_403s_and_404s_they_get() {
    let mut site = Site::of("cloudflare-scraping");
    for (number, status) in [403, 404, 403, 404, 404].into_iter().enumerate() {
        let guess = request(&format!("GET /img/large/{number}.jpg"), CLIENT);
        assert_eq!(site.serve(&guess, status, START), None);
    }
    let image = request("GET /img/thumbs/1.jpg", CLIENT);
    assert_eq!(site.serve(&image, 200, START), Some(Action::Captcha));
    assert_eq!(
        site.serve_solving(&image, 200, START),
        Some(Action::Captcha)
    );
    assert_eq!(site.serve(&image, 200, START), None);
}

#[test]
fn what_is_not_an_image_is_not_counted() {
    let mut site = Site::of("cloudflare-scraping");
    for line in ["GET /products/7", "GET /images/7.jpg", "POST /img/upload"] {
        assert_eq!(
            site.served(&request(line, CLIENT), 200, 200, START),
            200,
            "{line}"
        );
    }
}

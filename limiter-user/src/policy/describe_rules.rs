//! `[decide]` and the rules in the words of the language.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::captcha::{Captcha, Provider};
use super::decide::{AccountPlace, Api, Datagrams, Decide, TokenPlace};
use super::describe::{Description, joined};
use super::rule::{Body, Count, HeaderPattern, OutcomePattern, RequestPattern, Rule, Statuses};
use super::steps::{Boruta, Course, Effect, Gauge, Window};
use super::units::{Measure, duration_text};
use super::words::{ABSENT, ACTIONS, HEADERS, ON_SUCCESS, SHARED, WINDOWS, key_part_text, word_of};
use crate::event::formats::Format;

/// Adds what the section and the rules say, defaults included.
pub(super) fn describe(it: &mut Description, decide: &Decide) {
    it.set("decide.listen", &decide.listen);
    if let Some(spoe) = &decide.spoe {
        it.set("decide.spoe", spoe);
    }
    let api = match &decide.api {
        Api::Unix(path) => format!("unix:{}", path.display()),
        Api::Tcp { listen, token_file } => {
            format!("{listen} with the token in {}", token_file.display())
        }
    };
    it.set("decide.api", api);
    if let Some(group) = &decide.group {
        it.set("decide.group", group);
    }
    let feedback = decide.feedback.iter().map(|feedback| {
        let at = match &feedback.at {
            Datagrams::Unix(path) => format!("unix:{}", path.display()),
            Datagrams::Udp { listen, from } => format!("udp {listen} from {}", joined(from)),
        };
        format!(
            "{at} as {}",
            format_text(&feedback.format, &feedback.fields, feedback.direct)
        )
    });
    set_list(it, "decide.feedback", feedback);
    let logs = decide.logs.iter().map(|log| {
        let format = format_text(&log.format, &log.fields, log.direct);
        let asked = if log.asked { ", asked" } else { "" };
        format!("{} as {format}{asked}", log.path.display())
    });
    set_list(it, "decide.logs", logs);
    for (key, networks) in [
        ("decide.trusted_proxies", &decide.trusted_proxies),
        ("decide.exempt", &decide.exempt),
    ] {
        set_list(it, key, networks.iter().map(ToString::to_string));
    }
    it.set("decide.client_header", &decide.client_header);
    it.set("decide.local_proxy", decide.local_proxy);
    it.set("decide.enforce", decide.enforce);
    let places = decide.accounts.from.iter().map(place_text);
    set_list(it, "decide.accounts.from", places);
    it.set("decide.accounts.nfkc", decide.accounts.nfkc);
    it.set("decide.accounts.ignore_case", decide.accounts.ignore_case);
    it.set("decide.accounts.trim", decide.accounts.trim);
    if let Some(header) = &decide.accounts.owner_header {
        it.set("decide.accounts.owner_header", header);
    }
    let challenge = &decide.challenge;
    for (field, time) in [
        ("solve_within", challenge.solve_within),
        ("clearance", challenge.clearance),
    ] {
        it.set(&format!("decide.challenge.{field}"), duration_text(time));
    }
    if let Some(contact) = &challenge.contact {
        it.set("decide.challenge.contact", contact);
    }
    if let Some(path) = &challenge.keys {
        it.set("decide.challenge.keys", path.display());
    }
    let rotate = challenge.rotate.map(duration_text);
    it.set(
        "decide.challenge.rotate",
        rotate.unwrap_or_else(|| "never".to_owned()),
    );
    if let Some(captcha) = &challenge.captcha {
        describe_captcha(it, captcha);
    }
    for rule in &decide.rules {
        describe_rule(it, rule);
    }
}

fn describe_captcha(it: &mut Description, captcha: &Captcha) {
    let mut set = |field: &str, text: String| {
        it.set(&format!("decide.challenge.captcha.{field}"), text);
    };
    set("provider", captcha.provider.name().to_owned());
    set("site_key", captcha.site_key.clone());
    set("verify_url", captcha.verify_url.clone());
    set("script_url", captcha.script_url.clone());
    set("timeout", duration_text(captcha.timeout));
    set("on_failure", captcha.on_failure.name().to_owned());
    if captcha.provider == Provider::RecaptchaV3 {
        set("score", captcha.score.to_string());
    }
    set("send_address", captcha.send_address.to_string());
}

/// Nothing where the list is empty.
fn set_list(it: &mut Description, key: &str, entries: impl Iterator<Item = String>) {
    let entries: Vec<String> = entries.collect();
    if !entries.is_empty() {
        it.set(key, entries.join(", "));
    }
}

fn format_text(format: &Format, fields: &BTreeMap<String, String>, direct: bool) -> String {
    let mut text = format.to_string();
    if !fields.is_empty() {
        let fields: Vec<String> = fields
            .iter()
            .map(|(field, place)| format!("{field} from {place}"))
            .collect();
        text.push_str(&format!(" ({})", fields.join(", ")));
    }
    if direct {
        text.push_str(", direct");
    }
    text
}

fn place_text(place: &AccountPlace) -> String {
    match place {
        AccountPlace::Basic => "basic".to_owned(),
        AccountPlace::Header(name) => format!("header:{name}"),
        AccountPlace::ResponseHeader(name) => format!("response_header:{name}"),
        AccountPlace::Cookie(name) => format!("cookie:{name}"),
        AccountPlace::Query(name) => format!("query:{name}"),
        AccountPlace::Form(name) => format!("form:{name}"),
        AccountPlace::Json(pointer) => format!("json:{pointer}"),
        AccountPlace::Token { claim, place } => match place {
            TokenPlace::Bearer => format!("jwt:{claim}"),
            TokenPlace::Header(name) => format!("jwt:{claim}@header:{name}"),
            TokenPlace::Cookie(name) => format!("jwt:{claim}@cookie:{name}"),
        },
    }
}

/// What the keys of rules are that they need not say, as far as it follows from what is
/// counted.
pub(super) struct Defaults(BTreeMap<&'static str, BTreeMap<String, String>>);

/// A rule that counts so, as short as can be.
const BARE: [(&str, &str); 4] = [
    ("requests", "'requests'"),
    ("attempts", "'attempts'"),
    ("failures", "'failures'"),
    ("statuses", "{ statuses = [401] }"),
];

impl Defaults {
    pub(super) fn new() -> Self {
        let of = |(word, count): (&'static str, &str)| (word, bare(count));
        Self(BARE.into_iter().map(of).collect())
    }

    /// Whether this is what `field` of a rule that counts `count` is by default.
    pub(super) fn has(&self, count: &str, field: &str, value: &str) -> bool {
        let word = count.split(' ').next().unwrap_or_default();
        let [(plain, _), ..] = BARE;
        let values = self.0.get(word).or_else(|| self.0.get(plain));
        let default = values.and_then(|values| values.get(field));
        default.is_some_and(|default| default == value)
    }
}

/// The values of a rule that says nothing but what it counts.
fn bare(count: &str) -> BTreeMap<String, String> {
    let text = format!(
        "[edge]\n[[rule]]\nname = 'bare'\ncount = {count}\nkey = ['source']\n\
         tiers = [{{ limit = 1, period = '1s', action = 'reject' }}]\n"
    );
    let mut it = Description::default();
    // Without it all is told.
    if let Ok(loaded) = super::parse("defaults", &text, &super::NoFiles) {
        let decide = loaded.policy.decide.iter();
        decide
            .flat_map(|decide| &decide.rules)
            .for_each(|rule| describe_rule(&mut it, rule));
    }
    let said = ["count", "key", "tiers.1"];
    let values = it.values.into_iter().filter_map(|(key, value)| {
        let field = key.strip_prefix("rule.bare.")?;
        (!said.contains(&field)).then(|| (field.to_owned(), value))
    });
    values.collect()
}

fn describe_rule(it: &mut Description, rule: &Rule) {
    let name = &rule.name;
    let key = |field: &str| format!("rule.{name}.{field}");
    set_list(it, &key("requests"), rule.requests.iter().map(request_text));
    set_list(
        it,
        &key("hosts"),
        rule.hosts.iter().map(ToString::to_string),
    );
    set_list(it, &key("backends"), rule.backends.iter().cloned());
    let from = rule.from.iter().flatten();
    set_list(it, &key("from"), from.map(ToString::to_string));
    it.set(&key("count"), count_text(&rule.count));
    for (field, pattern) in [("failure", &rule.failure), ("success", &rule.success)] {
        if let Some(pattern) = pattern {
            it.set(&key(field), outcome_text(pattern));
        }
    }
    let parts: Vec<String> = rule.key.iter().map(key_part_text).collect();
    let parts = if parts.is_empty() {
        "one counter for all".to_owned()
    } else {
        parts.join(", ")
    };
    it.set(&key("key"), parts);
    it.set(&key("absent"), word_of(&ABSENT, &rule.absent));
    for (field, prefix) in [
        ("ipv4_prefix", rule.ipv4_prefix),
        ("ipv6_prefix", rule.ipv6_prefix),
    ] {
        if let Some(prefix) = prefix {
            it.set(&key(field), prefix);
        }
    }
    set_list(
        it,
        &key("except"),
        rule.except.iter().map(ToString::to_string),
    );
    describe_course(it, rule);
    it.set(&key("jitter"), rule.jitter_percent);
    it.set(&key("on_success"), word_of(&ON_SUCCESS, &rule.on_success));
    it.set(&key("reserve"), rule.reserve);
    it.set(&key("count_refused"), rule.count_refused);
    set_list(it, &key("apply"), rule.apply.iter().map(request_text));
    it.set(&key("simulate"), rule.simulate);
    it.set(&key("shared"), word_of(&SHARED, &rule.shared));
    if let Some(limit) = &rule.block_limit {
        it.set(&key("block_limit"), limit);
    }
    set_list(it, &key("clears"), rule.clears.iter().cloned());
    it.set(&key("tracked"), rule.tracked);
    it.set(&key("blocked"), rule.blocked);
    it.set(&key("keys_per_source"), rule.keys_per_source);
    it.set(&key("response.status"), rule.response.status);
    it.set(
        &key("response.headers"),
        word_of(&HEADERS, &rule.response.headers),
    );
    let body = match &rule.response.body {
        Body::OryJson => "ory-json".to_owned(),
        Body::ProblemJson => "problem-json".to_owned(),
        Body::Html => "html".to_owned(),
        Body::Empty => "empty".to_owned(),
        Body::File(path) => path.display().to_string(),
    };
    it.set(&key("response.body"), body);
}

/// Tiers and rungs by their number, counted from 1.
fn describe_course(it: &mut Description, rule: &Rule) {
    let name = &rule.name;
    match &rule.course {
        Course::Tiers(tiers) => {
            for (index, tier) in tiers.iter().enumerate() {
                let gauge = match &tier.gauge {
                    Gauge::Window(window) => window_text(window),
                    Gauge::TokenBucket(bucket) => {
                        let rate = Measure::Count.rate_text(bucket.rate);
                        let delay = bucket.delay.map(|it| format!(", delay after {it}"));
                        let delay = delay.unwrap_or_default();
                        format!("{rate}, burst {}{delay}, token_bucket", bucket.burst)
                    }
                };
                let lasting = tier.lasting.map(|it| format!(" for {}", duration_text(it)));
                let effect = effect_text(&tier.effect, &lasting.unwrap_or_default());
                it.set(
                    &format!("rule.{name}.tiers.{}", index + 1),
                    format!("{gauge}: {effect}"),
                );
            }
        }
        Course::Ladder(ladder) => {
            for (index, rung) in ladder.rungs.iter().enumerate() {
                let window = window_text(&rung.window);
                let lasting = format!(" for {}", duration_text(rung.lasting));
                let effect = effect_text(&rung.effect, &lasting);
                it.set(
                    &format!("rule.{name}.ladder.{}", index + 1),
                    format!("{window}: {effect}"),
                );
            }
            it.set(
                &format!("rule.{name}.ladder_decay"),
                duration_text(ladder.decay),
            );
        }
        Course::Boruta(boruta) => {
            it.set(&format!("rule.{name}.boruta"), boruta_text(boruta));
        }
    }
}

fn boruta_text(boruta: &Boruta) -> String {
    let faithful = if boruta.faithful { ", faithful" } else { "" };
    format!(
        "{} in {}, penalty {} ms, timeout {} ms, memory {}{faithful}",
        boruta.limit,
        duration_text(boruta.period),
        boruta.penalty_ms,
        boruta.timeout_ms,
        boruta.memory,
    )
}

fn window_text(window: &Window) -> String {
    let more = if window.exceeds { "more than " } else { "" };
    let period = duration_text(window.period);
    let algorithm = word_of(&WINDOWS, &window.algorithm);
    format!("{more}{} in {period}, {algorithm}", window.limit)
}

fn effect_text(effect: &Effect, lasting: &str) -> String {
    let action = word_of(&ACTIONS, &effect.action);
    let wait = match effect.action {
        super::steps::Action::Throttle => format!(" by {} ms", effect.wait_ms),
        _ => String::new(),
    };
    let then = effect
        .then
        .map(|then| format!(", then {}", word_of(&ACTIONS, &then)));
    let notify = if effect.notify_owner {
        ", notify owner"
    } else {
        ""
    };
    let simulate = if effect.simulate { ", simulated" } else { "" };
    let difficulty = effect.difficulty_bits;
    let difficulty = difficulty.map_or_else(String::new, |bits| format!(", difficulty {bits}"));
    format!(
        "{action}{wait}{lasting}{}{difficulty}{notify}{simulate}",
        then.unwrap_or_default()
    )
}

fn request_text(request: &RequestPattern) -> String {
    match &request.method {
        Some(method) => format!("{method} {}", request.path),
        None => request.path.to_string(),
    }
}

fn count_text(count: &Count) -> String {
    match count {
        Count::Requests => "requests".to_owned(),
        Count::Statuses(statuses) => format!("statuses {}", statuses_text(statuses)),
        Count::ResponseHeader(header) => format!("response header {}", header_text(header)),
        Count::Failures => "failures".to_owned(),
        Count::Attempts => "attempts".to_owned(),
        Count::ScoreHeader(name) => format!("score in {name}"),
        Count::Distinct(part) => format!("distinct {}", key_part_text(part)),
    }
}

fn statuses_text(statuses: &Statuses) -> String {
    let range = |range: &RangeInclusive<u16>| match (range.start(), range.end()) {
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    };
    let ranges: Vec<String> = statuses.ranges().iter().map(range).collect();
    ranges.join(", ")
}

fn header_text(header: &HeaderPattern) -> String {
    let case = if header.ignore_case {
        " in any case"
    } else {
        ""
    };
    match &header.value {
        Some(value) => format!("{} = {value}{case}", header.name),
        None => header.name.clone(),
    }
}

fn outcome_text(pattern: &OutcomePattern) -> String {
    let statuses = pattern
        .statuses
        .as_ref()
        .map(|it| format!("statuses {}", statuses_text(it)));
    let location = pattern.location.as_ref().map(|it| format!("location {it}"));
    let header = pattern.response_header.as_ref().map(header_text);
    let parts: Vec<String> = [statuses, location, header].into_iter().flatten().collect();
    parts.join(" and ")
}

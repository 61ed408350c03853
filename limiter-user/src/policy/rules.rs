//! `[[rule]]`: the rules of a policy, one by one.

use std::collections::{HashMap, HashSet};

use ipnet::IpNet;

use super::MAX_RULES;
use super::course::{PlacedCourse, TierPlaces, course};
use super::diagnostic::quote;
use super::limit::{NAME_HELP, gate, is_name, networks};
use super::pattern::Pattern;
use super::reader::{Section, Value};
use super::report::{At, Place, Read};
use super::rule::{
    Absent, Body, Count, KeyPart, LimitHeaders, OnSuccess, OutcomePattern, RequestPattern,
    Response, Rule, Shared,
};
use super::schema::suggest;
use super::select;
use super::services::absolute;
use super::units::Problem;
use super::words::{ABSENT, HEADERS, ON_SUCCESS, SHARED};

const MAX_TRACKED: u64 = 1 << 24;
const BODIES: [&str; 4] = ["ory-json", "problem-json", "html", "empty"];
const BODY_HELP: &str =
    "allowed: ory-json, problem-json, html, empty, or the absolute path of a file";

/// A rule with the places that errors and warnings about it point to.
pub(super) struct PlacedRule {
    pub(super) rule: Rule,
    pub(super) from: Place,
    pub(super) count: Place,
    pub(super) failure: Option<Place>,
    pub(super) success: Option<Place>,
    pub(super) reserve: Option<At<bool>>,
    pub(super) apply: Place,
    pub(super) except: Place,
    pub(super) prefix: Option<Place>,
    pub(super) jitter: Place,
    pub(super) block_limit: Place,
    pub(super) clears: Vec<At<String>>,
    pub(super) course: Vec<TierPlaces>,
    /// Where `response.body` stands.
    pub(super) body: Place,
}

/// The rules that are right; the report has what is wrong with the others.
pub(super) struct PlacedRules {
    pub(super) good: Vec<PlacedRule>,
    /// The names of all, also of those with errors.
    pub(super) names: HashSet<String>,
}

pub(super) fn rules(root: &Section<'_>) -> Read<Option<PlacedRules>> {
    root.read("rule", |value| {
        let mut names = HashMap::new();
        let help = "write [[rule]], with two brackets";
        let good = value.list_of_good(help, |item| rule(item, &mut names))?;
        if good.len() > MAX_RULES {
            let message = format!("{} rules", good.len());
            let help = format!("allowed: up to {MAX_RULES}");
            return Err(value.error(Problem::new(message, help)));
        }
        let names = names.into_keys().collect();
        Ok(PlacedRules { good, names })
    })
}

/// What a rule selects, and counts.
struct Selection {
    requests: At<Vec<RequestPattern>>,
    hosts: Vec<Pattern>,
    backends: Vec<String>,
    from: Option<At<Vec<IpNet>>>,
    count: At<Count>,
    failure: Option<At<OutcomePattern>>,
    success: Option<At<OutcomePattern>>,
    key: At<Vec<KeyPart>>,
    apply: At<Vec<RequestPattern>>,
}

fn selection(value: &Value<'_>, section: &Section<'_>) -> Read<Selection> {
    let ignore_case = section.read_or("ignore_case", false, Value::boolean);
    let case = *ignore_case.as_ref().unwrap_or(&false);
    let requests = section.read_or("requests", value.at(Vec::new()), select::requests);
    let hosts = section.read_or("hosts", Vec::new(), select::hosts);
    let backends = select::names(section, "backends");
    let from = section.read("from", gate);
    let count = section.read_or("count", value.at(Count::Requests), |v| {
        select::count(v, case)
    });
    let failure = section.read("failure", |v| select::outcome(v, case));
    let success = section.read("success", |v| select::outcome(v, case));
    let default = value.at(vec![KeyPart::Source]);
    let key = section.read_or("key", default, select::key);
    let apply = section.read_or("apply", value.at(Vec::new()), select::requests);
    ignore_case?;
    Ok(Selection {
        requests: requests?,
        hosts: hosts?,
        backends: backends?.into_iter().map(|at| at.value).collect(),
        from: from?,
        count: count?,
        failure: failure?,
        success: success?,
        key: key?,
        apply: apply?,
    })
}

/// What bounds a rule.
struct Bounds {
    ipv4_prefix: Option<At<u8>>,
    ipv6_prefix: Option<At<u8>>,
    except: At<Vec<IpNet>>,
    tracked: u32,
    blocked: u32,
    keys_per_source: u32,
}

fn bounds(value: &Value<'_>, section: &Section<'_>) -> Read<Bounds> {
    let prefix = |key, range| section.read(key, |v: &Value<'_>| Ok(v.at(v.small(range)?)));
    let (ipv4_prefix, ipv6_prefix) = (
        prefix("ipv4_prefix", 8..=32),
        prefix("ipv6_prefix", 16..=64),
    );
    let except = section.read_or("except", value.at(Vec::new()), |v| Ok(v.at(networks(v)?)));
    let tracked = section.read_or("tracked", 100_000, |v| v.small(1..=MAX_TRACKED));
    let blocked = section.read_or("blocked", 100_000, |v| v.small(1..=MAX_TRACKED));
    let most = *tracked.as_ref().unwrap_or(&u32::MAX);
    let default = (most / 100).max(16).min(most);
    let keys_per_source =
        section.read_or("keys_per_source", default, |v| v.small(1..=u64::from(most)));
    Ok(Bounds {
        ipv4_prefix: ipv4_prefix?,
        ipv6_prefix: ipv6_prefix?,
        except: except?,
        tracked: tracked?,
        blocked: blocked?,
        keys_per_source: keys_per_source?,
    })
}

fn rule(value: &Value<'_>, names: &mut HashMap<String, Place>) -> Read<PlacedRule> {
    let section = value.section()?;
    let name = section.read("name", |v| Ok(v.at(v.text(NAME_HELP, rule_name)?)));
    let selection = selection(value, &section);
    let absent = section.read_or("absent", Absent::Skip, |v| v.word(&ABSENT));
    let bounds = bounds(value, &section);
    let clears = select::names(&section, "clears");
    let counted = selection.as_ref().map(|it| it.count.value.clone());
    let exact = matches!(counted, Ok(Count::Failures | Count::Attempts));
    let has_clears = clears.as_ref().is_ok_and(|it| !it.is_empty());
    let has_gate = selection.as_ref().is_ok_and(|it| it.from.is_some());
    let has_ladder = section
        .read("ladder", |_| Ok(()))
        .is_ok_and(|it| it.is_some());
    let does_more = has_clears || has_gate;
    let course = course(value, &section, exact || has_ladder, does_more);
    let jitter = section.read_or("jitter", value.at(0), |v| Ok(v.at(v.small(0..=100)?)));
    let on_success = section.read_or("on_success", OnSuccess::Keep, |v| v.word(&ON_SUCCESS));
    let reserve = section.read("reserve", |v| Ok(v.at(v.boolean()?)));
    let count_refused = section.read_or("count_refused", false, Value::boolean);
    // What is no boolean, the course has reported.
    let simulate = section.read_or("simulate", false, |v| Ok(v.as_bool() == Some(true)));
    let shared = section.read("shared", |v| v.word(&SHARED));
    let block_limit = section.read("block_limit", |v| Ok(v.at(select::short_text(v)?)));
    let response = response(&section);

    let name = name.and_then(|name| claim(name, value, names));
    let (selection, bounds) = (selection?, bounds?);
    let PlacedCourse { course, tiers } = course?;
    let (name, block_limit, reserve, clears) = (name?, block_limit?, reserve?, clears?);
    let (jitter, response) = (jitter?, response?);
    let is_settled_later = matches!(
        selection.count.value,
        Count::Failures | Count::Attempts | Count::Statuses(_)
    );
    // What the origin itself has named is not spared.
    let named_by_origin = matches!(selection.count.value, Count::ResponseHeader(_));
    let default_shared = if named_by_origin {
        Shared::Block
    } else {
        Shared::Challenge
    };
    let prefix = [&bounds.ipv4_prefix, &bounds.ipv6_prefix];
    let prefix = prefix
        .into_iter()
        .flatten()
        .next()
        .map(|at| at.place.clone());
    let place_of = |at: &Option<At<OutcomePattern>>| at.as_ref().map(|at| at.place.clone());
    let from_place = selection.from.as_ref().map_or(&value.place, |at| &at.place);
    Ok(PlacedRule {
        from: from_place.clone(),
        count: selection.count.place,
        failure: place_of(&selection.failure),
        success: place_of(&selection.success),
        apply: selection.apply.place,
        except: bounds.except.place,
        prefix,
        jitter: jitter.place,
        block_limit: block_limit
            .as_ref()
            .map_or(&value.place, |at| &at.place)
            .clone(),
        course: tiers,
        body: response.place,
        rule: Rule {
            name: name.value,
            requests: selection.requests.value,
            hosts: selection.hosts,
            backends: selection.backends,
            from: selection.from.map(|at| at.value),
            count: selection.count.value,
            failure: selection.failure.map(|at| at.value),
            success: selection.success.map(|at| at.value),
            key: selection.key.value,
            absent: absent?,
            ipv4_prefix: bounds.ipv4_prefix.map(|at| at.value),
            ipv6_prefix: bounds.ipv6_prefix.map(|at| at.value),
            except: bounds.except.value,
            course,
            jitter_percent: jitter.value,
            on_success: on_success?,
            reserve: reserve.as_ref().map_or(is_settled_later, |at| at.value),
            count_refused: count_refused?,
            apply: selection.apply.value,
            simulate: simulate?,
            shared: shared?.unwrap_or(default_shared),
            block_limit: block_limit.map(|at| at.value),
            clears: clears.iter().map(|at| at.value.clone()).collect(),
            tracked: bounds.tracked,
            blocked: bounds.blocked,
            keys_per_source: bounds.keys_per_source,
            response: response.value,
        },
        reserve,
        clears,
    })
}

fn rule_name(text: &str) -> Result<String, Problem> {
    if is_name(text) {
        return Ok(text.to_owned());
    }
    let message = format!("{} is no name for a rule", quote(text));
    Err(Problem::new(message, NAME_HELP))
}

/// The name, unless there is none or another rule has it.
fn claim(
    name: Option<At<String>>,
    value: &Value<'_>,
    names: &mut HashMap<String, Place>,
) -> Read<At<String>> {
    let name =
        name.ok_or_else(|| value.error(Problem::new("this rule has no `name`", NAME_HELP)))?;
    if let Some(first) = names.get(&name.value) {
        let message = format!("a second rule named {}", quote(&name.value));
        let help = format!("the first is at {}; rename one", first.label());
        return Err(value.error_at(&name.place, Problem::new(message, help)));
    }
    names.insert(name.value.clone(), name.place.clone());
    Ok(name)
}

fn response(rule: &Section<'_>) -> Read<At<Response>> {
    let section = rule.section("response")?;
    let place = section.read_or("body", section.place.clone(), |v| Ok(v.at(()).place));
    let status = section.read_or("status", 429, |v| v.small(400..=499));
    let headers = section.read_or("headers", LimitHeaders::XRatelimit, |v| v.word(&HEADERS));
    let body = section.read_or("body", Body::ProblemJson, |v| v.text(BODY_HELP, body));
    let value = Response {
        status: status?,
        headers: headers?,
        body: body?,
    };
    let place = place?;
    Ok(At { value, place })
}

fn body(text: &str) -> Result<Body, Problem> {
    match text {
        "ory-json" => Ok(Body::OryJson),
        "problem-json" => Ok(Body::ProblemJson),
        "html" => Ok(Body::Html),
        "empty" => Ok(Body::Empty),
        path if path.starts_with('/') => Ok(Body::File(absolute(path, 4_000)?)),
        other => {
            let message = format!("`body` cannot be {}", quote(other));
            let names = BODIES.into_iter().chain(["the absolute path of a file"]);
            Err(Problem::new(message, suggest(other, names, "")))
        }
    }
}

//! The dashboard that is shipped: Prometheus takes its queries, they ask for what there is, and
//! it shows all that there is. Grafana is not packaged here; its form is looked at by hand.

use crate::alerts::promtool;
use limiter_tests::{
    documented::{self, METRICS},
    process::Scratch,
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

const DASHBOARD: &str = include_str!("../../../packaging/grafana/limiter.json");
/// What Prometheus adds to each sample.
const TARGET: [&str; 2] = ["job", "instance"];
const SOURCE: &str = "${datasource}";

type Labels = BTreeSet<String>;

struct Query {
    panel: String,
    expression: String,
    legend: String,
}

fn dashboard() -> Value {
    serde_json::from_str(DASHBOARD).unwrap()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn queries() -> Vec<Query> {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let queries = panels.filter(|panel| panel["type"] != "row");
    let queries = queries.flat_map(|panel| {
        let targets = panel["targets"].as_array().unwrap().iter();
        targets.map(move |target| {
            assert_eq!(target["datasource"]["uid"], SOURCE, "{panel}");
            Query {
                panel: text(&panel["title"]),
                expression: text(&target["expr"]),
                legend: text(&target["legendFormat"]),
            }
        })
    });
    let queries: Vec<Query> = queries.collect();
    assert!(queries.len() > 50);
    queries
}

/// Words of names in a text, and where each begins.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let is_end = |it: char| !(it.is_ascii_alphanumeric() || it == '_');
    text.split(is_end).filter(|word| !word.is_empty())
}

/// What stands between each `open` and the `close` behind it.
fn between<'a>(text: &'a str, open: &'a str, close: &'a str) -> impl Iterator<Item = &'a str> {
    let after = text.split(open).skip(1);
    after.map(move |rest| rest.split_once(close).unwrap().0)
}

/// Each sample of an expression with what stands in its braces.
fn selectors(expression: &str) -> Vec<(&str, &str)> {
    let is_end = |it: char| !(it.is_ascii_alphanumeric() || it == '_');
    let parts = expression.split_inclusive('{').collect::<Vec<_>>();
    let pairs = parts.iter().zip(parts.iter().skip(1));
    let selectors = pairs.map(|(before, after)| {
        let name = before.trim_end_matches('{').rsplit(is_end).next().unwrap();
        (name, after.split_once('}').unwrap().0)
    });
    selectors.collect()
}

/// Labels by which the samples of this name differ.
fn labels(sample: &str, metrics: &BTreeMap<String, Labels>) -> Labels {
    let mut labels: Labels = TARGET.map(str::to_owned).into();
    if sample != "up" {
        let metric = documented::metric_of(sample, metrics);
        assert!(metrics.contains_key(metric), "{sample}");
        labels.extend(metrics[metric].iter().cloned());
    }
    if sample.ends_with("_bucket") {
        labels.insert("le".to_owned());
    }
    labels
}

/// The words of `before`, `after` in what groups: `by (…)`, `on (…)`.
fn grouped(expression: &str, word: &str) -> Labels {
    let open = format!(" {word} (");
    let lists = between(expression, &open, ")");
    lists.flat_map(words).map(str::to_owned).collect()
}

#[test]
fn prometheus_takes_its_queries() {
    let rules: Vec<Value> = queries()
        .iter()
        .enumerate()
        .map(|(number, query)| {
            let expression = query.expression.replace("$__rate_interval", "5m");
            json!({ "record": format!("query_{number}"), "expr": expression })
        })
        .collect();
    let scratch = Scratch::new().unwrap();
    let file = scratch.path("rules.yml");
    // JSON is YAML.
    let rules = json!({ "groups": [{ "name": "dashboard", "rules": rules }] });
    fs::write(&file, rules.to_string()).unwrap();
    promtool(&["check", "rules", file.to_str().unwrap()]);
}

/// The documented metrics are those that a daemon exports: tests/metrics.rs.
#[test]
fn its_queries_ask_for_what_there_is() {
    let metrics = documented::metrics();
    for Query {
        panel,
        expression,
        legend,
    } in queries()
    {
        let selectors = selectors(&expression);
        let named = words(&expression).filter(|word| word.starts_with("limiter_"));
        let selected = selectors.iter().map(|(name, _)| *name);
        assert!(named.eq(selected.filter(|name| *name != "up")), "{panel}");
        let mut known = Labels::new();
        for (name, matchers) in selectors {
            let own = labels(name, &metrics);
            assert!(matchers.starts_with("instance=~\"$instance\""), "{panel}");
            for matcher in matchers.split(", ") {
                let (label, value) = matcher.split_once(['=', '!']).unwrap();
                assert!(own.contains(label), "{panel}: {label} of {name}");
                let value = value.split('"').nth(1).unwrap();
                let values = value
                    .split('|')
                    .filter(|it| !TARGET.contains(&label) && !it.is_empty());
                for value in values {
                    assert!(METRICS.contains(&format!("`{value}`")), "{panel}: {value}");
                }
            }
            known.extend(own);
        }
        let by = grouped(&expression, "by");
        assert!(by.is_subset(&known), "{panel}: {by:?}");
        let shown: Labels = between(&legend, "{{", "}}").map(str::to_owned).collect();
        let left = if by.is_empty() { &known } else { &by };
        assert!(shown.is_subset(left), "{panel}: {shown:?}");
    }
}

#[test]
fn it_shows_every_metric() {
    let metrics = documented::metrics();
    let queries = queries();
    let shown: BTreeSet<&str> = queries
        .iter()
        .flat_map(|query| words(&query.expression))
        .filter(|word| word.starts_with("limiter_"))
        .map(|sample| documented::metric_of(sample, &metrics))
        .collect();
    assert!(shown.into_iter().eq(metrics.keys()));
}

#[test]
fn its_panels_have_their_places() {
    let dashboard = dashboard();
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let names: Vec<&str> = variables
        .iter()
        .filter_map(|it| it["name"].as_str())
        .collect();
    assert_eq!(names, ["datasource", "instance"]);
    let mut ids = BTreeSet::new();
    let mut taken = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        assert!(!text(&panel["title"]).is_empty(), "{panel}");
        let side = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        assert!(side("x") + side("w") <= 24, "{panel}");
        for x in side("x")..side("x") + side("w") {
            for y in side("y")..side("y") + side("h") {
                assert!(taken.insert((x, y)), "{panel} lies on another");
            }
        }
    }
}

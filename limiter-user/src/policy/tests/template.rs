//! What `limiter init` prints.

use super::super::{TemplateError, presets, template};
use super::{brief, loaded};

fn set(assignments: &[(&str, &str)]) -> Result<String, TemplateError> {
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    let assignments: Vec<(String, String)> = assignments.iter().map(owned).collect();
    template(None, &assignments)
}

#[test]
fn every_preset_is_valid_and_states_the_defaults() {
    let defaults = loaded("").policy;
    for (name, _) in presets() {
        let mut found = loaded(&template(Some(name), &[]).unwrap());
        let warnings: Vec<String> = found.warnings.iter().map(brief).collect();
        // Whom to tell, and whose CAPTCHAs they are, is not for a preset to say.
        let told = ["nobody is notified", "nobody poses one"];
        let is_left = |warning: &&String| !told.iter().any(|it| warning.contains(it));
        let left: Vec<&String> = warnings.iter().filter(is_left).collect();
        assert!(
            matches!(&left[..], [one] if one.contains("no interfaces")),
            "{name}: {warnings:?}"
        );
        let rules = found.policy.decide.take().map_or(0, |it| it.rules.len());
        let limits = found.policy.edge.limits.len();
        assert!(rules + limits > 0, "{name}");
        found.policy.edge.limits.clear();
        assert_eq!(found.policy, defaults, "{name}");
    }
    assert_eq!(template(None, &[]), template(Some(presets()[0].0), &[]));
}

#[test]
fn assignments_keep_the_comments() {
    let before = template(None, &[]).unwrap();
    let after = set(&[
        ("edge.interfaces", r#"["eth0"]"#),
        ("edge.enforce", "false"),
        ("edge.mode", "native"),
        ("edge.limit.https.packets.rate", "10000/s"),
        ("edge.limit.https.packets.burst", "20_000"),
        ("edge.limit.ssh.from", r#"["10.0.0.0/8"]"#),
        ("control.read_group", "adm"),
        ("state.retention", "7d"),
    ])
    .unwrap();
    let changed: Vec<&str> = after
        .lines()
        .filter(|line| !before.lines().any(|old| old == *line))
        .collect();
    assert_eq!(
        changed,
        [
            r#"interfaces = ["eth0"]"#,
            r#"mode = "native""#,
            "enforce = false",
            r#"read_group = "adm""#,
            "[state]",
            r#"retention = "7d""#,
            r#"packets = { rate = "10000/s", burst = 20_000 }"#,
            r#"from = ["10.0.0.0/8"]"#,
        ]
    );
    let comments = |text: &str| text.lines().filter(|line| line.starts_with('#')).count();
    assert_eq!(comments(&before), comments(&after));
}

#[test]
fn bad_assignments_say_what_is_wrong() {
    for (key, value, expected) in [
        ("edge.enfroce", "false", "did you mean `enforce`?"),
        ("edge.ipv4_prefix", "99", "`ipv4_prefix` cannot be `99`"),
        (
            "edge.enforce",
            "",
            "the value `` of `edge.enforce` is not TOML",
        ),
        ("edge.interfaces", "[eth0]", "is not TOML; lists are"),
        ("edge.allow", "\u{1b}[2J x", "\\u{1b}"),
        ("", "1", "`` is not a key"),
        ("edge..x", "1", "`edge..x` is not a key"),
        (
            "edge.mode.x",
            "1",
            "`edge.mode.x` cannot be set: `mode` is not a table",
        ),
        (
            "edge.limit.htps.to",
            "[]",
            "there is no limit `htps`; did you mean `https`?",
        ),
        ("edge.limit.https", "1", "`https` is a whole limit"),
        ("edge.limit", "1", "`limit`: expected an array"),
        ("notify.smtp", "1", "`smtp`: expected a table"),
    ] {
        let fault = set(&[(key, value)]).unwrap_err().to_string();
        assert!(fault.contains(expected), "{key}={value}\n{fault}");
    }
    let fault = template(Some("edg"), &[]).unwrap_err().to_string();
    assert_eq!(
        fault,
        "unknown preset `edg`; did you mean `edge`? allowed: edge, strict-ssh, dns, protect-login, \
         cloudflare-login, cloudflare-headers, cloudflare-not-found, cloudflare-enumeration, \
         cloudflare-scraping, loginwith, kratos, opensearch, boruta"
    );
}

/// The section that several presets share says what it says by itself.
#[test]
fn presets_state_the_defaults_of_decide() {
    let defaults = loaded("[decide]").policy.decide;
    let mut found = loaded(&template(Some("boruta"), &[]).unwrap())
        .policy
        .decide;
    if let Some(decide) = &mut found {
        assert_eq!(decide.rules.len(), 1);
        decide.rules.clear();
    }
    assert_eq!(found, defaults);
}

#[test]
fn a_preset_has_keys_of_its_own() {
    let set = |key: &str, value: &str| {
        template(Some("protect-login"), &[(key.to_owned(), value.to_owned())])
    };
    let text = set("path", "/signin").unwrap();
    assert!(text.contains("requests = [\"POST /signin\"]\n"), "{text}");
    let [rule] = &loaded(&text).policy.decide.unwrap().rules[..] else {
        panic!("{text}");
    };
    assert!(rule.selects(Some("POST"), Some("/signin")));
    assert!(!rule.selects(Some("POST"), Some("/login")));
    let text = set("rule.protect-login.for", "1h").unwrap();
    assert!(text.contains("for = \"1h\"\n"), "{text}");
    for (key, value, expected) in [
        ("path", "1", "`path` is not a string"),
        (
            "path",
            "signin",
            "`POST signin` has a path that starts with neither",
        ),
        ("rule.login.for", "1h", "there is no rule `login`"),
        ("rule.protect-login", "1", "`protect-login` is a whole rule"),
    ] {
        let fault = set(key, value).unwrap_err().to_string();
        assert!(fault.contains(expected), "{key}={value}\n{fault}");
    }
    // It is the preset's, and no other's.
    let fault = template(None, &[("path".to_owned(), "/signin".to_owned())]).unwrap_err();
    let fault = fault.to_string();
    assert!(
        fault.contains("the preset `edge` has no such key"),
        "{fault}"
    );
    assert!(fault.contains("--preset protect-login has it"), "{fault}");
}

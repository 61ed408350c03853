//! What is legal and probably wrong in `[decide]` and `[[rule]]`, and the
//! nearest policy without it.

use super::{Diagnostic, brief, loaded, parsed};

const CLEAN: &str = "[edge]\ninterfaces = ['eth0']\n";
const RULE: &str = "[[rule]]\nname = 'login'\nlimit = 5\nperiod = '5m'\naction = 'reject'\n";
const TIERS: &str = "[[rule]]\nname = 'login'\n";
/// Who poses CAPTCHAs, for cases about tiers.
const PROVIDER: &str =
    "[decide.challenge.captcha]\nprovider = 'turnstile'\nsite_key = 'k'\nsecret_file = '/s'\n";
/// One rule that nothing is wrong with, for cases about `[decide]`.
const ANY: &str = "\n[[rule]]\nname = 'a'\nlimit = 5\nperiod = '5m'\naction = 'reject'";

/// (what follows [`CLEAN`], the beginning of its one warning or nothing).
/// Line 3 is the first.
fn cases() -> Vec<(String, &'static str)> {
    let decide = |text: &str| format!("[decide]\n{text}{ANY}");
    let rule = |text: &str| format!("{RULE}{text}");
    let tiers = |text: &str| format!("{TIERS}tiers = [{text}]\n{PROVIDER}");
    let captcha = |text: &str| {
        format!(
            "challenge = {{ captcha = {{ provider = 'turnstile', site_key = 'k', secret_file = '/s', {text} }} }}"
        )
    };
    let gated = |text: &str| rule(&format!("requests = ['/admin*']\n{text}"));
    let api = |text: &str| format!("{RULE}{text}\n[decide]\napi = 'unix:/run/x'");
    vec![
        (
            "[decide]".to_owned(),
            "3:1: nothing is decided: there are no rules; add [[rule]]",
        ),
        (decide(""), ""),
        (rule(""), ""),
        (
            decide("listen = '0.0.0.0:4480'"),
            "4:10: whoever takes a trusted proxy's address can ask",
        ),
        (decide("listen = '[::1]:4480'"), ""),
        (
            decide("api = { listen = '192.0.2.1:1', token_file = '/x' }"),
            "4:7: the token crosses the network in the clear",
        ),
        (
            decide("api = { listen = '127.0.0.1:1', token_file = '/x' }"),
            "",
        ),
        (
            rule("key = ['account']\nnotify = 'owner'"),
            "9:10: nobody is notified: the policy has no [notify]; add [notify] with a webhook",
        ),
        (
            rule("from = ['10.0.0.0/8']"),
            "8:8: rule `login` selects every request: nobody outside `from` gets anything; name",
        ),
        (gated("from = ['10.0.0.0/8']"), ""),
        (
            gated("from = ['0.0.0.0/0', '10.0.0.0/8']"),
            "9:8: the gate of rule `login` lets in all of 0.0.0.0/0; name the networks",
        ),
        (
            gated("except = ['10.1.0.0/16', '203.0.113.0/24']\nfrom = ['10.0.0.0/8']"),
            "9:10: `except` does not open the gate of rule `login` to 203.0.113.0/24; add it",
        ),
        (
            gated("from = ['10.0.0.0/9', '10.128.0.0/9']\n[decide]\nexempt = ['10.0.0.0/8']"),
            "9:8: rule `login` counts nobody: all that its gate lets in are exempt; take",
        ),
        (
            gated("key = ['account']\nfrom = ['10.0.0.0/8']\n[decide]\nexempt = ['10.0.0.0/8']"),
            "",
        ),
        (
            format!("{TIERS}hosts = ['a']\nfrom = ['::1']\n[decide]\nexempt = ['::1']"),
            "",
        ),
        (
            format!("{TIERS}hosts = ['a']\nfrom = ['::1']\ncount = 'attempts'"),
            "7:9: `count` has no effect: rule `login` has a gate and no limit; add limit",
        ),
        (
            decide("client_header = 'X-Real-IP'"),
            "4:17: `client_header` is not believed: no proxy is trusted",
        ),
        (
            decide("client_header = 'X-Real-IP'\ntrusted_proxies = ['127.0.0.0/8']"),
            "",
        ),
        (
            decide("trusted_proxies = ['0.0.0.0/0']"),
            "4:19: trusting 0.0.0.0/0 lets every client say who it is",
        ),
        (
            decide("exempt = ['::/0']"),
            "4:10: exempt ::/0: no rule with a source applies",
        ),
        // CAPTCHAs.
        (
            format!("{TIERS}tiers = [{{ limit = 5, period = '5m', action = 'captcha' }}]"),
            "5:47: rule `login` asks for a CAPTCHA, and nobody poses one: it gets a puzzle eight times",
        ),
        (decide(&captcha("verify_url = 'http://127.0.0.1/'")), ""),
        (
            decide(&captcha("verify_url = 'http://captcha.example/'")),
            "4:100: secret and answers go over captcha.example in the clear; use https",
        ),
        // Outcomes.
        (
            rule("count = 'failures'"),
            "8:9: rule `login` counts failures, and nothing says what failed; add `failure`",
        ),
        (
            rule("count = 'failures'\nfailure = { statuses = [401] }"),
            "",
        ),
        (api("count = 'failures'"), ""),
        (
            format!(
                "{RULE}count = 'failures'\n[decide]\nlogs = [{{ path = '/x', format = 'caddy' }}]"
            ),
            "8:9: rule `login` counts failures",
        ),
        (
            format!(
                "{RULE}count = 'failures'\n[decide]\nlogs = [{{ path = '/x', format = 'json' }}]"
            ),
            "",
        ),
        (
            rule("failure = { statuses = [401] }"),
            "8:11: `failure` has no effect: rule `login` does not count failures",
        ),
        (
            rule("success = { statuses = [200] }"),
            "8:11: `success` has no effect: rule `login` does nothing on success",
        ),
        (
            rule("success = { statuses = [200] }\non_success = 'reset'"),
            "",
        ),
        // Without effect.
        (
            rule("key = ['account']\nipv4_prefix = 24"),
            "9:15: a prefix has no effect",
        ),
        (rule("key = ['peer']\nipv4_prefix = 24"), ""),
        (rule("reserve = true"), "8:11: `reserve` has no effect"),
        (rule("reserve = true\ncount = { statuses = [401] }"), ""),
        (
            rule("apply = ['/x']"),
            "8:9: `apply` has no effect: the rule selects every request",
        ),
        (rule("apply = ['/x']\nrequests = ['/y']"), ""),
        (rule("jitter = 10"), "8:10: `jitter` has no effect"),
        (rule("jitter = 10\nfor = '1m'"), ""),
        (
            rule("except = ['0.0.0.0/0']"),
            "8:10: rule `login` applies to nobody of 0.0.0.0/0",
        ),
        // Tiers that another outdoes.
        (
            tiers(
                "{ limit = 5, period = '1m', action = 'reject' }, { limit = 9, period = '1m', action = 'captcha' }",
            ),
            "5:59: this tier never adds anything: `reject` at 5 in the same period is as strong",
        ),
        (
            tiers(
                "{ limit = 9, period = '1m', action = 'captcha' }, { limit = 5, period = '1m', action = 'captcha' }",
            ),
            "5:10: this tier never adds anything: `captcha` at 5",
        ),
        (
            tiers(
                "{ limit = 5, period = '1m', action = 'reject' }, { limit = 5, period = '1m', action = 'reject' }",
            ),
            "5:59: this tier never adds anything",
        ),
        (
            tiers(
                "{ limit = 5, period = '1m', action = 'captcha' }, { limit = 9, period = '1m', action = 'reject' }",
            ),
            "",
        ),
        (
            tiers(
                "{ limit = 5, period = '1m', action = 'captcha' }, { limit = 9, period = '2m', action = 'captcha' }",
            ),
            "",
        ),
        (
            tiers(
                "{ limit = 5, period = '1m', action = 'captcha' }, { limit = 9, period = '1m', action = 'captcha', for = '1h' }",
            ),
            "",
        ),
        (
            tiers(
                "{ limit = 5, period = '1m', action = 'reject', simulate = true }, { limit = 9, period = '1m', action = 'captcha' }",
            ),
            "",
        ),
        (
            tiers(
                "{ limit = 5, period = '1m', action = 'captcha', for = '10s' }, { limit = 9, period = '1m', action = 'captcha' }",
            ),
            "",
        ),
    ]
}

#[test]
fn each_warning_has_its_place() {
    let mut wrong = Vec::new();
    for (text, expected) in cases() {
        let found = loaded(&format!("{CLEAN}{text}\n"));
        let warnings: Vec<String> = found.warnings.iter().map(brief).collect();
        let fits = match &warnings[..] {
            [] => expected.is_empty(),
            [one] => !expected.is_empty() && one.starts_with(expected),
            _ => false,
        };
        if !fits {
            wrong.push(format!("{text}\n{expected}\n{warnings:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Rules with errors are rules.
#[test]
fn errors_are_not_taken_for_absence() {
    let fault = parsed("[decide]\n[[rule]]\nname = 'a'\n").unwrap_err();
    let says = |d: &Diagnostic| d.message.contains("there are no rules");
    assert!(!fault.diagnostics.iter().any(says), "{fault}");
}

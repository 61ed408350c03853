//! Each warning, with its place, and the nearest policy without it.

use super::{CLEAN, brief, loaded};

/// (what follows [`CLEAN`], the beginning of its one warning or nothing).
const CASES: &[(&str, &str)] = &[
    ("", ""),
    (
        "allow = ['0.0.0.0/0']",
        "3:10: allow 0.0.0.0/0 lets every such source past",
    ),
    (
        "allow = ['::/0']",
        "3:10: allow ::/0 lets every such source past",
    ),
    ("allow = ['0.0.0.0/1']", ""),
    ("[state]\nretention = '7d'\naudit_size = '100MB'", ""),
    ("[state]\ndirectory = '/srv/limiter'", ""),
    (
        "deny_files = ['/x/*.txt']",
        "3:15: `/x/*.txt` matches no file",
    ),
    // Replies.
    (
        "limit = [{ name = 'a', packets = '1/s' }]",
        "3:19: limit `a` has no ports: it also catches",
    ),
    (
        "limit = [{ name = 'a', protocol = 'udp', bytes = '1MB/s' }]",
        "3:19: limit `a` has no ports",
    ),
    (
        "limit = [{ name = 'a', protocol = 'tcp', from = ['10.0.0.0/8'] }]",
        "3:19: limit `a` has no ports",
    ),
    (
        "limit = [{ name = 'a', protocol = 'tcp', connections = '1/s' }]",
        "",
    ),
    (
        "limit = [{ name = 'a', protocol = 'icmp', packets = '1/s' }]",
        "",
    ),
    // Spoofed sources.
    (
        "limit = [{ name = 'a', protocol = 'udp', ports = [53], packets = '1/s', exceed.block = '1m' }]",
        "3:73: source addresses of UDP packets can be spoofed",
    ),
    (
        "limit = [{ name = 'a', protocol = 'tcp', ports = [53], packets = '1/s', exceed = { block = '1m' } }]",
        "3:82: source addresses of SYNs can be spoofed",
    ),
    (
        "limit = [{ name = 'a', protocol = 'icmp', packets = '1/s', exceed = { block = '1m' } }]",
        "3:69: source addresses of ICMP packets can be spoofed",
    ),
    (
        "limit = [{ name = 'a', connections = '1/s', exceed = { block = '1m' } }]",
        "3:54: source addresses of packets of any protocol can be spoofed",
    ),
    // Clock steps.
    (
        "limit = [{ name = 'a', protocol = 'icmp', packets = { rate = '1000/s', burst = 3 } }]",
        "3:80: a burst of 3 is less than the rate brings in one clock step of 4 ms (4)",
    ),
    (
        "limit = [{ name = 'a', protocol = 'icmp', packets = { rate = '1000/s', burst = 4 } }]",
        "",
    ),
    (
        "limit = [{ name = 'a', protocol = 'icmp', bytes = { rate = '20MB/s', burst = '50kB' } }]",
        "3:78: a burst of 50000 is less than the rate brings in one clock step of 4 ms (80000)",
    ),
    // Gates.
    (
        "deny = ['10.0.0.0/8']\nlimit = [{ name = 'a', protocol = 'icmp', from = ['10.1.0.0/16'] }]",
        "4:50: every network in `from` of limit `a` is denied",
    ),
    (
        "deny = ['10.0.0.0/8']\nlimit = [{ name = 'a', protocol = 'icmp', from = ['10.1.0.0/16', '192.0.2.1'] }]",
        "",
    ),
];

/// (limits before, the limit asked about, whether it is shadowed).
const SHADOWS: &[(&str, &str, bool)] = &[
    (
        "protocol = 'tcp', ports = [443]",
        "protocol = 'tcp', ports = [443]",
        true,
    ),
    (
        "protocol = 'tcp', ports = ['1-500']",
        "protocol = 'tcp', ports = [443, 80]",
        true,
    ),
    (
        "protocol = 'tcp', ports = [443]",
        "protocol = 'tcp', ports = [443, 80]",
        false,
    ),
    (
        "protocol = 'tcp', ports = [443]",
        "protocol = 'udp', ports = [443]",
        false,
    ),
    (
        "protocol = 'udp', ports = ['1-65535']",
        "protocol = 'udp', ports = ['1-65535']",
        true,
    ),
    ("", "protocol = 'icmp'", true),
    ("", "protocol = 'tcp', ports = [443]", true),
    (
        "protocol = 'icmp'",
        "protocol = 'icmp', to = ['192.0.2.1']",
        true,
    ),
    (
        "protocol = 'icmp', to = ['192.0.2.1']",
        "protocol = 'icmp'",
        false,
    ),
    (
        "protocol = 'icmp', to = ['192.0.2.0/25', '192.0.2.128/25']",
        "protocol = 'icmp', to = ['192.0.2.0/24']",
        true,
    ),
    (
        "protocol = 'icmp', to = ['0.0.0.0/0', '::/0']",
        "protocol = 'icmp'",
        true,
    ),
    (
        "protocol = 'icmp', to = ['0.0.0.0/0']",
        "protocol = 'icmp'",
        false,
    ),
    (
        "protocol = 'icmp', to = ['2001:db8::/32']",
        "protocol = 'icmp', to = ['192.0.2.0/24']",
        false,
    ),
];

#[test]
fn each_warning_says_what_and_where() {
    for (text, expected) in CASES {
        let warnings = loaded(&format!("{CLEAN}{text}\n")).warnings;
        let found: Vec<String> = warnings.iter().map(brief).collect();
        match (&found[..], *expected) {
            ([], "") => {}
            ([one], expected) if !expected.is_empty() => {
                assert!(one.starts_with(expected), "{text}\n{one}\n{expected}");
            }
            _ => panic!("{text}\n{found:?}\n{expected}"),
        }
    }
}

#[test]
fn no_interfaces_is_a_warning() {
    for (text, expected) in [
        ("", "1:1: no interfaces: nothing will be attached"),
        (
            "[edge]\ninterfaces = []\n",
            "2:14: no interfaces: nothing will be attached",
        ),
    ] {
        let warnings = loaded(text).warnings;
        assert_eq!(warnings.len(), 1);
        assert!(brief(&warnings[0]).starts_with(expected), "{}", warnings[0]);
        assert!(warnings[0].to_string().contains("warning: no interfaces"));
    }
}

#[test]
fn metrics_for_everybody_are_a_warning() {
    for (listen, is_warned) in [("0.0.0.0:9477", true), ("[::1]:9477", false)] {
        let text = format!("{CLEAN}[metrics]\nlisten = '{listen}'\n");
        let found = loaded(&text).warnings.iter().any(|warning| {
            brief(warning).contains("metrics on 0.0.0.0:9477 can be read by whoever reaches")
        });
        assert_eq!(found, is_warned, "{listen}");
    }
}

#[test]
fn a_limit_that_never_matches_is_shadowed() {
    for (earlier, later, expected) in SHADOWS {
        let text = format!(
            "{CLEAN}limit = [\n{{ name = 'a', packets = '1/s', {earlier} }},\n{{ name = 'b', packets = '1/s', {later} }}]\n"
        );
        let found = loaded(&text).warnings.iter().any(|warning| {
            brief(warning).starts_with("5:10: limit `b` never matches: `a` before it")
        });
        assert_eq!(found, *expected, "{text}");
    }
}

#[test]
fn several_limits_shadow_together() {
    let limit = |name: &str, ports: &str| {
        format!("{{ name = '{name}', protocol = 'tcp', packets = '1/s', ports = ['{ports}'] }},\n")
    };
    let limits = [
        limit("a", "1-100"),
        limit("b", "101-200"),
        limit("c", "50-150"),
    ];
    let text = format!("{CLEAN}limit = [\n{}]\n", limits.concat());
    let warnings = loaded(&text).warnings;
    assert_eq!(warnings.len(), 1);
    assert!(
        warnings[0].message.contains("`a`, `b` before it"),
        "{}",
        warnings[0]
    );
}

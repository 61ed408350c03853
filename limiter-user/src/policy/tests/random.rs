//! No text panics.

use proptest::prelude::*;

use super::super::NoFiles;
use super::super::parse;

const VALID: &str = r#"[edge]
interfaces = ["eth0", "ens*"]
mode = "native"
allow = ["10.0.0.0/8", "2001:db8::/32"]
deny = ["198.51.100.0/24"]
safety = { ssh_ports = [22] }
[[edge.limit]]
name = "https"
protocol = "tcp"
ports = [443, "8000-8100"]
packets = { rate = "5000/s", burst = 10_000 }
bytes = { rate = "20MB/s", burst = "40MB" }
exceed = { block = "60s" }
[decide]
api = { listen = "127.0.0.1:4481", token_file = "/etc/limiter/token" }
feedback = [{ udp = "127.0.0.1:4482", from = ["10.0.0.5"] }]
logs = [{ path = "/var/log/x", format = "fields", fields = { source = "/a" } }]
[[rule]]
name = "login"
requests = ["POST /api/*/login", "/sessions/{id}"]
hosts = ["*.example.com"]
count = { statuses = [401, "5xx", "400-404"] }
key = ["source", "header:X-Key"]
failure = { statuses = [401], location = "*error*" }
limit = 4
algorithm = "token_bucket"
rate = "10/s"
tiers = [{ limit = 4, period = "1m", action = "block", for = "1d" }]
ladder = [{ limit = 4, period = "1m", action = "reject", for = "1d" }]
response = { status = 429, headers = "ietf", body = "/x.html" }
[metrics]
listen = "127.0.0.1:9477"
[state]
retention = "30d"
audit_size = "1GiB"
"#;

/// Reads `text` and prints whatever came of it.
fn digest(text: &str) {
    let diagnostics = match parse("p", text, &NoFiles) {
        Ok(loaded) => loaded.warnings,
        Err(fault) => {
            assert!(!fault.diagnostics.is_empty());
            fault.diagnostics
        }
    };
    for diagnostic in diagnostics {
        assert!(!diagnostic.to_string().is_empty());
    }
}

proptest! {
    #[test]
    fn arbitrary_text(text in "\\PC*|(?s:.{0,200})") {
        digest(&text);
    }

    #[test]
    fn text_like_toml(text in "[\\[\\]{}=\"'.,#a-c0-9\\n\\\\ é\u{1f980}-]{0,120}") {
        digest(&text);
    }

    #[test]
    fn a_value_replaced(line in 0..34_usize, value in "[-0-9a-z_./:'\"\\[\\]{}é]{0,24}") {
        let replace = |(index, text): (usize, &str)| match text.split_once(" = ") {
            Some((key, _)) if index == line => format!("{key} = {value}\n"),
            _ => format!("{text}\n"),
        };
        digest(&VALID.lines().enumerate().map(replace).collect::<String>());
    }

    #[test]
    fn bytes_replaced(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<char>()), 1..6)) {
        let mut text: Vec<char> = VALID.chars().collect();
        for (index, c) in changes {
            let at = index.index(text.len());
            text[at] = c;
        }
        digest(&text.into_iter().collect::<String>());
    }

    #[test]
    fn cut_off(at in 0..VALID.len()) {
        digest(&VALID[..at]);
    }
}

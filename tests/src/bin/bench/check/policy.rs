//! The policy that requests are measured under.

use limiter_tests::{process::Scratch, veth::Veth};

/// How many refused requests a source may send to [`BUSY`] within a minute before it is blocked.
pub(super) const REFUSED: u32 = 5_000;
/// The path where few requests are allowed.
pub(super) const BUSY: &str = "/busy";

/// Where limiter is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Port {
    Tcp,
    Unix,
}

impl Port {
    fn listen(self, scratch: &Scratch) -> String {
        match self {
            Self::Tcp => "127.0.0.1:4480".to_owned(),
            Self::Unix => format!("unix:{}", scratch.path("check.sock").display()),
        }
    }
}

/// Five rules, of which the first two count every request, and nothing refuses those for other
/// paths than [`BUSY`].
pub(super) fn five_rules(pairs: &[Veth], port: Port, scratch: &Scratch) -> String {
    let names: Vec<&str> = pairs.iter().map(|pair| pair.right.name.as_str()).collect();
    let (listen, feedback) = (port.listen(scratch), scratch.path("nginx.sock"));
    let api = own_api(scratch);
    format!(
        r#"
[edge]
interfaces = {names:?}
mode = "native"

[decide]
listen = {listen:?}
api = {api:?}
feedback = [{{ unix = {feedback:?}, format = "nginx-json" }}]

[[rule]]
name = "client"
limit = 1_000_000_000
period = "1m"
action = "reject"

[[rule]]
name = "page"
key = ["source", "path"]
limit = 1_000_000_000
period = "5m"
action = "js_challenge"

[[rule]]
name = "missing"
count = {{ statuses = [404] }}
reserve = false
limit = 100
period = "5m"
action = "captcha"
for = "15m"

[[rule]]
name = "login"
requests = ["POST /login"]
count = {{ statuses = [401] }}
limit = 5
period = "10m"
action = "block"
for = "1h"

[[rule]]
name = "busy"
requests = ["{BUSY}"]
count_refused = true
tiers = [
  {{ limit = 50, period = "1m", algorithm = "fixed_window", action = "reject" }},
  {{ limit = {REFUSED}, period = "1m", action = "block", for = "1h" }},
]
"#
    )
}

/// For nobody, but not where other daemons have theirs.
fn own_api(scratch: &Scratch) -> String {
    format!("unix:{}", scratch.path("api.sock").display())
}

/// One rule, on failed logins.
pub(super) fn logins(pair: &Veth, scratch: &Scratch) -> String {
    let (name, api) = (&pair.right.name, own_api(scratch));
    format!(
        r#"
[edge]
interfaces = [{name:?}]
mode = "native"

[decide]
listen = "127.0.0.1:4480"
api = {api:?}
spoe = "127.0.0.1:4482"

[[rule]]
name = "login"
requests = ["POST /login"]
count = {{ statuses = [401] }}
limit = 5
period = "10m"
action = "reject"
for = "10m"
"#
    )
}

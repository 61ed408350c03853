//! A server that hears what its application says: rules, and who counts under them.

use crate::site::{LATE, Site};
use anyhow::Context as _;
use limiter_tests::{process::Scratch, wait};
use serde_json::{Value, json};
use std::{
    io::{Read as _, Write as _},
    os::unix::net::{UnixDatagram, UnixStream},
    path::PathBuf,
};

/// A site that hears events, and where they go.
pub(crate) struct Hearing {
    pub(crate) site: Site,
    scratch: Scratch,
}

impl Hearing {
    /// `edge`: further lines of `[edge]`; `decide`: of `[decide]`; then the rules.
    pub(crate) fn new(edge: &str, decide: &str, rules: &str) -> Self {
        let scratch = Scratch::new().unwrap();
        let text = text(&scratch, edge, decide, rules);
        Self {
            site: Site::new("native", &text),
            scratch,
        }
    }

    /// The file of a policy for this site.
    pub(crate) fn policy(&self, edge: &str, decide: &str, rules: &str) -> String {
        let text = text(&self.scratch, edge, decide, rules);
        self.site.policy("native", &text)
    }

    /// A file of this test's.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.scratch.path(name)
    }

    /// What a program of the client says, in JSON: a module for Node.js, before which `names` are
    /// imported from one of the manual's examples.
    pub(crate) fn program(&self, names: &str, example: &str, text: &str) -> anyhow::Result<Value> {
        let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/integrations");
        let file = self.path("client.mjs");
        let import = format!("import {{ {names} }} from '{examples}/{example}';");
        std::fs::write(&file, format!("{import}\n{text}"))?;
        let client = self.site.client();
        let said = client.output("node", &[&file.display().to_string()])?;
        serde_json::from_str(&said).with_context(|| format!("not JSON: {said}"))
    }

    /// Tells of an event by a datagram.
    pub(crate) fn tell(&self, event: &Value) {
        let socket = UnixDatagram::unbound().unwrap();
        let bytes = event.to_string();
        let sent = socket.send_to(bytes.as_bytes(), self.scratch.path("feedback.sock"));
        assert_eq!(sent.unwrap(), bytes.len());
    }

    /// A failed login from an address that is the peer, so many times.
    pub(crate) fn fail(&self, source: &str, times: usize) {
        for _ in 0..times {
            self.tell(&failure(source));
        }
    }

    /// Asks the API.
    pub(crate) fn post(&self, path: &str, body: &Value) -> Value {
        let mut stream = UnixStream::connect(self.scratch.path("api.sock")).unwrap();
        let body = body.to_string();
        let length = body.len();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: limiter\r\nConnection: close\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(body)
            .with_context(|| answer.clone())
            .unwrap()
    }

    /// Asks `limiter` for JSON.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Value {
        self.site.daemon.json(arguments).unwrap()
    }

    /// The row of a rule in `limiter rule list`.
    pub(crate) fn rule(&self, name: &str) -> Value {
        let rules = self.ask(&["rule", "list"]);
        let rows = rules["rules"].as_array().unwrap();
        let row = rows.iter().find(|row| row["name"] == name);
        row.cloned().with_context(|| rules.to_string()).unwrap()
    }

    /// Waits until a rule has counted so many events.
    pub(crate) fn counted(&self, rule: &str, events: u64) {
        self.until("the events to be counted", || {
            (self.rule(rule)["counted"].as_u64() == Some(events)).then_some(())
        });
    }

    /// Waits until a source is blocked at the NIC; its row in `limiter block list`.
    pub(crate) fn blocked(&self, source: &str) -> Value {
        self.until("the block", || self.block(source))
    }

    /// The row of a source in `limiter block list`, if it is there.
    pub(crate) fn block(&self, source: &str) -> Option<Value> {
        let blocks = self.ask(&["block", "list"]);
        let rows = blocks["blocks"].as_array().unwrap();
        let network = format!("{source}/32");
        rows.iter()
            .find(|row| row["network"] == network.as_str())
            .cloned()
    }

    /// What rules hold against a source, by `limiter explain`.
    pub(crate) fn held(&self, source: &str) -> Vec<Value> {
        let explained = self.ask(&["explain", source]);
        explained["held"].as_array().unwrap().clone()
    }

    /// The number of the process that hears events.
    pub(crate) fn worker(&self) -> u32 {
        self.until("a worker", || {
            let pid = self.ask(&["status"])["worker"]["pid"].as_u64();
            pid.and_then(|pid| u32::try_from(pid).ok())
        })
    }

    #[track_caller]
    pub(crate) fn until<T>(&self, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
        let answer = wait::until(what, LATE, || Ok(ask()));
        answer
            .with_context(|| self.site.daemon.log().unwrap())
            .unwrap()
    }
}

/// A failed login from an address that is the peer.
pub(crate) fn failure(source: &str) -> Value {
    json!({
        "source": source, "peer": source, "method": "POST", "path": "/login",
        "account": "ann", "status": 401,
    })
}

fn text(scratch: &Scratch, edge: &str, decide: &str, rules: &str) -> String {
    let [api, feedback, nginx] = ["api.sock", "feedback.sock", "nginx.sock"].map(|name| {
        let path = scratch.path(name);
        format!("unix:{}", path.display())
    });
    let nginx = nginx.trim_start_matches("unix:");
    let feedback = match decide.contains("feedback = ") {
        true => String::new(),
        false => {
            format!("feedback = [{feedback:?}, {{ unix = {nginx:?}, format = \"nginx-json\" }}]")
        }
    };
    format!("{edge}\n[decide]\napi = {api:?}\n{feedback}\n{decide}\n{rules}")
}

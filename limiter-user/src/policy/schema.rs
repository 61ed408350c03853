//! Every key that a policy may have: the one table behind unknown-key errors
//! and the test of the documentation.

#[cfg(test)]
use std::iter;

use super::diagnostic::quote;
use super::units::Problem;

/// The keys of one table of the file.
pub(super) struct Schema {
    keys: &'static [Key],
}

struct Key {
    name: &'static str,
    holds: Holds,
}

/// What stands behind a key.
#[derive(Clone, Copy)]
enum Holds {
    Value,
    Table(&'static Schema),
}

const fn value(name: &'static str) -> Key {
    let holds = Holds::Value;
    Key { name, holds }
}

const fn table(name: &'static str, schema: &'static Schema) -> Key {
    let holds = Holds::Table(schema);
    Key { name, holds }
}

pub(super) static ROOT: Schema = Schema {
    keys: &[
        table("edge", &EDGE),
        table("metrics", &METRICS),
        table("control", &CONTROL),
        table("state", &STATE),
        table("decide", &DECIDE),
        table("rule", &RULE),
        table("notify", &NOTIFY),
    ],
};

static EDGE: Schema = Schema {
    keys: &[
        value("interfaces"),
        value("mode"),
        value("enforce"),
        value("on_exit"),
        value("ipv4_prefix"),
        value("ipv6_prefix"),
        value("sources"),
        value("unparsed"),
        value("allow"),
        value("deny"),
        value("allow_files"),
        value("deny_files"),
        table("safety", &SAFETY),
        table("tables", &TABLES),
        table("limit", &LIMIT),
        table("flood", &FLOOD),
    ],
};

static SAFETY: Schema = Schema {
    keys: &[value("ssh_ports"), value("control_traffic")],
};

static TABLES: Schema = Schema {
    keys: &[
        value("blocks_operator"),
        value("blocks_rule"),
        value("blocks_kernel"),
        value("lists"),
        value("interfaces"),
        value("recent"),
    ],
};

static FLOOD: Schema = Schema {
    keys: &[
        value("new_sources"),
        table("unknown", &UNKNOWN),
        table("aggregate", &AGGREGATE),
    ],
};

static UNKNOWN: Schema = Schema {
    keys: &[table("packets", &BUCKET), table("connections", &BUCKET)],
};

static AGGREGATE: Schema = Schema {
    keys: &[value("ipv4"), value("ipv6")],
};

static LIMIT: Schema = Schema {
    keys: &[
        value("name"),
        value("protocol"),
        value("ports"),
        value("to"),
        table("packets", &BUCKET),
        table("bytes", &BUCKET),
        table("connections", &BUCKET),
        table("exceed", &EXCEED),
        value("from"),
        table("total", &TOTAL),
    ],
};

static BUCKET: Schema = Schema {
    keys: &[value("rate"), value("burst")],
};

static TOTAL: Schema = Schema {
    keys: &[
        table("packets", &BUCKET),
        table("bytes", &BUCKET),
        table("connections", &BUCKET),
    ],
};

static EXCEED: Schema = Schema {
    keys: &[value("block")],
};

static DECIDE: Schema = Schema {
    keys: &[
        value("listen"),
        value("spoe"),
        table("api", &API),
        value("group"),
        table("feedback", &FEEDBACK),
        table("logs", &LOGS),
        value("trusted_proxies"),
        value("client_header"),
        value("local_proxy"),
        value("exempt"),
        value("enforce"),
        table("accounts", &ACCOUNTS),
        table("challenge", &CHALLENGE),
    ],
};

static CHALLENGE: Schema = Schema {
    keys: &[
        value("solve_within"),
        value("clearance"),
        value("contact"),
        value("keys"),
        value("rotate"),
        table("captcha", &CAPTCHA),
    ],
};

static CAPTCHA: Schema = Schema {
    keys: &[
        value("provider"),
        value("site_key"),
        value("secret_file"),
        value("verify_url"),
        value("script_url"),
        value("timeout"),
        value("on_failure"),
        value("score"),
        value("send_address"),
    ],
};

static API: Schema = Schema {
    keys: &[value("listen"), value("token_file")],
};

static FEEDBACK: Schema = Schema {
    keys: &[
        value("unix"),
        value("udp"),
        value("from"),
        value("format"),
        table("fields", &FIELDS),
        value("direct"),
    ],
};

static LOGS: Schema = Schema {
    keys: &[
        value("path"),
        value("format"),
        table("fields", &FIELDS),
        value("direct"),
        value("asked"),
    ],
};

static FIELDS: Schema = Schema {
    keys: &[
        value("at"),
        value("id"),
        value("source"),
        value("peer"),
        value("method"),
        value("host"),
        value("path"),
        value("status"),
        value("account"),
        value("backend"),
        value("outcome"),
        value("headers"),
        value("response_headers"),
        value("request"),
    ],
};

static ACCOUNTS: Schema = Schema {
    keys: &[
        value("from"),
        value("nfkc"),
        value("ignore_case"),
        value("trim"),
        value("owner_header"),
    ],
};

static RULE: Schema = Schema {
    keys: &[
        value("name"),
        value("requests"),
        value("hosts"),
        value("backends"),
        value("from"),
        table("count", &COUNT),
        value("ignore_case"),
        table("failure", &OUTCOME),
        table("success", &OUTCOME),
        value("key"),
        value("absent"),
        value("ipv4_prefix"),
        value("ipv6_prefix"),
        value("except"),
        table("tiers", &TIER),
        table("ladder", &TIER),
        value("ladder_decay"),
        value("limit"),
        value("period"),
        value("exceeds"),
        value("algorithm"),
        value("rate"),
        value("burst"),
        value("delay"),
        value("action"),
        value("wait"),
        value("for"),
        value("then"),
        value("simulate"),
        value("notify"),
        value("difficulty"),
        value("penalty"),
        value("timeout"),
        value("memory"),
        value("faithful"),
        value("jitter"),
        value("on_success"),
        value("reserve"),
        value("count_refused"),
        value("apply"),
        value("shared"),
        value("block_limit"),
        value("clears"),
        value("tracked"),
        value("blocked"),
        value("keys_per_source"),
        table("response", &RESPONSE),
    ],
};

static COUNT: Schema = Schema {
    keys: &[
        value("statuses"),
        table("response_header", &HEADER),
        value("score_header"),
        value("distinct"),
    ],
};

static OUTCOME: Schema = Schema {
    keys: &[
        value("statuses"),
        value("location"),
        table("response_header", &HEADER),
    ],
};

static HEADER: Schema = Schema {
    keys: &[value("name"), value("value")],
};

static TIER: Schema = Schema {
    keys: &[
        value("limit"),
        value("period"),
        value("exceeds"),
        value("algorithm"),
        value("rate"),
        value("burst"),
        value("delay"),
        value("action"),
        value("wait"),
        value("for"),
        value("then"),
        value("simulate"),
        value("notify"),
        value("difficulty"),
    ],
};

static RESPONSE: Schema = Schema {
    keys: &[value("status"), value("headers"), value("body")],
};

static METRICS: Schema = Schema {
    keys: &[value("listen")],
};

static CONTROL: Schema = Schema {
    keys: &[value("socket"), value("group"), value("read_group")],
};

static STATE: Schema = Schema {
    keys: &[
        value("audit_size"),
        value("directory"),
        value("pins"),
        value("retention"),
    ],
};

static NOTIFY: Schema = Schema {
    keys: &[
        table("smtp", &SMTP),
        table("webhook", &WEBHOOK),
        value("to"),
        value("per_hour"),
        value("accounts"),
        value("language"),
        table("templates", &TEMPLATES),
        value("ca_file"),
    ],
};

static SMTP: Schema = Schema {
    keys: &[
        value("server"),
        value("from"),
        value("tls"),
        value("user"),
        value("password_file"),
    ],
};

static WEBHOOK: Schema = Schema {
    keys: &[value("url"), value("secret_file")],
};

static TEMPLATES: Schema = Schema {
    keys: &[value("rung"), value("flood_begun"), value("flood_over")],
};

impl Schema {
    /// Why `name` may not stand in this table, or nothing.
    pub(super) fn refuses(&self, name: &str) -> Option<Problem> {
        let is_known = self.keys.iter().any(|key| key.name == name);
        (!is_known).then(|| {
            Problem::new(
                format!("unknown key {}", quote(name)),
                suggest(name, self.allowed(), "here"),
            )
        })
    }

    /// The keys of the table behind `name`; none where `name` holds a value.
    pub(super) fn child(&self, name: &str) -> &'static Schema {
        static NONE: Schema = Schema { keys: &[] };
        let found = self.keys.iter().find(|key| key.name == name);
        match found.map(|key| key.holds) {
            Some(Holds::Table(schema)) => schema,
            _ => &NONE,
        }
    }

    pub(super) fn allowed(&self) -> impl Iterator<Item = &'static str> + Clone {
        self.keys.iter().map(|key| key.name)
    }

    /// The dotted path of every key below, tables included.
    #[cfg(test)]
    pub(super) fn paths(&self) -> Vec<String> {
        let below = |key: &Key| {
            let inner = match key.holds {
                Holds::Table(schema) => schema.paths(),
                Holds::Value => Vec::new(),
            };
            let inner = inner
                .into_iter()
                .map(move |path| format!("{}.{path}", key.name));
            iter::once(key.name.to_owned())
                .chain(inner)
                .collect::<Vec<_>>()
        };
        self.keys.iter().flat_map(below).collect()
    }
}

/// `did you mean …? allowed …: a, b, c`, the guess only where it is close.
pub(super) fn suggest<'a>(
    given: &str,
    allowed: impl Iterator<Item = &'a str> + Clone,
    place: &str,
) -> String {
    // Edit distance costs the product of the lengths: a key of a megabyte
    // resembles nothing anyway.
    let nearest = (given.len() <= 64)
        .then(|| {
            allowed
                .clone()
                .map(|name| (strsim::damerau_levenshtein(given, name), name))
                .filter(|(distance, name)| *distance <= (name.len() / 3).max(1))
                .min()
        })
        .flatten();
    let guess = nearest.map_or(String::new(), |(_, name)| {
        format!("did you mean `{name}`? ")
    });
    let names: Vec<&str> = allowed.collect();
    let space = if place.is_empty() { "" } else { " " };
    format!("{guess}allowed{space}{place}: {}", names.join(", "))
}

//! What is probably wrong with an origin.

use std::collections::BTreeSet;
use std::fmt::{self, Display};

use serde::{Deserialize, Serialize};

use super::needs::needs;
use super::{CHECK, ENOUGH, Row, SPOE, feedback_name, log_name};
use crate::policy::{Decide, Rule};

/// So many lines in a row that are not understood are no accident.
const MISREAD: u64 = 20;

/// From so many events in so long a time on it is remarkable that all are of one
/// source.
const MANY: u64 = 1_000;
const LONG_NS: u64 = 5 * 60 * 1_000_000_000;

/// For so long it is said that somebody asked who may not: what was mended is to be seen.
const STRANGERS_NS: u64 = 3_600 * 1_000_000_000;

/// Something that is probably wrong. `Display` is one line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// What it is about; there is one warning of each.
    pub about: About,
    /// What is seen.
    pub text: String,
    /// What to do.
    pub help: String,
}

/// What a warning is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum About {
    /// A format that understands nothing of this origin.
    Format {
        /// Which.
        origin: String,
    },
    /// A log of which a part was not read.
    Missed {
        /// Which.
        origin: String,
    },
    /// An origin all events of which are of one source.
    OneSource {
        /// Which.
        origin: String,
    },
    /// A port at which somebody asks who may not.
    Strangers {
        /// Which.
        origin: String,
    },
    /// A part of a rule's key that an origin never gives.
    Key {
        /// The origin.
        origin: String,
        /// The rule.
        rule: String,
        /// The part.
        part: String,
    },
    /// Something that a rule needs and no format tells.
    Untold {
        /// The rule.
        rule: String,
        /// What, in words.
        what: String,
    },
}

impl Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.text, self.help)
    }
}

/// What is probably wrong with origins under a policy. `now_ns` is nanoseconds since
/// the Unix epoch.
#[must_use]
pub fn warnings(decide: &Decide, rows: &[Row], now_ns: u64) -> Vec<Warning> {
    let of_row = |row| {
        format(row)
            .into_iter()
            .chain(missed(row))
            .chain(one_source(decide, row, now_ns))
            .chain(strangers(row, now_ns))
    };
    let mut all: Vec<Warning> = rows.iter().flat_map(of_row).collect();
    all.extend(keys(rows));
    // Applications can tell all that there is to tell; who only asks cannot.
    let is_told = |row: &Row| row.format.is_none() && row.name != CHECK && row.understood > 0;
    if !rows.iter().any(is_told) {
        all.extend(decide.rules.iter().flat_map(|rule| untold(decide, rule)));
    }
    all
}

fn format(row: &Row) -> Option<Warning> {
    if row.misread_in_a_row < MISREAD {
        return None;
    }
    let (name, count) = (&row.name, row.misread_in_a_row);
    let sample = row.sample.as_deref().unwrap_or("");
    let about = About::Format {
        origin: name.clone(),
    };
    let Some(format) = &row.format else {
        return Some(Warning {
            about,
            text: format!("{name}: {count} in a row are no events, the last: {sample}"),
            help: "correct what the application sends; its answers say the same".to_owned(),
        });
    };
    Some(Warning {
        about,
        text: format!(
            "{name}: {count} in a row are not of the format {format}, the last: {sample}"
        ),
        help: "give it the format that its server writes (`limiter explain --events FILE --format \
               FORMAT` tries one), or change what the server writes"
            .to_owned(),
    })
}

fn missed(row: &Row) -> Option<Warning> {
    let (name, why) = (&row.name, row.missed.as_ref()?);
    Some(Warning {
        about: About::Missed {
            origin: name.clone(),
        },
        text: format!(
            "{name}: the file that was read last was rotated while nobody read it, and what was \
             written to it since is not counted: {why}"
        ),
        help:
            "let rotation leave it beside the log under a name that begins alike, and compress it \
               later (logrotate: `delaycompress`, no `olddir` and no `copytruncate`)"
                .to_owned(),
    })
}

fn one_source(decide: &Decide, row: &Row, now_ns: u64) -> Option<Warning> {
    let one = row.source?;
    let long = now_ns.min(one.last_ns).saturating_sub(one.first_ns);
    if one.events < MANY || long < LONG_NS {
        return None;
    }
    let (name, events, source) = (&row.name, one.events, one.source);
    let is_proxy = decide.trusted_proxies.iter().any(|it| it.contains(&source));
    let header = &decide.client_header;
    let help = if is_proxy {
        format!(
            "it is one of trusted_proxies, and names no client in {header}: let it be sent and told \
             (decide.client_header), or let the server put the client there (nginx: set_real_ip_from)"
        )
    } else {
        "if it is a proxy, add it to decide.trusted_proxies and let its header be told, or let the \
         server put the client there (nginx: set_real_ip_from)"
            .to_owned()
    };
    Some(Warning {
        about: About::OneSource {
            origin: name.clone(),
        },
        text: format!("{name}: all {events} events are of {source}"),
        help,
    })
}

fn strangers(row: &Row, now_ns: u64) -> Option<Warning> {
    let is_recent = now_ns.saturating_sub(row.forged_ns?) < STRANGERS_NS;
    if !is_recent || !matches!(&*row.name, CHECK | SPOE) {
        return None;
    }
    Some(Warning {
        about: About::Strangers {
            origin: row.name.clone(),
        },
        text: format!(
            "{}: somebody has asked within the hour who may not, and was not heard",
            row.name
        ),
        help:
            "if it is the proxy, name it in decide.trusted_proxies, or at a Unix socket let it be \
               a member of decide.group; the log names who it was"
                .to_owned(),
    })
}

/// Parts of keys that no origin gives, of those that have had the chance.
fn keys(rows: &[Row]) -> Vec<Warning> {
    let is_given = |rule: &str, part: &str| {
        let mut all = rows.iter().flat_map(|row| &row.keys);
        all.any(|key| key.given && key.rule == rule && key.part == part)
    };
    let of_row = |row: &Row| -> Vec<Warning> {
        let lacking = row.keys.iter().filter(|key| !key.given);
        let lacking = lacking.filter(|key| key.selected >= ENOUGH);
        lacking
            .filter(|key| !is_given(&key.rule, &key.part))
            .map(|key| Warning {
                about: About::Key {
                    origin: row.name.clone(),
                    rule: key.rule.clone(),
                    part: key.part.clone(),
                },
                text: format!(
                    "rule {}: {} events that it selects came from {}, and none had its key's `{}`: \
                     they are not counted",
                    key.rule, key.selected, row.name, key.part
                ),
                help: help_for(&key.part).to_owned(),
            })
            .collect()
    };
    rows.iter().flat_map(of_row).collect()
}

fn help_for(part: &str) -> &'static str {
    match part {
        "account" => {
            "let it be told, say where it stands (decide.accounts.from), or let the application \
             report"
        }
        "peer" => "let it be told, or say `direct = true` where no proxy stands before the server",
        _ => "let it be told, or take it out of the key",
    }
}

/// What a rule needs and none of the formats can tell.
fn untold(decide: &Decide, rule: &Rule) -> Vec<Warning> {
    let feedback = decide.feedback.iter();
    let feedback = feedback.map(|it| (feedback_name(it), &it.format, it.direct));
    let logs = decide.logs.iter();
    let logs = logs.map(|it| (log_name(it), &it.format, it.direct));
    let origins: Vec<_> = feedback.chain(logs).collect();
    if origins.is_empty() {
        return Vec::new();
    }
    let names: Vec<String> = origins
        .iter()
        .map(|(name, format, _)| format!("{name} ({format})"))
        .collect();
    let missing = needs(rule, &decide.accounts).into_iter().filter(|need| {
        let mut formats = origins.iter();
        !formats.any(|(_, format, direct)| need.is_told_by(format, *direct))
    });
    missing
        .map(|need| Warning {
            about: About::Untold {
                rule: rule.name.clone(),
                what: need.words.clone(),
            },
            text: format!(
                "rule {} needs {}, which none of {} tells, and no application has asked or reported",
                rule.name,
                need.words,
                names.join(", ")
            ),
            help: "use a format that tells it (the manual has a table of them), or let the application \
                   report"
                .to_owned(),
        })
        .collect()
}

/// Which warnings the log has.
#[derive(Debug, Default)]
pub struct Told(BTreeSet<About>);

impl Told {
    /// Those that the log does not have yet; from now on it does. None comes twice,
    /// since clients can bring some of them about.
    pub fn news<'a>(&mut self, warnings: &'a [Warning]) -> Vec<&'a Warning> {
        let told = &mut self.0;
        let is_new = |warning: &&Warning| told.insert(warning.about.clone());
        warnings.iter().filter(is_new).collect()
    }
}

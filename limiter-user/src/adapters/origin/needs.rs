//! What rules ask of events: what a format cannot tell, and what an origin never
//! told.

use crate::engine::account;
use crate::event::formats::{Format, Part};
use crate::event::{Event, path};
use crate::policy::{Absent, AccountPlace, Accounts, Count, Decide, KeyPart, OutcomePattern, Rule};

/// A part of a rule's key that an event may lack.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) rule: Rule,
    pub(super) part: KeyPart,
}

/// The parts of keys that the rules of a policy want.
#[derive(Debug, Default)]
pub(crate) struct Wants {
    pub(super) wanted: Vec<Wanted>,
    rules: Vec<Rule>,
    accounts: Option<Accounts>,
}

impl Wants {
    /// Whether any rule has a say about requests of a method and a target, as sent.
    pub(crate) fn asks(&self, method: Option<&str>, target: Option<&str>) -> bool {
        let normal;
        let path = match target.map(|target| (path::plain(target), target)) {
            Some((None, target)) => {
                normal = path::normalise(target);
                Some(normal.as_str())
            }
            Some((plain, _)) => plain,
            None => None,
        };
        self.rules.iter().any(|rule| rule.applies(method, path))
    }

    pub(super) fn of(decide: &Decide) -> Self {
        let of_rule = |rule: &Rule| {
            let parts = rule.key.clone().into_iter();
            let can_lack = |part: &KeyPart| *part != KeyPart::Source;
            let rule = rule.clone();
            let wanted = move |part| Wanted {
                rule: rule.clone(),
                part,
            };
            parts.filter(can_lack).map(wanted)
        };
        let strict = decide.rules.iter();
        let strict = strict.filter(|rule| rule.absent == Absent::Skip);
        Self {
            wanted: strict.flat_map(of_rule).collect(),
            rules: decide.rules.clone(),
            accounts: Some(decide.accounts.clone()),
        }
    }

    /// Whether an event has a part of a key.
    pub(super) fn has(&self, event: &Event, part: &KeyPart) -> bool {
        match part {
            KeyPart::Source => true,
            KeyPart::Peer => event.peer.is_some(),
            KeyPart::Account => match &self.accounts {
                Some(accounts) => {
                    let named = account::find(accounts, event);
                    named.account.is_some() || named.claimed.is_some()
                }
                None => event.account.is_some(),
            },
            KeyPart::Method => event.method.is_some(),
            KeyPart::Path => event.path.is_some(),
            KeyPart::Host => event.host.is_some(),
            KeyPart::Header(name) => account::header(&event.headers, name).is_some(),
            KeyPart::Cookie(name) => account::cookie(event, name).is_some(),
            KeyPart::Query(name) => {
                let path = event.path.as_deref();
                path.and_then(|path| account::query(path, name)).is_some()
            }
        }
    }
}

impl Wanted {
    /// Whether the rule selects an event whose path is `path`, normalised.
    pub(super) fn is_selected(&self, event: &Event, path: Option<&str>) -> bool {
        let host = event.host.as_deref().map(str::to_ascii_lowercase);
        self.rule.selects(event.method.as_deref(), path)
            && self.rule.selects_host(host.as_deref())
            && self.rule.selects_backend(event.backend.as_deref())
    }
}

/// What a rule cannot do without, in words, and what has to be told for it: all
/// parts of one of the alternatives.
#[derive(Debug)]
pub(super) struct Need {
    pub(super) words: String,
    alternatives: Vec<Vec<Part>>,
}

impl Need {
    fn one(words: impl Into<String>, part: Part) -> Self {
        Self::any(words, vec![vec![part]])
    }

    fn any(words: impl Into<String>, alternatives: Vec<Vec<Part>>) -> Self {
        Self {
            words: words.into(),
            alternatives,
        }
    }

    /// Whether a format tells it.
    pub(super) fn is_told_by(&self, format: &Format, direct: bool) -> bool {
        let tells = |part: &Part| format.tells(*part) || (direct && *part == Part::Peer);
        self.alternatives
            .iter()
            .any(|parts| parts.iter().all(tells))
    }
}

/// All that a rule cannot do without.
pub(super) fn needs(rule: &Rule, accounts: &Accounts) -> Vec<Need> {
    let mut needs = Vec::new();
    if rule.absent == Absent::Skip {
        needs.extend(rule.key.iter().filter_map(|part| of_key(part, accounts)));
    }
    if !rule.requests.is_empty() {
        needs.push(Need::one("a path", Part::Request));
    }
    if !rule.hosts.is_empty() {
        needs.push(Need::one("a host", Part::Host));
    }
    if !rule.backends.is_empty() {
        needs.push(Need::one("a backend", Part::Backend));
    }
    needs.extend(match &rule.count {
        Count::Requests | Count::Attempts => None,
        Count::Statuses(_) => Some(Need::one("a status", Part::Status)),
        Count::ResponseHeader(_) | Count::ScoreHeader(_) => {
            Some(Need::one("response headers", Part::ResponseHeaders))
        }
        Count::Distinct(part) => of_key(part, accounts),
        Count::Failures => Some(of_failures(rule.failure.as_ref())),
    });
    needs
}

fn of_failures(failure: Option<&OutcomePattern>) -> Need {
    let mut alternatives = vec![vec![Part::Outcome]];
    if let Some(OutcomePattern {
        statuses,
        location,
        response_header,
    }) = failure
    {
        let asks_headers = location.is_some() || response_header.is_some();
        let status = statuses.as_ref().map(|_| Part::Status);
        let headers = asks_headers.then_some(Part::ResponseHeaders);
        alternatives.push(status.into_iter().chain(headers).collect());
    }
    Need::any("what became of an attempt", alternatives)
}

fn of_key(part: &KeyPart, accounts: &Accounts) -> Option<Need> {
    let words = format!("the key's `{part}`");
    let need = match part {
        KeyPart::Source => return None,
        KeyPart::Peer => Need::one(words, Part::Peer),
        KeyPart::Method | KeyPart::Path | KeyPart::Query(_) => Need::one(words, Part::Request),
        KeyPart::Host => Need::one(words, Part::Host),
        KeyPart::Header(_) | KeyPart::Cookie(_) => Need::one(words, Part::Headers),
        KeyPart::Account => {
            let places = accounts.from.iter().map(|place| match place {
                AccountPlace::Basic | AccountPlace::Header(_) | AccountPlace::Cookie(_) => {
                    vec![Part::Headers]
                }
                AccountPlace::ResponseHeader(_) => vec![Part::ResponseHeaders],
                AccountPlace::Query(_) => vec![Part::Request],
                AccountPlace::Token { .. } => vec![Part::Headers],
                // Not by a format: by the question.
                AccountPlace::Form(_) | AccountPlace::Json(_) => vec![],
            });
            let named = std::iter::once(vec![Part::Account]);
            Need::any(words, named.chain(places).collect())
        }
    };
    Some(need)
}

//! An event as the rules see it: joined to its question, in the forms that are
//! compared.

use std::net::IpAddr;

use super::account;
use super::counting::Stage;
use super::decision::Cause;
use crate::event::{Event, Outcome, path};
use crate::policy::{Accounts, Count, Rule};

/// What was asked, for the report that is joined to it; all as the event told it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) source: IpAddr,
    pub(super) peer: Option<IpAddr>,
    pub(super) method: Option<&'a str>,
    pub(super) host: Option<&'a str>,
    pub(super) path: Option<&'a str>,
    pub(super) account: Option<&'a str>,
    pub(super) backend: Option<&'a str>,
    /// Whether it had `Authorization`; `None`: its headers are not known.
    pub(super) authorized: Option<bool>,
    /// What the application has said before.
    pub(super) outcome: Option<Outcome>,
}

/// Texts that are kept from event to event, so that none is allocated for each.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    host: String,
    path: String,
    account: String,
    claimed: String,
}

/// An event as the rules see it.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    pub(super) event: &'a Event,
    pub(super) source: IpAddr,
    pub(super) peer: Option<IpAddr>,
    pub(super) method: Option<&'a str>,
    /// In lower case, without the dot of the root.
    pub(super) host: Option<&'a str>,
    /// Normalised.
    pub(super) path: Option<&'a str>,
    /// With its query, as sent.
    pub(super) raw_path: Option<&'a str>,
    /// Normalised.
    pub(super) account: Option<&'a str>,
    /// The account that an unverified token claims, normalised; where it is known, there is
    /// no other. It is taken only beside its source: alone, a stranger could have others
    /// locked.
    pub(super) claimed: Option<&'a str>,
    /// Whether the request has an account, and nobody can tell which.
    pub(super) is_unclear: bool,
    /// The mail address of its owner, as the origin names it.
    pub(super) owner: Option<&'a str>,
    pub(super) backend: Option<&'a str>,
    /// Whether question or report had `Authorization`; `None`: neither tells its headers.
    pub(super) authorized: Option<bool>,
    /// The application's own word, whenever it came.
    pub(super) told: Option<Outcome>,
}

impl<'a> View<'a> {
    /// What the question told stands before what the report tells, but for the account and
    /// the backend, which the application knows best.
    pub(super) fn new(
        event: &'a Event,
        asked: Option<Asked<'a>>,
        accounts: &Accounts,
        scratch: &'a mut Scratch,
    ) -> Self {
        let Scratch {
            host: host_text,
            path: path_text,
            account: account_text,
            claimed: claimed_text,
        } = scratch;
        let of_question = |pick: fn(&Asked<'a>) -> Option<&'a str>| asked.as_ref().and_then(pick);
        let raw_path = of_question(|asked| asked.path).or(event.path.as_deref());
        let named = account::find(accounts, event);
        let account = match named.account {
            Some(account) => {
                account::normalise(accounts, &account, account_text);
                Some(account_text.as_str())
            }
            None => of_question(|asked| asked.account),
        };
        let claimed = named.claimed.filter(|_| account.is_none()).map(|claimed| {
            account::normalise(accounts, &claimed, claimed_text);
            claimed_text.as_str()
        });
        let source = asked.map_or(event.source, |asked| asked.source);
        let peer = asked.map_or(event.peer, |asked| asked.peer);
        let headers = &event.headers;
        let authorized =
            (!headers.is_empty()).then(|| account::header(headers, "authorization").is_some());
        Self {
            event,
            source: source.to_canonical(),
            peer: peer.map(|peer| peer.to_canonical()),
            method: of_question(|asked| asked.method).or(event.method.as_deref()),
            host: of_question(|asked| asked.host)
                .or(event.host.as_deref())
                .map(|host| lower(host, host_text)),
            path: raw_path.map(|path| normal(path, path_text)),
            raw_path,
            account,
            claimed,
            is_unclear: named.is_unclear,
            owner: account::owner(accounts, event),
            backend: event
                .backend
                .as_deref()
                .or(of_question(|asked| asked.backend)),
            authorized: authorized.max(asked.and_then(|asked| asked.authorized)),
            told: asked.and_then(|asked| asked.outcome).or(event.outcome),
        }
    }

    /// What became of the attempt: the application's own word, else what the rule's patterns
    /// make of the response.
    pub(super) fn outcome(&self, rule: &Rule) -> Option<Outcome> {
        let fits = |pattern: &Option<crate::policy::OutcomePattern>| {
            let response = &self.event.response_headers;
            pattern
                .as_ref()
                .is_some_and(|pattern| pattern.matches(self.event.status, response))
        };
        if self.told.is_some() {
            self.told
        } else if fits(&rule.failure) {
            (!self.lacks_credentials()).then_some(Outcome::Failure)
        } else if fits(&rule.success) {
            Some(Outcome::Success)
        } else {
            None
        }
    }

    /// Whether the report answers what a rule reserves for: its outcome is known, or the
    /// status is that the rule judges it by, whatever that makes of it. A rule without patterns waits
    /// for the application's own word.
    pub(super) fn settles(&self, rule: &Rule) -> bool {
        let is_answered = self.event.status.is_some();
        match rule.count {
            Count::Statuses(_) => is_answered,
            _ => {
                let judges = rule.failure.is_some() || rule.success.is_some();
                is_answered && (judges || self.lacks_credentials()) || self.outcome(rule).is_some()
            }
        }
    }

    /// A request that plainly carried no credentials, as a browser's first one: no
    /// account, no `Authorization` among headers that are known, and no body to hold them.
    fn lacks_credentials(&self) -> bool {
        let bare = matches!(self.method, Some("GET" | "HEAD" | "OPTIONS"));
        bare && self.account.is_none() && self.authorized == Some(false)
    }

    /// What an audit log wants to know of it.
    pub(super) fn cause(&self) -> Cause {
        Cause {
            source: self.source,
            account: self.account.map(short),
            path: self.path.map(short),
            status: self.event.status,
            owner: self.owner.map(Box::from),
        }
    }

    /// Whether a rule selects it. A question may not yet tell the backend, and then is
    /// one that the rule may come to select.
    pub(super) fn is_selected_by(&self, rule: &Rule, stage: Stage) -> bool {
        let may_be = stage == Stage::Question && self.backend.is_none();
        rule.selects(self.method, self.path)
            && rule.selects_host(self.host)
            && (may_be || rule.selects_backend(self.backend))
    }

    /// Whether the action of a rule applies to it. Which backend will look at it need not
    /// be known for that.
    pub(super) fn is_subject_to(&self, rule: &Rule) -> bool {
        rule.applies(self.method, self.path)
            && rule.selects_host(self.host)
            && (self.backend.is_none() || rule.selects_backend(self.backend))
    }
}

/// Bytes of a text that is written down.
const WRITTEN: usize = 512;

/// A text as it is written down: its beginning.
fn short(text: &str) -> Box<str> {
    text[..text.floor_char_boundary(WRITTEN)].into()
}

fn lower<'a>(host: &'a str, text: &'a mut String) -> &'a str {
    let host = host.strip_suffix('.').unwrap_or(host);
    if !host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return host;
    }
    text.clear();
    text.push_str(host);
    text.make_ascii_lowercase();
    text
}

fn normal<'a>(path: &'a str, text: &'a mut String) -> &'a str {
    path::plain(path).unwrap_or_else(|| {
        *text = path::normalise(path);
        text
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_short_way_to_the_normal_form_gives_the_same(path in "[/.%a-cA2E?# ]{0,12}|\\PC{0,9}") {
            let mut text = String::new();
            prop_assert_eq!(normal(&path, &mut text), path::normalise(&path));
        }
    }
}

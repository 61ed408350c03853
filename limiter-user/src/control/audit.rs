//! `/v1/audit`: questions to the audit log, and accounts that are to be forgotten.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hyper::StatusCode;
use ipnet::IpNet;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::Semaphore;

use super::access::Right;
use super::api::{EraseOrder, Erased, Refusal};
use super::routes::{Parameters, bad};
use super::server::stopped;
use crate::engine::normalised_account;
use crate::keeper::{By, Handle, Now, Stopped};
use crate::policy::units::parse_duration;
use crate::policy::{Accounts, Action, parse_network};
use crate::store::audit::{
    ACTIONS, Answer, AuditError, Cursor, FIELDS, Field, Filter, KINDS, Kind, Reader, Wanted,
    is_behind,
};

/// Rows in an answer unless the question says how many, and at most.
const ROWS: (usize, usize) = (100, 10_000);

/// Values in an answer unless the question says how many, and at most.
const VALUES: (usize, usize) = (20, 1_000);

/// How long an answer may take.
const WITHIN: Duration = Duration::from_secs(30);

/// Questions at once: each reads what it can.
const QUESTIONS: usize = 2;

/// How long a question waits for those before it.
const TURN: Duration = Duration::from_secs(20);

/// How long an answer waits for an account to be forgotten.
const ERASED: Duration = Duration::from_secs(50);

/// A question, as it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    account: Option<String>,
    source: Option<IpNet>,
    rule: Option<String>,
    action: Option<Action>,
    kind: Option<Kind>,
    since: Option<Moment>,
    until: Option<Moment>,
    wanted: Wanted,
}

/// A time, as it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    Ago(Duration),
    At(SystemTime),
}

impl Moment {
    fn read(text: &str) -> Result<Self, Refusal> {
        let ago = match parse_duration(text) {
            Ok(ago) => return Ok(Self::Ago(ago)),
            Err(problem) => problem,
        };
        let seconds = match OffsetDateTime::parse(text, &Rfc3339) {
            // What is before 1970 is as early as can be.
            Ok(moment) => Some(u64::try_from(moment.unix_timestamp()).unwrap_or(0)),
            Err(_) => text.parse().ok(),
        };
        let at = seconds.map(Duration::from_secs);
        let at = at.and_then(|at| SystemTime::UNIX_EPOCH.checked_add(at));
        at.map(Self::At).ok_or_else(|| {
            let help = "write how long ago, as 7d (s, m, h or d), or when, as \
                 2026-11-22T18:00:00Z or Unix seconds";
            bad(ago.message, help)
        })
    }

    fn before(self, now: SystemTime) -> SystemTime {
        match self {
            Self::At(at) => at,
            Self::Ago(ago) => {
                let earliest = SystemTime::UNIX_EPOCH;
                now.checked_sub(ago).unwrap_or(earliest).max(earliest)
            }
        }
    }
}

impl Asked {
    /// The question of these parameters, for those who have no daemon to ask.
    pub(crate) fn of(parameters: &[(&str, &str)]) -> Result<Self, Refusal> {
        let mut parameters = Parameters::of_pairs(parameters);
        let asked = Self::read(&mut parameters)?;
        parameters.none_left()?;
        Ok(asked)
    }

    /// Takes a question out of the parameters of a request.
    pub(super) fn read(parameters: &mut Parameters) -> Result<Self, Refusal> {
        let network =
            |text: &str| parse_network(text).map_err(|problem| bad(problem.message, problem.help));
        Ok(Self {
            account: parameters.take("account"),
            source: parameters.read("source", network)?,
            rule: parameters.take("rule"),
            action: parameters.read("action", |text| {
                one_of(text, ACTIONS, Action::name, "an action")
            })?,
            kind: parameters.read("kind", |text| {
                one_of(text, KINDS, Kind::name, "a kind of row")
            })?,
            since: parameters.read("since", Moment::read)?,
            until: parameters.read("until", Moment::read)?,
            wanted: wanted(parameters)?,
        })
    }

    /// What whoever asks this must be allowed to do. Whose login something was is nothing
    /// for everybody who may look.
    pub(super) fn needs(&self) -> Right {
        let is_about_accounts =
            self.account.is_some() || matches!(self.wanted, Wanted::Top(Field::Account, _));
        match self.wanted {
            Wanted::Rows(..) => Right::Change,
            Wanted::Count | Wanted::Top(..) if is_about_accounts => Right::Change,
            Wanted::Count | Wanted::Top(..) => Right::Look,
        }
    }

    /// Answers from a log; `accounts`: how they are compared.
    pub(crate) fn answer(
        &self,
        reader: &mut Reader,
        accounts: Option<&Accounts>,
        now: SystemTime,
    ) -> Result<Answer, AuditError> {
        let account = self.account.as_deref();
        let filter = Filter {
            account: account.map(|account| normalised_account(accounts, account)),
            source: self.source,
            rule: self.rule.clone(),
            action: self.action,
            kind: self.kind,
            since: self.since.map(|since| since.before(now)),
            until: self.until.map(|until| until.before(now)),
        };
        reader.answer(&filter, self.wanted)
    }
}

fn wanted(parameters: &mut Parameters) -> Result<Wanted, Refusal> {
    let by = parameters.read("by", |text| one_of(text, FIELDS, Field::name, "a field"))?;
    let is_count = parameters.flag("count")?;
    let (before, after) = (parameters.row("before")?, parameters.row("after")?);
    if let Some(by) = by {
        return Ok(Wanted::Top(by, parameters.most(VALUES)?));
    }
    if is_count {
        return Ok(Wanted::Count);
    }
    let cursor = match (before, after) {
        (Some(_), Some(_)) => {
            let detail = "`before` and `after` exclude each other";
            return Err(bad(detail, "`before` goes back in time, `after` forward"));
        }
        (_, Some(after)) => Cursor::After(after),
        (before, None) => Cursor::Before(before.unwrap_or(i64::MAX)),
    };
    Ok(Wanted::Rows(cursor, parameters.most(ROWS)?))
}

/// The value of this name.
fn one_of<T: Copy, const N: usize>(
    text: &str,
    values: [T; N],
    name: impl Fn(T) -> &'static str,
    what: &str,
) -> Result<T, Refusal> {
    let found = values.into_iter().find(|value| name(*value) == text);
    found.ok_or_else(|| {
        let names = values.map(name).join(", ");
        bad(
            format!("`{text}` is not {what}"),
            format!("allowed: {names}"),
        )
    })
}

impl Parameters {
    fn read<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&str) -> Result<T, Refusal>,
    ) -> Result<Option<T>, Refusal> {
        let value = self.take(name).map(|text| read(&text));
        let value = value.transpose();
        value.map_err(|refusal| refusal.at(format!("parameter {name}")))
    }

    fn row(&mut self, name: &str) -> Result<Option<i64>, Refusal> {
        self.read(name, |text| {
            text.parse().map_err(|_| {
                let detail = format!("`{text}` is no number of a row");
                bad(detail, "`id` of a row, or `next` of an answer, is one")
            })
        })
    }

    fn most(&mut self, (default, most): (usize, usize)) -> Result<usize, Refusal> {
        let limit = self.read("limit", |text| {
            let number = text.parse().ok().filter(|it| (1..=most).contains(it));
            number.ok_or_else(|| {
                let detail = format!("`{text}` cannot be listed at once");
                bad(detail, format!("allowed: 1 to {most}"))
            })
        })?;
        Ok(limit.unwrap_or(default))
    }
}

/// Questions at once.
pub(super) fn places() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(QUESTIONS))
}

/// Answers on a thread of its own, over a connection that only reads.
pub(super) async fn answer(
    keeper: &Handle,
    places: &Arc<Semaphore>,
    asked: Asked,
    now: Now,
) -> Result<Answer, Refusal> {
    let place = tokio::time::timeout(TURN, Arc::clone(places).acquire_owned()).await;
    let Ok(Ok(place)) = place else {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        let detail = "others are asking the audit log";
        return Err(Refusal::new(status, detail, "try again when they are done"));
    };
    let found = keeper.ask(|keeper| keeper.audit_place()).await;
    let (directory, accounts) = found.map_err(stopped)?;
    let answered = tokio::task::spawn_blocking(move || {
        let _place = place;
        if is_behind(&directory) {
            return Err(AuditError::Behind);
        }
        let mut reader = Reader::open(&directory, WITHIN)?;
        asked.answer(&mut reader, accounts.as_ref(), now.wall)
    });
    let answered = answered.await.map_err(|_| stopped(Stopped))?;
    answered.map_err(|error| {
        let status = match error {
            AuditError::None(_) => StatusCode::NOT_FOUND,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        Refusal::new(status, error.to_string(), "")
    })
}

/// The body of an order to forget an account.
pub(super) fn erase_order(body: &[u8]) -> Result<EraseOrder, Refusal> {
    serde_json::from_slice(body).map_err(|error| {
        let help = r#"send {"account": "…"}"#;
        bad(format!("the body is not what is asked for: {error}"), help).at("body")
    })
}

/// Has an account forgotten, and waits until it is.
pub(super) async fn erase(keeper: &Handle, order: EraseOrder, by: By) -> Result<Erased, Refusal> {
    let begun = keeper.ask(move |keeper| keeper.erase_account(&order.account, by, Now::read()));
    let erased = begun.await.map_err(stopped)?;
    let not_yet =
        |detail: String, help: &str| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, detail, help);
    match tokio::time::timeout(ERASED, erased).await {
        Ok(Ok(Ok(rows))) => Ok(Erased { rows }),
        Ok(Ok(Err(cause))) => Err(not_yet(format!("the account is not erased: {cause}"), "")),
        Ok(Err(_)) => Err(stopped(Stopped)),
        Err(_) => {
            let seconds = ERASED.as_secs();
            let detail = format!("the account is not erased after {seconds} s; that goes on");
            Err(not_yet(
                detail,
                "give the order again to learn when it is done",
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(query: &str) -> Result<Asked, Refusal> {
        let pairs: Vec<(&str, &str)> = query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .collect();
        Asked::of(&pairs)
    }

    #[test]
    fn questions() {
        let all = asked("").unwrap();
        assert_eq!(all.wanted, Wanted::Rows(Cursor::Before(i64::MAX), 100));
        let found = asked("by=path&action=reject&limit=7&source=192.0.2.0/24").unwrap();
        assert_eq!(found.wanted, Wanted::Top(Field::Path, 7));
        assert_eq!(found.action, Some(Action::Reject));
        assert_eq!(asked("count=true").unwrap().wanted, Wanted::Count);
        let after = asked("after=7&kind=hand").unwrap();
        assert_eq!(after.wanted, Wanted::Rows(Cursor::After(7), 100));
        for (wrong, words) in [
            ("action=ban", "allowed: throttle, js_challenge"),
            ("by=user", "allowed: source, account, path"),
            ("kind=x", "allowed: counted"),
            ("source=nowhere", ""),
            ("limit=0", "allowed: 1 to 10000"),
            ("limit=10001", "allowed: 1 to 10000"),
            ("by=rule&limit=1001", "allowed: 1 to 1000"),
            ("count=maybe", "?count=true"),
            ("before=x", "`next` of an answer"),
            ("before=1&after=2", "back in time"),
            ("since=yesterday", "as 7d"),
            ("colour=red", "take it away"),
        ] {
            let refusal = asked(wrong).unwrap_err();
            assert_eq!(refusal.status, 400, "{wrong}");
            assert!(refusal.help.contains(words), "{wrong}: {refusal:?}");
        }
    }

    #[test]
    fn times_are_durations_or_moments() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let read = |text: &str| {
            let moment = Moment::read(text).unwrap().before(now);
            moment
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap()
                .as_secs()
        };
        for (text, seconds) in [
            ("7d", 1_700_000_000 - 7 * 86_400),
            ("1h", 1_700_000_000 - 3_600),
            ("100000d", 0),
            ("1600000000", 1_600_000_000),
            ("2023-11-14T22:13:20Z", 1_700_000_000),
            ("2023-11-14T23:13:20+01:00", 1_700_000_000),
            ("1969-12-31T00:00:00Z", 0),
            ("9999-12-31T23:59:59Z", 253_402_300_799),
        ] {
            assert_eq!(read(text), seconds, "{text}");
        }
        for text in [
            "",
            "-7d",
            "18446744073709551615",
            "2026-13-01T00:00:00Z",
            "7",
        ] {
            let read = Moment::read(text);
            assert_eq!(read.is_err(), text != "7", "{text}: {read:?}");
        }
    }

    /// Whoever may only look learns of no account.
    #[test]
    fn accounts_are_for_those_who_may_change_things() {
        for (query, right) in [
            ("", Right::Change),
            ("by=account", Right::Change),
            ("count=true&account=ann", Right::Change),
            ("by=source&account=ann", Right::Change),
            ("count=true", Right::Look),
            ("by=path&action=reject", Right::Look),
        ] {
            assert_eq!(asked(query).unwrap().needs(), right, "{query}");
        }
    }
}

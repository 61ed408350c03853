//! What is asked and ordered of the rules: the keeper knows which there are, the worker
//! what they hold.

use std::net::IpAddr;
use std::time::Duration;

use hyper::StatusCode;
use ipnet::IpNet;
use serde::de::DeserializeOwned;

use super::api::{
    AccountRows, BlockRow, Changed, Explanation, HTTP, HeldRow, HeldRows, NIC, NotifyTested,
    OriginRows, Refusal, RuleRows, Standing, Status, Unblocked,
};
use crate::engine::Mode;
use crate::keeper::{By, Handle, Now, Stopped};
use crate::policy::Action;
use crate::worker::message::Question;

/// How long a status waits for what the worker has to say.
const SOON: Duration = Duration::from_secs(1);

/// How things stand.
pub(super) async fn status(keeper: &Handle) -> Result<Status, Refusal> {
    let asked = keeper.ask(|keeper| keeper.status(Now::read()));
    let mut status = asked.await.map_err(gone)??;
    let standing = ask(keeper, Question::Standing);
    match tokio::time::timeout(SOON, standing).await {
        Ok(Ok(Standing { warnings, requests })) => {
            status.warnings = warnings;
            status.requests = requests;
        }
        _ => status.warnings = vec!["events are not heard just now".to_owned()],
    }
    Ok(status)
}

/// The rules at work, and what they have counted.
pub(super) async fn rules(keeper: &Handle) -> Result<RuleRows, Refusal> {
    ask(keeper, Question::Rules).await
}

/// Where events come from.
pub(super) async fn origins(keeper: &Handle) -> Result<OriginRows, Refusal> {
    ask(keeper, Question::Origins).await
}

/// Switches a rule.
pub(super) async fn switch(
    keeper: &Handle,
    name: String,
    mode: Mode,
    by: By,
) -> Result<Changed, Refusal> {
    let switched = keeper.ask(move |keeper| keeper.switch_rule(&name, mode, by, Now::read()));
    let mut changed = switched.await.map_err(gone)??;
    // What the worker was told comes before what it is asked.
    if ask::<()>(keeper, Question::Ping).await.is_err() {
        let notice = "events are not heard just now; the rule is switched when they are";
        changed.notices.push(notice.to_owned());
    }
    Ok(changed)
}

/// Tries the ways to tell, and waits for what the servers answer.
pub(super) async fn test_notify(keeper: &Handle, by: By) -> Result<NotifyTested, Refusal> {
    let notifier = keeper.ask(|keeper| keeper.notifier()).await.map_err(gone)?;
    tracing::info!(uid = by.uid, pid = by.pid, "notifications are tried");
    let test = move || notifier.map(|it| it.test()).unwrap_or_default();
    let tried = tokio::task::spawn_blocking(test).await.unwrap_or_default();
    if tried.is_empty() {
        let detail = "the policy has no way to notify anybody";
        let help = "add [notify] with a webhook, or with smtp and `to`, and reload";
        return Err(Refusal::new(StatusCode::CONFLICT, detail, help));
    }
    Ok(NotifyTested { tried })
}

/// What is held against an account.
pub(super) async fn account(keeper: &Handle, account: String) -> Result<AccountRows, Refusal> {
    ask(keeper, Question::Account(account)).await
}

/// Releases an account; somebody must say why.
pub(super) async fn unlock(
    keeper: &Handle,
    account: String,
    reason: String,
    by: By,
) -> Result<AccountRows, Refusal> {
    let unlocked: AccountRows = ask(keeper, Question::Unlock(account)).await?;
    let rules: Vec<String> = unlocked.held.iter().map(|row| row.rule.clone()).collect();
    let account = unlocked.account.clone();
    let note = keeper.ask(move |keeper| keeper.note_unlocked(account, &rules, reason, by));
    note.await.map_err(gone)?;
    Ok(unlocked)
}

/// What applies to a source, in the tables and by the rules.
pub(super) async fn explain(keeper: &Handle, source: String) -> Result<Explanation, Refusal> {
    let explained = keeper.ask(move |keeper| keeper.explain(&source, Now::read()));
    let mut explanation = explained.await.map_err(gone)??;
    match held(keeper, explanation.source.addr()).await {
        Ok(held) => {
            explanation.held = held;
            place(&mut explanation);
            explain_places(keeper, &mut explanation).await?;
            if !explanation.held.is_empty() {
                let more = "; its requests: what the rules hold follows";
                explanation.summary.push_str(more);
            }
        }
        // The rest is true all the same.
        Err(refusal) => explanation
            .summary
            .push_str(&format!("; {}", refusal.detail)),
    }
    Ok(explanation)
}

/// Where blocks of rules are carried out: the daemon knows it better than whoever ordered
/// them.
fn place(explanation: &mut Explanation) {
    let Explanation { held, blocks, .. } = explanation;
    for row in held.iter_mut().filter(|row| row.place.is_some()) {
        let is_its = |block: &BlockRow| {
            let rule = block.rule.as_ref();
            rule.is_some_and(|rule| rule.rule == row.rule)
        };
        let place = if blocks.iter().any(is_its) { NIC } else { HTTP };
        row.place = Some(place.to_owned());
        row.why.take_if(|_| place == NIC);
    }
}

/// Why blocks of rules are not at the NIC: what stands in their way comes before what the worker
/// takes it for.
async fn explain_places(keeper: &Handle, explanation: &mut Explanation) -> Result<(), Refusal> {
    let is_block = |row: &HeldRow| row.action.as_deref() == Some(Action::Block.name());
    let rows = explanation.held.iter_mut();
    let rows = rows.filter(|row| row.why.is_some() && is_block(row));
    let (held, rows): (Vec<(String, IpNet)>, Vec<&mut HeldRow>) = rows
        .filter_map(|row| Some(((row.rule.clone(), row.source?), row)))
        .unzip();
    if held.is_empty() {
        return Ok(());
    }
    let asked = keeper.ask(move |keeper| keeper.why_not_at_nic(&held));
    for (row, why) in rows.into_iter().zip(asked.await.map_err(gone)?) {
        if why.is_some() {
            row.why = why;
        }
    }
    Ok(())
}

async fn held(keeper: &Handle, source: IpAddr) -> Result<Vec<HeldRow>, Refusal> {
    let rows: HeldRows = ask(keeper, Question::Source(source)).await?;
    Ok(rows.held)
}

/// Ends the blocks of a network, those of rules too.
pub(super) async fn unblock(
    keeper: &Handle,
    network: String,
    limit: Option<String>,
    by: By,
) -> Result<Changed, Refusal> {
    // First: else the next event would have it blocked again.
    let (rules, missed) = match crate::policy::parse_network(&network) {
        Ok(meant) if limit.is_none() => match ask(keeper, Question::Unblock(meant)).await {
            Ok(Unblocked { rules }) => (rules, None),
            Err(refusal) => (Vec::new(), Some(refusal)),
        },
        _ => (Vec::new(), None),
    };
    let released = rules.join(", ");
    let mut dropped = "what these rules held was dropped";
    let deleted = keeper.ask(move |keeper| {
        let now = Now::read();
        let deleted = keeper.delete_block(&network, limit.as_deref(), by, now);
        let was_there = deleted.is_ok();
        let deleted = match deleted {
            Err(refusal) if refusal.status == StatusCode::NOT_FOUND && !rules.is_empty() => {
                keeper.note_released(network, &rules, by, now);
                Ok(Changed {
                    changed: 1,
                    ..Changed::default()
                })
            }
            deleted => deleted,
        };
        (deleted, was_there, keeper.receipt())
    });
    let (deleted, was_there, receipt) = deleted.await.map_err(gone)?;
    if !was_there {
        dropped = "nothing was blocked at the NIC; what these rules held, counts and blocks of requests, was dropped";
    }
    let mut changed = super::server::noted(deleted?, receipt).await;
    if !released.is_empty() {
        let notice = format!("{dropped}: {released}");
        changed.notices.push(notice);
    }
    if missed.is_some() {
        let notice = "rules could not be asked, and may have it blocked again: do this once more";
        changed.notices.push(notice.to_owned());
    }
    Ok(changed)
}

async fn ask<T: DeserializeOwned>(keeper: &Handle, question: Question) -> Result<T, Refusal> {
    let worker = keeper.ask(|keeper| keeper.worker()).await.map_err(gone)?;
    let Some(worker) = worker else {
        let detail = "no rules are at work yet";
        return Err(Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            detail,
            "try again",
        ));
    };
    let json = worker.ask(question).await?;
    serde_json::from_str(&json).map_err(|error| {
        let detail = format!("the process that hears events answers nonsense: {error}");
        let help = "this is a defect of limiter";
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, detail, help)
    })
}

fn gone(error: Stopped) -> Refusal {
    super::server::stopped(error)
}

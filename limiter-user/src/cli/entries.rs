//! `block`, `allow`, `deny`: the same verbs.

use super::args::{Add, BlockVerb, Forcible, IfPresent, Import, ListVerb, Remove};
use super::output::Output;
use super::words::{count, duration, or_dash};
use super::{Client, Failure, import};
use crate::control::api::{Blocks, Changed, Entry, List};
use crate::control::client::ClientError;
use crate::keeper::shown;

const BLOCKS: &str = "/v1/blocks";

pub(super) fn blocks(client: &Client, verb: BlockVerb, output: &mut Output) -> Result<(), Failure> {
    match verb {
        BlockVerb::Add(add) => {
            let entry = Entry {
                limit: add.limit,
                ..entry(add.entry.what)
            };
            let client = client.forced(add.entry.force.force);
            let changed: Changed = client.post(BLOCKS, &entry)?;
            for block in &changed.blocks {
                let lasting = duration(block.remaining_seconds);
                let limit = block.limit.as_deref();
                let limit = limit.map(|limit| format!(" for limit {limit}"));
                let network = shown(block.network);
                let limit = limit.unwrap_or_default();
                output.line(&format!("{network} is blocked{limit} for {lasting}"))?;
            }
            notices(&changed, output)
        }
        BlockVerb::Del(delete) => {
            let mut parameters = vec![("network", delete.source.as_str())];
            parameters.extend(delete.limit.as_deref().map(|limit| ("limit", limit)));
            let Some(changed) = remove(client, BLOCKS, &parameters, delete.terms)? else {
                return Ok(output.line(&format!("{} is not blocked", delete.source))?);
            };
            output.line(&format!("{} is not blocked any more", delete.source))?;
            notices(&changed, output)
        }
        BlockVerb::List(json) => {
            let blocks: Blocks = client.get(BLOCKS, &[])?;
            if json.json {
                return Ok(output.json(&blocks)?);
            }
            print_blocks(&blocks, output)
        }
        BlockVerb::Import(file) => {
            let entries = import::read(&file.what)?;
            let client = client.forced(file.force.force).minimal();
            let changed: Changed = client.post(BLOCKS, &entries)?;
            output.line(&format!("{} blocked", count(changed.changed)))?;
            notices(&changed, output)
        }
    }
}

pub(super) fn allow(
    client: &Client,
    verb: ListVerb<Add, Import, Forcible<Remove>>,
    output: &mut Output,
) -> Result<(), Failure> {
    let (verb, force) = match verb {
        ListVerb::Add(add) => (ListVerb::Add(add), false),
        ListVerb::Import(import) => (ListVerb::Import(import), false),
        ListVerb::Del(Forcible { what, force }) => (ListVerb::Del(what), force.force),
        ListVerb::List(json) => (ListVerb::List(json), false),
    };
    list(&client.forced(force), "allow", verb, output)
}

pub(super) fn deny(
    client: &Client,
    verb: ListVerb<Forcible<Add>, Forcible<Import>, Remove>,
    output: &mut Output,
) -> Result<(), Failure> {
    let (verb, force) = match verb {
        ListVerb::Add(Forcible { what, force }) => (ListVerb::Add(what), force.force),
        ListVerb::Import(Forcible { what, force }) => (ListVerb::Import(what), force.force),
        ListVerb::Del(remove) => (ListVerb::Del(remove), false),
        ListVerb::List(json) => (ListVerb::List(json), false),
    };
    list(&client.forced(force), "deny", verb, output)
}

fn list(
    client: &Client,
    kind: &str,
    verb: ListVerb<Add, Import, Remove>,
    output: &mut Output,
) -> Result<(), Failure> {
    let path = format!("/v1/lists/{kind}");
    let changed: Changed = match verb {
        ListVerb::Add(add) => {
            let entry = entry(add);
            let changed = client.post(&path, &entry)?;
            let lasting = entry.lasting.map(|text| format!(" for {text}"));
            let lasting = lasting.unwrap_or_default();
            output.line(&format!("{kind} {}{lasting}", entry.network))?;
            changed
        }
        ListVerb::Del(Remove { source, terms }) => {
            let Some(changed) = remove(client, &path, &[("network", &source)], terms)? else {
                return Ok(output.line(&format!("{source} is not on the {kind} list"))?);
            };
            output.line(&format!("{source} is off the run-time {kind} list"))?;
            changed
        }
        ListVerb::Import(file) => {
            let changed: Changed = client.post(&path, &import::read(&file)?)?;
            output.line(&format!("{kind}: {} added", count(changed.changed)))?;
            changed
        }
        ListVerb::List(json) => {
            let list: List = client.get(&path, &[])?;
            if json.json {
                return Ok(output.json(&list)?);
            }
            return print_list(&list, output);
        }
    };
    notices(&changed, output)
}

/// Deletes what a path and its parameters name; `None`: there is no such thing, and whoever
/// ordered it does not mind.
fn remove(
    client: &Client,
    path: &str,
    parameters: &[(&str, &str)],
    terms: IfPresent,
) -> Result<Option<Changed>, Failure> {
    match client.delete(path, parameters) {
        Ok(changed) => Ok(Some(changed)),
        Err(ClientError::Refused(refusal)) if terms.if_present && refusal.status == 404 => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn entry(add: Add) -> Entry {
    Entry {
        network: add.source,
        lasting: add.lasting,
        reason: add.reason,
        limit: None,
    }
}

fn notices(changed: &Changed, output: &mut Output) -> Result<(), Failure> {
    for notice in &changed.notices {
        output.line(&format!("note: {notice}"))?;
    }
    Ok(())
}

fn print_blocks(blocks: &Blocks, output: &mut Output) -> Result<(), Failure> {
    if blocks.blocks.is_empty() {
        return Ok(output.line("nothing is blocked")?);
    }
    let rows: Vec<[String; 6]> = blocks
        .blocks
        .iter()
        .map(|block| {
            let owner = match block.uid {
                Some(uid) => format!("{} (uid {uid})", block.owner),
                None => block.owner.clone(),
            };
            [
                shown(block.network),
                duration(block.remaining_seconds),
                owner,
                or_dash(block.limit.as_deref()),
                if block.dry { "dry" } else { "" }.to_owned(),
                block.reason.clone().unwrap_or_default(),
            ]
        })
        .collect();
    let headings = ["SOURCE", "REMAINING", "BY", "LIMIT", "", "WHY"];
    Ok(output.table(headings, [false, true, false, false, false, false], &rows)?)
}

fn print_list(list: &List, output: &mut Output) -> Result<(), Failure> {
    if list.entries.is_empty() {
        return Ok(output.line("the list is empty")?);
    }
    let rows: Vec<[String; 5]> = list
        .entries
        .iter()
        .map(|entry| {
            let from = match entry.uid {
                Some(uid) => format!("{} (uid {uid})", entry.origin),
                None => entry.origin.clone(),
            };
            let mut remark = entry.reason.clone().unwrap_or_default();
            if let Some(allow) = entry.overruled_by {
                let gap = if remark.is_empty() { "" } else { "; " };
                remark.push_str(&format!("{gap}without effect: {} is allowed", shown(allow)));
            }
            let remaining = entry.remaining_seconds.map(duration);
            [
                shown(entry.network),
                remaining.unwrap_or_else(|| "for good".to_owned()),
                from,
                entry.since.clone(),
                remark,
            ]
        })
        .collect();
    let headings = ["SOURCE", "REMAINING", "FROM", "SINCE", "WHY"];
    Ok(output.table(headings, [false, true, false, false, false], &rows)?)
}

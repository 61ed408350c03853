//! `limiter doctor`: what would keep `run` from starting or slow it down, and
//! the command that mends it, before anything is attached.
//!
//! Each subject is *read* into plain facts, and facts are *judged* by functions
//! that ask nothing more. Nothing is changed, and what cannot be seen is said
//! to be so.

mod daemon;
mod finding;
mod interface;
mod kernel;
mod machine;
mod pins;
mod rights;
#[cfg(test)]
mod tests;
mod unit;

use std::path::Path;

pub use finding::{Finding, Level};

use crate::dataplane::{self, probe};
use crate::keeper::interfaces::{Present, Resolved, resolve, unknown};
use crate::nic::obstacles::Machine;
use crate::nic::{self, Link, interrupts};
use crate::policy::{DEFAULT_PINS, Policy, PolicyError};
use finding::About;
use interface::{Facts, Owner, Setting};

/// What is to be looked at.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The policy, or what is wrong with it; `None`: there is none.
    pub policy: Option<Result<&'a Policy, &'a PolicyError>>,
    /// Only this interface.
    pub interface: Option<&'a str>,
    /// The daemon's control socket.
    pub socket: &'a Path,
}

/// Looks at everything.
#[must_use]
pub fn examine(request: Request<'_>) -> Vec<Finding> {
    let policy = request.policy.and_then(Result::ok);
    let rights = rights::Facts::read();
    let daemon = daemon::Facts::read(request.socket);
    let default = Path::new(DEFAULT_PINS);
    let directory = policy.map_or(default, |policy| &policy.state.pins);
    let pins = pins::Facts::read(directory, rights.is_admin());
    let machine = Machine::read();
    let needed = policy.map(|policy| {
        let needed = dataplane::memory(policy, machine.cpus.into());
        (needed, policy.edge.sources)
    });

    let mut found = kernel::Facts::read(rights.may_load()).judge();
    found.extend(rights.judge());
    found.extend(pins.judge(daemon.is_running));
    found.extend(machine::Facts::read(needed).judge());
    found.extend(daemon.judge());
    let notify = policy.and_then(|policy| policy.notify.as_ref());
    found.extend(unit::Facts::read().judge(notify));
    if let Some(Err(error)) = request.policy {
        found.extend(bad_policy(error));
    }
    let links = match nic::links() {
        Ok(links) => links,
        Err(error) => {
            let mut about = About::new("interfaces");
            about.say(
                Level::Stops,
                format!("the kernel does not tell: {error}"),
                None,
            );
            found.extend(about.findings());
            return found;
        }
    };
    let (chosen, notices) = choose(policy, request.interface, &links);
    found.extend(notices);
    let looked_at = |link: &&Link| match request.interface {
        Some(name) => link.name == name,
        None => chosen.contains(&link.name),
    };
    // Where nobody chose, each is looked at as if it were the only one.
    let is_chosen = policy.is_some() || request.interface.is_some();
    for link in links.iter().filter(looked_at) {
        let facts = Facts {
            nic: nic::ask(link.clone()),
            interrupts: interrupts::of(link),
            owner: owner(link, &daemon, &pins),
        };
        let alone = [link.name.clone()];
        let setting = Setting {
            links: &links,
            chosen: if is_chosen { &chosen } else { &alone },
            policy,
            machine,
        };
        let mut judged = interface::judge(&facts, setting);
        if !is_chosen {
            judged.iter_mut().for_each(Finding::soften);
        }
        found.extend(judged);
    }
    found
}

fn bad_policy(error: &PolicyError) -> Vec<Finding> {
    let mut about = About::new("policy");
    let first = error.diagnostics.first();
    let what = first.map(|first| format!("{}: {}", first.file, first.message));
    let file = first.map_or("FILE", |first| first.file.as_str());
    about.mend(
        Level::Stops,
        what.unwrap_or_default(),
        format!("limiter check {file}"),
    );
    about.findings()
}

/// The interfaces that the program is meant for: those of the policy, else all
/// but the loopback; an interface that was asked about is among them.
fn choose(
    policy: Option<&Policy>,
    interface: Option<&str>,
    links: &[Link],
) -> (Vec<String>, Vec<Finding>) {
    let present: Vec<Present> = links
        .iter()
        .map(|link| Present {
            name: link.name.clone(),
            index: link.index,
            is_up: link.is_up,
        })
        .collect();
    let mut about = About::new("interfaces");
    let mut chosen = match policy {
        Some(policy) => {
            let Resolved {
                names,
                unknown: missing,
                notices,
            } = resolve(&policy.edge.interfaces, &present);
            for notice in notices {
                about.mend(Level::Warning, notice, "ip link");
            }
            if !missing.is_empty() {
                about.mend(Level::Stops, unknown(&missing, &present), "ip link");
            }
            names
        }
        None => {
            let others = links.iter().filter(|link| !link.is_loopback);
            others.map(|link| link.name.clone()).collect()
        }
    };
    if let Some(name) = interface {
        if policy.is_none() {
            chosen.clear();
        }
        if !links.iter().any(|link| link.name == name) {
            let what = format!("there is no interface `{name}`");
            about.mend(Level::Stops, what, "ip link");
        } else if !chosen.iter().any(|it| it == name) {
            chosen.push(name.to_owned());
        }
    }
    (chosen, about.findings())
}

fn owner(link: &Link, daemon: &daemon::Facts, pins: &pins::Facts) -> Owner {
    let Some(id) = link.program else {
        return Owner::Unknown;
    };
    if daemon.attached.contains(&link.index) {
        return Owner::Daemon;
    }
    if pins.links().contains(&link.index) {
        return Owner::Pinned;
    }
    probe::program_name(id).map_or(Owner::Unknown, Owner::Named)
}

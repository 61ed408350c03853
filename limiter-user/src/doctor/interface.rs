//! One interface: driver, modes, queues, offloads, and what is there already.

use std::collections::BTreeSet;

use super::finding::{About, Finding, Level};
use crate::nic::Link;
use crate::nic::driver::{self, Attaching};
use crate::nic::interrupts::Interrupt;
use crate::nic::obstacles::{Cause, Machine, Obstacle, obstacles};
use crate::nic::place::{self, Weight};
use crate::nic::{Nic, Switch};
use crate::policy::{Mode, Policy};

/// An interface and what else is to be seen of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// What the kernel tells.
    pub(super) nic: Nic,
    /// What becomes of its interrupts; `None`: not to be seen.
    pub(super) interrupts: Option<Vec<Interrupt>>,
    /// Whose program is on it, if there is one.
    pub(super) owner: Owner,
}

/// Whose a program is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Owner {
    /// The running daemon's.
    Daemon,
    /// Left by an earlier one, and pinned.
    Pinned,
    /// Somebody else's: its name, where that may be known.
    #[default]
    Unknown,
    /// The same with the name.
    Named(String),
}

/// What an interface is judged against.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setting<'a> {
    /// Every interface there is.
    pub(super) links: &'a [Link],
    /// Names of those that the program is meant for.
    pub(super) chosen: &'a [String],
    /// The policy, if there is one.
    pub(super) policy: Option<&'a Policy>,
    /// The machine.
    pub(super) machine: Machine,
}

impl Setting<'_> {
    fn mode(&self) -> Mode {
        self.policy.map_or(Mode::Auto, |policy| policy.edge.mode)
    }
}

/// Everything about one interface.
pub(super) fn judge(facts: &Facts, setting: Setting<'_>) -> Vec<Finding> {
    let mut about = About::new(format!("interface {}", facts.nic.name()));
    what_it_is(&facts.nic, &mut about);
    where_it_is(&facts.nic, setting, &mut about);
    program(facts, &mut about);
    let obstacles = obstacles(&facts.nic, setting.machine);
    modes(&facts.nic, setting, &obstacles, &mut about);
    attaching(&facts.nic, setting, &obstacles, &mut about);
    frames(&facts.nic, setting, &obstacles, &mut about);
    offloads(&facts.nic, &obstacles, &mut about);
    queues(&facts.nic, setting, &mut about);
    interrupts(facts, setting, &mut about);
    about.findings()
}

fn what_it_is(nic: &Nic, about: &mut About) {
    let link = &nic.link;
    let kind = link.kind.as_deref().unwrap_or("hardware");
    let driver = match nic.driver.as_deref() {
        Some(driver) if driver != kind => format!("{kind}, driver {driver}"),
        Some(_) => kind.to_owned(),
        None if link.is_loopback => "the loopback".to_owned(),
        None => format!("{kind}, whose driver the kernel does not name"),
    };
    let what = format!("{driver}; MTU {}", link.mtu);
    match (link.is_up, link.has_carrier) {
        (true, true) => about.ok(what),
        (true, false) => about.note(format!("{what}; no carrier")),
        (false, _) => about.mend(
            Level::Note,
            format!("{what}; down"),
            format!("ip link set {} up", link.name),
        ),
    }
}

fn where_it_is(nic: &Nic, setting: Setting<'_>, about: &mut About) {
    for found in place::judge(&nic.link, setting.links, setting.chosen) {
        let level = match found.weight {
            Weight::Remark => Level::Note,
            Weight::Unwise => Level::Warning,
            Weight::Unsafe => Level::Stops,
        };
        let mend = Some(found.mend).filter(|mend| !mend.is_empty());
        about.say(level, found.what, mend);
    }
}

fn program(facts: &Facts, about: &mut About) {
    let Some(id) = facts.nic.link.program else {
        return about.ok("no XDP program is on it");
    };
    let name = facts.nic.name();
    let look = format!("bpftool net show dev {name}   # and take it off if it is yours to");
    match &facts.owner {
        Owner::Daemon => about.ok(format!("limiter's program is on it (id {id})")),
        Owner::Pinned => about.ok(format!(
            "the program of an earlier limiter is on it (id {id}); `run` adopts it"
        )),
        Owner::Named(program) => about.mend(
            Level::Stops,
            format!("an XDP program `{program}` (id {id}) is on it, and limiter replaces no other"),
            look,
        ),
        Owner::Unknown => about.mend(
            Level::Stops,
            format!(
                "an XDP program (id {id}; its name is not for this user to see) is on it, and \
                 limiter replaces no other"
            ),
            look,
        ),
    }
}

fn modes(nic: &Nic, setting: Setting<'_>, obstacles: &[Obstacle], about: &mut About) {
    if setting.mode() == Mode::Generic {
        return about.note("edge.mode is \"generic\": the driver is not asked");
    }
    if !obstacles.is_empty() {
        let (level, then) = match setting.mode() {
            Mode::Native => (Level::Stops, "edge.mode = \"native\" forbids another"),
            _ => (
                Level::Warning,
                "edge.mode = \"auto\" takes generic mode, which is slower",
            ),
        };
        for obstacle in obstacles {
            about.say(
                level,
                format!("no native mode: {}; {then}", obstacle.what),
                obstacle.mend.clone(),
            );
        }
        return;
    }
    let known = nic.driver.as_deref().and_then(driver::known);
    match (nic.has_native(), known) {
        (Some(true), _) => about.ok("native mode: the driver has it"),
        (None, Some(_)) => about.ok(
            "native mode: the driver has it, by what is known of it (this kernel does not say)",
        ),
        _ if nic.link.bond.is_some() => about.note(
            "native mode: a bond has it where all of its ports have it (this kernel does not say)",
        ),
        _ => about
            .note("native mode: neither the kernel nor limiter knows whether the driver has it"),
    }
}

fn attaching(nic: &Nic, setting: Setting<'_>, obstacles: &[Obstacle], about: &mut About) {
    let is_generic = setting.mode() == Mode::Generic;
    if is_generic || !obstacles.is_empty() {
        return about.ok("attaching in generic mode does not touch the link");
    }
    let known = nic.driver.as_deref().and_then(driver::known);
    match known.and_then(|driver| driver.attaching) {
        Some(Attaching::Smooth) => about.ok("attaching does not touch the link"),
        Some(Attaching::Queues) => about.note(
            "attaching makes its queues anew: packets of that moment are lost, the link stays",
        ),
        Some(Attaching::Interface) => about.mend(
            Level::Warning,
            "attaching stops the interface and starts it again: its carrier may be gone for \
             seconds, once, when `run` begins and when the program is taken off",
            "do it when that hurts nobody; edge.mode = \"generic\" does not do it",
        ),
        None => about.note("whether attaching takes the link down is not known of this driver"),
    }
}

fn frames(nic: &Nic, setting: Setting<'_>, obstacles: &[Obstacle], about: &mut About) {
    if let Some(policy) = setting.policy
        && let Err(refusal) = crate::keeper::reload::fits(policy, nic.name(), nic.link.mtu)
    {
        about.mend(Level::Stops, refusal.detail, refusal.help);
    }
    let is_refused = obstacles.iter().any(|it| it.cause == Cause::Mtu);
    let may_be_too_large = nic.has_several_buffers().is_none() || nic.takes_one_buffer();
    let is_hardware = nic.link.kind.is_none() && !nic.link.is_loopback;
    if nic.link.mtu > 1_500 && may_be_too_large && is_hardware && !is_refused {
        about.mend(
            Level::Note,
            format!(
                "its MTU is {}, and whether its driver's XDP takes frames of that size shows only \
                 when the program is attached",
                nic.link.mtu
            ),
            format!(
                "ip link set {} mtu 1500   # if native mode fails",
                nic.name()
            ),
        );
    }
}

fn offloads(nic: &Nic, obstacles: &[Obstacle], about: &mut About) {
    let is_on = |it: Option<Switch>| it.is_some_and(|it| it.on);
    if nic.lro.is_none() && nic.gro_hw.is_none() {
        return about.note("LRO and GRO_HW: the kernel does not say");
    }
    let is_obstacle = |cause| obstacles.iter().any(|it| it.cause == cause);
    if is_on(nic.lro) && !is_obstacle(Cause::Lro) {
        about.mend(
            Level::Note,
            "LRO is on: packets arrive joined, and generic mode turns it off",
            format!("ethtool -K {} lro off", nic.name()),
        );
    }
    if is_on(nic.gro_hw) && !is_obstacle(Cause::Host) {
        about.note("GRO_HW is on: with the program attached it is off, which costs TCP some CPU");
    }
    if !is_on(nic.lro) && !is_on(nic.gro_hw) {
        about.ok("LRO and GRO_HW are off");
    }
}

fn queues(nic: &Nic, setting: Setting<'_>, about: &mut About) {
    let queues = nic.receive_queues();
    let cpus = setting.machine.cpus;
    let most = nic
        .channels
        .map_or(queues, |it| it.combined_max.max(it.receive_max));
    let wanted = most.min(cpus);
    let what = format!("{queues} of {most} queues receive, on a machine of {cpus} CPUs");
    if queues >= wanted || nic.link.kind.is_some() {
        return about.ok(what);
    }
    let kind = match nic.channels.is_some_and(|it| it.combined > 0) {
        true => "combined",
        false => "rx",
    };
    about.mend(
        Level::Warning,
        format!("{what}: a flood keeps {queues} busy while the others look on"),
        format!("ethtool -L {} {kind} {wanted}", nic.name()),
    );
}

fn interrupts(facts: &Facts, setting: Setting<'_>, about: &mut About) {
    let Some(lines) = &facts.interrupts else {
        return about.note("its interrupts are not to be seen");
    };
    if lines.is_empty() {
        return about.ok("it has no interrupts of its own");
    }
    let unseen = lines.iter().filter(|line| line.cpus.is_none()).count();
    let taken = lines.iter().filter_map(|line| line.cpus.as_ref());
    let cpus: BTreeSet<u32> = taken.flatten().copied().collect();
    if unseen == lines.len() {
        return about.note(format!(
            "{} interrupts; which CPUs take them is not to be seen",
            lines.len()
        ));
    }
    let what = format!("{} interrupts, taken by {} CPUs", lines.len(), cpus.len());
    let is_alone = cpus.len() == 1 && facts.nic.receive_queues() > 1 && setting.machine.cpus > 1;
    if is_alone {
        let numbers: Vec<String> = lines.iter().map(|line| line.number.to_string()).collect();
        about.mend(
            Level::Warning,
            format!("{what}: one CPU gets every packet"),
            format!(
                "systemctl start irqbalance, or a CPU each: \
                 c=0; for i in {}; do echo $((c++)) > /proc/irq/$i/smp_affinity_list; done",
                numbers.join(" ")
            ),
        );
    } else {
        about.ok(what);
    }
}

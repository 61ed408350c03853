//! Interfaces judged by what was recorded or composed (`nic::samples` says
//! which).

use std::collections::BTreeSet;

use netlink_packet_route::link::{BondMode, BondXmitHashPolicy, InfoKind, InfoPortKind};

use super::interface::{Facts, Owner, Setting, judge};
use super::*;
use crate::nic::Nic;
use crate::nic::interrupts::Interrupt;
use crate::nic::samples;
use crate::policy::{NoFiles, parse};

const MACHINE: Machine = Machine {
    cpus: 8,
    page_bytes: 4_096,
};
const ALL: Option<u64> = Some(0b10_1111);

fn policy(text: &str) -> Policy {
    parse("limiter.toml", text, &NoFiles).unwrap().policy
}

fn facts(nic: Nic) -> Facts {
    Facts {
        nic,
        interrupts: Some(Vec::new()),
        owner: Owner::Unknown,
    }
}

/// Judges one interface that stands alone.
fn alone(facts: &Facts, policy: Option<&Policy>) -> Vec<Finding> {
    let links = [facts.nic.link.clone()];
    let chosen = [facts.nic.name().to_owned()];
    let setting = Setting {
        links: &links,
        chosen: &chosen,
        policy,
        machine: MACHINE,
    };
    judge(facts, setting)
}

fn worst(found: &[Finding]) -> Level {
    found.iter().map(|it| it.level).max().unwrap()
}

#[track_caller]
fn says<'a>(found: &'a [Finding], level: Level, part: &str) -> &'a Finding {
    let said = found.iter().find(|it| it.what.contains(part));
    let said = said.unwrap_or_else(|| panic!("no {part:?} in {found:#?}"));
    assert_eq!(said.level, level, "{said:?}");
    said
}

#[test]
fn a_healthy_interface() {
    let found = alone(
        &facts(samples::hardware("mlx5_core", ALL, (8, 8), &[])),
        None,
    );
    assert_eq!(worst(&found), Level::Note, "{found:#?}");
    assert!(found.iter().all(|it| it.subject == "interface eth0"));
    says(&found, Level::Ok, "hardware, driver mlx5_core; MTU 1500");
    says(&found, Level::Ok, "no XDP program is on it");
    says(&found, Level::Ok, "native mode: the driver has it");
    says(&found, Level::Note, "makes its queues anew");
    says(&found, Level::Ok, "LRO and GRO_HW are off");
    says(&found, Level::Ok, "8 of 8 queues receive");
    says(&found, Level::Ok, "no interrupts of its own");
}

#[test]
fn what_attaching_does_to_the_link() {
    for (driver, level, part) in [
        ("ixgbe", Level::Warning, "its carrier may be gone"),
        ("i40e", Level::Warning, "its carrier may be gone"),
        ("bnxt_en", Level::Note, "the link stays"),
        ("virtio_net", Level::Ok, "does not touch the link"),
        ("novel", Level::Note, "not known of this driver"),
    ] {
        let found = alone(&facts(samples::hardware(driver, ALL, (8, 8), &[])), None);
        says(&found, level, part);
    }
    let generic = policy("[edge]\ninterfaces = [\"eth0\"]\nmode = \"generic\"\n");
    let nic = samples::hardware("ixgbe", ALL, (8, 8), &[]);
    let found = alone(&facts(nic), Some(&generic));
    says(&found, Level::Ok, "in generic mode does not touch the link");
    says(&found, Level::Note, "the driver is not asked");
}

#[test]
fn an_obstacle_stops_native_and_warns_under_auto() {
    let nic = samples::hardware("tg3", Some(0), (4, 4), &[]);
    let found = alone(&facts(nic.clone()), None);
    says(
        &found,
        Level::Warning,
        "its driver (tg3) has no XDP; edge.mode = \"auto\"",
    );
    let native = policy("[edge]\ninterfaces = [\"eth0\"]\nmode = \"native\"\n");
    let found = alone(&facts(nic), Some(&native));
    says(
        &found,
        Level::Stops,
        "edge.mode = \"native\" forbids another",
    );
    let nic = samples::hardware("ixgbe", ALL, (8, 63), &["rx-lro"]);
    let found = alone(&facts(nic), Some(&native));
    let said = says(&found, Level::Stops, "LRO) is on");
    assert_eq!(said.mend.as_deref(), Some("ethtool -K eth0 lro off"));
}

#[test]
fn modes_that_nobody_knows_of() {
    let found = alone(&facts(samples::hardware("novel", None, (8, 8), &[])), None);
    says(&found, Level::Note, "neither the kernel nor limiter knows");
    let found = alone(&facts(samples::hardware("i40e", None, (8, 8), &[])), None);
    says(&found, Level::Ok, "by what is known of it");
    let bond = Nic {
        link: samples::bond(5, BondMode::ActiveBackup, BondXmitHashPolicy::Layer2),
        ..Nic::default()
    };
    let found = alone(&facts(bond), None);
    says(&found, Level::Note, "where all of its ports have it");
    says(
        &found,
        Level::Note,
        "LRO and GRO_HW: the kernel does not say",
    );
}

#[test]
fn whose_program_it_is() {
    let mut facts = facts(samples::hardware("veth", ALL, (8, 8), &[]));
    facts.nic.link.program = Some(42);
    for (owner, level, part) in [
        (
            Owner::Daemon,
            Level::Ok,
            "limiter's program is on it (id 42)",
        ),
        (Owner::Pinned, Level::Ok, "`run` adopts it"),
        (Owner::Unknown, Level::Stops, "(id 42; its name is not"),
        (
            Owner::Named("xdp_filter".to_owned()),
            Level::Stops,
            "`xdp_filter` (id 42) is on it",
        ),
    ] {
        facts.owner = owner;
        let found = alone(&facts, None);
        let said = says(&found, level, part);
        assert_eq!(said.mend.is_some(), level == Level::Stops);
    }
}

#[test]
fn offloads_queues_and_frames() {
    let on = &["rx-lro", "rx-gro-hw"];
    let found = alone(&facts(samples::hardware("bnxt_en", ALL, (2, 16), on)), None);
    says(&found, Level::Note, "LRO is on");
    says(&found, Level::Note, "GRO_HW is on");
    let said = says(
        &found,
        Level::Warning,
        "2 of 16 queues receive, on a machine of 8",
    );
    assert_eq!(said.mend.as_deref(), Some("ethtool -L eth0 combined 8"));

    let mut nic = samples::hardware("i40e", None, (8, 8), &[]);
    nic.link.mtu = 9_000;
    let found = alone(&facts(nic.clone()), None);
    says(
        &found,
        Level::Note,
        "shows only when the program is attached",
    );
    let burst = policy(
        "[edge]\ninterfaces = [\"eth0\"]\n[[edge.limit]]\nname = \"udp\"\nprotocol = \"udp\"\n\
         bytes = { rate = \"1MB/s\", burst = 9013 }\n",
    );
    let found = alone(&facts(nic), Some(&burst));
    says(&found, Level::Stops, "a byte burst of 9013");
}

#[test]
fn down_or_without_a_carrier() {
    let mut nic = samples::hardware("igb", ALL, (8, 8), &[]);
    nic.link.has_carrier = false;
    says(&alone(&facts(nic.clone()), None), Level::Note, "no carrier");
    nic.link.is_up = false;
    let found = alone(&facts(nic), None);
    let said = says(&found, Level::Note, "; down");
    assert_eq!(said.mend.as_deref(), Some("ip link set eth0 up"));
}

#[test]
fn interrupts_on_one_cpu() {
    let line = |number, cpu: Option<u32>| Interrupt {
        number,
        counts: vec![1, 0],
        name: format!("eth0-TxRx-{number}"),
        cpus: cpu.map(|cpu| BTreeSet::from([cpu])),
    };
    let mut facts = facts(samples::hardware("ixgbe", ALL, (2, 2), &[]));
    facts.interrupts = Some(vec![line(40, Some(0)), line(41, Some(0))]);
    let found = alone(&facts, None);
    let said = says(
        &found,
        Level::Warning,
        "2 interrupts, taken by 1 CPUs: one CPU",
    );
    assert!(said.mend.as_deref().unwrap().contains("for i in 40 41;"));
    facts.interrupts = Some(vec![line(40, Some(0)), line(41, Some(3))]);
    says(&alone(&facts, None), Level::Ok, "taken by 2 CPUs");
    facts.interrupts = Some(vec![line(40, None)]);
    says(&alone(&facts, None), Level::Note, "is not to be seen");
    facts.interrupts = None;
    says(&alone(&facts, None), Level::Note, "its interrupts are not");
}

/// eth0 in bond0, and a VLAN on it.
fn host() -> Vec<Link> {
    vec![
        samples::port(2, "eth0", 5, InfoPortKind::Bond),
        samples::bond(5, BondMode::Ieee8023Ad, BondXmitHashPolicy::Layer34),
        samples::stacked(6, "bond0.7", 5, InfoKind::Vlan),
    ]
}

#[test]
fn places_that_are_wrong() {
    let links = host();
    let chosen: Vec<String> = links.iter().map(|it| it.name.clone()).collect();
    let setting = Setting {
        links: &links,
        chosen: &chosen,
        policy: None,
        machine: MACHINE,
    };
    let of = |index: usize| {
        let nic = Nic {
            link: links[index].clone(),
            ..Nic::default()
        };
        judge(&facts(nic), setting)
    };
    let found = of(0);
    let said = says(&found, Level::Stops, "a port of the bond `bond0`");
    assert!(said.mend.as_deref().unwrap().contains("`bond0`"));
    says(&of(2), Level::Stops, "judged and charged twice");
}

#[test]
fn which_interfaces_are_looked_at() {
    let links = vec![
        Link {
            is_loopback: true,
            ..samples::link(1, "lo", Vec::new())
        },
        samples::link(2, "eth0", Vec::new()),
        samples::link(3, "eth1", Vec::new()),
    ];
    let names = |policy, interface| {
        let (names, found) = choose(policy, interface, &links);
        let levels: Vec<Level> = found.iter().map(|it| it.level).collect();
        (names.join(" "), levels)
    };
    assert_eq!(names(None, None), ("eth0 eth1".to_owned(), vec![]));
    assert_eq!(names(None, Some("lo")), ("lo".to_owned(), vec![]));
    assert_eq!(
        names(None, Some("eth7")),
        (String::new(), vec![Level::Stops])
    );
    let one = policy("[edge]\ninterfaces = [\"eth1\"]\n");
    assert_eq!(names(Some(&one), None), ("eth1".to_owned(), vec![]));
    assert_eq!(
        names(Some(&one), Some("eth0")),
        ("eth1 eth0".to_owned(), vec![])
    );
    let wrong = policy("[edge]\ninterfaces = [\"eth7\", \"ens*\"]\n");
    let levels = vec![Level::Warning, Level::Stops];
    assert_eq!(names(Some(&wrong), None), (String::new(), levels));
}

#[test]
fn a_policy_with_errors_stops_run() {
    let error = parse("limiter.toml", "[edges]\n", &NoFiles).unwrap_err();
    let found = bad_policy(&error);
    assert_eq!(found[0].level, Level::Stops);
    assert!(found[0].what.contains("limiter.toml: unknown key `edges`"));
    assert_eq!(found[0].mend.as_deref(), Some("limiter check limiter.toml"));
}

#[test]
fn what_nobody_chose_stops_nothing() {
    let mut finding = alone(&facts(samples::hardware("tg3", ALL, (1, 1), &[])), None).remove(0);
    finding.level = Level::Stops;
    finding.soften();
    assert_eq!(finding.level, Level::Warning);
}

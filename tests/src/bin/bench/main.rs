//! `cargo xtask bench`: what limiter costs, what it does under flood, and how
//! exact it is, beside its peers and on this machine.
//!
//! Nothing here is a test. Programs run under `BPF_PROG_TEST_RUN` or in network
//! namespaces without a name; both end with this process.

mod access_log;
mod accuracy;
mod assaults;
mod audit;
mod check;
mod cost;
mod crowdsec;
mod dice;
mod engine;
mod established;
mod fail2ban;
mod flood;
mod followers;
mod frames;
mod goodput;
mod growth;
mod guards;
mod interrupt;
mod limiter;
mod lists;
mod logs;
mod many;
mod memory;
mod others;
mod policies;
mod reaction;
mod reading;
mod report;
mod rig;
mod rounds;
mod shields;
mod siege;
mod site;
mod usage;
mod verifier;
mod watch;
mod wrk;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use limiter_tests::cpu;
use report::{Circumstances, Table};
use std::process::ExitCode;

/// Measures what limiter costs, beside its peers.
#[derive(Parser)]
#[command(name = "cargo xtask bench")]
struct Options {
    /// What to measure; everything where nothing is named
    sections: Vec<Section>,
    /// How often each figure is measured
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// Packets in each round of the sections that count nanoseconds
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..))]
    packets: u32,
    /// How long each attack of section `established` lasts at least
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Only those attacks of section `established`, or parts of section `check`, whose names
    /// contain this
    #[arg(long, default_value = "")]
    only: String,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Section {
    /// Nanoseconds a packet
    Cost,
    /// The same with larger lists, policies and tables
    Growth,
    /// Packets a second, on a pair of virtual interfaces
    Flood,
    /// Known sources and new clients, in nine attacks
    Established,
    /// Requests a second of nginx under flood
    Goodput,
    /// Reading a million sources under flood
    Reading,
    /// What the table of sources takes
    Memory,
    /// Packets admitted of a source on two CPUs
    Accuracy,
    /// Large lists put in force by a running daemon, and packets meanwhile
    Lists,
    /// Events a second through the rules, their memory, and keys thrown at them
    Engine,
    /// Lines a second of a log that is followed, beside fail2ban and CrowdSec
    Logs,
    /// From a failure that an application tells of to the first packet dropped
    Reaction,
    /// Rows of the audit log written a second, and questions to ten million
    Audit,
    /// Requests a second of proxies that ask limiter, beside what they have themselves
    Check,
}

fn main() -> ExitCode {
    let options = Options::parse();
    interrupt::note_signals();
    match bench(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) if interrupt::noted() => {
            eprintln!("interrupted; nothing is left behind");
            ExitCode::from(130)
        }
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bench(options: &Options) -> Result<()> {
    let rounds = usize::try_from(options.rounds)?;
    let circumstances = Circumstances::find(rounds)?;
    if !options.json {
        circumstances.print();
    }
    let mut tables = Vec::new();
    for section in Section::value_variants() {
        if options.sections.is_empty() || options.sections.contains(section) {
            eprintln!("{section:?} …");
            let measured = section.run(rounds, options)?;
            if !options.json {
                measured.iter().for_each(Table::print);
            }
            tables.extend(measured);
        }
    }
    if options.json {
        println!("{:#}", circumstances.json(&tables));
    }
    Ok(())
}

impl Section {
    fn run(self, rounds: usize, options: &Options) -> Result<Vec<Table>> {
        // Not where interrupts are served first.
        let last = cpu::count()? - 1;
        let packets = options.packets;
        let table = match self {
            Self::Cost => cpu::on(last, || cost::run(rounds, packets)),
            Self::Growth => cpu::on(last, || growth::run(rounds, packets)),
            Self::Flood => flood::run(rounds),
            Self::Established => established::run(rounds, options.seconds, &options.only),
            Self::Goodput => cpu::on(0, || goodput::run(rounds, last)),
            Self::Reading => cpu::on(0, || reading::run(rounds, last)),
            Self::Memory => memory::run(),
            Self::Accuracy => accuracy::run(rounds),
            Self::Lists => lists::run(rounds),
            Self::Engine => cpu::on(last, || engine::run(rounds)),
            Self::Logs => logs::run(rounds),
            Self::Reaction => reaction::run(rounds, last),
            Self::Audit => audit::run(rounds),
            Self::Check => return cpu::on(0, || check::run(rounds, last, &options.only)),
        };
        Ok(vec![table?])
    }
}

//! What can be typed.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand, ValueEnum, value_parser};
use limiter_common::sample::Refusals;

use crate::daemon::logging::{Format, Level};
use crate::event::formats::Format as EventFormat;
use crate::policy::{DEFAULT_PINS, units::parse_duration};
use crate::store::audit::{ACTIONS, FIELDS, KINDS};

pub(super) const DEFAULT_CONFIG: &str = "/etc/limiter/limiter.toml";

/// Limits, denies and blocks sources at the network interface.
#[derive(Debug, Parser)]
#[command(name = "limiter", version, max_term_width = 100)]
#[command(after_help = "Exit status: 0 done, 1 refused or invalid, 2 usage.")]
pub(super) struct Arguments {
    /// The daemon's control socket [default: /run/limiter/control.sock; run:
    /// as in the policy].
    #[arg(long, global = true, value_name = "PATH")]
    pub(super) socket: Option<PathBuf>,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Attach, load the policy, serve control socket and metrics; in the
    /// foreground.
    Run(Run),
    /// Validate a policy.
    Check(Check),
    /// Print a commented policy.
    Init(Init),
    /// Put the changed policy file in force, or keep the old one and say why.
    Reload(Reload),
    /// Let the policy stay that `reload --confirm` has put in force.
    Confirm(Json),
    /// Let everything pass for a while; what would be dropped is counted.
    Pause(Pause),
    /// End a pause, or roll back what `reload --confirm` has put in force, at once.
    Resume(Json),
    /// What `reload` would change if FILE were the policy.
    Diff(Diff),
    /// What is attached, and how things stand.
    Status(Json),
    /// Counters by interface, limit and reason.
    Stats(Stats),
    /// The sources with the most drops.
    Sources(Sources),
    /// A live screen: counters, tables and the busiest sources.
    Top,
    /// Watch the sources for a while and suggest limits that would have hurt
    /// nobody.
    Suggest(Suggest),
    /// Block sources for a time.
    Block(Blocks),
    /// Sources that are never limited, denied or blocked.
    Allow(Allow),
    /// Sources whose packets are always dropped.
    Deny(Deny),
    /// The rules at work; switch one on, off or to dry run.
    Rule(RuleArguments),
    /// What is held against an account; release it.
    Account(Account),
    /// Where events come from, and what was understood of them.
    ///
    /// READ is the sum of the three behind it: UNDERSTOOD became events, NO REQUEST are lines
    /// that tell of none, such as that a server has started, NOT UNDERSTOOD are no lines of the
    /// format. DROPPED found no time, or came of senders that are not listed. LAG is how long
    /// before it was heard the last event happened.
    Origins(Json),
    /// Try the ways to tell what happens (`[notify]`).
    Notify(Notify),
    /// What the audit log says: failed attempts, refusals, actions, and who changed what.
    Audit(Box<Audit>),
    /// Why a source, the packets of a capture or the events of a log are treated as they are.
    Explain(Explain),
    /// Write a sample of dropped packets to a file (pcapng), each with its
    /// reason.
    Capture(Capture),
    /// Take the program off; works with the daemon dead.
    Detach(Detach),
    /// What would keep `run` from starting or slow it down, and what mends it;
    /// changes nothing.
    Doctor(Doctor),
    /// Print a proxy's configuration for a policy.
    Integration(Integration),
}

#[derive(Debug, Args)]
pub(super) struct Run {
    /// The policy.
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    pub(super) config: PathBuf,
    /// How log lines are written.
    #[arg(long, value_enum, default_value_t)]
    pub(super) log_format: Format,
    /// What is logged.
    #[arg(long, value_enum, default_value_t)]
    pub(super) log_level: Level,
    /// Log every packet; slow, for debugging.
    #[arg(long)]
    pub(super) trace_packets: bool,
}

#[derive(Debug, Args)]
pub(super) struct Check {
    /// The policy.
    pub(super) file: PathBuf,
    #[command(flatten)]
    pub(super) json: Json,
}

#[derive(Debug, Args)]
pub(super) struct Reload {
    /// Roll back unless `limiter confirm` follows within this time, up to 1h; the program
    /// does so itself, with nobody there.
    #[arg(
        long,
        value_name = "DURATION",
        value_parser = parse_duration,
        num_args = 0..=1,
        default_missing_value = "60s"
    )]
    pub(super) confirm: Option<Duration>,
    #[command(flatten)]
    pub(super) force: Force,
    #[command(flatten)]
    pub(super) json: Json,
}

#[derive(Debug, Args)]
pub(super) struct Pause {
    /// For how long, up to 24h.
    #[arg(long = "for", value_name = "DURATION", default_value = "10m", value_parser = parse_duration)]
    pub(super) lasting: Duration,
    #[command(flatten)]
    pub(super) json: Json,
}

#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Force {
    /// Also if that cuts off open SSH connections.
    #[arg(long)]
    pub(super) force: bool,
}

#[derive(Debug, Args)]
pub(super) struct Diff {
    /// The policy to compare with the one in force.
    #[arg(default_value = DEFAULT_CONFIG)]
    pub(super) file: PathBuf,
    #[command(flatten)]
    pub(super) json: Json,
}

#[derive(Debug, Args)]
pub(super) struct Init {
    /// The preset; --list names them.
    #[arg(long, value_name = "NAME")]
    pub(super) preset: Option<String>,
    /// Change a value, as edge.limit.https.packets.rate=100/s.
    #[arg(long, value_name = "KEY=VALUE", value_parser = assignment)]
    pub(super) set: Vec<(String, String)>,
    /// Name the presets.
    #[arg(long, conflicts_with_all = ["preset", "set"])]
    pub(super) list: bool,
    /// Print the list of presets as JSON.
    #[arg(long, requires = "list")]
    pub(super) json: bool,
}

#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Json {
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Stats {
    /// Show what is added, every second, until interrupted.
    #[arg(long)]
    pub(super) watch: bool,
    #[command(flatten)]
    pub(super) json: Json,
}

#[derive(Debug, Args)]
pub(super) struct Sources {
    /// How many.
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(super) count: usize,
    #[command(flatten)]
    pub(super) json: Json,
}

#[derive(Debug, Args)]
pub(super) struct Suggest {
    /// How long to watch, from 2s to 1h.
    #[arg(long = "for", value_name = "DURATION", default_value = "30s", value_parser = parse_duration)]
    pub(super) lasting: Duration,
    #[command(flatten)]
    pub(super) json: Json,
}

#[derive(Debug, Args)]
pub(super) struct Blocks {
    #[command(subcommand)]
    pub(super) verb: BlockVerb,
}

#[derive(Debug, Subcommand)]
pub(super) enum BlockVerb {
    /// Block a source, for 15 minutes unless said.
    Add(BlockAdd),
    /// End a block.
    Del(BlockDelete),
    /// The blocks in force.
    List(Json),
    /// Block all networks of a file: one a line, with an optional duration.
    Import(Forcible<Import>),
}

#[derive(Debug, Args)]
pub(super) struct BlockAdd {
    #[command(flatten)]
    pub(super) entry: Forcible<Add>,
    /// Only for packets that this limit applies to.
    #[arg(long, value_name = "NAME")]
    pub(super) limit: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct BlockDelete {
    /// The address or network.
    pub(super) source: String,
    /// Only the block that is confined to this limit.
    #[arg(long, value_name = "NAME")]
    pub(super) limit: Option<String>,
    #[command(flatten)]
    pub(super) terms: IfPresent,
}

#[derive(Debug, Args)]
pub(super) struct Add {
    /// An address or network.
    pub(super) source: String,
    /// For how long, as 90s, 15m, 1h, 1d.
    #[arg(long = "for", value_name = "DURATION")]
    pub(super) lasting: Option<String>,
    /// Why, for whoever lists it later.
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Remove {
    /// The address or network.
    pub(super) source: String,
    #[command(flatten)]
    pub(super) terms: IfPresent,
}

#[derive(Clone, Copy, Debug, Args)]
pub(super) struct IfPresent {
    /// It is no error if there is none, as where it has ended by itself.
    #[arg(long)]
    pub(super) if_present: bool,
}

#[derive(Debug, Args)]
pub(super) struct Import {
    /// The file; - is standard input.
    pub(super) file: PathBuf,
    /// For how long, where the line does not say.
    #[arg(long = "for", value_name = "DURATION")]
    pub(super) lasting: Option<String>,
    /// Why, for whoever lists them later.
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: Option<String>,
}

/// What may cut off an SSH connection.
#[derive(Debug, Args)]
pub(super) struct Forcible<T: Args> {
    #[command(flatten)]
    pub(super) what: T,
    #[command(flatten)]
    pub(super) force: Force,
}

#[derive(Debug, Args)]
pub(super) struct Allow {
    #[command(subcommand)]
    pub(super) verb: ListVerb<Add, Import, Forcible<Remove>>,
}

#[derive(Debug, Args)]
pub(super) struct Deny {
    #[command(subcommand)]
    pub(super) verb: ListVerb<Forcible<Add>, Forcible<Import>, Remove>,
}

#[derive(Debug, Subcommand)]
pub(super) enum ListVerb<A: Args, I: Args, R: Args> {
    /// Add an entry, for good unless said.
    Add(A),
    /// Take a run-time entry off.
    Del(R),
    /// The entries of the policy file and of run time.
    List(Json),
    /// Add all networks of a file: one a line, with an optional duration.
    Import(I),
}

#[derive(Debug, Args)]
pub(super) struct RuleArguments {
    #[command(subcommand)]
    pub(super) verb: RuleVerb,
}

#[derive(Debug, Subcommand)]
pub(super) enum RuleVerb {
    /// The rules and what they have counted.
    List(Json),
    /// Count and act again, as the policy says.
    Enable(RuleName),
    /// Count nothing and do nothing, until it is switched again or the daemon ends.
    Disable(RuleName),
    /// Count, and only say what would be done, until it is switched again or the daemon
    /// ends.
    Simulate(RuleName),
}

#[derive(Debug, Args)]
pub(super) struct Notify {
    #[command(subcommand)]
    pub(super) verb: NotifyVerb,
}

#[derive(Debug, Subcommand)]
pub(super) enum NotifyVerb {
    /// Send a mail to `notify.to` and a request to the webhook at once, and print what the
    /// servers answer.
    Test(Json),
}

#[derive(Debug, Args)]
pub(super) struct RuleName {
    /// The rule.
    pub(super) name: String,
}

#[derive(Debug, Args)]
pub(super) struct Account {
    #[command(subcommand)]
    pub(super) verb: AccountVerb,
}

#[derive(Debug, Subcommand)]
pub(super) enum AccountVerb {
    /// What is held against it.
    Show(AccountShow),
    /// Drop what is held against it.
    Unlock(AccountUnlock),
}

#[derive(Debug, Args)]
pub(super) struct AccountShow {
    /// The account, as it is typed at the login.
    pub(super) account: String,
    #[command(flatten)]
    pub(super) json: Json,
}

#[derive(Debug, Args)]
pub(super) struct AccountUnlock {
    /// The account, as it is typed at the login.
    pub(super) account: String,
    /// Why, for the audit log.
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: String,
    #[command(flatten)]
    pub(super) json: Json,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Audit {
    #[command(subcommand)]
    pub(super) verb: Option<AuditVerb>,
    #[command(flatten)]
    pub(super) filter: AuditFilter,
    /// Only how many there are, by kind.
    #[arg(long)]
    pub(super) count: bool,
    /// The values of this field that occur most often.
    #[arg(
        long,
        value_name = "FIELD",
        conflicts_with = "count",
        value_parser = PossibleValuesParser::new(FIELDS.map(|field| field.name()))
    )]
    pub(super) by: Option<String>,
    /// Rows or values at most [default: 100 rows, 20 values].
    #[arg(
        long,
        value_name = "N",
        conflicts_with = "count",
        value_parser = value_parser!(u64).range(1..=10_000)
    )]
    pub(super) limit: Option<u64>,
    #[command(flatten)]
    pub(super) json: Json,
}

#[derive(Debug, Subcommand)]
pub(super) enum AuditVerb {
    /// Print every row as a line of JSON, in the order in which they were written.
    Export(AuditExport),
    /// Delete all rows of an account, and its name, for good.
    Erase(AuditErase),
}

#[derive(Debug, Args)]
pub(super) struct AuditExport {
    #[command(flatten)]
    pub(super) filter: AuditFilter,
    /// Only rows with a number above this one: the last `id` of the export before.
    #[arg(long, value_name = "ID", value_parser = value_parser!(i64).range(0..))]
    pub(super) after: Option<i64>,
}

#[derive(Debug, Args)]
pub(super) struct AuditErase {
    /// The account, as it is typed.
    #[arg(long, value_name = "NAME")]
    pub(super) account: String,
}

/// Which rows are meant: those to which all that is given applies.
#[derive(Debug, Args)]
pub(super) struct AuditFilter {
    /// Whose login it was, as it is typed.
    #[arg(long, value_name = "NAME")]
    pub(super) account: Option<String>,
    /// The client's address, or a network.
    #[arg(long)]
    pub(super) source: Option<String>,
    /// The rule that counted or refused.
    #[arg(long, value_name = "NAME")]
    pub(super) rule: Option<String>,
    /// What was done; what only would have been is left out.
    #[arg(long, value_parser = PossibleValuesParser::new(ACTIONS.map(|action| action.name())))]
    pub(super) action: Option<String>,
    /// What the row is about.
    #[arg(long, value_parser = PossibleValuesParser::new(KINDS.map(|kind| kind.name())))]
    pub(super) kind: Option<String>,
    /// From then on: how long ago, as 7d, or when, as 2026-11-22T18:00:00Z.
    #[arg(long, value_name = "TIME")]
    pub(super) since: Option<String>,
    /// Until right before then.
    #[arg(long, value_name = "TIME")]
    pub(super) until: Option<String>,
    /// Where no daemon runs: the policy that says where the log is
    /// [default: /etc/limiter/limiter.toml, if there is one].
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct Explain {
    /// The address or network.
    #[arg(required_unless_present = "replayed", conflicts_with = "replayed")]
    pub(super) source: Option<String>,
    /// A capture: the verdict on each of its packets.
    #[arg(long, value_name = "FILE", group = "replayed")]
    pub(super) pcap: Option<PathBuf>,
    /// Events or an access log: what the rules make of each; - is standard input.
    #[arg(long, value_name = "FILE", group = "replayed")]
    pub(super) events: Option<PathBuf>,
    /// The policy for --pcap and --events.
    #[arg(long, value_name = "FILE", requires = "replayed", default_value = DEFAULT_CONFIG)]
    pub(super) config: PathBuf,
    /// What the lines of --events hold [default: as the policy's decide.logs say of this file, else
    /// json].
    #[arg(
        long,
        value_name = "FORMAT",
        requires = "events",
        conflicts_with = "pcap",
        value_parser = PossibleValuesParser::new(EventFormat::names().chain(["fields"]))
    )]
    pub(super) format: Option<String>,
    /// List the decision on each of --events, not only what began and ended.
    #[arg(long, requires = "events", conflicts_with_all = ["pcap", "json"])]
    pub(super) all: bool,
    #[command(flatten)]
    pub(super) json: Json,
}

#[derive(Debug, Args)]
pub(super) struct Integration {
    /// Which.
    #[arg(value_enum)]
    pub(super) proxy: Proxy,
    /// The policy.
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    pub(super) config: PathBuf,
    /// Where the proxy passes requests on to: an address with a port, or an upstream of nginx's.
    #[arg(long, value_name = "ORIGIN", default_value = "127.0.0.1:8080", value_parser = origin)]
    pub(super) origin: String,
    #[command(flatten)]
    pub(super) away: Away,
    /// Only one of the two files that nginx, HAProxy and Traefik take [default: both].
    #[arg(long, value_enum)]
    pub(super) part: Option<Part>,
}

#[derive(Clone, Copy, Debug, Args)]
#[group(multiple = false)]
pub(super) struct Away {
    /// Where limiter is away, requests pass [default].
    #[arg(long)]
    pub(super) fail_open: bool,
    /// Where limiter is away, requests are refused.
    #[arg(long)]
    pub(super) fail_closed: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Proxy {
    /// auth_request, with a second request that fetches the answer.
    Nginx,
    /// forward_auth.
    Caddy,
    /// A filter that speaks SPOE, limiter's `decide.spoe`.
    Haproxy,
    /// The middleware ForwardAuth. It fails closed.
    Traefik,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Part {
    /// nginx: once, for all servers.
    Http,
    /// nginx: in each server that asks.
    Server,
    /// HAProxy: haproxy.cfg.
    Frontend,
    /// HAProxy: what the filter of the frontend reads.
    Filter,
    /// Traefik: the dynamic configuration.
    Dynamic,
    /// Traefik: the static configuration.
    Static,
}

/// What can stand in a configuration as an address or a name.
fn origin(text: &str) -> Result<String, &'static str> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    if text.is_empty() || text.len() > 255 || !text.bytes().all(allowed) {
        return Err("allowed: an address or a name, with a port if it needs one");
    }
    Ok(text.to_owned())
}

#[derive(Debug, Args)]
pub(super) struct Capture {
    /// The file, which is replaced; - is standard output.
    pub(super) file: PathBuf,
    /// Only packets dropped for this reason.
    #[arg(long, value_name = "REASON", value_parser = PossibleValuesParser::new(Refusals::names()))]
    pub(super) reason: Option<String>,
    /// Packets at most, up to 10,000.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = value_parser!(u64).range(1..=10_000))]
    pub(super) count: u64,
    /// For how long at most, from 1s to 1h.
    #[arg(long = "for", value_name = "DURATION", default_value = "1m", value_parser = parse_duration)]
    pub(super) lasting: Duration,
    /// Bytes of each packet at most, from 64 to 1536.
    #[arg(long, value_name = "BYTES", default_value_t = 256, value_parser = value_parser!(u32).range(64..=1_536))]
    pub(super) snap_length: u32,
}

#[derive(Debug, Args)]
pub(super) struct Detach {
    /// The interface; all without.
    pub(super) interface: Option<String>,
    /// Where the program was left when no daemon runs: the policy's state.pins.
    #[arg(long, value_name = "DIRECTORY", default_value = DEFAULT_PINS)]
    pub(super) pins: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct Doctor {
    /// Only this interface; without, those of the policy, or all but lo.
    pub(super) interface: Option<String>,
    /// The policy [default: /etc/limiter/limiter.toml, if there is one].
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    #[command(flatten)]
    pub(super) json: Json,
}

fn assignment(text: &str) -> Result<(String, String), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or("write KEY=VALUE, as edge.enforce=false")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_right(line: &str) -> bool {
        Arguments::try_parse_from(line.split(' ')).is_ok()
    }

    #[test]
    fn the_definition_is_sound() {
        super::super::command().debug_assert();
    }

    #[test]
    fn what_can_be_typed() {
        for line in [
            "limiter run --config x.toml --log-format json --log-level debug --trace-packets",
            "limiter check x.toml --json",
            "limiter init --preset dns --set edge.enforce=false --set a=b",
            "limiter init --list --json",
            "limiter block add 192.0.2.1 --for 15m --reason text --limit https --force",
            "limiter block import x --force",
            "limiter deny add 192.0.2.1 --force",
            "limiter reload --force --json",
            "limiter reload --confirm",
            "limiter reload --confirm 2m --force",
            "limiter confirm",
            "limiter pause",
            "limiter pause --for 1h --json",
            "limiter resume",
            "limiter --socket s deny import -",
            "limiter allow del 192.0.2.1 --socket s",
            "limiter top --socket s",
            "limiter suggest --for 5m --json",
            "limiter explain 192.0.2.1 --json",
            "limiter explain --pcap x.pcap --config y.toml",
            "limiter explain --events x.log --config y.toml --format nginx --all",
            "limiter explain --events - --format fields --json",
            "limiter audit",
            "limiter audit --account ann --since 7d --count",
            "limiter audit --source 192.0.2.0/24 --rule login --action reject --json",
            "limiter audit --action reject --by source --limit 5",
            "limiter audit --kind hand --until 1h",
            "limiter audit export --since 1d --after 7",
            "limiter audit erase --account ann --socket s",
            "limiter capture --reason deny --count 20 --for 30s --snap-length 96 x.pcapng",
            "limiter capture -",
            "limiter rule list --json",
            "limiter rule simulate login",
            "limiter rule disable login",
            "limiter rule enable login",
            "limiter account show alice --json",
            "limiter account unlock alice --reason asked",
            "limiter origins",
            "limiter detach",
            "limiter doctor",
            "limiter doctor eth0 --config x.toml --json",
        ] {
            assert!(is_right(line), "{line}");
        }
        for line in [
            "limiter",
            "limiter explain",
            "limiter explain 192.0.2.1 --pcap x",
            "limiter explain 192.0.2.1 --events x",
            "limiter explain 192.0.2.1 --config x",
            "limiter explain --pcap x --events x",
            "limiter explain --pcap x --format json",
            "limiter explain --events x --format apache",
            "limiter explain --events x --all --json",
            "limiter audit --by colour",
            "limiter audit --by path --count",
            "limiter audit --action ban",
            "limiter audit --limit 0",
            "limiter audit --account ann erase",
            "limiter audit --count export",
            "limiter audit erase",
            "limiter audit export --count",
            "limiter audit export --after -1",
            "limiter init --set novalue",
            "limiter init --list --preset dns",
            "limiter sources --count -1",
            "limiter suggest --for never",
            "limiter allow add 192.0.2.1 --limit https",
            "limiter allow add 192.0.2.1 --force",
            "limiter deny del 192.0.2.1 --force",
            "limiter capture",
            "limiter capture --reason allow x",
            "limiter account unlock alice",
            "limiter rule simulate",
            "limiter capture --count 0 x",
            "limiter capture --count 10001 x",
            "limiter capture --snap-length 63 x",
            "limiter doctor eth0 eth1",
        ] {
            assert!(!is_right(line), "{line}");
        }
    }
}

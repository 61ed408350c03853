//! CrowdSec as Debian packages it, with one scenario and nobody outside.

use crate::{
    access_log::LIMIT,
    followers::{Follower, Heard},
    peers,
};
use anyhow::{Context as _, Result};
use limiter_tests::{
    clients,
    netns::Namespace,
    process::{Process, Scratch},
    wait,
};
use rusqlite::{Connection, OpenFlags};
use std::{
    cell::RefCell,
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};

/// Where the package has what its hub offered when it was made.
const HUB: &str = "usr/share/crowdsec/hub";
/// Parsers of the hub that the scenario needs, and the stage of each.
const PARSERS: [(&str, &str); 3] = [
    ("s00-raw", "syslog-logs"),
    ("s01-parse", "nginx-logs"),
    ("s02-enrich", "dateparse-enrich"),
];
const METRICS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 6060);

/// A running agent with the local API in the same process, as installed.
pub(crate) struct CrowdSec {
    process: RefCell<Process>,
    namespace: Namespace,
    scratch: Scratch,
}

impl CrowdSec {
    pub(crate) fn start(log: &Path) -> Result<Self> {
        let scratch = Scratch::new()?;
        configure(&scratch, log)?;
        let namespace = Namespace::new()?;
        let configuration = scratch.path("config.yaml");
        let mut register = namespace.command(peers::file("usr/bin/cscli")?);
        register.arg("-c").arg(&configuration).args([
            "machines",
            "add",
            "bench",
            "--password",
            "bench",
            "--force",
            "-f",
        ]);
        peers::output(register.arg(scratch.path("etc/credentials.yaml")))?;
        let mut agent = namespace.command(peers::file("usr/bin/crowdsec")?);
        agent.arg("-c").arg(&configuration);
        let printed = scratch.path("printed");
        let process = Process::start(&mut agent, &printed)?;
        let agent = Self {
            process: RefCell::new(process),
            namespace,
            scratch,
        };
        wait::until("CrowdSec", wait::SOON * 3, || {
            peers::ensure_runs(&mut agent.process.borrow_mut(), &printed)?;
            let log = fs::read_to_string(&printed).unwrap_or_default();
            let is_up = log.contains("Starting processing data") && agent.heard().is_ok();
            Ok(is_up.then_some(()))
        })?;
        Ok(agent)
    }
}

/// The package's configuration with other places, and with the write-ahead log that it warns
/// about where it is off.
fn configure(scratch: &Scratch, log: &Path) -> Result<()> {
    let etc = scratch.path("etc");
    let hub = peers::file(HUB)?;
    for (stage, name) in PARSERS {
        let directory = etc.join("parsers").join(stage);
        fs::create_dir_all(&directory).context("making a directory")?;
        let from = hub.join(format!("parsers/{stage}/crowdsecurity/{name}.yaml"));
        fs::copy(&from, directory.join(format!("{name}.yaml")))
            .with_context(|| format!("copying {}", from.display()))?;
    }
    for name in ["scenarios", "notifications", "plugins", "../data"] {
        fs::create_dir_all(etc.join(name)).context("making a directory")?;
    }
    let write = |name: &str, text: String| {
        fs::write(etc.join(name), text).with_context(|| format!("writing {name}"))
    };
    write("scenarios/login.yaml", scenario())?;
    write(
        "acquis.yaml",
        format!("filenames:\n - {}\nlabels:\n  type: nginx\n", log.display()),
    )?;
    write("profiles.yaml", PROFILE.to_owned())?;
    write("simulation.yaml", "simulation: off\n".to_owned())?;
    write("credentials.yaml", String::new())?;
    let patterns = peers::file("etc/crowdsec/patterns")?;
    std::os::unix::fs::symlink(patterns, etc.join("patterns")).context("linking patterns")?;
    let places = [
        ("ETC", etc.clone()),
        ("DATA", scratch.path("data")),
        ("HUB", hub),
    ];
    let mut text = CONFIGURATION.to_owned();
    for (word, place) in places {
        text = text.replace(word, &place.display().to_string());
    }
    write("../config.yaml", text)
}

/// The fifth of a source within ten minutes overflows the bucket. It leaks, where the others
/// count exactly; all failures of the log come within seconds.
fn scenario() -> String {
    let capacity = LIMIT - 1;
    format!(
        "type: leaky\nname: login\ndescription: Failed logins\n\
         filter: \"evt.Meta.log_type == 'http_access-log' && evt.Parsed.verb == 'POST' && \
         evt.Parsed.request == '/login' && evt.Meta.http_status == '401'\"\n\
         groupby: evt.Meta.source_ip\ncapacity: {capacity}\nleakspeed: 150s\nblackhole: 1h\n\
         labels:\n service: http\n type: bf\n remediation: true\n"
    )
}

const PROFILE: &str = "\
name: default_ip_remediation
filters:
 - Alert.Remediation == true && Alert.GetScope() == \"Ip\"
decisions:
 - type: ban
   duration: 1h
on_success: break
";

const CONFIGURATION: &str = "\
common:
  daemonize: false
  log_media: stdout
  log_level: info
  working_dir: DATA
config_paths:
  config_dir: ETC
  data_dir: DATA
  simulation_path: ETC/simulation.yaml
  hub_dir: HUB
  index_path: HUB/.index.json
  notification_dir: ETC/notifications
  plugin_dir: ETC/plugins
crowdsec_service:
  acquisition_path: ETC/acquis.yaml
  parser_routines: 1
cscli:
  output: human
db_config:
  log_level: info
  type: sqlite
  db_path: DATA/crowdsec.db
  use_wal: true
  flush:
    max_items: 5000
    max_age: 7d
api:
  client:
    insecure_skip_verify: false
    credentials_path: ETC/credentials.yaml
  server:
    log_level: info
    listen_uri: 127.0.0.1:8080
    profiles_path: ETC/profiles.yaml
    trusted_ips:
      - 127.0.0.1
prometheus:
  enabled: true
  level: full
  listen_addr: 127.0.0.1
  listen_port: 6060
";

impl Follower for CrowdSec {
    fn id(&self) -> Result<u32> {
        Ok(self.process.borrow().id())
    }

    fn heard(&self) -> Result<Heard> {
        let second = Duration::from_secs(1);
        let answer = clients::get(&self.namespace, METRICS, "/metrics", second)?;
        let text = String::from_utf8(answer.body).context("reading CrowdSec's metrics")?;
        let hits = text
            .lines()
            .filter(|line| line.starts_with("cs_filesource_hits_total{"))
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
        Ok(Heard::Lines(hits.sum::<f64>() as usize))
    }

    fn banned(&self) -> Result<usize> {
        let count = "SELECT count(DISTINCT value) FROM decisions";
        let count: i64 = self.database()?.query_row(count, [], |row| row.get(0))?;
        Ok(usize::try_from(count)?)
    }

    fn sources(&self) -> Result<BTreeSet<IpAddr>> {
        let database = self.database()?;
        let mut decisions = database.prepare("SELECT value FROM decisions")?;
        let values = decisions.query_map([], |row| row.get::<_, String>(0))?;
        values.map(|value| Ok(value?.parse()?)).collect()
    }
}

impl CrowdSec {
    /// Where its local API keeps decisions.
    fn database(&self) -> Result<Connection> {
        let path = self.scratch.path("data/crowdsec.db");
        let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        database.busy_timeout(Duration::from_secs(1))?;
        Ok(database)
    }
}

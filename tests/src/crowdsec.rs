//! CrowdSec as Debian packages it, with nobody outside.

use crate::{
    netns::Namespace,
    peers,
    process::{Process, Scratch},
};
use anyhow::{Context as _, Result};
use std::{
    cell::RefCell,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::Command,
};

/// Where the package has what its hub offered when it was made.
const HUB: &str = "usr/share/crowdsec/hub";
/// Where its local API listens, in a namespace of its own.
pub const API: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
/// Where its metrics are.
pub const METRICS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 6060);

/// A running server, killed when dropped.
#[derive(Debug)]
pub struct CrowdSec {
    process: RefCell<Process>,
    namespace: Namespace,
    scratch: Scratch,
}

impl CrowdSec {
    /// Starts one with `parsers` of its hub, each with its stage, further `files` below its
    /// configuration (`scenarios/login.yaml`), and these arguments. It is not waited for.
    ///
    /// # Errors
    /// The package was not unpacked, or nothing can be started.
    pub fn start(
        parsers: &[(&str, &str)],
        files: &[(&str, String)],
        arguments: &[&str],
    ) -> Result<Self> {
        let scratch = Scratch::new()?;
        configure(&scratch, parsers, files)?;
        let namespace = Namespace::new()?;
        let mut register = cscli(&namespace, &scratch)?;
        register.args(["machines", "add", "here", "--password", "here", "--force"]);
        let credentials = scratch.path("etc/credentials.yaml");
        peers::output(register.arg("-f").arg(credentials))?;
        let mut server = namespace.command(peers::file("usr/bin/crowdsec")?);
        server.arg("-c").arg(scratch.path("config.yaml"));
        let printed = scratch.path("printed");
        let process = Process::start(server.args(arguments), &printed)?;
        Ok(Self {
            process: RefCell::new(process),
            namespace,
            scratch,
        })
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.process.borrow().id()
    }

    /// Where it runs.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// A file of its data.
    pub fn data(&self, name: &str) -> PathBuf {
        self.scratch.path("data").join(name)
    }

    /// What it has printed.
    ///
    /// # Errors
    /// It has ended; with what it printed.
    pub fn log(&self) -> Result<String> {
        let printed = self.scratch.path("printed");
        peers::ensure_runs(&mut self.process.borrow_mut(), &printed)?;
        Ok(fs::read_to_string(printed).unwrap_or_default())
    }

    /// Runs its command line; returns what that printed.
    ///
    /// # Errors
    /// It fails.
    pub fn ask(&self, arguments: &[&str]) -> Result<String> {
        let mut command = cscli(&self.namespace, &self.scratch)?;
        peers::output(command.args(arguments))
    }
}

fn cscli(namespace: &Namespace, scratch: &Scratch) -> Result<Command> {
    let mut command = namespace.command(peers::file("usr/bin/cscli")?);
    command.arg("-c").arg(scratch.path("config.yaml"));
    Ok(command)
}

/// The package's configuration with other places, and with the write-ahead log that it warns
/// about where it is off.
fn configure(scratch: &Scratch, parsers: &[(&str, &str)], files: &[(&str, String)]) -> Result<()> {
    let etc = scratch.path("etc");
    let hub = peers::file(HUB)?;
    for (stage, name) in parsers {
        let directory = etc.join("parsers").join(stage);
        fs::create_dir_all(&directory).context("making a directory")?;
        let from = hub.join(format!("parsers/{stage}/crowdsecurity/{name}.yaml"));
        fs::copy(&from, directory.join(format!("{name}.yaml")))
            .with_context(|| format!("copying {}", from.display()))?;
    }
    for name in ["scenarios", "notifications", "plugins", "../data"] {
        fs::create_dir_all(etc.join(name)).context("making a directory")?;
    }
    let write = |name: &str, text: &str| {
        fs::write(etc.join(name), text).with_context(|| format!("writing {name}"))
    };
    write("profiles.yaml", PROFILE)?;
    write("simulation.yaml", "simulation: off\n")?;
    write("credentials.yaml", "")?;
    files
        .iter()
        .try_for_each(|(name, text)| write(name, text))?;
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
    write("../config.yaml", &text)
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

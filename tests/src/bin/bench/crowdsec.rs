//! CrowdSec as Debian packages it, with one scenario and nobody outside.

use crate::{
    access_log::LIMIT,
    followers::{Follower, Heard},
};
use anyhow::{Context as _, Result};
use limiter_tests::{
    clients,
    crowdsec::{self, METRICS},
    wait,
};
use rusqlite::{Connection, OpenFlags};
use std::{collections::BTreeSet, net::IpAddr, path::Path, time::Duration};

/// Parsers of the hub that the scenario needs, and the stage of each.
const PARSERS: [(&str, &str); 3] = [
    ("s00-raw", "syslog-logs"),
    ("s01-parse", "nginx-logs"),
    ("s02-enrich", "dateparse-enrich"),
];

/// A running agent with the local API in the same process, as installed.
pub(crate) struct CrowdSec(crowdsec::CrowdSec);

impl CrowdSec {
    pub(crate) fn start(log: &Path) -> Result<Self> {
        let acquisition = format!("filenames:\n - {}\nlabels:\n  type: nginx\n", log.display());
        let files = [
            ("scenarios/login.yaml", scenario()),
            ("acquis.yaml", acquisition),
        ];
        let agent = Self(crowdsec::CrowdSec::start(&PARSERS, &files, &[])?);
        wait::until("CrowdSec", wait::SOON * 3, || {
            let log = agent.0.log()?;
            let is_up = log.contains("Starting processing data") && agent.heard().is_ok();
            Ok(is_up.then_some(()))
        })?;
        Ok(agent)
    }
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

impl Follower for CrowdSec {
    fn id(&self) -> Result<u32> {
        Ok(self.0.id())
    }

    fn heard(&self) -> Result<Heard> {
        let second = Duration::from_secs(1);
        let answer = clients::get(self.0.namespace(), METRICS, "/metrics", second)?;
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
        let path = self.0.data("crowdsec.db");
        let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        database.busy_timeout(Duration::from_secs(1))?;
        Ok(database)
    }
}

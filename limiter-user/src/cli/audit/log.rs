//! Whom questions go to: the daemon, or, where none runs, the file.

use std::io::{Write as _, stderr};
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::cli::args::DEFAULT_CONFIG;
use crate::cli::{Client, ClientError, Failure};
use crate::control::api::{AuditAnswer, Status};
use crate::control::audit::Asked;
use crate::policy::{self, Accounts, DEFAULT_STATE, escape};
use crate::store::audit::Reader;

/// How long an answer of the file may take: nobody else waits for it.
const WITHIN: Duration = Duration::from_secs(600);

/// Where the log is asked.
pub(super) struct Log<'a> {
    client: &'a Client,
    config: Option<&'a Path>,
    file: Option<File>,
}

/// Why no rule of this name is in force, if none is.
pub(super) fn unknown(name: &str, rules: &[String]) -> Option<String> {
    if rules.iter().any(|rule| rule == name) {
        return None;
    }
    let name = escape(name);
    let there = match rules {
        [] => "the policy has none".to_owned(),
        rules => format!("there are {}", rules.join(", ")),
    };
    Some(format!(
        "no rule `{name}` is in force ({there}); this is what the log has of one that is gone"
    ))
}

/// The log of a daemon that does not run.
struct File {
    reader: Reader,
    accounts: Option<Accounts>,
    /// Those of the policy; `None`: there is none.
    rules: Option<Vec<String>>,
}

impl<'a> Log<'a> {
    /// That of the daemon; without one, that of the state directory that this policy
    /// names.
    pub(super) const fn new(client: &'a Client, config: Option<&'a Path>) -> Self {
        Self {
            client,
            config,
            file: None,
        }
    }

    /// Asks.
    pub(super) fn ask(&mut self, parameters: &[(&str, &str)]) -> Result<AuditAnswer, Failure> {
        if self.file.is_none() {
            match self.client.get("/v1/audit", parameters) {
                Err(error @ ClientError::NoDaemon { .. }) => {
                    self.file = Some(File::open(self.config, &error)?);
                }
                answered => return Ok(answered?),
            }
        }
        let asked = Asked::of(parameters).map_err(ClientError::Refused)?;
        let Some(file) = &mut self.file else {
            return Err(Failure::Said);
        };
        let accounts = file.accounts.as_ref();
        let answered = asked.answer(&mut file.reader, accounts, SystemTime::now());
        answered.map_err(|error| Failure::Words(error.to_string()))
    }
}

impl Log<'_> {
    /// The rules in force, or of the policy where no daemon runs; `None`: nobody can tell.
    pub(super) fn rules(&self) -> Option<Vec<String>> {
        match &self.file {
            Some(file) => file.rules.clone(),
            None => {
                let status = self.client.get::<Status>("/v1/status", &[]);
                status.ok().map(|status| status.rules)
            }
        }
    }
}

impl File {
    /// Opens the file since there is no daemon, and says so.
    fn open(config: Option<&Path>, no_daemon: &ClientError) -> Result<Self, Failure> {
        let default = Path::new(DEFAULT_CONFIG);
        let config = config.or_else(|| default.exists().then_some(default));
        let loaded = config.map(policy::load).transpose();
        let loaded = loaded.map_err(|error| Failure::Words(format!("{no_daemon}\n{error}")))?;
        let rules = loaded.as_ref().map(|loaded| {
            let decide = loaded.policy.decide.iter();
            let rules = decide.flat_map(|decide| &decide.rules);
            rules.map(|rule| rule.name.clone()).collect()
        });
        let (directory, accounts) = match loaded {
            Some(loaded) => (
                loaded.policy.state.directory,
                loaded.policy.decide.map(|decide| decide.accounts),
            ),
            None => (DEFAULT_STATE.into(), None),
        };
        let reader = Reader::open(&directory, WITHIN)
            .map_err(|error| Failure::Words(format!("{no_daemon}\n{error}")))?;
        let directory = directory.display().to_string();
        // Whoever closed standard error does not want it.
        let _written = writeln!(
            stderr(),
            "limiter: no daemon runs; this is what {} has",
            escape(&directory)
        );
        Ok(Self {
            reader,
            accounts,
            rules,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keeper::Now;
    use crate::keeper::records::Records as _;
    use crate::store::Store;
    use crate::store::audit::ByHand;

    #[test]
    fn a_rule_that_is_not_in_force_is_named() {
        let rules = ["login".to_owned(), "search".to_owned()];
        assert_eq!(unknown("login", &rules), None);
        let said = unknown("logn\u{1b}", &rules).unwrap();
        assert!(said.contains("no rule `logn\\u{1b}` is in force"), "{said}");
        assert!(said.contains("there are login, search"), "{said}");
        assert!(unknown("x", &[]).unwrap().contains("the policy has none"));
    }

    /// With the daemon dead the file answers, and without one it is said what is missing.
    #[test]
    fn the_file_answers_where_no_daemon_does() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        let config = directory.path().join("limiter.toml");
        let policy = format!("[edge]\ninterfaces = ['lo']\n[state]\ndirectory = {state:?}\n");
        std::fs::write(&config, policy).unwrap();
        let client = Client::new(&directory.path().join("none.sock"));
        let ask = || Log::new(&client, Some(&config)).ask(&[("count", "true")]);
        let error = ask().unwrap_err().to_string();
        assert!(error.contains("limiter run"), "{error}");
        assert!(error.contains("no audit log in"), "{error}");
        let store = Store::open(&state, Now::read()).unwrap();
        let by_hand = ByHand::new(SystemTime::now(), 0, "resume");
        store.audit().record_by_hand(by_hand);
        drop(store);
        let AuditAnswer::Counted(counted) = ask().unwrap() else {
            panic!("no count");
        };
        assert_eq!(counted.count, 1);
        let refused = Log::new(&client, Some(&config)).ask(&[("by", "colour")]);
        assert!(refused.unwrap_err().to_string().contains("not a field"));
    }
}

//! The unit of the service manager: whom the daemon may talk to.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::finding::{About, Finding, Level};
use crate::policy::Notify;

const UNIT: &str = "limiter.service";

/// Where units and what is added to them are, the most important first (`systemd.unit(5)`).
const DIRECTORIES: [&str; 5] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// Bytes of a file that are read at most.
const MOST: u64 = 1 << 20;

/// The addresses that the unit lets the daemon talk to, in its own words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// There is a unit.
    is_there: bool,
    denied: Vec<String>,
    allowed: Vec<String>,
}

impl Facts {
    pub(super) fn read() -> Self {
        Self::below(&DIRECTORIES.map(Path::new))
    }

    fn below(directories: &[&Path]) -> Self {
        let unit = directories.iter().map(|it| it.join(UNIT));
        let Some(unit) = unit.into_iter().find_map(|path| text(&path)) else {
            return Self::default();
        };
        // By name, whichever directory they are in; of those with the same name the first counts.
        let mut added: BTreeMap<String, PathBuf> = BTreeMap::new();
        for directory in directories {
            let files = fs::read_dir(directory.join(format!("{UNIT}.d")));
            let files = files.into_iter().flatten().flatten();
            for path in files.map(|file| file.path()) {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                if name.ends_with(".conf") {
                    added.entry(name.into_owned()).or_insert(path);
                }
            }
        }
        let added = added.values().filter_map(|path| text(path));
        let mut facts = Self {
            is_there: true,
            ..Self::default()
        };
        for text in std::iter::once(unit).chain(added) {
            facts.add(&text);
        }
        facts
    }

    /// What a file says; an assignment of nothing takes back those before.
    fn add(&mut self, text: &str) {
        for line in text.lines() {
            let Some((key, value)) = line.trim().split_once('=') else {
                continue;
            };
            let list = match key.trim_end() {
                "IPAddressDeny" => &mut self.denied,
                "IPAddressAllow" => &mut self.allowed,
                _ => continue,
            };
            if value.trim().is_empty() {
                list.clear();
            }
            list.extend(value.split_whitespace().map(str::to_owned));
        }
    }

    /// Whether nothing but this host can be talked to.
    fn is_closed(&self) -> bool {
        let is_own = |word: &String| {
            let address = word.split('/').next().unwrap_or_default();
            matches!(&**word, "localhost" | "link-local" | "multicast")
                || address.parse::<IpAddr>().is_ok_and(|it| it.is_loopback())
        };
        self.is_there && self.denied.iter().any(|it| it == "any") && self.allowed.iter().all(is_own)
    }

    pub(super) fn judge(&self, notify: Option<&Notify>) -> Vec<Finding> {
        let mut about = About::new("unit");
        let elsewhere = notify.map(elsewhere).unwrap_or_default();
        if !elsewhere.is_empty() && self.is_closed() {
            about.mend(
                Level::Warning,
                format!(
                    "{UNIT} lets limiter talk to this host alone, and [notify] names {}: nothing \
                     will arrive",
                    elsewhere.join(" and ")
                ),
                "systemctl edit limiter, and under [Service] IPAddressAllow= with the addresses of \
                 the servers and of the name servers; then systemctl restart limiter",
            );
        }
        about.findings()
    }
}

/// The servers of `[notify]` that are not this host.
fn elsewhere(notify: &Notify) -> Vec<String> {
    let mail = notify.smtp.as_ref().map(|smtp| smtp.host.clone());
    let webhook = notify.webhook.as_ref().and_then(|it| {
        let url = it.url.parse::<hyper::Uri>().ok()?;
        Some(url.host()?.to_owned())
    });
    let is_here = |host: &str| {
        let address = host.trim_start_matches('[').trim_end_matches(']');
        let is_loopback = address.parse::<IpAddr>().is_ok_and(|it| it.is_loopback());
        is_loopback || host.eq_ignore_ascii_case("localhost")
    };
    let all = mail.into_iter().chain(webhook);
    all.filter(|host| !is_here(host)).collect()
}

fn text(path: &Path) -> Option<String> {
    let is_small = fs::metadata(path).is_ok_and(|it| it.is_file() && it.len() <= MOST);
    is_small.then(|| fs::read_to_string(path).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Hidden, Language, Templates, Webhook};

    const SHIPPED: &str = include_str!("../../../packaging/systemd/limiter.service");

    fn notify(url: &str) -> Notify {
        Notify {
            smtp: None,
            webhook: Some(Webhook {
                url: url.to_owned(),
                secret: Hidden("0123456789abcdef".to_owned()),
            }),
            to: None,
            per_hour: 60,
            accounts: false,
            language: Language::En,
            templates: Templates::default(),
            certificates: None,
        }
    }

    #[test]
    fn the_unit_as_shipped_closes_the_way_until_somebody_opens_it() {
        let root = tempfile::tempdir().unwrap();
        let [etc, lib] = ["etc", "lib"].map(|name| root.path().join(name));
        let directories = [etc.as_path(), lib.as_path()];
        let hook = notify("https://hooks.example:8443/limiter");
        let found = || Facts::below(&directories).judge(Some(&hook));
        assert_eq!(found(), []);
        fs::create_dir_all(etc.join("limiter.service.d")).unwrap();
        fs::create_dir_all(&lib).unwrap();
        fs::write(lib.join(UNIT), SHIPPED).unwrap();
        let findings = found();
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!(findings[0].level, Level::Warning);
        assert!(
            findings[0].what.contains("names hooks.example:"),
            "{findings:?}"
        );
        let facts = Facts::below(&directories);
        for here in [
            "http://127.0.0.1:1/",
            "http://[::1]/x",
            "https://localhost/",
        ] {
            assert_eq!(facts.judge(Some(&notify(here))), [], "{here}");
        }
        assert_eq!(facts.judge(None), []);
        let edit = etc.join("limiter.service.d/override.conf");
        for open in [
            "[Service]\nIPAddressAllow=192.0.2.25 192.0.2.53\n",
            "[Service]\nIPAddressDeny=\n",
        ] {
            fs::write(&edit, open).unwrap();
            assert_eq!(found(), [], "{open}");
        }
    }
}

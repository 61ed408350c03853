//! Interface names: which there are, and which a policy means.

use std::collections::HashSet;
use std::io;

use nix::net::if_::InterfaceFlags;

/// An interface of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Present {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// Switched on, and with a carrier.
    pub is_up: bool,
}

/// The interfaces of this network namespace, by index.
///
/// Asked of the kernel and not of `/sys/class/net`, which shows the namespace
/// that it was mounted in.
///
/// # Errors
/// The kernel does not say.
pub fn present() -> io::Result<Vec<Present>> {
    let works = InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING;
    let up: HashSet<String> = nix::ifaddrs::getifaddrs()?
        .filter(|address| address.flags.contains(works))
        .map(|address| address.interface_name)
        .collect();
    let list = nix::net::if_::if_nameindex().map_err(io::Error::from)?;
    let mut found: Vec<Present> = list
        .iter()
        .map(|interface| {
            let name = interface.name().to_string_lossy().into_owned();
            Present {
                is_up: up.contains(&name),
                name,
                index: interface.index(),
            }
        })
        .collect();
    found.sort_by_key(|interface| interface.index);
    Ok(found)
}

/// What a policy's names and globs mean here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    /// The interfaces meant, each once, in the order of the policy.
    pub names: Vec<String>,
    /// Names (not globs) that no interface has.
    pub unknown: Vec<String>,
    /// Globs that match nothing, and what else is probably not meant.
    pub notices: Vec<String>,
}

/// Finds the interfaces that `patterns` mean among `present`. A glob does not
/// match `lo`: traffic of this host with itself is meant by nobody who writes
/// `*`.
#[must_use]
pub fn resolve(patterns: &[String], present: &[Present]) -> Resolved {
    let mut resolved = Resolved::default();
    for pattern in patterns {
        let glob = glob::Pattern::new(pattern).ok();
        let glob = glob.filter(|_| is_glob(pattern));
        let is_meant = |name: &str| match &glob {
            // A name is never taken apart: an interface may be called `a[b`.
            Some(glob) => name == pattern || (name != "lo" && glob.matches(name)),
            None => name == pattern,
        };
        let meant: Vec<&Present> = present.iter().filter(|i| is_meant(&i.name)).collect();
        if meant.is_empty() {
            match glob {
                Some(_) => resolved.notices.push(format!(
                    "the glob `{pattern}` in edge.interfaces matches no interface"
                )),
                None => resolved.unknown.push(pattern.clone()),
            }
        }
        for interface in meant {
            if !resolved.names.contains(&interface.name) {
                resolved.names.push(interface.name.clone());
            }
        }
    }
    if resolved.names.is_empty() && resolved.unknown.is_empty() {
        let notice = "edge.interfaces names no interface: no packet is looked at";
        resolved.notices.push(notice.to_owned());
    }
    resolved
}

/// Whether this is a glob and not a name.
#[must_use]
pub fn is_glob(pattern: &str) -> bool {
    pattern.contains(['*', '?', '['])
}

/// The error for names that no interface has.
#[must_use]
pub fn unknown(names: &[String], present: &[Present]) -> String {
    let there: Vec<&str> = present.iter().map(|i| i.name.as_str()).collect();
    format!(
        "edge.interfaces: there is no interface `{}`; there are: {}",
        names.join("`, `"),
        there.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Vec<Present> {
        let names = ["lo", "eth0", "eth1", "wg0"];
        let indices = 1..;
        names
            .into_iter()
            .zip(indices)
            .map(|(name, index)| Present {
                name: name.to_owned(),
                index,
                is_up: true,
            })
            .collect()
    }

    fn of(patterns: &[&str]) -> Resolved {
        let patterns: Vec<String> = patterns.iter().map(|p| (*p).to_owned()).collect();
        resolve(&patterns, &host())
    }

    #[test]
    fn names_and_globs_are_found_once_each() {
        assert_eq!(of(&["eth1", "eth*"]).names, ["eth1", "eth0"]);
        assert_eq!(of(&["*"]).names, ["eth0", "eth1", "wg0"]);
        assert_eq!(of(&["lo"]).names, ["lo"]);
    }

    #[test]
    fn unknown_names_are_errors_and_empty_globs_notices() {
        let resolved = of(&["eth7", "ens*", "wg0"]);
        assert_eq!(resolved.unknown, ["eth7"]);
        assert_eq!(resolved.names, ["wg0"]);
        assert_eq!(resolved.notices.len(), 1, "{resolved:?}");
        assert!(unknown(&resolved.unknown, &host()).contains("`eth7`; there are: lo, eth0"));
    }

    #[test]
    fn nothing_to_attach_to_is_said() {
        assert_eq!(of(&[]).notices.len(), 1);
        assert_eq!(of(&["ens*"]).notices.len(), 2);
    }

    #[test]
    fn the_kernel_names_the_loopback() {
        assert!(present().unwrap().iter().any(|i| i.name == "lo"));
        // Of interfaces that are down there is a word too.
        let names = nix::net::if_::if_nameindex().unwrap().iter().count();
        assert_eq!(present().unwrap().len(), names);
    }
}

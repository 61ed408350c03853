//! List files, and the policy as a file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use super::super::{DiskFiles, ListFiles, Loaded, PolicyError, load, parse};
use super::brief;

/// Files in memory; globs are matched against whole paths.
struct Memory(BTreeMap<PathBuf, Vec<u8>>);

impl ListFiles for Memory {
    fn matching(&self, pattern: &str) -> io::Result<Vec<PathBuf>> {
        let pattern = glob::Pattern::new(pattern).map_err(io::Error::other)?;
        let paths = self.0.keys().filter(|path| pattern.matches_path(path));
        Ok(paths.cloned().collect())
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let bytes = self.0.get(path).filter(|bytes| !bytes.is_empty());
        bytes.cloned().ok_or(io::ErrorKind::PermissionDenied.into())
    }
}

fn with_files(text: &str, files: &[(&str, &str)]) -> Result<Loaded, PolicyError> {
    let files = files
        .iter()
        .map(|(path, text)| (PathBuf::from(path), text.as_bytes().to_vec()));
    let text = format!("[edge]\ninterfaces = ['eth0']\n{text}\n");
    parse("limiter.toml", &text, &Memory(files.collect()))
}

#[test]
fn list_files_are_merged_in() {
    let text = "allow = ['192.0.2.1']\nallow_files = ['/a/*.txt']\ndeny_files = ['/d']";
    let files = [
        ("/a/1.txt", "# ours\n10.0.0.0/8 # office\r\n\n  192.0.2.1\n"),
        ("/a/2.txt", "\u{feff}2001:db8::/32"),
        ("/d", "198.51.100.0/24\n"),
    ];
    let Loaded { policy, warnings } = with_files(text, &files).unwrap();
    let shown = |nets: &[ipnet::IpNet]| nets.iter().map(ToString::to_string).collect::<Vec<_>>();
    let allowed = ["10.0.0.0/8", "192.0.2.1/32", "2001:db8::/32"];
    assert_eq!(shown(&policy.edge.allow), allowed);
    assert_eq!(shown(&policy.edge.deny), ["198.51.100.0/24"]);
    assert!(warnings.is_empty());
}

#[test]
fn errors_in_list_files_have_their_place() {
    let text = "allow = ['10.0.0.0/8']\ndeny_files = ['/d/*']";
    let files = [
        ("/d/1", "192.0.2.1\n  10.0.0.1/8 # no\n"),
        ("/d/2", "x\n"),
        ("/d/3", ""),
    ];
    let fault = with_files(text, &files).unwrap_err();
    let found: Vec<String> = fault
        .diagnostics
        .iter()
        .map(|d| format!("{}:{}", d.file, brief(d)))
        .collect();
    assert!(found[0].starts_with("limiter.toml:4:15: `/d/3` cannot be read: permission denied"));
    assert!(found[1].starts_with("/d/1:2:3: `10.0.0.1/8` has bits"));
    assert!(found[2].starts_with("/d/2:1:1: `x` is not a network"));
    assert_eq!(found.len(), 3);

    let fault = with_files(text, &[("/d/1", "192.0.2.1\n10.9.0.0/16\n")]).unwrap_err();
    assert!(
        fault
            .to_string()
            .starts_with("/d/1:2:1: deny 10.9.0.0/16 lies inside allow 10.0.0.0/8"),
        "{fault}"
    );
}

/// A directory of its own for one test, removed at its end.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("limiter-{name}-{}", std::process::id()));
        fs::create_dir_all(path.join("lists")).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn relative_globs_start_at_the_policy() {
    let directory = Directory::new("relative [x]");
    let policy = directory.0.join("limiter.toml");
    fs::write(&policy, "[edge]\nallow_files = ['lists/*.txt']\n").unwrap();
    fs::write(directory.0.join("lists/b.txt"), "192.0.2.1\n").unwrap();
    fs::write(directory.0.join("lists/other"), "what?\n").unwrap();
    let allow = load(&policy).unwrap().policy.edge.allow;
    assert_eq!(allow, ["192.0.2.1/32".parse().unwrap()]);

    let files = DiskFiles {
        directory: PathBuf::from("/nonexistent"),
    };
    let absolute = directory
        .0
        .join("lists")
        .to_string_lossy()
        .replace("[x]", "?x?");
    assert_eq!(files.matching(&format!("{absolute}/*")).unwrap().len(), 2);
}

#[test]
fn a_file_that_is_none_says_what_to_do() {
    let directory = Directory::new("unreadable");
    let missing = load(&directory.0.join("none.toml"))
        .unwrap_err()
        .to_string();
    assert!(
        missing.contains("none.toml: cannot read the policy: No such file"),
        "{missing}"
    );
    assert!(
        missing.contains("write one with `limiter init`"),
        "{missing}"
    );

    let binary = directory.0.join("binary.toml");
    fs::write(&binary, b"[edge]\n# \xff\n").unwrap();
    let fault = load(&binary).unwrap_err();
    assert_eq!(
        brief(&fault.diagnostics[0]),
        "2:3: this is not UTF-8 text; save the file as UTF-8"
    );

    assert!(
        load(&directory.0)
            .unwrap_err()
            .to_string()
            .contains("cannot read")
    );
}

//! List files, and the policy as a file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use super::super::{
    Diagnostic, DiskFiles, ListFiles, Loaded, PolicyError, Stamp, load, parse, read_list,
};
use super::brief;

/// Files in memory; globs are matched against whole paths.
struct Memory(BTreeMap<PathBuf, Vec<u8>>);

impl ListFiles for Memory {
    fn matching(&self, pattern: &str) -> io::Result<Vec<PathBuf>> {
        let pattern = glob::Pattern::new(pattern).map_err(io::Error::other)?;
        let paths = self.0.keys().filter(|path| pattern.matches_path(path));
        Ok(paths.cloned().collect())
    }

    fn stamp(&self, _path: &Path) -> io::Result<Stamp> {
        Ok(Stamp::default())
    }

    fn read(&self, path: &Path) -> io::Result<(Vec<u8>, Stamp)> {
        let bytes = self.0.get(path).filter(|bytes| !bytes.is_empty());
        let bytes = bytes.cloned().ok_or(io::ErrorKind::PermissionDenied)?;
        Ok((bytes, Stamp::default()))
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
    let Loaded {
        policy, warnings, ..
    } = with_files(text, &files).unwrap();
    let shown = |nets: &[ipnet::IpNet]| nets.iter().map(ToString::to_string).collect::<Vec<_>>();
    let allowed = ["10.0.0.0/8", "192.0.2.1/32", "2001:db8::/32"];
    assert_eq!(shown(&policy.edge.allow), allowed);
    assert_eq!(shown(&policy.edge.deny), ["198.51.100.0/24"]);
    assert!(warnings.is_empty());
}

/// `file:line:column: message; help` of each.
fn told(diagnostics: &[Diagnostic]) -> Vec<String> {
    let told = diagnostics.iter();
    told.map(|it| format!("{}:{}", it.file, brief(it)))
        .collect()
}

fn assert_told(diagnostics: &[Diagnostic], beginnings: &[&str]) {
    let told = told(diagnostics);
    assert_eq!(told.len(), beginnings.len(), "{told:#?}");
    for (told, beginning) in told.iter().zip(beginnings) {
        assert!(told.starts_with(beginning), "{told}\n{beginning}");
    }
}

#[test]
fn bad_lines_are_skipped_and_the_others_kept() {
    let text = "deny_files = ['/d/*']";
    let bad = "192.0.2.1\n  10.0.0.1/8 # no\nx\n2001:db8::/32\n";
    let Loaded {
        policy, warnings, ..
    } = with_files(text, &[("/d/1", bad), ("/d/2", "# none yet\n")]).unwrap();
    assert_eq!(policy.edge.deny.len(), 2);
    assert_eq!(
        policy.edge.deny_from.files[Path::new("/d/1")].networks,
        [
            ("192.0.2.1/32".parse().unwrap(), 1),
            ("2001:db8::/32".parse().unwrap(), 4)
        ]
    );
    assert_told(
        &warnings,
        &[
            "limiter.toml:3:15: `/d/2` holds no network; the list gets nothing from it",
            "/d/1:2:3: line skipped: `10.0.0.1/8` has bits set outside its prefix; write `10.0.0.0/8`",
            "/d/1:3:1: line skipped: `x` is not a network; allowed: a network",
        ],
    );
}

#[test]
fn a_file_that_cannot_be_read_is_an_error() {
    let text = "deny_files = ['/d/*']";
    let fault = with_files(text, &[("/d/1", "192.0.2.1\n"), ("/d/3", "")]).unwrap_err();
    assert_told(
        &fault.diagnostics,
        &["limiter.toml:3:15: `/d/3` cannot be read: permission denied"],
    );
}

#[test]
fn bad_lines_beyond_the_first_are_counted() {
    let lines = format!("192.0.2.1\n{}", "\u{1b}what\n".repeat(1_000));
    let (file, told) = read_list("/d", lines.as_bytes(), Stamp::default());
    assert_eq!((file.networks.len(), file.skipped), (1, 1_000));
    assert_eq!(told.len(), 21);
    let last = &told[20];
    assert_eq!(last.message, "980 more lines skipped");
    assert_eq!(last.position.unwrap().line, 1_002);
}

#[test]
fn bytes_that_are_no_text_cost_their_line_only() {
    let bytes = b"192.0.2.1 # caf\xe9\n\xff\xfe\n192.0.2.2\n";
    let (file, told) = read_list("/d", bytes, Stamp::default());
    assert_eq!((file.networks.len(), file.skipped), (2, 1));
    assert!(told[0].message.contains("is not UTF-8 text"), "{told:?}");
}

/// What a list file says can change at any time; a policy must not become
/// invalid by it.
#[test]
fn a_list_file_that_contradicts_is_warned_of() {
    let text = "allow = ['10.0.0.0/8']\ndeny_files = ['/d/*']";
    let Loaded { warnings, .. } =
        with_files(text, &[("/d/1", "192.0.2.1\n10.9.0.0/16\n")]).unwrap();
    assert_told(
        &warnings,
        &[
            "/d/1:2:1: deny 10.9.0.0/16 lies inside allow 10.0.0.0/8; it has no effect (the allow is at limiter.toml:3)",
        ],
    );
    let text = "deny = ['10.9.0.0/16']\nallow_files = ['/a']";
    let Loaded { warnings, .. } = with_files(text, &[("/a", "10.0.0.0/8\n")]).unwrap();
    assert_told(
        &warnings,
        &[
            "limiter.toml:3:9: deny 10.9.0.0/16 lies inside allow 10.0.0.0/8; it has no effect (the allow is at /a:1)",
        ],
    );
    let fault = with_files("allow = ['10.0.0.0/8']\ndeny = ['10.9.0.0/16']", &[]).unwrap_err();
    assert_eq!(fault.diagnostics.len(), 1);
}

#[test]
fn only_regular_files_are_lists() {
    let directory = Directory::new("pipes");
    let pipe = directory.0.join("lists/pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let files = DiskFiles::beside(&directory.0);
    let refused = files.read(&pipe).unwrap_err().to_string();
    assert_eq!(refused, "not a regular file");
    assert!(files.stamp(&pipe).is_err() && files.stamp(&directory.0).is_err());
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

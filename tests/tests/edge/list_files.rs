//! List files that change under the daemon.

use crate::site::{LATE, Site, limit, row, udp};
use limiter_tests::{process::Scratch, wait};
use std::{
    fmt::Write as _,
    fs::{self, File},
    io::Write as _,
    os::unix::fs::symlink,
    path::PathBuf,
};

const LISTED: &str = "198.51.100.1";
const OTHER: &str = "198.51.100.2";

/// A site with a directory of deny files.
struct Case {
    site: Site,
    files: Scratch,
}

impl Case {
    /// `prepare` makes the files of the start.
    fn new(prepare: impl FnOnce(&Scratch)) -> Self {
        let files = Scratch::new().unwrap();
        prepare(&files);
        let edge = format!(
            "deny_files = [{:?}]\n{}",
            files.path("*.txt"),
            limit("all", "udp", 1_000, "packets = \"1000000/s\"")
        );
        Self {
            site: Site::new("native", &edge),
            files,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.files.path(name)
    }

    /// Replaces a file as a whole.
    fn replace(&self, name: &str, text: &str) {
        fs::write(self.path("new"), text).unwrap();
        fs::rename(self.path("new"), self.path(name)).unwrap();
    }

    /// Whether a packet from here is denied.
    fn is_denied(&self, source: &str) -> bool {
        let denied = || row(&self.site.counts(), "- drop deny -");
        let before = denied();
        let frame = self.site.frame(source, udp(1_000)).build();
        self.site.sender().send(&frame).unwrap();
        denied() > before
    }

    fn until_denied(&self, source: &str, is_denied: bool) {
        let what = format!("{source} to be denied: {is_denied}");
        wait::until(&what, LATE, || {
            Ok((self.is_denied(source) == is_denied).then_some(()))
        })
        .unwrap();
    }

    /// Waits until the only file that is kept is so for this cause.
    fn until_kept(&self, cause: &str) {
        wait::until(cause, LATE, || {
            let status = self.site.daemon.json(&["status"])?;
            let rows = status["list_files"].as_array().unwrap();
            let causes = rows.iter().filter_map(|row| row["cause"].as_str());
            let is_so = |told: &str| told.contains(cause);
            Ok(causes.clone().any(is_so).then_some(()))
        })
        .unwrap();
        let text = self.site.daemon.ask(&["status"]).unwrap();
        assert!(text.contains("stay in force"), "{text}");
    }

    fn until_nothing_is_kept(&self) {
        wait::until("nothing to be kept", LATE, || {
            let status = self.site.daemon.json(&["status"])?;
            let rows = status["list_files"].as_array().unwrap();
            Ok(rows.iter().all(|row| row["cause"].is_null()).then_some(()))
        })
        .unwrap();
    }
}

#[test]
fn a_file_is_followed_however_it_changes() {
    let case = Case::new(|files| {
        fs::write(files.path("feed.txt"), "192.0.2.1\n").unwrap();
    });
    assert!(!case.is_denied(LISTED));
    // Renamed into place, with a line that is none.
    case.replace("feed.txt", &format!("what?\n{LISTED}\n"));
    case.until_denied(LISTED, true);
    let log = case.site.daemon.log().unwrap();
    assert!(
        log.contains("feed.txt:1:1: line skipped: `what?` is not a network"),
        "{log}"
    );
    let status = case.site.daemon.json(&["status"]).unwrap();
    let file = &status["list_files"][0];
    assert_eq!(
        (&file["entries"], &file["skipped_lines"]),
        (&1.into(), &1.into())
    );
    // Appended to.
    let mut file = File::options()
        .append(true)
        .open(case.path("feed.txt"))
        .unwrap();
    writeln!(file, "{OTHER}").unwrap();
    case.until_denied(OTHER, true);
    // Truncated and written anew.
    fs::write(case.path("feed.txt"), format!("{OTHER}\n")).unwrap();
    case.until_denied(LISTED, false);
    assert!(case.is_denied(OTHER));
    // One more file.
    case.replace("more.txt", &format!("{LISTED}\n"));
    case.until_denied(LISTED, true);
    // What the command line named stays when a file lets go of it.
    case.site.daemon.ask(&["deny", "add", LISTED]).unwrap();
    case.replace("more.txt", "192.0.2.7\n");
    let entries = || {
        let list = case.site.daemon.json(&["deny", "list"]).unwrap();
        let entries = list["entries"].as_array().unwrap().iter();
        entries
            .map(|entry| format!("{} {}", entry["network"], entry["origin"]))
            .collect::<Vec<_>>()
    };
    let expected = [
        "\"192.0.2.7/32\" \"file\"",
        "\"198.51.100.1/32\" \"runtime\"",
        "\"198.51.100.2/32\" \"file\"",
    ];
    wait::until("the other entries", LATE, || {
        Ok((entries() == expected).then_some(()))
    })
    .unwrap();
    assert!(case.is_denied(LISTED));
    let file = case.site.daemon.policy().display().to_string();
    let told = case.site.daemon.ask(&["diff", &file]).unwrap();
    assert!(told.contains("says what is in force"), "{told}");
}

/// As Kubernetes gives a process a volume of files: names are links through a
/// link that is replaced.
#[test]
fn a_swapped_link_is_followed() {
    let case = Case::new(|files| {
        for (number, source) in [(1, LISTED), (2, OTHER)] {
            let directory = files.path(&format!("..{number}"));
            fs::create_dir(&directory).unwrap();
            fs::write(directory.join("feed.txt"), format!("{source}\n")).unwrap();
        }
        symlink("..1", files.path("..data")).unwrap();
        symlink("..data/feed.txt", files.path("feed.txt")).unwrap();
    });
    assert!(case.is_denied(LISTED) && !case.is_denied(OTHER));
    symlink("..2", case.path("..new")).unwrap();
    fs::rename(case.path("..new"), case.path("..data")).unwrap();
    case.until_denied(OTHER, true);
    assert!(!case.is_denied(LISTED));
}

#[test]
fn a_file_that_is_emptied_gone_or_unreadable_stays_in_force() {
    let case = Case::new(|files| {
        fs::write(files.path("feed.txt"), format!("{LISTED}\n")).unwrap();
    });
    let feed = case.path("feed.txt");
    let whole = format!("{LISTED}\n{OTHER}\n");

    fs::write(&feed, "").unwrap();
    case.until_kept("it holds 0 entries, and held 1");
    assert!(case.is_denied(LISTED));
    fs::remove_file(&feed).unwrap();
    case.until_kept("it is gone");
    assert!(case.is_denied(LISTED));
    fs::create_dir(&feed).unwrap();
    case.until_kept("not a regular file");
    assert!(case.is_denied(LISTED));
    fs::remove_dir(&feed).unwrap();
    fs::write(&feed, &whole).unwrap();
    case.until_denied(OTHER, true);
    case.until_nothing_is_kept();

    // What is meant is said.
    fs::write(&feed, "# nobody\n").unwrap();
    case.until_kept("it holds 0 entries, and held 2");
    let reloaded = case.site.daemon.ask(&["reload"]).unwrap();
    assert!(
        reloaded.contains("holds 0 entries for deny, and held 2"),
        "{reloaded}"
    );
    assert!(!case.is_denied(LISTED) && !case.is_denied(OTHER));
    case.until_nothing_is_kept();
}

/// 100,000 lines become others while packets come: of those that both name,
/// none passes.
#[test]
fn many_lines_change_under_traffic() {
    let lines = |second: u32| {
        let mut text = format!("{LISTED}\n");
        for number in 0..100_000_u32 {
            let [_, a, b, c] = number.to_be_bytes();
            writeln!(text, "10.{}.{b}.{c}", 128 + a + second as u8 * 8).unwrap();
        }
        text
    };
    let case = Case::new(|files| {
        fs::write(files.path("feed.txt"), lines(0)).unwrap();
    });
    let frames = [
        case.site.frame(LISTED, udp(1_000)).build(),
        case.site.frame(OTHER, udp(1_000)).build(),
    ];
    let moved = format!("10.{}.0.0", 136);
    let rounds = case.site.send_while(&frames, || {
        for (second, is_denied) in [(1, true), (0, false)] {
            case.replace("feed.txt", &lines(second));
            wait::until("the other lines", LATE, || {
                let explained = case.site.daemon.json(&["explain", &moved])?;
                Ok(((explained["decided_by"] == "deny") == is_denied).then_some(()))
            })
            .unwrap();
        }
    });
    let counts = case.site.counts();
    assert_eq!(row(&counts, "- drop deny -"), rounds, "{counts:?}");
    assert_eq!(row(&counts, "all pass limit -"), rounds, "{counts:?}");
}

//! `limiter explain --pcap` at the command line: verdicts on standard output
//! and nothing else there, errors that say what is wrong with the file.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use limiter_tests::{
    daemon,
    frames::{Frame, Upper},
    process::Scratch,
};
use std::{fs, path::PathBuf, process::Command};

const POLICY: &str = "[edge]\ninterfaces = [\"eth0\"]\ndeny = [\"203.0.113.0/24\"]\n\
                      [[edge.limit]]\nname = \"udp\"\nprotocol = \"udp\"\nports = [7777]\n\
                      packets = { rate = \"1/h\", burst = 2 }\n";

/// A capture of these frames, a millisecond apart.
fn capture(link_type: u32, frames: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let words = |words: &[u32]| words.iter().flat_map(|it| it.to_le_bytes()).collect();
    let header: Vec<u8> = words(&[0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, link_type]);
    bytes.extend(header);
    for (number, frame) in (0..).zip(frames) {
        let length = u32::try_from(frame.len()).unwrap();
        let header: Vec<u8> = words(&[1_700_000_000, number * 1_000, length, length]);
        bytes.extend(header);
        bytes.extend(frame);
    }
    bytes
}

fn frame(source: [u8; 4]) -> Vec<u8> {
    let upper = Upper::Udp { from: 9, to: 7_777 };
    Frame::new(source.into(), [192, 0, 2, 1].into(), upper).build()
}

struct Explain {
    scratch: Scratch,
}

/// Status, standard output, standard error.
type Said = (Option<i32>, String, String);

impl Explain {
    fn new() -> Self {
        let scratch = Scratch::new().unwrap();
        fs::write(scratch.path("limiter.toml"), POLICY).unwrap();
        Self { scratch }
    }

    fn file(&self) -> PathBuf {
        self.scratch.path("x.pcap")
    }

    fn of(&self, capture: &[u8], json: bool) -> Said {
        fs::write(self.file(), capture).unwrap();
        self.run(json)
    }

    fn run(&self, json: bool) -> Said {
        let mut command = Command::new(daemon::program().unwrap());
        command.env("RUST_BACKTRACE", "1");
        command.arg("explain").arg("--pcap").arg(self.file());
        command
            .arg("--config")
            .arg(self.scratch.path("limiter.toml"));
        let output = command.args(json.then_some("--json")).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let (stdout, stderr) = (text(output.stdout), text(output.stderr));
        assert!(!stderr.contains("panicked"), "{stderr}");
        println!("{stderr}");
        (output.status.code(), stdout, stderr)
    }

    /// The error about a capture, which names the file.
    #[track_caller]
    fn fails(&self, capture: &[u8], parts: &[&str]) -> String {
        let (status, stdout, stderr) = self.of(capture, true);
        assert_eq!(status, Some(1), "{stderr}");
        let error = stderr.split("limiter: ").nth(1).unwrap();
        assert!(
            error.starts_with(&self.file().display().to_string()),
            "{error}"
        );
        for part in parts {
            assert!(error.contains(part), "no {part:?} in: {error}");
        }
        stdout
    }
}

/// An object a packet.
fn objects(stdout: &str) -> Vec<serde_json::Value> {
    let lines = stdout.lines();
    lines.map(|it| serde_json::from_str(it).unwrap()).collect()
}

#[test]
fn with_json_only_verdicts_go_to_standard_output() {
    let explain = Explain::new();
    let frames = [[198, 51, 100, 1]; 3].map(frame);
    let frames = [frames.as_slice(), &[frame([203, 0, 113, 1])]].concat();
    let (status, stdout, stderr) = explain.of(&capture(1, &frames), true);
    assert_eq!(status, Some(0), "{stderr}");
    let objects = objects(&stdout);
    let verdicts: Vec<_> = objects
        .iter()
        .map(|it| {
            (
                it["verdict"].as_str().unwrap(),
                it["reason"].as_str().unwrap(),
            )
        })
        .collect();
    let expected = [
        ("pass", "limit"),
        ("pass", "limit"),
        ("drop", "limit"),
        ("drop", "deny"),
    ];
    assert_eq!(verdicts, expected);
    assert_eq!(
        (&objects[2]["budget"], &objects[2]["limit"]),
        (&"packets".into(), &"udp".into())
    );
    assert_eq!(objects[3]["source"], "203.0.113.1");
    assert!(!stderr.is_empty(), "the sums");

    let (status, text, _) = explain.run(false);
    assert_eq!(status, Some(0));
    assert_eq!(text.lines().count(), 5, "{text}");
}

#[test]
fn a_capture_that_is_cut_off_is_judged_up_to_there() {
    let explain = Explain::new();
    let whole = capture(1, &[frame([198, 51, 100, 1]), frame([198, 51, 100, 2])]);
    let stdout = explain.fails(&whole[..whole.len() - 5], &["cut off", "after 1 whole"]);
    assert_eq!(objects(&stdout).len(), 1);
    let stdout = explain.fails(&whole[..10], &["cut off"]);
    assert_eq!(stdout, "");
}

#[test]
fn files_that_are_no_ethernet_capture_are_refused() {
    let explain = Explain::new();
    let no = "this is no capture";
    assert_eq!(
        explain.fails(b"From: nobody\n\nHello, this is a letter.\n", &[no, "pcap"]),
        ""
    );
    assert_eq!(
        explain.fails(
            b"\x1f\x8b\x08\0\0\0\0\0\0\x03zipped zipped zipped",
            &[no, "decompress"]
        ),
        ""
    );
    // LINUX_SLL, as of `tcpdump -i any`.
    let foreign = capture(113, &[frame([198, 51, 100, 1])]);
    assert_eq!(explain.fails(&foreign, &["link type 113", "Ethernet"]), "");
    explain.fails(b"", &[]);

    fs::remove_file(explain.file()).unwrap();
    let (status, stdout, stderr) = explain.run(true);
    assert_eq!((status, stdout.as_str()), (Some(1), ""));
    let name = explain.file().display().to_string();
    assert!(
        stderr.contains(&name) && stderr.contains("No such file"),
        "{stderr}"
    );
}

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use tempfile::TempDir;

use super::{Bench, DEADLINE, RULES, address, intake};
use crate::adapters::logs::{Log, Reached, follow};
use crate::adapters::origin::{Origin, Row, warnings};
use crate::adapters::{Intake, Judge as _, Running, wall_ns};
use crate::event::Event;
use crate::event::follow::{Disk, Position};
use crate::event::formats::Format;
use crate::policy::Decide;

/// A directory with a log that is followed.
struct Scene {
    directory: TempDir,
    bench: Arc<Bench>,
    intake: Arc<Intake>,
    reached: Arc<Mutex<Vec<Reached>>>,
    running: Option<Running>,
}

impl Scene {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("log");
        let (bench, intake) = intake(&format!(
            "[decide]\nlogs = [{{ path = '{}', format = 'nginx' }}]\n{RULES}",
            path.display()
        ));
        Self {
            directory,
            bench,
            intake,
            reached: Arc::default(),
            running: None,
        }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    fn origin(&self) -> Arc<Origin> {
        let name = format!("log:{}", self.path().display());
        self.intake.origins().get(&name).unwrap()
    }

    fn row(&self) -> Row {
        self.origin().row(wall_ns())
    }

    fn start(&mut self, position: Option<Position>) {
        let log = Log {
            origin: self.origin(),
            format: Format::Nginx,
            direct: true,
            asked: false,
            opener: Box::new(Disk::new(self.path())),
            position,
        };
        let reached = Arc::clone(&self.reached);
        let give = move |more: Vec<Reached>| reached.lock().unwrap().extend(more);
        self.running = Some(follow(Arc::clone(&self.intake), vec![log], give).unwrap());
    }

    /// Ends the thread; the last position that it gave.
    fn stop(&mut self) -> Option<Position> {
        self.running = None;
        let reached = self.reached.lock().unwrap();
        reached.last().map(|reached| reached.position)
    }

    fn server(&self) -> File {
        let mut options = OpenOptions::new();
        options.create(true).append(true).open(self.path()).unwrap()
    }

    /// Waits until a look has found the file.
    fn until_open(&self) {
        self.until(|row| row.trouble.is_none());
    }

    fn until(&self, is_so: impl Fn(&Row) -> bool) {
        let begin = std::time::Instant::now();
        while !is_so(&self.row()) {
            assert!(begin.elapsed() < DEADLINE, "{:?}", self.row());
            std::thread::yield_now();
        }
    }
}

fn line(source: &str) -> String {
    format!(
        "{source} - - [22/Nov/2026:18:29:28 +0000] \"POST /login HTTP/1.1\" 401 1 \"-\" \"curl\"\n"
    )
}

fn sources(bench: &Bench, least: usize) -> Vec<String> {
    let heard = bench.heard(least);
    heard.iter().map(|event| event.source.to_string()).collect()
}

#[test]
fn a_log_that_comes_later_is_waited_for_and_followed_through_rotation() {
    let mut scene = Scene::new();
    scene.start(None);
    scene.until(|row| row.trouble.is_some());
    let mut server = scene.server();
    server.write_all(line("192.0.2.1").as_bytes()).unwrap();
    assert_eq!(sources(&scene.bench, 1), ["192.0.2.1"]);
    scene.until_open();
    let rotated = scene.directory.path().join("log.1");
    fs::rename(scene.path(), &rotated).unwrap();
    server.write_all(line("192.0.2.2").as_bytes()).unwrap();
    scene.bench.heard(2);
    let mut server = scene.server();
    server.write_all(line("192.0.2.3").as_bytes()).unwrap();
    scene.bench.heard(3);
    server.set_len(0).unwrap();
    server.write_all(line("192.0.2.4").as_bytes()).unwrap();
    assert_eq!(
        sources(&scene.bench, 4),
        ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"]
    );
    let event = &scene.bench.heard(4)[3];
    assert_eq!(event.peer, Some(event.source));
    assert!(!scene.running.as_ref().unwrap().has_ended());
}

#[test]
fn a_later_process_goes_on_where_this_one_stopped() {
    let mut scene = Scene::new();
    let mut server = scene.server();
    server.write_all(line("192.0.2.1").as_bytes()).unwrap();
    scene.start(None);
    // What was there before is not read: wait for the first look by what it gives.
    scene.until(|row| row.trouble.is_none());
    let position = loop {
        server.write_all(line("192.0.2.2").as_bytes()).unwrap();
        if !scene.bench.heard.lock().unwrap().is_empty() {
            break scene.stop().unwrap();
        }
    };
    assert!(!sources(&scene.bench, 1).contains(&"192.0.2.1".to_owned()));
    scene.bench.heard.lock().unwrap().clear();
    let stored = serde_json::to_string(&scene.reached.lock().unwrap()[..]).unwrap();
    let stored: Vec<Reached> = serde_json::from_str(&stored).unwrap();
    assert_eq!(stored.last().unwrap().origin, scene.origin().name());
    assert_eq!(stored.last().unwrap().position, position);
    let behind = fs::metadata(scene.path()).unwrap().len() - position.offset;
    let mut rest = behind as usize / line("192.0.2.2").len();
    // Written while nobody follows, and rotated.
    server.write_all(line("192.0.2.3").as_bytes()).unwrap();
    fs::rename(scene.path(), scene.directory.path().join("log.1")).unwrap();
    scene
        .server()
        .write_all(line("192.0.2.4").as_bytes())
        .unwrap();
    scene.start(Some(position));
    rest += 2;
    let heard = sources(&scene.bench, rest);
    assert_eq!(heard.len(), rest);
    assert_eq!(heard[rest - 2..], ["192.0.2.3", "192.0.2.4"]);
    scene.stop();
    assert_eq!(scene.row().missed, None);
    // Moved out of sight, it is missed.
    let rotated = scene.directory.path().join("log.1");
    fs::rename(rotated, scene.directory.path().join("old")).unwrap();
    scene.start(Some(position));
    scene.until(|row| row.missed.is_some());
    let warnings = warnings(&Decide::default(), &[scene.row()], wall_ns());
    let warning = warnings.iter().map(ToString::to_string).next().unwrap();
    assert!(
        warning.contains("rotated while nobody read it"),
        "{warning}"
    );
}

#[test]
fn what_was_written_while_nobody_followed_counts_at_its_own_time() {
    let mut scene = Scene::new();
    let mut server = scene.server();
    scene.start(None);
    let position = loop {
        server.write_all(line("192.0.2.1").as_bytes()).unwrap();
        if !scene.bench.heard.lock().unwrap().is_empty() {
            break scene.stop().unwrap();
        }
    };
    scene.bench.heard.lock().unwrap().clear();
    let behind = fs::metadata(scene.path()).unwrap().len() - position.offset;
    let rest = behind as usize / line("192.0.2.1").len();
    let guesses = |source| line(source).repeat(3);
    server.write_all(guesses("192.0.2.2").as_bytes()).unwrap();
    scene.start(Some(position));
    scene.bench.heard(rest + 3);
    let login = |source| Event {
        method: Some("POST".into()),
        path: Some("/login".into()),
        ..Event::of(address(source))
    };
    assert!(!scene.bench.ask(&login("192.0.2.2"), &[]).refuses());
    // What comes now comes now, whatever its time says.
    let mut heard = rest + 3;
    while !scene.bench.ask(&login("192.0.2.3"), &[]).refuses() {
        server.write_all(line("192.0.2.3").as_bytes()).unwrap();
        heard += 1;
        scene.bench.heard(heard);
    }
    assert!(!scene.bench.ask(&login("192.0.2.2"), &[]).refuses());
}

#[test]
fn many_lines_come_in_reports_of_512() {
    let mut scene = Scene::new();
    let mut server = scene.server();
    scene.start(None);
    // The first look begins at the end.
    loop {
        server.write_all(line("192.0.2.1").as_bytes()).unwrap();
        if !scene.bench.heard.lock().unwrap().is_empty() {
            break;
        }
    }
    let before = scene.row().read as usize;
    let mut text = line("192.0.2.2").repeat(20_000);
    text.push_str(&line("192.0.2.3"));
    server.write_all(text.as_bytes()).unwrap();
    let is_last = |source: &String| source == "192.0.2.3";
    let mut least = before + 20_001;
    while !sources(&scene.bench, least).iter().any(is_last) {
        least += 1;
    }
    let reports = scene.bench.reports.lock().unwrap();
    assert!(reports.iter().all(|events| *events <= 512), "{reports:?}");
    assert!(reports.contains(&512));
}

#[test]
fn hostile_lines_are_counted_and_the_rest_is_read() {
    let mut scene = Scene::new();
    scene.start(None);
    scene.until(|row| row.trouble.is_some());
    let mut text = Vec::new();
    text.extend(vec![b'x'; 10_000_000]);
    text.extend(b"\n\x1b[2J\x00\xff\n");
    text.extend(b"192.0.2.7 - - [22/Nov/9999:18:29:28 +0000] \"GET / HTTP/1.1\" 200 1\n");
    text.extend(b"192.0.2.7 - - [22/Nov/2026:18:29:28 +0000] \"GET / HTTP/1.1");
    text.extend(b"\n\n");
    text.extend(line("192.0.2.9").as_bytes());
    fs::write(scene.directory.path().join("new"), &text).unwrap();
    fs::rename(scene.directory.path().join("new"), scene.path()).unwrap();
    assert_eq!(sources(&scene.bench, 1), ["192.0.2.9"]);
    let row = scene.row();
    assert_eq!((row.read, row.other, row.not_understood), (6, 1, 4));
    let sample = row.sample.unwrap();
    assert!(!sample.contains('\x1b'), "{sample}");
    assert!(row.lag_ns.is_some());
}

#[test]
fn a_file_that_may_not_be_read_is_said_once() {
    let mut scene = Scene::new();
    fs::create_dir(scene.path()).unwrap();
    scene.start(None);
    scene.until(|row| {
        row.trouble
            .as_deref()
            .is_some_and(|it| it.contains("no regular file"))
    });
    fs::remove_dir(scene.path()).unwrap();
    scene.until(|row| {
        row.trouble
            .as_deref()
            .is_some_and(|it| it.contains("No such file"))
    });
    scene
        .server()
        .write_all(line("192.0.2.1").as_bytes())
        .unwrap();
    assert_eq!(sources(&scene.bench, 1), ["192.0.2.1"]);
}

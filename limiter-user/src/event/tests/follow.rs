use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::event::follow::{Disk, Follower, Opener, Position, Start};
use crate::event::lines::Line;

/// A directory with a log, a server that writes it, and a follower.
struct Scene {
    directory: TempDir,
    follower: Follower,
    now: Instant,
}

impl Scene {
    /// With a log that holds `before`.
    fn new(before: &str) -> Self {
        let scene = Self::without_file();
        fs::write(scene.log(), before).unwrap();
        scene
    }

    fn without_file() -> Self {
        let directory = TempDir::new().unwrap();
        let follower = Follower::new(Disk::new(directory.path().join("log")), Start::End);
        Self {
            directory,
            follower,
            now: Instant::now(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn log(&self) -> PathBuf {
        self.path("log")
    }

    fn server(&self) -> File {
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log())
            .unwrap()
    }

    /// Looks once more, a second later.
    fn look(&mut self) -> Vec<String> {
        self.now += Duration::from_secs(1);
        self.look_at_once()
    }

    fn look_at_once(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        self.follower.poll(self.now, |line| match line {
            Line::Whole(bytes) => lines.push(String::from_utf8_lossy(bytes).into_owned()),
            Line::TooLong { length, .. } => lines.push(format!("too long: {length}")),
        });
        lines
    }

    fn position(&self) -> Position {
        self.follower.position().unwrap().unwrap()
    }

    /// Reads one line, has another one written, and the file get this name. Gives the place
    /// between them, and who writes.
    fn rotate_unseen(&mut self, name: &str) -> (Position, File) {
        self.look();
        let mut server = self.server();
        server.write_all(b"1\n").unwrap();
        assert_eq!(self.look(), ["1"]);
        let position = self.position();
        server.write_all(b"2\n").unwrap();
        fs::rename(self.log(), self.path(name)).unwrap();
        (position, server)
    }

    /// Another follower of the same log, as after a restart.
    fn restart(&mut self, start: Start) {
        self.follower = Follower::new(Disk::new(self.log()), start);
    }
}

#[test]
fn it_begins_at_the_end_and_waits_for_whole_lines() {
    let mut scene = Scene::new("old\nhalf");
    let mut server = scene.server();
    assert!(scene.look().is_empty());
    server.write_all(b" of it\na\nb").unwrap();
    assert_eq!(scene.look(), ["a"]);
    server.write_all(b"c\n").unwrap();
    assert_eq!(scene.look(), ["bc"]);
    assert!(scene.look().is_empty());
}

#[test]
fn a_renamed_file_is_read_to_its_end_and_after() {
    let mut scene = Scene::new("");
    let mut server = scene.server();
    scene.look();
    server.write_all(b"1\n").unwrap();
    fs::rename(scene.log(), scene.path("log.1")).unwrap();
    server.write_all(b"2\n").unwrap();
    // Nobody has made the new one yet.
    assert_eq!(scene.look(), ["1", "2"]);
    assert!(scene.follower.trouble().is_none());
    let mut new = scene.server();
    new.write_all(b"3\n").unwrap();
    server.write_all(b"last words").unwrap();
    assert_eq!(scene.look(), ["3"]);
    assert_eq!(scene.follower.happened().replaced, 1);
    server.write_all(b" of the old\n").unwrap();
    new.write_all(b"4\n").unwrap();
    assert_eq!(scene.look(), ["last words of the old", "4"]);
    // Half a line is one when the old file is let go.
    server.write_all(b"cut").unwrap();
    assert!(scene.look().is_empty());
    scene.now += Duration::from_secs(60);
    assert_eq!(scene.look(), ["cut"]);
    server.write_all(b"late\n").unwrap();
    assert!(scene.look().is_empty());
}

#[test]
fn many_rotations_between_two_looks_keep_two_old_files() {
    let mut scene = Scene::new("");
    scene.look();
    let mut servers = Vec::new();
    for n in 0..5 {
        let mut server = scene.server();
        server.write_all(format!("{n}\n").as_bytes()).unwrap();
        assert_eq!(scene.look(), [n.to_string()]);
        fs::rename(scene.log(), scene.path(&format!("log.{n}"))).unwrap();
        servers.push(server);
    }
    for (n, server) in servers.iter_mut().enumerate() {
        server.write_all(format!("{n} late\n").as_bytes()).unwrap();
    }
    // The present one and the two before it.
    assert_eq!(scene.look(), ["2 late", "3 late", "4 late"]);
}

#[test]
fn copy_and_truncate() {
    let mut scene = Scene::new("");
    let mut server = scene.server();
    scene.look();
    server.write_all(b"1\n2\nhalf").unwrap();
    assert_eq!(scene.look(), ["1", "2"]);
    fs::copy(scene.log(), scene.path("log.1")).unwrap();
    server.set_len(0).unwrap();
    server.write_all(b"3\n").unwrap();
    assert_eq!(scene.look(), ["3"]);
    // Written beyond where it was before anybody looked.
    server.set_len(0).unwrap();
    server.write_all(b"4\n5\n6\n").unwrap();
    assert_eq!(scene.look(), ["4", "5", "6"]);
    assert_eq!(scene.follower.happened().truncated, 2);
    server.set_len(0).unwrap();
    assert!(scene.look().is_empty());
    server.write_all(b"7\n").unwrap();
    assert_eq!(scene.look(), ["7"]);
}

#[test]
fn a_server_that_writes_on_at_its_old_place_leaves_a_hole() {
    let mut scene = Scene::new("");
    let mut server = File::create(scene.log()).unwrap();
    scene.look();
    server.write_all(b"before\n").unwrap();
    // Far enough that reading the hole would take more than one look.
    server.seek(SeekFrom::Start(1 << 40)).unwrap();
    assert_eq!(scene.look(), ["before"]);
    server.set_len(0).unwrap();
    server.write_all(b"behind the hole\n").unwrap();
    assert_eq!(scene.look(), ["behind the hole"]);
}

#[test]
fn a_file_that_is_not_there_yet_is_new_when_it_comes() {
    let mut scene = Scene::without_file();
    assert!(scene.look().is_empty());
    assert!(!scene.follower.is_open());
    assert!(scene.follower.trouble().is_some());
    scene.server().write_all(b"1\n").unwrap();
    assert_eq!(scene.look(), ["1"]);
    assert!(scene.follower.trouble().is_none());
    fs::remove_file(scene.log()).unwrap();
    assert!(scene.look().is_empty());
    scene.server().write_all(b"2\n").unwrap();
    assert_eq!(scene.look(), ["2"]);
}

#[test]
fn what_is_no_file_is_said() {
    let mut scene = Scene::without_file();
    fs::create_dir(scene.log()).unwrap();
    scene.look();
    let trouble = scene.follower.trouble().unwrap().to_string();
    assert!(trouble.contains("no regular file"), "{trouble}");
    fs::remove_dir(scene.log()).unwrap();
    nix::unistd::mkfifo(&scene.log(), nix::sys::stat::Mode::S_IRWXU).unwrap();
    scene.look();
    assert!(scene.follower.trouble().is_some());
}

#[test]
fn a_symbolic_link_that_is_swapped() {
    let mut scene = Scene::without_file();
    fs::write(scene.path("a"), "").unwrap();
    std::os::unix::fs::symlink("a", scene.log()).unwrap();
    scene.look();
    fs::write(scene.path("a"), "1\n").unwrap();
    fs::write(scene.path("b"), "2\n").unwrap();
    std::os::unix::fs::symlink("b", scene.path("new")).unwrap();
    fs::rename(scene.path("new"), scene.log()).unwrap();
    assert_eq!(scene.look(), ["1", "2"]);
}

#[test]
fn a_restart_goes_on_where_it_was() {
    let mut scene = Scene::new("");
    let mut server = scene.server();
    scene.look();
    server.write_all(b"1\nha").unwrap();
    assert_eq!(scene.look(), ["1"]);
    let position = scene.position();
    let stored = serde_json::to_string(&position).unwrap();
    let position = serde_json::from_str(&stored).unwrap();
    server.write_all(b"lf\n2\n").unwrap();
    scene.restart(Start::At(position));
    assert_eq!(scene.look(), ["half", "2"]);
}

#[test]
fn a_restart_finds_the_rest_of_a_rotated_file() {
    let mut scene = Scene::new("");
    let (position, _server) = scene.rotate_unseen("log.1");
    scene.server().write_all(b"3\n").unwrap();
    scene.restart(Start::At(position));
    assert_eq!(scene.look(), ["2", "3"]);
}

#[test]
fn a_rotated_file_is_found_among_any_number_of_others() {
    let mut scene = Scene::new("");
    for number in 0..200 {
        fs::write(scene.path(&format!("log.{number}.gz")), "old").unwrap();
    }
    let (position, _server) = scene.rotate_unseen("log.old");
    for number in 200..400 {
        fs::write(scene.path(&format!("log.{number}.gz")), "later").unwrap();
    }
    scene.server().write_all(b"3\n").unwrap();
    scene.restart(Start::At(position));
    assert_eq!(scene.look(), ["2", "3"]);
    assert_eq!(scene.follower.missed(), None);
}

#[test]
fn what_cannot_be_read_of_a_rotated_file_is_said() {
    let mut scene = Scene::new("");
    // Under another name, and as a link to it.
    let (position, server) = scene.rotate_unseen("other");
    std::os::unix::fs::symlink("other", scene.path("log.1")).unwrap();
    scene.server().write_all(b"3\n").unwrap();
    scene.restart(Start::At(position));
    assert_eq!(scene.look(), ["3"]);
    assert!(scene.follower.missed().unwrap().contains("not beside"));
    // Nor can it be where the directory may not be read.
    scene.follower = Follower::new(Barred(Disk::new(scene.log())), Start::At(position));
    assert_eq!(scene.look(), ["3"]);
    assert_eq!(scene.follower.missed(), Some("permission denied"));
    // It is found, and is another one by now.
    fs::rename(scene.path("other"), scene.path("log.2")).unwrap();
    server.set_len(0).unwrap();
    scene.restart(Start::At(position));
    assert_eq!(scene.look(), ["3"]);
    assert!(scene.follower.missed().is_some());
}

#[test]
fn a_restart_knows_another_file_by_what_it_holds() {
    let mut scene = Scene::new("");
    let mut server = scene.server();
    scene.look();
    server.write_all(b"1\n2\n").unwrap();
    scene.look();
    let position = scene.position();
    // The same inode, but written anew, and longer.
    server.set_len(0).unwrap();
    server.write_all(b"3\n4\n5\n").unwrap();
    scene.restart(Start::At(position));
    assert_eq!(scene.look(), ["3", "4", "5"]);
    // A position beyond the end.
    scene.restart(Start::At(Position {
        offset: u64::MAX >> 1,
        ..position
    }));
    assert_eq!(scene.look(), ["3", "4", "5"]);
}

#[test]
fn a_look_reads_so_much_and_no_more() {
    let mut scene = Scene::new("");
    scene.look();
    let line = "x".repeat(999) + "\n";
    scene
        .server()
        .write_all(line.repeat(10_000).as_bytes())
        .unwrap();
    fs::rename(scene.log(), scene.path("log.1")).unwrap();
    scene.server().write_all(b"new\n").unwrap();
    let mut lines = 0;
    let mut looks = 0;
    loop {
        scene.now += Duration::from_secs(1);
        let look = scene.follower.poll(scene.now, |_| lines += 1);
        looks += 1;
        assert!(look.read <= (4 << 20) + 65_536);
        if look.behind == 0 {
            break;
        }
    }
    assert_eq!((lines, looks), (10_001, 3));
}

#[test]
fn a_line_of_10_mb_is_counted_and_not_held() {
    let mut scene = Scene::new("");
    scene.look();
    let server = scene.server();
    let mut at = 0;
    for _ in 0..10 {
        let written = server.write_at(&[b'x'; 1_000_000], at).unwrap();
        at += written as u64;
    }
    scene.server().write_all(b"\nnext\n").unwrap();
    let mut lines = scene.look();
    lines.extend(scene.look());
    lines.extend(scene.look());
    assert_eq!(lines, [format!("too long: {at}"), "next".to_owned()]);
}

/// Opens the file of the disk that has the name, and sees no others.
#[derive(Debug)]
struct Barred(Disk);

impl Opener for Barred {
    fn open(&self) -> io::Result<File> {
        self.0.open()
    }

    fn renamed(&self, _: &Position) -> io::Result<Option<File>> {
        Err(io::ErrorKind::PermissionDenied.into())
    }
}

/// Opens files of the disk and counts how often.
#[derive(Debug)]
struct Counted {
    disk: Disk,
    asked: Arc<AtomicU64>,
}

impl Opener for Counted {
    fn open(&self) -> io::Result<File> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.disk.open()
    }

    fn renamed(&self, position: &Position) -> io::Result<Option<File>> {
        self.disk.renamed(position)
    }
}

#[test]
fn the_name_is_asked_for_once_a_second_and_the_file_is_read_at_once() {
    let mut scene = Scene::new("");
    let asked = Arc::new(AtomicU64::new(0));
    let disk = Disk::new(scene.log());
    let opener = Counted {
        disk,
        asked: Arc::clone(&asked),
    };
    scene.follower = Follower::new(opener, Start::End);
    let mut server = scene.server();
    scene.look();
    for n in 0..20 {
        scene.now += Duration::from_millis(50);
        server.write_all(format!("{n}\n").as_bytes()).unwrap();
        assert_eq!(scene.look_at_once(), [n.to_string()]);
    }
    // At the beginning and a second later.
    assert_eq!(asked.load(Ordering::Relaxed), 2);
    // What is wrong stays known between two questions.
    let mut scene = Scene::without_file();
    scene.look();
    scene.look_at_once();
    assert!(scene.follower.trouble().is_some());
}

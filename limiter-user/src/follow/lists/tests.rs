//! Files in memory, and time as an argument.

use std::cell::RefCell;

use super::*;
use crate::policy::parse;

/// Files by path.
#[derive(Default)]
struct Memory(RefCell<BTreeMap<PathBuf, InMemory>>);

#[derive(Clone, Default)]
struct InMemory {
    content: Content,
    /// How often it was written to, which is all its stamp has.
    writes: u64,
}

#[derive(Clone, Default)]
enum Content {
    Text(String),
    #[default]
    NoFile,
    NotRegular,
    Secret,
}

impl Memory {
    /// Writes a file, which changes its stamp even where the text is the same.
    fn write(&self, path: &str, text: &str) {
        self.put(path, Content::Text(text.to_owned()));
    }

    fn put(&self, path: &str, content: Content) {
        let mut files = self.0.borrow_mut();
        let file = files.entry(path.into()).or_default();
        file.content = content;
        file.writes += 1;
    }
}

impl ListFiles for Memory {
    fn matching(&self, pattern: &str) -> io::Result<Vec<PathBuf>> {
        let pattern = glob::Pattern::new(pattern).map_err(io::Error::other)?;
        let files = self.0.borrow();
        let found = files.iter().filter(|(path, file)| {
            pattern.matches_path(path) && matches!(file.content, Content::Text(_) | Content::Secret)
        });
        Ok(found.map(|(path, _)| path.clone()).collect())
    }

    fn stamp(&self, path: &Path) -> io::Result<Stamp> {
        let files = self.0.borrow();
        let file = files.get(path).ok_or(io::ErrorKind::NotFound)?;
        match file.content {
            Content::NoFile => Err(io::ErrorKind::NotFound.into()),
            Content::NotRegular => Err(io::Error::other("not a regular file")),
            Content::Text(_) | Content::Secret => Ok(Stamp {
                inode: file.writes,
                ..Stamp::default()
            }),
        }
    }

    fn read(&self, path: &Path) -> io::Result<(Vec<u8>, Stamp)> {
        let stamp = self.stamp(path)?;
        match &self.0.borrow()[path].content {
            Content::Text(text) => Ok((text.clone().into_bytes(), stamp)),
            _ => Err(io::ErrorKind::PermissionDenied.into()),
        }
    }
}

/// Lists as a policy has them, and who watches their files.
struct Case {
    files: Memory,
    lists: Lists,
    watcher: Watcher,
    start: Instant,
}

const FEED: &str = "/d/feed.txt";

impl Case {
    fn new(files: &[(&str, &str)]) -> Self {
        let memory = Memory::default();
        for (path, text) in files {
            memory.write(path, text);
        }
        let text = "[edge]\ninterfaces = ['eth0']\ndeny = ['198.51.100.0/24']\n\
                    allow_files = ['/a/*']\ndeny_files = ['/d/*']";
        let edge = parse("limiter.toml", text, &memory).unwrap().policy.edge;
        Self {
            lists: Lists {
                allow: edge.allow_from,
                deny: edge.deny_from,
            },
            files: memory,
            watcher: Watcher::default(),
            start: Instant::now(),
        }
    }

    /// Looks, and puts in force what is new.
    fn look(&mut self, at_ms: u64) -> Look {
        let now = self.start + Duration::from_millis(at_ms);
        let look = self.watcher.look(&self.lists, &self.files, now);
        if let Some(news) = &look.news {
            assert!(news.base.are(&self.lists));
            self.lists = news.next.clone();
        }
        look
    }

    fn deny(&self) -> Vec<String> {
        let deny = self.lists.deny.merged();
        deny.iter().map(ToString::to_string).collect()
    }
}

fn changes(look: &Look) -> Vec<String> {
    let news = look.news.iter().flat_map(|news| &news.changes);
    news.map(|it| {
        let sign = if it.listed { '+' } else { '-' };
        format!("{sign}{} {}", it.list.name(), it.network)
    })
    .collect()
}

fn causes(look: &Look) -> Vec<&str> {
    look.kept.iter().map(|kept| kept.cause.as_str()).collect()
}

fn hosts(count: u8) -> String {
    (0..count).map(|host| format!("192.0.2.{host}\n")).collect()
}

#[test]
fn a_change_is_taken_once_the_file_stands_still() {
    let mut case = Case::new(&[(FEED, "192.0.2.1\n192.0.2.2\n"), ("/a/1", "10.0.0.0/8\n")]);
    assert!(case.look(0).news.is_none());
    case.files.write(FEED, "192.0.2.2\n");
    assert!(case.look(1_000).news.is_none(), "not settled");
    case.files
        .write(FEED, "192.0.2.2\nx\n192.0.2.3\n198.51.100.0/24\n");
    assert!(case.look(2_000).news.is_none(), "changed again");
    let look = case.look(3_000);
    // What the policy file names too neither comes nor goes with a list file.
    assert_eq!(changes(&look), ["-deny 192.0.2.1/32", "+deny 192.0.2.3/32"]);
    assert_eq!(look.warnings.len(), 1);
    assert_eq!(look.warnings[0].file, FEED);
    assert_eq!(look.warnings[0].position.unwrap().line, 2);
    assert_eq!(
        case.deny(),
        ["192.0.2.2/32", "192.0.2.3/32", "198.51.100.0/24"]
    );
    assert!(case.look(4_000).news.is_none() && case.watcher.watched.is_empty());
}

#[test]
fn what_is_not_put_in_force_is_offered_again() {
    let mut case = Case::new(&[(FEED, "192.0.2.1\n")]);
    case.files.write(FEED, "192.0.2.2\n");
    let lists = case.lists.clone();
    for at_ms in [0, 1_000, 2_000] {
        // Somebody reloads each time.
        let look = case.look(at_ms);
        assert_eq!(look.news.is_some(), at_ms > 0);
        case.lists = lists.clone();
    }
}

#[test]
fn a_file_that_never_stands_still_is_read_in_the_end() {
    let mut case = Case::new(&[(FEED, "192.0.2.1\n")]);
    for second in 0..10 {
        case.files.write(FEED, &hosts(second));
        assert!(case.look(u64::from(second) * 1_000).news.is_none());
    }
    case.files.write(FEED, &hosts(10));
    assert_eq!(changes(&case.look(10_000)).len(), 9);
}

#[test]
fn a_file_that_loses_nearly_all_is_kept_until_a_reload_or_its_return() {
    let mut case = Case::new(&[(FEED, &hosts(100))]);
    for (at_ms, left) in [(0, 0), (10_000, 9)] {
        case.files.write(FEED, &hosts(left));
        case.look(at_ms);
        for later in [1_000, 2_000, 9_000] {
            let look = case.look(at_ms + later);
            assert!(look.news.is_none());
            let expected = format!("it holds {left} entries, and held 100");
            assert!(causes(&look)[0].starts_with(&expected), "{look:?}");
        }
    }
    // Back, with one more: taken, and none of the others was ever off.
    case.files.write(FEED, &hosts(101));
    assert_eq!(causes(&case.look(20_000)).len(), 1, "kept until it settles");
    let look = case.look(21_000);
    assert_eq!(changes(&look), ["+deny 192.0.2.100/32"]);
    assert!(look.kept.is_empty());
}

#[test]
fn a_reload_ends_what_was_kept() {
    let mut case = Case::new(&[(FEED, &hosts(100))]);
    case.files.write(FEED, "# none\n");
    case.look(0);
    assert_eq!(causes(&case.look(1_000)).len(), 1);
    let stamp = case.files.stamp(Path::new(FEED)).unwrap();
    let (file, _) = read_list(FEED, b"", stamp);
    let mut sources = ListSources::clone(&case.lists.deny);
    sources.files.insert(FEED.into(), Arc::new(file));
    case.lists.deny = Arc::new(sources);
    let look = case.look(2_000);
    assert!(look.kept.is_empty() && look.news.is_none());
}

#[test]
fn a_file_that_goes_or_cannot_be_read_is_kept() {
    let mut case = Case::new(&[(FEED, "192.0.2.1\n")]);
    case.files.put(FEED, Content::NoFile);
    assert!(
        case.look(0).kept.is_empty(),
        "it may be about to be replaced"
    );
    let look = case.look(1_000);
    assert!(causes(&look)[0].starts_with("it is gone"), "{look:?}");
    case.files.put(FEED, Content::NotRegular);
    case.look(2_000);
    assert_eq!(
        causes(&case.look(3_000)),
        ["cannot be read: not a regular file"]
    );
    case.files.put(FEED, Content::Secret);
    case.look(4_000);
    assert_eq!(
        causes(&case.look(5_000)),
        ["cannot be read: permission denied"]
    );
    assert_eq!(case.deny(), ["192.0.2.1/32", "198.51.100.0/24"]);
    case.files.write(FEED, "192.0.2.1\n");
    case.look(6_000);
    let look = case.look(7_000);
    assert!(look.kept.is_empty() && changes(&look).is_empty());
}

#[test]
fn new_files_join_and_shared_entries_stay() {
    let mut case = Case::new(&[(FEED, "192.0.2.1\n192.0.2.2\n")]);
    case.files.write("/d/other", "192.0.2.2\n192.0.2.3\n");
    case.files.put("/d/bad", Content::Secret);
    case.look(0);
    let look = case.look(1_000);
    assert_eq!(changes(&look), ["+deny 192.0.2.3/32"]);
    assert_eq!(look.kept[0].file, Path::new("/d/bad"));
    case.files.write(FEED, "192.0.2.1\n");
    case.look(2_000);
    assert!(changes(&case.look(3_000)).is_empty(), "the other names it");
}

#[test]
fn what_the_data_plane_refuses_is_kept_and_tried_again() {
    let mut case = Case::new(&[(FEED, "192.0.2.1\n")]);
    let lists = case.lists.clone();
    case.files.write(FEED, "192.0.2.2\n");
    case.look(0);
    let look = case.look(1_000);
    let now = case.start + Duration::from_millis(1_000);
    case.lists = lists;
    let kept = case.watcher.refuse(&look.read, "no room", now);
    assert_eq!((kept[0].list, &*kept[0].cause), (ListKind::Deny, "no room"));
    let look = case.look(2_000);
    assert!(look.news.is_none());
    assert_eq!(causes(&look), ["no room"]);
    assert!(case.look(61_000).news.is_some());
}

#[test]
fn entries_without_effect_are_named_with_their_lines() {
    let mut case = Case::new(&[(FEED, "192.0.2.1\n")]);
    case.files.write("/a/new", "# ours\n198.51.0.0/16\n");
    case.look(0);
    let look = case.look(1_000);
    let expected = "/a/new:2: while 198.51.0.0/16 is allowed, deny 198.51.100.0/24 has no effect";
    assert_eq!(look.notices, [expected]);
    let inside: String = (0..30).map(|host| format!("198.51.7.{host}\n")).collect();
    case.files.write(FEED, &inside);
    case.look(2_000);
    let look = case.look(3_000);
    assert_eq!(look.notices.len(), 21, "{look:?}");
    let expected = "/d/feed.txt:1: deny 198.51.7.0/32 has no effect while 198.51.0.0/16 is allowed";
    assert_eq!(look.notices[0], expected);
    assert_eq!(look.notices[20], "and 10 more of these");
}

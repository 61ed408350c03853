//! The file: found, made, looked through, written; and what is done where that
//! fails.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use rusqlite::{Connection, OpenFlags, Transaction};

use super::audit;
use super::error::StoreError;
use super::header::{self, Kind, VERSION};
use super::rows;
use super::secret::{Secret, secret};
use crate::keeper::records::{Change, Saved};
use crate::keeper::{Now, unix_seconds};

pub(super) const FILE: &str = "limiter.db";

/// What is written and has not taken its place there.
pub(super) const WAITING: &str = "limiter.db-wal";

/// What the library puts beside the file, and which goes with it.
const BESIDE: [&str; 2] = ["-wal", "-shm"];

/// How long others may hold the file.
pub(super) const BUSY: Duration = Duration::from_secs(2);

/// Damaged files that are kept.
const KEPT: usize = 3;

/// Larger files are looked through only as far as the start needs them: a log of some
/// gigabytes would take half a minute.
const SMALL: u64 = 64 << 20;

/// What the start needs.
const NEEDED: [&str; 3] = ["meta", "blocks", "entries"];

/// Pages that are written before they are put in their place: those of a chunk of the
/// log change many times.
const CHECKPOINT_PAGES: u32 = 4_096;

/// Memory for the pages of a chunk of the log, in KiB.
const CACHE_KIB: i64 = 16_384;

/// Where the database is, and what the machine calls the time since it
/// started.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) directory: PathBuf,
    pub(super) boot_id: String,
    /// Held for life: two daemons would each delete what the other stores.
    lock: Option<Flock<File>>,
    /// Damage was met, so that all is looked through.
    is_suspect: bool,
}

/// An open database.
#[derive(Debug)]
pub(super) struct Database {
    connection: Connection,
    path: PathBuf,
}

impl Place {
    pub(super) const fn new(directory: PathBuf, boot_id: String) -> Self {
        Self {
            directory,
            boot_id,
            lock: None,
            is_suspect: false,
        }
    }

    /// Opens the database, or makes one. A damaged one is moved aside, and said.
    pub(super) fn open(&mut self, now: Now) -> Result<Database, StoreError> {
        self.claim()?;
        let path = self.directory.join(FILE);
        let opened = match self.look(&path)? {
            Kind::Garbage => None,
            _ => match Database::open(&path, self.is_suspect) {
                Err(error) if error.is_corruption() => None,
                opened => Some(opened?),
            },
        };
        let mut database = match opened {
            Some(database) => database,
            None => {
                self.move_aside(now)?;
                Database::open(&path, false)?
            }
        };
        self.is_suspect = false;
        let begin =
            |transaction: &Transaction<'_>| audit::begin(transaction, audit::time_to_ms(now.wall));
        // Whoever asks before the first row is told since when there is a log. If this
        // fails, that row does it.
        let _begun = database.change(begin);
        Ok(database)
    }

    /// Damage was met: all is looked through before it is used again.
    pub(super) fn suspect(&mut self) {
        self.is_suspect = true;
    }

    /// The secret of this name.
    pub(super) fn secret(&self, name: &str) -> Result<Secret, StoreError> {
        let made = secret(&self.directory, name);
        made.map_err(file_error("use", &self.directory.join(name)))
    }

    /// Reads a database that cannot be written.
    pub(super) fn read_only(&self) -> Result<Option<Saved>, StoreError> {
        let path = self.directory.join(FILE);
        if self.look(&path)? != Kind::Ours {
            return Ok(None);
        }
        Database::read_only(&path)?.read(&self.boot_id)
    }

    fn claim(&mut self) -> Result<(), StoreError> {
        let failed = |what| file_error(what, &self.directory);
        if !self.directory.is_dir() {
            let mut builder = DirBuilder::new();
            let made = builder.recursive(true).mode(0o750).create(&self.directory);
            made.map_err(failed("make"))?;
        }
        if self.lock.is_none() {
            let directory = File::open(&self.directory).map_err(failed("open"))?;
            match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => self.lock = Some(lock),
                Err((_, Errno::EWOULDBLOCK)) => {
                    return Err(StoreError::InUse(self.directory.clone()));
                }
                // Some network file systems have no locks.
                Err((_, error)) => tracing::debug!(%error, "the state directory is not locked"),
            }
        }
        Ok(())
    }

    /// What kind of file there is, if it is one that may be opened.
    fn look(&self, path: &Path) -> Result<Kind, StoreError> {
        let kind = header::kind(path).map_err(file_error("read", path))?;
        match kind {
            Kind::Newer(major) => Err(StoreError::Newer {
                path: path.to_owned(),
                major,
                own: VERSION / 1_000,
            }),
            Kind::Foreign => Err(StoreError::Foreign(path.to_owned())),
            Kind::Empty | Kind::Ours | Kind::Garbage => Ok(kind),
        }
    }

    fn move_aside(&self, now: Now) -> Result<(), StoreError> {
        let path = self.directory.join(FILE);
        let aside = format!("{FILE}.corrupt-{}", unix_seconds(now.wall));
        let aside = self.directory.join(aside);
        fs::rename(&path, &aside).map_err(file_error("move away", &path))?;
        for more in BESIDE {
            match fs::rename(with(&path, more), with(&aside, more)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(file_error("move away", &with(&path, more))(error));
                }
                _ => {}
            }
        }
        tracing::warn!(
            "{} is damaged: it is now {}, and another is begun",
            path.display(),
            aside.display()
        );
        self.forget_old();
        Ok(())
    }

    /// Removes the oldest of those moved aside: a disk that damages files would
    /// be full of them some day.
    fn forget_old(&self) {
        let Ok(files) = fs::read_dir(&self.directory) else {
            return;
        };
        let prefix = format!("{FILE}.corrupt-");
        let names = files.flatten().map(|file| file.file_name());
        let mut aside: Vec<String> = names
            .filter_map(|name| name.into_string().ok())
            .filter(|name| name.strip_prefix(&prefix).is_some_and(is_number))
            .collect();
        aside.sort();
        let more = aside.len().saturating_sub(KEPT);
        for name in aside.into_iter().take(more) {
            let path = self.directory.join(name);
            for path in [with(&path, BESIDE[0]), with(&path, BESIDE[1]), path] {
                // What stays is tried again at the next one.
                let _gone = fs::remove_file(path);
            }
        }
    }
}

impl Database {
    fn open(path: &Path, is_suspect: bool) -> Result<Self, StoreError> {
        make_private(path).map_err(file_error("write", path))?;
        let failed = |what| database_error(what, path);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(failed("open"))?;
        let mut database = Self {
            connection,
            path: path.to_owned(),
        };
        database.look_through(is_suspect)?;
        database.prepare().map_err(failed("write"))?;
        Ok(database)
    }

    fn read_only(path: &Path) -> Result<Self, StoreError> {
        let connection = connect_read_only(path).map_err(database_error("open", path))?;
        let database = Self {
            connection,
            path: path.to_owned(),
        };
        database.look_through(false)?;
        Ok(database)
    }

    /// Finds damage before it is met.
    fn look_through(&self, is_suspect: bool) -> Result<(), StoreError> {
        let failed = |what| database_error(what, &self.path);
        let connection = &self.connection;
        connection.busy_timeout(BUSY).map_err(failed("open"))?;
        let size = fs::metadata(&self.path).map_err(file_error("read", &self.path))?;
        if is_suspect || size.len() <= SMALL {
            return self.look_at("1");
        }
        NEEDED.into_iter().try_for_each(|table| self.look_at(table))
    }

    fn look_at(&self, what: &str) -> Result<(), StoreError> {
        let failed = |what| database_error(what, &self.path);
        let sql = format!("PRAGMA quick_check({what})");
        let found: String = self
            .connection
            .query_row(&sql, [], |row| row.get(0))
            .map_err(failed("read"))?;
        if found == "ok" {
            return Ok(());
        }
        let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
        Err(failed("read")(rusqlite::Error::SqliteFailure(
            code,
            Some(found),
        )))
    }

    fn prepare(&mut self) -> rusqlite::Result<()> {
        let connection = &mut self.connection;
        let version: u32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        rows::create(connection, version)?;
        // Only now: the version then stands in the file itself, where it is
        // looked for.
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "journal_size_limit", 1 << 20)?;
        connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        // What is deleted is overwritten.
        connection.pragma_update(None, "secure_delete", "ON")?;
        connection.pragma_update(None, "cache_size", -CACHE_KIB)
    }

    /// What is stored.
    pub(super) fn read(&self, boot_id: &str) -> Result<Option<Saved>, StoreError> {
        let read = rows::read(&self.connection, boot_id);
        let read = read.map_err(database_error("read", &self.path))?;
        Ok(read.map(|(saved, strange)| {
            if strange > 0 {
                tracing::warn!(
                    rows = strange,
                    "{} has rows that cannot be understood: they are left out",
                    self.path.display()
                );
            }
            saved
        }))
    }

    /// Writes changes, all or none.
    pub(super) fn write<'a>(
        &mut self,
        changes: impl Iterator<Item = (&'a Change, Now)>,
        boot_id: &str,
    ) -> Result<(), StoreError> {
        self.change(|transaction| rows::write(transaction, changes, boot_id))
    }

    /// Changes something, all of it or nothing.
    pub(super) fn change<R>(
        &mut self,
        change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<R>,
    ) -> Result<R, StoreError> {
        let connection = &mut self.connection;
        let changed = || {
            let transaction = connection.transaction()?;
            let changed = change(&transaction)?;
            transaction.commit()?;
            Ok(changed)
        };
        changed().map_err(database_error("write", &self.path))
    }

    /// Writes the file anew, without traces of what was deleted.
    pub(super) fn rewrite(&self) -> Result<(), StoreError> {
        audit::rewrite(&self.connection).map_err(database_error("write", &self.path))
    }

    /// Writes what was deleted into the file; whether nobody was in the way.
    pub(super) fn wipe(&self) -> Result<bool, StoreError> {
        audit::wipe(&self.connection).map_err(database_error("write", &self.path))
    }
}

/// A file system that is read-only has no room for what the library keeps
/// beside a database while it is open. If nothing is there, nobody has it open, and the
/// file alone is all there is.
pub(super) fn connect_read_only(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let [log, index] = BESIDE.map(|beside| fs::metadata(with(path, beside)));
    let connection = if index.is_ok() || log.is_ok_and(|file| file.len() > 0) {
        Connection::open_with_flags(path, flags)?
    } else {
        let flags = flags | OpenFlags::SQLITE_OPEN_URI;
        Connection::open_with_flags(unchanging(path), flags)?
    };
    connection.busy_timeout(BUSY)?;
    // Whoever may write the file does not choose what whoever reads it carries out.
    connection.pragma_update(None, "trusted_schema", "OFF")?;
    connection.pragma_update(None, "cell_size_check", "ON")?;
    Ok(connection)
}

/// Makes the file if there is none, for nobody else to read. What the library
/// puts beside it gets the same mode.
fn make_private(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    if file.metadata()?.permissions().mode() & 0o777 != 0o600 {
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    Ok(())
}

/// The address of a file that nobody changes.
fn unchanging(path: &Path) -> String {
    let mut address = "file:".to_owned();
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' => address.push(char::from(*byte)),
            byte if byte.is_ascii_alphanumeric() => address.push(char::from(*byte)),
            byte => address.push_str(&format!("%{byte:02X}")),
        }
    }
    address + "?immutable=1"
}

fn with(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn file_error(what: &'static str, path: &Path) -> impl Fn(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::File {
        what,
        path: path.clone(),
        source,
    }
}

fn database_error(what: &'static str, path: &Path) -> impl Fn(rusqlite::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Database {
        what,
        path: path.clone(),
        source,
    }
}

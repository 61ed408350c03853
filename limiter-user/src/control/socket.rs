//! The socket file: one daemon, the right mode, and no trace of one that died.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, OpenOptionsExt as _};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another daemon holds the lock.
    #[error(
        "another limiter{} runs with the control socket {}; stop it first, or give this one another socket with --socket", 
        pid.as_deref().map(|pid| format!(" (process {pid})")).unwrap_or_default(), socket.display()
    )]
    Running {
        /// Where.
        socket: PathBuf,
        /// Its process, if it said so.
        pid: Option<String>,
    },
    /// Somebody else answers there.
    #[error("another program answers on {}; stop it, or name another socket", .0.display())]
    Answered(PathBuf),
    /// Something that is no socket is in the way.
    #[error("{} exists and is no socket; move it away, or name another socket", .0.display())]
    InTheWay(PathBuf),
    /// A step failed.
    #[error("cannot {what} {}: {cause}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// Why it failed.
        cause: io::Error,
    },
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SocketError {
    let path = path.to_owned();
    move |cause| SocketError::Io { what, path, cause }
}

/// The right to be the daemon of a socket: a lock that the kernel gives back
/// when the process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    socket: PathBuf,
    /// Whether the socket file is this daemon's.
    is_bound: bool,
    // Held, never read: closing it gives the lock back.
    _file: File,
}

impl Lock {
    /// Takes the lock of `socket`, whose directory is made where it is
    /// missing. To be had before anything is attached.
    ///
    /// # Errors
    /// Another daemon has it, or the directory cannot be written.
    pub fn take(socket: &Path) -> Result<Self, SocketError> {
        if let Some(directory) = socket.parent() {
            make(directory).map_err(io_error("create", directory))?;
        }
        let path = beside(socket, ".lock");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options
            .mode(0o600)
            .open(&path)
            .map_err(io_error("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                let read = file.read_to_string(&mut pid);
                let is_pid =
                    |pid: &&str| !pid.is_empty() && pid.bytes().all(|b| b.is_ascii_digit());
                let pid = Some(pid.trim()).filter(|pid| read.is_ok() && is_pid(pid));
                return Err(SocketError::Running {
                    socket: socket.to_owned(),
                    pid: pid.map(str::to_owned),
                });
            }
            Err(TryLockError::Error(cause)) => return Err(io_error("lock", &path)(cause)),
        }
        let mut write = || {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        write().map_err(io_error("write", &path))?;
        Ok(Self {
            socket: socket.to_owned(),
            is_bound: false,
            _file: file,
        })
    }

    /// Listens, without blocking. Everybody may connect: who may do what is
    /// judged by [`super::Access`] alone.
    ///
    /// # Errors
    /// Somebody answers there, something else is in the way, or the file
    /// cannot be made.
    pub fn listen(&mut self) -> Result<UnixListener, SocketError> {
        let listener = listen_at(&self.socket, 0o666)?;
        let never_waits = listener.set_nonblocking(true);
        never_waits.map_err(io_error("listen on", &self.socket))?;
        self.is_bound = true;
        Ok(listener)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // The lock file stays: removing it would let two daemons lock two
        // different files of one name.
        if self.is_bound {
            let _gone = fs::remove_file(&self.socket);
        }
    }
}

/// Listens at a path, with this mode, in the place of what a daemon left behind that
/// died.
///
/// # Errors
/// Somebody answers there, something else is in the way, or the file cannot be made.
pub fn listen_at(path: &Path, mode: u32) -> Result<UnixListener, SocketError> {
    let is_alive = |path: &Path| UnixStream::connect(path).map(drop);
    put_in_place(path, mode, is_alive, |fresh| UnixListener::bind(fresh))
}

/// The same for datagrams.
///
/// # Errors
/// Those of [`listen_at`].
pub fn receive_at(path: &Path, mode: u32) -> Result<UnixDatagram, SocketError> {
    let is_alive = |path: &Path| UnixDatagram::unbound()?.connect(path);
    put_in_place(path, mode, is_alive, |fresh| UnixDatagram::bind(fresh))
}

fn put_in_place<T>(
    path: &Path,
    mode: u32,
    is_alive: impl Fn(&Path) -> io::Result<()>,
    bind: impl Fn(&Path) -> io::Result<T>,
) -> Result<T, SocketError> {
    if let Some(directory) = path.parent() {
        make(directory).map_err(io_error("create", directory))?;
    }
    clear(path, is_alive)?;
    // Bound under another name, so that nobody meets it with the wrong
    // mode.
    let fresh = beside(path, ".new");
    match fs::remove_file(&fresh) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
            return Err(io_error("remove", &fresh)(cause));
        }
        _ => {}
    }
    let bound = bind(&fresh).map_err(io_error("listen on", &fresh))?;
    let mode = fs::set_permissions(&fresh, Permissions::from_mode(mode));
    mode.map_err(io_error("set the mode of", &fresh))?;
    fs::rename(&fresh, path).map_err(io_error("put in place", path))?;
    Ok(bound)
}

/// Takes away what a daemon left behind that died.
fn clear(path: &Path, is_alive: impl Fn(&Path) -> io::Result<()>) -> Result<(), SocketError> {
    let kind = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(cause) => return Err(io_error("look at", path)(cause)),
    };
    if !kind.is_socket() {
        return Err(SocketError::InTheWay(path.to_owned()));
    }
    match is_alive(path) {
        Ok(()) => Err(SocketError::Answered(path.to_owned())),
        // The rename replaces it.
        Err(cause) if cause.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(cause) => Err(io_error("connect to", path)(cause)),
    }
}

/// Makes a directory and those above it that are missing. Whoever may use the
/// socket has to reach it, whatever the umask.
fn make(directory: &Path) -> io::Result<()> {
    if directory.as_os_str().is_empty() || directory.is_dir() {
        return Ok(());
    }
    if let Some(above) = directory.parent() {
        make(above)?;
    }
    DirBuilder::new().mode(0o755).create(directory)?;
    fs::set_permissions(directory, Permissions::from_mode(0o755))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_daemon_is_refused_and_names_the_first() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/control.sock");
        let lock = Lock::take(&path).unwrap();
        let error = Lock::take(&path).unwrap_err().to_string();
        let pid = format!("(process {})", std::process::id());
        assert!(error.contains(&pid), "{error}");
        drop(lock);
        Lock::take(&path).unwrap();
        let made = fs::metadata(directory.path().join("run")).unwrap();
        assert_eq!(made.permissions().mode() & 0o777, 0o755);
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let other = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let mut lock = Lock::take(&path).unwrap();
        let error = lock.listen().unwrap_err();
        assert!(matches!(error, SocketError::Answered(_)), "{error}");
        drop(other);
        let _listener = lock.listen().unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o666);
        UnixStream::connect(&path).unwrap();
        drop(lock);
        assert!(!path.exists());
    }

    #[test]
    fn a_file_in_the_way_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        fs::write(&path, "precious").unwrap();
        let mut lock = Lock::take(&path).unwrap();
        let error = lock.listen().unwrap_err();
        assert!(matches!(error, SocketError::InTheWay(_)), "{error}");
        drop(lock);
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }
}

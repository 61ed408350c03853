//! Where a capture goes.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, IsTerminal, Write, stdout};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::pcapng::{Packet, Writer};
use crate::cli::Failure;

/// A place that can be written to, and is as it was until [`Target::begin`].
#[derive(Debug)]
pub(super) struct Target {
    /// `None`: standard output.
    file: Option<File>,
    path: PathBuf,
    /// It was not there before.
    is_new: bool,
}

impl Target {
    /// Opens the file; `-` is standard output. Packets have payload: a file that
    /// is made here is for nobody else.
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        if path == Path::new("-") {
            refuse_terminal(&stdout())?;
            return Ok(Self {
                file: None,
                path: PathBuf::from("standard output"),
                is_new: false,
            });
        }
        let mut options = OpenOptions::new();
        options.write(true).mode(0o600);
        let opened = match options.clone().create_new(true).open(path) {
            Ok(file) => Ok((file, true)),
            // With O_CREAT still: only so does the kernel keep root from writing to
            // what others have planted in /tmp (`fs.protected_regular`).
            Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => options
                .create(true)
                .truncate(false)
                .open(path)
                .map(|file| (file, false)),
            Err(cause) => Err(cause),
        };
        let (file, is_new) = opened.map_err(|cause| cannot_write(path, &cause))?;
        refuse_terminal(&file)?;
        Ok(Self {
            file: Some(file),
            path: path.to_owned(),
            is_new,
        })
    }

    /// Leaves things as they were before.
    pub(super) fn give_up(self) {
        if self.is_new {
            // An empty file is no harm.
            let _removed = std::fs::remove_file(&self.path);
        }
    }

    /// Replaces what was in the file by a capture without packets. The interfaces
    /// are described at once: readers want one, also where no packet comes.
    pub(super) fn begin(
        self,
        snap_length: u32,
        interfaces: &[String],
    ) -> Result<CaptureFile, Failure> {
        let Self { file, path, .. } = self;
        let begin = || {
            let out: Box<dyn Write> = match file {
                Some(file) => {
                    // Pipes and devices have no length.
                    if file.metadata()?.is_file() {
                        file.set_len(0)?;
                    }
                    Box::new(BufWriter::new(file))
                }
                None => Box::new(BufWriter::new(stdout())),
            };
            let application = concat!("limiter ", env!("CARGO_PKG_VERSION"));
            let mut writer = Writer::new(out, application, snap_length)?;
            for interface in interfaces {
                writer.interface(interface)?;
            }
            writer.flush()?;
            Ok(writer)
        };
        match begin() {
            Ok(writer) => Ok(CaptureFile { writer, path }),
            Err(cause) => Err(failure(&path, cause)),
        }
    }
}

/// A capture that packets are added to.
pub(super) struct CaptureFile {
    writer: Writer<Box<dyn Write>>,
    path: PathBuf,
}

impl CaptureFile {
    /// Adds the packet that `packet` makes of its interface's number.
    pub(super) fn packet<'a>(
        &mut self,
        interface: &str,
        packet: impl FnOnce(u32) -> Packet<'a>,
    ) -> Result<(), Failure> {
        let number = self.writer.interface(interface);
        number
            .and_then(|number| self.writer.packet(&packet(number)))
            .map_err(|cause| failure(&self.path, cause))
    }

    /// Lets whoever reads along see it.
    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        let flushed = self.writer.flush();
        flushed.map_err(|cause| failure(&self.path, cause))
    }
}

/// What strangers sent is not for a terminal.
fn refuse_terminal(file: &impl IsTerminal) -> Result<(), Failure> {
    if !file.is_terminal() {
        return Ok(());
    }
    let words = "a capture is not for a terminal; name a file, or pipe it, as in \
                 `limiter capture - | tcpdump -nr -`";
    Err(Failure::Words(words.to_owned()))
}

fn failure(path: &Path, cause: io::Error) -> Failure {
    match cause.kind() {
        // Whoever reads along has seen enough: no error.
        io::ErrorKind::BrokenPipe => Failure::Output(cause),
        _ => cannot_write(path, &cause),
    }
}

fn cannot_write(path: &Path, cause: &io::Error) -> Failure {
    Failure::Words(format!("cannot write {}: {cause}", path.display()))
}

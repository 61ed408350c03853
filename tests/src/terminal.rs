//! Programs on a terminal: a pseudo terminal with somebody in front of it who
//! reads the screen and presses keys.

use crate::wait;
use anyhow::{Context as _, Result, bail};
use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    pty::{Winsize, openpty},
    sys::termios::{Termios, tcgetattr},
};
use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    num::NonZeroU16,
    os::{
        fd::OwnedFd,
        unix::process::{CommandExt as _, ExitStatusExt as _},
    },
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

/// Lines of the terminal.
const ROWS: NonZeroU16 = NonZeroU16::new(40).unwrap();
/// Characters in a line.
const COLUMNS: NonZeroU16 = NonZeroU16::new(120).unwrap();

/// A program on a terminal of its own; killed and reaped when dropped.
pub struct Terminal {
    child: Child,
    /// The end of whoever sits in front.
    front: File,
    /// The program's end, held so that what it wrote last can still be read.
    back: OwnedFd,
    before: Termios,
    screen: vt100::Parser,
}

impl Terminal {
    /// Starts a command ([`crate::netns::Namespace::command`]) on a terminal of
    /// 40 lines of 120 characters.
    pub fn start(command: Command) -> Result<Self> {
        Self::sized(command, ROWS, COLUMNS)
    }

    /// The same on a terminal of another size.
    pub fn sized(mut command: Command, rows: NonZeroU16, columns: NonZeroU16) -> Result<Self> {
        let size = Winsize {
            ws_row: rows.get(),
            ws_col: columns.get(),
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pty = openpty(&size, None).context("opening a pseudo terminal")?;
        let before = tcgetattr(&pty.slave).context("asking the terminal")?;
        fcntl(&pty.master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).context("not waiting")?;
        let end = || pty.slave.try_clone().map(Stdio::from);
        command.stdin(end()?).stdout(end()?).stderr(end()?);
        command.env("TERM", "xterm-256color");
        // SAFETY: two system calls, no allocation and no lock.
        unsafe { command.pre_exec(take_terminal) };
        let child = command.spawn().context("starting a program")?;
        Ok(Self {
            child,
            front: File::from(pty.master),
            back: pty.slave,
            before,
            screen: vt100::Parser::new(rows, columns, 0),
        })
    }

    /// Types.
    pub fn press(&mut self, keys: &str) -> Result<()> {
        self.front
            .write_all(keys.as_bytes())
            .context("pressing keys")
    }

    /// Sends the program a signal.
    pub fn signal(&self, signal: i32) -> Result<()> {
        let id = i32::try_from(self.child.id()).context("a process number")?;
        // SAFETY: a system call on integers; the child is not reaped before
        // `self` is gone or it has ended, so the number is its own.
        if unsafe { libc::kill(id, signal) } != 0 {
            return Err(io::Error::last_os_error()).context("sending a signal");
        }
        Ok(())
    }

    /// The screen as it is now, line by line.
    pub fn screen(&mut self) -> Result<String> {
        let mut bytes = [0; 4_096];
        loop {
            match self.front.read(&mut bytes) {
                Ok(0) => break,
                Ok(count) => self.screen.process(bytes.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("reading the screen"),
            }
        }
        Ok(self.screen.screen().contents())
    }

    /// Waits until the screen is as it should be; the error has the screen.
    pub fn until(
        &mut self,
        what: &str,
        at_most: Duration,
        mut is_there: impl FnMut(&str) -> bool,
    ) -> Result<String> {
        let waited = wait::until(what, at_most, || {
            let screen = self.screen()?;
            if let Some(status) = self.child.try_wait().context("waiting")? {
                bail!("the program has ended ({status})");
            }
            Ok(is_there(&screen).then_some(screen))
        });
        waited.with_context(|| format!("on the screen:\n{}", self.screen.screen().contents()))
    }

    /// Waits for the program's end; returns how it ended and what it left on
    /// the terminal. It is an error if the terminal is not as it was before.
    pub fn end(mut self) -> Result<(ExitStatus, String)> {
        let ended = || self.child.try_wait().context("waiting");
        let status = wait::until("the program's end", wait::SOON, ended)?;
        let left = self.screen()?;
        let screen = self.screen.screen();
        if screen.alternate_screen() || screen.hide_cursor() {
            bail!("the screen was not given back: {left}");
        }
        if tcgetattr(&self.back).context("asking the terminal")? != self.before {
            bail!("the terminal's modes are not as they were");
        }
        if let Some(signal) = status.signal() {
            bail!("signal {signal} ended the program");
        }
        Ok((status, left))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Both fail only if it has ended and been reaped.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Makes standard input, a terminal, that of a session of its own.
fn take_terminal() -> io::Result<()> {
    // SAFETY: a system call without arguments.
    if unsafe { libc::setsid() } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a system call on integers.
    if unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

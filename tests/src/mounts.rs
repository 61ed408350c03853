//! Mounts that one process sees, and that go with it.

use anyhow::{Context as _, Result};
use std::{
    ffi::{CStr, CString},
    fs, io,
    os::unix::{ffi::OsStrExt as _, process::CommandExt as _},
    path::Path,
    process::Command,
    ptr,
};

/// What lies over a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mount {
    /// The directory itself, read-only.
    ReadOnly,
    /// An empty file system of so many KiB.
    Small(u32),
}

/// Lets a command run with a mount over a directory, which is made if there is
/// none, in a mount namespace of its own.
pub fn inside(command: &mut Command, directory: &Path, mount: Mount) -> Result<()> {
    fs::create_dir_all(directory).context("making a directory to mount over")?;
    let place = CString::new(directory.as_os_str().as_bytes()).context("a path")?;
    let size = match mount {
        Mount::Small(kib) => format!("size={kib}k"),
        Mount::ReadOnly => String::new(),
    };
    let size = CString::new(size).context("an option")?;
    let prepare = move || {
        // SAFETY: a system call on an integer.
        if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
            return Err(io::Error::last_os_error());
        }
        call(c"none", c"/", c"", libc::MS_REC | libc::MS_PRIVATE, c"")?;
        match mount {
            Mount::Small(_) => call(c"tmpfs", &place, c"tmpfs", 0, &size),
            Mount::ReadOnly => {
                call(&place, &place, c"", libc::MS_BIND, c"")?;
                let flags = libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY;
                call(c"none", &place, c"", flags, c"")
            }
        }
    };
    // SAFETY: system calls on strings that were made before, no allocation and
    // no lock.
    unsafe { command.pre_exec(prepare) };
    Ok(())
}

/// mount(2); without options where they are empty.
fn call(
    source: &CStr,
    target: &CStr,
    kind: &CStr,
    flags: libc::c_ulong,
    options: &CStr,
) -> io::Result<()> {
    let data = if options.is_empty() {
        ptr::null()
    } else {
        options.as_ptr().cast()
    };
    // SAFETY: strings that outlive the call, or null.
    let done = unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, data) };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

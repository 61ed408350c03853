//! What the courier gives up: what the worker does, but for connections over IP, and files
//! that are not only read. Names are looked up by the C library, which reads a few.

use anyhow::Context as _;
use libc::{O_ACCMODE, O_CREAT, O_RDWR, O_TRUNC, O_WRONLY};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule,
};

use crate::worker::sandbox::{compiled, programs};

/// Other ways to open a file, which the C library does not take.
const MORE_REFUSED: &[libc::c_long] = &[
    libc::SYS_openat2,
    libc::SYS_open_by_handle_at,
    libc::SYS_accept,
    libc::SYS_accept4,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_creat,
];

/// Refuses them to this thread and those that it makes.
///
/// # Errors
/// The kernel has no seccomp, or this machine is of another kind.
pub(super) fn close() -> anyhow::Result<()> {
    for program in filters()? {
        seccompiler::apply_filter(&program).context("refusing system calls")?;
    }
    Ok(())
}

fn filters() -> anyhow::Result<Vec<BpfProgram>> {
    let mut filters = programs(&[libc::SYS_socket, libc::SYS_connect])?;
    let mut rules = std::collections::BTreeMap::new();
    rules.extend(MORE_REFUSED.iter().map(|call| (*call, Vec::new())));
    let argument = |index, op, value: i32| {
        let value = u64::from(value.cast_unsigned());
        SeccompCondition::new(index, SeccompCmpArgLen::Dword, op, value)
    };
    // Neither of the two families.
    let others = [libc::AF_INET, libc::AF_INET6];
    let others = others.map(|family| argument(0, SeccompCmpOp::Ne, family));
    let others: Result<Vec<_>, _> = others.into_iter().collect();
    rules.insert(libc::SYS_socket, vec![SeccompRule::new(others?)?]);
    let with = |mask: i32, value| {
        let op = SeccompCmpOp::MaskedEq(u64::from(mask.cast_unsigned()));
        SeccompRule::new(vec![argument(2, op, value)?])
    };
    let writes = [
        with(O_ACCMODE, O_WRONLY)?,
        with(O_ACCMODE, O_RDWR)?,
        with(O_CREAT, O_CREAT)?,
        with(O_TRUNC, O_TRUNC)?,
    ];
    rules.insert(libc::SYS_openat, writes.into());
    let refuse = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    filters.push(compiled(rules, refuse)?);
    Ok(filters)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::ErrorKind;
    use std::net::{TcpListener, TcpStream, ToSocketAddrs as _};
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[test]
    fn it_connects_and_reads_and_nothing_else() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let closed = std::thread::spawn(move || {
            close().unwrap();
            TcpStream::connect(address).unwrap();
            assert!(("localhost", 1).to_socket_addrs().unwrap().next().is_some());
            File::open("/proc/self/status").unwrap();
            let refused = [
                TcpListener::bind("127.0.0.1:0").map(drop),
                listener.accept().map(drop),
                UnixDatagram::unbound().map(drop),
                File::options().write(true).open("/dev/null").map(drop),
                std::process::Command::new("/bin/true").spawn().map(drop),
            ];
            refused.map(|it| it.unwrap_err().kind())
        });
        assert_eq!(closed.join().unwrap(), [ErrorKind::PermissionDenied; 5]);
    }
}

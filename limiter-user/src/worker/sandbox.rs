//! What the worker gives up beside its capabilities: system calls that it does not need, so
//! that who takes it over has its sockets and its channel and nothing else.

use std::collections::BTreeMap;

use anyhow::Context as _;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, sock_filter,
};

/// Refused with EPERM: other processes, other rights, other programs, other sockets, and the
/// memory and queues of System V, which all processes of a user have in common.
const REFUSED: &[libc::c_long] = &[
    libc::SYS_bpf,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_chroot,
    libc::SYS_socket,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_setpriority,
    libc::SYS_ioprio_set,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_setattr,
    libc::SYS_sched_setparam,
    libc::SYS_sched_setscheduler,
    libc::SYS_process_madvise,
    libc::SYS_process_mrelease,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    libc::SYS_kcmp,
    libc::SYS_get_robust_list,
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_shmctl,
    libc::SYS_semget,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_semctl,
    libc::SYS_msgget,
    libc::SYS_msgsnd,
    libc::SYS_msgrcv,
    libc::SYS_msgctl,
];

/// What may be done to a descriptor with `fcntl`. Not among it: having the kernel send a
/// signal to another process when something comes (`F_SETOWN`, `F_SETSIG`, `F_NOTIFY`).
const FCNTL: &[libc::c_int] = &[
    libc::F_DUPFD,
    libc::F_DUPFD_CLOEXEC,
    libc::F_GETFD,
    libc::F_SETFD,
    libc::F_GETFL,
    libc::F_SETFL,
];

/// The same with `ioctl`; `TCGETS` is how a library finds that something is no terminal. Not
/// among it: what says whom signals go to (`FIOSETOWN`, `SIOCSPGRP`).
const IOCTL: &[libc::Ioctl] = &[
    libc::FIONBIO,
    libc::FIONREAD,
    libc::FIOCLEX,
    libc::FIONCLEX,
    libc::TCGETS,
];

/// The bits of a socket's kind without its flags (`linux/net.h`, `SOCK_TYPE_MASK`).
const SOCKET_KINDS: u64 = 0xf;

/// The bit of the numbers of the x32 calls, which do what those of x86_64 do under other
/// numbers, and are of the same architecture to the kernel (`asm/unistd.h`,
/// `__X32_SYSCALL_BIT`).
const X32: u32 = 0x4000_0000;

/// Refuses them to this thread and those that it makes.
///
/// # Errors
/// The kernel has no seccomp, or this machine is of another kind.
pub(super) fn close() -> anyhow::Result<()> {
    for program in programs(&[])? {
        seccompiler::apply_filter(&program).context("refusing system calls")?;
    }
    Ok(())
}

/// The filters; a call passes that all of them let pass. `spared` is not refused.
///
/// # Errors
/// This machine is of a kind that the library does not know.
pub(crate) fn programs(spared: &[libc::c_long]) -> anyhow::Result<Vec<BpfProgram>> {
    let refuse = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let refused = REFUSED.iter().filter(|call| !spared.contains(call));
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        refused.map(|call| (*call, Vec::new())).collect();
    // A thread is a process that shares all with its maker; others are not made.
    let thread = u64::try_from(libc::CLONE_THREAD)?;
    let flags = SeccompCmpOp::MaskedEq(thread);
    let is_process = SeccompCondition::new(0, SeccompCmpArgLen::Qword, flags, 0)?;
    rules.insert(libc::SYS_clone, vec![SeccompRule::new(vec![is_process])?]);
    // To itself, as who aborts does, and to nobody else.
    let own = u64::from(std::process::id());
    let other = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, own)?;
    rules.insert(libc::SYS_tgkill, vec![SeccompRule::new(vec![other])?]);
    // Its own limits; those of another process of its user would end that.
    let another = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, 0)?;
    rules.insert(libc::SYS_prlimit64, vec![SeccompRule::new(vec![another])?]);
    // From a pair of streams nothing leads to other sockets; a datagram says where it goes.
    let kind = SeccompCmpOp::MaskedEq(SOCKET_KINDS);
    let pairs = [libc::SOCK_DGRAM, libc::SOCK_RAW, libc::SOCK_SEQPACKET].map(|other| {
        let other = u64::from(other.cast_unsigned());
        let is_other = SeccompCondition::new(1, SeccompCmpArgLen::Dword, kind.clone(), other)?;
        SeccompRule::new(vec![is_other])
    });
    let pairs: Result<Vec<_>, _> = pairs.into_iter().collect();
    rules.insert(libc::SYS_socketpair, pairs?);
    let commands = FCNTL.iter().map(|it| it.cast_unsigned());
    rules.insert(libc::SYS_fcntl, vec![second_is_none_of(commands)?]);
    let requests = IOCTL.iter().map(|it| *it as u32);
    rules.insert(libc::SYS_ioctl, vec![second_is_none_of(requests)?]);
    #[cfg(target_arch = "x86_64")]
    rules.extend([(libc::SYS_fork, Vec::new()), (libc::SYS_vfork, Vec::new())]);
    // Its flags cannot be looked at; the library takes the older call where there is none.
    let absent = SeccompAction::Errno(libc::ENOSYS.cast_unsigned());
    let clone3 = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    Ok(vec![
        compiled(rules, refuse)?,
        compiled(clone3, absent)?,
        without_x32(),
    ])
}

/// Of a call whose second argument the kernel takes as 32 bits, and is none of these.
fn second_is_none_of(values: impl Iterator<Item = u32>) -> anyhow::Result<SeccompRule> {
    let differs = |value: u32| {
        let operator = SeccompCmpOp::Ne;
        SeccompCondition::new(1, SeccompCmpArgLen::Dword, operator, value.into())
    };
    let conditions: Result<Vec<_>, _> = values.map(differs).collect();
    Ok(SeccompRule::new(conditions?)?)
}

/// One filter: `action` for the calls of these rules.
///
/// # Errors
/// As [`programs`].
pub(crate) fn compiled(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    action: SeccompAction,
) -> anyhow::Result<BpfProgram> {
    let machine = std::env::consts::ARCH.try_into()?;
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, action, machine)?;
    Ok(filter.try_into()?)
}

/// Refuses the calls whose numbers no rule above names: rules are of single numbers. No other
/// machine has numbers so high.
fn without_x32() -> BpfProgram {
    let step = |code: u32, jt, jf, k| sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    let refuse = libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned();
    vec![
        // The number is what `seccomp_data` begins with.
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 0, 1, X32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, refuse),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::UdpSocket;
    use std::os::unix::net::{UnixDatagram, UnixStream};

    use super::*;

    /// What a program says of a call of this number; those it has no other loads of.
    fn verdict(program: &BpfProgram, number: u32) -> u32 {
        let (mut at, mut loaded) = (0, 0);
        loop {
            let step = &program[at];
            at += 1;
            let jump = match u32::from(step.code) {
                0x20 => {
                    assert_eq!(step.k, 0);
                    loaded = number;
                    continue;
                }
                0x35 => loaded >= step.k,
                0x06 => return step.k,
                other => panic!("{other:#x}"),
            };
            at += usize::from(if jump { step.jt } else { step.jf });
        }
    }

    #[test]
    fn calls_under_other_numbers_are_refused() {
        let program = without_x32();
        let refuse = libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned();
        for call in REFUSED.iter().chain(&[libc::SYS_read, libc::SYS_write]) {
            let call = u32::try_from(*call).unwrap();
            assert_eq!(verdict(&program, call), libc::SECCOMP_RET_ALLOW);
            assert_eq!(verdict(&program, call | X32), refuse);
        }
        assert_eq!(verdict(&program, X32), refuse);
        assert_eq!(verdict(&program, X32 - 1), libc::SECCOMP_RET_ALLOW);
        assert_eq!(verdict(&program, u32::MAX), refuse);
    }

    /// What the kernel says to a call; those made here change nothing but this process's own.
    fn call(number: libc::c_long, arguments: [libc::c_long; 4]) -> Option<i32> {
        let [a, b, c, d] = arguments;
        // SAFETY: the callers pass numbers, null pointers, and pointers to values that outlive
        // the call and are as large as it takes.
        let done = unsafe { libc::syscall(number, a, b, c, d) };
        (done == -1).then(|| std::io::Error::last_os_error().raw_os_error().unwrap())
    }

    fn address<T>(value: &mut T) -> libc::c_long {
        std::ptr::from_mut(value) as libc::c_long
    }

    /// Calls by which a process of the same user, here of root, could end or hold up another.
    fn meddling(file: libc::c_long) -> Vec<(&'static str, Option<i32>)> {
        let other = libc::c_long::from(std::os::unix::process::parent_id());
        // `F_OWNER_PID`, and who (`asm-generic/fcntl.h`).
        let mut owner = [1, other as i32];
        let mut number = other as i32;
        let mut limit = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        let fcntl = |command: i32, value| call(libc::SYS_fcntl, [file, command.into(), value, 0]);
        let ioctl = |request, value| call(libc::SYS_ioctl, [file, request, value, 0]);
        // `asm-generic/sockios.h`.
        let (set_owner, set_group) = (0x8901, 0x8902);
        vec![
            ("F_SETOWN", fcntl(libc::F_SETOWN, other)),
            ("F_SETOWN_EX", fcntl(15, address(&mut owner))),
            ("F_SETSIG", fcntl(10, libc::SIGKILL.into())),
            ("F_NOTIFY", fcntl(1_026, 0)),
            ("FIOSETOWN", ioctl(set_owner, address(&mut number))),
            ("SIOCSPGRP", ioctl(set_group, address(&mut number))),
            // With the bits that the kernel does not look at.
            (
                "FIOSETOWN",
                ioctl(1 << 32 | set_owner, address(&mut number)),
            ),
            (
                "prlimit64",
                call(
                    libc::SYS_prlimit64,
                    // What cannot be there: a kernel that goes by it changes nothing.
                    [other, 99, address(&mut limit), 0],
                ),
            ),
            (
                "sched_setaffinity",
                call(libc::SYS_sched_setaffinity, [other, 0, 0, 0]),
            ),
            (
                "sched_setscheduler",
                call(libc::SYS_sched_setscheduler, [other, 99, 0, 0]),
            ),
            ("ioprio_set", call(libc::SYS_ioprio_set, [9, other, 0, 0])),
            (
                "migrate_pages",
                call(libc::SYS_migrate_pages, [other, 0, 0, 0]),
            ),
            ("kcmp", call(libc::SYS_kcmp, [other, other, 99, 0])),
            ("shmget", call(libc::SYS_shmget, [1, 0, 0, 0])),
            ("kill", call(libc::SYS_kill, [other, 0, 0, 0])),
            ("setpriority", call(libc::SYS_setpriority, [9, other, 0, 0])),
        ]
    }

    #[test]
    fn no_other_process_can_be_meddled_with() {
        use std::os::fd::AsRawFd as _;
        let (socket, _other) = UnixStream::pair().unwrap();
        let file = libc::c_long::from(socket.as_raw_fd());
        std::thread::scope(|scope| {
            let closed = scope.spawn(|| {
                close().unwrap();
                for (name, error) in meddling(file) {
                    assert_eq!(error, Some(libc::EPERM), "{name}");
                }
                // What the worker does itself goes on.
                socket.set_nonblocking(true).unwrap();
                socket.try_clone().unwrap();
                UnixStream::pair().unwrap();
                // What is sent from one of these may go to any socket of this user.
                let refused = UnixDatagram::pair().unwrap_err();
                assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
                let mut limit = libc::rlimit {
                    rlim_cur: 0,
                    rlim_max: 0,
                };
                let nofile = libc::RLIMIT_NOFILE.into();
                let own = [0, nofile, 0, address(&mut limit)];
                assert_eq!(call(libc::SYS_prlimit64, own), None);
                assert!(limit.rlim_cur > 0);
            });
            closed.join().unwrap();
        });
    }

    #[test]
    fn the_kernel_takes_the_filters() {
        let refused = std::thread::spawn(|| {
            close().unwrap();
            // Threads go on to be made.
            std::thread::spawn(|| UdpSocket::bind("127.0.0.1:0").unwrap_err().kind())
                .join()
                .unwrap()
        });
        assert_eq!(refused.join().unwrap(), ErrorKind::PermissionDenied);
        UdpSocket::bind("127.0.0.1:0").unwrap();
    }
}

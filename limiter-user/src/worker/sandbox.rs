//! What the worker gives up beside its capabilities: system calls that it does not need, so
//! that who takes it over has its sockets and its channel and nothing else.

use std::collections::BTreeMap;

use anyhow::Context as _;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, sock_filter,
};

/// Refused with EPERM: other processes, other rights, other programs, other sockets.
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
];

/// The bit of the numbers of the x32 calls, which do what those of x86_64 do under other
/// numbers, and are of the same architecture to the kernel (`asm/unistd.h`,
/// `__X32_SYSCALL_BIT`).
const X32: u32 = 0x4000_0000;

/// Refuses them to this thread and those that it makes.
///
/// # Errors
/// The kernel has no seccomp, or this machine is of another kind.
pub(super) fn close() -> anyhow::Result<()> {
    for program in programs()? {
        seccompiler::apply_filter(&program).context("refusing system calls")?;
    }
    Ok(())
}

/// The filters; a call passes that all of them let pass.
fn programs() -> anyhow::Result<Vec<BpfProgram>> {
    let refuse = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    // A thread is a process that shares all with its maker; others are not made.
    let thread = u64::try_from(libc::CLONE_THREAD)?;
    let flags = SeccompCmpOp::MaskedEq(thread);
    let is_process = SeccompCondition::new(0, SeccompCmpArgLen::Qword, flags, 0)?;
    rules.insert(libc::SYS_clone, vec![SeccompRule::new(vec![is_process])?]);
    // To itself, as who aborts does, and to nobody else.
    let own = u64::from(std::process::id());
    let other = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, own)?;
    rules.insert(libc::SYS_tgkill, vec![SeccompRule::new(vec![other])?]);
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

fn compiled(
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

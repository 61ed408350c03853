//! Which CPU does what.

use crate::{veth::End, wait};
use anyhow::{Context as _, Result, ensure};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};
use std::{
    collections::BTreeSet,
    fs, io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
};

/// How many there are for this thread, and what it starts.
pub fn count() -> Result<usize> {
    let count = thread::available_parallelism();
    Ok(count.context("counting the CPUs")?.get())
}

/// Keeps this thread, and those it makes, on one CPU.
pub fn pin(cpu: usize) -> Result<()> {
    pin_thread(Pid::from_raw(0), cpu)
}

/// Runs a closure on a thread of its own that stays on one CPU.
///
/// # Panics
/// If the closure does.
pub fn on<T: Send>(cpu: usize, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let pinned = move || pin(cpu).and_then(|()| work());
    match thread::scope(|scope| scope.spawn(pinned).join()) {
        Ok(answer) => answer,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Runs a closure with all CPUs but one for this thread, and for the processes that it starts
/// meanwhile. Those end with the thread that started them, so it must be this one.
pub fn off<T>(cpu: usize, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let own = Pid::from_raw(0);
    let before = sched_getaffinity(own).context("asking for a thread's CPUs")?;
    let mut others = before;
    others.unset(cpu)?;
    sched_setaffinity(own, &others).with_context(|| format!("keeping a thread off CPU {cpu}"))?;
    let done = work();
    sched_setaffinity(own, &before).context("giving a thread its CPUs back")?;
    done
}

fn pin_thread(thread: Pid, cpu: usize) -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu)?;
    sched_setaffinity(thread, &cpus).with_context(|| format!("pinning a thread to CPU {cpu}"))
}

/// Keeps a CPU from resting while it lives, by a thread of the lowest class: to wake a virtual
/// machine's CPU from its idle state takes long.
#[derive(Debug)]
pub struct Awake {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Awake {
    /// Begins. Where the lowest class cannot be had, the CPU may rest.
    #[must_use]
    pub fn on(cpu: usize) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&over);
        let thread = thread::spawn(move || {
            if pin(cpu).is_ok() && run_only_when_idle().is_ok() {
                while !stop.load(Relaxed) {
                    std::hint::spin_loop();
                }
            }
        });
        Self {
            over,
            thread: Some(thread),
        }
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        self.over.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            // It cannot have failed in any way that matters now.
            let _ended = thread.join();
        }
    }
}

/// A CPU of its own that handles what arrives at an interface, as if the sender
/// were another machine. Otherwise the CPU that sends also receives.
///
/// The CPU does not rest while this lives: until it woke, the ring of a veth
/// (256 frames) could not hold a flood of more than a million packets a second.
#[derive(Debug)]
pub struct Receiver {
    _awake: Awake,
}

impl Receiver {
    /// Moves the work of `end`, which must have one queue and run NAPI, to
    /// `cpu`: to a thread of the kernel's own (threaded NAPI).
    pub fn on(end: &End, cpu: usize) -> Result<Self> {
        let before = napi_threads(&end.name)?;
        // A mount of its own, since sysfs shows the namespace it was mounted in.
        let script = format!(
            "mount -t sysfs none /sys && echo 1 > /sys/class/net/{}/threaded",
            end.name
        );
        let shell = ["--mount", "sh", "-ec", &script];
        end.namespace.output("unshare", &shell)?;
        let thread = wait::until("the kernel's receiving thread", wait::SOON, || {
            let now = napi_threads(&end.name)?;
            Ok(now.difference(&before).next().copied())
        })?;
        pin_thread(thread, cpu)?;
        prefer(thread)?;
        Ok(Self {
            _awake: Awake::on(cpu),
        })
    }
}

/// The kernel's threads that receive for interfaces of this name; other
/// namespaces can have some too.
fn napi_threads(interface: &str) -> Result<BTreeSet<Pid>> {
    let prefix = format!("napi/{interface}-");
    let processes = fs::read_dir("/proc").context("listing the processes")?;
    let threads = processes.flatten().filter_map(|process| {
        let name = fs::read_to_string(process.path().join("comm")).ok()?;
        let id: i32 = process.file_name().to_str()?.parse().ok()?;
        name.starts_with(&prefix).then(|| Pid::from_raw(id))
    });
    Ok(threads.collect())
}

/// Puts this thread before all others.
pub fn hurry() -> Result<()> {
    prefer(Pid::from_raw(0)).context("raising a thread's priority")
}

/// Puts a thread before all others, as interrupts are.
fn prefer(thread: Pid) -> Result<()> {
    let id = u32::try_from(thread.as_raw())?;
    // SAFETY: a system call on integers.
    let status = unsafe { libc::setpriority(libc::PRIO_PROCESS, id, -20) };
    ensure!(status == 0, io::Error::last_os_error());
    Ok(())
}

/// Gives this thread the scheduler's lowest class.
fn run_only_when_idle() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the parameters live over the call; 0 is this thread.
    let status = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameters) };
    match status {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

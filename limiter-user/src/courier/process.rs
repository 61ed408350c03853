//! The courier's own process.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, bail};

use super::job::{Answer, Answered, Job, ToCourier};
use super::{mail, post, sandbox};
use crate::daemon::logging;
use crate::notify::queue::shortened;
use crate::worker::channel::{ChannelError, MAX_MESSAGE, Receiver, Sender};
use crate::worker::process::{die_with, end_on_panic, first_for_want_of_memory, standard_input};
use crate::worker::spawner::block_signals;

/// Jobs at once; more are to come later.
const AT_ONCE: usize = 32;

/// Works until the daemon has gone.
///
/// # Errors
/// The daemon does not say what is to be done.
pub fn run() -> anyhow::Result<()> {
    block_signals();
    end_on_panic();
    let stream = standard_input()?;
    let sender = Arc::new(Sender::<Answered>::new(stream.try_clone()?)?);
    let mut messages = Receiver::<ToCourier>::new(stream, MAX_MESSAGE);
    match messages.receive() {
        Ok(ToCourier::Start { log, spawner }) => {
            logging::start(log.0, log.1);
            first_for_want_of_memory();
            die_with(spawner)?;
        }
        Ok(_) => bail!("the daemon does not begin with the beginning; this is a defect of limiter"),
        Err(ChannelError::Gone) => return Ok(()),
        Err(error) => return Err(error).context("waiting for the daemon"),
    }
    nix::sys::prctl::set_dumpable(false)?;
    // Unlike the worker it does not go on without: it talks to whoever a name leads to.
    sandbox::close().context("refusing system calls to the courier")?;
    // It fails only where there is one already.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let busy = Arc::new(AtomicUsize::new(0));
    loop {
        let (id, job) = match messages.receive() {
            Ok(ToCourier::Job { id, job }) => (id, job),
            Ok(ToCourier::Start { .. }) => bail!("a second beginning"),
            Err(ChannelError::Gone) => return Ok(()),
            Err(error) => return Err(error).context("listening to the daemon"),
        };
        if busy.fetch_add(1, Ordering::Relaxed) >= AT_ONCE {
            busy.fetch_sub(1, Ordering::Relaxed);
            let answer = Answer::Later("too much is on its way already".to_owned());
            sender.send(&Answered { id, answer }, &[])?;
            continue;
        }
        let (sender, busy) = (Arc::clone(&sender), Arc::clone(&busy));
        let thread = std::thread::Builder::new().name("job".to_owned());
        let work = move || {
            let answer = carry_out(&job);
            busy.fetch_sub(1, Ordering::Relaxed);
            // The thread that receives notices that the daemon has gone.
            let _gone = sender.send(&Answered { id, answer }, &[]);
        };
        thread.spawn(work).context("starting a thread")?;
    }
}

/// Does it. What a server says is cut: the daemon takes answers of bounded length.
pub(super) fn carry_out(job: &Job) -> Answer {
    let answer = match job {
        Job::Post(job) => post::carry_out(job),
        Job::Mail(job) => mail::carry_out(job),
    };
    match answer {
        Answer::Accepted(words) => Answer::Accepted(shortened(&words)),
        Answer::Refused(words) => Answer::Refused(shortened(&words)),
        Answer::Later(words) => Answer::Later(shortened(&words)),
        replied @ Answer::Replied { .. } => replied,
    }
}

//! What the worker has asked of providers of CAPTCHAs. The secret stays here, and the answer goes
//! on unread: the courier has fetched it, the worker reads it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::challenge::AT_ONCE;
use crate::challenge::captcha::{Question, is_response, request};
use crate::courier::{Answer, Courier, Job};
use crate::policy::Captcha;
use crate::worker::message::ToWorker;
use crate::worker::outgoing::Outgoing;

/// Who asks for the worker. Each question has a thread, so that one that hangs keeps none back.
#[derive(Debug, Default)]
pub(super) struct Captchas {
    courier: Option<Courier>,
    busy: Arc<AtomicUsize>,
}

impl Captchas {
    pub(super) fn new(courier: Option<Courier>) -> Self {
        Self {
            courier,
            busy: Arc::default(),
        }
    }

    /// Asks the provider that the policy names, and tells the worker what came of it.
    pub(super) fn ask(
        &self,
        id: u64,
        question: &Question,
        captcha: Option<&Captcha>,
        outgoing: &Arc<Outgoing>,
    ) {
        let outgoing = Arc::clone(outgoing);
        let tell = move |answer| outgoing.send(ToWorker::Verified { id, answer }, Vec::new());
        let (Some(captcha), Some(courier)) = (captcha, self.courier.clone()) else {
            tell(Answer::Later("the policy names no provider".to_owned()));
            return;
        };
        // The worker sees to both; it is believed as little as what it reads.
        if !is_response(&question.response) || self.busy.load(Ordering::Relaxed) >= AT_ONCE {
            tell(Answer::Later("too much is asked".to_owned()));
            return;
        }
        let job = Job::Post(request(captcha, question));
        self.busy.fetch_add(1, Ordering::Relaxed);
        let busy = Arc::clone(&self.busy);
        let thread = thread::Builder::new().name("captcha".to_owned());
        let asking = thread.spawn(move || {
            tell(courier.deliver(job));
            busy.fetch_sub(1, Ordering::Relaxed);
        });
        if let Err(error) = asking {
            // Whoever waits loses patience.
            self.busy.fetch_sub(1, Ordering::Relaxed);
            tracing::error!(%error, "no thread to ask the provider of CAPTCHAs");
        }
    }
}

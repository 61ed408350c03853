//! The threads that send what waits, one for each channel: a webhook that hangs keeps no mail
//! back.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::message;
use super::queue::{Channel, Letter, Outcome, shortened};
use super::{Shared, State, Tried, has, now_ms};
use crate::courier::{Answer, Job, Mail, Post, Tls};
use crate::policy::{Notify, SmtpTls};

/// How long a webhook may take, and a mail server for each step where somebody waits for it.
const TIMEOUT_MS: u64 = 10_000;

/// How long a mail server may take for each step (RFC 5321, section 4.5.3.2; for the end of the
/// mail twice as long). Whoever hangs up earlier may have been heard, and sends it again.
const MAIL_TIMEOUT_MS: u64 = 300_000;

/// How long it is waited at most before the clock is looked at again, which may have been set.
const LOOK: Duration = Duration::from_secs(60);

/// The statuses with which a receiver says that it wants no more (RFC 9110, section 15.5.11).
const GONE: u16 = 410;

/// Characters of a server's answer that are told.
const ANSWER_CHARS: usize = 200;

impl Shared {
    /// Sends what waits in a channel, until the end.
    pub(super) fn send(&self, channel: Channel) {
        while let Some((letter, settings)) = self.next(channel) {
            // On the disk before it leaves.
            self.write();
            let outcome = self.outcome(&settings, &letter, MAIL_TIMEOUT_MS).0;
            let is_sent = outcome == Outcome::Sent;
            let mut state = self.state();
            let queue = &mut state.queue;
            let failed = queue.tried(&letter.id, channel, outcome, dice(), now_ms());
            let error = queue.tally(channel).last_error.clone();
            state.changes += 1;
            drop(state);
            self.write();
            let (channel, id) = (channel.name(), &letter.id);
            match (failed, error) {
                (Some(why), _) => tracing::error!(channel, id, why, "a notification is given up"),
                (None, Some(error)) if !is_sent => {
                    tracing::warn!(
                        channel,
                        id,
                        error,
                        "a notification did not arrive; it is tried again"
                    );
                }
                (None, _) => tracing::info!(channel, id, "a notification has arrived"),
            }
        }
    }

    /// Waits for the next letter of a channel; `None`: the end.
    fn next(&self, channel: Channel) -> Option<(Letter, Arc<Notify>)> {
        let mut state = self.state();
        let mut stored = 0;
        loop {
            if state.is_ending {
                return None;
            }
            let now_ms = now_ms();
            state.changes += u64::from(state.queue.forget(now_ms));
            let settings = state.settings.clone().filter(|it| has(it, channel));
            let due = state.queue.due(channel, now_ms).cloned();
            if let (Some(letter), Some(settings)) = (due, &settings) {
                return Some((letter, Arc::clone(settings)));
            }
            if state.is_following && settings.is_none() {
                self.give_up(&mut state, channel, now_ms);
            }
            // Tried once for each change, whatever comes of it.
            if state.changes != stored {
                stored = state.changes;
                drop(state);
                self.write();
                state = self.state();
                continue;
            }
            let next_ms = match settings {
                Some(_) => state.queue.next_ms(channel).unwrap_or(u64::MAX),
                None => u64::MAX,
            };
            let wait = Duration::from_millis(next_ms.saturating_sub(now_ms).max(1)).min(LOOK);
            let woken = self.more.wait_timeout(state, wait);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Gives up what has waited too long for a way that the policy has no more.
    fn give_up(&self, state: &mut State, channel: Channel, now_ms: u64) {
        let given_up = state.queue.give_up(channel, now_ms);
        if given_up > 0 {
            let channel = channel.name();
            tracing::error!(
                channel,
                given_up,
                "notifications are given up: the policy has had no way for them for a day"
            );
            state.changes += 1;
        }
    }

    /// Writes the queue down, if it has changed since.
    pub(super) fn write(&self) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let state = self.state();
        let changes = state.changes;
        if changes == *written {
            return;
        }
        let stored = state.queue.stored().clone();
        drop(state);
        match self.outbox.write(&stored) {
            Ok(()) => *written = changes,
            Err(error) => tracing::warn!(%error, "notifications that wait are not stored"),
        }
    }

    /// Delivers a letter; what came of it, and what the server said. A mail server may take so
    /// long for each step.
    fn outcome(&self, settings: &Notify, letter: &Letter, mail_ms: u64) -> (Outcome, String) {
        let Some(job) = self.job(settings, letter, mail_ms) else {
            let why = "the policy has no way for it any more".to_owned();
            return (Outcome::Refused(why.clone()), why);
        };
        match self.courier.deliver(job) {
            Answer::Accepted(words) => (Outcome::Sent, words),
            Answer::Replied { status, body } => {
                let body: String = String::from_utf8_lossy(&body)
                    .chars()
                    .take(ANSWER_CHARS)
                    .collect();
                let words = shortened(format!("status {status} {body}").trim());
                let outcome = match status {
                    200..=299 => Outcome::Sent,
                    GONE => Outcome::Refused(words.clone()),
                    _ => Outcome::Later(words.clone()),
                };
                (outcome, words)
            }
            Answer::Refused(why) => (Outcome::Refused(why.clone()), why),
            Answer::Later(why) => (Outcome::Later(why.clone()), why),
        }
    }

    /// What a channel makes of a letter that does not wait.
    pub(super) fn try_out(&self, settings: &Notify, letter: &Letter) -> Tried {
        let (outcome, answer) = self.outcome(settings, letter, TIMEOUT_MS);
        let webhook = settings.webhook.as_ref().map(|it| it.url.clone());
        Tried {
            channel: letter.channel.name().to_owned(),
            to: letter.to.clone().or(webhook).unwrap_or_default(),
            sent: outcome == Outcome::Sent,
            answer,
        }
    }

    fn job(&self, settings: &Notify, letter: &Letter, mail_ms: u64) -> Option<Job> {
        let certificates = settings.certificates.as_deref().map(<[u8]>::to_vec);
        match letter.channel {
            Channel::Webhook => {
                let webhook = settings.webhook.as_ref()?;
                let body = message::webhook(letter, &self.host);
                let signature = message::signature(&webhook.secret.0, now_ms() / 1_000, &body);
                let headers = [
                    ("Content-Type", "application/json".to_owned()),
                    ("X-Limiter-Event", letter.happening.word().to_owned()),
                    ("X-Limiter-Id", letter.id.clone()),
                    ("X-Limiter-Signature", signature),
                ];
                Some(Job::Post(Post {
                    url: webhook.url.clone(),
                    headers: headers.map(|(name, value)| (name.to_owned(), value)).into(),
                    body,
                    timeout_ms: TIMEOUT_MS,
                    certificates,
                }))
            }
            Channel::Mail => {
                let smtp = settings.smtp.as_ref()?;
                let (subject, text) = message::mail(
                    &letter.happening,
                    &self.host,
                    settings.language,
                    &settings.templates,
                );
                let login = smtp.login.as_ref();
                Some(Job::Mail(Box::new(Mail {
                    host: smtp.host.clone(),
                    port: smtp.port,
                    tls: match smtp.tls {
                        SmtpTls::StartTls => Tls::StartTls,
                        SmtpTls::Tls => Tls::Wrapped,
                        SmtpTls::None => Tls::None,
                    },
                    login: login.map(|(user, password)| (user.clone(), password.0.clone())),
                    own_name: self.host.clone(),
                    from: smtp.from.clone(),
                    to: letter.to.clone()?,
                    subject,
                    text,
                    id: format!("{}.limiter@{}", letter.id, self.host),
                    date_s: letter.happening.at_ms() / 1_000,
                    timeout_ms: mail_ms,
                    certificates,
                })))
            }
        }
    }
}

/// A name that no other letter has.
pub(super) fn random_id() -> String {
    let id = crate::store::random().map_or(0, u128::from_ne_bytes);
    format!("{id:032x}")
}

/// From 0 up to 1.
fn dice() -> f64 {
    let random = crate::store::random().map_or(0, u128::from_ne_bytes);
    (random >> 75) as f64 / (1_u64 << 53) as f64
}

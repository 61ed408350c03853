//! How those fare who are told what happens.

use super::Keeper;
use crate::control::api::NotifyRow;

impl Keeper {
    /// Each way to tell, as an answer.
    pub(super) fn notify_rows(&self) -> Vec<NotifyRow> {
        let health = self.notifier().map(|it| it.health()).unwrap_or_default();
        let rows = health.channels.into_iter();
        rows.map(|(channel, tally, waiting)| NotifyRow {
            channel: channel.name().to_owned(),
            waiting: waiting as u64,
            sent: tally.sent,
            failed: tally.failed,
            last_error: tally.last_error,
        })
        .collect()
    }
}

//! What changes under the daemon without an order: list files.

mod lists;

use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;

use crate::keeper::reload::{diagnostic_row, in_one_line};
use crate::keeper::{Handle, Kept, Lists, Now, Stopped, in_full};
use crate::policy::DiskFiles;
use lists::{Look, Watcher};

/// How often list files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Follows the list files of the policy in force, until it is aborted.
/// Files are looked at, read and compared on a thread that may block; the
/// keeper gets the differences.
pub async fn follow_lists(keeper: Handle) {
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut follower = Follower::default();
    loop {
        ticks.tick().await;
        // A keeper that is busy now may have time a second later.
        if let Err(error) = follower.turn(&keeper).await {
            tracing::debug!(%error, "list files are not followed");
        }
    }
}

#[derive(Default)]
struct Follower {
    watcher: Watcher,
    /// What the keeper was told last, and of which lists.
    told: (Lists, Vec<Kept>),
}

impl Follower {
    async fn turn(&mut self, keeper: &Handle) -> Result<(), Stopped> {
        let asked = keeper.ask(|keeper| (keeper.lists(), keeper.config().to_owned()));
        let (lists, config) = asked.await?;
        let files = DiskFiles::beside(&config);
        let mut watcher = std::mem::take(&mut self.watcher);
        let looked = tokio::task::spawn_blocking(move || {
            let look = watcher.look(&lists, &files, Instant::now());
            (watcher, lists, look)
        });
        let (watcher, lists, look) = looked.await.map_err(|_| Stopped)?;
        self.watcher = watcher;
        let mut kept = self.put_in_force(keeper, &look).await?;
        kept.extend(look.kept);
        if !lists.are(&self.told.0) || kept != self.told.1 {
            self.told = (lists, kept.clone());
            keeper
                .ask(|keeper| keeper.keep_files(kept, Now::read()))
                .await?;
        }
        Ok(())
    }

    /// Hands over what is new; the answer is what has to be kept for it.
    async fn put_in_force(&mut self, keeper: &Handle, look: &Look) -> Result<Vec<Kept>, Stopped> {
        let Some(news) = look.news.clone() else {
            return Ok(Vec::new());
        };
        let added = news.changes.iter().filter(|change| change.listed).count();
        let removed = news.changes.len() - added;
        let outcome = keeper
            .ask(move |keeper| {
                let followed = keeper.follow_lists(&news);
                followed.map_err(|error| in_full(&*error))
            })
            .await?;
        match outcome {
            Ok(true) => {
                let read = look.read.iter();
                let files: Vec<String> = read.map(|(_, file)| file.display().to_string()).collect();
                tracing::info!(
                    files = files.join(" "),
                    added,
                    removed,
                    "list files followed"
                );
                for warning in &look.warnings {
                    tracing::warn!("{}", in_one_line(&diagnostic_row(warning)));
                }
                for notice in &look.notices {
                    tracing::warn!("{notice}");
                }
                Ok(Vec::new())
            }
            // Other lists are in force by now; the next look compares with them.
            Ok(false) => Ok(Vec::new()),
            Err(cause) => Ok(self.watcher.refuse(&look.read, &cause, Instant::now())),
        }
    }
}

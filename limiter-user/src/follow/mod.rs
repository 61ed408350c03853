//! What changes under the daemon without an order: list files and interfaces.

mod links;
mod lists;

use std::time::{Duration, Instant};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::MissedTickBehavior;

use crate::keeper::reload::{diagnostic_row, in_one_line};
use crate::keeper::{Handle, Kept, Lists, Now, Stopped, in_full};
use crate::policy::DiskFiles;
use links::LinkEvents;
use lists::{Look, Watcher};

/// How often list files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// The least time between two looks at the interfaces: they may flap, and
/// containers come by the hundred.
const PACE: Duration = Duration::from_secs(1);

/// How often interfaces are looked at although the kernel says nothing.
const ANYWAY: Duration = Duration::from_secs(10);

/// Follows the interfaces that the policy means, until it is aborted: at once
/// when the kernel says that one has changed, and once a second while it goes
/// on saying so.
pub async fn follow_interfaces(keeper: Handle) {
    let events = LinkEvents::open().and_then(|events| {
        // SAFETY: the events own their descriptor and are owned by the AsyncFd,
        // which deregisters before it drops them.
        let events = unsafe { AsyncFd::register_with_interest(events, Interest::READABLE) };
        Ok(events?)
    });
    let events = match events {
        Ok(events) => Some(events),
        Err(error) => {
            tracing::warn!(%error, "the kernel does not say when interfaces change; they are looked at every second");
            None
        }
    };
    loop {
        let followed = keeper.ask(|keeper| keeper.follow_interfaces(Now::read()));
        if let Err(error) = followed.await {
            tracing::debug!(%error, "interfaces are not followed");
        }
        tokio::time::sleep(PACE).await;
        if let Some(events) = &events {
            // Whether or not the kernel said something.
            let _in_time = tokio::time::timeout(ANYWAY, heard(events)).await;
        }
    }
}

/// Waits until the kernel says something, and forgets it: what has changed is
/// looked up.
async fn heard(events: &AsyncFd<LinkEvents>) {
    if let Ok(mut ready) = events.readable().await
        && ready.get_inner().drain()
    {
        ready.clear_ready();
    }
}

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

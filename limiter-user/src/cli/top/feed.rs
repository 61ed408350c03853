//! The threads that feed the screen: keys, signals and what the daemon says.
//! Each sends what it learns and waits for nobody, so that the screen never
//! hangs with the daemon.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, Event as Input, KeyEventKind};
use serde::de::DeserializeOwned;

use super::model::{BLOCK_FOR, Event, Order};
use super::sources::Reading;
use crate::cli::explain;
use crate::cli::signals::Signals;
use crate::cli::words::count;
use crate::control::api::{Blocks, Changed, Entry, Explanation, List, Sources, Stats, Status};
use crate::control::client::{Client, ClientError};
use crate::keeper::shown;
use crate::store::audit::Top;

/// Events that wait at most; who has more waits.
const WAITING: usize = 64;

/// How often the counters are read.
const COUNTERS: Duration = Duration::from_secs(1);

/// What the daemon takes to measure rates ([`Sources`]).
const MEASURED: Duration = Duration::from_secs(1);

/// The sources that are shown at most.
const SOURCES: &str = "100";

/// Blocks, and entries of a list, that are looked at: the daemon lists them
/// all, and that is not cheap enough to be done all the time.
const FEW: u64 = 1_000;

/// Values of a field that are told of those who are refused.
const MOST_REFUSED: &str = "3";

/// The time between two questions about them at least: each reads the audit log's last
/// minute, twice.
const REFUSED: Duration = Duration::from_secs(5);

/// Where threads send what they learn.
#[derive(Clone)]
struct Feed {
    events: SyncSender<Event>,
    client: Client,
}

/// Says that a thread has ended, also by a panic.
struct Ending(SyncSender<Event>, &'static str);

impl Drop for Ending {
    fn drop(&mut self) {
        // Nobody listens when the screen is gone.
        let _gone = self.0.try_send(Event::Broken(self.1));
    }
}

/// Starts the threads. Signals are caught from here on.
///
/// # Errors
/// No thread can be had, or signals cannot be caught.
pub(super) fn start(client: &Client) -> io::Result<(Receiver<Event>, SyncSender<Order>)> {
    let (events, happened) = sync_channel(WAITING);
    let (orders, ordered) = sync_channel::<Order>(1);
    let feed = Feed {
        events,
        client: client.clone(),
    };
    // Before the terminal is changed.
    let signals = Signals::catch()?;
    feed.spawn("signals", move |feed| feed.signals(signals))?;
    feed.spawn("keys", |feed| feed.keys())?;
    feed.spawn("counters", |feed| feed.counters())?;
    feed.spawn("sources", |feed| feed.sources())?;
    feed.spawn("refused", |feed| feed.refused())?;
    feed.spawn("orders", move |feed| feed.orders(&ordered))?;
    Ok((happened, orders))
}

impl Feed {
    fn spawn(
        &self,
        name: &'static str,
        work: impl FnOnce(&Self) -> Option<()> + Send + 'static,
    ) -> io::Result<()> {
        let feed = self.clone();
        let thread = thread::Builder::new().name(name.to_owned());
        thread.spawn(move || {
            let _ending = Ending(feed.events.clone(), name);
            work(&feed)
        })?;
        Ok(())
    }

    /// `None` when the screen is gone.
    fn send(&self, event: Event) -> Option<()> {
        self.events.send(event).ok()
    }

    fn signals(&self, mut signals: Signals) -> Option<()> {
        signals.wait();
        self.send(Event::End)?;
        // More of them change nothing; the screen is about to go.
        loop {
            thread::park();
        }
    }

    fn keys(&self) -> Option<()> {
        loop {
            let event = match event::read() {
                Ok(Input::Key(key)) if key.kind != KeyEventKind::Release => Event::Key(key),
                Ok(Input::Resize(..)) => Event::Resized,
                Ok(_) => continue,
                // The terminal is gone.
                Err(_) => Event::End,
            };
            self.send(event)?;
        }
    }

    fn counters(&self) -> Option<()> {
        loop {
            self.send(Event::Counters(self.standing().map(Box::new)))?;
            thread::sleep(COUNTERS);
        }
    }

    fn standing(&self) -> Result<(Stats, Status), String> {
        Ok((self.get("/v1/stats", &[])?, self.get("/v1/status", &[])?))
    }

    fn sources(&self) -> Option<()> {
        loop {
            let begun = Instant::now();
            let reading = self.reading();
            let cost = begun.elapsed().saturating_sub(MEASURED);
            self.send(Event::Sources(reading))?;
            thread::sleep(pause_after(cost));
        }
    }

    fn reading(&self) -> Result<Reading, String> {
        let sources: Sources = self.get("/v1/sources", &[("count", SOURCES)])?;
        let status: Status = self.get("/v1/status", &[])?;
        let blocks: Option<Blocks> = self.few(status.blocks.values().sum(), "/v1/blocks")?;
        let allow: Option<List> = self.few(status.allow, "/v1/lists/allow")?;
        let deny: Option<List> = self.few(status.deny, "/v1/lists/deny")?;
        Ok(Reading {
            blocks: blocks.map(|blocks| blocks.blocks),
            allow: allow.map(|list| list.entries),
            deny: deny.map(|list| list.entries),
            ..Reading::of(sources)
        })
    }

    fn refused(&self) -> Option<()> {
        loop {
            let begun = Instant::now();
            self.send(Event::Refused(self.refused_most()))?;
            thread::sleep(pause_after(begun.elapsed()).max(REFUSED));
        }
    }

    /// Who is refused most by rules, and for what. Where the audit log cannot answer, the
    /// status says why.
    fn refused_most(&self) -> Option<String> {
        let status: Status = self.get("/v1/status", &[]).ok()?;
        status.requests?;
        let most = |by: &str| {
            let parameters = [
                ("kind", "refused"),
                ("since", "1m"),
                ("by", by),
                ("limit", MOST_REFUSED),
            ];
            let top: Top = self.get("/v1/audit", &parameters).ok()?;
            let shares = top.shares.into_iter();
            let named = shares.filter_map(|share| {
                let times = count(share.count);
                Some(format!("{} {times} times", share.value?))
            });
            Some(named.collect::<Vec<_>>().join(", "))
        };
        let (sources, paths) = (most("source")?, most("path")?);
        (!sources.is_empty()).then(|| match paths.is_empty() {
            true => format!("refused most in the last minute: {sources}"),
            false => format!("refused most in the last minute: {sources}; at {paths}"),
        })
    }

    /// A listing, unless it is long.
    fn few<T: DeserializeOwned>(&self, entries: u64, path: &str) -> Result<Option<T>, String> {
        if entries > FEW {
            return Ok(None);
        }
        self.get(path, &[]).map(Some)
    }

    fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        parameters: &[(&str, &str)],
    ) -> Result<T, String> {
        self.client
            .get(path, parameters)
            .map_err(|error| words(&error))
    }

    fn orders(&self, orders: &Receiver<Order>) -> Option<()> {
        for order in orders {
            let answer = carry_out(&self.client, order).map_err(|error| words(&error));
            self.send(Event::Done(order, answer))?;
        }
        None
    }
}

/// The daemon does nothing else while it reads its sources: it shall do so a
/// fifth of the time at most.
fn pause_after(cost: Duration) -> Duration {
    (cost * 4).clamp(Duration::from_secs(1), Duration::from_secs(30))
}

fn carry_out(client: &Client, order: Order) -> Result<Vec<String>, ClientError> {
    let (path, source, lasting, done) = match order {
        Order::Block(source) => (
            "/v1/blocks",
            source,
            Some(BLOCK_FOR),
            "blocked for 15 minutes",
        ),
        Order::Allow(source) => ("/v1/lists/allow", source, None, "allowed"),
        Order::Explain(source) => {
            let source = source.to_string();
            let found: Explanation = client.get("/v1/explain", &[("source", &source)])?;
            return Ok(explain::lines(&found));
        }
    };
    let entry = Entry {
        network: source.to_string(),
        lasting: lasting.map(str::to_owned),
        reason: Some("limiter top".to_owned()),
        limit: None,
    };
    let changed: Changed = client.post(path, &entry)?;
    let mut lines = vec![format!("{} is {done}", shown(source))];
    lines.extend(changed.notices);
    Ok(lines)
}

/// An error in one line.
fn words(error: &ClientError) -> String {
    match error {
        ClientError::Refused(refusal) if !refusal.help.is_empty() => {
            format!("{}; {}", refusal.detail, refusal.help)
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dearer_the_rarer() {
        let seconds = Duration::from_secs;
        assert_eq!(pause_after(Duration::ZERO), seconds(1));
        assert_eq!(pause_after(seconds(2)), seconds(8));
        assert_eq!(pause_after(seconds(60)), seconds(30));
    }
}

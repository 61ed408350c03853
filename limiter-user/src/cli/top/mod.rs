//! `top`: a live screen, fed by the control socket alone.

mod feed;
mod history;
mod model;
mod requests;
mod requests_view;
mod sources;
#[cfg(test)]
mod tests;
mod view;

use std::io::{self, IsTerminal as _};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use ratatui::DefaultTerminal;

use super::{Client, Failure};
use model::{Event, Model, Next, Order};

/// How often the screen is drawn at least: what is said for a while must go.
const REDRAW: Duration = Duration::from_secs(1);

/// Shows the screen until somebody has seen enough.
pub(super) fn top(client: &Client) -> Result<(), Failure> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        let words = "`limiter top` draws on a terminal, and this is none; \
                     `limiter stats --watch` prints lines";
        return Err(Failure::Words(words.to_owned()));
    }
    let (events, orders) = feed::start(client)?;
    let mut screen = Screen::enter()?;
    let end = run(&mut screen, &events, &orders);
    drop(screen);
    match end? {
        None => Ok(()),
        Some(name) => {
            let words = format!("the screen's thread `{name}` has failed; please report this");
            Err(Failure::Words(words))
        }
    }
}

/// The terminal while the screen is on it; whatever ends this gives it back as
/// it was, also a panic.
struct Screen(DefaultTerminal);

impl Screen {
    fn enter() -> io::Result<Self> {
        // It also puts the giving back before the message of a panic.
        ratatui::try_init().map(Self).inspect_err(|_| restore())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    // A terminal that is gone needs nothing any more.
    let _gone = ratatui::try_restore();
}

/// Draws, waits, and takes in what happens; returns the thread that failed, if
/// one did.
fn run(
    screen: &mut Screen,
    events: &Receiver<Event>,
    orders: &SyncSender<Order>,
) -> io::Result<Option<&'static str>> {
    let mut model = Model::new(Instant::now());
    loop {
        screen
            .0
            .draw(|frame| view::draw(frame, &model, Instant::now()))?;
        let first = match events.recv_timeout(REDRAW) {
            Ok(event) => event,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return Ok(Some("events")),
        };
        // What came at once is drawn at once.
        for event in std::iter::once(first).chain(events.try_iter()) {
            match model.update(event, Instant::now()) {
                Next::Nothing => {}
                // There is one order at a time, and a place for it.
                Next::Order(order) => {
                    if orders.try_send(order).is_err() {
                        return Ok(Some("orders"));
                    }
                }
                Next::Quit => return Ok(None),
                Next::Fail(name) => return Ok(Some(name)),
            }
        }
    }
}

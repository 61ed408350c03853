//! What the screen knows, and what keys and answers make of it. Nothing here
//! reads a clock, a socket or a terminal.

use std::time::{Duration, Instant};

use ipnet::IpNet;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::history::{History, Series};
use super::requests::Recent;
use super::sources::{Busiest, Name, Reading, Row};
use crate::control::api::{Stats, Status};
use crate::keeper::shown;

/// How long a block lasts, as the control socket reads it.
pub(super) const BLOCK_FOR: &str = "15m";

/// How long the outcome of an order is shown.
const NOTICE: Duration = Duration::from_secs(10);

/// What happens.
#[derive(Debug)]
pub(super) enum Event {
    /// A key was pressed.
    Key(KeyEvent),
    /// The terminal has another size.
    Resized,
    /// The counters and how things stand, or why they cannot be had.
    Counters(Result<Box<(Stats, Status)>, String>),
    /// The sources, or why they cannot be had.
    Sources(Result<Reading, String>),
    /// Who was refused most by rules lately, in words.
    Refused(Option<String>),
    /// An order was carried out, or not.
    Done(Order, Result<Vec<String>, String>),
    /// A signal says that it is time to go.
    End,
    /// A thread has ended that never ends; its name.
    Broken(&'static str),
}

/// What the daemon is asked to do about a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Block(IpNet),
    Allow(IpNet),
    Explain(IpNet),
}

/// What is to be done after an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Nothing,
    Order(Order),
    Quit,
    /// Quit, and say that this thread failed.
    Fail(&'static str),
}

/// What was last read; a pause keeps a copy.
#[derive(Clone, Debug)]
pub(super) struct Data {
    pub(super) history: History,
    pub(super) status: Option<Status>,
    pub(super) busiest: Busiest,
    pub(super) requests: Recent,
    /// Who was refused most in the last minute, and for what; `None`: nobody, or that cannot
    /// be had.
    pub(super) refused: Option<String>,
}

/// What is known of a source that was asked about.
#[derive(Clone, Debug)]
pub(super) struct Pane {
    pub(super) source: IpNet,
    /// `None`: there is no answer yet.
    pub(super) answer: Option<Result<Vec<String>, String>>,
}

/// The outcome of an order.
#[derive(Clone, Debug)]
pub(super) struct Notice {
    pub(super) text: String,
    pub(super) is_error: bool,
    until: Instant,
}

/// Everything behind the screen.
#[derive(Clone, Debug)]
pub(super) struct Model {
    live: Data,
    frozen: Option<Data>,
    /// What could not be read: counters, sources.
    trouble: [Option<String>; 2],
    selected: Option<Name>,
    /// Where it stood when it was last seen.
    place: usize,
    pub(super) pane: Option<Pane>,
    pub(super) is_help: bool,
    /// What was asked for and is not confirmed yet.
    pub(super) prompt: Option<Order>,
    /// An order that is not answered yet.
    waiting: bool,
    notice: Option<Notice>,
}

impl Model {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            live: Data {
                history: History::new(now),
                status: None,
                busiest: Busiest::default(),
                requests: Recent::default(),
                refused: None,
            },
            frozen: None,
            trouble: [None, None],
            selected: None,
            place: 0,
            pane: None,
            is_help: false,
            prompt: None,
            waiting: false,
            notice: None,
        }
    }

    /// What the screen shows.
    pub(super) fn data(&self) -> &Data {
        self.frozen.as_ref().unwrap_or(&self.live)
    }

    pub(super) const fn is_paused(&self) -> bool {
        self.frozen.is_some()
    }

    /// Why what is shown may be old.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.trouble.iter().flatten().map(String::as_str).next()
    }

    /// What is to be said for a while.
    pub(super) fn notice(&self, now: Instant) -> Option<&Notice> {
        self.notice.as_ref().filter(|notice| now < notice.until)
    }

    /// The rows of the counters.
    pub(super) fn series(&self) -> Vec<Series> {
        self.data().history.series()
    }

    pub(super) fn rows(&self) -> &[Row] {
        &self.data().busiest.rows
    }

    /// The place of the selected source.
    pub(super) fn selected(&self) -> Option<usize> {
        let name = self.selected.as_ref()?;
        self.rows().iter().position(|row| row.name == *name)
    }

    /// Takes in what happened at `now`.
    pub(super) fn update(&mut self, event: Event, now: Instant) -> Next {
        match event {
            Event::Key(key) => return self.key(key, now),
            Event::Resized => {}
            Event::Counters(Ok(read)) => {
                let (stats, status) = *read;
                self.trouble[0] = None;
                self.live.history.record(&stats.counters, now);
                self.live.requests.record(status.requests.clone(), now);
                self.live.status = Some(status);
            }
            Event::Counters(Err(error)) => self.trouble[0] = Some(error),
            Event::Sources(Ok(reading)) => {
                self.trouble[1] = None;
                self.live.busiest.record(&reading, now);
                self.follow();
            }
            Event::Sources(Err(error)) => self.trouble[1] = Some(error),
            Event::Refused(words) => self.live.refused = words,
            Event::Done(order, answer) => self.done(order, answer, now),
            Event::End => return Next::Quit,
            Event::Broken(name) => return Next::Fail(name),
        }
        Next::Nothing
    }

    /// Keeps the same source selected wherever it moved to; if it is gone, the
    /// one that stands in its place.
    fn follow(&mut self) {
        if let Some(place) = self.selected() {
            self.place = place;
            return;
        }
        let last = self.rows().len().saturating_sub(1);
        self.place = self.place.min(last);
        self.selected = self.rows().get(self.place).map(|row| row.name.clone());
    }

    fn key(&mut self, key: KeyEvent, now: Instant) -> Next {
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        if is_control {
            return match key.code {
                KeyCode::Char('c') => Next::Quit,
                _ => Next::Nothing,
            };
        }
        if let Some(order) = self.prompt.take() {
            return match key.code {
                KeyCode::Char('y' | 'Y') => self.order(order, now),
                KeyCode::Char('n' | 'N' | 'q') | KeyCode::Esc => Next::Nothing,
                _ => {
                    self.prompt = Some(order);
                    Next::Nothing
                }
            };
        }
        match key.code {
            KeyCode::Char('q') => return Next::Quit,
            KeyCode::Esc if self.is_help => self.is_help = false,
            KeyCode::Esc if self.pane.is_some() => self.pane = None,
            KeyCode::Esc => return Next::Quit,
            KeyCode::Char('?') => self.is_help = !self.is_help,
            KeyCode::Char('p') => self.pause(),
            KeyCode::Up | KeyCode::Char('k') => self.select(|place| place.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.select(|place| place.saturating_add(1)),
            KeyCode::Home | KeyCode::Char('g') => self.select(|_| 0),
            KeyCode::End | KeyCode::Char('G') => self.select(|_| usize::MAX),
            KeyCode::Char('b') => self.prompt = self.source().map(Order::Block),
            KeyCode::Char('a') => self.prompt = self.source().map(Order::Allow),
            KeyCode::Char('e') | KeyCode::Enter => return self.explain(now),
            _ => {}
        }
        Next::Nothing
    }

    fn pause(&mut self) {
        self.frozen = match self.frozen {
            Some(_) => None,
            None => Some(self.live.clone()),
        };
        self.follow();
    }

    fn select(&mut self, to: impl Fn(usize) -> usize) {
        let place = self.selected().unwrap_or(self.place);
        self.place = to(place).min(self.rows().len().saturating_sub(1));
        self.selected = self.rows().get(self.place).map(|row| row.name.clone());
    }

    fn source(&self) -> Option<IpNet> {
        let row = self.rows().get(self.selected()?)?;
        Some(row.name.0)
    }

    /// Opens the pane on the selected source, or closes it if it is open there.
    fn explain(&mut self, now: Instant) -> Next {
        let Some(source) = self.source() else {
            return Next::Nothing;
        };
        if self.pane.as_ref().is_some_and(|pane| pane.source == source) {
            self.pane = None;
            return Next::Nothing;
        }
        let next = self.order(Order::Explain(source), now);
        if next != Next::Nothing {
            let answer = None;
            self.pane = Some(Pane { source, answer });
        }
        next
    }

    /// One order at a time: the screen never has a queue of them.
    fn order(&mut self, order: Order, now: Instant) -> Next {
        if self.waiting {
            let text = "the daemon has not answered the last order yet";
            self.say(text.to_owned(), true, now);
            return Next::Nothing;
        }
        self.waiting = true;
        Next::Order(order)
    }

    fn done(&mut self, order: Order, answer: Result<Vec<String>, String>, now: Instant) {
        self.waiting = false;
        match (order, answer) {
            (Order::Explain(source), answer) => {
                if let Some(pane) = self.pane.as_mut().filter(|pane| pane.source == source) {
                    pane.answer = Some(answer);
                }
            }
            (_, Ok(lines)) => self.say(lines.join("; "), false, now),
            (Order::Block(source) | Order::Allow(source), Err(error)) => {
                self.say(format!("{}: {error}", shown(source)), true, now);
            }
        }
    }

    fn say(&mut self, text: String, is_error: bool, now: Instant) {
        let until = now + NOTICE;
        self.notice = Some(Notice {
            text,
            is_error,
            until,
        });
    }
}

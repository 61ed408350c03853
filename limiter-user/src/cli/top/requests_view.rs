//! The part of the screen that is about requests.

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize as _};
use ratatui::text::Line;
use ratatui::widgets::{Cell, Paragraph, Row, Table};

use super::history::Fate;
use super::model::Data;
use super::requests::{Now, Rate, RuleNow};
use super::view::{color, titled};
use crate::cli::requests::{by_action, millis, troubles, unheard};
use crate::cli::rules::lag;
use crate::cli::words::{count, counted};
use crate::control::api::{Requests, Status};
use crate::engine::Mode;
use crate::policy::{Action, escape};

/// From so late on events are remarkable: rules take them for events of now.
const LATE_NS: u64 = 5_000_000_000;

/// Title and headings.
const FRAME: usize = 2;

/// What is shown.
#[derive(Debug)]
pub(super) struct Panel {
    title: String,
    /// The gravest first.
    notes: Vec<Line<'static>>,
    rules: Vec<RuleNow>,
}

impl Panel {
    /// `None`: the policy has no rules.
    pub(super) fn of(data: &Data) -> Option<Self> {
        let status = data.status.as_ref()?;
        if status.rules.is_empty() {
            return None;
        }
        let now = data.requests.now();
        let mut notes: Vec<Line<'static>> = Vec::new();
        notes.extend(unheard(status).map(|text| Line::from(text).bold().red()));
        let origins = data.requests.last().map(troubles).unwrap_or_default();
        notes.extend(warnings(status, origins));
        if let Some(now) = &now {
            notes.push(asked(now, data.requests.last()));
            notes.push(events(now));
        }
        notes.extend(data.refused.as_deref().map(|text| Line::from(escape(text))));
        Some(Self {
            title: title(status),
            notes,
            rules: now.map(|now| now.rules).unwrap_or_default(),
        })
    }

    /// Lines that it takes of `most`.
    pub(super) fn height(&self, most: u16) -> u16 {
        let wanted = FRAME + self.notes.len() + self.rules.len();
        u16::try_from(wanted).unwrap_or(u16::MAX).min(most)
    }

    /// Draws it. Where room is short, notes get half of it, or what rules leave.
    pub(super) fn draw(self, frame: &mut Frame<'_>, area: Rect) {
        let room = usize::from(area.height).saturating_sub(FRAME);
        let most_notes = (room / 2).max(room.saturating_sub(self.rules.len()));
        let notes: Vec<Line<'_>> = self.notes.into_iter().take(most_notes).collect();
        let shown = self.rules.len().min(room - notes.len());
        let mut title = self.title;
        if shown < self.rules.len() {
            let all = counted(self.rules.len(), "rule");
            title.push_str(&format!("(the busiest {shown} of {all}) "));
        }
        let inner = titled(frame, area, title);
        let [above, below] =
            Layout::vertical([Constraint::Length(notes.len() as u16), Constraint::Min(0)])
                .areas(inner);
        frame.render_widget(Paragraph::new(notes), above);
        draw_rules(frame, below, &self.rules[..shown]);
    }
}

fn title(status: &Status) -> String {
    let mut title = "Requests ".to_owned();
    if status.rules_enforce == Some(false) {
        title.push_str("(simulated: decide.enforce = false) ");
    }
    let restarts = status.worker.restarts;
    if restarts > 0 {
        let how = status.worker.last_end.as_deref().unwrap_or("unknown");
        let (times, how) = (count(restarts), escape(how));
        title.push_str(&format!("(worker restarted {times} times, last: {how}) "));
    }
    title
}

/// What is wrong, in a line.
fn warnings(status: &Status, origins: Vec<String>) -> Option<Line<'static>> {
    // Without an answer there is one warning, which is said already.
    let warnings = status.warnings.iter().filter(|_| status.requests.is_some());
    let mut all = origins.into_iter().chain(warnings.cloned());
    let first = escape(&all.next()?);
    let line = match all.count() {
        0 => first,
        more => format!("(1 of {}, see `limiter status`) {first}", more + 1),
    };
    Some(Line::from(line).yellow())
}

fn asked(now: &Now, last: Option<&Requests>) -> Line<'static> {
    let is_asked = last.is_some_and(|last| last.decisions.is_some());
    let mut words = match is_asked {
        true => format!("{}/s asked", rate(now.asked)),
        false => "nobody can ask".to_owned(),
    };
    if let Some(us) = now.within_us {
        words.push_str(&format!(", 99 % decided within {}", millis(us)));
    }
    let done = rates_by_action(&now.by_action);
    let is_done = !done.is_empty();
    words.push_str("; decided: ");
    words.push_str(if is_done { &done } else { "nothing" });
    if now.posed > Some(0.0) || now.solved > Some(0.0) {
        let (posed, solved) = (rate(now.posed), rate(now.solved));
        words.push_str(&format!("; challenges: {posed}/s posed, {solved}/s solved"));
    }
    match is_done {
        true => Line::from(words).fg(color(Fate::Dropped)),
        false => Line::from(words),
    }
}

fn events(now: &Now) -> Line<'static> {
    let mut words = format!("events: {}/s understood", rate(now.understood));
    let lost = [
        (now.not_understood, "not understood"),
        (now.dropped, "dropped"),
    ];
    let mut is_bad = false;
    for (number, what) in lost.into_iter().filter(|(number, _)| *number > Some(0.0)) {
        words.push_str(&format!(", {}/s {what}", rate(number)));
        is_bad = true;
    }
    if let Some(lag_ns) = now.lag_ns {
        words.push_str(&format!(", up to {} behind", lag(lag_ns)));
        is_bad |= lag_ns > LATE_NS;
    }
    match is_bad {
        true => Line::from(words).yellow(),
        false => Line::from(words),
    }
}

fn draw_rules(frame: &mut Frame<'_>, area: Rect, rules: &[RuleNow]) {
    let right = |text: String| Cell::from(Line::from(text).alignment(Alignment::Right));
    let rows = rules.iter().map(|rule| {
        let (fate, words) = done(rule);
        Row::new([
            Cell::from(escape(&rule.name)),
            right(rate(rule.matched)),
            right(rate(rule.counted)),
            right(rate(rule.over)),
            right(count(rule.active)),
            right(count(rule.blocked)),
            Cell::from(escape(&words)).style(Style::new().fg(fate)),
        ])
    });
    let heading = |text: &str| right(text.to_owned());
    let headings = Row::new([
        Cell::from("RULE"),
        heading("EVENTS/S"),
        heading("COUNTED/S"),
        heading("OVER/S"),
        heading("ACTIVE"),
        heading("BLOCKED"),
        Cell::from("DECIDED"),
    ]);
    let widths = [
        Constraint::Max(24),
        Constraint::Length(8),
        Constraint::Length(9),
        Constraint::Length(7),
        Constraint::Length(7),
        Constraint::Length(7),
        Constraint::Min(18),
    ];
    let table = Table::new(rows, widths).header(headings.style(Modifier::DIM));
    frame.render_widget(table, area);
}

/// What a rule does, and how grave that is.
fn done(rule: &RuleNow) -> (Color, String) {
    let words = rates_by_action(&rule.by_action);
    if !words.is_empty() {
        return (color(Fate::Dropped), words);
    }
    let words = match &*rule.mode {
        mode if mode == Mode::On.name() => "-".to_owned(),
        mode => format!("{mode} (by hand)"),
    };
    let would = rule.over > Some(0.0) || words != "-";
    let fate = if would {
        color(Fate::WouldDrop)
    } else {
        Color::Reset
    };
    (fate, words)
}

fn rates_by_action(rates: &[Rate; Action::ALL.len()]) -> String {
    by_action(rates.map(|it| (it > Some(0.0)).then(|| format!("{}/s", rate(it)))))
}

/// `0.3`, `12`, `1,204`; a dash for what is not known.
fn rate(rate: Rate) -> String {
    match rate {
        None => "-".to_owned(),
        Some(rate) if rate > 0.0 && rate < 9.95 => format!("{:.1}", rate.max(0.1)),
        Some(rate) => count(rate.round() as u64),
    }
}

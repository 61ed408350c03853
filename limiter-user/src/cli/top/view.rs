//! The screen as it is drawn from the model.
//!
//! Whatever came over the socket is escaped here: names, reasons and errors may
//! hold what a terminal obeys.

use std::time::Instant;

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Margin, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::{
    Block, Borders, Cell, Clear, Paragraph, Row, Sparkline, Table, TableState, Wrap,
};

use super::history::{Fate, SPAN_SECONDS, Series};
use super::model::{Model, Order, Pane};
use super::requests_view::Panel;
use crate::cli::words::{count, duration};
use crate::control::api::{MapRow, Status};
use crate::keeper::shown;
use crate::policy::escape;

/// Columns of a table's fill.
const TABLE_WIDTH: u16 = 40;
/// Columns of the words and numbers before a sparkline.
const SERIES_WIDTH: u16 = 52;
/// From this share on a table is shown as nearly full, in percent.
const NEARLY_FULL: u64 = 90;

const KEYS: &str = "j/k select  b block  a allow  e explain  p pause  ? help  q quit";

const HELP: [&str; 9] = [
    "Up, Down, k, j   select a source (Home, End, g, G)",
    "b                block it for 15 minutes; asks first",
    "a                allow it for good (`limiter allow del` ends it); asks first",
    "e, Enter         explain how it is treated; again: close",
    "p                pause the screen; again: go on",
    "?                this help",
    "q, Esc, Ctrl-C   quit (Esc closes help and pane first)",
    "",
    "Rates are packets a second. A share of drops is that since the last reading.",
];

/// Draws all of it.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model, now: Instant) {
    let maps = model
        .data()
        .status
        .as_ref()
        .map_or(0, |status| status.maps.len());
    let area = frame.area();
    let per_line = usize::from((area.width / TABLE_WIDTH).max(1));
    let tables_height = maps.div_ceil(per_line) as u16 + 1;
    let series = model.series();
    let panel = Panel::of(model.data());
    // What is left after the lines that are always there.
    let room = area.height.saturating_sub(tables_height + 5);
    let (most_series, most_panel) = match panel {
        None => (room / 2, 0),
        Some(_) => (room / 4, room / 2),
    };
    let series_height = (series.len() as u16).min(most_series.max(3)) + 1;
    let panel_height = panel.as_ref().map_or(0, |panel| panel.height(most_panel));
    let [header, counters, requests, tables, sources, footer] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(series_height),
        Constraint::Length(panel_height),
        Constraint::Length(tables_height),
        Constraint::Min(3),
        Constraint::Length(1),
    ])
    .areas(area);
    frame.render_widget(Paragraph::new(headline(model)), header);
    draw_series(frame, counters, &series, model.data().history.last_second());
    if let Some(panel) = panel {
        panel.draw(frame, requests);
    }
    draw_tables(frame, tables, per_line, model);
    let sources = draw_pane(frame, sources, model.pane.as_ref());
    draw_sources(frame, sources, model);
    frame.render_widget(Paragraph::new(footline(model, now)), footer);
    if model.is_help {
        draw_help(frame);
    }
}

pub(super) fn color(fate: Fate) -> Color {
    match fate {
        Fate::Passed => Color::Green,
        Fate::Dropped => Color::Red,
        Fate::WouldDrop => Color::Yellow,
    }
}

/// A rule with a title, and what is below it.
pub(super) fn titled(frame: &mut Frame<'_>, area: Rect, title: String) -> Rect {
    let block = Block::new().borders(Borders::TOP).title(title.bold());
    let inner = block.inner(area);
    frame.render_widget(block, area);
    inner
}

fn headline(model: &Model) -> Line<'static> {
    let mut spans = vec!["limiter ".bold()];
    match &model.data().status {
        Some(status) => spans.append(&mut standing(status)),
        None => spans.push(Span::raw("(asking the daemon)")),
    }
    if model.is_paused() {
        spans.push("  PAUSED (p goes on)".bold().yellow());
    }
    Line::from(spans)
}

fn standing(status: &Status) -> Vec<Span<'static>> {
    let interfaces: Vec<String> = status
        .interfaces
        .iter()
        .map(|row| {
            let state = match row.state.as_str() {
                "attached" => &row.mode,
                state => state,
            };
            format!("{} ({})", escape(&row.interface), escape(state))
        })
        .collect();
    let interfaces = match interfaces.is_empty() {
        true => "attached nowhere".to_owned(),
        false => interfaces.join(", "),
    };
    let mut spans = vec![Span::raw(format!(
        "{}  up {}  {interfaces}  ",
        escape(&status.version),
        duration(status.uptime_seconds)
    ))];
    spans.push(match status.enforce {
        true => "enforced".green(),
        false => "not enforced: drops are only counted".yellow(),
    });
    if status.flood.active {
        let rate = status.flood.unknown_per_second.unwrap_or_default();
        spans.push(
            format!("  FLOOD of new sources: {}/s", count(rate))
                .bold()
                .red(),
        );
    }
    if status.reload.error.is_some() {
        spans.push("  the last reload failed".red());
    }
    spans
}

fn draw_series(frame: &mut Frame<'_>, area: Rect, series: &[Series], last_second: u64) {
    let minutes = SPAN_SECONDS / 60;
    let title = format!(
        "Packets a second {:>21}{:>12}  the last {minutes} min ",
        "now", "peak"
    );
    let inner = titled(frame, area, title);
    for (one, line) in series.iter().zip(inner.rows()) {
        let [words, bars] =
            Layout::horizontal([Constraint::Length(SERIES_WIDTH), Constraint::Min(0)]).areas(line);
        let name = match one.why.is_empty() {
            true => one.fate.name().to_owned(),
            false => format!("  {}: {}", one.fate.name(), escape(&one.why)),
        };
        let now = one.now().map_or_else(|| "-".to_owned(), count);
        let text = format!("{:<26.26}{now:>12}{:>12}", name, count(one.peak()));
        let style = Style::new().fg(color(one.fate));
        frame.render_widget(Paragraph::new(text).style(style), words);
        let bars_shown = one.bars(bars.width.into(), last_second);
        let sparkline = Sparkline::default().data(bars_shown).style(style);
        frame.render_widget(sparkline.absent_value_symbol("·"), bars);
    }
}

fn draw_tables(frame: &mut Frame<'_>, area: Rect, per_line: usize, model: &Model) {
    let inner = titled(frame, area, "Tables ".to_owned());
    let Some(status) = &model.data().status else {
        return;
    };
    let busiest = &model.data().busiest;
    for (maps, line) in status.maps.chunks(per_line).zip(inner.rows()) {
        let places =
            Layout::horizontal(vec![Constraint::Length(TABLE_WIDTH); per_line]).split(line);
        for (map, place) in maps.iter().zip(places.iter()) {
            // Nobody counts the sources for `status`; listing them does.
            let counted = busiest.read().map(|_| busiest.total);
            let counted = counted.filter(|_| map.map == "sources");
            let entries = map.entries.or(counted);
            frame.render_widget(Paragraph::new(fill(map, entries)), *place);
        }
    }
}

/// `sources          [###  ]  60 %   600/1,000`
fn fill(map: &MapRow, entries: Option<u64>) -> Line<'static> {
    let name = format!("{:<16.16}", escape(&map.map));
    let capacity = count(map.capacity);
    let Some(entries) = entries else {
        return Line::from(format!("{name}       -   -/{capacity}"));
    };
    let percent = entries
        .saturating_mul(100)
        .div_ceil(map.capacity.max(1))
        .min(100);
    let bar = usize::try_from(percent.div_ceil(20)).unwrap_or(5);
    let text = format!(
        "{:<5}{percent:>4}% {}/{capacity}",
        "■".repeat(bar),
        count(entries)
    );
    let color = match percent >= NEARLY_FULL {
        true => Color::Red,
        false => Color::Reset,
    };
    Line::from(vec![Span::raw(name), Span::raw(text).fg(color)])
}

fn draw_sources(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let busiest = &model.data().busiest;
    let mut title = match busiest.read() {
        Some(_) => format!("Busiest of {} sources ", count(busiest.total)),
        None => "Busiest sources (measuring) ".to_owned(),
    };
    if busiest.is_partial {
        title.push_str("(too many blocks or list entries to show here) ");
    }
    let inner = titled(frame, area, title);
    let right = |text: String| Cell::from(Line::from(text).alignment(Alignment::Right));
    let rows = busiest.rows.iter().map(|row| {
        let (fate, words) = &row.treatment;
        Row::new([
            Cell::from(shown(row.name.0)),
            Cell::from(escape(&row.name.1)),
            right(count(row.rate)),
            right(count(row.passed)),
            right(count(row.dropped)),
            Cell::from(escape(words)).style(Style::new().fg(color(*fate))),
        ])
    });
    let heading = |text: &str| right(text.to_owned());
    let headings = Row::new([
        Cell::from("SOURCE"),
        Cell::from("LIMIT"),
        heading("NOW/S"),
        heading("PASSED"),
        heading("DROPPED"),
        Cell::from("WHAT IS DONE"),
    ]);
    let widths = [
        Constraint::Max(24),
        Constraint::Max(16),
        Constraint::Length(9),
        Constraint::Length(12),
        Constraint::Length(12),
        Constraint::Min(12),
    ];
    let table = Table::new(rows, widths)
        .header(headings.style(Modifier::DIM))
        .row_highlight_style(Modifier::REVERSED);
    let mut state = TableState::default().with_selected(model.selected());
    frame.render_stateful_widget(table, inner, &mut state);
}

/// The pane in the lower part of `area`, if it is open; returns what is left.
fn draw_pane(frame: &mut Frame<'_>, area: Rect, pane: Option<&Pane>) -> Rect {
    let Some(pane) = pane else {
        return area;
    };
    let lines: Vec<Line<'_>> = match &pane.answer {
        None => vec![Line::from("asking the daemon")],
        Some(Ok(lines)) => lines.iter().map(|line| Line::from(escape(line))).collect(),
        Some(Err(error)) => vec![Line::from(escape(error)).red()],
    };
    let text = Paragraph::new(lines).wrap(Wrap { trim: false });
    // Widths are estimated: names of sources and lists are narrow characters.
    let width = usize::from(area.width.max(1));
    let needed: usize = match &pane.answer {
        Some(Ok(lines)) => lines
            .iter()
            .map(|line| 1 + escape(line).chars().count() / width)
            .sum(),
        Some(Err(error)) => 1 + error.chars().count() / width,
        None => 1,
    };
    let height = u16::try_from(needed + 1)
        .unwrap_or(u16::MAX)
        .min(area.height.saturating_sub(4));
    let [rest, below] =
        Layout::vertical([Constraint::Min(0), Constraint::Length(height)]).areas(area);
    let inner = titled(
        frame,
        below,
        format!("Explain {} (Esc closes) ", shown(pane.source)),
    );
    frame.render_widget(text, inner);
    rest
}

fn footline(model: &Model, now: Instant) -> Line<'static> {
    if let Some(order) = model.prompt {
        let question = match order {
            Order::Block(source) => format!("block {} for 15 minutes", shown(source)),
            Order::Allow(source) => {
                format!(
                    "allow {} for good: never limit, deny or block it",
                    shown(source)
                )
            }
            Order::Explain(source) => format!("explain {}", shown(source)),
        };
        return Line::from(format!("{question}? y/n")).bold().reversed();
    }
    if let Some(notice) = model.notice(now) {
        let line = Line::from(escape(&notice.text)).bold();
        return if notice.is_error { line.red() } else { line };
    }
    match model.trouble() {
        Some(trouble) => Line::from(format!("not up to date: {}", escape(trouble))).red(),
        None => Line::from(KEYS).dim(),
    }
}

fn draw_help(frame: &mut Frame<'_>) {
    let area = frame.area();
    let width = HELP.iter().map(|line| line.len() as u16).max().unwrap_or(0) + 4;
    let height = HELP.len() as u16 + 2;
    let vertical = area.height.saturating_sub(height) / 2;
    let horizontal = area.width.saturating_sub(width) / 2;
    let place = area.inner(Margin {
        horizontal,
        vertical,
    });
    let lines: Vec<Line<'_>> = HELP.iter().map(|line| Line::from(*line)).collect();
    let block = Block::bordered().title(" Keys ");
    frame.render_widget(Clear, place);
    frame.render_widget(Paragraph::new(lines).block(block), place);
}

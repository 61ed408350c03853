//! What was measured, as tables for people or as JSON.

use crate::rounds::{Figure, Series};
use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use std::{fs, time::SystemTime};

/// A table of one section.
pub(crate) struct Table {
    pub(crate) section: &'static str,
    pub(crate) title: String,
    pub(crate) columns: Vec<Column>,
    pub(crate) rows: Vec<Row>,
    /// What must be known to read it.
    pub(crate) notes: Vec<String>,
}

/// What a column shows: its name with the unit, and how many decimals.
#[derive(Clone)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) decimals: usize,
}

pub(crate) struct Row {
    pub(crate) name: String,
    /// In the order of the columns.
    pub(crate) figures: Vec<Option<Figure>>,
    /// Why there are none.
    pub(crate) fault: Option<String>,
}

impl Column {
    pub(crate) fn new(name: impl Into<String>, decimals: usize) -> Self {
        Self {
            name: name.into(),
            decimals,
        }
    }

    fn show(&self, figure: Option<Figure>) -> String {
        let Some(figure) = figure else {
            return "–".to_owned();
        };
        let number = |value| grouped(value, self.decimals);
        format!(
            "{} [{}..{}]",
            number(figure.median),
            number(figure.least),
            number(figure.most)
        )
    }
}

impl Row {
    /// A row of what a series has in its first columns, with more behind them.
    pub(crate) fn of(series: &Series, columns: usize, more: Vec<Option<Figure>>) -> Self {
        let mut figures: Vec<_> = (0..columns).map(|column| series.figure(column)).collect();
        figures.extend(more);
        Self {
            name: series.name.clone(),
            figures,
            fault: series.fault(),
        }
    }
}

impl Table {
    pub(crate) fn print(&self) {
        println!("\n{}: {}\n", self.section, self.title);
        let mut lines = vec![vec![String::new()]];
        lines[0].extend(self.columns.iter().map(|column| column.name.clone()));
        lines.extend(self.rows.iter().map(|row| self.cells(row)));
        let width = |column: usize| {
            let cells = lines.iter().filter_map(|line| line.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..=self.columns.len()).map(width).collect();
        for (number, line) in lines.iter().enumerate() {
            let mut text = format!("  {:<width$}", line[0], width = widths[0]);
            for (cell, width) in line[1..].iter().zip(&widths[1..]) {
                text.push_str(&format!("  {cell:>width$}"));
            }
            println!("{}", text.trim_end());
            // Beside the row it would widen a column.
            let fault = number
                .checked_sub(1)
                .and_then(|row| self.rows[row].fault.as_ref());
            if let Some(fault) = fault {
                println!("    ERROR: {fault}");
            }
        }
        println!();
        for note in &self.notes {
            println!("  {note}");
        }
    }

    fn cells(&self, row: &Row) -> Vec<String> {
        let mut cells = vec![row.name.clone()];
        let figures = row.figures.iter().zip(&self.columns);
        cells.extend(figures.map(|(figure, column)| column.show(*figure)));
        cells
    }

    fn json(&self) -> Value {
        let figure = |figure: &Figure| json!({"median": figure.median, "least": figure.least, "most": figure.most});
        let row = |row: &Row| {
            let figures = row.figures.iter().zip(&self.columns);
            let figures: serde_json::Map<String, Value> = figures
                .map(|(it, column)| (column.name.clone(), it.as_ref().map_or(Value::Null, figure)))
                .collect();
            json!({"name": row.name, "error": row.fault, "figures": figures})
        };
        json!({
            "section": self.section,
            "title": self.title,
            "rows": self.rows.iter().map(row).collect::<Vec<_>>(),
            "notes": self.notes,
        })
    }
}

/// The machine, and how often each figure was measured.
pub(crate) struct Circumstances {
    kernel: String,
    processor: String,
    cpus: usize,
    date: String,
    rounds: usize,
}

impl Circumstances {
    pub(crate) fn find(rounds: usize) -> Result<Self> {
        let read = |path| fs::read_to_string(path).with_context(|| format!("reading {path}"));
        let processor = read("/proc/cpuinfo")?
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
            .map_or_else(|| "unknown".to_owned(), |(_, name)| name.to_owned());
        Ok(Self {
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            processor,
            cpus: limiter_tests::cpu::count()?,
            date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            rounds,
        })
    }

    pub(crate) fn print(&self) {
        println!(
            "{}, {} CPUs, Linux {}, {}\nmedian of {} rounds [least..most]; every table is one run, \
             its rows measured in turn",
            self.processor, self.cpus, self.kernel, self.date, self.rounds
        );
        if self.rounds < 7 {
            println!("fewer than seven rounds: to see that it works, not to be quoted");
        }
    }

    /// Everything in one object.
    pub(crate) fn json(&self, tables: &[Table]) -> Value {
        json!({
            "processor": self.processor,
            "cpus": self.cpus,
            "kernel": self.kernel,
            "date": self.date,
            "rounds": self.rounds,
            "tables": tables.iter().map(Table::json).collect::<Vec<_>>(),
        })
    }
}

/// A number with its thousands apart.
fn grouped(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    let (whole, fraction) = text.split_at(text.find('.').unwrap_or(text.len()));
    let (sign, digits) = whole.split_at(usize::from(whole.starts_with('-')));
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    format!("{sign}{grouped}{fraction}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_apart() {
        assert_eq!(grouped(1_234_567.25, 1), "1,234,567.2");
        assert_eq!(grouped(-123.0, 0), "-123");
        assert_eq!(grouped(1_000.0, 0), "1,000");
    }
}

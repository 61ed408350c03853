//! Standard output: whole lines, and nothing that a terminal obeys.

use std::io::{self, BufWriter, Stdout, Write, stdout};

use serde::Serialize;

use crate::policy::escape;

/// Standard output. Every write can fail: whoever reads may have left.
#[derive(Debug)]
pub(super) struct Output(BufWriter<Stdout>);

impl Default for Output {
    fn default() -> Self {
        Self(BufWriter::new(stdout()))
    }
}

impl Output {
    /// Prints a line, escaped.
    pub(super) fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.0, "{}", escape(text))
    }

    /// Prints text of several lines that is this program's own.
    pub(super) fn verbatim(&mut self, text: &str) -> io::Result<()> {
        self.0.write_all(text.as_bytes())
    }

    /// For those who print what is this program's own, line by line.
    pub(super) fn writer(&mut self) -> &mut dyn Write {
        &mut self.0
    }

    /// Prints JSON, which escapes control characters itself; those beyond
    /// ASCII that a terminal obeys are escaped here.
    pub(super) fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        let text = serde_json::to_string_pretty(value).map_err(io::Error::other)?;
        self.safe(&text)
    }

    /// The same in one line.
    pub(super) fn json_line(&mut self, value: &impl Serialize) -> io::Result<()> {
        let text = serde_json::to_string(value).map_err(io::Error::other)?;
        self.safe(&text)
    }

    fn safe(&mut self, text: &str) -> io::Result<()> {
        let mut safe = String::with_capacity(text.len());
        for c in text.chars() {
            if c == '\n' || c == ' ' || c.is_ascii_graphic() || !needs_escape(c) {
                safe.push(c);
            } else {
                let mut units = [0; 2];
                for unit in c.encode_utf16(&mut units) {
                    safe.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
        writeln!(self.0, "{safe}")
    }

    /// Prints rows under their headings, aligned; `right` columns to the
    /// right.
    pub(super) fn table<const N: usize>(
        &mut self,
        headings: [&str; N],
        right: [bool; N],
        rows: &[[String; N]],
    ) -> io::Result<()> {
        self.verbatim(&table(headings, right, rows))
    }

    /// Sends out what was printed.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn needs_escape(c: char) -> bool {
    c.escape_debug().count() > 1
}

fn table<const N: usize>(headings: [&str; N], right: [bool; N], rows: &[[String; N]]) -> String {
    let headings = headings.map(str::to_owned);
    let rows: Vec<[String; N]> = rows
        .iter()
        .map(|row| row.each_ref().map(|cell| escape(cell)))
        .collect();
    let mut widths = headings.each_ref().map(|cell| cell.chars().count());
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in std::iter::once(&headings).chain(&rows) {
        let mut line = String::new();
        for ((cell, width), right) in row.iter().zip(widths).zip(right) {
            let padding = " ".repeat(width.saturating_sub(cell.chars().count()));
            if right {
                line.push_str(&padding);
                line.push_str(cell);
            } else {
                line.push_str(cell);
                line.push_str(&padding);
            }
            line.push_str("  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_safe() {
        let rows = [
            ["eth0".to_owned(), "12".to_owned()],
            ["a\u{1b}[2J".to_owned(), "3".to_owned()],
        ];
        assert_eq!(
            table(["NAME", "N"], [false, true], &rows),
            "NAME         N\neth0        12\na\\u{1b}[2J   3\n"
        );
    }
}

//! What is wrong with a policy, where, and what is allowed there.

use std::fmt;

use serde::Serialize;

/// How grave a [`Diagnostic`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The policy cannot be used.
    Error,
    /// Legal, and probably not what was meant.
    Warning,
}

/// A place in a file; both count from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The character in the line.
    pub column: usize,
}

/// One error or warning.
///
/// `Display` escapes control and invisible characters of every part, for they
/// may come from the file. The fields hold them as they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// The policy file, or the list file, as it was named.
    pub file: String,
    /// Where in the file; `None` where the file as a whole is meant.
    pub position: Option<Position>,
    /// What is wrong.
    pub message: String,
    /// What is allowed there or what to do; may be empty.
    pub help: String,
    #[serde(skip)]
    pub(super) excerpt: Option<Excerpt>,
}

/// The line at fault, escaped and cut to what a screen holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Excerpt {
    text: String,
    caret: usize,
    width: usize,
}

const BEFORE_CHARS: usize = 60;
const MARKED_CHARS: usize = 60;
const AFTER_CHARS: usize = 40;
const QUOTED_CHARS: usize = 64;

impl Excerpt {
    /// Marks the bytes `from..to` of `line`; both are character boundaries.
    pub(super) fn new(line: &str, from: usize, to: usize) -> Self {
        let (before, rest) = line.split_at(from);
        let (marked, after) = rest.split_at(to.saturating_sub(from));
        let skip = before
            .char_indices()
            .rev()
            .nth(BEFORE_CHARS)
            .map(|(at, c)| at + c.len_utf8());
        let lead = match skip {
            Some(at) => format!("…{}", escape(&before[at..])),
            None => escape(before),
        };
        let marked = escape(&shorten(marked, MARKED_CHARS));
        let text = format!("{lead}{marked}{}", escape(&shorten(after, AFTER_CHARS)));
        Self {
            caret: lead.chars().count(),
            width: marked.chars().count().max(1),
            text: text.trim_end().to_owned(),
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", escape(&self.file))?;
        if let Some(Position { line, column }) = self.position {
            write!(f, "{line}:{column}:")?;
        }
        if self.severity == Severity::Warning {
            write!(f, " warning:")?;
        }
        write!(f, " {}", escape(&self.message))?;
        let help = escape(&self.help);
        match (&self.excerpt, self.position) {
            (Some(excerpt), Some(position)) => {
                let marks = format!(
                    "{}{} {help}",
                    " ".repeat(excerpt.caret),
                    "^".repeat(excerpt.width)
                );
                write!(f, "\n{:>5} | {}", position.line, excerpt.text)?;
                write!(f, "\n{:>5} | {}", "", marks.trim_end())
            }
            _ if help.is_empty() => Ok(()),
            _ => write!(f, "\n{:>5} = {help}", ""),
        }
    }
}

/// Why there is no policy: every error, in the order of the files.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct PolicyError {
    /// The errors first, and the warnings found on the way; never empty.
    pub diagnostics: Vec<Diagnostic>,
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.diagnostics.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{diagnostic}")?;
        }
        Ok(())
    }
}

/// Makes a text from outside safe for a terminal: control, invisible and
/// direction-changing characters become `\u{…}` and the like, tabs a space.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '\'' | '\\' => escaped.push(c),
            '\t' => escaped.push(' '),
            c => escaped.extend(c.escape_debug()),
        }
    }
    escaped
}

/// A text from outside as part of a message: in backticks, not too long.
pub(super) fn quote(text: &str) -> String {
    format!("`{}`", shorten(text, QUOTED_CHARS))
}

fn shorten(text: &str, limit_chars: usize) -> String {
    match text.char_indices().nth(limit_chars) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diagnostic(line: &str, from: usize, to: usize) -> Diagnostic {
        Diagnostic {
            severity: Severity::Error,
            file: "limiter.toml".to_owned(),
            position: Some(Position {
                line: 12,
                column: from + 1,
            }),
            message: "unknown key `burts`".to_owned(),
            help: "did you mean `burst`? allowed here: rate, burst".to_owned(),
            excerpt: Some(Excerpt::new(line, from, to)),
        }
    }

    #[test]
    fn the_line_at_fault_is_marked() {
        assert_eq!(
            diagnostic("  burts = 10", 2, 7).to_string(),
            "limiter.toml:12:3: unknown key `burts`\n   \
                12 |   burts = 10\n      \
                   |   ^^^^^ did you mean `burst`? allowed here: rate, burst"
        );
    }

    #[test]
    fn nothing_from_the_file_reaches_the_terminal_raw() {
        let mut hostile = diagnostic("x\t= \"\u{1b}[2J\u{202e}\"", 4, 12);
        hostile.file = "a\nb".to_owned();
        hostile.message = "\u{7}".to_owned();
        hostile.help = "\u{9b}".to_owned();
        let text = hostile.to_string();
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(
            text.chars()
                .all(|c| c == '\n' || (!c.is_control() && c != '\u{202e}')),
            "{text:?}"
        );
    }

    #[test]
    fn long_lines_are_cut_around_the_mark() {
        let line = format!("{}here{}", "a".repeat(9_000), "b".repeat(9_000));
        let text = diagnostic(&line, 9_000, 9_004).to_string();
        assert!(text.contains("here") && text.len() < 600, "{text}");
        let marked: Vec<&str> = text.lines().collect();
        let column = |line: &str, what| line.split(what).next().map(|s| s.chars().count());
        assert_eq!(column(marked[1], "here"), column(marked[2], "^"));
    }
}

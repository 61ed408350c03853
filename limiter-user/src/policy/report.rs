//! Collects what is wrong, so that a file's errors are all told at once.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;

use super::diagnostic::{Diagnostic, Excerpt, PolicyError, Position, Severity};
use super::units::Problem;

/// More than this would bury the reader; the rest is only counted.
const MAX_DIAGNOSTICS: usize = 1_000;

/// A file's text, with its lines found once.
pub(super) struct Source {
    name: String,
    text: String,
    line_starts: Vec<usize>,
    /// The policy file is 0, list files follow in the order they were read.
    order: usize,
}

impl Source {
    pub(super) fn new(name: &str, text: &str, order: usize) -> Rc<Self> {
        let breaks = text.match_indices('\n').map(|(at, _)| at + 1);
        Rc::new(Self {
            name: name.to_owned(),
            text: text.to_owned(),
            line_starts: std::iter::once(0).chain(breaks).collect(),
            order,
        })
    }
}

/// A range of bytes of a [`Source`].
#[derive(Clone)]
pub(super) struct Place {
    source: Rc<Source>,
    bytes: Range<usize>,
}

impl Place {
    pub(super) fn new(source: &Rc<Source>, bytes: Range<usize>) -> Self {
        Self {
            source: Rc::clone(source),
            bytes,
        }
    }

    /// Another range of the same file.
    pub(super) fn sibling(&self, bytes: Range<usize>) -> Self {
        Self::new(&self.source, bytes)
    }

    /// `file:line`, for a message about another place.
    pub(super) fn label(&self) -> String {
        format!("{}:{}", self.source.name, self.line_index() + 1)
    }

    /// Whether this is in the policy file, not in a list file.
    pub(super) fn is_in_policy(&self) -> bool {
        self.source.order == 0
    }

    fn line_index(&self) -> usize {
        let after = |start: &usize| *start <= self.bytes.start;
        self.source
            .line_starts
            .partition_point(after)
            .saturating_sub(1)
    }

    fn diagnostic(&self, severity: Severity, problem: Problem) -> Diagnostic {
        let text = &self.source.text;
        let line_index = self.line_index();
        let line_start = self.source.line_starts[line_index];
        let line = text[line_start..].lines().next().unwrap_or_default();
        let within =
            |at: usize| line.floor_char_boundary(at.saturating_sub(line_start).min(line.len()));
        let (from, to) = (within(self.bytes.start), within(self.bytes.end));
        Diagnostic {
            severity,
            file: self.source.name.clone(),
            position: Some(Position {
                line: line_index + 1,
                column: line[..from].chars().count() + 1,
            }),
            message: problem.message,
            help: problem.help,
            excerpt: Some(Excerpt::new(line, from, to.max(from))),
        }
    }
}

/// A value and where it was written.
#[derive(Clone)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

/// Proof that an error was reported: who holds one need not report again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reported(());

/// What reading a part of the policy gives.
pub(super) type Read<T> = Result<T, Reported>;

/// The errors and warnings found so far.
#[derive(Default)]
pub(super) struct Report {
    found: RefCell<Found>,
}

#[derive(Default)]
struct Found {
    /// With what they are sorted by: file, then byte.
    diagnostics: Vec<((usize, usize), Diagnostic)>,
    errors: usize,
    suppressed: usize,
}

impl Report {
    pub(super) fn error(&self, place: &Place, problem: Problem) -> Reported {
        self.add(Severity::Error, place, problem);
        Reported(())
    }

    pub(super) fn warn(&self, place: &Place, message: impl Into<String>, help: impl Into<String>) {
        self.add(Severity::Warning, place, Problem::new(message, help));
    }

    /// Whether any error was reported.
    pub(super) fn has_errors(&self) -> bool {
        self.found.borrow().errors > 0
    }

    fn add(&self, severity: Severity, place: &Place, problem: Problem) {
        let mut found = self.found.borrow_mut();
        found.errors += usize::from(severity == Severity::Error);
        if found.diagnostics.len() >= MAX_DIAGNOSTICS {
            found.suppressed += 1;
            return;
        }
        let key = (place.source.order, place.bytes.start);
        found
            .diagnostics
            .push((key, place.diagnostic(severity, problem)));
    }

    /// The value and its warnings, or every error.
    pub(super) fn finish<T>(self, value: Read<T>) -> Result<(T, Vec<Diagnostic>), PolicyError> {
        let errors = self.found.borrow().errors;
        let diagnostics = self.into_diagnostics();
        match value {
            Ok(value) if errors == 0 => Ok((value, diagnostics)),
            _ => Err(PolicyError { diagnostics }),
        }
    }

    /// All that was found: errors first, then in the order of the files.
    pub(super) fn into_diagnostics(self) -> Vec<Diagnostic> {
        let Found {
            mut diagnostics,
            suppressed,
            ..
        } = self.found.into_inner();
        diagnostics.sort_by_key(|(key, diagnostic)| (diagnostic.severity, *key));
        let mut diagnostics: Vec<Diagnostic> =
            diagnostics.into_iter().map(|(_, found)| found).collect();
        if suppressed > 0
            && let Some(last) = diagnostics.last().cloned()
        {
            diagnostics.push(Diagnostic {
                position: None,
                message: format!("and {suppressed} more, not shown"),
                help: "mend these first".to_owned(),
                excerpt: None,
                ..last
            });
        }
        diagnostics
    }
}

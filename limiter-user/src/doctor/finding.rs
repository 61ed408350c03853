//! What the doctor says.

use serde::Serialize;

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Worth knowing, or not to be seen.
    Note,
    /// `run` starts, and something will be worse than it could be.
    Warning,
    /// `run` would not start.
    Stops,
}

impl Level {
    /// As it is printed.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Stops => "stops",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What it is about: `kernel`, `interface eth0`.
    pub subject: String,
    /// What was found.
    pub what: String,
    /// The command, or the step, that mends it.
    pub mend: Option<String>,
}

impl Finding {
    /// Of an interface that nobody chose, nothing stops `run`.
    pub(super) fn soften(&mut self) {
        self.level = self.level.min(Level::Warning);
    }
}

/// Findings of one subject, in the order in which they are said.
#[derive(Clone, Debug)]
pub(super) struct About {
    subject: String,
    findings: Vec<Finding>,
}

impl About {
    pub(super) fn new(subject: impl Into<String>) -> Self {
        Self {
            subject: subject.into(),
            findings: Vec::new(),
        }
    }

    pub(super) fn ok(&mut self, what: impl Into<String>) {
        self.say(Level::Ok, what.into(), None);
    }

    pub(super) fn note(&mut self, what: impl Into<String>) {
        self.say(Level::Note, what.into(), None);
    }

    pub(super) fn say(&mut self, level: Level, what: String, mend: Option<String>) {
        self.findings.push(Finding {
            level,
            subject: self.subject.clone(),
            what,
            mend,
        });
    }

    /// With a mend.
    pub(super) fn mend(&mut self, level: Level, what: impl Into<String>, mend: impl Into<String>) {
        self.say(level, what.into(), Some(mend.into()));
    }

    pub(super) fn findings(self) -> Vec<Finding> {
        self.findings
    }
}

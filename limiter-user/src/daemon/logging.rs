//! The log: to standard error, as text or JSON.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tracing_subscriber::filter::LevelFilter;

/// How lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// An object a line.
    Json,
}

/// What is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub enum Level {
    /// What failed.
    Error,
    /// And what is probably not meant.
    Warn,
    /// And every change.
    #[default]
    Info,
    /// And details.
    Debug,
    /// And everything.
    Trace,
}

/// Starts the log of this process; later calls have no effect.
pub fn start(format: Format, level: Level) {
    use std::io::{IsTerminal as _, stderr};
    let level = match level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    };
    let builder = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_target(false)
        // It would be told to the same place, by a macro that panics.
        .log_internal_errors(false)
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal());
    // It fails only where a log was started before.
    let _started = match format {
        Format::Text => builder.try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    };
}

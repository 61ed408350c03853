//! Development tasks: `cargo xtask --help` lists them.
//!
//! This crate depends on none of the others, so that it builds with plain
//! stable Rust where the toolchain for BPF is still to be set up.

mod apt;
mod bench;
mod check;
mod demo;
mod man;
mod setup;
mod test;
mod tidy;
mod workspace;

// Shared with the build script of limiter-user, so that both agree.
#[path = "../../limiter-user/build/toolchain.rs"]
mod toolchain;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use workspace::Workspace;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Development tasks of limiter")]
enum Task {
    /// Install what the build and the tests need, where it is missing
    Setup,
    /// Formatting, lints, documentation and house rules
    Check,
    /// Set up, check, then build and run every test (as root)
    Test {
        /// Passed on to `cargo test`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Set up, then show the limiter at work
    Demo {
        /// Passed on to the demo
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Set up, then measure: tables, or `--json`; names select sections
    Bench {
        /// Passed on to the bench; `-- --help` explains them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Write manual pages and shell completions
    Man {
        /// The directory to write to
        directory: std::path::PathBuf,
    },
}

fn main() -> ExitCode {
    match perform(Task::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The causes on one line each, without the backtrace that `main`
            // returning the error would print where RUST_BACKTRACE is set.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(task: Task) -> Result<()> {
    let workspace = Workspace::find()?;
    match task {
        Task::Setup => setup::run(&workspace).map(drop),
        Task::Check => {
            let toolchain = setup::run(&workspace)?;
            check::run(&workspace, &toolchain)
        }
        Task::Test { arguments } => test::run(&workspace, &arguments),
        Task::Demo { arguments } => demo::run(&workspace, &arguments),
        Task::Bench { arguments } => bench::run(&workspace, &arguments),
        Task::Man { directory } => man::run(&workspace, &directory),
    }
}

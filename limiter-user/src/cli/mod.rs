//! The command line: what was typed, what is asked of whom, what is printed,
//! and the exit status (0 done, 1 refused or invalid, 2 usage).

mod args;
mod audit;
mod capture;
mod doctor;
mod entries;
mod explain;
mod import;
mod integration;
mod notify;
mod output;
mod policy_file;
mod requests;
mod rules;
mod show;
mod signals;
mod suggest;
mod term;
mod top;
mod words;

use std::io;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use crate::control::client::{Client, ClientError};
use crate::policy::escape;
use crate::{daemon, worker};
use args::{Arguments, Command};
use output::Output;

/// Why a command did not do what it was told.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The daemon does not, or is not there.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Something else, in words; may have several lines.
    #[error("{0}")]
    Words(String),
    /// It was said already.
    #[error("")]
    Said,
    /// What was printed could not be written.
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
}

/// The definition of the command line, for manual pages and completions.
#[must_use]
pub fn command() -> clap::Command {
    Arguments::command()
}

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    if let Some(outcome) = std::env::args().next().as_deref().and_then(worker::called) {
        return match outcome {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                say(&Failure::Words(format!("{error:#}")));
                ExitCode::FAILURE
            }
        };
    }
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are no errors; nobody may be reading them.
            let _written = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let mut output = Output::default();
    let outcome = carry_out(arguments, &mut output).and_then(|()| Ok(output.flush()?));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read along has seen enough: `limiter sources | head`.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(failure) => {
            let _flushed = output.flush();
            say(&failure);
            ExitCode::FAILURE
        }
    }
}

/// Prints an error; whoever closed standard error does not want it.
fn say(failure: &Failure) {
    use std::io::Write as _;
    let mut text = String::new();
    match failure {
        Failure::Said => return,
        Failure::Client(ClientError::Refused(refusal)) => {
            if !refusal.place.is_empty() {
                text.push_str(&format!("{}: ", escape(&refusal.place)));
            }
            text.push_str(&escape(&refusal.detail));
            if !refusal.help.is_empty() {
                text.push_str(&format!("; {}", escape(&refusal.help)));
            }
            for diagnostic in &refusal.diagnostics {
                for line in diagnostic.text.lines() {
                    text.push_str(&format!("\n{}", escape(line)));
                }
            }
        }
        other => {
            let words = other.to_string();
            let lines: Vec<String> = words.lines().map(escape).collect();
            text = lines.join("\n");
        }
    }
    let _written = writeln!(io::stderr(), "limiter: {text}");
}

fn carry_out(arguments: Arguments, output: &mut Output) -> Result<(), Failure> {
    let socket = arguments.socket;
    let default = std::path::Path::new(crate::control::DEFAULT_SOCKET);
    let login = std::env::var("SSH_CONNECTION").ok();
    let client = Client::new(socket.as_deref().unwrap_or(default)).logged_in(login.as_deref());
    match arguments.command {
        Command::Run(run) => {
            daemon::logging::start(run.log_format, run.log_level);
            let settings = daemon::Settings {
                config: run.config,
                socket,
                trace_packets: run.trace_packets,
                log: (run.log_format, run.log_level),
            };
            daemon::run(&settings).map_err(|error| Failure::Words(format!("{error:#}")))
        }
        Command::Check(check) => policy_file::check(&check, output),
        Command::Init(init) => policy_file::init(&init, output),
        Command::Diff(diff) => policy_file::diff(&client, &diff, output),
        Command::Reload(reload) => term::reload(&client, &reload, output),
        Command::Confirm(json) => term::confirm(&client, json, output),
        Command::Pause(pause) => term::pause(&client, &pause, output),
        Command::Resume(json) => term::resume(&client, json, output),
        Command::Status(json) => show::status(&client, json.json, output),
        Command::Stats(stats) => show::stats(&client, &stats, output),
        Command::Sources(sources) => show::sources(&client, &sources, output),
        Command::Top => top::top(&client),
        Command::Suggest(arguments) => suggest::suggest(&client, &arguments, output),
        Command::Block(verb) => entries::blocks(&client, verb.verb, output),
        Command::Allow(verb) => entries::allow(&client, verb.verb, output),
        Command::Deny(verb) => entries::deny(&client, verb.verb, output),
        Command::Rule(verb) => rules::rules(&client, verb.verb, output),
        Command::Account(verb) => rules::accounts(&client, verb.verb, output),
        Command::Origins(json) => rules::origins(&client, json, output),
        Command::Notify(verb) => notify::notify(&client, verb.verb, output),
        Command::Audit(arguments) => audit::audit(&client, &arguments, output),
        Command::Explain(explain) => explain::explain(&client, &explain, output),
        Command::Capture(arguments) => capture::capture(&client, &arguments),
        Command::Detach(detach) => show::detach(&client, &detach, output),
        Command::Integration(arguments) => integration::integration(&arguments, output),
        Command::Doctor(arguments) => doctor::doctor(&arguments, socket.as_deref(), output),
    }
}

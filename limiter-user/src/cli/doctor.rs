//! `doctor`.

use std::path::Path;

use super::args::{DEFAULT_CONFIG, Doctor};
use super::output::Output;
use super::{Failure, words};
use crate::control::DEFAULT_SOCKET;
use crate::doctor::{self, Finding, Level, Request};
use crate::policy;

/// Looks at the machine and prints what was found. Fails if anything would stop
/// `run`.
pub(super) fn doctor(
    arguments: &Doctor,
    socket: Option<&Path>,
    output: &mut Output,
) -> Result<(), Failure> {
    let default = Path::new(DEFAULT_CONFIG);
    let config = arguments.config.as_deref();
    // Where nobody named a file, and none is there, nobody has a policy yet.
    let config = config.or_else(|| default.exists().then_some(default));
    let loaded = config.map(policy::load);
    let policy = loaded.as_ref().map(|loaded| match loaded {
        Ok(loaded) => Ok(&loaded.policy),
        Err(error) => Err(error),
    });
    let own = policy.and_then(|it| it.ok().map(|policy| policy.control.socket.as_path()));
    let findings = doctor::examine(Request {
        policy,
        interface: arguments.interface.as_deref(),
        socket: socket.or(own).unwrap_or(Path::new(DEFAULT_SOCKET)),
    });
    let count = |level| findings.iter().filter(|it| it.level == level).count();
    let (stops, warnings) = (count(Level::Stops), count(Level::Warning));
    if arguments.json.json {
        output.json(&serde_json::json!({
            "stops": stops,
            "warnings": warnings,
            "findings": findings,
        }))?;
    } else {
        print(&findings, output)?;
        output.line(&summary(stops, warnings))?;
    }
    match stops {
        0 => Ok(()),
        _ => Err(Failure::Said),
    }
}

fn print(findings: &[Finding], output: &mut Output) -> Result<(), Failure> {
    let mut subject = "";
    for finding in findings {
        if finding.subject != subject {
            subject = &finding.subject;
            output.line(subject)?;
        }
        output.line(&format!("  {:<8} {}", finding.level.name(), finding.what))?;
        if let Some(mend) = &finding.mend {
            output.line(&format!("  {:<8} {mend}", "  mend:"))?;
        }
    }
    Ok(())
}

fn summary(stops: usize, warnings: usize) -> String {
    let counted = |number: usize, one: &str, many: &str| {
        let name = if number == 1 { one } else { many };
        format!("{} {name}", words::count(number as u64))
    };
    let warnings = counted(warnings, "warning", "warnings");
    match stops {
        0 => format!("nothing would stop `limiter run`; {warnings}"),
        _ => format!(
            "{} would stop `limiter run`; {warnings}",
            counted(stops, "thing", "things")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_says_how_it_is() {
        assert_eq!(summary(0, 1), "nothing would stop `limiter run`; 1 warning");
        assert_eq!(
            summary(2, 0),
            "2 things would stop `limiter run`; 0 warnings"
        );
    }
}

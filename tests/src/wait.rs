//! Waiting for something to become true: by asking, with a deadline, and
//! never by sleeping until it probably is.

use anyhow::{Result, bail};
use std::time::{Duration, Instant};

/// How long the rig waits for what should be there at once.
pub const SOON: Duration = Duration::from_secs(10);

/// Asks until there is an answer. The error names `what` was waited for.
pub fn until<T>(
    what: &str,
    at_most: Duration,
    mut ask: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + at_most;
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if Instant::now() >= deadline {
            bail!("waited {at_most:?} in vain for {what}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

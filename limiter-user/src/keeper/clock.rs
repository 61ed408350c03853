//! Time as an argument: the keeper never reads a clock itself.

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant, SystemTime};

use nix::time::ClockId;

/// One moment on all clocks: what lasts is measured on the one that nobody
/// sets, what is shown comes from the other.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For durations.
    pub instant: Instant,
    /// The same clock as a number, so that it can be stored: time since the
    /// machine started. It stands still while the machine sleeps, as does the
    /// packet path's.
    pub mono: Duration,
    /// For people.
    pub wall: SystemTime,
}

impl Now {
    /// This moment.
    #[must_use]
    pub fn read() -> Self {
        Self {
            instant: Instant::now(),
            // Every Linux has this clock.
            mono: ClockId::CLOCK_MONOTONIC
                .now()
                .map_or(Duration::ZERO, Duration::from),
            wall: SystemTime::now(),
        }
    }

    /// So much later.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self {
            instant: self.instant.checked_add(duration).unwrap_or(self.instant),
            mono: self.mono.saturating_add(duration),
            wall: self.wall.checked_add(duration).unwrap_or(self.wall),
        }
    }
}

/// A time of day for people and programs (RFC 3339, UTC).
#[must_use]
pub fn timestamp(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

/// Seconds since 1970.
#[must_use]
pub fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// The time at which so many nanoseconds have passed since 1970.
#[must_use]
pub fn unix_time(nanos: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos)
}

/// Nanoseconds since 1970.
#[must_use]
pub fn unix_nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos().try_into().unwrap_or(u64::MAX))
}

/// Whole seconds, begun ones counted: what is left is never shown as 0 while
/// it holds.
#[must_use]
pub fn seconds_left(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

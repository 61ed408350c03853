//! What a capture was asked for, read and checked.

use std::ops::RangeInclusive;
use std::time::Duration;

use hyper::StatusCode;
use limiter_common::sample::{FRAME_BYTES, Refusals};

use crate::control::api::{CaptureOrder, Refusal};
use crate::policy::units::{duration_text, parse_duration};

/// What can be asked for, and what is unless it is said.
const COUNTS: RangeInclusive<u64> = 1..=10_000;
const DEFAULT_COUNT: u64 = 100;
const LENGTHS: RangeInclusive<u32> = 64..=FRAME_BYTES as u32;
const DEFAULT_LENGTH: u32 = 256;
const TIMES: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(1);
const DEFAULT_TIME: Duration = Duration::from_mins(1);

/// An order that could be read.
pub(super) struct Wanted {
    pub(super) refusals: Refusals,
    pub(super) count: u64,
    pub(super) snap_length: usize,
    pub(super) lasting: Duration,
}

pub(super) fn read(order: &CaptureOrder) -> Result<Wanted, Refusal> {
    let invalid = |place: &str, detail: String, help: String| {
        Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, detail, help).at(place)
    };
    let refusals = match order.reason.as_deref() {
        None => Refusals::ALL,
        Some(name) => Refusals::named(name).ok_or_else(|| {
            let known: Vec<&str> = Refusals::names().collect();
            let detail = format!("packets are never dropped for `{name}`");
            invalid("reason", detail, format!("known: {}", known.join(", ")))
        })?,
    };
    let count = order.count.unwrap_or(DEFAULT_COUNT);
    if !COUNTS.contains(&count) {
        let help = format!("allowed: {} to {}", COUNTS.start(), COUNTS.end());
        return Err(invalid(
            "count",
            format!("{count} packets cannot be captured"),
            help,
        ));
    }
    let snap_length = order.snap_length.unwrap_or(DEFAULT_LENGTH);
    if !LENGTHS.contains(&snap_length) {
        let detail = format!("{snap_length} bytes of a packet cannot be captured");
        let help = format!("allowed: {} to {}", LENGTHS.start(), LENGTHS.end());
        return Err(invalid("snap_length", detail, help));
    }
    let lasting = order.lasting.as_deref().map(parse_duration).transpose();
    let lasting = lasting.map_err(|problem| invalid("for", problem.message, problem.help))?;
    let lasting = lasting.unwrap_or(DEFAULT_TIME);
    if !TIMES.contains(&lasting) {
        let [least, most] = [TIMES.start(), TIMES.end()].map(|end| duration_text(*end));
        let detail = format!("nothing can be captured for {}", duration_text(lasting));
        return Err(invalid(
            "for",
            detail,
            format!("allowed: {least} to {most}"),
        ));
    }
    Ok(Wanted {
        refusals,
        count,
        snap_length: snap_length as usize,
        lasting,
    })
}

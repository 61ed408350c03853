//! When an event happened, as servers write it.

use time::format_description::well_known::Rfc3339;
use time::{Date, Month, OffsetDateTime, Time, UtcOffset};

const SECOND_NS: u64 = 1_000_000_000;

/// The first second that is too late, 2100-01-01T00:00:00Z: what claims to be
/// later is milliseconds, or a clock that was never set.
const END_S: u64 = 4_102_444_800;

/// Why this is no time.
pub(super) const ABSURD: &str =
    "not between 1970 and 2100 (Unix seconds are needed, not milliseconds)";
const UNREADABLE: &str = "neither Unix seconds nor RFC 3339";

/// Unix seconds without a fraction, in nanoseconds.
pub(super) fn from_seconds(seconds: u64) -> Result<u64, &'static str> {
    if seconds < END_S {
        Ok(seconds * SECOND_NS)
    } else {
        Err(ABSURD)
    }
}

/// Unix seconds, in nanoseconds. What a double of these days holds is exact to
/// the microsecond, and is rounded to it.
pub(super) fn from_float(seconds: f64) -> Result<u64, &'static str> {
    if (0.0..END_S as f64).contains(&seconds) {
        Ok((seconds * 1e6).round() as u64 * 1_000)
    } else {
        Err(ABSURD)
    }
}

/// Unix seconds in digits or RFC 3339, in nanoseconds.
pub(super) fn from_text(text: &str) -> Result<u64, &'static str> {
    let first = text.as_bytes().first();
    let numeric = text
        .bytes()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'-'));
    if numeric && first.is_some() && text.matches('-').count() < 2 {
        return text.parse().map_err(|_| UNREADABLE).and_then(from_float);
    }
    let moment = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| UNREADABLE)?;
    within(moment)
}

/// `22/Nov/2026:18:29:28 +0000`, or `22/Nov/2026:18:29:28.925` in UTC, in
/// nanoseconds.
pub(super) fn from_log(text: &[u8]) -> Option<u64> {
    let (date, rest) = text.split_at_checked(11)?;
    let [d1, d2, b'/', month @ .., b'/', y1, y2, y3, y4] = date else {
        return None;
    };
    let month = match month {
        b"Jan" => Month::January,
        b"Feb" => Month::February,
        b"Mar" => Month::March,
        b"Apr" => Month::April,
        b"May" => Month::May,
        b"Jun" => Month::June,
        b"Jul" => Month::July,
        b"Aug" => Month::August,
        b"Sep" => Month::September,
        b"Oct" => Month::October,
        b"Nov" => Month::November,
        b"Dec" => Month::December,
        _ => return None,
    };
    let year = i32::from(two(*y1, *y2)?) * 100 + i32::from(two(*y3, *y4)?);
    let date = Date::from_calendar_date(year, month, two(*d1, *d2)?).ok()?;
    let [b':', h1, h2, b':', m1, m2, b':', s1, s2, rest @ ..] = rest else {
        return None;
    };
    // A leap second is the one before it.
    let second = two(*s1, *s2)?.min(59);
    let (milli, offset) = match rest {
        [b' ', sign @ (b'+' | b'-'), rest @ ..] => (0, Some((*sign, rest))),
        [b'.', a, b, c] => (
            u16::from(two(*a, *b)?) * 10 + u16::from(two(b'0', *c)?),
            None,
        ),
        [] => (0, None),
        _ => return None,
    };
    let time = Time::from_hms_milli(two(*h1, *h2)?, two(*m1, *m2)?, second, milli).ok()?;
    let offset = match offset {
        None => UtcOffset::UTC,
        Some((sign, [h1, h2, m1, m2])) => {
            let sign = if sign == b'-' { -1 } else { 1 };
            let hours = two(*h1, *h2)? as i8;
            let minutes = two(*m1, *m2)? as i8;
            UtcOffset::from_hms(sign * hours, sign * minutes, 0).ok()?
        }
        Some(_) => return None,
    };
    within(OffsetDateTime::new_in_offset(date, time, offset)).ok()
}

fn within(moment: OffsetDateTime) -> Result<u64, &'static str> {
    u64::try_from(moment.unix_timestamp_nanos())
        .ok()
        .filter(|ns| *ns < END_S * SECOND_NS)
        .ok_or(ABSURD)
}

/// Two digits.
const fn two(tens: u8, ones: u8) -> Option<u8> {
    if tens.is_ascii_digit() && ones.is_ascii_digit() {
        Some((tens - b'0') * 10 + (ones - b'0'))
    } else {
        None
    }
}

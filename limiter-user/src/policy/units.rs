//! Rates, byte counts and durations as text: `5000/s`, `20MB/s`, `15m`.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::diagnostic::quote;

const SECOND_NS: u64 = 1_000_000_000;

/// A unit's name and how many of the smallest unit it holds.
type Unit = (&'static str, u64);

const COUNT_UNITS: [Unit; 1] = [("", 1)];
const BYTE_UNITS: [Unit; 7] = [
    ("B", 1),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];
const DURATION_UNITS_S: [Unit; 4] = [("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400)];
const PERIODS_NS: [Unit; 3] = [
    ("s", SECOND_NS),
    ("min", 60 * SECOND_NS),
    ("h", 3_600 * SECOND_NS),
];

/// Why a text is not the value it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}; {help}")]
pub struct Problem {
    /// What is wrong, quoting the text.
    pub message: String,
    /// What is allowed, or what to write instead.
    pub help: String,
}

impl Problem {
    pub(super) fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            help: help.into(),
        }
    }
}

/// Tokens per time: `amount` in every `per_ns` nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Rate {
    /// Packets, connections or bytes; at least 1.
    pub amount: u64,
    /// Nanoseconds: one second, one minute or one hour.
    pub per_ns: u64,
}

impl Rate {
    /// The tokens that arrive in `interval_ns`, rounded up; saturates.
    #[must_use]
    pub fn tokens_in(self, interval_ns: u64) -> u64 {
        let tokens = (u128::from(self.amount) * u128::from(interval_ns))
            .div_ceil(u128::from(self.per_ns.max(1)));
        u64::try_from(tokens).unwrap_or(u64::MAX)
    }

    /// How long `tokens` take to arrive, in nanoseconds, rounded up.
    #[must_use]
    pub fn time_for_ns(self, tokens: u64) -> u128 {
        (u128::from(tokens) * u128::from(self.per_ns)).div_ceil(u128::from(self.amount.max(1)))
    }
}

/// What the tokens of a bucket are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Packets or connections.
    Count,
    /// Bytes.
    Bytes,
}

impl Measure {
    fn units(self) -> &'static [Unit] {
        match self {
            Measure::Count => &COUNT_UNITS,
            Measure::Bytes => &BYTE_UNITS,
        }
    }

    fn max_per_second(self) -> u64 {
        match self {
            Measure::Count => 100_000_000,
            Measure::Bytes => 100_000_000_000,
        }
    }

    pub(super) fn rate_help(self) -> &'static str {
        match self {
            Measure::Count => "allowed: N/s, N/min or N/h, from 1/h to 100000000/s",
            Measure::Bytes => {
                "allowed: N/s, N/min or N/h, N with B, kB, MB, GB, KiB, MiB or GiB, up to 100GB/s"
            }
        }
    }

    /// Reads a rate such as `5000/s`, `1.5MB/s`, `30/min`.
    ///
    /// # Errors
    /// What is no such text, is zero, or is outside 1/h to 100,000,000/s
    /// (bytes: 100GB/s).
    pub fn parse_rate(self, text: &str) -> Result<Rate, Problem> {
        let wrong = |what: &str| {
            Problem::new(
                format!("{} {what}", quote(text)),
                self.rate_help().to_owned(),
            )
        };
        let (amount, period) = text
            .split_once('/')
            .ok_or_else(|| wrong("is not a rate: it names no period"))?;
        let per_ns = PERIODS_NS
            .iter()
            .find(|(name, _)| *name == period)
            .map(|(_, ns)| *ns)
            .ok_or_else(|| wrong("has an unknown period: s, min and h are known"))?;
        let amount = quantity(amount, self.units()).map_err(|fault| match fault {
            Fault::Inexact => wrong("is not a whole number: write it over a longer period"),
            fault => wrong(fault.text()),
        })?;
        let rate = Rate { amount, per_ns };
        if amount == 0 {
            return Err(wrong("is a rate of zero, which would refuse everything"));
        }
        if rate.tokens_in(SECOND_NS) > self.max_per_second() {
            return Err(wrong("is above the highest rate"));
        }
        Ok(rate)
    }

    /// Reads an amount of tokens: `200`, or bytes with their unit, `40MB`.
    ///
    /// # Errors
    /// What is no such text or no whole number.
    pub fn parse_amount(self, text: &str) -> Result<u64, Problem> {
        let help = match self {
            Measure::Count => "allowed: a whole number",
            Measure::Bytes => "allowed: bytes, with B, kB, MB, GB, KiB, MiB or GiB",
        };
        quantity(text, self.units())
            .map_err(|fault| Problem::new(format!("{} {}", quote(text), fault.text()), help))
    }

    /// An amount as [`Measure::parse_amount`] reads it back.
    #[must_use]
    pub fn amount_text(self, amount: u64) -> impl fmt::Display {
        in_largest_unit(amount, self.units())
    }

    /// A rate as [`Measure::parse_rate`] reads it back.
    #[must_use]
    pub fn rate_text(self, rate: Rate) -> impl fmt::Display {
        let period = PERIODS_NS
            .iter()
            .find(|(_, ns)| *ns == rate.per_ns)
            .map_or("?", |(name, _)| name);
        format!("{}/{period}", self.amount_text(rate.amount))
    }
}

/// Reads a duration: `90s`, `15m`, `1h`, `1d`; decimals where they come to
/// whole seconds.
///
/// # Errors
/// What is no such text, or no whole number of seconds.
pub fn parse_duration(text: &str) -> Result<Duration, Problem> {
    quantity(text, &DURATION_UNITS_S)
        .map(Duration::from_secs)
        .map_err(|fault| {
            Problem::new(
                format!("{} {}", quote(text), fault.text()),
                "allowed: a number with s, m, h or d, such as 90s, 15m, 1h, 1d",
            )
        })
}

/// A duration of whole seconds as [`parse_duration`] reads it back.
#[must_use]
pub fn duration_text(duration: Duration) -> String {
    in_largest_unit(duration.as_secs(), &DURATION_UNITS_S)
}

fn in_largest_unit(amount: u64, units: &[Unit]) -> String {
    let best = units
        .iter()
        .filter(|(_, size)| amount != 0 && amount.is_multiple_of(*size))
        .max_by_key(|(_, size)| *size);
    match best.or(units.first()) {
        Some((name, size)) => format!("{}{name}", amount / size),
        None => amount.to_string(),
    }
}

/// Why [`quantity`] refused a text.
#[derive(Clone, Copy)]
enum Fault {
    Number,
    Unit,
    Inexact,
    Huge,
}

impl Fault {
    fn text(self) -> &'static str {
        match self {
            Fault::Number => "does not start with a number",
            Fault::Unit => "lacks a unit, or its unit is unknown",
            Fault::Inexact => "is not a whole number of the smallest unit",
            Fault::Huge => "is too large",
        }
    }
}

/// Reads `1_000`, `1.5MB` and the like, exactly: no rounding anywhere.
fn quantity(text: &str, units: &[Unit]) -> Result<u64, Fault> {
    let split = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '_'))
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |part: &str| -> Result<String, Fault> {
        let well_formed = part
            .split('_')
            .all(|group| !group.is_empty() && group.bytes().all(|b| b.is_ascii_digit()));
        well_formed
            .then(|| part.replace('_', ""))
            .ok_or(Fault::Number)
    };
    let (whole, fraction) = (digits(whole)?, digits(fraction)?);
    let size = units
        .iter()
        .find(|(name, _)| *name == unit)
        .map(|(_, size)| u128::from(*size))
        .ok_or(Fault::Unit)?;

    let fraction = fraction.trim_end_matches('0');
    let scale = u32::try_from(fraction.len())
        .ok()
        .and_then(|digits| 10_u128.checked_pow(digits))
        .ok_or(Fault::Inexact)?;
    let scaled: u128 = format!("{whole}{fraction}")
        .parse()
        .map_err(|_| Fault::Huge)?;
    let smallest = scaled.checked_mul(size).ok_or(Fault::Huge)?;
    if !smallest.is_multiple_of(scale) {
        return Err(Fault::Inexact);
    }
    u64::try_from(smallest / scale).map_err(|_| Fault::Huge)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quantities_are_exact_or_refused() {
        let bytes: [(&str, Option<u64>); 15] = [
            ("40MB", Some(40_000_000)),
            ("1.5MB", Some(1_500_000)),
            ("1.50000000000000000000000kB", Some(1_500)),
            ("64KiB", Some(65_536)),
            ("0.5KiB", Some(512)),
            ("1_514B", Some(1_514)),
            ("0.1KiB", None),
            ("40", None),
            ("40mb", None),
            ("40 MB", None),
            ("1__0B", None),
            ("_1B", None),
            (".5kB", None),
            ("99999999999GiB", None),
            ("", None),
        ];
        for (text, expected) in bytes {
            assert_eq!(Measure::Bytes.parse_amount(text).ok(), expected, "{text:?}");
        }
    }

    #[test]
    fn rates_name_what_is_wrong() {
        let cases = [
            (Measure::Count, "0/s", "zero"),
            (Measure::Count, "100000001/s", "above the highest"),
            (Measure::Count, "0.5/s", "longer period"),
            (Measure::Count, "5/m", "unknown period"),
            (Measure::Count, "5", "names no period"),
            (Measure::Count, "five/s", "does not start with a number"),
            (Measure::Count, "-5/s", "does not start with a number"),
            (Measure::Count, "5MB/s", "unit"),
            (Measure::Bytes, "5/s", "unit"),
            (Measure::Bytes, "100.1GB/s", "above the highest"),
        ];
        for (measure, text, expected) in cases {
            let problem = measure.parse_rate(text).unwrap_err();
            assert!(problem.message.contains(expected), "{text}: {problem}");
        }
        let highest = Measure::Bytes.parse_rate("100GB/s").unwrap();
        assert_eq!(highest.tokens_in(SECOND_NS), 100_000_000_000);
        let slowest = Measure::Count.parse_rate("1/h").unwrap();
        assert_eq!(slowest.tokens_in(SECOND_NS), 1);
    }

    #[test]
    fn durations() {
        for (text, seconds) in [("90s", 90), ("15m", 900), ("1.5h", 5_400), ("1d", 86_400)] {
            assert_eq!(parse_duration(text).unwrap().as_secs(), seconds);
        }
        for text in ["500ms", "1", "h", "0.5s", "1h30m", "-1s"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn amounts_round_trip(amount: u64) {
            for measure in [Measure::Count, Measure::Bytes] {
                let text = measure.amount_text(amount).to_string();
                prop_assert_eq!(measure.parse_amount(&text), Ok(amount));
            }
        }

        #[test]
        fn rates_round_trip(amount in 1..=100_000_000_u64, period in 0..3_usize) {
            let rate = Rate { amount, per_ns: PERIODS_NS[period].1 };
            for measure in [Measure::Count, Measure::Bytes] {
                let text = measure.rate_text(rate).to_string();
                prop_assert_eq!(measure.parse_rate(&text), Ok(rate));
            }
        }

        #[test]
        fn durations_round_trip(seconds: u64) {
            let duration = Duration::from_secs(seconds);
            prop_assert_eq!(parse_duration(&duration_text(duration)), Ok(duration));
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = Measure::Bytes.parse_rate(&text);
            let _ = Measure::Count.parse_amount(&text);
            let _ = parse_duration(&text);
        }
    }
}

//! Numbers and times for people.

/// `14m 59s`; at most two units.
pub(super) fn duration(seconds: u64) -> String {
    let units = [
        (seconds / 86_400, "d"),
        (seconds / 3_600 % 24, "h"),
        (seconds / 60 % 60, "m"),
        (seconds % 60, "s"),
    ];
    let first = units.iter().position(|(amount, _)| *amount > 0);
    let shown = units.iter().skip(first.unwrap_or(3)).take(2);
    let shown = shown.filter(|(amount, unit)| *amount > 0 || (seconds == 0 && *unit == "s"));
    let shown: Vec<String> = shown
        .map(|(amount, unit)| format!("{amount}{unit}"))
        .collect();
    shown.join(" ")
}

/// `1.5 MB`, in steps of 1,000.
pub(super) fn bytes(bytes: u64) -> String {
    scaled(bytes, &["B", "kB", "MB", "GB", "TB", "PB", "EB"])
}

/// `12,345`.
pub(super) fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A value, or a dash.
pub(super) fn or_dash(value: Option<&str>) -> String {
    value.unwrap_or("-").to_owned()
}

fn scaled(value: u64, units: &[&str]) -> String {
    let mut unit = 0;
    let mut scaled = value as f64;
    // 999.95 would be shown as 1000.0.
    while scaled >= 999.95 && unit + 1 < units.len() {
        scaled /= 1_000.0;
        unit += 1;
    }
    let name = units.get(unit).copied().unwrap_or_default();
    match unit {
        0 => format!("{value} {name}"),
        _ => format!("{scaled:.1} {name}"),
    }
}

/// A number of things.
pub(super) fn counted(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {what}{plural}", count(number as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn for_people() {
        assert_eq!(duration(899), "14m 59s");
        assert_eq!(duration(0), "0s");
        assert_eq!(duration(900), "15m");
        assert_eq!(duration(86_400 + 59), "1d");
        assert_eq!(duration(86_400 + 3_661), "1d 1h");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(999_999), "1.0 MB");
        assert_eq!(bytes(1_500), "1.5 kB");
        assert_eq!(bytes(u64::MAX), "18.4 EB");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(count(123), "123");
    }
}

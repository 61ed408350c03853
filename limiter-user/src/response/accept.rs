//! Which of several kinds a client wants (RFC 9110, 12.5.1).

/// Parts of an `Accept` that are looked at.
const MOST: usize = 32;

/// Whether a client would rather have a page than data: one that takes HTML by name.
pub(super) fn wants_html(accept: Option<&str>) -> bool {
    let offered = ["application/json", "text/html"];
    accept.is_some_and(|accept| {
        ranges(accept).any(|range| range.kind.eq_ignore_ascii_case("text/html"))
            && best(Some(accept), &offered) == 1
    })
}

/// The number of the kind that a client likes best; among equals, and where it wants
/// none of them, the first.
pub(super) fn best(accept: Option<&str>, offered: &[&str]) -> usize {
    let Some(accept) = accept else {
        return 0;
    };
    let mut best = (0, 0);
    for (number, kind) in offered.iter().enumerate() {
        let weight = weight(accept, kind);
        if weight > best.1 {
            best = (number, weight);
        }
    }
    best.0
}

/// The number of the language that a client reads best (RFC 9110, 12.5.4), by the first subtag of
/// each; among equals, and where it reads none of them, the first.
pub(super) fn language(accept: Option<&str>, offered: &[&str]) -> usize {
    let mut best = (0, 0);
    for range in ranges(accept.unwrap_or_default()) {
        let primary = range.kind.split('-').next().unwrap_or_default();
        let named = |language: &&str| language.eq_ignore_ascii_case(primary);
        if let Some(number) = offered.iter().position(named)
            && range.weight > best.1
        {
            best = (number, range.weight);
        }
    }
    best.0
}

/// What the most specific range that fits says, in thousandths.
fn weight(accept: &str, kind: &str) -> u32 {
    let fitting = ranges(accept).filter_map(|range| Some((range.fits(kind)?, range.weight)));
    let most = fitting.max_by_key(|(specific, _)| *specific);
    most.map_or(0, |(_, weight)| weight)
}

#[derive(Clone, Copy, Debug)]
struct Range<'a> {
    kind: &'a str,
    weight: u32,
}

fn ranges(accept: &str) -> impl Iterator<Item = Range<'_>> {
    accept.split(',').take(MOST).map(|part| {
        let mut parameters = part.split(';').map(str::trim);
        let kind = parameters.next().unwrap_or_default();
        let weight = parameters.find_map(|it| it.strip_prefix("q=").or(it.strip_prefix("Q=")));
        Range {
            kind,
            weight: weight.map_or(1_000, thousandths),
        }
    })
}

/// A weight, 0 to 1 with up to three digits; what is none is 0.
fn thousandths(text: &str) -> u32 {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let is_number = part.len() <= 3 && part.bytes().all(|byte| byte.is_ascii_digit());
    match (whole, is_number) {
        ("1", true) => 1_000,
        ("0", true) => format!("{part:0<3}").parse().unwrap_or(0),
        _ => 0,
    }
}

impl Range<'_> {
    /// How specific it is, if a kind is in it.
    fn fits(self, kind: &str) -> Option<u8> {
        if self.kind.eq_ignore_ascii_case(kind) {
            return Some(2);
        }
        match self.kind.split_once('/')? {
            ("*", "*") => Some(0),
            (group, "*") => {
                let (of, _) = kind.split_once('/')?;
                group.eq_ignore_ascii_case(of).then_some(1)
            }
            _ => None,
        }
    }
}

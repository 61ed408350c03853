//! `[metrics]`, `[control]`, `[state]`.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::diagnostic::quote;
use super::limit::bounded_duration;
use super::model::{Control, DEFAULT_PINS, DEFAULT_STATE, Metrics, State};
use super::reader::Section;
use super::report::{Read, Report};
use super::units::{Measure, Problem};

const LISTEN_HELP: &str = "allowed: an address with a port, such as 127.0.0.1:9477";
pub(super) const PATH_HELP: &str = "allowed: an absolute path";
pub(super) const GROUP_HELP: &str =
    "allowed: a group's name, 1 to 32 of A-Z a-z 0-9 _ . -, first a letter or _";
/// The group that may change things, unless the policy names another.
pub const DEFAULT_GROUP: &str = "limiter";
const DAY: Duration = Duration::from_hours(24);

pub(super) fn metrics(root: &Section<'_>, report: &Report) -> Read<Metrics> {
    let section = root.section("metrics")?;
    let default = section.at(SocketAddr::from(([127, 0, 0, 1], 9477)));
    let listen = section.read_or("listen", default, |v| {
        Ok(v.at(v.text(LISTEN_HELP, address)?))
    })?;
    if !listen.value.ip().is_loopback() {
        report.warn(
            &listen.place,
            format!(
                "metrics on {} can be read by whoever reaches that port",
                listen.value
            ),
            "listen on loopback, or let a firewall guard it",
        );
    }
    Ok(Metrics {
        listen: listen.value,
    })
}

fn address(text: &str) -> Result<SocketAddr, Problem> {
    text.parse().map_err(|_| {
        let message = format!("{} is not an address with a port", quote(text));
        Problem::new(message, LISTEN_HELP)
    })
}

pub(super) fn control(root: &Section<'_>) -> Read<Control> {
    /// What `sun_path` holds before its final zero.
    const LONGEST_SOCKET: usize = 107;
    let section = root.section("control")?;
    let default = PathBuf::from("/run/limiter/control.sock");
    let socket = section.read_or("socket", default, |v| {
        v.text(PATH_HELP, |text| absolute(text, LONGEST_SOCKET))
    });
    let group_of = |key| section.read(key, |v| v.text(GROUP_HELP, group));
    let (group, read_group) = (group_of("group"), group_of("read_group"));
    Ok(Control {
        socket: socket?,
        group: group?.unwrap_or_else(|| DEFAULT_GROUP.to_owned()),
        read_group: read_group?,
    })
}

pub(super) fn state(root: &Section<'_>) -> Read<State> {
    const LONGEST_PATH: usize = 4_000;
    let section = root.section("state")?;
    let default = PathBuf::from(DEFAULT_STATE);
    let directory = section.read_or("directory", default, |v| {
        v.text(PATH_HELP, |text| absolute(text, LONGEST_PATH))
    });
    let default = PathBuf::from(DEFAULT_PINS);
    let pins = section.read_or("pins", default, |v| {
        v.text(PATH_HELP, |text| absolute(text, LONGEST_PATH))
    });
    let retention = section.read_or("retention", 30 * DAY, |v| {
        v.text("allowed: a duration, such as 30d", |text| {
            bounded_duration(text, DAY / 24..=3_650 * DAY)
        })
    });
    let size_help = "allowed: a size, such as 1GiB";
    let audit_size = section.read_or("audit_size", 1 << 30, |v| v.text(size_help, audit_size));
    Ok(State {
        directory: directory?,
        pins: pins?,
        retention: retention?,
        audit_size: audit_size?,
    })
}

const AUDIT_SIZES: RangeInclusive<u64> = 16 << 20..=1_000 << 30;

fn audit_size(text: &str) -> Result<u64, Problem> {
    let size = Measure::Bytes.parse_amount(text)?;
    if AUDIT_SIZES.contains(&size) {
        return Ok(size);
    }
    let message = format!("{} is out of range", quote(text));
    Err(Problem::new(message, "allowed: 16MiB to 1000GiB"))
}

/// An absolute path of bounded length.
pub(super) fn absolute(text: &str, longest: usize) -> Result<PathBuf, Problem> {
    let message = if !text.starts_with('/') {
        "is not an absolute path"
    } else if text.contains('\0') {
        "has a zero byte in it"
    } else if text.len() > longest {
        "is too long a path"
    } else {
        return Ok(PathBuf::from(text));
    };
    let help = format!("{PATH_HELP} of at most {longest} bytes");
    Err(Problem::new(format!("{} {message}", quote(text)), help))
}

/// The name of a group.
pub(super) fn group(text: &str) -> Result<String, Problem> {
    let starts = |c: char| c.is_ascii_alphabetic() || c == '_';
    let known = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    if text.len() <= 32 && text.starts_with(starts) && text.bytes().all(known) {
        return Ok(text.to_owned());
    }
    let message = format!("{} is not the name of a group", quote(text));
    Err(Problem::new(message, GROUP_HELP))
}

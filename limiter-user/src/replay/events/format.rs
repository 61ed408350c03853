//! In which format a file is read, and what it may be instead.

use super::seen::Seen;
use super::summary::counted;
use crate::event::file::EventFile;
use crate::event::formats::Format;
use crate::policy::Decide;
use std::io::{self, Read};
use std::path::Path;

/// Bytes of a file that are kept, for telling what it may be.
const HEAD: usize = 65_536;

/// Why `--format fields` names no format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldMapError {
    /// The policy has no field map.
    #[error(
        "--format fields needs a field map, and the policy has none: give one of decide.logs the \
         format \"fields\""
    )]
    None,
    /// It has several.
    #[error(
        "--format fields could be any of {0} field maps of the policy, and the file is none of \
         decide.logs: keep the one that is meant"
    )]
    Many(usize),
}

/// The format of a file: the one named, or that of the log of this name in the policy,
/// or JSON.
///
/// # Errors
///
/// `fields` is named, and the policy does not say which field map is meant. Names that
/// no format has are for the caller to refuse; they are JSON here.
pub fn format_of(
    decide: Option<&Decide>,
    file: &Path,
    named: Option<&str>,
) -> Result<Format, FieldMapError> {
    let file = std::path::absolute(file).unwrap_or_default();
    let logs = decide.map_or(&[][..], |decide| &decide.logs);
    let followed = logs.iter().find(|log| log.path == file);
    let followed = followed.map(|log| &log.format);
    match named {
        Some("fields") => {}
        Some(name) => return Ok(name.parse().unwrap_or(Format::Json)),
        None => return Ok(followed.cloned().unwrap_or(Format::Json)),
    }
    let is_map = |format: &&Format| matches!(format, Format::Fields(_));
    if let Some(format) = followed.filter(is_map) {
        return Ok(format.clone());
    }
    let feedback = decide.map_or(&[][..], |decide| &decide.feedback);
    let feedback = feedback.iter().map(|it| &it.format);
    let all = logs.iter().map(|log| &log.format).chain(feedback);
    let mut maps: Vec<&Format> = Vec::new();
    for map in all.filter(is_map) {
        if !maps.contains(&map) {
            maps.push(map);
        }
    }
    match maps[..] {
        [map] => Ok(map.clone()),
        [] => Err(FieldMapError::None),
        _ => Err(FieldMapError::Many(maps.len())),
    }
}

/// The first bytes that come at once.
pub(super) fn head(input: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; HEAD];
    loop {
        match input.read(&mut bytes) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
            Ok(read) => {
                bytes.truncate(read);
                return Ok(bytes);
            }
        }
    }
}

/// What a file without events is, and what to do.
pub(super) fn what_it_is(head: &[u8], tried: &Format, seen: &Seen) -> String {
    if head.is_empty() {
        return "it is empty".to_owned();
    }
    if head.starts_with(&[0x1f, 0x8b]) {
        return "it is compressed; `zcat FILE | limiter explain --events -` reads it".to_owned();
    }
    let lines = counted(seen.misread + seen.other, "line");
    if let Some(other) = better(head, tried) {
        return format!("{lines}, and {other}");
    }
    if seen.misread == 0 {
        return format!("{lines}, and none tells of a request");
    }
    let names: Vec<&str> = Format::names().collect();
    format!(
        "{lines}, and no format reads them; {} are known, and `fields` with a field map in \
         decide.logs",
        names.join(", ")
    )
}

/// The format that understands more of what a file begins with than the one that was
/// tried.
pub(super) fn better(head: &[u8], tried: &Format) -> Option<String> {
    // The last line may go on.
    let end = head.iter().rposition(|byte| *byte == b'\n');
    let head = &head[..end.unwrap_or(head.len())];
    let understood = |format: Format| EventFile::new(head, format).flatten().count();
    let mut best = (understood(tried.clone()), None);
    for name in Format::names() {
        let events = name.parse().map_or(0, understood);
        if events > best.0 {
            best = (events, Some(name));
        }
    }
    let (events, name) = best;
    name.map(|name| format!("{events} of the first are {name}: add --format {name}"))
}

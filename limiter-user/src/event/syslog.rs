//! Syslog datagrams, as nginx and HAProxy send them.

use super::fault::NotUnderstood;

/// Bytes of `Nov 22 18:29:28 `.
const BSD_TIME: usize = 16;

/// The message in a datagram: what is behind a header of RFC 3164 or RFC 5424, or
/// all of it where there is none. Of RFC 3164 every part but the priority may be
/// missing. The header's time is not looked at: what was logged has its own.
///
/// # Errors
///
/// [`NotUnderstood::Shape`] if a header does not go on as it begins.
pub fn message(datagram: &[u8]) -> Result<&[u8], NotUnderstood> {
    let datagram = trimmed(datagram);
    let Some(rest) = datagram.strip_prefix(b"<") else {
        return Ok(datagram);
    };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let at = 1 + digits;
    let Some(b'>') = rest.get(digits).filter(|_| (1..=3).contains(&digits)) else {
        return Err(NotUnderstood::shape(at, "a priority as `<134>`"));
    };
    let rest = &rest[digits + 1..];
    match rest.strip_prefix(b"1 ") {
        Some(rest) => structured(rest, datagram.len()),
        None => Ok(bsd(rest)),
    }
}

/// What is behind time, host and tag (RFC 3164, 4.1): `host` is not always there,
/// and the tag ends in a colon.
fn bsd(rest: &[u8]) -> &[u8] {
    let Some((time, message)) = rest.split_at_checked(BSD_TIME) else {
        return rest;
    };
    if !is_bsd_time(time) {
        return rest;
    }
    let mut tail = message;
    for _host_or_tag in 0..2 {
        let Some(space) = memchr::memchr(b' ', tail) else {
            break;
        };
        let (word, after) = tail.split_at(space);
        tail = &after[1..];
        if word.ends_with(b":") {
            return tail;
        }
    }
    message
}

fn is_bsd_time(time: &[u8]) -> bool {
    let form = b"Aaa 99 99:99:99 ";
    time.iter().zip(form).all(|(byte, form)| match form {
        b'A' => byte.is_ascii_uppercase(),
        b'a' => byte.is_ascii_lowercase(),
        b'9' => byte.is_ascii_digit() || *byte == b' ',
        other => byte == other,
    })
}

/// What is behind time, host, name, process, message id and structured data (RFC
/// 5424, 6).
fn structured(mut rest: &[u8], length: usize) -> Result<&[u8], NotUnderstood> {
    let at = |rest: &[u8]| length - rest.len();
    for _word in 0..5 {
        let wanted = "time, host, name, process and message id (RFC 5424)";
        let space = memchr::memchr(b' ', rest).ok_or(NotUnderstood::shape(at(rest), wanted))?;
        rest = &rest[space + 1..];
    }
    let wanted = "structured data, or `-` (RFC 5424)";
    if let Some(after) = rest.strip_prefix(b"-") {
        rest = after;
    } else if rest.starts_with(b"[") {
        while rest.starts_with(b"[") {
            let end = element(rest).ok_or(NotUnderstood::shape(at(rest), wanted))?;
            rest = &rest[end..];
        }
    } else {
        return Err(NotUnderstood::shape(at(rest), wanted));
    }
    let Some(message) = rest.strip_prefix(b" ") else {
        return if rest.is_empty() {
            Ok(rest)
        } else {
            Err(NotUnderstood::shape(at(rest), "a space before the message"))
        };
    };
    Ok(message.strip_prefix(b"\xef\xbb\xbf").unwrap_or(message))
}

/// The length of `[id name="value"]`; `"`, `\` and `]` in values have a `\`
/// before them.
fn element(data: &[u8]) -> Option<usize> {
    let mut quoted = false;
    let mut bytes = data.iter().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'\\' if quoted => drop(bytes.next()),
            b'"' => quoted = !quoted,
            b']' if !quoted => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// Without the line end or NUL that some end a datagram with.
fn trimmed(datagram: &[u8]) -> &[u8] {
    let end = datagram
        .iter()
        .rposition(|byte| !matches!(byte, b'\n' | b'\r' | 0));
    &datagram[..end.map_or(0, |last| last + 1)]
}

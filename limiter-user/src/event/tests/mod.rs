mod files;
mod follow;
mod formats;
mod hostile;
mod json;
mod lines;
mod syslog;

use crate::event::Event;
use crate::event::formats::Format;

/// The one event in a line.
fn event(format: &Format, line: &[u8]) -> Event {
    format
        .read(line)
        .unwrap_or_else(|cause| panic!("{cause}: {}", String::from_utf8_lossy(line)))
        .expect("a request")
}

/// The events of a file, of which every line is one.
fn events(format: &Format, file: &[u8]) -> Vec<Event> {
    let lines = file.split(|byte| *byte == b'\n');
    lines
        .filter(|line| !line.is_empty())
        .map(|line| event(format, line))
        .collect()
}

/// Method and path, `-` where they are not known.
fn request(event: &Event) -> String {
    let method = event.method.as_deref().unwrap_or("-");
    let path = event.path.as_deref().unwrap_or("-");
    format!("{method} {path}")
}

fn header<'a>(headers: &'a [(Box<str>, Box<str>)], name: &str) -> Option<&'a str> {
    let found = headers.iter().find(|(known, _)| &**known == name);
    found.map(|(_, value)| &**value)
}

/// The bytes of a sample in which `⟦FF⟧` is a byte that is no UTF-8.
fn with_bytes(sample: &str) -> Vec<u8> {
    let mut parts = sample.split('⟦');
    let mut bytes: Vec<u8> = parts.next().unwrap_or_default().into();
    for part in parts {
        let (byte, rest) = part.split_once('⟧').unwrap();
        bytes.push(u8::from_str_radix(byte, 16).unwrap());
        bytes.extend_from_slice(rest.as_bytes());
    }
    bytes
}

//! nginx's `combined` log format.

use super::Asked;
use super::clf::{Cursor, quote, set, set_time, unescaped};
use crate::event::Event;
use crate::event::draft::{Draft, Field};
use crate::event::fault::NotUnderstood;
use crate::event::value::{Manner, Scalar, request_line};

const FORWARDED: &str = "X-Forwarded-For";

/// Bytes of `22/Nov/2026:18:29:28 +0000`.
const TIME: usize = 26;

/// Reads a line. nginx escapes quotes, backslashes and all but printable ASCII,
/// but neither spaces nor brackets, and the user name is whatever a client sent:
/// so the time is found from the first quote backwards. Of a request that nobody asks for, who
/// it was, when, and the status are kept: to keep all costs more than to read the line.
pub(super) fn read(line: &[u8], is_asked: Asked<'_>) -> Result<Event, NotUnderstood> {
    let mut cursor = Cursor::of(line)?;
    let mut draft = Draft::new(Manner::Logged);
    let address = cursor.before(b' ', "the client's address")?;
    set(&mut draft, &Field::Source, "remote_addr", address)?;
    cursor.expect("- ", "`- ` and a user name")?;

    let from = cursor.at;
    let length = quote(cursor.rest()).ok_or(NotUnderstood::shape(from, "a request in quotes"))?;
    let head = &cursor.rest()[..length];
    let wrong = NotUnderstood::shape(from, "a user name and a time in brackets");
    let head = head.strip_suffix(b"] ").ok_or(wrong.clone())?;
    let begin = head.len().checked_sub(TIME).ok_or(wrong.clone())?;
    let (user, time) = head.split_at(begin);
    let user = user.strip_suffix(b" [").ok_or(wrong)?;
    set_time(&mut draft, time, from + begin)?;
    let user = unescaped(user);
    draft.set(&Field::Account, "remote_user", Scalar::Text(&user))?;

    cursor.at += length + 1;
    let request = unescaped(cursor.quoted()?);
    let (method, target) = request_line(&request).unzip();
    let is_asked = is_asked(method, target);
    if is_asked {
        draft.request(&request);
    }
    cursor.expect(" ", "a status")?;
    set(&mut draft, &Field::Status, "status", cursor.word())?;
    let _length = cursor.word();
    for name in ["Referer", "User-Agent", FORWARDED] {
        // `common` ends before them; what comes behind them is not read.
        if cursor.rest().first() != Some(&b'"') {
            break;
        }
        cursor.at += 1;
        let value = cursor.quoted()?;
        // Who it was may stand in the last one.
        if value != b"-" && (is_asked || name == FORWARDED) {
            draft.header(false, name, &unescaped(value));
        }
        if cursor.rest().first() == Some(&b' ') {
            cursor.at += 1;
        }
    }
    draft.finish()
}

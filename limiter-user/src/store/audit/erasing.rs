//! An account that is to be forgotten: its rows, its name, and what was written of it by
//! hand.

use std::collections::HashSet;

use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use super::forgetting::STEP;
use super::log::Log;
use crate::engine::normalised_account;

/// What stands in place of a text that names an account.
const ERASED: &str = "(erased)";

impl Log {
    /// Deletes some rows of an account, and, after the last, its name; how many, and whether
    /// there may be more.
    pub(in crate::store) fn erase(
        &mut self,
        transaction: &Transaction<'_>,
        account: &str,
    ) -> rusqlite::Result<(u64, bool)> {
        let hash = self.accounts.of(account);
        let sql = "SELECT chunk FROM audit_chunk AS c WHERE EXISTS \
                   (SELECT 1 FROM audit AS a INDEXED BY audit_by_account \
                   WHERE a.chunk = c.chunk AND a.account = ?) ORDER BY chunk LIMIT 1";
        let chunk = transaction.query_row(sql, [hash], |row| row.get(0));
        let Some(chunk) = chunk.optional()? else {
            transaction.execute("DELETE FROM audit_account WHERE hash = ?", [hash])?;
            hide(transaction, account)?;
            return Ok((0, false));
        };
        let sql = "SELECT DISTINCT path FROM audit INDEXED BY audit_by_account \
                   WHERE chunk = ? AND account = ? AND path IS NOT NULL";
        let mut paths = transaction.prepare(sql)?;
        let paths = paths.query_map([chunk, hash], |row| row.get(0))?;
        let paths: HashSet<i64> = paths.collect::<Result<_, _>>()?;
        let sql = "DELETE FROM audit WHERE id IN (SELECT id FROM audit \
                   INDEXED BY audit_by_account WHERE chunk = ? AND account = ? LIMIT ?)";
        let rows = transaction.execute(sql, [chunk, hash, STEP])?;
        self.forget_paths(transaction, chunk, paths)?;
        Ok((rows as u64, true))
    }

    /// Deletes those of these paths of a chunk that no row has any more: they may have the
    /// account in them.
    fn forget_paths(
        &mut self,
        transaction: &Transaction<'_>,
        chunk: i64,
        mut paths: HashSet<i64>,
    ) -> rusqlite::Result<()> {
        let sql = "SELECT path FROM audit INDEXED BY audit_by_action \
                   WHERE chunk = ? AND path IS NOT NULL";
        let mut used = transaction.prepare(sql)?;
        let mut rows = used.query([chunk])?;
        while let Some(row) = rows.next()? {
            if paths.is_empty() {
                return Ok(());
            }
            paths.remove(&row.get(0)?);
        }
        let sql = "DELETE FROM audit_path WHERE chunk = ? AND path = ?";
        let mut delete = transaction.prepare(sql)?;
        for path in &paths {
            delete.execute([chunk, *path])?;
        }
        if chunk == self.chunk() {
            self.paths.retain(|_, number| !paths.contains(number));
        }
        Ok(())
    }
}

/// Takes texts that name an account out of what was written by hand.
fn hide(connection: &Connection, account: &str) -> rusqlite::Result<()> {
    let account = normalised_account(None, account);
    let shown = |text: Option<String>| match text {
        Some(text) if names(&text, &account) => Some(ERASED.to_owned()),
        other => other,
    };
    let sql = "SELECT id, subject, detail, reason FROM audit INDEXED BY audit_by_hand \
               WHERE kind = 6";
    let mut all = connection.prepare(sql)?;
    let mut rows = all.query([])?;
    let mut changed = Vec::new();
    while let Some(row) = rows.next()? {
        let before: [Option<String>; 3] = [row.get(1)?, row.get(2)?, row.get(3)?];
        let after = before.clone().map(shown);
        if before != after {
            changed.push((row.get::<_, i64>(0)?, after));
        }
    }
    let sql = "UPDATE audit SET subject = ?, detail = ?, reason = ? WHERE id = ?";
    let mut update = connection.prepare(sql)?;
    for (id, [subject, detail, reason]) in changed {
        update.execute(params![subject, detail, reason, id])?;
    }
    Ok(())
}

/// Whether a text has an account in it, as a word of its own.
fn names(text: &str, account: &str) -> bool {
    let text = normalised_account(None, text);
    let is_apart = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric());
    !account.is_empty()
        && text.match_indices(account).any(|(at, found)| {
            is_apart(text[..at].chars().next_back())
                && is_apart(text[at + found.len()..].chars().next())
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::audit::Kind;

    #[test]
    fn accounts_are_found_as_words() {
        for text in [
            "ann called",
            "locked out (Ann)",
            "for ANN",
            "a, ann; b",
            "ann",
        ] {
            assert!(names(text, "ann"), "{text}");
        }
        for text in ["", "hannover", "anna called", "nan"] {
            assert!(!names(text, "ann"), "{text}");
        }
        assert!(names("mail to Jürgen@example.com.", "jürgen@example.com"));
        assert!(!names("anything", ""));
    }

    /// The tables say so in numbers.
    #[test]
    fn what_is_done_by_hand_has_its_number() {
        assert_eq!(Kind::Hand as i64, 6);
    }
}

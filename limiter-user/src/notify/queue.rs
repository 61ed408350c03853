//! What waits to be told, and who was told what: pure, time is an argument, in milliseconds
//! since the Unix epoch.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::Happening;

/// Letters that may wait in each channel; more are dropped and counted. One whose server is
/// down keeps the other's room.
pub const MOST_WAITING: usize = 500;

/// The wait after the first failure; it doubles with each that follows.
const FIRST_WAIT_MS: u64 = 10_000;
/// The longest wait.
const LONGEST_WAIT_MS: u64 = HOUR_MS;
/// For how long it is tried.
const GIVEN_UP_MS: u64 = DAY_MS;

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;

/// Bytes of an error that are kept.
const ERROR_BYTES: usize = 300;

/// By which way something is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Channel {
    /// `notify.smtp`
    Mail,
    /// `notify.webhook`
    Webhook,
}

impl Channel {
    /// All.
    pub const ALL: [Self; 2] = [Self::Mail, Self::Webhook];

    /// Its word, as in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mail => "mail",
            Self::Webhook => "webhook",
        }
    }
}

/// Something on its way to one receiver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letter {
    /// The same in each attempt, so that a receiver knows what it has.
    pub id: String,
    /// By which way.
    pub channel: Channel,
    /// The address, of mail.
    pub to: Option<String>,
    /// What happened.
    pub happening: Happening,
    /// Since when it waits.
    pub born_ms: u64,
    /// When it is tried next.
    pub due_ms: u64,
    /// How often it failed.
    pub failures: u32,
}

/// What came of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It has arrived.
    Sent,
    /// It never will.
    Refused(String),
    /// It may later.
    Later(String),
}

/// What a channel did since the daemon was started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Letters that arrived.
    pub sent: u64,
    /// Letters that were given up, or refused by their server.
    pub failed: u64,
    /// Attempts after which another follows.
    pub retried: u64,
    /// The last error, since a letter arrived last.
    pub last_error: Option<String>,
}

/// Why something is not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kept {
    /// The account, or another one of its owner, was told of within a day.
    Account,
    /// `notify.per_hour` is reached.
    Rate,
    /// Too much waits already.
    Full,
}

impl Kept {
    /// All.
    pub const ALL: [Self; 3] = [Self::Account, Self::Rate, Self::Full];

    /// Its word, as in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Account => "account",
            Self::Rate => "rate",
            Self::Full => "full",
        }
    }
}

/// What outlives the daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// What waits, the oldest first.
    pub letters: Vec<Letter>,
    /// When an account or an owner was told of, by its hash; for a day. `per_hour` bounds it.
    pub accounts: BTreeMap<u64, u64>,
    /// When something was told, within the last hour.
    pub told_ms: VecDeque<u64>,
}

/// The queue. See the [module](self).
#[derive(Debug, Default)]
pub struct Queue {
    stored: Stored,
    tallies: [Tally; 2],
    kept: [u64; 3],
}

impl Queue {
    /// One that goes on with what was stored, as far as it may be so much.
    #[must_use]
    pub fn new(mut stored: Stored) -> Self {
        let mut room = [MOST_WAITING; Channel::ALL.len()];
        stored.letters.retain(|letter| {
            let left = &mut room[letter.channel as usize];
            let has_room = *left > 0;
            *left = left.saturating_sub(1);
            has_room
        });
        Self {
            stored,
            ..Self::default()
        }
    }

    /// What is to outlive the daemon.
    #[must_use]
    pub const fn stored(&self) -> &Stored {
        &self.stored
    }

    /// What a channel did.
    #[must_use]
    pub const fn tally(&self, channel: Channel) -> &Tally {
        &self.tallies[channel as usize]
    }

    /// How often something was not told for this reason.
    #[must_use]
    pub const fn kept(&self, why: Kept) -> u64 {
        self.kept[why as usize]
    }

    /// How many letters wait in a channel.
    #[must_use]
    pub fn waiting(&self, channel: Channel) -> usize {
        let letters = self.stored.letters.iter();
        letters.filter(|it| it.channel == channel).count()
    }

    /// By which of these ways something may be told now, and notes that it was: once in a day
    /// for each of `whose` (an account, its owner; by their hashes), and `per_hour` times an
    /// hour in all. Where there is no way, nothing is noted.
    ///
    /// # Errors
    /// It may not be told by any of them.
    pub fn admit(
        &mut self,
        ways: &[Channel],
        whose: &[u64],
        per_hour: u32,
        now_ms: u64,
    ) -> Result<Vec<Channel>, Kept> {
        if ways.is_empty() {
            return Ok(Vec::new());
        }
        self.stored.forget(now_ms);
        let accounts = &self.stored.accounts;
        let has_room = |way: &Channel| self.waiting(*way) < MOST_WAITING;
        let open: Vec<Channel> = ways.iter().copied().filter(has_room).collect();
        let why = if whose.iter().any(|one| accounts.contains_key(one)) {
            Some(Kept::Account)
        } else if self.stored.told_ms.len() >= per_hour as usize {
            Some(Kept::Rate)
        } else if open.is_empty() {
            Some(Kept::Full)
        } else {
            None
        };
        if let Some(why) = why {
            self.kept[why as usize] += 1;
            return Err(why);
        }
        self.kept[Kept::Full as usize] += u64::from(open.len() < ways.len());
        self.stored.told_ms.push_back(now_ms);
        let told = whose.iter().map(|one| (*one, now_ms));
        self.stored.accounts.extend(told);
        Ok(open)
    }

    /// Forgets who was told what so long ago that it no longer matters. Whether there was any.
    pub fn forget(&mut self, now_ms: u64) -> bool {
        let held = |stored: &Stored| stored.accounts.len() + stored.told_ms.len();
        let before = held(&self.stored);
        self.stored.forget(now_ms);
        held(&self.stored) != before
    }

    /// Takes a letter; it is due at once.
    pub fn put(&mut self, letter: Letter) {
        self.stored.letters.push(letter);
    }

    /// The letter of a channel that is due and waits longest.
    #[must_use]
    pub fn due(&self, channel: Channel, now_ms: u64) -> Option<&Letter> {
        let letters = self.stored.letters.iter();
        let due = letters.filter(|it| it.channel == channel && it.due_ms <= now_ms);
        due.min_by_key(|it| it.due_ms)
    }

    /// When the next letter of a channel is due.
    #[must_use]
    pub fn next_ms(&self, channel: Channel) -> Option<u64> {
        let letters = self.stored.letters.iter();
        let letters = letters.filter(|it| it.channel == channel);
        letters.map(|it| it.due_ms).min()
    }

    /// Notes what came of an attempt. `dice` is from 0 up to 1. Tells why a letter is given
    /// up, if it is.
    pub fn tried(
        &mut self,
        id: &str,
        channel: Channel,
        outcome: Outcome,
        dice: f64,
        now_ms: u64,
    ) -> Option<String> {
        let mut letters = self.stored.letters.iter();
        let at = letters.position(|it| it.id == id && it.channel == channel)?;
        let tally = &mut self.tallies[channel as usize];
        let why = match outcome {
            Outcome::Sent => {
                tally.sent += 1;
                tally.last_error = None;
                self.stored.letters.remove(at);
                return None;
            }
            Outcome::Refused(why) => shortened(&why),
            Outcome::Later(why) => {
                let why = shortened(&why);
                let letter = self.stored.letters.get_mut(at)?;
                let wait_ms = wait_ms(letter.failures, dice);
                letter.failures += 1;
                letter.due_ms = now_ms + wait_ms;
                if letter.due_ms < letter.born_ms + GIVEN_UP_MS {
                    tally.retried += 1;
                    tally.last_error = Some(why);
                    return None;
                }
                format!("given up after {} attempts: {why}", letter.failures)
            }
        };
        tally.failed += 1;
        tally.last_error = Some(why.clone());
        self.stored.letters.remove(at);
        Some(why)
    }

    /// Gives up what has waited in a channel for as long as anything is tried; how many letters.
    pub fn give_up(&mut self, channel: Channel, now_ms: u64) -> usize {
        let is_over = |it: &Letter| now_ms >= it.born_ms.saturating_add(GIVEN_UP_MS);
        let given_up = self.drop_letters(|it| it.channel == channel && is_over(it));
        self.tallies[channel as usize].failed += given_up as u64;
        given_up
    }

    /// Drops what waits about an account, and that it was told of, by its hash; how many
    /// letters.
    pub fn erase(&mut self, account: &str, hash: u64) -> usize {
        self.stored.accounts.remove(&hash);
        self.drop_letters(|it| match &it.happening {
            Happening::Rung(reached) => reached.account.as_deref() == Some(account),
            _ => false,
        })
    }

    fn drop_letters(&mut self, is_meant: impl Fn(&Letter) -> bool) -> usize {
        let before = self.stored.letters.len();
        self.stored.letters.retain(|it| !is_meant(it));
        before - self.stored.letters.len()
    }
}

impl Stored {
    fn forget(&mut self, now_ms: u64) {
        // A clock that was set back must not silence anything for long.
        let is_within = |then_ms: u64, time_ms: u64| {
            then_ms <= now_ms + HOUR_MS && now_ms < then_ms.saturating_add(time_ms)
        };
        self.told_ms.retain(|then_ms| is_within(*then_ms, HOUR_MS));
        self.accounts
            .retain(|_, then_ms| is_within(*then_ms, DAY_MS));
    }
}

/// The wait after so many failures before: doubled with each, and a quarter more or less, so
/// that what failed together does not come together again.
fn wait_ms(failures: u32, dice: f64) -> u64 {
    let doubled = FIRST_WAIT_MS.saturating_mul(1 << failures.min(20));
    let wait_ms = doubled.min(LONGEST_WAIT_MS) as f64;
    (wait_ms * (0.75 + dice.clamp(0.0, 1.0) / 2.0)) as u64
}

/// An error that servers elsewhere have a hand in: of bounded length, without control
/// characters.
pub(crate) fn shortened(text: &str) -> String {
    text[..text.floor_char_boundary(ERROR_BYTES)].replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000_000;
    const BOTH: &[Channel] = &Channel::ALL;

    fn letter(id: &str, channel: Channel) -> Letter {
        Letter {
            id: id.to_owned(),
            channel,
            to: None,
            happening: Happening::FloodBegun { at_ms: NOW },
            born_ms: NOW,
            due_ms: NOW,
            failures: 0,
        }
    }

    fn later() -> Outcome {
        Outcome::Later("no\nanswer".to_owned())
    }

    #[test]
    fn an_account_is_told_of_once_a_day() {
        let mut queue = Queue::default();
        assert_eq!(queue.admit(BOTH, &[1], 60, NOW), Ok(BOTH.to_vec()));
        assert_eq!(
            queue.admit(BOTH, &[1], 60, NOW + DAY_MS - 1),
            Err(Kept::Account)
        );
        assert_eq!(queue.admit(BOTH, &[2], 60, NOW + 1), Ok(BOTH.to_vec()));
        assert_eq!(queue.admit(BOTH, &[], 60, NOW + 1), Ok(BOTH.to_vec()));
        assert_eq!(queue.admit(BOTH, &[], 60, NOW + 1), Ok(BOTH.to_vec()));
        assert_eq!(queue.admit(BOTH, &[1], 60, NOW + DAY_MS), Ok(BOTH.to_vec()));
        assert_eq!(queue.kept(Kept::Account), 1);
        // Also by the daemon after this one.
        let mut queue = Queue::new(queue.stored().clone());
        assert_eq!(
            queue.admit(BOTH, &[1], 60, NOW + DAY_MS + 5),
            Err(Kept::Account)
        );
        // A clock that was set back by a year.
        assert_eq!(
            queue.admit(BOTH, &[1], 60, NOW - 365 * DAY_MS),
            Ok(BOTH.to_vec())
        );
    }

    #[test]
    fn so_many_are_told_an_hour() {
        let mut queue = Queue::default();
        for account in 0..3 {
            assert_eq!(
                queue.admit(BOTH, &[account], 3, NOW + account),
                Ok(BOTH.to_vec())
            );
        }
        assert_eq!(
            queue.admit(BOTH, &[3], 3, NOW + HOUR_MS - 1),
            Err(Kept::Rate)
        );
        assert_eq!(queue.admit(BOTH, &[3], 3, NOW + HOUR_MS), Ok(BOTH.to_vec()));
        assert_eq!(queue.admit(BOTH, &[4], 3, NOW + HOUR_MS), Err(Kept::Rate));
        assert_eq!(queue.kept(Kept::Rate), 2);
    }

    #[test]
    fn an_owner_of_many_accounts_is_told_once_a_day() {
        let mut queue = Queue::default();
        let owner = 9;
        assert!(queue.admit(BOTH, &[1, owner], 60, NOW).is_ok());
        let again = queue.admit(BOTH, &[2, owner], 60, NOW + 1);
        assert_eq!(again, Err(Kept::Account));
        // Nor by a name of which nothing else is known.
        assert_eq!(queue.admit(BOTH, &[1], 60, NOW + 2), Err(Kept::Account));
        assert!(queue.admit(BOTH, &[2], 60, NOW + 3).is_ok());
    }

    #[test]
    fn what_has_no_way_uses_up_nothing() {
        let mut queue = Queue::default();
        assert_eq!(queue.admit(&[], &[1], 1, NOW), Ok(Vec::new()));
        assert_eq!(queue.stored(), &Stored::default());
        assert!(queue.admit(BOTH, &[1], 1, NOW).is_ok());
    }

    #[test]
    fn each_channel_has_room_of_its_own() {
        let mut queue = Queue::default();
        for number in 0..MOST_WAITING {
            queue.put(letter(&number.to_string(), Channel::Mail));
        }
        let open = queue.admit(BOTH, &[], 1_000, NOW);
        assert_eq!(open, Ok(vec![Channel::Webhook]));
        assert_eq!(queue.kept(Kept::Full), 1);
        let none = queue.admit(&[Channel::Mail], &[], 1_000, NOW);
        assert_eq!(none, Err(Kept::Full));
        assert_eq!(queue.stored().told_ms.len(), 1);
        queue.put(letter("hook", Channel::Webhook));
        let mut stored = queue.stored().clone();
        stored.letters.insert(0, letter("more", Channel::Mail));
        let next = Queue::new(stored);
        assert_eq!(next.waiting(Channel::Mail), MOST_WAITING);
        assert_eq!(next.waiting(Channel::Webhook), 1);
    }

    #[test]
    fn what_has_no_way_any_more_waits_for_a_day() {
        let mut queue = Queue::default();
        queue.put(letter("a", Channel::Mail));
        queue.put(letter("b", Channel::Webhook));
        assert_eq!(queue.give_up(Channel::Mail, NOW + GIVEN_UP_MS - 1), 0);
        assert_eq!(queue.give_up(Channel::Mail, NOW + GIVEN_UP_MS), 1);
        assert_eq!(queue.tally(Channel::Mail).failed, 1);
        assert_eq!(queue.waiting(Channel::Webhook), 1);
    }

    #[test]
    fn what_fails_is_tried_again_later_and_later() {
        let mut queue = Queue::default();
        queue.put(letter("a", Channel::Webhook));
        assert_eq!(queue.due(Channel::Mail, NOW), None);
        let mut now = NOW;
        let mut waits = Vec::new();
        let given_up = loop {
            assert_eq!(queue.due(Channel::Webhook, now).unwrap().id, "a");
            if let Some(why) = queue.tried("a", Channel::Webhook, later(), 0.5, now) {
                break why;
            }
            let next = queue.next_ms(Channel::Webhook).unwrap();
            assert_eq!(queue.due(Channel::Webhook, next - 1), None);
            waits.push((next - now) / 1_000);
            now = next;
        };
        assert_eq!(
            waits[..10],
            [10, 20, 40, 80, 160, 320, 640, 1_280, 2_560, 3_600]
        );
        assert!(now < NOW + GIVEN_UP_MS && now + 2 * HOUR_MS > NOW + GIVEN_UP_MS);
        assert!(given_up.ends_with("attempts: no answer"), "{given_up}");
        let tally = queue.tally(Channel::Webhook);
        assert_eq!((tally.failed, tally.sent), (1, 0));
        assert_eq!(tally.retried, waits.len() as u64);
        assert_eq!(tally.last_error.as_ref(), Some(&given_up));
        assert_eq!(queue.waiting(Channel::Webhook), 0);
    }

    #[test]
    fn what_arrives_or_is_refused_waits_no_longer() {
        let mut queue = Queue::default();
        queue.put(letter("a", Channel::Mail));
        queue.put(letter("b", Channel::Mail));
        queue.put(letter("a", Channel::Webhook));
        let no = Outcome::Refused("550 no such user".to_owned());
        let why = queue.tried("a", Channel::Mail, no, 0.0, NOW);
        assert_eq!(why.as_deref(), Some("550 no such user"));
        assert_eq!(queue.waiting(Channel::Webhook), 1);
        assert_eq!(
            queue.tried("b", Channel::Mail, Outcome::Sent, 0.0, NOW),
            None
        );
        assert_eq!(queue.tally(Channel::Mail).sent, 1);
        assert_eq!(queue.tally(Channel::Mail).last_error, None);
        // One that is gone already.
        assert_eq!(queue.tried("b", Channel::Mail, later(), 0.0, NOW), None);
    }

    #[test]
    fn waits_differ_by_a_quarter() {
        assert_eq!([0.0, 1.0].map(|dice| wait_ms(0, dice)), [7_500, 12_500]);
        assert_eq!(wait_ms(u32::MAX, 0.5), HOUR_MS);
    }
}

//! `[decide.challenge]`: what clients have to compute, and what that is good for.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::captcha::{Captcha, captcha};
use super::decide::Decide;
use super::limit::bounded_duration;
use super::lists::ListFiles;
use super::reader::{Section, Value};
use super::report::{Read, Report};
use super::rule::{KeyPart, Rule, Shared};
use super::services::{PATH_HELP, absolute};
use super::steps::{Action, Effect};
use super::units::Problem;
use super::{Course, diagnostic::quote};
use crate::challenge::MOST_KEYS;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);
const LONGEST_PATH: usize = 4_000;
/// How often keys may be rotated while one is still needed: of those that are kept, one signs and
/// one is known before it does.
const MOST_ROTATIONS: u32 = MOST_KEYS as u32 - 2;
/// Characters of a contact at most.
const LONGEST_CONTACT: usize = 200;
const CONTACT_HELP: &str = "allowed: a line of up to 200 characters; what begins with mailto:, tel: or \
                            https:// becomes a link";

/// `decide.challenge`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Challenge {
    /// For how long a puzzle can be solved, 10 s to 1 h.
    pub solve_within: Duration,
    /// For how long it is not posed again to who has solved it, 1 min to 7 d.
    pub clearance: Duration,
    /// How to reach a human, as the page says it.
    pub contact: Option<String>,
    /// The file with the keys that puzzles and clearances are signed with; absolute. `None`:
    /// one in the state directory.
    pub keys: Option<PathBuf>,
    /// How often another key is made, 1 h to 365 d; `None`: never, the file is somebody else's.
    pub rotate: Option<Duration>,
    /// Who poses CAPTCHAs; `None`: nobody, and a puzzle takes their place.
    pub captcha: Option<Captcha>,
}

impl Default for Challenge {
    /// What an empty section says.
    fn default() -> Self {
        Self {
            solve_within: 300 * SECOND,
            clearance: HOUR / 2,
            contact: None,
            keys: None,
            rotate: Some(DAY),
            captcha: None,
        }
    }
}

impl Decide {
    /// Whether a rule may pose a challenge: one of its own, or in the place of an account that
    /// nobody can tell from a body.
    #[must_use]
    pub fn may_challenge(&self, rule: &Rule) -> bool {
        let asks_bodies = self.accounts.reads_bodies() && rule.key.contains(&KeyPart::Account);
        rule.may_challenge() || asks_bodies
    }

    /// Whether any rule may.
    #[must_use]
    pub fn challenges(&self) -> bool {
        self.rules.iter().any(|rule| self.may_challenge(rule))
    }
}

impl Rule {
    /// What a tier or rung does, from 0.
    #[must_use]
    pub fn effect(&self, part: usize) -> Option<Effect> {
        self.course.step(part).map(|(effect, _)| effect)
    }

    /// Whether any of its tiers or rungs may pose a challenge.
    fn may_challenge(&self) -> bool {
        let poses = |effect: Effect| {
            let stands_in = effect.action == Action::Block && self.shared == Shared::Challenge;
            effect.action.is_challenge() || effect.then.is_some() || stands_in
        };
        let parts = match &self.course {
            Course::Tiers(tiers) => tiers.len(),
            Course::Ladder(ladder) => ladder.rungs.len(),
            Course::Boruta(_) => 0,
        };
        (0..parts).filter_map(|part| self.effect(part)).any(poses)
    }
}

pub(super) fn challenge(
    decide: &Section<'_>,
    files: &dyn ListFiles,
    report: &Report,
) -> Read<Challenge> {
    let usual = Challenge::default();
    let section = decide.section("challenge")?;
    let time = |least: Duration, most: Duration| {
        move |v: &Value<'_>| {
            let help = "allowed: a duration, such as 5m";
            v.text(help, |text| bounded_duration(text, least..=most))
        }
    };
    let within = time(10 * SECOND, HOUR);
    let solve_within = section.read_or("solve_within", usual.solve_within, within);
    let clearance = section.read_or("clearance", usual.clearance, time(60 * SECOND, 7 * DAY));
    let contact = section.read("contact", |v| v.text(CONTACT_HELP, contact));
    let keys = section.read("keys", |v| {
        v.text(PATH_HELP, |text| absolute(text, LONGEST_PATH))
    });
    let rotate = section.read_or("rotate", section.at(usual.rotate), |v| {
        let help = "allowed: a duration, such as 1d, or never";
        let every = v.text(help, |text| match text {
            "never" => Ok(None),
            text => bounded_duration(text, HOUR..=365 * DAY).map(Some),
        });
        Ok(v.at(every?))
    });
    let captcha = captcha(&section, files, report);
    let (solve_within, clearance, rotate) = (solve_within?, clearance?, rotate?);
    if let Some(every) = rotate.value
        && every * MOST_ROTATIONS < clearance.max(solve_within)
    {
        let message = format!("a clearance would outlive its key: {MOST_KEYS} are kept");
        let help =
            format!("allowed: `clearance` of up to {MOST_ROTATIONS} times `rotate`, or \"never\"");
        return Err(section.error_at(&rotate.place, Problem::new(message, help)));
    }
    Ok(Challenge {
        solve_within,
        clearance,
        contact: contact?,
        keys: keys?,
        rotate: rotate.value,
        captcha: captcha?,
    })
}

fn contact(text: &str) -> Result<String, Problem> {
    let length = text.chars().count();
    if (1..=LONGEST_CONTACT).contains(&length) && !text.chars().any(char::is_control) {
        return Ok(text.to_owned());
    }
    let message = format!("{} is no contact", quote(text));
    Err(Problem::new(message, CONTACT_HELP))
}

//! Rounds: contestants measured in turn, again and again, so that whatever the
//! machine does meanwhile happens to all of them.

use crate::interrupt;
use anyhow::{Context as _, Result};
use std::time::Duration;

/// Somebody who is measured once a round.
pub(crate) struct Contestant<'a> {
    name: String,
    measure: Measure<'a>,
}

/// One measurement: the figures of one round, in the order of the columns.
type Measure<'a> = Box<dyn FnMut() -> Result<Vec<f64>> + 'a>;

/// What was measured of one contestant: for each round its figures, or why
/// there are none.
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) rounds: Result<Vec<Vec<f64>>, String>,
}

/// The middle of the rounds, and how far apart they were.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Figure {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl<'a> Contestant<'a> {
    pub(crate) fn new(
        name: impl Into<String>,
        measure: impl FnMut() -> Result<Vec<f64>> + 'a,
    ) -> Self {
        Self {
            name: name.into(),
            measure: Box::new(measure),
        }
    }
}

/// Measures every contestant once a round; each round begins with another. A
/// contestant that fails is out, and its series says why.
///
/// # Errors
///
/// Only an interrupt.
pub(crate) fn interleave(
    mut contestants: Vec<Contestant<'_>>,
    rounds: usize,
) -> Result<Vec<Series>> {
    let count = contestants.len();
    let mut all: Vec<Series> = contestants
        .iter()
        .map(|contestant| Series {
            name: contestant.name.clone(),
            rounds: Ok(Vec::new()),
        })
        .collect();
    for round in 0..rounds {
        eprint!("\rround {} of {rounds} ", round + 1);
        for place in 0..count {
            interrupt::check()?;
            let turn = (place + round) % count;
            let series = &mut all[turn];
            if let Ok(measured) = &mut series.rounds {
                let figures = (contestants[turn].measure)();
                let figures = figures.with_context(|| format!("round {}", round + 1));
                match figures {
                    Ok(figures) => measured.push(figures),
                    Err(error) => series.rounds = Err(format!("{error:#}")),
                }
            }
        }
    }
    eprintln!();
    interrupt::check()?;
    Ok(all)
}

impl Series {
    /// One column over all rounds.
    pub(crate) fn column(&self, column: usize) -> Vec<f64> {
        let rounds = self.rounds.iter().flatten();
        rounds
            .filter_map(|figures| figures.get(column).copied())
            .collect()
    }

    pub(crate) fn figure(&self, column: usize) -> Option<Figure> {
        Figure::of(self.column(column))
    }

    /// How many times the other's figure this one's is, round by round.
    pub(crate) fn ratio(&self, column: usize, other: &Self) -> Option<Figure> {
        self.compared(column, other, |own, other| own / other)
    }

    fn compared(
        &self,
        column: usize,
        other: &Self,
        compare: impl Fn(f64, f64) -> f64,
    ) -> Option<Figure> {
        let (own, other) = (self.column(column), other.column(column));
        if own.len() != other.len() {
            return None;
        }
        let pairs = own.into_iter().zip(other);
        Figure::of(pairs.map(|(own, other)| compare(own, other)).collect())
    }

    /// How much more this one's figure is, round by round.
    pub(crate) fn added(&self, column: usize, other: &Self) -> Option<Figure> {
        self.compared(column, other, |own, other| own - other)
    }

    /// Why there are no figures.
    pub(crate) fn fault(&self) -> Option<String> {
        self.rounds.as_ref().err().cloned()
    }
}

impl Figure {
    /// Of an even number of samples the median is the mean of the two in the
    /// middle.
    pub(crate) fn of(mut samples: Vec<f64>) -> Option<Self> {
        samples.sort_by(f64::total_cmp);
        let count = samples.len();
        let (least, most) = (*samples.first()?, *samples.last()?);
        Some(Self {
            median: f64::midpoint(samples[(count - 1) / 2], samples[count / 2]),
            least,
            most,
        })
    }
}

/// What so many hundredths of the samples, which it sorts, did not exceed, in ms. There must be some.
pub(crate) fn percentile_ms(samples: &mut [Duration], share: usize) -> f64 {
    samples.sort_unstable();
    let place = (samples.len() * share).div_ceil(100).max(1) - 1;
    samples[place].as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_sample() {
        let mut samples: Vec<Duration> = (1..=200).rev().map(Duration::from_millis).collect();
        let shares = [50, 99, 100].map(|share| percentile_ms(&mut samples, share));
        assert_eq!(shares, [100.0, 198.0, 200.0]);
        assert_eq!(percentile_ms(&mut samples[..1], 99), 1.0);
    }

    #[test]
    fn the_median_is_in_the_middle() {
        let of = |samples: &[f64]| Figure::of(samples.to_vec()).map(|figure| figure.median);
        assert_eq!(of(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(of(&[4.0, 1.0]), Some(2.5));
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn who_fails_is_out_and_the_others_go_on() {
        let mut turns = 0;
        let failing = Contestant::new("failing", || anyhow::bail!("no"));
        let going = Contestant::new("going", || {
            turns += 1;
            Ok(vec![f64::from(turns)])
        });
        let all = interleave(vec![failing, going], 3).unwrap();
        assert_eq!(all[0].fault().as_deref(), Some("round 1: no"));
        assert_eq!(all[1].column(0), [1.0, 2.0, 3.0]);
        assert_eq!(all[0].ratio(0, &all[1]), None);
    }
}

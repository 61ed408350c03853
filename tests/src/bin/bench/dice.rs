//! Numbers that look random, and are the same ones every time.

/// xorshift64.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) const fn new() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }

    /// 64 bits, never all zero.
    pub(crate) const fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// One of so many, the first most often and the n-th 1/n times as often: Zipf's law with
    /// exponent 1, by which the logarithm is even.
    pub(crate) fn zipf(&mut self, count: u32) -> u32 {
        let share = (self.roll() >> 11) as f64 / (1_u64 << 53) as f64;
        let number = f64::from(count).powf(share) as u32;
        number.min(count) - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_drawn_most_often_and_none_beyond_the_last() {
        let mut dice = Dice::new();
        let mut drawn = [0_u32; 1_000];
        for _ in 0..100_000 {
            drawn[dice.zipf(1_000) as usize] += 1;
        }
        // ln 2 / ln 1000 of all.
        assert!((9_500..10_600).contains(&drawn[0]), "{}", drawn[0]);
        assert!(drawn[0] > drawn[1] && drawn[1] > drawn[9] && drawn[9] > drawn[99]);
    }
}

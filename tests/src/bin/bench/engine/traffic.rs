//! Events in an order that is the same in each run: who comes next.

use std::net::{IpAddr, Ipv4Addr};

/// SplitMix64, by Sebastiano Vigna (public domain): numbers that look random.
#[derive(Clone, Debug)]
pub(super) struct Numbers(u64);

impl Numbers {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// Below `most`, each number equally often.
    pub(super) const fn below(&mut self, most: u32) -> u32 {
        (((self.next() >> 32) * most as u64) >> 32) as u32
    }
}

/// How often each client comes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Spread {
    /// All alike.
    Uniform,
    /// The n-th a 1/n as often as the first.
    Zipf,
}

/// Who comes: so many of so many clients, each a number.
pub(super) fn clients(spread: Spread, clients: u32, count: usize, seed: u64) -> Vec<u32> {
    let mut numbers = Numbers::new(seed);
    match spread {
        Spread::Uniform => (0..count).map(|_| numbers.below(clients)).collect(),
        Spread::Zipf => {
            let mut sum = 0.0;
            let sums: Vec<f64> = (1..=clients)
                .map(|rank| {
                    sum += 1.0 / f64::from(rank);
                    sum
                })
                .collect();
            let draw = |_| {
                let at = (numbers.next() >> 11) as f64 / (1_u64 << 53) as f64 * sum;
                let rank = sums.partition_point(|held| *held <= at) as u32;
                // Neighbours in rank are none in the table.
                rank.min(clients - 1).wrapping_mul(0x9e37_79b1) % clients
            };
            (0..count).map(draw).collect()
        }
    }
}

/// The address of a client.
pub(super) fn address(client: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(0x0a00_0000 | client))
}

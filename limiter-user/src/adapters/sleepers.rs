//! Requests that are made to wait: how many at once, and for how long at most.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::engine::Decision;
use crate::policy::Action;

/// For how long one is made to wait at most.
pub(super) const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// One source holds a place of so many at most, so that it does not hold all.
const SHARE: usize = 16;

/// Bits of an IPv6 address that are a site's own to give away (RFC 6177).
const SITE_BITS: u32 = 64;

/// The places of those who wait.
#[derive(Debug)]
pub(super) struct Sleepers {
    most: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_source: HashMap<IpAddr, usize>,
}

/// The place of one that waits; dropping it frees it.
#[derive(Debug)]
pub(super) struct Place {
    sleepers: Arc<Sleepers>,
    source: IpAddr,
}

impl Sleepers {
    /// For so many at once.
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            taken: Mutex::default(),
        })
    }

    /// How long a throttled request waits, and its place meanwhile. `None`: there are
    /// none, or its source has its share; then it is rejected.
    pub(super) fn admit(
        self: &Arc<Self>,
        decision: &mut Decision,
        source: IpAddr,
    ) -> Option<(Duration, Place)> {
        let delay = Duration::from_millis(decision.delay_ms).min(LONGEST_SLEEP);
        let place = self.take(source);
        if place.is_none() {
            decision.action = Some(Action::Reject);
            decision.retry_after_s = Some(decision.delay_ms.div_ceil(1_000).max(1));
            decision.delay_ms = 0;
        }
        place.map(|place| (delay, place))
    }

    fn take(self: &Arc<Self>, source: IpAddr) -> Option<Place> {
        let source = site(source);
        let mut taken = self.taken();
        let of_source = taken.by_source.get(&source).copied().unwrap_or_default();
        if taken.all >= self.most || of_source >= self.most.div_ceil(SHARE) {
            return None;
        }
        taken.all += 1;
        taken.by_source.insert(source, of_source + 1);
        Some(Place {
            sleepers: Arc::clone(self),
            source,
        })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.sleepers.taken();
        taken.all -= 1;
        let of_source = taken.by_source.get_mut(&self.source);
        if of_source.is_some_and(|places| {
            *places -= 1;
            *places == 0
        }) {
            taken.by_source.remove(&self.source);
        }
    }
}

/// Whose places are counted together.
fn site(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(address) => {
            let mask = u128::MAX << (128 - SITE_BITS);
            Ipv6Addr::from_bits(address.to_bits() & mask).into()
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_source_holds_all_places() {
        let sleepers = Sleepers::new(64);
        let take = |source: &str| sleepers.take(source.parse().unwrap());
        let mut places: Vec<Place> = (0..4).map(|_| take("192.0.2.1").unwrap()).collect();
        assert!(take("192.0.2.1").is_none() && take("::ffff:192.0.2.1").is_none());
        // A network of IPv6 is one source.
        places.extend((0..4).map(|n| take(&format!("2001:db8::{n}")).unwrap()));
        assert!(take("2001:db8::ffff").is_none());
        for n in 2..16 {
            places.extend((0..4).map(|_| take(&format!("192.0.2.{n}")).unwrap()));
        }
        assert_eq!(places.len(), 64);
        assert!(take("192.0.2.77").is_none());
        places.clear();
        assert!(sleepers.taken().by_source.is_empty());
        assert!(take("192.0.2.1").is_some());
    }

    #[test]
    fn who_finds_no_place_is_rejected() {
        let sleepers = Sleepers::new(1);
        let throttled = || Decision {
            action: Some(Action::Throttle),
            delay_ms: 70_000,
            ..Decision::default()
        };
        let source = IpAddr::from([192, 0, 2, 1]);
        let mut decision = throttled();
        let (delay, _place) = sleepers.admit(&mut decision, source).unwrap();
        assert_eq!((delay, decision), (LONGEST_SLEEP, throttled()));
        let mut decision = throttled();
        assert!(sleepers.admit(&mut decision, source).is_none());
        assert!(decision.refuses());
        assert_eq!(decision.retry_after_s, Some(70));
    }
}

//! The bounded table.

use proptest::prelude::*;

use super::*;

/// Keys spread as hashes are.
fn key(number: u64) -> Key {
    Key::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
}

fn insert(table: &mut Table, number: u64, maker: u64) -> Option<Place> {
    let worth = |state: &[u64]| match state[0] {
        0 => Worth::Nothing,
        1 => Worth::Little,
        _ => Worth::Much,
    };
    table.insert(key(number), maker, number, worth)
}

#[test]
fn the_least_recently_active_key_goes() {
    let mut table = Table::new(3, 1, None);
    for number in 0..3 {
        let place = insert(&mut table, number, 0).unwrap();
        table.state_mut(place)[0] = 1;
    }
    table.touch(table.find(key(0)).unwrap(), 9);
    insert(&mut table, 3, 0).unwrap();
    assert_eq!(table.find(key(1)), None);
    assert!(table.find(key(0)).is_some());
    let expected = Evictions {
        evicted: 1,
        under_count: 1,
        untracked: 0,
    };
    assert_eq!(table.evictions, expected);
}

#[test]
fn a_pinned_key_never_goes() {
    let mut table = Table::new(2, 1, None);
    for number in 0..2 {
        let place = insert(&mut table, number, 0).unwrap();
        table.state_mut(place)[0] = 1;
        table.pin(place);
    }
    assert_eq!(insert(&mut table, 2, 0), None);
    assert_eq!(table.evictions.untracked, 1);
    table.unpin(table.find(key(0)).unwrap());
    assert!(insert(&mut table, 2, 0).is_some());
    assert!(table.find(key(1)).is_some());
}

#[test]
fn what_no_longer_counts_makes_room_unnoticed() {
    let mut table = Table::new(2, 1, None);
    for number in 0..50 {
        insert(&mut table, number, 0).unwrap();
    }
    assert_eq!(table.evictions, Evictions::default());
}

#[test]
fn a_source_with_a_full_quota_gives_up_its_own_keys() {
    let mut table = Table::new(100, 1, Some(10));
    let victim = insert(&mut table, 1_000, 7).unwrap();
    table.state_mut(victim)[0] = 4;
    for number in 0..500 {
        let place = insert(&mut table, number, 8).unwrap();
        table.state_mut(place)[0] = 1;
    }
    assert_eq!(table.held(), 11);
    assert_eq!(table.state(table.find(key(1_000)).unwrap()), [4]);
}

#[test]
fn a_source_cannot_push_out_by_junk_what_its_keys_hold() {
    let mut table = Table::new(100, 1, Some(20));
    for number in 0..10 {
        let place = insert(&mut table, number, 8).unwrap();
        table.state_mut(place)[0] = 4;
    }
    for number in 10..500 {
        if let Some(place) = insert(&mut table, number, 8) {
            table.state_mut(place)[0] = 1;
        }
    }
    assert!((0..10).all(|number| table.find(key(number)).is_some()));
    assert_eq!(table.held(), 20);
}

#[test]
fn pinned_keys_count_in_the_quota() {
    let mut table = Table::new(100, 1, Some(10));
    for number in 0..50 {
        if let Some(place) = insert(&mut table, number, 8) {
            table.state_mut(place)[0] = 4;
            table.pin(place);
        }
    }
    assert_eq!((table.held(), table.pinned()), (10, 10));
    assert!(insert(&mut table, 50, 9).is_some());
}

#[test]
fn memory_is_flat_at_the_cap() {
    let mut table = Table::new(1_000, 3, Some(1_000));
    let mut fill = |range: std::ops::Range<u64>| {
        for number in range {
            let place = insert(&mut table, number, number).unwrap();
            table.state_mut(place)[0] = 1;
        }
        (table.held(), table.bytes())
    };
    let full = fill(0..1_000);
    assert_eq!(fill(1_000..50_000).0, 1_000);
    let later = fill(50_000..60_000);
    // The free list holds a place or two.
    assert!(later.1 - full.1 <= 64, "{full:?} {later:?}");
}

proptest! {
       #[test]
       fn like_a_list_in_the_order_of_activity(
           capacity in 1_u32..9,
           quota in proptest::option::of(1_u32..4),
           steps in proptest::collection::vec((0_u64..14, 0_u64..3, 0_u8..10), 1..200),
       ) {
           let mut table = Table::new(capacity, 1, quota);
           // Key, maker, pinned; the least recently active first.
           let mut model: Vec<(u64, u64, bool)> = Vec::new();
           for (number, maker, what) in steps {
               let at = model.iter().position(|it| it.0 == number);
               let place = table.find(key(number));
               prop_assert_eq!(at.is_some(), place.is_some());
               match (at.zip(place), what) {
                   (Some((at, place)), 0) => {
                       table.remove(place);
                       model.remove(at);
                   }
                   (Some((at, place)), 1) => {
                       table.pin(place);
                       model[at].2 = true;
                   }
                   (Some((at, place)), 2) if model[at].2 => {
                       table.unpin(place);
                       let (number, maker, _) = model.remove(at);
                       model.push((number, maker, false));
                   }
                   (Some((at, place)), _) => {
                       table.touch(place, 0);
                       let held = model.remove(at);
                       model.push(held);
                   }
                   (None, _) => {
                       let inserted = insert(&mut table, number, maker);
                       let own = model.iter().filter(|it| it.1 == maker).count();
                       if quota.is_some_and(|quota| own >= quota as usize) {
                           let own = model.iter().position(|it| it.1 == maker && !it.2);
                           prop_assert_eq!(inserted.is_some(), own.is_some());
                           let Some(own) = own else { continue };
                           model.remove(own);
                       }
                       if model.len() >= capacity as usize && let Some(at) = model.iter().position(|it| !it.2) {
model.remove(at);
}
                       prop_assert_eq!(inserted.is_some(), model.len() < capacity as usize);
                       if let Some(place) = inserted {
                           table.state_mut(place)[0] = 1;
                           model.push((number, maker, false));
                       }
                   }
               }
               prop_assert_eq!(table.held(), model.len());
               prop_assert_eq!(table.pinned(), model.iter().filter(|it| it.2).count());
               prop_assert_eq!(table.places().count(), model.len());
           }
       }
   }

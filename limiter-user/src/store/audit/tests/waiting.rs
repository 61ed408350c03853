//! What waits to be written.

use std::net::IpAddr;

use super::*;
use crate::store::audit::queue::{BATCH, Queue};
use crate::store::audit::row::Row;

fn push(queue: &mut Queue, changes: impl IntoIterator<Item = Change>) {
    let now = Instant::now();
    for change in changes {
        queue.push(Row::of_change(change), now);
    }
}

/// Within a second, as long as nothing in which they differ is lost.
#[test]
fn rows_that_are_alike_are_one() {
    let mut queue = Queue::default();
    let counted = |at, account| change(at, "r", account, What::Counted);
    push(
        &mut queue,
        [
            counted(0, "a"),
            counted(0, "a"),
            counted(0, "b"),
            counted(1, "a"),
        ],
    );
    push(&mut queue, [from(counted(1, "a"), "192.0.2.7", "/other")]);
    let counts =
        |queue: &mut Queue| -> Vec<u64> { queue.take().rows.iter().map(|row| row.count).collect() };
    assert_eq!(counts(&mut queue), [2, 1, 1, 1]);
    assert_eq!(counts(&mut queue), [0_u64; 0]);
}

/// In a flood one row stands for many paths, and names none; what finds no room is
/// counted.
#[test]
fn what_waits_is_bounded() {
    let mut queue = Queue::default();
    let network = |at: u64| {
        from(
            change(0, "r", "", REFUSED),
            &IpAddr::from((at as u32).to_be_bytes()).to_string(),
            "/",
        )
    };
    push(&mut queue, (1..=20_000).map(network));
    let paths = |number: u64| {
        from(
            change(0, "r", "", REFUSED),
            "10.0.0.1",
            &format!("/{number}"),
        )
    };
    push(&mut queue, (0..1_000).map(paths));
    assert_eq!(queue.health().waiting, 20_001);
    push(&mut queue, (30_000..80_000).map(network));
    let health = queue.health();
    assert_eq!((health.waiting, health.dropped), (65_536, 70_001 - 65_536));
    let mut rows = Vec::new();
    let first = queue.take();
    assert_eq!(
        (first.rows.len(), first.gap.unwrap().lost),
        (BATCH, health.dropped)
    );
    rows.extend(first.rows);
    while queue.health().waiting > 0 {
        rows.extend(queue.take().rows);
    }
    assert_eq!(rows.len(), 65_536);
    assert_eq!((rows[20_000].count, &rows[20_000].path), (1_000, &None));
}

/// Trouble that lasts loses the newest, and says how many.
#[test]
fn what_cannot_be_written_is_kept_while_there_is_room() {
    let mut queue = Queue::default();
    let now = Instant::now();
    push(
        &mut queue,
        (0..60_000).map(|at| change(at, "r", "", What::Counted)),
    );
    let batch = queue.take();
    push(
        &mut queue,
        (60_000..70_000).map(|at| change(at, "r", "", What::Counted)),
    );
    assert!(queue.give_back(batch, "full".to_owned(), now));
    let health = queue.health();
    assert_eq!(health.trouble.as_deref(), Some("full"));
    assert_eq!((health.waiting, health.dropped), (65_536, 4_464));
    assert!(queue.due(now).unwrap() > now + Duration::from_secs(4));
    let batch = queue.take();
    assert!(
        !queue.give_back(batch, "full".to_owned(), now),
        "said twice"
    );
    assert!(queue.written(Batch::default()), "the end of it is not news");
}

/// Whatever a flood does, it is known who changed what.
#[test]
fn changes_by_hand_have_room_in_a_flood() {
    let mut queue = Queue::default();
    push(
        &mut queue,
        (0..70_000).map(|at| change(at, "r", "", What::Counted)),
    );
    let by_hand = || Row::of_hand(ByHand::new(time(0), 0, "block add"));
    let now = Instant::now();
    for _ in 0..5_000 {
        queue.push(by_hand(), now);
    }
    let health = queue.health();
    assert_eq!(health.waiting, 65_536 + 4_096);
    assert_eq!(health.dropped, 70_000 - 65_536 + 5_000 - 4_096);
    // Nor are they what a failure loses.
    let batch = queue.take();
    push(
        &mut queue,
        (80_000..90_000).map(|at| change(at, "r", "", What::Counted)),
    );
    queue.push(by_hand(), now);
    queue.give_back(batch, "full".to_owned(), now);
    assert_eq!(queue.by_hand().len(), 4_096);
}

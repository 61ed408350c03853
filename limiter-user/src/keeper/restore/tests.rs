//! What comes back after a restart of the daemon or of the machine, over a fake
//! data plane and fake records.

use std::path::PathBuf;
use std::time::SystemTime;

use super::*;
use crate::control::api::{BlockRow, Entry, ListRow};
use crate::keeper::By;
use crate::keeper::fake::{POLICY, Shared, Told, begun, policy};
use crate::keeper::records::{Change, Everything, StoredEntry, Written};
use crate::keeper::timestamp;

const BY: By = By::user(1000, Some(7));
const DAY: Duration = Duration::from_hours(24);

/// On the monotonic clock of the daemon before, when it wrote for the last
/// time.
const WRITTEN: Duration = Duration::from_secs(50_000);
/// The data plane before.
const BEFORE: u64 = 7;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A block that had so many seconds left.
fn block(network: &str, limit: Option<&str>, left: u64) -> StoredBlock {
    StoredBlock {
        network: network.parse().unwrap(),
        limit: limit.map(str::to_owned),
        owner: Owner::Operator,
        until: WRITTEN + secs(left),
        dry: false,
        since: Some(SystemTime::UNIX_EPOCH + secs(1_700_000_000)),
        uid: Some(4),
        reason: Some("scanner".to_owned()),
    }
}

fn entry(list: ListKind, network: &str, left: Option<u64>) -> StoredEntry {
    StoredEntry {
        list,
        network: network.parse().unwrap(),
        until: left.map(|left| WRITTEN + secs(left)),
        since: SystemTime::UNIX_EPOCH + secs(1_700_000_000),
        uid: 5,
        reason: Some("ours".to_owned()),
    }
}

/// Stored by a machine that has started again, when its clock showed `wall`.
fn rebooted(wall: SystemTime, blocks: Vec<StoredBlock>, entries: Vec<StoredEntry>) -> Saved {
    Saved {
        written: Written {
            is_this_boot: false,
            mono: WRITTEN,
            wall,
        },
        all: Everything {
            lineage: BEFORE,
            blocks_refused: 2,
            blocks,
            entries,
        },
    }
}

fn now() -> Now {
    Now {
        mono: secs(30),
        wall: SystemTime::UNIX_EPOCH + 20_000 * DAY,
        ..Now::read()
    }
}

/// A keeper that begins with `saved`, everything restored.
fn restored(saved: Saved, change: impl FnOnce(&mut Told), now: Now) -> (Keeper, Shared) {
    let mut told = Told {
        saved: Some(saved),
        lineage: BEFORE + 1,
        room: 1_000,
        ..Told::default()
    };
    change(&mut told);
    let config = PathBuf::from("limiter.toml");
    let (mut keeper, told) = begun(config, policy(POLICY), told, now);
    keeper.restore(now);
    (keeper, told)
}

fn rows(keeper: &mut Keeper, now: Now) -> Vec<BlockRow> {
    keeper.blocks(now).unwrap().blocks
}

fn at_runtime(keeper: &Keeper, kind: ListKind, now: Now) -> Vec<ListRow> {
    let rows = keeper.list_rows(kind, now).entries.into_iter();
    rows.filter(|row| row.origin == "runtime").collect()
}

/// What was handed over to be stored last.
fn stored(told: &Shared) -> Everything {
    match told.lock().unwrap().changes.last() {
        Some(Change::Everything(all)) => all.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_reboot_brings_all_back_with_the_time_that_is_left() {
    let now = now();
    let kernels = StoredBlock {
        owner: Owner::Kernel,
        since: None,
        uid: None,
        reason: None,
        ..block("203.0.113.9/32", Some("https"), 3_700)
    };
    let blocks = vec![
        block("192.0.2.0/24", Some("https"), 700),
        block("192.0.2.1/32", None, 100),
        kernels,
    ];
    let entries = vec![
        entry(ListKind::Allow, "198.51.100.7/32", None),
        entry(ListKind::Deny, "2001:db8::/32", Some(160)),
        entry(ListKind::Deny, "2001:db9::/32", Some(99)),
    ];
    let saved = rebooted(now.wall - secs(100), blocks, entries);
    let (mut keeper, told) = restored(saved, |_| {}, now);

    let rows = rows(&mut keeper, now);
    let brief = |row: &BlockRow| {
        let network = row.network.to_string();
        (network, row.owner.clone(), row.remaining_seconds)
    };
    let brief: Vec<_> = rows.iter().map(brief).collect();
    let expected = [
        ("203.0.113.9/32", "kernel", 3_600),
        ("192.0.2.0/24", "operator", 600),
    ];
    let expected =
        expected.map(|(network, owner, left)| (network.to_owned(), owner.to_owned(), left));
    assert_eq!(brief, expected);
    assert_eq!(
        (rows[1].uid, rows[1].reason.as_deref()),
        (Some(4), Some("scanner"))
    );
    assert_eq!(rows[1].since.as_deref(), Some("2023-11-14T22:13:20Z"));
    assert_eq!(
        (rows[0].uid, &rows[0].limit),
        (None, &Some("https".to_owned()))
    );

    // They were in the first policy that was put in force.
    let lists = told.lock().unwrap().lists.clone();
    let [allow, deny] = ["198.51.100.7/32", "2001:db8::/32"].map(|it| it.parse().unwrap());
    assert!(
        lists.0.contains(&allow) && lists.1.contains(&deny),
        "{lists:?}"
    );
    assert_eq!(lists.1.len(), 2);
    let allowed = at_runtime(&keeper, ListKind::Allow, now);
    assert_eq!(
        (allowed[0].remaining_seconds, allowed[0].uid),
        (None, Some(5))
    );
    let denied = at_runtime(&keeper, ListKind::Deny, now);
    assert_eq!((denied.len(), denied[0].remaining_seconds), (1, Some(60)));
    assert_eq!(denied[0].reason.as_deref(), Some("ours"));

    let all = stored(&told);
    assert_eq!((all.lineage, all.blocks_refused), (BEFORE + 1, 2));
    assert_eq!((all.blocks.len(), all.entries.len()), (2, 2));
    let of = |network: &str| {
        all.blocks
            .iter()
            .find(|it| it.network.to_string() == network)
    };
    assert_eq!(of("192.0.2.0/24").unwrap().until, now.mono + secs(600));
    assert_eq!(keeper.status(now).unwrap().blocks_refused, 2);
    // The deny ends in its time.
    keeper.tick(now.after(secs(59)));
    assert_eq!(told.lock().unwrap().lists.1.len(), 2);
    keeper.tick(now.after(secs(60)));
    assert_eq!(told.lock().unwrap().lists.1.len(), 1);
}

/// Whatever the clock shows when the machine is up again.
#[test]
fn no_clock_lengthens_a_block_or_an_entry() {
    let now = now();
    let shows = |wall: SystemTime| {
        let blocks = vec![block("192.0.2.1/32", None, 600)];
        let entries = vec![entry(ListKind::Deny, "192.0.2.2/32", Some(600))];
        let saved = rebooted(wall, blocks, entries);
        let (mut keeper, _told) = restored(saved, |_| {}, now);
        let blocks = rows(&mut keeper, now).into_iter();
        let denied = at_runtime(&keeper, ListKind::Deny, now).into_iter();
        let left = blocks.map(|row| Some(row.remaining_seconds));
        let left: Vec<_> = left
            .chain(denied.map(|row| row.remaining_seconds))
            .collect();
        left
    };
    assert_eq!(shows(now.wall - secs(60)), [Some(540); 2]);
    for ahead in [secs(0), secs(60), DAY, 10_000 * DAY] {
        assert_eq!(shows(now.wall + ahead), [Some(600); 2], "{ahead:?}");
    }
    assert_eq!(shows(now.wall - DAY), []);
}

/// The daemon alone was restarted.
#[test]
fn within_a_boot_the_wall_clock_does_not_matter() {
    for wall in [now().wall, now().wall - DAY, now().wall + DAY] {
        let now = Now {
            mono: WRITTEN + secs(10),
            ..now()
        };
        let mut saved = rebooted(wall, vec![block("192.0.2.1/32", None, 600)], Vec::new());
        saved.written.is_this_boot = true;
        let (mut keeper, _told) = restored(saved, |_| {}, now);
        assert_eq!(rows(&mut keeper, now)[0].remaining_seconds, 590);
    }
}

/// A data plane that lived on knows better which blocks there are; the records
/// know why.
#[test]
fn the_same_data_plane_is_believed() {
    let now = now();
    let held = |network: &str| BlockState {
        network: network.parse().unwrap(),
        owner: Owner::Operator,
        limit: None,
        remaining: secs(77),
        dry: false,
    };
    let blocks = vec![
        block("192.0.2.1/32", None, 600),
        block("192.0.2.2/32", None, 600),
    ];
    let saved = rebooted(now.wall, blocks, Vec::new());
    let live = |told: &mut Told| {
        told.lineage = BEFORE;
        told.blocks = vec![held("192.0.2.1/32"), held("192.0.2.3/32")];
    };
    let (mut keeper, told) = restored(saved, live, now);
    let rows = rows(&mut keeper, now);
    assert_eq!(rows.len(), 2);
    let known = &rows[0];
    assert_eq!((known.remaining_seconds, known.uid), (77, Some(4)));
    assert_eq!(known.reason.as_deref(), Some("scanner"));
    let unknown = &rows[1];
    assert_eq!((unknown.uid, &unknown.reason), (None, &None));
    assert_eq!(unknown.since, Some(timestamp(now.wall)));
    let all = stored(&told);
    let networks: Vec<String> = all.blocks.iter().map(|it| it.network.to_string()).collect();
    assert_eq!(networks, ["192.0.2.1/32", "192.0.2.3/32"]);
}

#[test]
fn what_cannot_be_in_force_is_left_out() {
    let now = now();
    let dry = |network| StoredBlock {
        dry: true,
        ..block(network, None, 600)
    };
    let all = || {
        vec![
            block("192.0.2.1/32", Some("gone"), 600),
            block("10.1.2.3/32", None, 600),
            dry("192.0.2.2/32"),
            block("192.0.2.3/32", None, 500),
            block("192.0.2.4/32", None, 900),
            block("192.0.2.5/32", None, 700),
        ]
    };
    let networks = |keeper: &mut Keeper| -> Vec<String> {
        let rows = rows(keeper, now).into_iter();
        rows.map(|row| row.network.to_string()).collect()
    };
    let saved = rebooted(now.wall, all(), Vec::new());
    let (mut keeper, told) = restored(saved, |told| told.room = 2, now);
    assert_eq!(networks(&mut keeper), ["192.0.2.4/32", "192.0.2.5/32"]);
    assert_eq!(stored(&told).blocks.len(), 2);

    // A data plane that fails is no reason not to go on.
    let saved = rebooted(now.wall, all(), Vec::new());
    let (mut keeper, _told) = restored(saved, |told| told.failure = Some("no memory"), now);
    assert_eq!(networks(&mut keeper), [""; 0]);
}

/// In a dry run its blocks go on, and the others are no trial by it.
#[test]
fn a_dry_run_goes_on() {
    let now = now();
    let dry = StoredBlock {
        dry: true,
        ..block("192.0.2.2/32", None, 600)
    };
    let saved = rebooted(
        now.wall,
        vec![dry, block("192.0.2.3/32", None, 500)],
        Vec::new(),
    );
    let told = Told {
        saved: Some(saved),
        room: 9,
        ..Told::default()
    };
    let text = POLICY.replace("[edge]", "[edge]\nenforce = false");
    let (mut keeper, _told) = begun(PathBuf::new(), policy(&text), told, now);
    keeper.restore(now);
    let dry: Vec<bool> = rows(&mut keeper, now).iter().map(|row| row.dry).collect();
    assert_eq!(dry, [true, false]);
}

/// The lists of the file may have grown meanwhile.
#[test]
fn entries_that_do_not_fit_do_not_prevent_the_start() {
    let now = now();
    let entries = vec![
        entry(ListKind::Deny, "192.0.2.1/32", None),
        entry(ListKind::Allow, "192.0.2.2/32", None),
        entry(ListKind::Allow, "10.0.0.0/8", None),
        entry(ListKind::Allow, "192.0.2.3/32", None),
    ];
    let told = Told {
        saved: Some(rebooted(now.wall, Vec::new(), entries)),
        ..Told::default()
    };
    let mut policy = policy(POLICY);
    policy.edge.tables.lists = 4;
    let (mut keeper, told) = begun(PathBuf::new(), policy, told, now);
    let lists = told.lock().unwrap().lists.clone();
    // That of the file is there anyway.
    assert_eq!((lists.0.len(), lists.1.len()), (4, 1), "{lists:?}");
    keeper.restore(now);
    assert_eq!(stored(&told).entries.len(), 3);
}

/// A directory that was not there yet at the start.
#[test]
fn what_can_be_read_later_is_restored_then() {
    let now = now();
    let told = Told {
        room: 9,
        lineage: BEFORE + 1,
        trouble: Some("no such directory"),
        ..Told::default()
    };
    let (mut keeper, told) = begun(PathBuf::new(), policy(POLICY), told, now);
    keeper.restore(now);
    let mut newer = Entry {
        network: "192.0.2.1".to_owned(),
        ..Entry::default()
    };
    newer.reason = Some("newer".to_owned());
    keeper
        .add_blocks(std::slice::from_ref(&newer), BY, now)
        .unwrap();
    let deny = ListKind::Deny;
    keeper.add_to_list(deny, &[newer], BY, now).unwrap();

    let blocks = vec![
        block("192.0.2.1/32", None, 9_999),
        block("192.0.2.2/32", None, 600),
    ];
    let entries = vec![
        entry(deny, "192.0.2.1/32", Some(9)),
        entry(deny, "192.0.2.2/32", Some(600)),
    ];
    told.lock().unwrap().saved = Some(rebooted(now.wall, blocks, entries));
    told.lock().unwrap().trouble = None;
    keeper.tick(now);
    let rows = rows(&mut keeper, now);
    let brief: Vec<_> = rows
        .iter()
        .map(|it| (it.remaining_seconds, it.reason.as_deref()))
        .collect();
    assert_eq!(brief, [(900, Some("newer")), (600, Some("scanner"))]);
    let denied = at_runtime(&keeper, deny, now);
    let brief: Vec<_> = denied
        .iter()
        .map(|it| (it.remaining_seconds, it.reason.as_deref()))
        .collect();
    assert_eq!(brief, [(None, Some("newer")), (Some(600), Some("ours"))]);
    assert_eq!(told.lock().unwrap().lists.1.len(), 3);
    let all = stored(&told);
    assert_eq!((all.blocks.len(), all.entries.len()), (2, 2));
}

/// While nothing can be stored, everything is handed over now and then; when it
/// can, only what changes.
#[test]
fn trouble_is_met_with_everything() {
    let now = now();
    let (mut keeper, told) = restored(rebooted(now.wall, Vec::new(), Vec::new()), |_| {}, now);
    let handed = |keeper: &mut Keeper, seconds: u64| {
        told.lock().unwrap().changes.clear();
        keeper.tick(now.after(secs(seconds)));
        told.lock().unwrap().changes.clone()
    };
    assert_eq!(handed(&mut keeper, 1).len(), 0);
    told.lock().unwrap().trouble = Some("the disk is full");
    assert!(matches!(
        handed(&mut keeper, 5)[..],
        [Change::Everything(_)]
    ));
    assert_eq!(handed(&mut keeper, 9).len(), 0);
    assert!(matches!(
        handed(&mut keeper, 10)[..],
        [Change::Everything(_)]
    ));
    let state = keeper.status(now).unwrap().state;
    assert_eq!(
        (state.writable, state.error.as_deref()),
        (false, Some("the disk is full"))
    );
    told.lock().unwrap().trouble = None;
    assert!(matches!(handed(&mut keeper, 60)[..], [Change::Nothing]));
    assert_eq!(handed(&mut keeper, 119).len(), 0);

    // The kernel's own, once a minute, if they are others.
    let kernels = |left| BlockState {
        network: "203.0.113.9/32".parse().unwrap(),
        owner: Owner::Kernel,
        limit: Some("https".to_owned()),
        remaining: secs(left),
        dry: false,
    };
    told.lock().unwrap().blocks = vec![kernels(300)];
    let snapshot = handed(&mut keeper, 120);
    let [Change::KernelBlocks(blocks), Change::Nothing] = &snapshot[..] else {
        panic!("{snapshot:?}");
    };
    assert_eq!(blocks[0].until, now.mono + secs(420));
    assert_eq!((&blocks[0].since, blocks[0].uid), (&None, None));
    told.lock().unwrap().blocks = vec![kernels(240)];
    assert!(matches!(handed(&mut keeper, 180)[..], [Change::Nothing]));
    told.lock().unwrap().blocks = vec![kernels(300)];
    assert_eq!(handed(&mut keeper, 240).len(), 2);
    // One that ended by itself is no news; one that was taken back is.
    told.lock().unwrap().blocks.clear();
    assert!(matches!(handed(&mut keeper, 600)[..], [Change::Nothing]));
}

/// Each change is handed over, as it is then.
#[test]
fn changes_are_handed_over() {
    let now = now();
    let (mut keeper, told) = restored(rebooted(now.wall, Vec::new(), Vec::new()), |_| {}, now);
    let last = || told.lock().unwrap().changes.last().cloned().unwrap();
    let one = Entry {
        network: "192.0.2.1".to_owned(),
        lasting: Some("10m".to_owned()),
        reason: Some("scanner".to_owned()),
        limit: None,
    };
    keeper
        .add_blocks(std::slice::from_ref(&one), BY, now)
        .unwrap();
    let Change::Blocks(blocks) = last() else {
        panic!("{:?}", last());
    };
    let expected = StoredBlock {
        until: now.mono + secs(600),
        since: Some(now.wall),
        uid: Some(1000),
        ..block("192.0.2.1/32", None, 0)
    };
    assert_eq!(blocks, [expected]);
    keeper.delete_block("192.0.2.1", None, BY, now).unwrap();
    assert!(matches!(last(), Change::Unblocked(_, None)));

    keeper
        .add_to_list(ListKind::Deny, std::slice::from_ref(&one), BY, now)
        .unwrap();
    let Change::Entries(entries) = last() else {
        panic!("{:?}", last());
    };
    assert_eq!(entries[0].until, Some(now.mono + secs(600)));
    // Also where the data plane has nothing to do.
    let longer = Entry {
        lasting: Some("20m".to_owned()),
        ..one.clone()
    };
    keeper
        .add_to_list(ListKind::Deny, &[longer], BY, now)
        .unwrap();
    let Change::Entries(entries) = last() else {
        panic!("{:?}", last());
    };
    assert_eq!(entries[0].until, Some(now.mono + secs(1_200)));
    keeper.tick(now.after(secs(1_200)));
    let changes = told.lock().unwrap().changes.clone();
    let unlisted = |change: &Change| matches!(change, Change::Unlisted(ListKind::Deny, _));
    assert_eq!(changes.iter().filter(|it| unlisted(it)).count(), 1);

    // What was refused is not; that it was is.
    told.lock().unwrap().failure = Some("the table is full");
    keeper
        .add_blocks(std::slice::from_ref(&one), BY, now)
        .unwrap_err();
    assert!(matches!(last(), Change::BlocksRefused(3)));
    let handed = told.lock().unwrap().changes.len();
    keeper
        .add_to_list(ListKind::Allow, &[one], BY, now)
        .unwrap_err();
    assert_eq!(told.lock().unwrap().changes.len(), handed);
}

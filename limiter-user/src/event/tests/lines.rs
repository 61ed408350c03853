use proptest::prelude::*;

use crate::event::lines::{Line, Lines, MAX_LINE};

/// What comes out of pieces: a line, or the length of one that is too long.
fn split<'a>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
    mut lines: Lines,
) -> Vec<Result<Vec<u8>, u64>> {
    let mut found = Vec::new();
    let mut each = |line: Line<'_>| {
        found.push(match line {
            Line::Whole(bytes) => Ok(bytes.to_vec()),
            Line::TooLong { length, .. } => Err(length),
        });
    };
    for piece in pieces {
        lines.push(piece, &mut each);
        assert!(lines.under_way() <= MAX_LINE as u64 || lines.under_way() > 0);
    }
    lines.finish(each);
    found
}

fn whole(bytes: &[u8]) -> Vec<Result<Vec<u8>, u64>> {
    split([bytes], Lines::default())
}

fn ok(lines: &[&str]) -> Vec<Result<Vec<u8>, u64>> {
    lines
        .iter()
        .map(|line| Ok(line.as_bytes().to_vec()))
        .collect()
}

#[test]
fn lines_end_in_lf_or_crlf_and_the_last_in_nothing() {
    assert_eq!(
        whole(b"a\r\nb\n\nc\rd\r\r\ne"),
        ok(&["a", "b", "", "c\rd\r", "e"])
    );
    assert_eq!(whole(b""), ok(&[]));
    assert_eq!(whole(b"\n"), ok(&[""]));
}

#[test]
fn the_last_line_waits_until_it_is_whole() {
    let mut lines = Lines::default();
    lines.push(b"a\nb", |line| assert_eq!(line, Line::Whole(b"a")));
    assert_eq!(lines.under_way(), 1);
    let mut found = Vec::new();
    lines.push(b"c\n", |line| found.push(line == Line::Whole(b"bc")));
    assert_eq!((found, lines.under_way()), (vec![true], 0));
}

#[test]
fn a_hole_in_front_of_a_line_is_no_part_of_it() {
    assert_eq!(whole(b"\0\0\0a\0b\n\0\0"), ok(&["a\0b"]));
    let hole = vec![0; MAX_LINE];
    assert_eq!(
        split([&*hole, &*hole, b"a\n"], Lines::default()),
        ok(&["a"])
    );
}

#[test]
fn a_line_that_is_too_long_is_counted_and_not_held() {
    let most = vec![b'a'; MAX_LINE];
    assert_eq!(whole(&most), vec![Ok(most.clone())]);
    let mut lines = Lines::default();
    let mut found = Vec::new();
    let piece = [b'x'; 10_000];
    for _ in 0..1_000 {
        lines.push(&piece, |_| panic!("no end yet"));
    }
    assert_eq!(lines.under_way(), 10_000_000);
    lines.push(b"\nb\n", |line| match line {
        Line::TooLong { length, head } => {
            assert!(head.as_str().starts_with("xxxx") && head.as_str().len() < 200);
            found.push(length);
        }
        Line::Whole(bytes) => assert_eq!(bytes, b"b"),
    });
    assert_eq!(found, [10_000_000]);
}

#[test]
fn who_comes_in_the_middle_of_a_line_leaves_it_out() {
    let found = split([&b"half"[..], b" a line\nb\n"], Lines::headless());
    assert_eq!(found, ok(&["b"]));
    assert_eq!(split([&b"never ends"[..]], Lines::headless()), ok(&[]));
}

proptest! {
    #[test]
    fn however_it_is_cut_the_lines_are_the_same(
        parts in prop::collection::vec(
            prop_oneof![
                4 => Just(b"\n".to_vec()),
                1 => Just(b"\r".to_vec()),
                2 => Just(vec![0; 3]),
                4 => prop::collection::vec(any::<u8>(), 0..9),
                1 => (MAX_LINE - 2..MAX_LINE + 3).prop_map(|length| vec![b'x'; length]),
            ],
            0..24,
        ),
        cuts in prop::collection::vec(0.0..1.0, 0..12),
    ) {
        let bytes = parts.concat();
        let mut cuts: Vec<_> = cuts.iter().map(|cut: &f64| (cut * bytes.len() as f64) as usize).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]);
        prop_assert_eq!(split(pieces, Lines::default()), whole(&bytes));
        // And the same as byte by byte, where that is not too much.
        if bytes.len() < 1_000 {
            prop_assert_eq!(split(bytes.chunks(1), Lines::default()), whole(&bytes));
        }
    }
}

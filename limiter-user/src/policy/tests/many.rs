//! Many errors at once, and how one is shown.

use super::{CLEAN, Diagnostic, LIMIT, brief, parsed};

#[test]
fn all_errors_are_told_in_the_order_of_the_file() {
    let text = "[edge]\nmode = 1\n[metrics]\nlisten = ''\n[[edge.limit]]\nname = 'a'\nports = [0]\npackets = '0/s'\nbytes = 1\n[edge.safety]\nx = 1\n";
    let fault = parsed(text).unwrap_err();
    let errors = fault.diagnostics.iter().map(brief);
    let lines: Vec<String> = errors
        .map(|e| e.split(':').next().unwrap().to_owned())
        .collect();
    assert_eq!(lines, ["2", "4", "7", "8", "9", "11"], "{fault}");
}

/// What contradicts something else is told beside what is wrong in itself.
#[test]
fn errors_hide_no_others() {
    let text = "[edge]\nmode = 1\nallow = ['x', '10.0.0.0/8']\ndeny = ['10.1.0.0/16', 'y']\n\
        tables.lists = 1\n[[edge.limit]]\nname = 'a'\nbytes = 1\n[[edge.limit]]\nname = 'a'\n\
        protocol = 'icmp'\nports = [53]\nconnections = '1/s'\n";
    let fault = parsed(text).unwrap_err();
    let place = |d: &Diagnostic| d.position.map(|p| (p.line, p.column));
    let found: Vec<_> = fault.diagnostics.iter().filter_map(place).collect();
    let expected = [
        (1, 1),
        (2, 8),
        (3, 10),
        (4, 9),
        (4, 24),
        (8, 9),
        (10, 8),
        (12, 9),
        (13, 15),
    ];
    assert_eq!(found, expected, "{fault}");
}

#[test]
fn syntax_errors_stop_the_rest() {
    let text = "[edge]\nmode = native\nipv4_prefix = 99\nmode = 'auto'\n";
    let fault = parsed(text).unwrap_err();
    assert_eq!(fault.diagnostics.len(), 2, "{fault}");
    assert!(brief(&fault.diagnostics[0]).starts_with("2:8: invalid float"));
    assert!(brief(&fault.diagnostics[1]).starts_with("4:1: duplicate key"));
}

#[test]
fn an_error_is_rendered_with_its_line() {
    let text = format!("{LIMIT}packets.rate = '1/s'\npackets.burts = 10\n");
    assert_eq!(
        parsed(&text).unwrap_err().to_string(),
        "limiter.toml:8:9: unknown key `burts`\n    8 | packets.burts = 10\n      |         \
         ^^^^^ did you mean `burst`? allowed here: rate, burst"
    );
}

#[test]
fn the_rest_of_very_many_errors_is_counted() {
    let text = format!("{CLEAN}allow = [{}]\n", "1,".repeat(1_500));
    let fault = parsed(&text).unwrap_err();
    assert_eq!(fault.diagnostics.len(), 1_001);
    let last = fault.diagnostics.last().unwrap();
    assert_eq!(last.message, "and 500 more, not shown");
}

#[test]
fn columns_count_characters() {
    let text = format!("metrics = {{ 'äöü' = 1, x = 2 }}\n{CLEAN}");
    let fault = parsed(&text).unwrap_err();
    let columns = fault.diagnostics.iter().filter_map(|d| d.position);
    let columns: Vec<usize> = columns.map(|position| position.column).collect();
    assert_eq!(columns, [13, 24]);
}

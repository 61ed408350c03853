//! Large lists at run time, under traffic: whoever they do not concern meets
//! what he met before.

use crate::site::{Site, limit, rows, udp};
use limiter_tests::process::Scratch;
use std::fmt::Write as _;

const ALWAYS: &str = "packets = { rate = \"100000000/s\", burst = 100000000 }";
const LISTS: &str = "allow = [\"198.51.100.0/24\"]\ndeny = [\"203.0.113.0/24\"]\n";

/// Who sends, and what he meets throughout.
const WATCHED: [(&str, &str); 7] = [
    ("192.0.2.1", "one pass limit -"),
    // Between two that are denied or blocked.
    ("11.0.0.2", "one pass limit -"),
    // A part of a source of which another part is.
    ("2001:db8:1::1", "one pass limit -"),
    // Allowed and denied by the policy, and by what comes around and inside.
    ("198.51.100.1", "- pass allow -"),
    ("203.0.113.1", "- drop deny -"),
    ("2001:db8:3::1", "- drop deny -"),
    ("192.0.2.2", "- drop block -"),
];

/// So many addresses with gaps between, and these networks.
fn list(scratch: &Scratch, name: &str, first: u8, networks: &[&str]) -> String {
    let mut text = networks.join("\n") + "\n";
    for number in 0..20_000_u32 {
        let address = std::net::Ipv4Addr::from_bits((u32::from(first) << 24) + 4 * number);
        writeln!(text, "{address}").unwrap();
    }
    let path = scratch.path(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn large_lists_concern_nobody_else() {
    let scratch = Scratch::new().unwrap();
    let around_deny = ["203.0.0.0/16", "203.0.113.1", "2001:db8:1::2/128"];
    let deny = list(&scratch, "deny", 11, &around_deny);
    let block = list(&scratch, "block", 12, &["203.0.112.0/20", "192.0.2.3"]);
    let allow = list(&scratch, "allow", 13, &["198.51.0.0/16", "198.51.100.1"]);
    for mode in ["native", "generic"] {
        let site = Site::new(
            mode,
            &(LISTS.to_owned() + &limit("one", "udp", 1_000, ALWAYS)),
        );
        let ask = |words: &[&str]| site.daemon.ask(words).unwrap();
        ask(&["block", "add", "192.0.2.2"]);
        ask(&["deny", "add", "2001:db8:3::/64"]);
        let frames = WATCHED.map(|(source, _)| site.frame(source, udp(1_000)).build());
        let rounds = site.send_while(&frames, || {
            ask(&["deny", "import", &deny]);
            ask(&["block", "import", &block]);
            ask(&["allow", "import", &allow]);
            // Again: expiries are renewed, and nothing else changes.
            ask(&["deny", "import", &deny, "--for", "1h"]);
            ask(&["block", "import", &block, "--for", "1h"]);
            for entry in around_deny {
                ask(&["deny", "del", entry]);
            }
            ask(&["deny", "add", "2001:db8:3::1/128"]);
            ask(&["deny", "del", "2001:db8:3::/64"]);
            ask(&["allow", "del", "198.51.100.1"]);
            ask(&["allow", "del", "198.51.0.0/16"]);
            ask(&["block", "del", "203.0.112.0/20"]);
        });
        let met = |row: &str| WATCHED.iter().filter(|(_, meets)| *meets == row).count() as u64;
        let expected = [
            "one pass limit -",
            "- pass allow -",
            "- drop deny -",
            "- drop block -",
        ];
        let expected = expected.map(|row| (row, rounds * met(row)));
        assert_eq!(site.packets(), rows(&expected), "{mode}");
        // And whom they do concern meets them.
        for source in ["11.0.0.4", "12.0.0.4", "13.0.0.4"] {
            site.sender()
                .send(&site.frame(source, udp(1_000)).build())
                .unwrap();
        }
        let after =
            expected.map(|(row, packets)| (row, packets + u64::from(row != "one pass limit -")));
        assert_eq!(site.packets(), rows(&after), "{mode}");
    }
}

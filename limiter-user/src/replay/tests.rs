//! Captures made here, byte by byte, and what is said of them.

use super::*;
use crate::policy::{NoFiles, parse as parse_policy};

const START_S: u32 = 1_700_000_000;

const POLICY: &str = r#"
[edge]
interfaces = ["eth0"]
deny = ["198.51.100.0/24"]
[[edge.limit]]
name = "web"
protocol = "tcp"
ports = [443]
packets = { rate = "10/s", burst = 2 }
"#;

fn policy(text: &str) -> Policy {
    let loaded = parse_policy("limiter.toml", text, &NoFiles);
    loaded.unwrap_or_else(|fault| panic!("{fault}")).policy
}

/// A TCP segment without payload from 203.0.113.`host` to port 443.
fn tcp(host: u8) -> Vec<u8> {
    ipv4([203, 0, 113, host])
}

fn ipv4(source: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend([0x08, 0x00]);
    frame.extend([0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0]);
    frame.extend(source);
    frame.extend([192, 0, 2, 1]);
    frame.extend([0x30, 0x39, 0x01, 0xbb, 0, 0, 0, 0, 0, 0, 0, 0]);
    frame.extend([0x50, 0x10, 0, 0, 0, 0, 0, 0]);
    frame
}

fn ipv6() -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, 6, 64]);
    frame.extend([0x20, 1, 0x0d, 0xb8, 0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 9]);
    frame.extend([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    frame.extend(&tcp(1)[34..]);
    frame
}

fn arp() -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend([0x08, 0x06]);
    frame.resize(42, 0);
    frame
}

/// A packet: microseconds after the start, what was kept, its length.
type Packet = (u32, Vec<u8>, u32);

fn whole(after_us: u32, frame: Vec<u8>) -> Packet {
    let length = frame.len() as u32;
    (after_us, frame, length)
}

fn pcap_of(link_type: u32, packets: &[Packet]) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, link_type] {
        file.extend(u32::to_le_bytes(word));
    }
    for (after_us, bytes, length) in packets {
        let (s, us) = (after_us / 1_000_000, after_us % 1_000_000);
        for word in [START_S + s, us, bytes.len() as u32, *length] {
            file.extend(word.to_le_bytes());
        }
        file.extend(bytes);
    }
    file
}

fn pcap(packets: &[Packet]) -> Vec<u8> {
    pcap_of(1, packets)
}

/// A block, big-endian.
fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let padded = body.len().next_multiple_of(4);
    let length = (padded as u32 + 12).to_be_bytes();
    let mut block = kind.to_be_bytes().to_vec();
    block.extend(length);
    block.extend(body);
    block.resize(8 + padded, 0);
    block.extend(length);
    block
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

fn section() -> Vec<u8> {
    block(
        0x0a0d_0d0a,
        &words(&[0x1a2b_3c4d, 0x0001_0000, u32::MAX, u32::MAX]),
    )
}

/// An interface with these options, of Ethernet where `link_type` is 1.
fn interface(link_type: u32, snap_length: u32, options: &[u32]) -> Vec<u8> {
    let mut body = words(&[link_type << 16, snap_length]);
    body.extend(words(options));
    block(1, &body)
}

fn enhanced(interface: u32, units: u64, bytes: &[u8], length: u32) -> Vec<u8> {
    let (hi, lo) = ((units >> 32) as u32, units as u32);
    let mut body = words(&[interface, hi, lo, bytes.len() as u32, length]);
    body.extend(bytes);
    block(6, &body)
}

fn explained(text: &str, file: &[u8], json: bool) -> (String, Result<Summary, ReplayError>) {
    let mut out = Vec::new();
    let result = explain_pcap(&policy(text), file, &mut out, json);
    (String::from_utf8(out).unwrap(), result)
}

fn json(file: &[u8]) -> Vec<String> {
    let (out, result) = explained(POLICY, file, true);
    result.unwrap();
    out.lines().map(str::to_owned).collect()
}

/// What `explain` says is wrong with `file`.
fn fault(file: &[u8]) -> String {
    explained(POLICY, file, true).1.unwrap_err().to_string()
}

fn mixed() -> Vec<u8> {
    pcap(&[
        whole(0, arp()),
        whole(1, tcp(7)),
        whole(2_000, tcp(7)),
        whole(2_500, tcp(7)),
        whole(3_000, ipv4([198, 51, 100, 3])),
        whole(3_500, ipv6()),
        whole(4_000, tcp(7)[..20].to_vec()),
        // Half a token later than a token takes.
        whole(150_000, tcp(7)),
    ])
}

#[test]
fn text() {
    let (out, result) = explained(POLICY, &mixed(), false);
    assert_eq!(
        out,
        "\
AT                    SOURCE                    VERDICT     REASON             LIMIT
1700000000.000000000  -                         pass        not_ip             -
1700000000.000001000  203.0.113.7               pass        limit              web
1700000000.002000000  203.0.113.7               pass        limit              web
1700000000.002500000  203.0.113.7               drop        limit/packets      web
1700000000.003000000  198.51.100.3              drop        deny               -
1700000000.003500000  2001:db8:1:2::/64         pass        limit              web
1700000000.004000000  -                         pass        unparsed           -
1700000000.150000000  203.0.113.7               pass        limit              web
"
    );
    let mut sums = Vec::new();
    result.unwrap().write(&mut sums).unwrap();
    assert_eq!(
        String::from_utf8(sums).unwrap(),
        "\
8 packets
           4 packets             236 bytes  pass        limit              web
           1 packets              54 bytes  drop        limit/packets      web
           1 packets              42 bytes  pass        not_ip             -
           1 packets              20 bytes  pass        unparsed           -
           1 packets              54 bytes  drop        deny               -
"
    );
}

#[test]
fn json_has_a_line_a_packet_and_leaves_out_what_there_is_not() {
    assert_eq!(
        json(&mixed()),
        [
            r#"{"at":1700000000.000000000,"verdict":"pass","reason":"not_ip"}"#,
            r#"{"at":1700000000.000001000,"source":"203.0.113.7","verdict":"pass","reason":"limit","limit":"web"}"#,
            r#"{"at":1700000000.002000000,"source":"203.0.113.7","verdict":"pass","reason":"limit","limit":"web"}"#,
            r#"{"at":1700000000.002500000,"source":"203.0.113.7","verdict":"drop","reason":"limit","budget":"packets","limit":"web"}"#,
            r#"{"at":1700000000.003000000,"source":"198.51.100.3","verdict":"drop","reason":"deny"}"#,
            r#"{"at":1700000000.003500000,"source":"2001:db8:1:2::/64","verdict":"pass","reason":"limit","limit":"web"}"#,
            r#"{"at":1700000000.004000000,"verdict":"pass","reason":"unparsed"}"#,
            r#"{"at":1700000000.150000000,"source":"203.0.113.7","verdict":"pass","reason":"limit","limit":"web"}"#,
        ]
    );
}

#[test]
fn dry_run_and_kernel_blocks() {
    let text = POLICY.replace("[[edge.limit]]", "enforce = false\n[[edge.limit]]")
        + "exceed = { block = \"60s\" }\n";
    let packets: Vec<_> = (0..4).map(|i| whole(i * 1_000_000, tcp(1))).collect();
    let mut burst = vec![whole(0, tcp(1)), whole(0, tcp(1))];
    burst.extend(packets);
    let (out, _) = explained(&text, &pcap(&burst), true);
    let reasons: Vec<_> = out
        .lines()
        .map(|line| line.split_once("\"verdict\":").unwrap().1)
        .collect();
    assert_eq!(
        reasons,
        [
            r#""pass","reason":"limit","limit":"web"}"#,
            r#""pass","reason":"limit","limit":"web"}"#,
            r#""would_drop","reason":"limit","budget":"packets","limit":"web"}"#,
            r#""would_drop","reason":"block"}"#,
            r#""would_drop","reason":"block"}"#,
            r#""would_drop","reason":"block"}"#,
        ]
    );
}

#[test]
fn a_frame_cut_by_the_capture_is_judged_by_its_own_length() {
    let text = r#"
[edge]
interfaces = ["eth0"]
[[edge.limit]]
name = "web"
protocol = "tcp"
ports = [443]
bytes = { rate = "2kB/s", burst = "2kB" }
"#;
    let mut frame = tcp(1);
    frame[16..18].copy_from_slice(&1_486_u16.to_be_bytes());
    let kept = (0, frame, 1_500);
    let (out, result) = explained(text, &pcap(&[kept.clone(), kept]), true);
    let summary = result.unwrap();
    assert!(out.contains(r#""verdict":"drop","reason":"limit","budget":"bytes""#));
    assert_eq!((summary.packets, summary.cut), (2, 2));
    assert_eq!(summary.rows[0].bytes, 1_500);
    let mut sums = Vec::new();
    summary.write(&mut sums).unwrap();
    let sums = String::from_utf8(sums).unwrap();
    assert!(
        sums.contains("2 packets cut short by the capture"),
        "{sums}"
    );
}

#[test]
fn every_form_of_pcap_says_the_same() {
    let little = json(&mixed());
    let mut big = Vec::new();
    for word in [0xa1b2_3c4d_u32, 0x0002_0004, 0, 0, 65_535, 1] {
        big.extend(word.to_be_bytes());
    }
    let mut file = &mixed()[24..];
    while let Some((head, rest)) = file.split_at_checked(16) {
        let word = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().unwrap());
        for value in [word(0), word(4) * 1_000, word(8), word(12)] {
            big.extend(value.to_be_bytes());
        }
        let (bytes, rest) = rest.split_at(word(8) as usize);
        big.extend(bytes);
        file = rest;
    }
    assert_eq!(json(&big), little);
}

#[test]
fn pcapng_interfaces_have_their_own_clocks() {
    let at = |units_a_second: u64| u64::from(START_S) * units_a_second;
    let mut file = section();
    file.extend(block(0x0bad, &[0; 400]));
    file.extend(interface(1, 0, &[]));
    // if_tsresol 9, a comment, if_tsoffset: big-endian, options in fours.
    let nanoseconds = [0x0009_0001, 9 << 24, 0x0001_0002, 0x6869_0000, 0];
    file.extend(interface(1, 0, &nanoseconds));
    file.extend(interface(1, 0, &[0x0009_0001, 0, 0x000e_0008, 0, START_S]));
    file.extend(enhanced(0, at(1_000_000) + 1, &tcp(1), 54));
    file.extend(enhanced(1, at(1_000_000_000) + 7, &tcp(1), 54));
    file.extend(enhanced(2, 5, &tcp(1), 54));
    // Simple packets have no time; that of the last one holds.
    let mut simple = words(&[54]);
    simple.extend(tcp(1));
    file.extend(block(3, &simple));
    let lines = json(&file);
    let starts: Vec<_> = lines.iter().map(|line| &line[..27]).collect();
    assert_eq!(
        starts,
        [
            r#"{"at":1700000000.000001000,"#,
            r#"{"at":1700000000.000000007,"#,
            r#"{"at":1700000005.000000000,"#,
            r#"{"source":"203.0.113.1","ve"#,
        ]
    );
    let summary = explained(POLICY, &file, true).1.unwrap();
    assert_eq!((summary.late, summary.timeless), (1, 1));
}

#[test]
fn a_new_section_forgets_the_interfaces() {
    let mut file = section();
    file.extend(interface(1, 0, &[]));
    file.extend(enhanced(0, 1, &tcp(1), 54));
    file.extend(section());
    file.extend(enhanced(0, 1, &tcp(1), 54));
    assert_eq!(
        fault(&file),
        "the capture is damaged after 1 packets: a packet of interface 0, which is not described"
    );
}

#[test]
fn other_links_are_refused_by_name() {
    assert_eq!(
        fault(&pcap_of(113, &[whole(0, tcp(1))])),
        "packet 1 is of link type 113 (LINUX_SLL), and only Ethernet (link type 1) can be judged; \
         capture on one Ethernet interface, not on `any`"
    );
    let mut file = section();
    file.extend(interface(147, 0, &[]));
    file.extend(enhanced(0, 0, &tcp(1), 54));
    assert!(fault(&file).starts_with("packet 1 is of link type 147, and only"));
}

#[test]
fn what_is_no_capture() {
    assert!(fault(b"").contains("it begins with nothing"));
    assert!(fault(b"\x1f\x8b\x08\x00....").contains("it begins with 1f 8b 08 00"));
    assert!(fault(b"GET").contains("it begins with 47 45 54"));
    assert!(fault(&[0xd4, 0xc3, 0xb2, 0xa1, 2, 0]).contains("cut off in its head"));
    let mut file = pcap(&[]);
    file[4] = 9;
    assert!(fault(&file).contains("pcap version 9 (2 is known)"));
    let mut file = section();
    file[8] = 0;
    assert!(fault(&file).contains("byte-order mark"));
}

#[test]
fn packets_before_the_cut_are_explained() {
    let mut file = mixed();
    file.pop();
    let (out, result) = explained(POLICY, &file, true);
    assert_eq!(out.lines().count(), 7);
    assert_eq!(
        result.unwrap_err().to_string(),
        "the capture is cut off in a packet, after 7 whole packets; all of them were judged"
    );
}

#[test]
fn lengths_that_lie() {
    let mut file = pcap(&[whole(0, tcp(1))]);
    file[24 + 8..24 + 12].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(fault(&file).contains("a packet of 4294967295 bytes (262144 are possible)"));
    // Within the bound, and not there.
    file[24 + 8..24 + 12].copy_from_slice(&262_144_u32.to_le_bytes());
    assert!(fault(&file).contains("cut off in a packet, after 0 whole packets"));

    let mut start = section();
    start.extend(interface(1, 0, &[]));
    for (length, said) in [
        (0, "a block of 0 bytes"),
        (8, "a block of 8 bytes"),
        (13, "a block of 13 bytes"),
        (u32::MAX - 3, "a block of 4294967292 bytes"),
        (12, "before and 0 after"),
        (64, "cut off in a block"),
    ] {
        let mut file = start.clone();
        file.extend(words(&[6, length, 0, 0, 0]));
        assert!(fault(&file).contains(said), "{}", fault(&file));
    }
    let mut file = start.clone();
    file.extend(words(&[0x0bad, u32::MAX - 3, 0]));
    assert!(
        fault(&file).contains("cut off in a block"),
        "skipped unread"
    );
    let mut file = start;
    let mut body = words(&[0, 0, 0, 100, 100]);
    body.extend([0; 96]);
    file.extend(block(6, &body));
    assert!(fault(&file).contains("a packet longer than its block"));
}

#[test]
fn times_that_lie() {
    let mut file = pcap(&[whole(0, tcp(1)), whole(0, tcp(1))]);
    file[24..28].fill(0);
    assert!(fault(&file).contains("packet 2 is more than 16 years after the first"));
    let mut file = section();
    file.extend(interface(1, 0, &[0x0009_0001, 0]));
    file.extend(enhanced(0, u64::MAX, &tcp(1), 54));
    assert!(fault(&file).contains("a time outside of the years 1970 to 2554"));
}

#[test]
fn damage_anywhere_is_an_error_or_a_verdict() {
    let mut files = vec![mixed(), section()];
    files[1].extend(interface(1, 96, &[0x0009_0001, 9 << 24, 0]));
    files[1].extend(enhanced(0, 1 << 60, &tcp(1), 60));
    files[1].extend(block(3, &tcp(1)));
    let mut replay = Replay::new(&policy(POLICY)).unwrap();
    let mut read = |file: &[u8]| {
        replay.clock = CaptureClock::default();
        Capture::open(file)
            .map_err(ReplayError::from)
            .and_then(|mut capture| replay.run(&mut capture, &mut io::sink(), true))
    };
    let mut errors = 0;
    for file in files {
        read(&file).unwrap();
        for end in 0..file.len() {
            errors += usize::from(read(&file[..end]).is_err());
        }
        for at in 0..file.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut damaged = file.clone();
                damaged[at] = value;
                errors += usize::from(read(&damaged).is_err());
            }
        }
    }
    assert!(errors > 800, "{errors}");
}

#[test]
fn a_file_is_explained_with_nothing_but_decisions_on_the_output() {
    let path = std::env::temp_dir().join(format!("limiter-replay-{}.pcap", std::process::id()));
    std::fs::write(&path, mixed()).unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let result = explain(&policy(POLICY), &path, true, &mut out, &mut err);
    std::fs::remove_file(&path).unwrap();
    result.unwrap();
    assert_eq!(String::from_utf8(out).unwrap().lines().count(), 8);
    assert!(err.starts_with(b"8 packets\n"));
    let gone = explain(&policy(POLICY), &path, true, &mut Vec::new(), &mut err);
    assert!(
        gone.unwrap_err()
            .to_string()
            .starts_with("cannot open the capture ")
    );
}

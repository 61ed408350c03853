//! A source has one budget over all interfaces and CPUs.

use crate::site::{Counts, QUIET, Site, limit, row, udp};
use limiter_tests::{
    cpu,
    flood::{self, Bounds, Flood, Sources},
    veth::{Options, Veth},
    wait,
};

const FRAMES: u64 = 20_000;

/// Floods from the same three sources through `pair`, from one CPU.
fn flood(site: &Site, pair: &Veth, cpu: usize) -> u64 {
    cpu::pin(cpu).unwrap();
    let mut frame = site.frame("198.51.100.1", udp(7_777));
    frame.source_mac = pair.left.mac;
    frame.destination_mac = pair.right.mac;
    let sources = Sources::Listed(vec![0xc633_6401, 0xc633_6402, 0xc633_6403]);
    let bounds = Bounds {
        frames: FRAMES,
        at_most: wait::SOON * 3,
        per_second: flood::GENTLY,
    };
    let flood = Flood::new(&frame.build(), &sources).unwrap();
    flood.send(&pair.left, bounds).unwrap()
}

#[test]
fn two_interfaces_and_cpus_share_one_budget() {
    let options = [1, 2].map(|number| Options {
        number,
        queues: 2,
        ..QUIET
    });
    let bulk = limit(
        "bulk",
        "udp",
        7_777,
        "packets = { rate = \"1/h\", burst = 1000 }",
    );
    let site = Site::with(&options, "native", &bulk);
    let last = cpu::count().unwrap() - 1;
    let shared = &site;
    let sent: Vec<u64> = std::thread::scope(|scope| {
        let floods: Vec<_> = [0, last]
            .into_iter()
            .flat_map(|cpu| site.pairs.iter().map(move |pair| (pair, cpu)))
            .map(|(pair, cpu)| scope.spawn(move || flood(shared, pair, cpu)))
            .collect();
        floods.into_iter().map(|it| it.join().unwrap()).collect()
    });
    let counts = site.counts_by_interface();
    let of = |name| -> Vec<u64> { counts.iter().map(|it: &Counts| row(it, name)).collect() };
    let (passed, dropped) = (of("bulk pass limit -"), of("bulk drop limit packets"));
    assert_eq!(passed.iter().sum::<u64>(), 3_000, "{passed:?}");
    // Two floods went through each interface; some of their frames may have
    // found its ring full.
    for (index, through) in [[0, 2], [1, 3]].into_iter().enumerate() {
        let sent: u64 = through.map(|flood| sent[flood]).iter().sum();
        let arrived = passed[index] + dropped[index];
        assert!((FRAMES..=sent).contains(&arrived), "{arrived} of {sent}");
    }
    let sources = site.daemon.json(&["sources"]).unwrap();
    assert_eq!(sources["total"], 3);
    for source in sources["sources"].as_array().unwrap() {
        assert_eq!(source["passed"], 1_000, "{sources}");
    }
}

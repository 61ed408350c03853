//! A real server and real requests.

use crate::site::{LATE, QUIET, Site, limit, row};
use limiter_tests::{clients, netns::Namespace, servers::Nginx, veth::Options, wait};
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_millis(500);

fn answers(client: &Namespace, server: SocketAddr, at_most: Duration) -> bool {
    let answer = clients::get(client, server, "/", at_most);
    answer.is_ok_and(|answer| answer.status == 200)
}

#[test]
fn connections_are_refused_until_the_budget_is_refilled() {
    let options = [1, 2].map(|number| Options { number, ..QUIET });
    let web = limit(
        "web",
        "tcp",
        80,
        "connections = { rate = \"1/s\", burst = 5 }",
    );
    let site = Site::with(&options, "native", &web);
    let [busy, other] = [0, 1].map(|index| &site.pairs[index]);
    let everywhere = SocketAddr::from(([0, 0, 0, 0], 80));
    let _nginx = Nginx::plain(site.server(), everywhere).unwrap();
    let at = |pair: &limiter_tests::veth::Veth| SocketAddr::new(pair.right.ipv4.into(), 80);

    let client = &busy.left.namespace;
    let started = Instant::now();
    let mut answered = 0;
    while answers(client, at(busy), PATIENCE) {
        answered += 1;
        assert!(
            started.elapsed() < LATE,
            "{answered} answers and no refusal"
        );
    }
    let at_most = 5 + started.elapsed().as_secs() + 1;
    assert!((5..=at_most).contains(&answered), "{answered} answers");
    for _ in 0..4 {
        assert!(answers(&other.left.namespace, at(other), LATE));
    }
    let again = || Ok(answers(client, at(busy), PATIENCE).then_some(()));
    wait::until("the budget to be refilled", LATE, again).unwrap();

    let counts = site.counts_by_interface();
    assert!(
        row(&counts[0], "web drop limit connections") >= 1,
        "{counts:?}"
    );
    assert_eq!(
        row(&counts[1], "web drop limit connections"),
        0,
        "{counts:?}"
    );
    for counts in counts {
        for name in counts.keys() {
            assert!(name.starts_with("web "), "{name}");
        }
    }
}

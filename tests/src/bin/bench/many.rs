//! Clients with an address each.

use crate::wrk::CONNECTIONS;
use anyhow::Result;
use limiter_tests::veth::Veth;

/// Gives each of [`CONNECTIONS`] that are opened one after the other from the left end of a pair
/// an address of its own (by NAT), to which the right end's host knows the way.
pub(crate) fn addresses(pair: &Veth) -> Result<()> {
    let (clients, server) = (&pair.left, &pair.right);
    server.namespace.ip(&format!(
        "route add 10.128.0.0/9 via {} dev {}",
        clients.ipv4, server.name
    ))?;
    let addresses = (0..CONNECTIONS).map(|it| format!("{it} : 10.128.{it}.1"));
    let many = format!(
        "table ip many {{ chain out {{ type nat hook postrouting priority 100; oifname {} \
         snat to numgen inc mod {CONNECTIONS} map {{ {} }}; }}; }}",
        clients.name,
        addresses.collect::<Vec<_>>().join(", ")
    );
    clients.namespace.output("nft", &[&many]).map(drop)
}

//! What was measured, in tables.

use super::{front, refused as flood, slow as crowd};
use crate::{
    report::{Column, Row, Table},
    rounds::{Figure, Series},
    wrk::CONNECTIONS,
};

fn table<const COUNT: usize>(
    title: &str,
    columns: [(&str, usize); COUNT],
    rows: Vec<Row>,
    notes: Vec<String>,
) -> Table {
    Table {
        section: "check",
        title: title.to_owned(),
        columns: columns
            .map(|(name, decimals)| Column::new(name, decimals))
            .to_vec(),
        rows,
        notes,
    }
}

/// Of nginx with `limit_req`, with limiter, and both at half load.
pub(super) fn nginx(fronts: &[Series], half: &Series) -> Table {
    let added = |own: usize, other: usize| {
        let (own, other) = (half.column(own), half.column(other));
        let pairs = own.iter().zip(other);
        Figure::of(pairs.map(|(own, other)| own - other).collect())
    };
    let rows = fronts.iter().enumerate().map(|(place, own)| {
        // Behind the rate: p50 and p99 of each.
        let [p50, p99] = [1, 2].map(|column| 2 * place + column);
        let others = (place > 0).then_some(&fronts[0]);
        let of_limiter = |figure: Option<Figure>| others.and(figure);
        let figures = vec![
            others.and_then(|bare| own.ratio(0, bare)),
            own.figure(2),
            of_limiter(own.figure(3)),
            others.and_then(|bare| own.added(1, bare)),
            half.figure(p50),
            half.figure(p99),
            of_limiter(added(p99, 2)),
            of_limiter(own.figure(4)),
        ];
        let mut row = Row::of(own, 1, figures);
        row.fault = row.fault.or_else(|| half.fault());
        row
    });
    let rows = rows.collect();
    table(
        "nginx before an application that takes 1 ms, with its own limit_req and with limiter",
        [
            ("requests /s", 0),
            ("× limit_req", 2),
            ("nginx, µs each", 1),
            ("limiter, µs each", 1),
            ("added µs", 1),
            ("p50 ms at half", 2),
            ("p99 ms at half", 2),
            ("added ms", 2),
            ("reported, %", 1),
        ],
        rows,
        vec![
            format!(
                "wrk, {CONNECTIONS} connections that stay open, each from an address of its own (by NAT), {} s; \
                 nginx (one process), limiter and nothing else on the first CPU, wrk and the application \
                 on the last; nginx keeps its connections to both open, and its access log",
                front::SECONDS
            ),
            "limit_req: by address, with a burst, nodelay, never reached; limiter: five rules, of which \
             two count every request, as `limiter integration nginx` writes it: auth_request and a report \
             by syslog of each; µs: of the CPU, for each request"
                .to_owned(),
            format!(
                "at half: of what the slowest of them reached last, {:.0} requests a second in the middle of the \
                 rounds, over as many connections, for {} s each, in the same round; what a request takes counts \
                 from when it was due",
                half.figure(0).map_or(0.0, |it| it.median),
                front::HALF.as_secs_f64()
            ),
            "every request was answered, and limiter asked about each of them; reported: those of which \
             it then heard what became of them, for nginx throws reports away that the socket has no room for"
                .to_owned(),
        ],
    )
}

/// Of HAProxy with its own table, and with limiter.
pub(super) fn haproxy(series: &[Series]) -> Table {
    let rows = series.iter().map(|own| {
        let first = &series[0];
        let more = vec![own.ratio(0, first), own.added(1, first)];
        Row::of(own, 2, more)
    });
    table(
        "HAProxy before the same, with a rule for failed logins of its own and with limiter's",
        [
            ("requests /s", 0),
            ("CPU µs each", 1),
            ("× stick-table", 2),
            ("added µs", 1),
        ],
        rows.collect(),
        vec![
            "both count 401s for POST /login by address and refuse after five in ten minutes; what is asked is GET /; \
             HAProxy (one thread) by the configuration of the manual: a question and a report of each request"
                .to_owned(),
            "every request was answered, and limiter told of each of them twice".to_owned(),
        ],
    )
}

/// Of a client that is refused, and then blocked.
pub(super) fn refused(series: &[Series]) -> Table {
    let rows = series.iter().map(|own| {
        let mut row = Row::of(own, 3, Vec::new());
        row.name = "refused, then blocked at the NIC".to_owned();
        row
    });
    table(
        "a client that goes on although it is refused",
        [
            ("requests /s", 0),
            ("nginx, % of a CPU", 1),
            ("after the block", 1),
        ],
        rows.collect(),
        vec![format!(
            "wrk from a namespace and an address of its own; a rule refuses it from the 51st request of a minute on, and \
             blocks it at the {}th; after: from {} ms after the block was seen in the list, for {} s",
            super::policy::REFUSED,
            flood::SETTLED.as_millis(),
            flood::LOOKED.as_secs()
        )],
    )
}

/// Of slow clients.
pub(super) fn slow(series: &[Series]) -> Table {
    let rows = series.iter().map(|own| {
        let mut row = Row::of(own, 8, Vec::new());
        row.name = "slow clients of the decision port".to_owned();
        row
    });
    table(
        "others at the decision port, while 10,000 clients begin requests and do not end them",
        [
            ("kept, alone: p99 ms", 2),
            ("kept: p99 ms", 2),
            ("new: p50 ms", 1),
            ("new: most ms", 1),
            ("new: answered, %", 0),
            ("slow ones connected", 0),
            ("worker MiB before", 1),
            ("worker MiB during", 1),
        ],
        rows.collect(),
        vec![
            format!(
                "{} slow clients of this host, each a line of a head a second; who is sent away comes again; 1,024 have \
                 a place, as many again as the kernel's queue holds wait for one, and the others try to connect",
                crowd::COUNT
            ),
            format!(
                "kept: {} connections that are open before the slow ones come, together a question every {:.0} ms, \
                 for {} s with them; \
                 new: {} connections for a question each, one every {} ms, which wait {} s at most",
                crowd::KEPT.connections,
                1e3 / crowd::KEPT.per_second,
                (crowd::KEPT.lasts - crowd::CROWDED).as_secs(),
                crowd::NEW,
                crowd::NEW_EACH.as_millis(),
                crowd::PATIENCE.as_secs()
            ),
        ],
    )
}

/// Of `/check` itself.
pub(super) fn alone(series: &[Series]) -> Table {
    let rows = series.iter().map(|own| {
        let more = vec![own.ratio(0, &series[0])];
        Row::of(own, 2, more)
    });
    table(
        "who asks limiter itself",
        [
            ("answers /s", 0),
            ("answers /s of a CPU", 0),
            ("× nginx's 204", 2),
        ],
        rows.collect(),
        vec![format!(
            "wrk, {CONNECTIONS} connections that stay open, on the last CPU, {} s; limiter under the five rules, \
             and nginx, on the first; the questions are of 64,256 sources, and no two are the same; of a CPU: by the \
             time that limiter's processes took, or nginx",
            super::alone::SECONDS
        )],
    )
}

//! The rig of section `established`: a server behind limiter, reached over
//! three pairs of interfaces, so that what limiter counts at each tells apart
//! the attack, those who were known before it, and those who come new.
//!
//! The attack is received by a CPU of its own and loses what the ring of its
//! interface cannot hold. The others have rings of their own and lose nothing
//! there: what becomes of their packets is limiter's doing.

use crate::{
    assaults::packet,
    limiter::{Counts, Limiter},
    policies::WEB,
};
use anyhow::{Context as _, Result, ensure};
use limiter_tests::{
    counter,
    cpu::{self, Receiver},
    frames::ACK,
    netns::Namespace,
    sender::Sender,
    veth::{End, Options, Veth},
    wait,
};
use limiter_user::policy::Mode;
use std::{
    io::{ErrorKind, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Sources that are known before an attack.
pub(crate) const REGULARS: u32 = 1_000;
/// Packets a second of each.
pub(crate) const EACH_PER_SECOND: u32 = 10;
/// Clients that come during an attack.
pub(crate) const NEWCOMERS: u32 = 200;

/// The server's namespace, and who can reach it.
pub(crate) struct Siege {
    pub(crate) attack: Veth,
    pub(crate) regulars: Veth,
    pub(crate) newcomers: Veth,
    _receiver: Receiver,
    _server: Server,
}

impl Siege {
    pub(crate) fn build() -> Result<Self> {
        let server = Namespace::new()?;
        let pair = |number| {
            let options = Options {
                number,
                ..Options::default()
            };
            Veth::new(&Namespace::new()?, &server, options)
        };
        let (attack, regulars, newcomers) = (pair(1)?, pair(2)?, pair(3)?);
        // Sources that are nowhere are behind the attack's pair.
        server.ip(&format!(
            "route add default via {} dev {4}\nroute add ::/0 via {} dev {4}\n\
             route add 10.128.0.0/9 via {} dev {5}\n\
             route add 2001:db8:8000::/33 via {} dev {5}",
            attack.left.ipv4,
            attack.left.ipv6,
            newcomers.left.ipv4,
            newcomers.left.ipv6,
            attack.right.name,
            newcomers.right.name
        ))?;
        for name in [
            "all",
            &attack.right.name,
            &regulars.right.name,
            &newcomers.right.name,
        ] {
            server.set(&format!("ipv4/conf/{name}/rp_filter"), "0")?;
        }
        // Packets of no connection: to answer them would cost more than
        // limiter does. What is answered to SYNs of the attack goes nowhere.
        server.output("nft", &[&Self::ruleset(&attack.right, &regulars.right)])?;
        let clients = &newcomers.left.namespace;
        clients
            .ip("route add local 10.128.0.0/9 dev lo\nroute add local 2001:db8:8000::/33 dev lo")?;
        for family in ["ipv4", "ipv6"] {
            clients.set(&format!("{family}/ip_nonlocal_bind"), "1")?;
        }
        // Without it there is no thread to receive it.
        server.output("ethtool", &["-K", &attack.right.name, "gro", "on"])?;
        let receiver = Receiver::on(&attack.right, 0)?;
        Ok(Self {
            _receiver: receiver,
            _server: Server::start(&server)?,
            attack,
            regulars,
            newcomers,
        })
    }

    fn ruleset(attack: &End, regulars: &End) -> String {
        let (attack, regulars) = (&attack.name, &regulars.name);
        format!(
            "table inet host {{ chain in {{ type filter hook prerouting priority -150; \
             iifname {regulars} tcp dport {WEB} drop; \
             iifname {attack} tcp dport {WEB} tcp flags & syn == 0 drop; }}; \
             chain out {{ type filter hook output priority 0; oifname {attack} drop; }}; }}"
        )
    }

    pub(crate) const fn pairs(&self) -> [&Veth; 3] {
        [&self.attack, &self.regulars, &self.newcomers]
    }

    /// Puts limiter before the server; it leaves when dropped.
    pub(crate) fn guard(&self, limiter: &mut Limiter) -> Result<()> {
        for pair in self.pairs() {
            let end = &pair.right;
            let attach = || limiter.plane.attach(&end.name, Mode::Native);
            end.namespace.run(attach).context("attaching limiter")?;
        }
        Ok(())
    }

    /// Where newcomers connect to.
    pub(crate) fn server(&self, is_ipv6: bool) -> SocketAddr {
        let end = &self.newcomers.right;
        let address = if is_ipv6 {
            end.ipv6.into()
        } else {
            end.ipv4.into()
        };
        SocketAddr::new(address, WEB)
    }

    /// Packets that each interface has received.
    pub(crate) fn received(&self) -> Result<[u64; 3]> {
        let mut received = [0; 3];
        for (count, pair) in received.iter_mut().zip(self.pairs()) {
            *count = counter::traffic(&pair.right)?.received;
        }
        Ok(received)
    }

    /// What limiter has counted at each interface.
    pub(crate) fn counts(&self, limiter: &Limiter) -> Result<[Counts; 3]> {
        let [attack, regulars, newcomers] = self.pairs();
        Ok([
            limiter.counts_at(&attack.right.name)?,
            limiter.counts_at(&regulars.right.name)?,
            limiter.counts_at(&newcomers.right.name)?,
        ])
    }

    /// Checks that limiter has counted what the interfaces received since.
    pub(crate) fn check(&self, limiter: &Limiter, before: [u64; 3]) -> Result<()> {
        let mut last = None;
        wait::until("limiter's counters", wait::SOON, || {
            let received = self.received()?;
            let counts = self.counts(limiter)?;
            let counted = counts.map(|counts| counts.values().sum::<u64>());
            let received = [0, 1, 2].map(|place| received[place] - before[place]);
            last = Some((counted, received));
            Ok((counted == received).then_some(()))
        })
        .with_context(|| format!("{last:?} counted and received"))
    }

    /// Sends what the known sources send until it is over, counting it; on the
    /// last CPU, before all others there.
    pub(crate) fn send_regulars(
        &self,
        is_ipv6: bool,
        sent: &AtomicU64,
        over: &AtomicBool,
    ) -> Result<()> {
        cpu::pin(cpu::count()? - 1)?;
        cpu::hurry()?;
        let frames: Vec<Vec<u8>> = (0..REGULARS)
            .map(|number| packet(&self.regulars, regular(number, is_ipv6), ACK))
            .collect();
        let sender = Sender::new(&self.regulars.left)?;
        let per_second = f64::from(REGULARS * EACH_PER_SECOND);
        let began = Instant::now();
        while !over.load(Relaxed) {
            let due = (began.elapsed().as_secs_f64() * per_second) as u64;
            while sent.load(Relaxed) < due {
                let number = sent.load(Relaxed) % u64::from(REGULARS);
                sender.send(&frames[usize::try_from(number)?])?;
                sent.fetch_add(1, Relaxed);
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

/// A source that was known before, each in a network of its own.
pub(crate) fn regular(number: u32, is_ipv6: bool) -> IpAddr {
    if is_ipv6 {
        Ipv6Addr::new(0x2001, 0xdb8, number as u16, 0, 0, 0, 0, 7).into()
    } else {
        Ipv4Addr::from(10 << 24 | 64 << 16 | number << 8 | 7).into()
    }
}

/// A client that comes new, each in a network of its own.
pub(crate) fn newcomer(number: u32, is_ipv6: bool) -> IpAddr {
    // A step that reaches all networks and makes no neighbours.
    let place = number * 163 % (1 << 15);
    if is_ipv6 {
        Ipv6Addr::new(0x2001, 0xdb8, 0x8000 | place as u16, 1, 0, 0, 0, 7).into()
    } else {
        Ipv4Addr::from(10 << 24 | 1 << 23 | place << 8 | 7).into()
    }
}

/// Says a byte to everybody who connects.
struct Server {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(namespace: &Namespace) -> Result<Self> {
        let any = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), WEB);
        let listener = namespace.run(|| TcpListener::bind(any));
        let listener = listener.context("listening")?;
        listener.set_nonblocking(true)?;
        let over = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&over);
        let thread = thread::spawn(move || {
            // Where it cannot be had, it serves later.
            let _hurried = cpu::hurry();
            while !stop.load(Relaxed) {
                match listener.accept() {
                    // A client that has gone needs nothing.
                    Ok((mut stream, _)) => drop(stream.write(b".")),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        thread::sleep(Duration::from_millis(1));
                    }
                    Err(_) => {}
                }
            }
        });
        Ok(Self {
            over,
            thread: Some(thread),
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.over.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            // It cannot have failed in any way that matters now.
            let _ended = thread.join();
        }
    }
}

/// Checks that there is a CPU for each side.
pub(crate) fn need_two_cpus() -> Result<()> {
    ensure!(cpu::count()? >= 2, "two CPUs are needed");
    Ok(())
}

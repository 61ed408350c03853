//! Random frames: of every kind that the packet path tells apart, and broken
//! ones.
//!
//! They are put together byte by byte, since most of what is wanted here no
//! library would write.

/// Random numbers that are the same every time (splitmix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ word >> 31
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// True once in `times`.
    pub(crate) fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    pub(crate) fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }
}

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;
const MOBILITY: u8 = 135;

/// Who sends: the fewer, the sooner their budgets run out.
#[derive(Clone, Copy)]
pub(crate) struct Senders {
    /// How many hosts there are in each family.
    pub(crate) hosts: u64,
    /// One packet in so many is of a listed or odd source.
    pub(crate) special: u64,
}

/// A frame of at least 14 bytes, below which the kernel runs none.
pub(crate) fn frame(random: &mut Random, senders: Senders) -> Vec<u8> {
    let mut frame = random.bytes(12);
    let tags = random.of(&[0, 0, 0, 0, 0, 0, 1, 1, 2, 3]);
    for _ in 0..tags {
        frame.extend(random.of(&[[0x81, 0x00], [0x88, 0xa8]]));
        frame.extend(random.bytes(2));
    }
    match random.below(40) {
        0 => {
            frame.extend(random.of(&[[0x08, 0x06], [0x88, 0xcc], [0x88, 0x47], [0, 60]]));
            let length = random.below(60) as usize;
            frame.extend(random.bytes(length));
        }
        1..=20 => ipv4(&mut frame, random, senders),
        _ => ipv6(&mut frame, random, senders),
    }
    if random.once_in(3) && frame.len() < 60 {
        frame.resize(60, 0);
    }
    damage(&mut frame, random);
    frame.resize(frame.len().max(14), 0);
    frame
}

/// Breaks one frame in ten.
fn damage(frame: &mut Vec<u8>, random: &mut Random) {
    if random.once_in(20) {
        frame.truncate(random.below(frame.len() as u64 + 1) as usize);
    }
    if random.once_in(20) {
        for _ in 0..random.below(4) {
            let reach = frame.len().clamp(1, 100) as u64;
            let at = 12 + random.below(reach) as usize;
            if let Some(byte) = frame.get_mut(at) {
                *byte = random.of(&[0, 1, 0x40, 0x60, 0x7f, 0xff, 0x45, 6, 17]);
            }
        }
    }
}

fn ipv4(frame: &mut Vec<u8>, random: &mut Random, senders: Senders) {
    let protocol = random.of(&[TCP, TCP, TCP, UDP, UDP, ICMP, ICMPV6, 47, 132, 50]);
    let payload = transport(protocol, random);
    let options = random.of(&[0, 0, 0, 0, 0, 0, 1, 2, 10]);
    let total = 20 + 4 * options + payload.len();
    let total = match random.below(100) {
        0 => random.below(60) as u16,
        1 => 0,
        2 => u16::MAX,
        _ => total as u16,
    };
    // Don't fragment; first, middle and last fragment.
    let fragment = random.of(&[0, 0, 0x4000, 0x4000, 0x4000, 0x2000, 0x20b9, 0x00b9]);
    frame.extend([0x08, 0x00, 0x45 + options as u8, 0]);
    frame.extend(total.to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(u16::to_be_bytes(fragment));
    frame.extend([64, protocol, 0, 0]);
    frame.extend(source_v4(random, senders));
    frame.extend(random.of(&[
        [192, 0, 2, 10],
        [192, 0, 2, 11],
        [192, 0, 2, 200],
        [10, 1, 1, 1],
    ]));
    frame.extend(random.bytes(4 * options));
    frame.extend(payload);
}

fn source_v4(random: &mut Random, senders: Senders) -> [u8; 4] {
    if random.once_in(senders.special) {
        let last = random.of(&[0, 1, 7, 8, 77, 129, 255]);
        let [a, b, c] = random.of(&[
            [10, 9, 0],
            [10, 2, 3],
            [198, 51, 100],
            [203, 0, 113],
            [0, 0, 0],
            [224, 0, 0],
        ]);
        return [a, b, c, last];
    }
    let host = random.below(senders.hosts);
    u32::to_be_bytes(0xac10_0000 + host as u32)
}

fn ipv6(frame: &mut Vec<u8>, random: &mut Random, senders: Senders) {
    let protocol = random.of(&[TCP, TCP, TCP, UDP, UDP, ICMPV6, ICMPV6, ICMP, 47, 59]);
    let (first, extensions) = extensions(protocol, random);
    let payload = transport(protocol, random);
    let length = extensions.len() + payload.len();
    let length = match random.below(100) {
        0 => random.below(60) as u16,
        1 => 0,
        2 => u16::MAX,
        _ => length as u16,
    };
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
    frame.extend(length.to_be_bytes());
    frame.extend([first, random.of(&[64, 64, 255, 1])]);
    frame.extend(u128::to_be_bytes(source_v6(random, senders)));
    frame.extend(u128::to_be_bytes(random.of(&[
        0x2001_0db8_00ff_0000_0000_0000_0000_0001,
        0x2001_0db8_00ff_0000_ffff_0000_0000_0001,
        0x2001_0db8_00fe_0000_0000_0000_0000_0001,
        0xff02_0000_0000_0000_0000_0000_0000_0001,
    ])));
    frame.extend(extensions);
    frame.extend(payload);
}

fn source_v6(random: &mut Random, senders: Senders) -> u128 {
    let low = u128::from(random.below(4));
    if random.once_in(senders.special) {
        let network = random.of(&[
            0x2001_0db8_000a_0000_0000_0000_0000_0000,
            0x2001_0db8_000d_0000_0000_0000_0000_0000,
            0x2001_0db8_0001_0000_0000_0000_0000_0000,
            0x2001_0db8_0001_0001_0000_0000_0000_0000,
            0x2001_0db8_000b_0000_0000_0000_0000_0000,
            // Martians, among them the place of an IPv4 source.
            0,
            0x0000_0004_ac10_0001_0000_0000_0000_0000,
            0x0000_0000_0000_0000_0000_ffff_ac10_0001,
            0xfe80_0000_0000_0000_0000_0000_0000_0000,
        ]);
        return network | low;
    }
    let host = u128::from(random.below(senders.hosts));
    0x2001_0db8_8000_0000_0000_0000_0000_0000 | host << 64 | low
}

/// A chain of extension headers that leads to `protocol`, and the type of its
/// first.
fn extensions(protocol: u8, random: &mut Random) -> (u8, Vec<u8>) {
    let count = random.of(&[0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 3, 6, 7, 8]);
    let mut next = protocol;
    let mut chain = Vec::new();
    for _ in 0..count {
        let kind = random.of(&[
            HOP_BY_HOP,
            ROUTING,
            FRAGMENT,
            AUTHENTICATION,
            DESTINATION_OPTIONS,
            MOBILITY,
        ]);
        let mut header = extension(kind, random);
        header[0] = next;
        header.extend(chain);
        chain = header;
        next = kind;
    }
    (next, chain)
}

fn extension(kind: u8, random: &mut Random) -> Vec<u8> {
    if kind == FRAGMENT {
        // Atomic, first, later.
        let offset_flags: u16 = random.of(&[0, 0, 1, 1, 0x0b91, 0x0b90]);
        let [hi, lo] = offset_flags.to_be_bytes();
        return vec![0, 0, hi, lo, 0, 0, 0, 1];
    }
    // Now and then so long that what follows lies in another page.
    let units: usize = random.of(&[0, 0, 0, 1, 1, 2, 3, 255]);
    let length = match kind {
        AUTHENTICATION => (units + 2) * 4,
        _ => (units + 1) * 8,
    };
    let mut header = random.bytes(length.max(8));
    header[1] = units as u8;
    header.truncate(length);
    header
}

/// A transport header and some payload, one in twenty too short.
fn transport(protocol: u8, random: &mut Random) -> Vec<u8> {
    let mut bytes = match protocol {
        TCP => tcp(random),
        UDP => udp(random),
        ICMP | ICMPV6 => {
            let kind = random.of(&[0, 1, 2, 3, 8, 128, 129, 133, 134, 135, 136, 137]);
            let code = random.of(&[0, 0, 0, 4, 1]);
            vec![kind, code, 0, 0, 0, 0, 0, 0]
        }
        _ => random.bytes(8),
    };
    if random.once_in(20) {
        let length = random.below(bytes.len() as u64) as usize;
        bytes.truncate(length);
        return bytes;
    }
    let payload = random.of(&[0, 0, 0, 6, 100, 100, 1_000, 1_400, 5_000]);
    bytes.resize(bytes.len() + payload, 0x5a);
    bytes
}

fn tcp(random: &mut Random) -> Vec<u8> {
    const FLAGS: [u8; 8] = [0x02, 0x02, 0x10, 0x10, 0x18, 0x12, 0x04, 0xc2];
    let mut header = random.bytes(20);
    let port = random.of(&[22, 443, 443, 8_005, 8_005, 8_100, 8_500, 9_999]);
    header[2..4].copy_from_slice(&u16::to_be_bytes(port));
    header[12] = 0x50;
    header[13] = random.of(&FLAGS);
    header
}

fn udp(random: &mut Random) -> Vec<u8> {
    const PORTS: [u16; 8] = [53, 53, 123, 67, 68, 546, 547, 40_000];
    let mut header = random.of(&PORTS).to_be_bytes().to_vec();
    header.extend(random.of(&PORTS).to_be_bytes());
    header.extend([0; 4]);
    header
}

//! Captures: pcap and pcapng, read as the work of strangers.
//!
//! Lengths are believed up to a bound and memory grows only with what is read.
//! What is not needed (names, statistics, comments) is skipped unread.

use super::pcapng;
use std::io::{self, Read};

/// Bytes of a packet at most: libpcap's own bound.
pub(super) const PACKET_MAX: u32 = 262_144;

const SECOND_NS: u64 = 1_000_000_000;

/// Why a capture cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// Reading failed.
    #[error("reading the capture: {0}")]
    Read(#[from] io::Error),
    /// Neither format.
    #[error(
        "this is no capture: it begins with {found}, and a pcap or pcapng file is needed \
         (decompress it first, if it is compressed)"
    )]
    Foreign {
        /// The first four bytes, in hexadecimal.
        found: String,
    },
    /// It ends in the middle of something.
    #[error(
        "the capture is cut off in {what}, after {packets} whole packets; all of them were judged"
    )]
    Truncated {
        /// What was begun.
        what: &'static str,
        /// Packets before it.
        packets: u64,
    },
    /// It contradicts itself.
    #[error("the capture is damaged after {packets} packets: {what}")]
    Damaged {
        /// How.
        what: String,
        /// Packets before it.
        packets: u64,
    },
    /// Packets of another kind of network.
    #[error(
        "packet {packet} is of link type {number}{name}, and only Ethernet (link type 1) can be \
         judged; capture on one Ethernet interface, not on `any`"
    )]
    LinkType {
        /// Counted from 1.
        packet: u64,
        /// As `LINKTYPE_` numbers have it.
        number: u16,
        /// ` (LINUX_SLL)`, where it is a known one.
        name: String,
    },
}

/// A packet of a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Captured<'a> {
    /// When, in nanoseconds since the Unix epoch; `None` where the format does
    /// not say (simple packet blocks).
    pub at_ns: Option<u64>,
    /// Its length as it was received, at least that of `bytes`.
    pub length: u32,
    /// What was kept of it.
    pub bytes: &'a [u8],
}

/// A capture, packet by packet.
#[derive(Debug)]
pub struct Capture<R> {
    source: Source<R>,
    format: Format,
}

#[derive(Debug)]
enum Format {
    Pcap(Pcap),
    Pcapng(pcapng::Section),
}

impl<R: Read> Capture<R> {
    /// Reads the head of a capture.
    ///
    /// # Errors
    ///
    /// See [`CaptureError`].
    pub fn open(input: R) -> Result<Self, CaptureError> {
        let mut source = Source {
            input,
            body: Vec::new(),
            packets: 0,
        };
        let mut magic = [0; 4];
        let got = source.fill(&mut magic)?;
        let format = match magic {
            _ if got < magic.len() => return Err(foreign(&magic[..got])),
            pcapng::SECTION => Format::Pcapng(pcapng::Section::open(&mut source)?),
            _ => Format::Pcap(Pcap::open(magic, &mut source)?),
        };
        Ok(Self { source, format })
    }

    /// The next packet; `None` at the end.
    ///
    /// # Errors
    ///
    /// See [`CaptureError`].
    pub fn next_packet(&mut self) -> Result<Option<Captured<'_>>, CaptureError> {
        let head = match &mut self.format {
            Format::Pcap(pcap) => pcap.next(&mut self.source)?,
            Format::Pcapng(section) => section.next(&mut self.source)?,
        };
        let Some(head) = head else { return Ok(None) };
        self.source.packets += 1;
        if head.link_type != ETHERNET {
            return Err(CaptureError::LinkType {
                packet: self.source.packets,
                number: head.link_type,
                name: link_name(head.link_type),
            });
        }
        let bytes = self.source.body.get(head.bytes).unwrap_or_default();
        Ok(Some(Captured {
            at_ns: head.at_ns,
            length: head.length.max(bytes.len() as u32),
            bytes,
        }))
    }
}

/// A packet whose bytes lie in [`Source::body`].
#[derive(Debug)]
pub(super) struct Head {
    pub(super) at_ns: Option<u64>,
    pub(super) length: u32,
    pub(super) bytes: std::ops::Range<usize>,
    pub(super) link_type: u16,
}

/// The file, the packet or block at hand, and how far we are.
#[derive(Debug)]
pub(super) struct Source<R> {
    input: R,
    /// What [`Source::read_body`] read last.
    pub(super) body: Vec<u8>,
    /// Packets so far.
    pub(super) packets: u64,
}

impl<R: Read> Source<R> {
    /// Reads up to the length of `buffer`; less only at the end of the file.
    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut got = 0;
        while got < buffer.len() {
            match self.input.read(&mut buffer[got..]) {
                Ok(0) => break,
                Ok(read) => got += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(got)
    }

    /// `N` bytes, or `None` where the file ends just here.
    pub(super) fn start<const N: usize>(
        &mut self,
        what: &'static str,
    ) -> Result<Option<[u8; N]>, CaptureError> {
        let mut bytes = [0; N];
        match self.fill(&mut bytes)? {
            0 => Ok(None),
            got if got == N => Ok(Some(bytes)),
            _ => Err(self.truncated(what)),
        }
    }

    /// `N` bytes that must be there.
    pub(super) fn bytes<const N: usize>(
        &mut self,
        what: &'static str,
    ) -> Result<[u8; N], CaptureError> {
        self.start(what)?.ok_or_else(|| self.truncated(what))
    }

    /// Reads `length` bytes into [`Source::body`]. The buffer grows with what
    /// is there, not with what is claimed.
    pub(super) fn read_body(
        &mut self,
        length: u32,
        what: &'static str,
    ) -> Result<(), CaptureError> {
        self.body.clear();
        let mut limited = (&mut self.input).take(length.into());
        let got = limited.read_to_end(&mut self.body)?;
        if got == length as usize {
            Ok(())
        } else {
            Err(self.truncated(what))
        }
    }

    /// Passes over `length` bytes.
    pub(super) fn skip(&mut self, length: u32, what: &'static str) -> Result<(), CaptureError> {
        let mut limited = (&mut self.input).take(length.into());
        if io::copy(&mut limited, &mut io::sink())? == u64::from(length) {
            Ok(())
        } else {
            Err(self.truncated(what))
        }
    }

    pub(super) const fn truncated(&self, what: &'static str) -> CaptureError {
        CaptureError::Truncated {
            what,
            packets: self.packets,
        }
    }

    pub(super) fn damaged(&self, what: impl Into<String>) -> CaptureError {
        CaptureError::Damaged {
            what: what.into(),
            packets: self.packets,
        }
    }
}

/// Byte order of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Big,
    Little,
}

impl Order {
    /// The 16 bits at `at`; 0 beyond the end, which callers have excluded.
    pub(super) fn u16(self, bytes: &[u8], at: usize) -> u16 {
        let word = bytes.get(at..).and_then(|rest| rest.first_chunk());
        let word = word.copied().unwrap_or_default();
        match self {
            Self::Big => u16::from_be_bytes(word),
            Self::Little => u16::from_le_bytes(word),
        }
    }

    /// The 32 bits at `at`, likewise.
    pub(super) fn u32(self, bytes: &[u8], at: usize) -> u32 {
        let word = bytes.get(at..).and_then(|rest| rest.first_chunk());
        let word = word.copied().unwrap_or_default();
        match self {
            Self::Big => u32::from_be_bytes(word),
            Self::Little => u32::from_le_bytes(word),
        }
    }
}

/// The head of a pcap file.
#[derive(Debug)]
struct Pcap {
    order: Order,
    /// Nanoseconds in the unit of the fraction.
    fraction_ns: u64,
    link_type: u16,
}

impl Pcap {
    fn open<R: Read>(magic: [u8; 4], source: &mut Source<R>) -> Result<Self, CaptureError> {
        let (order, fraction_ns) = match magic {
            [0xa1, 0xb2, 0xc3, 0xd4] => (Order::Big, 1_000),
            [0xd4, 0xc3, 0xb2, 0xa1] => (Order::Little, 1_000),
            [0xa1, 0xb2, 0x3c, 0x4d] => (Order::Big, 1),
            [0x4d, 0x3c, 0xb2, 0xa1] => (Order::Little, 1),
            _ => return Err(foreign(&magic)),
        };
        let head: [u8; 20] = source.bytes("its head")?;
        let major = order.u16(&head, 0);
        if major != 2 {
            return Err(source.damaged(format!("pcap version {major} (2 is known)")));
        }
        Ok(Self {
            order,
            fraction_ns,
            // The upper half tells of checksums behind frames.
            link_type: order.u32(&head, 16) as u16,
        })
    }

    fn next<R: Read>(&self, source: &mut Source<R>) -> Result<Option<Head>, CaptureError> {
        const WHAT: &str = "a packet";
        let Some(head) = source.start::<16>(WHAT)? else {
            return Ok(None);
        };
        let seconds = u64::from(self.order.u32(&head, 0));
        let fraction = u64::from(self.order.u32(&head, 4));
        let kept = self.order.u32(&head, 8);
        check_kept(source, kept)?;
        source.read_body(kept, WHAT)?;
        Ok(Some(Head {
            // 32 bits of seconds and of nanoseconds or microseconds: no
            // overflow.
            at_ns: Some(seconds * SECOND_NS + fraction * self.fraction_ns),
            length: self.order.u32(&head, 12),
            bytes: 0..kept as usize,
            link_type: self.link_type,
        }))
    }
}

/// Refuses a packet that nobody can have captured.
pub(super) fn check_kept<R: Read>(source: &Source<R>, kept: u32) -> Result<(), CaptureError> {
    if kept <= PACKET_MAX {
        return Ok(());
    }
    Err(source.damaged(format!(
        "a packet of {kept} bytes ({PACKET_MAX} are possible)"
    )))
}

fn foreign(start: &[u8]) -> CaptureError {
    let found = if start.is_empty() {
        "nothing".to_owned()
    } else {
        let hex: Vec<_> = start.iter().map(|byte| format!("{byte:02x}")).collect();
        hex.join(" ")
    };
    CaptureError::Foreign { found }
}

const ETHERNET: u16 = 1;

/// Link types that captures of the wrong interface have
/// (<https://www.tcpdump.org/linktypes.html>).
fn link_name(number: u16) -> String {
    let name = match number {
        0 => "NULL",
        9 => "PPP",
        101 => "RAW",
        105 => "IEEE802_11",
        113 => "LINUX_SLL",
        127 => "IEEE802_11_RADIOTAP",
        228 => "IPV4",
        229 => "IPV6",
        276 => "LINUX_SLL2",
        _ => return String::new(),
    };
    format!(" ({name})")
}

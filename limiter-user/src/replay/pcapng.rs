//! The pcapng format (draft-ietf-opsawg-pcapng): sections, interfaces, packets.

use super::pcap::{CaptureError, Head, Order, PACKET_MAX, Source, check_kept};
use std::io::Read;

/// The type of the block that begins a section, in either byte order.
pub(super) const SECTION: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

const INTERFACE: u32 = 1;
const OLD_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;

/// The type and length before a block's body, and the length after it, in bytes.
const BLOCK_FRAME: u32 = 12;
/// Bytes of a block's body that is read: a packet with options.
const BODY_MAX: u32 = 2 * PACKET_MAX;

const WHAT: &str = "a block";

/// What is known of the section at hand.
#[derive(Debug)]
pub(super) struct Section {
    order: Order,
    interfaces: Vec<Interface>,
}

#[derive(Clone, Copy, Debug)]
struct Interface {
    link_type: u16,
    snap_length: u32,
    resolution: Resolution,
    offset_s: i64,
}

impl Section {
    /// Reads a section's head behind its block type.
    pub(super) fn open<R: Read>(source: &mut Source<R>) -> Result<Self, CaptureError> {
        // The length comes before the mark that tells how to read it.
        let head: [u8; 8] = source.bytes("a section's head")?;
        let order = match head[4..] {
            [0x1a, 0x2b, 0x3c, 0x4d] => Order::Big,
            [0x4d, 0x3c, 0x2b, 0x1a] => Order::Little,
            _ => return Err(source.damaged("a section without its byte-order mark")),
        };
        let length = order.u32(&head, 0);
        check_length(source, length, BLOCK_FRAME + 16)?;
        let version: [u8; 4] = source.bytes("a section's head")?;
        let major = order.u16(&version, 0);
        if major != 1 {
            return Err(source.damaged(format!("pcapng version {major} (1 is known)")));
        }
        source.skip(length - 20, "a section's head")?;
        check_trailer(source, order, length)?;
        Ok(Self {
            order,
            interfaces: Vec::new(),
        })
    }

    /// The next packet, past everything else.
    pub(super) fn next<R: Read>(
        &mut self,
        source: &mut Source<R>,
    ) -> Result<Option<Head>, CaptureError> {
        while let Some(kind) = source.start::<4>(WHAT)? {
            if kind == SECTION {
                *self = Self::open(source)?;
                continue;
            }
            let length = self.order.u32(&source.bytes::<4>(WHAT)?, 0);
            check_length(source, length, BLOCK_FRAME)?;
            let kind = self.order.u32(&kind, 0);
            if let Some(packet) = self.block(source, kind, length)? {
                return Ok(Some(packet));
            }
        }
        Ok(None)
    }

    /// Reads or skips the rest of a block.
    fn block<R: Read>(
        &mut self,
        source: &mut Source<R>,
        kind: u32,
        length: u32,
    ) -> Result<Option<Head>, CaptureError> {
        let body = length - BLOCK_FRAME;
        if !matches!(
            kind,
            INTERFACE | OLD_PACKET | SIMPLE_PACKET | ENHANCED_PACKET
        ) {
            source.skip(body, WHAT)?;
            check_trailer(source, self.order, length)?;
            return Ok(None);
        }
        if body > BODY_MAX {
            return Err(source.damaged(format!("a block of {length} bytes")));
        }
        source.read_body(body, WHAT)?;
        check_trailer(source, self.order, length)?;
        match kind {
            INTERFACE => {
                let interface = self.interface(source)?;
                self.interfaces.push(interface);
                Ok(None)
            }
            SIMPLE_PACKET => self.simple(source).map(Some),
            OLD_PACKET => {
                let interface = self.order.u16(&source.body, 0);
                self.packet(source, interface.into()).map(Some)
            }
            _ => {
                let interface = self.order.u32(&source.body, 0);
                self.packet(source, interface).map(Some)
            }
        }
    }

    fn interface<R: Read>(&self, source: &Source<R>) -> Result<Interface, CaptureError> {
        let order = self.order;
        let Some((head, options)) = source.body.split_at_checked(8) else {
            return Err(source.damaged("an interface without its head"));
        };
        let mut interface = Interface {
            link_type: order.u16(head, 0),
            snap_length: order.u32(head, 4),
            resolution: Resolution::MICROSECONDS,
            offset_s: 0,
        };
        for (code, value) in Options(order, options) {
            match (code, value) {
                (9, [code]) => interface.resolution = Resolution(*code),
                (14, [_, _, _, _, _, _, _, _]) => {
                    let (first, second) = (order.u32(value, 0), order.u32(value, 4));
                    let (hi, lo) = match order {
                        Order::Big => (first, second),
                        Order::Little => (second, first),
                    };
                    interface.offset_s = (u64::from(hi) << 32 | u64::from(lo)).cast_signed();
                }
                _ => {}
            }
        }
        Ok(interface)
    }

    fn at<R>(&self, source: &Source<R>, interface: u32) -> Result<Interface, CaptureError>
    where
        R: Read,
    {
        let known = self.interfaces.get(interface as usize).copied();
        known.ok_or_else(|| {
            source.damaged(format!(
                "a packet of interface {interface}, which is not described"
            ))
        })
    }

    /// An enhanced packet block, or the older form of it: they differ in the
    /// interface's width alone.
    fn packet<R: Read>(&self, source: &Source<R>, interface: u32) -> Result<Head, CaptureError> {
        const HEAD: usize = 20;
        let interface = self.at(source, interface)?;
        let word = |at| self.order.u32(&source.body, at);
        let kept = word(12);
        check_kept(source, kept)?;
        let bytes = HEAD..HEAD + kept as usize;
        if bytes.end > source.body.len() {
            return Err(source.damaged("a packet longer than its block"));
        }
        let units = u64::from(word(4)) << 32 | u64::from(word(8));
        let at_ns = (interface.resolution)
            .nanoseconds(units, interface.offset_s)
            .ok_or_else(|| source.damaged("a time outside of the years 1970 to 2554"))?;
        Ok(Head {
            at_ns: Some(at_ns),
            length: word(16),
            bytes,
            link_type: interface.link_type,
        })
    }

    /// A simple packet block: of the first interface, without a time.
    fn simple<R: Read>(&self, source: &Source<R>) -> Result<Head, CaptureError> {
        let interface = self.at(source, 0)?;
        let Some(room) = source.body.len().checked_sub(4) else {
            return Err(source.damaged("a packet without its head"));
        };
        let length = self.order.u32(&source.body, 0);
        let snap_length = match interface.snap_length {
            0 => u32::MAX,
            snap_length => snap_length,
        };
        // The block is padded, and its own length bounds what was kept.
        let kept = room.min(length.min(snap_length) as usize);
        check_kept(source, kept as u32)?;
        Ok(Head {
            at_ns: None,
            length,
            bytes: 4..4 + kept,
            link_type: interface.link_type,
        })
    }
}

fn check_length<R: Read>(source: &Source<R>, length: u32, least: u32) -> Result<(), CaptureError> {
    if length >= least && length.is_multiple_of(4) {
        return Ok(());
    }
    Err(source.damaged(format!(
        "a block of {length} bytes (at least {least}, in fours)"
    )))
}

fn check_trailer<R: Read>(
    source: &mut Source<R>,
    order: Order,
    length: u32,
) -> Result<(), CaptureError> {
    let trailer = order.u32(&source.bytes::<4>(WHAT)?, 0);
    if trailer == length {
        return Ok(());
    }
    Err(source.damaged(format!(
        "a block that says {length} bytes before and {trailer} after"
    )))
}

/// The options at the end of a block: code and value. What is cut off ends it.
struct Options<'a>(Order, &'a [u8]);

impl<'a> Iterator for Options<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (head, rest) = self.1.split_at_checked(4)?;
        let code = self.0.u16(head, 0);
        let length = usize::from(self.0.u16(head, 2));
        if code == 0 {
            return None;
        }
        let value = rest.get(..length)?;
        self.1 = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((code, value))
    }
}

/// `if_tsresol`: a negative power of ten, or of two with the top bit set.
#[derive(Clone, Copy, Debug)]
struct Resolution(u8);

impl Resolution {
    const MICROSECONDS: Self = Self(6);

    /// `None` where the instant cannot be said in nanoseconds since 1970, or
    /// the resolution is finer than anything can be.
    fn nanoseconds(self, units: u64, offset_s: i64) -> Option<u64> {
        const SECOND_NS: u128 = 1_000_000_000;
        let power = u32::from(self.0 & 0x7f);
        let per_second = if self.0 & 0x80 == 0 {
            10_u128.checked_pow(power)?
        } else {
            1_u128.checked_shl(power)?
        };
        let since = u128::from(units) * SECOND_NS / per_second;
        let since = i128::try_from(since).ok()?;
        let offset = i128::from(offset_s) * SECOND_NS as i128;
        u64::try_from(since + offset).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolutions() {
        let second = 1_000_000_000;
        for (code, units, ns) in [
            (6, 1_500_000, Some(second + second / 2)),
            (9, 7, Some(7)),
            (0, 3, Some(3 * second)),
            (3, 1, Some(1_000_000)),
            (0x80 | 10, 512, Some(second / 2)),
            (38, u64::MAX, Some(0)),
            (39, 1, None),
            (0xff, u64::MAX, Some(0)),
            (0, u64::MAX, None),
        ] {
            assert_eq!(Resolution(code).nanoseconds(units, 0), ns, "{code}");
        }
        assert_eq!(Resolution(0).nanoseconds(5, -2), Some(3 * second));
        assert_eq!(Resolution(0).nanoseconds(5, -6), None);
        assert_eq!(Resolution(0).nanoseconds(5, i64::MIN), None);
    }
}

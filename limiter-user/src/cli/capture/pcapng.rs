//! Writes pcapng (draft-ietf-opsawg-pcapng): a section, Ethernet interfaces with
//! times in nanoseconds, and packets that came in, each with a comment.

use std::io::{self, Write};

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const PACKET: u32 = 6;

/// Tells readers in which order the bytes of numbers are.
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
/// `LINKTYPE_ETHERNET`.
const ETHERNET: u16 = 1;

const END: u16 = 0;
const COMMENT: u16 = 1;
/// Of a section: the program that wrote it.
const APPLICATION: u16 = 4;
/// Of an interface.
const NAME: u16 = 2;
/// Of an interface: the negative power of ten that times count.
const RESOLUTION: u16 = 9;
/// Of a packet: the low bits say which way it went.
const FLAGS: u16 = 2;
const INBOUND: u32 = 1;
/// Of a packet: what became of it, by whom.
const VERDICT: u16 = 7;
const XDP: u8 = 2;

/// A packet to write.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet<'a> {
    /// As [`Writer::interface`] said.
    pub(super) interface: u32,
    /// Nanoseconds since 1970.
    pub(super) time_ns: u64,
    /// Bytes that it had.
    pub(super) length: u32,
    /// Those that there are.
    pub(super) frame: &'a [u8],
    /// What the XDP program returned: 1 drop, 2 pass.
    pub(super) action: u64,
    pub(super) comment: &'a str,
}

/// Writes a capture.
#[derive(Debug)]
pub(super) struct Writer<W> {
    out: W,
    snap_length: u32,
    interfaces: Vec<String>,
}

impl<W: Write> Writer<W> {
    /// Begins a capture of packets of which `snap_length` bytes are kept.
    pub(super) fn new(out: W, application: &str, snap_length: u32) -> io::Result<Self> {
        let mut writer = Self {
            out,
            snap_length,
            interfaces: Vec::new(),
        };
        let mut body = Vec::new();
        body.extend(BYTE_ORDER.to_le_bytes());
        // Version 1.0; how long the section is nobody knows yet.
        body.extend(1_u16.to_le_bytes());
        body.extend(0_u16.to_le_bytes());
        body.extend(u64::MAX.to_le_bytes());
        option(&mut body, APPLICATION, application.as_bytes());
        option(&mut body, END, &[]);
        writer.block(SECTION, &body)?;
        Ok(writer)
    }

    /// The number of an interface, which is described if it is new.
    pub(super) fn interface(&mut self, name: &str) -> io::Result<u32> {
        let known = self.interfaces.iter().position(|known| known == name);
        if let Some(place) = known {
            return Ok(place as u32);
        }
        let mut body = Vec::new();
        body.extend(ETHERNET.to_le_bytes());
        body.extend(0_u16.to_le_bytes());
        body.extend(self.snap_length.to_le_bytes());
        option(&mut body, NAME, name.as_bytes());
        option(&mut body, RESOLUTION, &[9]);
        option(&mut body, END, &[]);
        self.block(INTERFACE, &body)?;
        self.interfaces.push(name.to_owned());
        Ok(self.interfaces.len() as u32 - 1)
    }

    /// Writes a packet.
    pub(super) fn packet(&mut self, packet: &Packet<'_>) -> io::Result<()> {
        let mut body = Vec::new();
        body.extend(packet.interface.to_le_bytes());
        body.extend(((packet.time_ns >> 32) as u32).to_le_bytes());
        body.extend((packet.time_ns as u32).to_le_bytes());
        body.extend((packet.frame.len() as u32).to_le_bytes());
        body.extend(packet.length.to_le_bytes());
        body.extend(packet.frame);
        pad(&mut body);
        option(&mut body, COMMENT, packet.comment.as_bytes());
        option(&mut body, FLAGS, &INBOUND.to_le_bytes());
        let mut verdict = vec![XDP];
        verdict.extend(packet.action.to_le_bytes());
        option(&mut body, VERDICT, &verdict);
        option(&mut body, END, &[]);
        self.block(PACKET, &body)
    }

    /// Lets everything reach the file.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Type, length, body, length again.
    fn block(&mut self, kind: u32, body: &[u8]) -> io::Result<()> {
        let length = (12 + body.len() as u32).to_le_bytes();
        self.out.write_all(&kind.to_le_bytes())?;
        self.out.write_all(&length)?;
        self.out.write_all(body)?;
        self.out.write_all(&length)
    }
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    // Comments and names are far shorter; what is not would be cut.
    let length = value.len().min(usize::from(u16::MAX));
    body.extend(code.to_le_bytes());
    body.extend((length as u16).to_le_bytes());
    body.extend(&value[..length]);
    pad(body);
}

/// Fills up a word of 32 bits.
fn pad(body: &mut Vec<u8>) {
    body.resize(body.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::Capture;

    #[test]
    fn what_is_written_can_be_read() {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes, "limiter 1", 256).unwrap();
        let frames: [&[u8]; 3] = [&[1; 14], &[2; 61], &[]];
        for (place, frame) in frames.into_iter().enumerate() {
            let packet = Packet {
                interface: writer.interface(["eth0", "eth1", "eth0"][place]).unwrap(),
                time_ns: 1_700_000_000_123_456_789 + place as u64,
                length: 1_514,
                frame,
                action: 1,
                comment: "drop: limit (packets) web",
            };
            assert_eq!(packet.interface, [0, 1, 0][place]);
            writer.packet(&packet).unwrap();
        }
        writer.flush().unwrap();
        assert_eq!(bytes.len() % 4, 0);
        let mut capture = Capture::open(&bytes[..]).unwrap();
        for (place, frame) in frames.into_iter().enumerate() {
            let packet = capture.next_packet().unwrap().unwrap();
            assert_eq!((packet.bytes, packet.length), (frame, 1_514));
            assert_eq!(packet.at_ns, Some(1_700_000_000_123_456_789 + place as u64));
        }
        assert!(capture.next_packet().unwrap().is_none());
    }

    /// Byte for byte, as the draft lays a packet out.
    #[test]
    fn a_packet_has_its_options() {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes, "x", 64).unwrap();
        let start = 12 + 16 + 8 + 4;
        let packet = Packet {
            interface: 0,
            time_ns: 0x0102_0304_0506_0708,
            length: 60,
            frame: &[0xaa],
            action: 2,
            comment: "deny",
        };
        writer.packet(&packet).unwrap();
        #[rustfmt::skip]
        let expected = [
            6, 0, 0, 0, 72, 0, 0, 0,
            0, 0, 0, 0, 4, 3, 2, 1, 8, 7, 6, 5, 1, 0, 0, 0, 60, 0, 0, 0, 0xaa, 0, 0, 0,
            1, 0, 4, 0, b'd', b'e', b'n', b'y',
            2, 0, 4, 0, 1, 0, 0, 0,
            7, 0, 9, 0, 2, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            0, 0, 0, 0,
            72, 0, 0, 0,
        ];
        assert_eq!(bytes[start..], expected);
    }
}

//! A frame of which a capture kept only the beginning.

use limiter_common::packet::Frame;

/// Headers are read from what was kept; lengths are those of the whole frame,
/// so that a cut frame is judged as it was received.
#[derive(Debug)]
pub struct CutFrame<'a> {
    bytes: &'a [u8],
    length: usize,
}

impl<'a> CutFrame<'a> {
    /// The frame of `length` bytes that began with `bytes`.
    pub fn new(bytes: &'a [u8], length: usize) -> Self {
        Self {
            bytes,
            length: length.max(bytes.len()),
        }
    }
}

impl Frame for CutFrame<'_> {
    type Header<'a, const N: usize>
        = [u8; N]
    where
        Self: 'a;

    fn header<const N: usize>(&mut self, offset: usize) -> Option<[u8; N]> {
        self.bytes.get(offset..)?.first_chunk().copied()
    }

    fn reaches(&self, end: usize) -> bool {
        self.length >= end
    }

    fn length(&self) -> usize {
        self.length
    }
}

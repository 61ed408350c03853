//! What is in a pcapng file, read from the format's draft and apart from the
//! product's own reader and writer: little-endian, one section.

use anyhow::{Context as _, Result, bail, ensure};

/// A packet with what the tests look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The interface's name.
    pub interface: String,
    /// Nanoseconds since 1970.
    pub time_ns: u64,
    /// Bytes that it had.
    pub length: u32,
    /// Those that are there.
    pub frame: Vec<u8>,
    /// The comment.
    pub comment: String,
    /// What XDP returned.
    pub action: u64,
}

/// The interfaces and the packets of a whole capture.
pub fn read(mut bytes: &[u8]) -> Result<(Vec<String>, Vec<Packet>)> {
    let (mut interfaces, mut packets) = (Vec::new(), Vec::new());
    let mut is_first = true;
    while !bytes.is_empty() {
        let length = word(bytes, 4)? as usize;
        let block = bytes.get(..length).context("a block is cut off")?;
        ensure!(length.is_multiple_of(4) && length >= 12, "{length} bytes");
        ensure!(word(block, length - 4)? as usize == length, "two lengths");
        let body = &block[8..length - 4];
        let kind = word(block, 0)?;
        ensure!(is_first == (kind == 0x0a0d_0d0a), "sections");
        is_first = false;
        match kind {
            0x0a0d_0d0a => ensure!(word(body, 0)? == 0x1a2b_3c4d, "byte order"),
            1 => interfaces.push(interface(body)?),
            6 => packets.push(packet(body, &interfaces)?),
            other => bail!("block of type {other}"),
        }
        bytes = &bytes[length..];
    }
    Ok((interfaces, packets))
}

fn interface(body: &[u8]) -> Result<String> {
    ensure!(word(body, 0)? == 1, "no Ethernet");
    let options = options(&body[8..])?;
    ensure!(find(&options, 9)? == [9], "no nanoseconds");
    Ok(String::from_utf8(find(&options, 2)?.to_vec())?)
}

fn packet(body: &[u8], interfaces: &[String]) -> Result<Packet> {
    let captured = word(body, 12)? as usize;
    let interface = interfaces.get(word(body, 0)? as usize);
    let frame = body.get(20..20 + captured).context("a frame is cut off")?;
    let options = options(&body[20 + captured.next_multiple_of(4)..])?;
    let verdict = find(&options, 7)?;
    ensure!(verdict.len() == 9 && verdict[0] == 2, "{verdict:?}");
    Ok(Packet {
        interface: interface.context("no such interface")?.clone(),
        time_ns: u64::from(word(body, 4)?) << 32 | u64::from(word(body, 8)?),
        length: word(body, 16)?,
        frame: frame.to_vec(),
        comment: String::from_utf8(find(&options, 1)?.to_vec())?,
        action: verdict[1].into(),
    })
}

type Options<'a> = Vec<(u16, &'a [u8])>;

fn options(mut bytes: &[u8]) -> Result<Options<'_>> {
    let mut options = Vec::new();
    loop {
        let head = word(bytes, 0)?;
        let (code, length) = (head as u16, (head >> 16) as usize);
        if code == 0 {
            ensure!(bytes.len() == 4, "something behind the options");
            return Ok(options);
        }
        let value = bytes.get(4..4 + length).context("an option is cut off")?;
        options.push((code, value));
        bytes = bytes
            .get(4 + length.next_multiple_of(4)..)
            .context("no end of options")?;
    }
}

fn find<'a>(options: &Options<'a>, code: u16) -> Result<&'a [u8]> {
    let found = options.iter().find(|(found, _)| *found == code);
    let (_, value) = found.with_context(|| format!("no option {code}"))?;
    Ok(value)
}

fn word(bytes: &[u8], at: usize) -> Result<u32> {
    let bytes = bytes.get(at..).and_then(|bytes| bytes.first_chunk());
    Ok(u32::from_le_bytes(*bytes.context("a word is cut off")?))
}

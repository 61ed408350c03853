//! What HAProxy sends and hears: frames of SPOP 2.0, `doc/SPOE.txt` of HAProxy.

use bytes::BytesMut;
use spop::frames::{Ack, AgentDisconnect, AgentHello, FrameCapabilities, HaproxyHello};
use spop::{FramePayload, FrameType, SpopCodec, SpopFrame, StatusCode};
use tokio_util::codec::{Decoder as _, Encoder as _};

/// The largest frame. HAProxy offers its `tune.bufsize`, 16 KiB unless configured.
pub(super) const MAX_FRAME: u32 = 256 << 10;

/// A whole conversation with one peer: bytes in, frames out.
#[derive(Debug)]
pub(super) struct Conversation {
    codec: SpopCodec,
    is_greeted: bool,
}

/// What was heard.
#[derive(Debug)]
pub(super) enum Heard {
    /// Something that is answered so at once; `true`: and nothing after it.
    Answer(BytesMut, bool),
    /// Messages of a stream, to be acknowledged.
    Notify(Notified),
}

/// Messages of a stream.
#[derive(Debug)]
pub(super) struct Notified {
    frame: Box<dyn SpopFrame>,
}

/// Why a conversation ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Broken {
    /// A frame is none, or too large.
    #[error("sent what is no frame of SPOP, or one of more than {MAX_FRAME} bytes")]
    Frame,
    /// It does not begin with a greeting, or greets twice.
    #[error("does not greet first, or greets twice")]
    Greeting,
    /// It offers no version of SPOP that is spoken here.
    #[error("speaks no SPOP 2.0, or frames of fewer than 256 bytes")]
    Version,
}

impl Conversation {
    pub(super) const fn new() -> Self {
        Self {
            codec: SpopCodec::new(MAX_FRAME),
            is_greeted: false,
        }
    }

    /// Whether the peer has said who it is.
    pub(super) const fn is_greeted(&self) -> bool {
        self.is_greeted
    }

    /// Takes the next whole frame off `bytes`; `None`: there is none yet.
    pub(super) fn hear(&mut self, bytes: &mut BytesMut) -> Result<Option<Heard>, Broken> {
        let Some(frame) = self.codec.decode(bytes).map_err(|_| Broken::Frame)? else {
            return Ok(None);
        };
        match frame.frame_type() {
            FrameType::HaproxyHello if !self.is_greeted => self.greet(frame.payload()),
            FrameType::HaproxyDisconnect => {
                Ok(Some(Heard::Answer(goodbye(StatusCode::None), true)))
            }
            FrameType::Notify if self.is_greeted => Ok(Some(Heard::Notify(Notified { frame }))),
            _ => Err(Broken::Greeting),
        }
    }

    fn greet(&mut self, payload: FramePayload<'_>) -> Result<Option<Heard>, Broken> {
        let hello = HaproxyHello::try_from(payload).map_err(|_| Broken::Frame)?;
        let version = hello.negotiate_version().ok_or(Broken::Version)?;
        let max_frame_size = hello.negotiate_max_frame_size(MAX_FRAME);
        let max_frame_size = max_frame_size.map_err(|_| Broken::Version)?;
        self.codec.set_max_frame_size(max_frame_size);
        self.is_greeted = true;
        let answer = AgentHello {
            version,
            max_frame_size,
            capabilities: vec![FrameCapabilities::Pipelining],
        };
        // HAProxy closes the connection of a health check itself.
        let is_check = hello.healthcheck == Some(true);
        Ok(Some(Heard::Answer(written(Box::new(answer)), is_check)))
    }
}

impl Notified {
    /// The messages in it.
    pub(super) fn messages(&self) -> Vec<spop::frame::Message> {
        match self.frame.payload() {
            FramePayload::ListOfMessages(messages) => messages.to_vec(),
            _ => Vec::new(),
        }
    }

    /// Its acknowledgement, without actions.
    pub(super) fn ack(&self) -> Ack {
        let of = self.frame.metadata();
        Ack::new(of.stream_id, of.frame_id)
    }
}

impl Broken {
    /// What HAProxy is told before the connection is closed.
    pub(super) fn told(self) -> BytesMut {
        goodbye(match self {
            Self::Frame => StatusCode::Invalid,
            Self::Greeting => StatusCode::NoVersion,
            Self::Version => StatusCode::BadVersion,
        })
    }
}

fn goodbye(status: StatusCode) -> BytesMut {
    written(Box::new(AgentDisconnect {
        status_code: status.to_u32(),
        message: status.message().to_owned(),
    }))
}

/// A frame as it goes out; nothing if it is too large for the largest.
pub(super) fn written(frame: Box<dyn SpopFrame>) -> BytesMut {
    let mut bytes = BytesMut::new();
    match SpopCodec::new(MAX_FRAME).encode(frame, &mut bytes) {
        Ok(()) => bytes,
        Err(_) => BytesMut::new(),
    }
}

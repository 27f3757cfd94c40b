//! The three messages.

use super::codec::{Reader, Writer};
use super::{BellKind, BellKinds, Features, HandshakeError, VersionRange};
use crate::limits::{MAX_CLIENT_NAME_BYTES, MAX_REFUSAL_TEXT_BYTES};
use crate::status::cut;
use std::fmt;

/// What a client says first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Versions the client speaks.
    pub versions: VersionRange,
    /// Features the client has.
    pub features: Features,
    /// Size the client would like both rings to have; 0 for no wish.
    pub ring_capacity_bytes: u32,
    /// Bytes of items per stream that the server may send ahead.
    pub receive_window_bytes: u32,
    /// Largest message the client accepts.
    pub max_message_bytes: u64,
    /// Doorbells the client has.
    pub bells: BellKinds,
    /// The client's own name for the server's logs, not to be trusted; cut to 64 bytes when written.
    pub name: String,
}

/// What a server says to a client that it accepts. Four descriptors ride with it: the memory the server writes, the memory the
/// client writes, the bell the client notifies and the bell the client listens on; with [`Features::GIVE_BACK`] a fifth, the second
/// memory that the server writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// Version that both sides speak from now on.
    pub version: u16,
    /// Features that both sides use from now on.
    pub features: Features,
    /// Capacity of the ring that the server writes, a power of two.
    pub server_ring_capacity_bytes: u32,
    /// Capacity of the ring that the client writes, a power of two.
    pub client_ring_capacity_bytes: u32,
    /// Calls in flight at once.
    pub max_calls: u32,
    /// Bytes of items per stream that the client may send ahead.
    pub receive_window_bytes: u32,
    /// Largest message the server accepts.
    pub max_message_bytes: u64,
    /// Largest body of a frame, in both directions.
    pub max_chunk_bytes: u32,
    /// Kind of both doorbells.
    pub bell: BellKind,
}

/// What a server says to a client that it does not accept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub reason: RefuseReason,
    /// Versions the server speaks.
    pub versions: VersionRange,
    /// An explanation for a person; cut to 512 bytes when written.
    pub text: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.text.is_empty() {
            return self.reason.fmt(f);
        }
        write!(f, "{}: {}", self.reason, self.text)
    }
}

/// Why a server does not accept a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefuseReason {
    /// No common version.
    Version,
    /// The user may not connect.
    Permission,
    /// The server has as many connections as it takes.
    Full,
    /// The user has as many connections as one may have.
    PerUserLimit,
    /// The server is about to end.
    ShuttingDown,
    /// The hello was not valid.
    Malformed,
    /// Memory or descriptors ran out.
    Resources,
    /// The configuration of the server excludes the client, for instance because no doorbell is common.
    Policy,
    /// A reason that a later version has added.
    Other(u16),
}

impl RefuseReason {
    /// Returns the reason with this number on the wire.
    pub const fn from_u16(reason: u16) -> Self {
        match reason {
            1 => Self::Version,
            2 => Self::Permission,
            3 => Self::Full,
            4 => Self::PerUserLimit,
            5 => Self::ShuttingDown,
            6 => Self::Malformed,
            7 => Self::Resources,
            8 => Self::Policy,
            other => Self::Other(other),
        }
    }

    /// Returns the number on the wire.
    pub const fn as_u16(self) -> u16 {
        match self {
            Self::Version => 1,
            Self::Permission => 2,
            Self::Full => 3,
            Self::PerUserLimit => 4,
            Self::ShuttingDown => 5,
            Self::Malformed => 6,
            Self::Resources => 7,
            Self::Policy => 8,
            Self::Other(other) => other,
        }
    }

    /// Returns `true` if the same attempt can succeed later without any change.
    pub const fn is_retryable(self) -> bool {
        match self {
            Self::Full | Self::PerUserLimit | Self::ShuttingDown | Self::Resources => true,
            Self::Version | Self::Permission | Self::Malformed | Self::Policy | Self::Other(_) => {
                false
            }
        }
    }
}

impl fmt::Display for RefuseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Version => "no common protocol version",
            Self::Permission => "permission denied",
            Self::Full => "the server is full",
            Self::PerUserLimit => "the user has its share",
            Self::ShuttingDown => "the server is shutting down",
            Self::Malformed => "the hello is not valid",
            Self::Resources => "the server is out of resources",
            Self::Policy => "excluded by the server's configuration",
            Self::Other(reason) => return write!(f, "unknown reason {reason}"),
        })
    }
}

/// One message on the control socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// From the client.
    Hello(Hello),
    /// From the server.
    Welcome(Welcome),
    /// From the server.
    Refused(Refused),
}

impl Message {
    /// Reads the message at the start of `bytes` and returns it with its length, or `None` while it is incomplete.
    ///
    /// # Errors
    ///
    /// [`HandshakeError`] as soon as the bytes cannot become a message any more.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, HandshakeError> {
        let Some((kind, mut fields, message_bytes)) = Reader::open(bytes)? else {
            return Ok(None);
        };
        let message = match kind {
            HELLO => Self::Hello(Hello::read(&mut fields)?),
            WELCOME => Self::Welcome(Welcome::read(&mut fields)?),
            REFUSED => Self::Refused(Refused::read(&mut fields)?),
            kind => return Err(HandshakeError::UnknownKind { kind }),
        };
        fields.finish()?;
        Ok(Some((message, message_bytes)))
    }

    /// Returns the message as bytes.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Hello(hello) => hello.encode(),
            Self::Welcome(welcome) => welcome.encode(),
            Self::Refused(refused) => refused.encode(),
        }
    }
}

impl Hello {
    /// Returns the message as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(HELLO);
        writer.versions(self.versions);
        writer.bytes(&self.features.bits().to_le_bytes());
        writer.bytes(&self.ring_capacity_bytes.to_le_bytes());
        writer.bytes(&self.receive_window_bytes.to_le_bytes());
        writer.bytes(&self.max_message_bytes.to_le_bytes());
        writer.bytes(&[self.bells.bits()]);
        writer.text(cut(&self.name, MAX_CLIENT_NAME_BYTES));
        writer.finish()
    }

    fn read(fields: &mut Reader<'_>) -> Result<Self, HandshakeError> {
        Ok(Self {
            versions: fields.versions()?,
            features: Features::from_bits(fields.u64("features")?),
            ring_capacity_bytes: fields.u32("ring_capacity_bytes")?,
            receive_window_bytes: fields.u32("receive_window_bytes")?,
            max_message_bytes: fields.u64("max_message_bytes")?,
            bells: BellKinds::from_bits(fields.u8("bells")?),
            name: fields.text("name", MAX_CLIENT_NAME_BYTES)?,
        })
    }
}

impl Welcome {
    /// Returns the message as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(WELCOME);
        writer.bytes(&self.version.to_le_bytes());
        writer.bytes(&self.features.bits().to_le_bytes());
        writer.bytes(&self.server_ring_capacity_bytes.to_le_bytes());
        writer.bytes(&self.client_ring_capacity_bytes.to_le_bytes());
        writer.bytes(&self.max_calls.to_le_bytes());
        writer.bytes(&self.receive_window_bytes.to_le_bytes());
        writer.bytes(&self.max_message_bytes.to_le_bytes());
        writer.bytes(&self.max_chunk_bytes.to_le_bytes());
        writer.bytes(&[self.bell as u8]);
        writer.finish()
    }

    fn read(fields: &mut Reader<'_>) -> Result<Self, HandshakeError> {
        Ok(Self {
            version: fields.u16("version")?,
            features: Features::from_bits(fields.u64("features")?),
            server_ring_capacity_bytes: fields.u32("server_ring_capacity_bytes")?,
            client_ring_capacity_bytes: fields.u32("client_ring_capacity_bytes")?,
            max_calls: fields.u32("max_calls")?,
            receive_window_bytes: fields.u32("receive_window_bytes")?,
            max_message_bytes: fields.u64("max_message_bytes")?,
            max_chunk_bytes: fields.u32("max_chunk_bytes")?,
            bell: read_bell(fields)?,
        })
    }
}

impl Refused {
    /// Returns the message as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(REFUSED);
        writer.bytes(&self.reason.as_u16().to_le_bytes());
        writer.versions(self.versions);
        writer.text(cut(&self.text, MAX_REFUSAL_TEXT_BYTES));
        writer.finish()
    }

    fn read(fields: &mut Reader<'_>) -> Result<Self, HandshakeError> {
        Ok(Self {
            reason: RefuseReason::from_u16(fields.u16("reason")?),
            versions: fields.versions()?,
            text: fields.text("text", MAX_REFUSAL_TEXT_BYTES)?,
        })
    }
}

fn read_bell(fields: &mut Reader<'_>) -> Result<BellKind, HandshakeError> {
    let bell = fields.u8("bell")?;
    BellKind::from_u8(bell).ok_or(HandshakeError::Field {
        field: "bell",
        value: u64::from(bell),
    })
}

const HELLO: u8 = 1;
const WELCOME: u8 = 2;
const REFUSED: u8 = 3;

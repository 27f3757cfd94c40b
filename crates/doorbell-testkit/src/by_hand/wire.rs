//! Bytes of the control socket and of frames.

/// Kinds of frames.
#[allow(missing_docs, reason = "named as in the specification")]
pub mod kind {
    pub const PAD: u8 = 0;
    pub const CALL: u8 = 1;
    pub const RESPONSE: u8 = 2;
    pub const ERROR: u8 = 3;
    pub const DATA: u8 = 4;
    pub const END: u8 = 5;
    pub const CANCEL: u8 = 6;
    pub const CREDIT: u8 = 7;
    pub const NOTIFY: u8 = 8;
    pub const PING: u8 = 9;
    pub const PONG: u8 = 10;
    pub const GOAWAY: u8 = 11;
    pub const SEGMENT: u8 = 12;
    pub const WANT_SEGMENT: u8 = 13;
    pub const RELEASE: u8 = 15;
    pub const QUIET: u8 = 16;
}

/// Flags of frames.
#[allow(missing_docs, reason = "named as in the specification")]
pub mod flags {
    pub const MORE: u8 = 0x01;
    pub const CONTINUE: u8 = 0x02;
    pub const DEADLINE: u8 = 0x04;
    pub const BODY_CRC: u8 = 0x08;
    pub const UPLOAD: u8 = 0x10;
    pub const STREAMING: u8 = 0x20;
    pub const NOT_EXECUTED: u8 = 0x40;
    /// On other kinds than `ERROR`.
    pub const LOANED: u8 = 0x40;
    pub const PACKED: u8 = 0x80;
}

/// A hello, any field of which can be wrong.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "named as in the specification")]
pub struct HandHello {
    pub versions: (u16, u16),
    pub features: u64,
    pub ring_capacity_bytes: u32,
    pub receive_window_bytes: u32,
    pub max_message_bytes: u64,
    pub bells: u8,
    /// What is said to be the length of the name.
    pub name_bytes: u16,
    pub name: Vec<u8>,
}

impl HandHello {
    /// Bit of the feature with which payloads may be lent.
    pub const LOANS: u64 = 2;
    /// Bit of the feature with which the server's ring lies in two memories.
    pub const GIVE_BACK: u64 = 4;

    /// Returns one that is in order.
    pub fn proper() -> Self {
        Self {
            versions: (1, 1),
            features: 1,
            ring_capacity_bytes: 0,
            receive_window_bytes: 256 << 10,
            max_message_bytes: 64 << 20,
            bells: 3,
            name_bytes: 4,
            name: b"hand".to_vec(),
        }
    }

    /// Returns the message.
    pub fn bytes(&self) -> Vec<u8> {
        let mut fields = Vec::new();
        fields.extend(self.versions.0.to_le_bytes());
        fields.extend(self.versions.1.to_le_bytes());
        fields.extend(self.features.to_le_bytes());
        fields.extend(self.ring_capacity_bytes.to_le_bytes());
        fields.extend(self.receive_window_bytes.to_le_bytes());
        fields.extend(self.max_message_bytes.to_le_bytes());
        fields.push(self.bells);
        fields.extend(self.name_bytes.to_le_bytes());
        fields.extend(&self.name);
        control(1, &fields)
    }
}

/// A welcome.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "named as in the specification")]
pub struct HandWelcome {
    pub version: u16,
    pub features: u64,
    pub server_ring_capacity_bytes: u32,
    pub client_ring_capacity_bytes: u32,
    pub max_calls: u32,
    pub receive_window_bytes: u32,
    pub max_message_bytes: u64,
    pub max_chunk_bytes: u32,
    pub bell: u8,
}

impl HandWelcome {
    /// Returns one that suits every client, with the doorbell that it wants most.
    pub fn proper(bells: u8) -> Self {
        Self {
            version: 1,
            features: 1,
            server_ring_capacity_bytes: 64 << 10,
            client_ring_capacity_bytes: 64 << 10,
            max_calls: 64,
            receive_window_bytes: 256 << 10,
            max_message_bytes: 1 << 20,
            max_chunk_bytes: 8 << 10,
            bell: if bells & 1 != 0 { 1 } else { 2 },
        }
    }

    /// Returns the message.
    pub fn bytes(&self) -> Vec<u8> {
        let mut fields = Vec::new();
        fields.extend(self.version.to_le_bytes());
        fields.extend(self.features.to_le_bytes());
        fields.extend(self.server_ring_capacity_bytes.to_le_bytes());
        fields.extend(self.client_ring_capacity_bytes.to_le_bytes());
        fields.extend(self.max_calls.to_le_bytes());
        fields.extend(self.receive_window_bytes.to_le_bytes());
        fields.extend(self.max_message_bytes.to_le_bytes());
        fields.extend(self.max_chunk_bytes.to_le_bytes());
        fields.push(self.bell);
        control(2, &fields)
    }

    pub(super) fn read(fields: &[u8]) -> Self {
        let u32_at = |at: usize| u32::from_le_bytes(fields[at..at + 4].try_into().expect("four"));
        let u64_at = |at: usize| u64::from_le_bytes(fields[at..at + 8].try_into().expect("eight"));
        Self {
            version: u16::from_le_bytes([fields[0], fields[1]]),
            features: u64_at(2),
            server_ring_capacity_bytes: u32_at(10),
            client_ring_capacity_bytes: u32_at(14),
            max_calls: u32_at(18),
            receive_window_bytes: u32_at(22),
            max_message_bytes: u64_at(26),
            max_chunk_bytes: u32_at(34),
            bell: fields[38],
        }
    }
}

/// Returns a message of the control socket.
pub fn control(kind: u8, fields: &[u8]) -> Vec<u8> {
    let length = u32::try_from(fields.len() + 1).expect("a short message");
    [MAGIC.as_slice(), &length.to_le_bytes(), &[kind], fields].concat()
}

/// First bytes of every message on the control socket.
pub(super) const MAGIC: &[u8; 8] = b"DRBLCTL1";

/// A frame, any field of which can be wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as in the specification")]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub metadata_bytes: u16,
    pub id: u64,
    pub value: u32,
    pub body: Vec<u8>,
}

impl Frame {
    /// Returns one without flags and body.
    pub fn new(kind: u8, id: u64, value: u32) -> Self {
        Self {
            kind,
            id,
            value,
            ..Self::default()
        }
    }

    /// Sets flags.
    #[must_use]
    pub fn flags(mut self, flags: u8) -> Self {
        self.flags |= flags;
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Returns header and body, with the checksum over both if the flag says so.
    pub fn bytes(&self) -> Vec<u8> {
        let length = u32::try_from(self.body.len()).expect("a frame");
        self.bytes_that_claim(length)
    }

    /// As [`bytes`](Self::bytes), with another length than the body has.
    pub fn bytes_that_claim(&self, length: u32) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(24 + self.body.len());
        bytes.extend(length.to_le_bytes());
        bytes.push(self.kind);
        bytes.push(self.flags);
        bytes.extend(self.metadata_bytes.to_le_bytes());
        bytes.extend(self.id.to_le_bytes());
        bytes.extend(self.value.to_le_bytes());
        let crc = if self.flags & flags::BODY_CRC != 0 {
            checksum(&[&bytes, &self.body])
        } else {
            checksum(&[&bytes])
        };
        bytes.extend(crc.to_le_bytes());
        bytes.extend(&self.body);
        bytes
    }

    /// Reads a frame, whose checksum is not looked at.
    pub(super) fn read(header: &[u8; 24], body: Vec<u8>) -> Self {
        let u32_at = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four"));
        Self {
            kind: header[4],
            flags: header[5],
            metadata_bytes: u16::from_le_bytes([header[6], header[7]]),
            id: u64::from(u32_at(12)) << 32 | u64::from(u32_at(8)),
            value: u32_at(16),
            body,
        }
    }
}

/// Returns the CRC-32C of the parts, one bit at a time.
pub fn checksum(parts: &[&[u8]]) -> u32 {
    let mut crc = u32::MAX;
    for byte in parts.iter().copied().flatten() {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82F6_3B78 * (crc & 1));
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_is_that_of_the_specification() {
        assert_eq!(checksum(&[b"12345", b"6789"]), 0xE306_9283);
    }

    #[test]
    fn frame_and_hello_are_those_of_the_specification() {
        let hex = |bytes: &[u8]| {
            bytes
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
        };
        let call = Frame::new(kind::CALL, 1 << 32, 7).body(*b"hello");
        assert_eq!(
            hex(&call.bytes()),
            "050000000100000000000000010000000700000064b7b9f468656c6c6f"
        );
        let hello = HandHello {
            name: b"editor".to_vec(),
            name_bytes: 6,
            receive_window_bytes: 262_144,
            max_message_bytes: 67_108_864,
            ..HandHello::proper()
        };
        assert_eq!(
            hex(&hello.bytes()),
            "4452424c43544c31260000000101000100010000000000000000000000000004000000000400000000030600656469746f72"
        );
    }
}

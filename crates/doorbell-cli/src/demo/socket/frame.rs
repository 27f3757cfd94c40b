//! Frames: a header of 11 bytes and a body.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// Largest body that is accepted.
const MAX_BODY_BYTES: usize = 128 << 20;

/// Length of a header: body length, kind, request id, tag.
const HEADER_BYTES: usize = 4 + 1 + 4 + 2;

/// What a frame is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A request with one reply. The tag is the message type, as in the next two.
    Call,
    /// A request with a stream of items, perhaps in both directions.
    Stream,
    /// A message that nothing answers.
    Notify,
    /// The reply to a call.
    Reply,
    /// An item of a stream, in either direction.
    Item,
    /// The end of the items of one direction.
    End,
    /// The end of a call or stream that failed. The body is the reason; the tag tells whether the request made sense.
    Error,
    /// The client wants no more of this call or stream.
    Cancel,
    /// The tag is a number of further items that may be sent.
    Credit,
}

impl Kind {
    const ALL: [Self; 9] = [
        Self::Call,
        Self::Stream,
        Self::Notify,
        Self::Reply,
        Self::Item,
        Self::End,
        Self::Error,
        Self::Cancel,
        Self::Credit,
    ];
}

/// A frame that arrived.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    pub(super) id: u32,
    pub(super) tag: u16,
    pub(super) body: Vec<u8>,
}

/// Makes the header of a frame.
pub(super) fn header(body_bytes: usize, kind: Kind, id: u32, tag: u16) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[0..4].copy_from_slice(&(body_bytes as u32).to_le_bytes());
    header[4] = kind as u8;
    header[5..9].copy_from_slice(&id.to_le_bytes());
    header[9..11].copy_from_slice(&tag.to_le_bytes());
    header
}

/// Reads a frame. `reader` is buffered; a large body goes straight to its place.
pub(super) async fn read(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<Frame> {
    let mut header = [0; HEADER_BYTES];
    reader.read_exact(&mut header).await?;
    let [l0, l1, l2, l3, kind, i0, i1, i2, i3, t0, t1] = header;
    let body_bytes = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    let kind = Kind::ALL.get(usize::from(kind)).copied();
    let (Some(kind), ..=MAX_BODY_BYTES) = (kind, body_bytes) else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the peer sent something that is no frame",
        ));
    };
    let mut body = Vec::with_capacity(body_bytes);
    if body_bytes > 0 {
        (&mut *reader)
            .take(body_bytes as u64)
            .read_to_end(&mut body)
            .await?;
    }
    if body.len() < body_bytes {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Frame {
        kind,
        id: u32::from_le_bytes([i0, i1, i2, i3]),
        tag: u16::from_le_bytes([t0, t1]),
        body,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frame_is_read_as_it_was_written() {
        let mut bytes = header(3, Kind::Credit, 70_000, 258).to_vec();
        bytes.extend_from_slice(b"abc");
        let frame = read(&mut bytes.as_slice()).await.unwrap();
        assert_eq!(
            (frame.kind, frame.id, frame.tag, frame.body.as_slice()),
            (Kind::Credit, 70_000, 258, &b"abc"[..])
        );
    }

    #[tokio::test]
    async fn nonsense_is_refused() {
        let mut bytes = header(0, Kind::Call, 1, 1);
        bytes[4] = 99;
        assert_eq!(
            read(&mut &bytes[..]).await.unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
        let short = header(4, Kind::Call, 1, 1);
        assert_eq!(
            read(&mut &short[..]).await.unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
    }
}

//! Bodies of `PACKED` frames: several small messages, each a `u32` length and that many bytes.

use super::{FrameError, FrameHeader};

/// The messages of a packed frame, in order. Every length in it has been checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packed<'a> {
    rest: &'a [u8],
    count: usize,
    longest_bytes: usize,
}

impl<'a> Packed<'a> {
    /// Returns the messages in the body of a frame if its header says that it is packed.
    ///
    /// # Errors
    ///
    /// Those of [`parse`](Self::parse).
    #[inline]
    pub(crate) fn of(header: &FrameHeader, body: &'a [u8]) -> Result<Option<Self>, FrameError> {
        if header.is_packed() {
            Self::parse(header, body).map(Some)
        } else {
            Ok(None)
        }
    }

    /// Checks the lengths in the body of a packed frame.
    ///
    /// # Errors
    ///
    /// [`FrameError`] if the last message does not end where the body does, or there is none.
    pub fn parse(header: &FrameHeader, body: &'a [u8]) -> Result<Self, FrameError> {
        if let Some(packed) = Self::of_one_length(body) {
            return Ok(packed);
        }
        let (mut at, mut count, mut longest_bytes) = (0, 0, 0);
        while let Some((message, next)) = packed_at(body, at) {
            count += 1;
            longest_bytes = longest_bytes.max(message.len());
            at = next;
        }
        if at == 0 || at != body.len() {
            return Err(FrameError::Packed {
                kind: header.kind,
                at,
            });
        }
        Ok(Self {
            rest: body,
            count,
            longest_bytes,
        })
    }

    /// As [`parse`](Self::parse), if all messages have the same length, as most do. Where each length must be is known then without the one before it,
    /// so that none of these looks waits for another.
    #[inline]
    fn of_one_length(body: &'a [u8]) -> Option<Self> {
        let (length, _) = body.split_first_chunk::<PACKED_LENGTH_BYTES>()?;
        let longest_bytes = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        let mut messages = body.chunks_exact(longest_bytes.checked_add(PACKED_LENGTH_BYTES)?);
        if !messages.remainder().is_empty() {
            return None;
        }
        let count = messages.len();
        let are_alike = messages.all(|message| message.starts_with(length));
        are_alike.then_some(Self {
            rest: body,
            count,
            longest_bytes,
        })
    }

    /// Returns the number of messages, at least 1.
    #[inline]
    pub fn total(&self) -> usize {
        self.count
    }

    /// Returns the size of the longest message.
    #[inline]
    pub fn longest_bytes(&self) -> usize {
        self.longest_bytes
    }

    /// Returns the bytes of the messages that have not been taken, lengths included; [`packed_at`] finds them again.
    #[inline]
    pub fn as_bytes(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Packed<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        let (message, next) = packed_at(self.rest, 0)?;
        self.rest = self.rest.get(next..)?;
        Some(message)
    }
}

/// Returns the message that begins at `at` in the body of a packed frame, and where the next one begins. `None` at the end, or if the
/// body ends before the message does.
#[inline]
pub fn packed_at(body: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let (length, rest) = body.get(at..)?.split_first_chunk()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let message = rest.get(..length)?;
    Some((message, at + PACKED_LENGTH_BYTES + length))
}

/// Appends a message to the body of a packed frame: `write` appends its bytes.
///
/// # Errors
///
/// Those of `write`; nothing has been appended then.
///
/// # Panics
///
/// If the message has 4 GiB or more, or if `write` does; nothing has been appended then either.
pub fn pack<E>(
    body: &mut Vec<u8>,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    let start = body.len();
    let half = Half { body, start };
    half.body.extend_from_slice(&[0; PACKED_LENGTH_BYTES]);
    write(half.body)?;
    let message_bytes = half.body.len() - start - PACKED_LENGTH_BYTES;
    let length = u32::try_from(message_bytes).expect("a message is smaller than 4 GiB");
    if let Some(place) = half.body.get_mut(start..start + PACKED_LENGTH_BYTES) {
        place.copy_from_slice(&length.to_le_bytes());
    }
    std::mem::forget(half); // it is whole
    Ok(())
}

/// A message that is being appended. Dropped, it is gone.
struct Half<'a> {
    body: &'a mut Vec<u8>,
    start: usize,
}

impl Drop for Half<'_> {
    fn drop(&mut self) {
        self.body.truncate(self.start);
    }
}

/// What a packed message takes beside its own bytes.
pub const PACKED_LENGTH_BYTES: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::FrameKind;
    use std::convert::Infallible;

    fn packed(messages: &[&[u8]]) -> Vec<u8> {
        let mut body = Vec::new();
        for message in messages {
            pack(&mut body, |out| {
                out.extend_from_slice(message);
                Ok::<_, Infallible>(())
            })
            .unwrap();
        }
        body
    }

    fn parse(body: &[u8]) -> Result<Packed<'_>, FrameError> {
        Packed::parse(&FrameHeader::new(FrameKind::Data, 1, 0), body)
    }

    #[test]
    fn messages_come_out_as_they_went_in() {
        let body = packed(&[b"one", b"", b"three"]);
        let parsed = parse(&body).unwrap();
        assert_eq!((parsed.total(), parsed.longest_bytes()), (3, 5));
        assert_eq!(parsed.collect::<Vec<_>>(), [&b"one"[..], b"", b"three"]);
        let mut rest = parsed;
        rest.next();
        assert_eq!(rest.as_bytes(), packed(&[b"", b"three"]));
    }

    #[test]
    fn messages_of_one_length_are_told_as_those_of_many_are() {
        let same: [&[&[u8]]; 4] = [
            &[b"one"],
            &[b"one", b"two"],
            &[b"", b"", b""],
            &[b"\x04\0\0\0"],
        ];
        for messages in same {
            let body = packed(messages);
            let parsed = Packed::of_one_length(&body).unwrap();
            assert_eq!(
                (parsed.total(), parsed.longest_bytes()),
                (messages.len(), messages[0].len())
            );
            assert_eq!(parsed.collect::<Vec<_>>(), messages);
        }
        let body = packed(&[b"one", b"three"]);
        assert_eq!(Packed::of_one_length(&body), None);
        // Twice eleven bytes, but the second length is not where it would be.
        let body = packed(&[b"seven..", b"on", b"x"]);
        assert_eq!(body.len(), 22);
        assert_eq!(Packed::of_one_length(&body), None);
        assert_eq!(parse(&body).unwrap().total(), 3);
    }

    #[test]
    fn body_that_ends_within_a_message_is_refused_and_says_where() {
        let body = packed(&[b"one", b"two"]);
        for cut in (1..body.len()).filter(|cut| *cut != 7) {
            let at = if cut < 7 { 0 } else { 7 };
            let kind = FrameKind::Data;
            assert_eq!(parse(&body[..cut]), Err(FrameError::Packed { kind, at }));
        }
        assert!(parse(&[]).is_err(), "a packed frame has a message");
        assert!(parse(&[0xff; 64]).is_err(), "longer than the body");
    }

    #[test]
    fn message_that_cannot_be_written_leaves_nothing() {
        let mut body = packed(&[b"one"]);
        let before = body.clone();
        let result = pack(&mut body, |out| {
            out.push(1);
            Err("no")
        });
        assert_eq!((result, body), (Err("no"), before));
    }
}

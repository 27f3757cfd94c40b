//! Small messages that are collected, to be sent in one frame.
//!
//! Header, checksum, locks and the look whether the peer sleeps are paid once for all of them, at both ends.

use doorbell_proto::frame::{PACKED_LENGTH_BYTES, pack};

use crate::message::{EncodeError, Payload};

/// Messages that have been encoded and not been sent.
#[derive(Debug, Default)]
pub(crate) struct Pack {
    body: Vec<u8>,
    count: usize,
    limits: PackLimits,
}

/// How much fits into one frame.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PackLimits {
    /// Of the whole body.
    pub(crate) body_bytes: usize,
    /// Of one message.
    pub(crate) message_bytes: usize,
}

/// A frame with what was collected.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Collected<'a> {
    /// One message is sent as if it had never been collected.
    One(&'a [u8]),
    /// The body of a packed frame, and the number of messages in it.
    Many(&'a [u8], usize),
}

impl Pack {
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Returns `true` if it is time to send: another message might not fit.
    pub(crate) fn is_full(&self) -> bool {
        self.body.len() + ROOM_BYTES > self.limits.body_bytes
    }

    /// Begins anew.
    pub(crate) fn begin(&mut self, limits: PackLimits) {
        self.clear();
        self.limits = limits;
    }

    /// Adds a message. Returns `false` if it does not fit, and has to be sent by itself.
    ///
    /// # Errors
    ///
    /// The message cannot be encoded.
    pub(crate) fn add<T: Payload>(&mut self, message: &T) -> Result<bool, EncodeError> {
        let start = self.body.len();
        if message.as_loaned().is_some() {
            return Ok(false); // it is not to be copied
        }
        if message
            .as_bytes()
            .is_some_and(|bytes| start + PACKED_LENGTH_BYTES + bytes.len() > self.limits.body_bytes)
        {
            return Ok(false); // not worth a copy
        }
        pack(&mut self.body, |out| message.encode(out))?;
        let message_bytes = self.body.len() - start - PACKED_LENGTH_BYTES;
        if self.body.len() > self.limits.body_bytes || message_bytes > self.limits.message_bytes {
            self.body.truncate(start);
            return Ok(false);
        }
        self.count += 1;
        Ok(true)
    }

    pub(crate) fn collected(&self) -> Option<Collected<'_>> {
        match self.count {
            0 => None,
            1 => Some(Collected::One(&self.body[PACKED_LENGTH_BYTES..])),
            count => Some(Collected::Many(&self.body, count)),
        }
    }

    pub(crate) fn clear(&mut self) {
        self.body.clear();
        self.count = 0;
    }
}

impl<'a> Collected<'a> {
    pub(crate) fn body(self) -> &'a [u8] {
        match self {
            Self::One(body) | Self::Many(body, _) => body,
        }
    }

    pub(crate) fn count(self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Many(_, count) => count,
        }
    }
}

/// Largest body of a packed frame: what a checksum covers, and some fifty messages of 64 bytes.
pub(crate) const PACK_BYTES: usize = 4096;

/// A pack with less room than this is sent: the messages that are worth packing are smaller.
const ROOM_BYTES: usize = 256;

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::{DecodeError, Incoming, Raw};

    fn begun() -> Pack {
        let mut pack = Pack::default();
        pack.begin(PackLimits {
            body_bytes: 1000,
            message_bytes: 500,
        });
        pack
    }

    #[test]
    fn one_message_goes_without_its_length_and_two_with_theirs() {
        let mut pack = begun();
        assert!(pack.collected().is_none());
        assert!(pack.add(&Raw::from(vec![1, 2])).unwrap());
        assert!(matches!(pack.collected(), Some(Collected::One([1, 2]))));
        assert!(pack.add(&Raw::from(vec![3])).unwrap());
        assert!(matches!(
            pack.collected(),
            Some(Collected::Many([2, 0, 0, 0, 1, 2, 1, 0, 0, 0, 3], 2))
        ));
    }

    /// Its encoding panics half way.
    struct Half;

    impl Payload for Half {
        fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
            out.extend_from_slice(b"half");
            panic!("on purpose");
        }

        fn decode(_: Incoming<'_>) -> Result<Self, DecodeError> {
            Ok(Self)
        }
    }

    #[test]
    fn message_whose_encoding_panics_leaves_the_pack_as_it_was() {
        let mut pack = begun();
        let panics = |pack: &mut Pack| {
            let add = AssertUnwindSafe(|| pack.add(&Half));
            assert!(catch_unwind(add).is_err());
        };
        panics(&mut pack);
        assert!(pack.collected().is_none());
        assert!(pack.add(&Raw::from(vec![1, 2])).unwrap());
        panics(&mut pack);
        assert!(matches!(pack.collected(), Some(Collected::One([1, 2]))));
        assert!(pack.add(&Raw::from(vec![3])).unwrap());
        panics(&mut pack);
        assert!(matches!(
            pack.collected(),
            Some(Collected::Many([2, 0, 0, 0, 1, 2, 1, 0, 0, 0, 3], 2))
        ));
    }

    #[test]
    fn message_that_does_not_fit_leaves_the_pack_as_it_was() {
        let mut pack = begun();
        assert!(pack.add(&vec![7_u8; 400]).unwrap());
        let before = pack.body.clone();
        assert!(!pack.add(&vec![7_u8; 501]).unwrap(), "no such message");
        assert!(pack.add(&vec![7_u8; 400]).unwrap());
        assert!(!pack.add(&vec![7_u8; 400]).unwrap(), "no such body");
        assert!(!pack.add(&Raw::from(vec![7_u8; 400])).unwrap());
        assert!(pack.body.starts_with(&before) && pack.count == 2);
        assert!(pack.is_full());
    }
}

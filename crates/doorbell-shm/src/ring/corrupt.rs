//! What a peer can have done wrong in shared memory.

/// The peer has broken the rules of the ring; the connection must end.
///
/// Once a [`Producer`](super::Producer) or [`Consumer`](super::Consumer) has returned it, it returns the
/// same value for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Corrupt {
    /// A position went back.
    #[error("the peer moved its {word} back from {from} to {to}")]
    Backwards {
        /// Which position.
        word: PositionWord,
        /// Position seen before.
        from: u32,
        /// Position found now.
        to: u32,
    },
    /// A position is further on than it can be: a tail over unread bytes, a head over unwritten ones.
    #[error("the peer moved its {word} from {from} to {to}, at most {limit} was possible")]
    TooFar {
        /// Which position.
        word: PositionWord,
        /// Position seen before.
        from: u32,
        /// Position found now.
        to: u32,
        /// Furthest position possible.
        limit: u32,
    },
    /// A position is not a multiple of 8.
    #[error("the peer's {word} {to} is not a multiple of 8")]
    Misaligned {
        /// Which position.
        word: PositionWord,
        /// Position found.
        to: u32,
    },
    /// A record is larger than a quarter of the ring.
    #[error("a record has a body of {length} bytes, at most {at_most} are allowed")]
    TooLarge {
        /// Bytes of body that the header announces.
        length: u32,
        /// Largest body in this ring.
        at_most: u32,
    },
    /// A record goes beyond what the peer has published.
    #[error("a record needs {needed} bytes, {published} are published")]
    Unpublished {
        /// Bytes the record or the gap at the end of the ring occupies.
        needed: u32,
        /// Bytes that are published and unread.
        published: u32,
    },
    /// A record goes beyond the end of the ring.
    #[error("a record needs {needed} bytes, {to_end} are left before the end of the ring")]
    PastEnd {
        /// Bytes the record occupies.
        needed: u32,
        /// Bytes from the record's start to the end of the ring.
        to_end: u32,
    },
    /// A padding record does not reach exactly to the end of the ring, or is not zero.
    #[error("a padding record of {length} bytes is malformed, {to_end} are left in the ring")]
    Pad {
        /// Bytes of padding that the header announces.
        length: u32,
        /// Bytes from the record's start to the end of the ring.
        to_end: u32,
    },
}

/// One of the two position words of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PositionWord {
    /// How much it has published.
    Tail,
    /// How much it has consumed.
    Head,
}

impl std::fmt::Display for PositionWord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tail => "tail",
            Self::Head => "head",
        })
    }
}

/// Checks that the peer moved a position on from `from` by at most `room` bytes.
///
/// `room` is at most 2^30, so a step back never passes for a step forward.
#[inline]
pub(super) fn check_step(word: PositionWord, from: u32, to: u32, room: u32) -> Result<(), Corrupt> {
    let step = to.wrapping_sub(from);
    if step <= room && to.is_multiple_of(8) {
        return Ok(());
    }
    Err(wrong_step(word, from, to, room))
}

#[cold]
fn wrong_step(word: PositionWord, from: u32, to: u32, room: u32) -> Corrupt {
    let step = to.wrapping_sub(from);
    if step > u32::MAX / 2 {
        Corrupt::Backwards { word, from, to }
    } else if step > room {
        Corrupt::TooFar {
            word,
            from,
            to,
            limit: from.wrapping_add(room),
        }
    } else {
        Corrupt::Misaligned { word, to }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const TAIL: PositionWord = PositionWord::Tail;

    #[test]
    fn steps_are_judged_across_the_wrap() {
        let from = u32::MAX - 7;
        assert_eq!(check_step(TAIL, from, 8, 16), Ok(()));
        assert_eq!(check_step(TAIL, from, from, 0), Ok(()));
        let limit = from.wrapping_add(16);
        let too_far = Corrupt::TooFar {
            word: TAIL,
            from,
            to: 16,
            limit,
        };
        assert_eq!(check_step(TAIL, from, 16, 16), Err(too_far));
        let back = Corrupt::Backwards {
            word: TAIL,
            from: 8,
            to: from,
        };
        assert_eq!(check_step(TAIL, 8, from, 4096), Err(back));
        assert_eq!(
            check_step(TAIL, 0, 4, 16),
            Err(Corrupt::Misaligned { word: TAIL, to: 4 })
        );
    }
}

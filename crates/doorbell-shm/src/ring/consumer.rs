//! The reading end of a ring.

use super::corrupt::{Corrupt, PositionWord, check_step};
use super::{HEADER, Reach, max_body_bytes, record_bytes};
use crate::memory::{HEADER_BYTES, HeaderWords, OwnMemory, OwnRegion, PeerMemory, PeerRegion};

/// Reads the records of the peer's ring, in order, each once.
///
/// [`peek`](Self::peek), [`copy_body`](Self::copy_body), [`advance`](Self::advance); the peer gets the
/// room back with [`release`](Self::release), for many records at a time if there are many.
#[derive(Debug)]
pub struct Consumer<O = OwnRegion, P = PeerRegion> {
    own: O,
    peer: P,
    capacity: u32,
    /// Start of the next record.
    head: u32,
    /// What the peer has been told of `head`.
    released: u32,
    /// Last `tail` of the peer that we have seen and found possible.
    tail: u32,
    /// The record at `head`, once it has been peeked at.
    record: Option<Record>,
    /// What has been read since somebody [began](Self::begin_reach) to look at that.
    reach: Reach,
    poison: Option<Corrupt>,
}

/// What we know, privately, of the record at the head.
#[derive(Clone, Copy, Debug)]
struct Record {
    header: HeaderWords,
}

impl<O: OwnMemory, P: PeerMemory> Consumer<O, P> {
    /// Returns the consumer of the ring in `peer`, which publishes its head in `own`.
    pub fn new(own: O, peer: P) -> Self {
        let capacity = peer.ring_capacity_bytes();
        Self {
            own,
            peer,
            capacity,
            head: 0,
            released: 0,
            tail: 0,
            record: None,
            reach: Reach::default(),
            poison: None,
        }
    }

    /// Returns a private copy of the next record's header, or `None` if nothing is published.
    ///
    /// Looks at the peer's tail at most once, and only if what it has published before is used up.
    /// The record stays the next one until [`advance`](Self::advance).
    ///
    /// # Errors
    ///
    /// [`Corrupt`] if the peer has published an impossible tail or record, now or earlier.
    #[inline]
    pub fn peek(&mut self) -> Result<Option<[u8; HEADER_BYTES]>, Corrupt> {
        Ok(self.peek_words()?.map(to_bytes))
    }

    /// As [`peek`](Self::peek), as little-endian words, which stay in registers.
    ///
    /// # Errors
    ///
    /// [`Corrupt`] if the peer has published an impossible tail or record, now or earlier.
    #[inline(always)] // the words stay in registers
    pub fn peek_words(&mut self) -> Result<Option<HeaderWords>, Corrupt> {
        if let Some(record) = &self.record {
            return Ok(Some(record.header));
        }
        if self.unread() == 0 {
            self.load_tail()?;
        }
        self.find_record()
    }

    /// Returns the bytes of body of the record that was peeked at.
    ///
    /// # Panics
    ///
    /// If there is none.
    #[inline]
    pub fn body_bytes(&self) -> usize {
        self.peeked().body_bytes() as usize
    }

    /// Appends a private copy of the peeked record's body to `out`.
    ///
    /// # Panics
    ///
    /// If no record has been peeked at.
    #[inline]
    pub fn copy_body(&mut self, out: &mut Vec<u8>) {
        let body_bytes = self.peeked().body_bytes();
        // Inside the ring: `check_record` has compared the record with its end.
        self.peer.append_to(out, self.place() + HEADER, body_bytes);
        crate::failpoint!("ring.body.read");
    }

    /// Goes on to the record after the one that was peeked at.
    ///
    /// # Panics
    ///
    /// If no record has been peeked at.
    #[inline]
    pub fn advance(&mut self) {
        let body_bytes = self.peeked().body_bytes();
        self.head = self.head.wrapping_add(record_bytes(body_bytes));
        self.record = None;
        crate::failpoint!("ring.advanced");
    }

    /// Gives the room of all consumed records back to the peer; returns `true` if there was any.
    #[inline]
    pub fn release(&mut self) -> bool {
        let changed = self.head != self.released;
        if changed {
            crate::failpoint!("ring.release.before");
            self.own.store_head(self.head); // edge `consumed`
            crate::failpoint!("ring.release.after");
            self.released = self.head;
        }
        changed
    }

    /// Looks afresh whether the peer has published anything that is not consumed.
    ///
    /// # Errors
    ///
    /// [`Corrupt`] if the peer has published an impossible tail, now or earlier.
    #[inline]
    pub fn has_unread(&mut self) -> Result<bool, Corrupt> {
        self.load_tail()?;
        Ok(self.unread() != 0)
    }

    /// Returns `true` if something is published behind what has been consumed, as far as it is known without a look at the peer's tail.
    #[inline]
    pub fn knows_of_more(&self) -> bool {
        self.unread() != 0
    }

    /// Returns how many consumed bytes the peer has not been given back yet.
    #[inline]
    pub fn unreleased_bytes(&self) -> u32 {
        self.head.wrapping_sub(self.released)
    }

    /// Returns our own position: bytes ever consumed, modulo 2^32.
    #[inline]
    pub fn head(&self) -> u32 {
        self.head
    }

    /// Returns `true` if anything that was read lay beyond the first `bytes` of the ring, since the [last beginning](Self::begin_reach).
    pub fn is_beyond(&self, bytes: u32) -> bool {
        self.reach.is_beyond(bytes, self.head, self.place())
    }

    /// Forgets what was read until now, for [`is_beyond`](Self::is_beyond).
    pub fn begin_reach(&mut self) {
        self.reach.begin(self.head, self.place());
    }

    #[inline]
    fn peeked(&self) -> &Record {
        self.record
            .as_ref()
            .expect("a record must be peeked at first")
    }

    #[inline]
    fn place(&self) -> u32 {
        self.head & (self.capacity - 1)
    }

    #[inline]
    fn unread(&self) -> u32 {
        self.tail.wrapping_sub(self.head)
    }

    /// Goes over gaps and padding to the next record, loading the tail at most once more.
    ///
    /// Each turn of the loop consumes at least 8 published bytes, and the end of the ring is passed at
    /// most twice in one capacity: a peer cannot keep us here.
    #[inline(always)] // part of `peek_words`
    fn find_record(&mut self) -> Result<Option<HeaderWords>, Corrupt> {
        self.check_poison()?;
        self.peer.prefetch(self.place(), self.unread());
        while self.unread() != 0 {
            let to_end = self.capacity - self.place();
            if to_end < HEADER {
                self.skip(to_end)?;
                continue;
            }
            let record = self.read_record()?;
            if record.kind() != PAD {
                self.check_record(record.body_bytes(), to_end)?;
                self.record = Some(record);
                return Ok(Some(record.header));
            }
            self.check_pad(record, to_end)?;
            self.skip(to_end)?;
        }
        Ok(None)
    }

    /// Copies the header at the head out of the ring, once.
    #[inline]
    fn read_record(&mut self) -> Result<Record, Corrupt> {
        self.check_published(HEADER)?;
        let header = self.peer.read_header(self.place());
        crate::failpoint!("ring.header.read");
        Ok(Record { header })
    }

    /// Checks that a record with such a body can start at the head.
    #[inline]
    fn check_record(&mut self, length: u32, to_end: u32) -> Result<(), Corrupt> {
        let at_most = max_body_bytes(self.capacity);
        if length > at_most {
            return Err(self.poison(Corrupt::TooLarge { length, at_most }));
        }
        let needed = record_bytes(length);
        if needed > to_end {
            return Err(self.poison(Corrupt::PastEnd { needed, to_end }));
        }
        self.check_published(needed)
    }

    /// Checks that a padding record reaches exactly to the end and carries nothing.
    fn check_pad(&mut self, record: Record, to_end: u32) -> Result<(), Corrupt> {
        let length = record.body_bytes();
        let is_bare = record.header == [u64::from(length), 0, 0];
        if length.checked_add(HEADER) != Some(to_end) || !is_bare {
            return Err(self.poison(Corrupt::Pad { length, to_end }));
        }
        Ok(())
    }

    /// Consumes the `to_end` bytes before the end of the ring.
    fn skip(&mut self, to_end: u32) -> Result<(), Corrupt> {
        self.check_published(to_end)?;
        self.reach.begin_again(self.head, self.place(), to_end);
        self.head = self.head.wrapping_add(to_end);
        Ok(())
    }

    #[inline]
    fn check_published(&mut self, needed: u32) -> Result<(), Corrupt> {
        let published = self.unread();
        if needed > published {
            return Err(self.poison(Corrupt::Unpublished { needed, published }));
        }
        Ok(())
    }

    /// Loads the peer's tail and keeps it if it is possible.
    #[inline]
    fn load_tail(&mut self) -> Result<(), Corrupt> {
        self.check_poison()?;
        let tail = self.peer.load_tail(); // edge `filled`
        // The peer has had back what we released, not what we merely consumed.
        let room = self.capacity - self.tail.wrapping_sub(self.released);
        match check_step(PositionWord::Tail, self.tail, tail, room) {
            Ok(()) => self.tail = tail,
            Err(corrupt) => return Err(self.poison(corrupt)),
        }
        Ok(())
    }

    #[cold]
    fn poison(&mut self, corrupt: Corrupt) -> Corrupt {
        self.record = None;
        *self.poison.insert(corrupt)
    }

    #[inline]
    fn check_poison(&self) -> Result<(), Corrupt> {
        self.poison.map_or(Ok(()), Err)
    }
}

impl Record {
    /// Bytes 0..4 of a header; checked before a record is kept.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the low half")]
    fn body_bytes(self) -> u32 {
        self.header[0] as u32
    }

    /// Byte 4 of a header.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "one byte")]
    fn kind(self) -> u8 {
        (self.header[0] >> 32) as u8
    }
}

#[inline]
fn to_bytes(header: HeaderWords) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    for (bytes, word) in bytes.chunks_exact_mut(8).zip(header) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// The kind of a padding record.
const PAD: u8 = 0;

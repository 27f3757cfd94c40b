//! The reading end of a ring.

use super::corrupt::{Corrupt, PositionWord, check_step};
use super::{HEADER, max_body_bytes, record_bytes};
use crate::memory::{HEADER_BYTES, OwnMemory, OwnRegion, PeerMemory, PeerRegion};

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
    poison: Option<Corrupt>,
}

/// What we know, privately, of the record at the head.
#[derive(Clone, Copy, Debug)]
struct Record {
    header: [u8; HEADER_BYTES],
    body_bytes: u32,
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
        self.peeked().body_bytes as usize
    }

    /// Appends a private copy of the peeked record's body to `out`.
    ///
    /// # Panics
    ///
    /// If no record has been peeked at.
    #[inline]
    pub fn copy_body(&mut self, out: &mut Vec<u8>) {
        let body_bytes = self.peeked().body_bytes;
        // Inside the ring: `check_record` has compared the record with its end.
        self.peer.append_to(out, self.place() + HEADER, body_bytes);
    }

    /// Goes on to the record after the one that was peeked at.
    ///
    /// # Panics
    ///
    /// If no record has been peeked at.
    #[inline]
    pub fn advance(&mut self) {
        let body_bytes = self.peeked().body_bytes;
        self.head = self.head.wrapping_add(record_bytes(body_bytes));
        self.record = None;
    }

    /// Gives the room of all consumed records back to the peer; returns `true` if there was any.
    #[inline]
    pub fn release(&mut self) -> bool {
        let changed = self.head != self.released;
        if changed {
            self.own.store_head(self.head); // edge `consumed`
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

    /// Returns the peer's tail as last loaded, to sleep on.
    #[inline]
    pub fn seen_tail(&self) -> u32 {
        self.tail
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
    #[inline]
    fn find_record(&mut self) -> Result<Option<[u8; HEADER_BYTES]>, Corrupt> {
        self.check_poison()?;
        while self.unread() != 0 {
            let to_end = self.capacity - self.place();
            if to_end < HEADER {
                self.skip(to_end)?;
                continue;
            }
            let header = self.read_header()?;
            if header[KIND] != PAD {
                let body_bytes = self.check_record(length_in(&header), to_end)?;
                self.record = Some(Record { header, body_bytes });
                return Ok(Some(header));
            }
            self.check_pad(&header, to_end)?;
            self.skip(to_end)?;
        }
        Ok(None)
    }

    /// Copies the header at the head out of the ring, once.
    #[inline]
    fn read_header(&mut self) -> Result<[u8; HEADER_BYTES], Corrupt> {
        self.check_published(HEADER)?;
        Ok(self.peer.read_header(self.place()))
    }

    /// Returns `length` if a record with such a body can start at the head.
    #[inline]
    fn check_record(&mut self, length: u32, to_end: u32) -> Result<u32, Corrupt> {
        let at_most = max_body_bytes(self.capacity);
        if length > at_most {
            return Err(self.poison(Corrupt::TooLarge { length, at_most }));
        }
        let needed = record_bytes(length);
        if needed > to_end {
            return Err(self.poison(Corrupt::PastEnd { needed, to_end }));
        }
        self.check_published(needed)?;
        Ok(length)
    }

    /// Checks that a padding record reaches exactly to the end and carries nothing.
    fn check_pad(&mut self, header: &[u8; HEADER_BYTES], to_end: u32) -> Result<(), Corrupt> {
        let length = length_in(header);
        if length.checked_add(HEADER) != Some(to_end) || header[KIND..] != [0; HEADER_BYTES - KIND]
        {
            return Err(self.poison(Corrupt::Pad { length, to_end }));
        }
        Ok(())
    }

    /// Consumes the `to_end` bytes before the end of the ring.
    fn skip(&mut self, to_end: u32) -> Result<(), Corrupt> {
        self.check_published(to_end)?;
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

#[inline]
fn length_in(header: &[u8; HEADER_BYTES]) -> u32 {
    u32::from_le_bytes([header[0], header[1], header[2], header[3]])
}

/// Where a header says what kind of record it is.
const KIND: usize = 4;
/// The kind of a padding record.
const PAD: u8 = 0;

//! The writing end of a ring.

use super::corrupt::{Corrupt, PositionWord, check_step};
use super::{HEADER, Reach, max_body_bytes, record_bytes};
use crate::memory::{
    HEADER_BYTES, HeaderWords, OwnMemory, OwnRegion, PeerMemory, PeerRegion, RingWriter,
};

/// Writes records into the ring of our own region.
///
/// Records become visible to the peer with [`publish`](Self::publish), many at a time if there are many.
/// A light user stays in the first 3 KiB of the ring: see *rewind* in `docs/memory-map.md`.
#[derive(Debug)]
pub struct Producer<O: OwnMemory = OwnRegion, P = PeerRegion> {
    own: O,
    writer: O::Writer,
    peer: P,
    capacity: u32,
    /// End of the last committed record.
    pub(super) tail: u32,
    /// What the peer has been told of `tail`.
    published: u32,
    /// Last `head` of the peer that we have seen and found possible.
    head: u32,
    /// Place from which on a rewind is worth a look at the peer's `head`.
    rewind_look: u32,
    /// Where the last record that begins the ring again lies, and how many bytes were skipped before it.
    lap: u32,
    skipped: u32,
    /// What has been written since memory was last given back.
    reach: Reach,
    /// Large bodies are written past our caches.
    past_caches: bool,
    poison: Option<Corrupt>,
}

impl<O: OwnMemory, P: PeerMemory> Producer<O, P> {
    /// Returns the producer of the ring in `own`, whose consumer publishes its head in `peer`.
    ///
    /// # Panics
    ///
    /// If `own` has had a producer before: two would race.
    pub fn new(own: O, peer: P) -> Self {
        Self {
            writer: own.claim_writer(),
            capacity: own.ring_capacity_bytes(),
            own,
            peer,
            tail: 0,
            published: 0,
            head: 0,
            rewind_look: REWIND_PLACE,
            lap: 0,
            skipped: 0,
            reach: Reach::default(),
            past_caches: false,
            poison: None,
        }
    }

    /// Returns the largest body a record can have: a quarter of the ring less the header.
    #[inline]
    pub fn max_body_bytes(&self) -> usize {
        max_body_bytes(self.capacity) as usize
    }

    /// Makes room for one record, or returns `None` if there is none now.
    ///
    /// Looks at the peer's head at most once, and only if the room known so far is not enough. The
    /// record exists when the reservation is [committed](Reservation::commit); dropping it undoes all.
    ///
    /// # Errors
    ///
    /// [`Corrupt`] if the peer has published an impossible head, now or earlier.
    ///
    /// # Panics
    ///
    /// If `body_bytes` is more than [`max_body_bytes`](Self::max_body_bytes).
    #[inline]
    pub fn reserve(&mut self, body_bytes: usize) -> Result<Option<Reservation<'_, O, P>>, Corrupt> {
        self.check_poison()?;
        let needed = self.record_bytes(body_bytes);
        let place = self.place(self.tail);
        let skip = self.skip(place, needed)?;
        if skip + needed > self.free() {
            self.load_head()?;
            if skip + needed > self.free() {
                return Ok(None);
            }
        }
        let start = self.tail.wrapping_add(skip);
        if skip > 0 {
            self.pad(place, skip);
            crate::failpoint!("ring.padded");
            (self.lap, self.skipped) = (start, skip);
            self.reach.begin_again(self.tail, place, skip);
        }
        #[cfg(doorbell_failpoints)]
        self.publish_too_early(start.wrapping_add(needed));
        crate::failpoint!("ring.reserved");
        let place = self.place(start);
        Ok(Some(Reservation {
            place,
            end: place + HEADER + narrow(body_bytes),
            next_tail: start.wrapping_add(needed),
            producer: self,
        }))
    }

    /// Writes and commits one record; returns `false` if there is no room for it now.
    ///
    /// The first four bytes of `header` must be the total length of `body`.
    ///
    /// # Errors
    ///
    /// [`Corrupt`] if the peer has published an impossible head, now or earlier.
    ///
    /// # Panics
    ///
    /// If `body` is longer than [`max_body_bytes`](Self::max_body_bytes).
    #[inline]
    pub fn push(&mut self, header: &[u8; HEADER_BYTES], body: &[&[u8]]) -> Result<bool, Corrupt> {
        let (words, _) = header.as_chunks::<8>();
        let mut header = HeaderWords::default();
        for (to, from) in header.iter_mut().zip(words) {
            *to = u64::from_le_bytes(*from);
        }
        self.push_words(header, body)
    }

    /// As [`push`](Self::push), with the header as little-endian words, which stay in registers.
    ///
    /// # Errors
    ///
    /// [`Corrupt`] if the peer has published an impossible head, now or earlier.
    ///
    /// # Panics
    ///
    /// If `body` is longer than [`max_body_bytes`](Self::max_body_bytes).
    #[inline]
    pub fn push_words(&mut self, header: HeaderWords, body: &[&[u8]]) -> Result<bool, Corrupt> {
        let body_bytes = body.iter().map(|piece| piece.len()).sum();
        debug_assert_eq!(
            length_in(header),
            body_bytes,
            "the header tells another length"
        );
        let Some(mut record) = self.reserve(body_bytes)? else {
            return Ok(false);
        };
        record.write_header(header);
        crate::failpoint!("ring.header.written");
        for piece in body {
            if !piece.is_empty() {
                record.write(piece);
            }
        }
        crate::failpoint!("ring.body.written");
        record.commit();
        crate::failpoint!("ring.committed");
        Ok(true)
    }

    /// As [`push_words`](Self::push_words), of a body in one piece.
    ///
    /// # Errors
    ///
    /// [`Corrupt`] if the peer has published an impossible head, now or earlier.
    ///
    /// # Panics
    ///
    /// If `body` is longer than [`max_body_bytes`](Self::max_body_bytes).
    #[inline]
    pub fn push_one(&mut self, header: HeaderWords, body: &[u8]) -> Result<bool, Corrupt> {
        debug_assert_eq!(
            length_in(header),
            body.len(),
            "the header tells another length"
        );
        let Some(mut record) = self.reserve(body.len())? else {
            return Ok(false);
        };
        record.write_header(header);
        crate::failpoint!("ring.header.written");
        record.write(body);
        crate::failpoint!("ring.body.written");
        record.commit();
        crate::failpoint!("ring.committed");
        Ok(true)
    }

    /// Returns our own position: bytes ever written, modulo 2^32, those not published yet included.
    #[inline]
    pub fn tail(&self) -> u32 {
        self.tail
    }

    /// Returns the last position that the peer was seen to have read up to.
    #[inline]
    pub fn seen_head(&self) -> u32 {
        self.head
    }

    /// Says whether large bodies are to be written past our caches, which may be faster if another processor reads them soon, and is slower if
    /// this one will, for the peer.
    #[inline]
    pub fn write_past_caches(&mut self, past_caches: bool) {
        self.past_caches = past_caches;
    }

    /// Returns `true` if the next record lies beyond the first `bytes` of the ring, or what says that it begins again does.
    pub fn continues_beyond(&self, bytes: u32) -> bool {
        self.place(self.tail) > bytes
    }

    /// Begins to fetch the place of the next record for writing. The peer has read those bytes before, and a write would wait for them.
    #[inline]
    pub fn prefetch_room(&self) {
        self.writer.prefetch(self.place(self.tail));
    }

    /// Shows the peer all committed records; returns `true` if there were any new ones.
    #[inline]
    pub fn publish(&mut self) -> bool {
        let changed = self.has_unpublished();
        if changed {
            crate::failpoint!("ring.publish.before");
            self.own.store_tail(self.tail); // edge `filled`
            crate::failpoint!("ring.publish.after");
            self.published = self.tail;
        }
        changed
    }

    /// Returns `true` if there are records that the next [`publish`](Self::publish) shows.
    #[inline]
    pub fn has_unpublished(&self) -> bool {
        self.tail != self.published
    }

    /// Gives the memory of an empty ring back to the system, except its beginning, where the next record goes. Returns `false`, and has done
    /// nothing, if a record is unread.
    ///
    /// # Errors
    ///
    /// [`Corrupt`] if the peer has published an impossible head, now or earlier.
    pub fn give_back(&mut self) -> Result<bool, Corrupt> {
        let is_empty = !self.has_unpublished() && self.is_empty()?;
        if is_empty {
            self.writer.give_back();
            self.begin_reach();
        }
        Ok(is_empty)
    }

    /// Forgets what was written until now, for [`is_beyond`](Self::is_beyond).
    pub fn begin_reach(&mut self) {
        self.reach.begin(self.tail, self.place(self.tail));
    }

    /// Returns `true` if anything has been written beyond the first `bytes` of the ring since its memory was [given back](Self::give_back),
    /// or since the [last beginning](Self::begin_reach).
    pub fn is_beyond(&self, bytes: u32) -> bool {
        self.reach
            .is_beyond(bytes, self.tail, self.place(self.tail))
    }

    /// Looks whether the peer has consumed everything that was published.
    ///
    /// # Errors
    ///
    /// [`Corrupt`] if the peer has published an impossible head, now or earlier.
    pub fn is_empty(&mut self) -> Result<bool, Corrupt> {
        self.check_poison()?;
        if self.head != self.published {
            self.load_head()?;
        }
        Ok(self.head == self.published)
    }

    /// Looks at the peer's head without a need for room, so that an impossible one does not stay unnoticed until there is one.
    ///
    /// # Errors
    ///
    /// [`Corrupt`] if the peer has published an impossible head, now or earlier.
    pub fn check_head(&mut self) -> Result<(), Corrupt> {
        self.check_poison()?;
        self.load_head()
    }

    /// Returns how many bytes of records the peer has not consumed yet, those not published yet included.
    ///
    /// # Errors
    ///
    /// [`Corrupt`] if the peer has published an impossible head, now or earlier.
    pub fn unread_bytes(&mut self) -> Result<usize, Corrupt> {
        self.check_poison()?;
        if self.head != self.tail {
            self.load_head()?;
        }
        let unread = self.tail.wrapping_sub(self.head);
        let in_this_lap = self.tail.wrapping_sub(self.lap); // huge if the record of the lap has not been committed
        let skipped = self.skipped.min(unread.saturating_sub(in_this_lap));
        Ok((unread - skipped) as usize)
    }

    /// Returns the bytes of a record, which our own caller must have kept within bounds.
    #[inline]
    fn record_bytes(&self, body_bytes: usize) -> u32 {
        let most = self.max_body_bytes();
        assert!(
            body_bytes <= most,
            "a body of {body_bytes} bytes is over the ring's {most}"
        );
        record_bytes(narrow(body_bytes))
    }

    #[inline]
    fn place(&self, position: u32) -> u32 {
        position & (self.capacity - 1)
    }

    #[inline]
    fn free(&self) -> u32 {
        // `load_head` keeps the distance at most the capacity.
        self.capacity - self.tail.wrapping_sub(self.head)
    }

    /// Returns how many bytes to skip before a record at `place`: all up to the end of the ring or none.
    #[inline]
    fn skip(&mut self, place: u32, needed: u32) -> Result<u32, Corrupt> {
        let to_end = self.capacity - place;
        if place < REWIND_PLACE {
            self.rewind_look = REWIND_PLACE;
        } else if needed <= place && self.rewinds(place)? {
            return Ok(to_end);
        }
        Ok(if needed > to_end { to_end } else { 0 })
    }

    /// Decides whether to go back to the start of an empty ring.
    ///
    /// Each look at the peer's head may fetch its cache line. A busy producer, whose ring is not empty
    /// when it looks, looks again at twice the place only: a few times a lap.
    fn rewinds(&mut self, place: u32) -> Result<bool, Corrupt> {
        // With records waiting to be published the ring is not empty, whatever the peer has done.
        if self.tail == self.published && self.head != self.tail && place >= self.rewind_look {
            self.load_head()?;
            self.rewind_look = 2 * place; // a place is below 2^30
        }
        Ok(self.head == self.tail)
    }

    /// Writes what tells the consumer to skip `skip` bytes; too few for a header say it by themselves.
    #[inline]
    fn pad(&mut self, place: u32, skip: u32) {
        if skip >= HEADER {
            let mut header = [0; HEADER_BYTES]; // kind 0 is padding
            header[..4].copy_from_slice(&(skip - HEADER).to_le_bytes());
            self.writer.write(place, &header);
        }
    }

    /// Loads the peer's head and keeps it if it is possible.
    #[inline]
    fn load_head(&mut self) -> Result<(), Corrupt> {
        let head = self.peer.load_head(); // edge `consumed`
        let unread = self.published.wrapping_sub(self.head);
        #[cfg(doorbell_failpoints)]
        let unread = unread.max(self.early_bytes());
        match check_step(PositionWord::Head, self.head, head, unread) {
            Ok(()) => self.head = head,
            Err(corrupt) => return Err(*self.poison.insert(corrupt)),
        }
        Ok(())
    }

    #[inline]
    fn check_poison(&self) -> Result<(), Corrupt> {
        self.poison.map_or(Ok(()), Err)
    }
}

/// The ring with the two steps of publishing in the wrong order, on request: a test that finds nothing wrong with it is none.
#[cfg(doorbell_failpoints)]
impl<O: OwnMemory, P> Producer<O, P> {
    fn publish_too_early(&self, tail: u32) {
        if crate::failpoint::breaks_publish() {
            self.own.store_tail(tail);
        }
    }

    /// Returns how much the peer may have read of what was published too early.
    fn early_bytes(&self) -> u32 {
        if crate::failpoint::breaks_publish() {
            self.tail.wrapping_sub(self.head)
        } else {
            0
        }
    }
}

/// Room for one record, filled piece by piece from the header on.
///
/// Dropped without [`commit`](Self::commit), it leaves nothing behind.
#[derive(Debug)]
#[must_use = "a reservation does nothing until it is written and committed"]
pub struct Reservation<'a, O: OwnMemory = OwnRegion, P = PeerRegion> {
    producer: &'a mut Producer<O, P>,
    /// Where the next piece goes.
    place: u32,
    /// End of the body.
    end: u32,
    /// Position after this record.
    next_tail: u32,
}

impl<O: OwnMemory, P> Reservation<'_, O, P> {
    /// Appends `bytes`: first the 24 bytes of the header, then the body, in pieces of any size.
    ///
    /// Fastest while every piece but the last is a multiple of 8 bytes.
    ///
    /// # Panics
    ///
    /// If that is more than was reserved.
    #[inline]
    pub fn write(&mut self, bytes: &[u8]) {
        let left = (self.end - self.place) as usize;
        assert!(
            bytes.len() <= left,
            "{} bytes for {left} reserved",
            bytes.len()
        );
        let writer = &mut self.producer.writer;
        if bytes.len() >= PAST_CACHES_BYTES && self.producer.past_caches {
            writer.write_past_caches(self.place, bytes);
        } else {
            writer.write(self.place, bytes);
        }
        self.place += narrow(bytes.len());
    }

    /// Writes the header, of a reservation that has nothing yet.
    #[inline]
    fn write_header(&mut self, header: HeaderWords) {
        self.producer.writer.write_header(self.place, header);
        self.place += HEADER;
    }

    /// Makes the record part of what the next [`Producer::publish`] shows.
    ///
    /// # Panics
    ///
    /// If header and body have not been written completely: what lay there before would be sent.
    #[inline]
    pub fn commit(self) {
        assert!(
            self.place == self.end,
            "{} bytes were not written",
            self.end - self.place
        );
        self.producer.tail = self.next_tail;
    }
}

/// Narrows a length that is known to be below a ring's capacity.
#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the caller has checked it against the ring"
)]
fn narrow(bytes: usize) -> u32 {
    bytes as u32
}

/// Bytes 0..4 of a header.
fn length_in(header: HeaderWords) -> usize {
    (header[0] & 0xFFFF_FFFF) as usize
}

/// Smallest piece of a body that may be written past the caches. What two processes on CPUs of their own take for a message there and back, past
/// the caches and not: with 4 KiB 1.9 and 1.6 µs (near), 2.9 and 6.1 (far); with 8 KiB 2.9 and 2.8, 3.8 and 11.4; with 16 KiB 4.6 and 5.0, 5.8 and
/// 21 (AMD EPYC family 25 model 17 under KVM; near: 70 ns for a cache line there and back; far: 370).
const PAST_CACHES_BYTES: usize = 8192;

/// Place beyond which a producer that finds the ring empty goes back to its start.
const REWIND_PLACE: u32 = 2048;

//! Writing frames into our ring, or queueing what does not fit. Nothing is published here.

use std::time::Instant;

use doorbell_proto::{
    CallId, Metadata,
    frame::{BlockId, Flags, FrameHeader, FrameKind},
};
use doorbell_shm::{Producer, crc32c, crc32c_header, crc32c_record};

use super::{
    outbound::{Outbound, Preamble},
    outgoing::{Large, Small, answered},
    overlap::Overlap,
    state::State,
};
use crate::{error::Breach, link::Terms, loan::Sending};

impl State {
    /// Writes a message into the ring, or queues what does not fit. `header` says everything but lengths.
    ///
    /// A small one that finds the ring free goes there in registers. A header that is put together in memory and then read as a whole would
    /// wait for every write to the ring that came before it, which another processor may be reading just then: half of the time of a call
    /// that has many beside it.
    #[inline(always)]
    pub(super) fn send(
        &mut self,
        header: FrameHeader,
        preamble: Preamble<'_>,
        payload: Outbound<'_>,
    ) -> Result<(), Breach> {
        self.counters.messages_sent += 1;
        self.company.note(header.id);
        if preamble.is_empty()
            && let Some(bytes) = payload.bytes()
            && self.write_bare(header, bytes)?
        {
            return Ok(());
        }
        self.send_any(header, preamble, payload)
    }

    /// Writes a message that is nothing but its payload. Returns `false` if something is in its way, or if there is no room.
    #[inline(always)]
    fn write_bare(&mut self, header: FrameHeader, payload: &[u8]) -> Result<bool, Breach> {
        if payload.len() > self.max_body_bytes() || self.has_queue() {
            return Ok(false);
        }
        let covered = self.terms.covers(payload.len());
        let (first, id, last) = bare_words(header, payload.len(), covered);
        let written = write_bare(&mut self.producer, first, id, last, covered, payload)?;
        if written {
            self.release_slot(answered(&header));
        }
        Ok(written)
    }

    /// As [`send`](Self::send), whatever the message and the queue are.
    #[inline(never)] // most messages are small and find the ring free
    fn send_any(
        &mut self,
        header: FrameHeader,
        preamble: Preamble<'_>,
        payload: Outbound<'_>,
    ) -> Result<(), Breach> {
        if let Outbound::Lend(loan) = payload {
            return self.send_loan(header, preamble, loan);
        }
        self.send_bytes(header, preamble, payload)
    }

    /// Sends a descriptor instead of the payload if the peer can have the block; copies it otherwise.
    fn send_loan(
        &mut self,
        mut header: FrameHeader,
        preamble: Preamble<'_>,
        loan: &Sending<'_>,
    ) -> Result<(), Breach> {
        let Some(descriptor) = self.lend(loan) else {
            let bytes = loan.to_bytes();
            return self.send_bytes(header, preamble, Outbound::Share(&bytes));
        };
        header.flags.insert(Flags::LOANED);
        // The segment has to be announced first.
        if self.machine.has_control() {
            self.pump_control()?;
        }
        let descriptor = descriptor.encode();
        if !preamble.is_empty() || !self.write_bare(header, &descriptor)? {
            self.send_bytes(header, preamble, Outbound::Copy(&descriptor))?;
        }
        doorbell_shm::failpoint!("loan.written");
        Ok(())
    }

    /// Tells the peer that nobody here has a block of its any more.
    pub(super) fn say_released(&mut self, block: BlockId) -> Result<(), Breach> {
        let header = FrameHeader::new(FrameKind::Release, block.raw(), 0);
        if self.machine.may_give_back(block) && self.write_bare(header, &[])? {
            self.machine.gave_back(block);
        } else {
            self.machine.give_back(block);
        }
        doorbell_shm::failpoint!("loan.returned");
        Ok(())
    }

    fn send_bytes(
        &mut self,
        mut header: FrameHeader,
        preamble: Preamble<'_>,
        payload: Outbound<'_>,
    ) -> Result<(), Breach> {
        if preamble.remaining.is_some() {
            header.flags.insert(Flags::DEADLINE);
        }
        header.metadata_bytes = preamble.metadata.map_or(0, metadata_bytes);
        let prefix = preamble.prefix(None);
        let bytes = payload.bytes().unwrap_or_default();
        let body_bytes = prefix.encoded_bytes() + bytes.len();
        if body_bytes > self.max_body_bytes() {
            return self.send_large(header, preamble, payload);
        }
        header.length = u32::try_from(body_bytes).expect("a chunk is smaller than 4 GiB");
        if self.outgoing.has_large() {
            self.not_alone = ALONE_AFTER;
            self.mixed = UNMIXED_AFTER;
        }
        let mut head = std::mem::take(&mut self.body);
        head.clear();
        if !prefix.is_empty() {
            prefix.encode(&mut head);
        }
        // A control frame that waits may belong to this very call, which must not be answered before it.
        let may_overtake = self.stalled.is_none() && self.outgoing.may_overtake(&header);
        if may_overtake && self.write(header, &head, bytes)? {
            self.release_slot(answered(&header));
        } else {
            let body = [&head[..], bytes].concat();
            let pack_bytes = self.pack_limits().body_bytes;
            let saved_bytes = self.outgoing.push_small(Small { header, body }, pack_bytes);
            doorbell_shm::failpoint!("small.queued");
            if header.kind == FrameKind::Data && saved_bytes > 0 {
                let id = CallId::from_raw(header.id);
                self.machine.refund_item(id, saved_bytes as u64);
            }
        }
        self.body = head;
        Ok(())
    }

    fn send_large(
        &mut self,
        mut header: FrameHeader,
        preamble: Preamble<'_>,
        payload: Outbound<'_>,
    ) -> Result<(), Breach> {
        self.is_untidy = true;
        let payload = payload.to_bytes();
        header.flags.insert(Flags::MORE);
        let mut prefix = Vec::new();
        preamble
            .prefix(Some(payload.len() as u64))
            .encode(&mut prefix);
        if !self.outgoing.has_large() {
            self.past_caches.interrupt();
        }
        self.outgoing
            .push_large(Large::new(header, prefix, payload));
        doorbell_shm::failpoint!("large.queued");
        self.pump()
    }

    /// Writes as much of what waits as the ring takes. Does not publish.
    pub(super) fn pump(&mut self) -> Result<(), Breach> {
        self.collect_returns()?;
        if self.stalled.is_some() || self.machine.has_control() {
            self.pump_control()?;
        }
        if self.stalled.is_none() && !self.outgoing.is_empty() {
            self.pump_outgoing()?;
        }
        Ok(())
    }

    pub(super) fn pump_control(&mut self) -> Result<(), Breach> {
        while let Some(frame) = self.stalled.take().or_else(|| self.machine.poll_transmit()) {
            if frame.header.kind == FrameKind::Pong && self.must_follow_queue() {
                self.outgoing.push_last(frame.header);
                continue;
            }
            if !self.write(frame.header, &frame.body, &[])? {
                self.stalled = Some(frame);
                break;
            }
            doorbell_shm::failpoint!("control.written");
            self.ask_again(); // it may have been the last block that was given back
        }
        Ok(())
    }

    /// A server that leaves takes an answer for the end of what we began before we knew: it goes behind what waits.
    fn must_follow_queue(&self) -> bool {
        self.going_away.is_some() && !self.outgoing.is_empty()
    }

    /// Writes small frames, and a chunk of a large message when none waits. Chunks may go past our caches if the peer reads them on a CPU of its
    /// own meanwhile; but not beside small messages, whose turn would come later the faster chunks follow each other.
    fn pump_outgoing(&mut self) -> Result<(), Breach> {
        let chunk_bytes = self.max_body_bytes();
        let mut go = Overlap::start();
        while self.pump_smalls()?
            && let Some(large) = self.outgoing.first_large()
        {
            let unread_bytes = self.producer.unread_bytes()?;
            go.look(self.producer.seen_head());
            let may = self.mixed == 0 && self.overlap.is_likely();
            let past_caches = self.past_caches.is_next_past(may);
            self.producer.write_past_caches(past_caches);
            if unread_bytes > chunk_bytes * ahead(self.not_alone)
                || !write_chunk(&mut self.producer, self.terms, large, chunk_bytes)?
            {
                break;
            }
            go.wrote_chunk();
            self.past_caches.wrote_chunk(Instant::now);
            doorbell_shm::failpoint!("large.chunk.written");
            let answered = self.outgoing.chunk_was_sent();
            self.not_alone = self.not_alone.saturating_sub(1);
            self.mixed = self.mixed.saturating_sub(1);
            self.release_slot(answered);
        }
        if !self.outgoing.has_large() {
            self.past_caches.end(Instant::now);
        }
        self.producer.write_past_caches(false);
        self.overlap.learn(&go);
        Ok(())
    }

    /// Writes the small frames that wait. Returns `false` if the ring is full.
    fn pump_smalls(&mut self) -> Result<bool, Breach> {
        while let Some(small) = self.outgoing.first_small() {
            if !write(
                &mut self.producer,
                self.terms,
                small.header,
                &small.body,
                &[],
            )? {
                return Ok(false);
            }
            let answered = self.outgoing.small_was_sent();
            self.release_slot(answered);
        }
        Ok(true)
    }

    /// The answer of a call has been written: its slot may be used again.
    #[inline]
    fn release_slot(&mut self, answered: Option<CallId>) {
        if let Some(id) = answered {
            self.machine.release(id);
        }
    }

    #[inline]
    fn write(&mut self, header: FrameHeader, head: &[u8], payload: &[u8]) -> Result<bool, Breach> {
        write(&mut self.producer, self.terms, header, head, payload)
    }

    /// Largest body of one frame.
    pub(super) fn max_body_bytes(&self) -> usize {
        (self.terms.max_chunk_bytes as usize).min(self.producer.max_body_bytes())
    }
}

fn metadata_bytes(metadata: &Metadata) -> u16 {
    u16::try_from(metadata.encoded_bytes()).expect("metadata is limited to 16 KiB when it is made")
}

/// Writes one frame. Returns `false` if there is no room.
#[inline]
fn write(
    producer: &mut Producer,
    terms: Terms,
    mut header: FrameHeader,
    head: &[u8],
    payload: &[u8],
) -> Result<bool, Breach> {
    let covered = terms.covers(head.len() + payload.len());
    if covered {
        header.flags.insert(Flags::BODY_CRC);
    }
    let words = header.to_words(0);
    let crc = match (covered, head.is_empty()) {
        (false, _) => crc32c_header(&words),
        (true, true) => crc32c_record(&words, payload),
        (true, false) => crc32c(crc32c_record(&words, head), payload),
    };
    Ok(producer.push_words(header.to_words(crc), &[head, payload])?)
}

/// Returns the words of a header without its checksum.
#[inline(always)]
fn bare_words(mut header: FrameHeader, body_bytes: usize, covered: bool) -> (u64, u64, u64) {
    header.length = u32::try_from(body_bytes).expect("a chunk is smaller than 4 GiB");
    if covered {
        header.flags.insert(Flags::BODY_CRC);
    }
    let [first, id, last] = header.to_words(0);
    (first, id, last)
}

/// As [`write`], of a frame that is nothing but its payload, all of it in registers.
#[inline(never)]
fn write_bare(
    producer: &mut Producer,
    first: u64,
    id: u64,
    last: u64,
    covered: bool,
    payload: &[u8],
) -> Result<bool, Breach> {
    let words = [first, id, last];
    let crc = if covered {
        crc32c_record(&words, payload)
    } else {
        crc32c_header(&words)
    };
    let words = [first, id, FrameHeader::with_crc(last, crc)];
    Ok(producer.push_one(words, payload)?)
}

/// Returns how many chunks may lie unread.
fn ahead(not_alone: u32) -> usize {
    if not_alone > 0 {
        CHUNKS_AHEAD
    } else {
        CHUNKS_AHEAD_ALONE
    }
}

fn write_chunk(
    producer: &mut Producer,
    terms: Terms,
    large: &mut Large,
    chunk_bytes: usize,
) -> Result<bool, Breach> {
    let first = large.sent == 0;
    let mut header = large.header;
    if !first {
        header.flags = Flags::CONTINUE;
        header.metadata_bytes = 0;
    }
    let head: &[u8] = if first { &large.prefix } else { &[] };
    let rest = &large.payload[large.sent..];
    // Metadata is limited to half a chunk before a call is started, so the first frame never holds the whole payload.
    let take = rest
        .len()
        .min(chunk_bytes.saturating_sub(head.len()).max(1));
    if take < rest.len() {
        header.flags.insert(Flags::MORE);
    }
    header.length = u32::try_from(head.len() + take).expect("a chunk is smaller than 4 GiB");
    let written = write(producer, terms, header, head, &rest[..take])?;
    if written {
        large.sent += take;
    }
    Ok(written)
}

/// Header of the frame that starts or answers a call.
pub(super) fn header(kind: FrameKind, flags: Flags, id: u64, value: u32) -> FrameHeader {
    FrameHeader {
        length: 0,
        kind,
        flags,
        metadata_bytes: 0,
        id,
        value,
    }
}

/// Chunks of large messages that may lie unread in the ring while small messages use the connection too: enough to keep both sides
/// copying, few enough that a small call passes quickly.
pub(super) const CHUNKS_AHEAD: usize = 2;
const _: () = assert!(
    CHUNKS_AHEAD >= 2,
    "else a wake-up for room may be lost: see `must_look_for_space_waiter`"
);

/// The same while there are only large ones: a peer that sleeps until there is something has more to do in one go. (1 MiB there and back
/// with a server that never spins took 0.62 instead of 1.1 ms; with one that does, little changes.)
pub(super) const CHUNKS_AHEAD_ALONE: usize = 7;

/// Chunks after which a connection counts as one with only large messages.
const ALONE_AFTER: u32 = 64;

/// The same for whether chunks go past the caches: 64 MiB. A small message that was held up must not be followed by what held it up.
const UNMIXED_AFTER: u32 = 4096;

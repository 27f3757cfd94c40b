//! What the state lock protects: the protocol machine, our ring, what waits to be written, our sleep word, and the tickets.

use std::{task::Waker, time::Duration};

use bytes::Bytes;
use doorbell_proto::{
    CallId, Metadata, Prefix,
    connection::{Connection as Machine, ControlFrame, GoAwayReason},
    frame::{BlockId, Flags, FrameHeader, FrameKind},
};
use doorbell_shm::{
    Announcer, Notifier, Producer, SleepOn, Spin, crc32c, crc32c_header, crc32c_record, sys,
};

use super::{
    Effects,
    loans::Pool,
    outgoing::{Large, Outgoing, Small, answered},
    overlap::Overlap,
    ticket::{Ticket, TicketKey, Tickets},
};
use crate::{
    error::{Breach, Disconnected, Violation},
    link::Terms,
    loan::Loaned,
    stats::Counters,
};

pub(crate) struct State {
    pub(super) machine: Machine,
    pub(super) producer: Producer,
    announcer: Announcer,
    /// What the announcement says, and whether the peer may have used it up by ringing.
    announced_on: SleepOn,
    bell_used: bool,
    pub(super) notifier: Notifier,
    /// The peer may sleep over what has been published: it was nothing to wake anybody for.
    is_untold: bool,
    pub(super) spin: Spin,
    pub(super) pool: Pool,
    pub(super) outgoing: Outgoing,
    stalled: Option<ControlFrame>,
    overlap: Overlap,
    /// Chunks that will be sent in the belief that small messages use the connection too.
    not_alone: u32,
    /// The same, for what small messages suffer from even if they are rare.
    mixed: u32,
    pub(super) tickets: Tickets,
    pub(super) space_wakers: Vec<Waker>,
    pub(super) pongs: Pongs,
    pub(super) quiet_wakers: Vec<Waker>,
    /// A task has been woken to drive, and will, unless it is dropped first. Whoever watches the doorbell lets it go ahead, once.
    pub(super) is_driver_coming: bool,
    /// Chunks of a large message have come since a task began to sleep.
    pub(super) has_progressed: bool,
    /// The peer is gone; what it has left is still to be read.
    pub(super) gone: bool,
    pub(super) end: Option<Disconnected>,
    pub(super) going_away: Option<String>,
    pub(super) counters: Counters,
    pub(super) terms: Terms,
    /// Something has used more memory than a light user does, since it was last given back.
    pub(super) is_untidy: bool,
    /// Where the frame ends by which the client has been told to give back what that was.
    pub(super) told_at: Option<u32>,
    /// How often the worker has come for it since.
    pub(super) visits: u8,
    /// The server has said so, and it is not done.
    pub(super) is_told_quiet: bool,
    body: Vec<u8>,
}

/// Answers to our pings.
#[derive(Default)]
pub(super) struct Pongs {
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) wakers: Vec<Waker>,
}

/// Payload of a message that is to be sent.
#[derive(Clone, Copy)]
pub(crate) enum Outbound<'a> {
    /// Copied if it has to wait.
    Copy(&'a [u8]),
    /// Shared if it has to wait.
    Share(&'a Bytes),
    /// Lent if the peer can have it, else copied.
    Lend(&'a Loaned),
}

impl Outbound<'_> {
    /// Returns the number of bytes.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Copy(bytes) => bytes.len(),
            Self::Share(bytes) => bytes.len(),
            Self::Lend(loan) => loan.len(),
        }
    }

    /// Returns the bytes, unless they are lent.
    #[inline]
    fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Copy(bytes) => Some(bytes),
            Self::Share(bytes) => Some(bytes),
            Self::Lend(_) => None,
        }
    }

    fn to_bytes(self) -> Bytes {
        match self {
            Self::Copy(bytes) => Bytes::copy_from_slice(bytes),
            Self::Share(bytes) => bytes.clone(),
            Self::Lend(loan) => loan.to_bytes(),
        }
    }
}

/// What goes before the payload.
#[derive(Clone, Copy, Default)]
pub(crate) struct Preamble<'a> {
    pub(crate) remaining: Option<Duration>,
    pub(crate) metadata: Option<&'a Metadata>,
}

impl<'a> Preamble<'a> {
    #[inline]
    fn is_empty(&self) -> bool {
        self.remaining.is_none() && self.metadata.is_none()
    }

    fn prefix(self, total_bytes: Option<u64>) -> Prefix<'a> {
        Prefix {
            remaining: self.remaining,
            total_bytes,
            metadata: self.metadata,
        }
    }
}

impl State {
    pub(super) fn new(
        machine: Machine,
        producer: Producer,
        (announcer, notifier): (Announcer, Notifier),
        spin: Spin,
        pool: Pool,
        terms: Terms,
    ) -> Self {
        Self {
            machine,
            producer,
            announcer,
            announced_on: SleepOn::Doorbell,
            bell_used: false,
            notifier,
            is_untold: false,
            spin,
            pool,
            outgoing: Outgoing::default(),
            stalled: None,
            overlap: Overlap::new(sys::cpu_count()),
            not_alone: 0,
            mixed: 0,
            tickets: Tickets::default(),
            space_wakers: Vec::new(),
            pongs: Pongs::default(),
            quiet_wakers: Vec::new(),
            is_driver_coming: false,
            has_progressed: false,
            gone: false,
            end: None,
            going_away: None,
            counters: Counters::default(),
            terms,
            is_untidy: false,
            told_at: None,
            visits: 0,
            is_told_quiet: false,
            body: Vec::new(),
        }
    }

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
        loan: &Loaned,
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

    /// Tells a peer that broke the protocol in which way, if there is room for it. Nothing is waited for: the end of the socket wakes it.
    pub(super) fn say_what_was_wrong(&mut self, violation: &Violation) {
        let text = violation.to_string();
        self.machine.go_away(GoAwayReason::ProtocolError, &text);
        // What it has done to its own positions may keep us from writing. It is being thrown out all the same.
        let _ = self.pump_control();
        self.producer.publish();
    }

    fn pump_control(&mut self) -> Result<(), Breach> {
        while let Some(frame) = self.stalled.take().or_else(|| self.machine.poll_transmit()) {
            if !self.write(frame.header, &frame.body, &[])? {
                self.stalled = Some(frame);
                break;
            }
            doorbell_shm::failpoint!("control.written");
        }
        Ok(())
    }

    /// Writes small frames, and a chunk of a large message when none waits. Chunks go past our caches if the peer reads them on a CPU of its
    /// own meanwhile; but not beside small messages, whose turn would come later the faster chunks follow each other.
    fn pump_outgoing(&mut self) -> Result<(), Breach> {
        let chunk_bytes = self.max_body_bytes();
        let mut go = Overlap::start();
        while self.pump_smalls()?
            && let Some(large) = self.outgoing.first_large()
        {
            let unread_bytes = self.producer.unread_bytes()?;
            go.look(self.producer.seen_head());
            let past_caches = self.mixed == 0 && self.overlap.is_likely();
            self.producer.write_past_caches(past_caches);
            if unread_bytes > chunk_bytes * ahead(self.not_alone)
                || !write_chunk(&mut self.producer, self.terms, large, chunk_bytes)?
            {
                break;
            }
            go.wrote_chunk();
            doorbell_shm::failpoint!("large.chunk.written");
            let answered = self.outgoing.chunk_was_sent();
            self.not_alone = self.not_alone.saturating_sub(1);
            self.mixed = self.mixed.saturating_sub(1);
            self.release_slot(answered);
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

    /// Returns `true` if a large message is under way in either direction.
    pub(super) fn has_large(&self) -> bool {
        self.outgoing.has_large() || self.machine.is_assembling()
    }

    /// Returns `true` if something waits to be written.
    #[inline]
    pub(super) fn has_backlog(&self) -> bool {
        self.has_queue() || self.machine.has_control()
    }

    /// Returns `true` if a notification need not wait for others. Large messages that are none do not count: small ones go before their chunks,
    /// and one may follow the other without end.
    pub(super) fn is_writable(&self) -> bool {
        self.stalled.is_none() && !self.machine.has_control() && self.outgoing.may_notify()
    }

    /// Returns `true` if frames have found no room.
    #[inline]
    fn has_queue(&self) -> bool {
        self.stalled.is_some() || !self.outgoing.is_empty()
    }

    /// Returns `true` if somebody must be woken when the peer does something.
    pub(super) fn needs_driver(&self) -> bool {
        self.tickets.waiting() > 0
            || self.has_backlog()
            || !self.space_wakers.is_empty()
            || !self.pool.wakers.is_empty()
            || !self.pongs.wakers.is_empty()
    }

    /// Nothing waits, and there is room for a control frame.
    pub(super) fn can_say_more(&mut self) -> bool {
        let most = self.max_body_bytes();
        !self.has_backlog()
            && self
                .producer
                .unread_bytes()
                .is_ok_and(|unread| unread <= most)
    }

    /// Gives back what more than light use has left, if nothing of it is needed now. Returns `false` if something is, or if the peer has not
    /// read everything.
    ///
    /// The ring stays where that was not agreed on: even the attempt takes a lock of the kernel that the peer can hold.
    pub(super) fn give_back(&mut self) -> bool {
        if self.has_large() {
            return false;
        }
        if !self.terms.gives_back {
            self.producer.begin_reach();
        } else if !matches!(self.producer.give_back(), Ok(true)) {
            return false; // a peer that broke the rules is found when the ring is used
        }
        self.is_untidy = false;
        self.told_at = None;
        self.body = Vec::new();
        self.outgoing.give_back();
        self.tickets.give_back();
        self.machine.give_back_memory();
        true
    }

    /// Tells the peer that we are about to sleep, and whether it is room that we wait for as well. Look once more afterwards.
    /// Returns the number of the sleep.
    pub(super) fn announce(&mut self, on: SleepOn) -> u32 {
        self.announced_on = on;
        self.bell_used = false;
        let waits_for_room = self.has_backlog() || self.pool.is_wanted();
        self.announcer.announce(on, waits_for_room)
    }

    /// Tells the peer that we are awake.
    pub(super) fn withdraw(&mut self) {
        self.announcer.withdraw();
    }

    /// The bell has rung while somebody else drives: the announcement behind it wakes nobody any more. A sleep on the futex is
    /// none of the bell's business: the ring was meant for an earlier sleep and comes late.
    pub(super) fn bell_was_used(&mut self) {
        self.bell_used = self.announced_on == SleepOn::Doorbell;
    }

    /// Somebody must be woken later and the peer does not know it, or is gone.
    pub(super) fn is_adrift(&self) -> bool {
        self.end.is_none() && (self.gone || self.needs_driver() && !self.is_announced())
    }

    /// The peer is gone and whoever has the receive half must end the connection.
    pub(super) fn must_end(&self) -> bool {
        self.gone && self.end.is_none()
    }

    pub(super) fn is_announced(&self) -> bool {
        self.announcer.is_announced() && !self.bell_used
    }

    /// Returns what a sleeper sleeps on that does not watch for room.
    pub(super) fn sleeps_without_space(&self) -> Option<SleepOn> {
        (self.is_announced() && !self.announcer.wants_space()).then_some(self.announced_on)
    }

    /// Returns `true` if a thread drives, and sleeps, and waits for room.
    #[inline]
    pub(super) fn sleeps_for_space(&self) -> bool {
        self.announced_on == SleepOn::Futex
            && self.announcer.wants_space()
            && self.announcer.is_announced()
    }

    /// Makes what was written visible. Returns how the peer must be woken, if it sleeps.
    pub(super) fn publish(&mut self) -> Option<SleepOn> {
        let published = self.producer.publish();
        self.tell(published, false)
    }

    /// As [`publish`](Self::publish), of what is nothing to wake the peer for, unless it waits for room.
    pub(super) fn publish_quietly(&mut self) -> Option<SleepOn> {
        let published = self.producer.publish();
        self.is_untold |= published;
        self.tell(false, published)
    }

    /// Returns how the peer must be woken for what has been published or released, if it sleeps.
    ///
    /// Whoever waits for room waits for it to read everything, also what it was not to be woken for.
    pub(super) fn tell(&mut self, mut published: bool, released: bool) -> Option<SleepOn> {
        if self.is_untold {
            published |= self.has_backlog();
            self.is_untold = !published;
        }
        let due = self.notifier.after_publish_and_release(published, released);
        self.counters.notifies += u64::from(due.is_some());
        due
    }

    /// Returns the ticket of a caller.
    pub(crate) fn ticket(&mut self, key: TicketKey) -> &mut Ticket {
        self.tickets.get(key)
    }

    /// Closes a handle of a ticket; its owner has what they wanted.
    pub(crate) fn close_ticket(&mut self, key: TicketKey, spare: Vec<u8>) {
        self.tickets.close(key, spare);
    }

    /// Ready when an item may be sent, or never will be.
    pub(crate) fn may_send(&mut self, key: TicketKey) -> Option<()> {
        let ticket = self.tickets.get(key);
        let (id, over) = (ticket.id, ticket.over);
        (over || self.end.is_some() || self.machine.may_begin_item(id)).then_some(())
    }

    /// Takes back what waits to be sent of a call, with the blocks that it would have lent. Returns `true` if nothing of its request has been
    /// sent.
    pub(super) fn forget_queued(&mut self, id: CallId, effects: &mut Effects) -> bool {
        let was_unsent = self.outgoing.remove(id);
        for block in self.outgoing.take_dropped_loans() {
            if self.machine.take_back(block) {
                self.block_came_back(block, effects);
            }
        }
        was_unsent
    }

    /// Takes back everything of a call that its owner gives up. Returns `true` if the peer has to be told. Otherwise it has never heard of
    /// the call, and the next one will have the same id.
    pub(super) fn cancel(&mut self, id: CallId, effects: &mut Effects) -> bool {
        if self.forget_queued(id, effects) {
            self.machine.abort_start(id);
            return false;
        }
        self.machine.cancel(id)
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
pub(super) const CHUNKS_AHEAD: usize = 3;

/// The same while there are only large ones: a peer that sleeps until there is something has more to do in one go. (1 MiB there and back
/// with a server that never spins took 0.62 instead of 1.1 ms; with one that does, little changes.)
const CHUNKS_AHEAD_ALONE: usize = 7;

/// Chunks after which a connection counts as one with only large messages.
const ALONE_AFTER: u32 = 64;

/// The same for whether chunks go past the caches: 64 MiB. A small message that was held up must not be followed by what held it up.
const UNMIXED_AFTER: u32 = 4096;

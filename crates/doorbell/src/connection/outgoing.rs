//! Frames that wait for room in the ring.
//!
//! Small frames leave in the order in which they came. Large messages leave one chunk at a time, in turn, and only while little
//! of them is unread, so that a small frame waits for a few chunks at most. A frame that must follow a large message of the same
//! call waits behind it. Small items of one stream, and notifications of one type, that wait behind each other share a frame.
//!
//! The queue has no limit of its own: every entry is paid for elsewhere. Calls and replies by the limit on calls, stream items by
//! credit, notifications by a byte limit that the sender checks against [`Outgoing::notify_bytes`] and, for large ones, which
//! do not hold up the small ones, against [`Outgoing::large_notify_bytes`].

use std::{collections::VecDeque, convert::Infallible};

use bytes::Bytes;
use doorbell_proto::{
    CallId,
    frame::{
        BlockId, DESCRIPTOR_BYTES, Descriptor, Flags, FrameHeader, FrameKind, HEADER_BYTES,
        PACKED_LENGTH_BYTES, pack,
    },
};

/// One frame with its whole body.
pub(super) struct Small {
    pub(super) header: FrameHeader,
    pub(super) body: Vec<u8>,
}

/// A message that is sent in chunks.
pub(super) struct Large {
    /// Header of the first frame; later ones follow from it.
    pub(super) header: FrameHeader,
    /// Prefix of the first frame.
    pub(super) prefix: Vec<u8>,
    pub(super) payload: Bytes,
    /// Payload bytes already written.
    pub(super) sent: usize,
    /// Nobody waits for its answer.
    is_notification: bool,
    /// What must follow it: frames of the same call.
    then: VecDeque<Queued>,
}

enum Queued {
    Small(Small),
    Large(Large),
}

impl Queued {
    fn loan(&self) -> Option<BlockId> {
        match self {
            Self::Small(small) => small.loan(),
            Self::Large(_) => None, // what is lent is small
        }
    }
}

/// The queue.
#[derive(Default)]
pub(super) struct Outgoing {
    small: VecDeque<Small>,
    large: VecDeque<Large>,
    notify_bytes: usize,
    /// Blocks that were lent by frames which will never be sent.
    dropped_loans: Vec<BlockId>,
    /// Payloads that have been sent, or never will be, to be dropped without the lock.
    pub(super) aside: Vec<Bytes>,
}

impl Small {
    /// Returns the block that this frame lends.
    fn loan(&self) -> Option<BlockId> {
        if !self.header.is_loaned() {
            return None;
        }
        let (_, descriptor) = self.body.split_last_chunk::<DESCRIPTOR_BYTES>()?;
        Descriptor::decode(descriptor).map(|loan| loan.block)
    }

    /// Returns `true` if the messages of `next` may join those of this frame.
    fn may_pack(&self, next: &Self, pack_bytes: usize) -> bool {
        let only_packed = |header: &FrameHeader| header.flags.without(Flags::PACKED) == Flags::NONE;
        matches!(next.header.kind, FrameKind::Data | FrameKind::Notify)
            && self.header.kind == next.header.kind
            && self.header.id == next.header.id
            && self.header.value == next.header.value
            && self.header.metadata_bytes == 0
            && next.header.metadata_bytes == 0
            && only_packed(&self.header)
            && only_packed(&next.header)
            && self.body.len() + next.body.len() + 2 * PACKED_LENGTH_BYTES <= pack_bytes
    }

    fn pack(&mut self, next: &Self) {
        if !self.header.is_packed() {
            let alone = std::mem::take(&mut self.body);
            self.append(&alone);
            self.header.flags.insert(Flags::PACKED);
        }
        if next.header.is_packed() {
            self.body.extend_from_slice(&next.body);
        } else {
            self.append(&next.body);
        }
        self.header.length = u32::try_from(self.body.len()).expect("a pack is small");
    }

    fn append(&mut self, message: &[u8]) {
        let Ok(()) = pack(&mut self.body, |out| {
            out.extend_from_slice(message);
            Ok::<_, Infallible>(())
        });
    }
}

impl Large {
    pub(super) fn new(header: FrameHeader, prefix: Vec<u8>, payload: Bytes) -> Self {
        Self {
            header,
            prefix,
            payload,
            sent: 0,
            is_notification: false,
            then: VecDeque::new(),
        }
    }

    /// Returns `true` if it belongs to this call. The number of an answer to a ping is the peer's, and may be that of a call.
    fn is_of(&self, id: u64) -> bool {
        self.header.id == id && self.header.kind != FrameKind::Pong
    }

    /// Returns `true` if a frame with this header must follow it: one of the same call, which a notification has not, whatever its number.
    fn goes_before(&self, header: &FrameHeader) -> bool {
        header.kind != FrameKind::Notify && self.is_of(header.id)
    }

    /// Keeps the payload, and those that were to follow it, until they can be dropped.
    fn put_aside(self, aside: &mut Vec<Bytes>) {
        aside.push(self.payload);
        for next in self.then {
            if let Queued::Large(next) = next {
                next.put_aside(aside);
            }
        }
    }
}

impl Outgoing {
    pub(super) fn is_empty(&self) -> bool {
        self.small.is_empty() && self.large.is_empty()
    }

    /// Returns `true` if a large message waits, or a part of one.
    pub(super) fn has_large(&self) -> bool {
        !self.large.is_empty()
    }

    /// Returns `true` if no small message waits, and no large notification.
    pub(super) fn may_notify(&self) -> bool {
        self.small.is_empty() && !self.large.iter().any(|large| large.is_notification)
    }

    /// Returns `true` if nothing waits but large answers, or parts of them, with nothing to follow, and no more than `most`.
    pub(super) fn has_only_answers(&self, most: usize) -> bool {
        let is_answer =
            |large: &Large| large.header.kind == FrameKind::Response && large.then.is_empty();
        self.small.is_empty() && self.large.len() <= most && self.large.iter().all(is_answer)
    }

    /// Gives the memory of queues back in which nothing waits.
    pub(super) fn give_back(&mut self) {
        self.small.shrink_to_fit();
        self.large.shrink_to_fit();
    }

    /// Returns `true` if a frame with this header may be written to the ring at once, before everything that is queued.
    pub(super) fn may_overtake(&self, header: &FrameHeader) -> bool {
        self.small.is_empty() && (self.large.is_empty() || !self.follows_large(header))
    }

    /// Bytes of small notifications that wait, with their headers.
    pub(super) fn notify_bytes(&self) -> usize {
        self.notify_bytes
    }

    /// Bytes of the large notifications of which something waits: each keeps all of its memory until its last chunk is sent.
    pub(super) fn large_notify_bytes(&self) -> usize {
        let notifications = self.large.iter().filter(|large| large.is_notification);
        notifications.map(|large| large.payload.len()).sum()
    }

    /// The large message of this call, if it still waits, is a notification.
    pub(super) fn mark_notification(&mut self, id: u64) {
        if let Some(large) = self.large.iter_mut().find(|large| large.is_of(id)) {
            large.is_notification = true;
        }
    }

    /// Adds a frame. Small items and notifications that wait behind each other share one, with a body of up to `pack_bytes`: returns by how
    /// much that is less than what both would have taken.
    pub(super) fn push_small(&mut self, small: Small, pack_bytes: usize) -> usize {
        let is_notify = small.header.kind == FrameKind::Notify;
        if let Some(large) = self.large_before(&small.header) {
            large.then.push_back(Queued::Small(small));
            return 0;
        }
        let more_bytes = small.body.len();
        let saved_bytes = match self
            .small
            .back_mut()
            .filter(|last| last.may_pack(&small, pack_bytes))
        {
            Some(last) => {
                let before_bytes = last.body.len();
                last.pack(&small);
                before_bytes + more_bytes + HEADER_BYTES - last.body.len()
            }
            None => {
                self.small.push_back(small);
                0
            }
        };
        if is_notify {
            self.notify_bytes += more_bytes + HEADER_BYTES - saved_bytes;
        }
        saved_bytes
    }

    pub(super) fn push_large(&mut self, large: Large) {
        match self.large_before(&large.header) {
            Some(before) => before.then.push_back(Queued::Large(large)),
            None => self.large.push_back(large),
        }
    }

    /// Adds a frame without a body that follows the beginning, at least, of everything that waits now. It replaces one that waits so already.
    pub(super) fn push_last(&mut self, header: FrameHeader) {
        self.large
            .retain(|large| large.header.kind != FrameKind::Pong);
        self.large
            .push_back(Large::new(header, Vec::new(), Bytes::new()));
    }

    pub(super) fn first_small(&self) -> Option<&Small> {
        self.small.front()
    }

    /// Takes the first small frame out. Returns the call that it answered, if it did.
    pub(super) fn small_was_sent(&mut self) -> Option<CallId> {
        let small = self.small.pop_front()?;
        if small.header.kind == FrameKind::Notify {
            self.notify_bytes -= small.body.len() + HEADER_BYTES;
        }
        answered(&small.header)
    }

    pub(super) fn first_large(&mut self) -> Option<&mut Large> {
        self.large.front_mut()
    }

    /// Gives the next large message its turn; what had to follow a finished one takes its place. Returns the call that the
    /// finished one answered, if it did.
    pub(super) fn chunk_was_sent(&mut self) -> Option<CallId> {
        let large = self.large.pop_front()?;
        if large.sent < large.payload.len() {
            self.large.push_back(large);
            return None;
        }
        self.aside.push(large.payload);
        self.queue_followers(large.then);
        answered(&large.header)
    }

    fn queue_followers(&mut self, mut then: VecDeque<Queued>) {
        while let Some(next) = then.pop_front() {
            match next {
                Queued::Small(small) => self.small.push_back(small),
                Queued::Large(mut next) => {
                    next.then = then;
                    self.large.push_back(next);
                    return;
                }
            }
        }
    }

    /// Forgets what waits for a call that is over. Returns `true` if no frame of a request of that call had been sent yet.
    pub(super) fn remove(&mut self, id: CallId) -> bool {
        let id = id.raw();
        let unsent = |header: &FrameHeader, sent: usize| {
            header.id == id && header.kind == FrameKind::Call && sent == 0
        };
        let was_unsent = self.small.iter().any(|small| unsent(&small.header, 0))
            || self
                .large
                .iter()
                .any(|large| unsent(&large.header, large.sent));
        let dropped = &mut self.dropped_loans;
        self.small.retain(|small| {
            let stays = small.header.id != id || small.header.kind == FrameKind::Notify;
            if !stays {
                dropped.extend(small.loan());
            }
            stays
        });
        for _ in 0..self.large.len() {
            let Some(large) = self.large.pop_front() else {
                break;
            };
            if !large.is_of(id) {
                self.large.push_back(large);
                continue;
            }
            dropped.extend(large.then.iter().filter_map(Queued::loan));
            large.put_aside(&mut self.aside);
        }
        was_unsent
    }

    /// Forgets everything.
    pub(super) fn put_all_aside(&mut self) {
        self.small.clear();
        for large in self.large.drain(..) {
            large.put_aside(&mut self.aside);
        }
    }

    /// Takes the blocks that were lent by frames which will never be sent.
    pub(super) fn take_dropped_loans(&mut self) -> Vec<BlockId> {
        std::mem::take(&mut self.dropped_loans)
    }

    fn follows_large(&self, header: &FrameHeader) -> bool {
        let mut all = self.large.iter();
        all.any(|large| large.goes_before(header))
    }

    /// Returns the large message that a frame has to follow.
    fn large_before(&mut self, header: &FrameHeader) -> Option<&mut Large> {
        let mut all = self.large.iter_mut();
        all.find(|large| large.goes_before(header))
    }
}

/// Returns the call that a frame ends when a server has sent it.
#[inline]
pub(super) fn answered(header: &FrameHeader) -> Option<CallId> {
    matches!(header.kind, FrameKind::Response | FrameKind::End).then(|| CallId::from_raw(header.id))
}

#[cfg(test)]
mod tests;

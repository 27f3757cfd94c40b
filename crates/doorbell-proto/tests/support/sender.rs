//! The queue that a runtime would have: messages wait here, divided into chunks, one chunk of each call in turn.

use super::CHUNK_BYTES;
use doorbell_proto::{
    BlockId, CallId, Descriptor, Flags, FrameHeader, FrameKind, HEADER_BYTES, Prefix, frame::pack,
};
use std::collections::VecDeque;

pub(crate) type Frame = (FrameHeader, Vec<u8>);

/// One message after another per call, calls in turn.
#[derive(Default)]
pub(crate) struct Sender {
    queues: VecDeque<(u64, VecDeque<Waiting>)>,
}

struct Waiting {
    frames: VecDeque<Frame>,
    begun: bool,
    /// The block that it lends.
    lends: Option<BlockId>,
}

impl Sender {
    /// Queues a message of `size` bytes behind what already waits for its call.
    pub(crate) fn send(&mut self, header: FrameHeader, prefix: Prefix<'_>, size: usize) {
        let message = Waiting {
            frames: divide(header, prefix, &pattern(size)),
            begun: false,
            lends: None,
        };
        self.push(header.id, message);
    }

    /// Queues a message whose payload is lent.
    pub(crate) fn send_loaned(
        &mut self,
        mut header: FrameHeader,
        prefix: Prefix<'_>,
        loan: Descriptor,
    ) {
        header.flags.insert(Flags::LOANED);
        let message = Waiting {
            frames: divide(header, prefix, &loan.encode()),
            begun: false,
            lends: Some(loan.block),
        };
        self.push(header.id, message);
    }

    fn push(&mut self, id: u64, message: Waiting) {
        match self.queues.iter_mut().find(|(queued, _)| *queued == id) {
            Some((_, queue)) => queue.push_back(message),
            None => self.queues.push_back((id, VecDeque::from([message]))),
        }
    }

    /// Queues a frame that packs `count` messages of `size` bytes.
    pub(crate) fn send_packed(&mut self, mut header: FrameHeader, size: usize, count: usize) {
        let body = packed(size, count);
        header.flags.insert(Flags::PACKED);
        header.length = u32::try_from(body.len()).unwrap();
        self.push(
            header.id,
            Waiting {
                frames: VecDeque::from([(header, body)]),
                begun: false,
                lends: None,
            },
        );
    }

    /// What a frame with `count` packed items of `size` bytes costs in credit.
    pub(crate) fn packed_cost_bytes(size: usize, count: usize) -> u64 {
        (HEADER_BYTES + packed(size, count).len()) as u64
    }

    /// What an item of `size` bytes costs in credit.
    pub(crate) fn cost_bytes(size: usize) -> u64 {
        let frames = divide(
            FrameHeader::new(FrameKind::Data, 0, 0),
            Prefix::default(),
            &pattern(size),
        );
        frames.iter().map(|(header, _)| header.cost_bytes()).sum()
    }

    /// Takes the next frame, and whether it is the last one of its message.
    pub(crate) fn next(&mut self) -> Option<(Frame, bool)> {
        let (id, mut queue) = self.queues.pop_front()?;
        let message = queue.front_mut()?;
        let frame = message.frames.pop_front()?;
        message.begun = true;
        let done = message.frames.is_empty();
        if done {
            queue.pop_front();
        }
        if !queue.is_empty() {
            self.queues.push_back((id, queue));
        }
        Some((frame, done))
    }

    /// Forgets everything that waits for a call, and returns the blocks that it would have lent.
    pub(crate) fn drop_call(&mut self, id: CallId) -> Vec<BlockId> {
        let queues = std::mem::take(&mut self.queues).into_iter();
        let (dropped, kept): (VecDeque<_>, _) = queues.partition(|(queued, _)| *queued == id.raw());
        self.queues = kept;
        let messages = dropped.into_iter().flat_map(|(_, queue)| queue);
        messages.filter_map(|message| message.lends).collect()
    }

    /// Returns `true` if the `CALL` of `id` waits and no frame of it has been taken.
    pub(crate) fn call_not_begun(&self, id: CallId) -> bool {
        let queue = self.queues.iter().find(|(queued, _)| *queued == id.raw());
        let first = queue.and_then(|(_, queue)| queue.front());
        first.is_some_and(|message| !message.begun && message.frames[0].0.kind == FrameKind::Call)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }
}

/// Divides a message into frames with bodies of at most [`CHUNK_BYTES`].
pub(crate) fn divide(
    mut header: FrameHeader,
    mut prefix: Prefix<'_>,
    payload: &[u8],
) -> VecDeque<Frame> {
    let fits = prefix.encoded_bytes() + payload.len() <= CHUNK_BYTES;
    prefix.total_bytes = (!fits).then_some(payload.len() as u64);
    let first_bytes = payload.len().min(CHUNK_BYTES - prefix.encoded_bytes());
    let (first, rest) = payload.split_at(first_bytes);
    assert!(prefix.set_header(&mut header, first_bytes));
    let mut body = Vec::new();
    prefix.encode(&mut body);
    body.extend_from_slice(first);
    let mut frames = VecDeque::from([(header, body)]);
    let mut chunks = rest.chunks(CHUNK_BYTES).peekable();
    while let Some(chunk) = chunks.next() {
        let more = if chunks.peek().is_some() {
            Flags::MORE
        } else {
            Flags::NONE
        };
        let length = u32::try_from(chunk.len()).unwrap();
        let flags = Flags::CONTINUE.with(more);
        frames.push_back((
            FrameHeader {
                length,
                flags,
                metadata_bytes: 0,
                ..header
            },
            chunk.to_vec(),
        ));
    }
    frames
}

fn packed(size: usize, count: usize) -> Vec<u8> {
    let mut body = Vec::new();
    for _ in 0..count {
        let written = pack(&mut body, |out| {
            out.extend(pattern(size));
            Ok::<_, std::convert::Infallible>(())
        });
        written.unwrap();
    }
    body
}

/// Bytes that are wrong if any of them is lost, doubled or moved.
fn pattern(size: usize) -> Vec<u8> {
    (0..size).map(|index| (index * 31 + size) as u8).collect()
}

pub(crate) fn check_pattern(bytes: &[u8]) {
    assert!(bytes == pattern(bytes.len()), "the message arrived damaged");
}

const _: () = assert!(CHUNK_BYTES > HEADER_BYTES);

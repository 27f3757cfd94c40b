//! The short ways of loans: messages that are nothing but a descriptor, and blocks that come back, told by the words of their headers.

use doorbell_proto::{
    CallId, CallKind, MessageType,
    connection::Payload,
    frame::{BlockId, Descriptor, FrameHeader, HeaderWords},
};

use crate::{
    connection::{
        Connection, Dispatch, Effects, Receive, Reply, StateGuard, receive::check_crc, state::State,
    },
    error::Breach,
};

/// A frame about a loan that need not be decoded.
#[derive(Clone, Copy)]
pub(in crate::connection) enum Lent {
    Response(CallId),
    Call(CallId, MessageType),
    Release(BlockId),
}

/// What has become of it.
pub(in crate::connection) enum Taken {
    /// It is not that simple, and nothing has changed.
    No,
    Whole,
    Request(Dispatch<'static>),
}

impl Lent {
    #[inline]
    pub(in crate::connection) fn of(words: &HeaderWords) -> Option<Self> {
        let response = || FrameHeader::bare_lent_response(words).map(Self::Response);
        let call = || {
            let call = FrameHeader::bare_lent_call(words);
            call.map(|(id, message_type)| Self::Call(id, message_type))
        };
        let release = FrameHeader::bare_release(words).map(Self::Release);
        release.or_else(response).or_else(call)
    }
}

impl Connection {
    /// Takes the next frame, whose header is `words`, for what it is.
    ///
    /// # Errors
    ///
    /// The peer broke the protocol.
    pub(in crate::connection) fn take_lent<'a>(
        &'a self,
        receive: &mut Receive,
        words: &HeaderWords,
        lent: Lent,
        held: &mut Option<StateGuard<'a>>,
        effects: &mut Effects,
    ) -> Result<Taken, Breach> {
        receive.copy_body(words)?;
        let state = held.get_or_insert_with(|| self.lock());
        let taken = match lent {
            Lent::Response(id) => match state.take_lent_reply(id, &receive.scratch) {
                Some(reply) => {
                    state.complete(id, effects, |ticket| ticket.set_reply(Some(reply)));
                    Taken::Whole
                }
                None => Taken::No,
            },
            Lent::Call(id, message_type) => {
                match state.take_lent_request(id, message_type, &receive.scratch) {
                    Some(request) => Taken::Request(request),
                    None => Taken::No,
                }
            }
            Lent::Release(block) if state.take_back(block, effects) => Taken::Whole,
            Lent::Release(_) => Taken::No,
        };
        if !matches!(taken, Taken::No) {
            receive.consumer.advance();
            state.counters.frames_received += 1;
            doorbell_shm::failpoint!("take.lent");
        }
        Ok(taken)
    }

    /// Takes the blocks that come back with what has just been taken, some of them.
    ///
    /// # Errors
    ///
    /// The peer broke the protocol.
    pub(in crate::connection) fn take_releases(
        receive: &mut Receive,
        state: &mut State,
        effects: &mut Effects,
    ) -> Result<(), Breach> {
        for _ in 0..BLOCKS_AT_ONCE {
            if !receive.consumer.knows_of_more() {
                break;
            }
            let words = receive.consumer.peek_words()?;
            let Some((words, block)) =
                words.and_then(|words| Some((words, FrameHeader::bare_release(&words)?)))
            else {
                break;
            };
            check_crc(&words, &[])?;
            if !state.take_back(block, effects) {
                break;
            }
            receive.consumer.advance();
            state.counters.frames_received += 1;
        }
        Ok(())
    }
}

/// Blocks that are taken back behind a reply. There is one in a closed loop; a caller should not do the work of many others first.
const BLOCKS_AT_ONCE: usize = 8;

impl State {
    /// Takes a block back. Returns `false`, and has changed nothing, if it was not lent.
    fn take_back(&mut self, block: BlockId, effects: &mut Effects) -> bool {
        let was_lent = self.machine.take_back(block);
        if was_lent {
            self.block_came_back(block, effects);
        }
        was_lent
    }

    /// Ends a call with the reply that a descriptor names. `None`, and nothing has changed, if it is not that simple.
    #[inline]
    pub(in crate::connection) fn take_lent_reply(
        &mut self,
        id: CallId,
        descriptor: &[u8],
    ) -> Option<Reply> {
        let loan = Descriptor::decode(descriptor)?;
        let held = self.hold_if(loan, |machine| machine.take_lent_reply(id, loan))?;
        Some(Reply::Loaned(held))
    }

    /// Opens a call with the request that a descriptor names. `None`, and nothing has changed, if it is not that simple.
    #[inline]
    fn take_lent_request(
        &mut self,
        id: CallId,
        message_type: MessageType,
        descriptor: &[u8],
    ) -> Option<Dispatch<'static>> {
        let loan = Descriptor::decode(descriptor)?;
        let held = self.hold_if(loan, |machine| machine.take_lent_request(id, loan))?;
        Some(Dispatch::Request {
            id,
            kind: CallKind::Unary,
            message_type,
            deadline: None,
            metadata: None,
            payload: Payload::Loaned(loan),
            loan: Some(held),
        })
    }
}

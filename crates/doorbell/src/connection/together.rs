//! Calls of one user that are under way together: many are started under one lock and published in one go, and what has been answered
//! meanwhile is taken under one lock.

#[cfg(feature = "tokio")]
use std::task::{Context, Poll};
use std::{collections::VecDeque, time::Instant};

use doorbell_proto::{CallKind, MessageType};

use super::{
    Awaited, Connection, NewCall, Outbound, Reply, State, TicketKey, drive::TimedOut,
    send::time_left,
};
use crate::error::CallError;

/// Requests that have been encoded and not been sent.
#[derive(Default)]
pub(crate) struct Encoded {
    bodies: Vec<u8>,
    /// Where each ends, and the next one begins.
    ends: Vec<usize>,
    /// How many of them have been sent.
    sent: usize,
}

/// Calls under way, in the order in which they were started, and what has come of those before them.
#[derive(Default)]
pub(crate) struct Together {
    calls: VecDeque<Started>,
    taken: VecDeque<Taken>,
    /// Small replies among those, one behind the other, and how far they have been handed out.
    bodies: Vec<u8>,
    handed_out: usize,
}

enum Started {
    Call(TicketKey),
    /// It was not sent.
    Failed(CallError),
}

enum Taken {
    Small { bytes: usize },
    Other(Result<Reply, CallError>),
}

/// What came of a call.
pub(crate) enum Ended<'a> {
    /// The payload of a small reply.
    Small(&'a [u8]),
    Other(Result<Reply, CallError>),
}

impl Encoded {
    /// Adds a request.
    ///
    /// # Errors
    ///
    /// Those of `encode`; nothing is added then.
    pub(crate) fn add<E>(
        &mut self,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let start = self.ends.last().copied().unwrap_or_default();
        self.bodies.truncate(start); // what one that panicked has left
        let encoded = encode(&mut self.bodies);
        match encoded {
            Ok(()) => self.ends.push(self.bodies.len()),
            Err(_) => self.bodies.truncate(start),
        }
        encoded
    }

    /// Returns `true` if it is time to send them.
    pub(crate) fn is_full(&self) -> bool {
        self.ends.len() >= CALLS_AT_ONCE || self.bodies.len() >= BYTES_AT_ONCE
    }

    /// Returns how many have not been sent.
    pub(crate) fn len(&self) -> usize {
        self.ends.len() - self.sent
    }

    /// Forgets them.
    pub(crate) fn clear(&mut self) {
        self.bodies.clear();
        self.bodies.shrink_to(KEPT_BYTES);
        self.ends.clear();
        self.sent = 0;
    }

    fn first(&self) -> Option<&[u8]> {
        let start = self.sent.checked_sub(1).map_or(0, |last| self.ends[last]);
        let end = *self.ends.get(self.sent)?;
        Some(&self.bodies[start..end])
    }
}

impl Together {
    /// Returns how many calls are under way.
    pub(crate) fn len(&self) -> usize {
        self.calls.len()
    }

    /// Adds a call that has been started.
    pub(crate) fn push(&mut self, key: TicketKey) {
        self.calls.push_back(Started::Call(key));
    }

    /// Adds the error of a call that was not sent, so that it comes in its turn.
    pub(crate) fn push_failed(&mut self, error: CallError) {
        self.calls.push_back(Started::Failed(error));
    }

    /// Returns what came of the next call, if that is known.
    pub(crate) fn pop(&mut self) -> Option<Ended<'_>> {
        match self.taken.pop_front()? {
            Taken::Small { bytes } => {
                let start = self.handed_out;
                self.handed_out += bytes;
                Some(Ended::Small(&self.bodies[start..start + bytes]))
            }
            Taken::Other(outcome) => Some(Ended::Other(outcome)),
        }
    }

    /// Returns the call that is waited for next: `None` if there is none. One that was not sent is what came of it.
    fn first(&mut self) -> Option<TicketKey> {
        loop {
            match self.calls.front()? {
                Started::Call(key) => return Some(*key),
                Started::Failed(_) if !self.taken.is_empty() => return None,
                Started::Failed(_) => {}
            }
            if let Some(Started::Failed(error)) = self.calls.pop_front() {
                self.taken.push_back(Taken::Other(Err(error)));
                return None;
            }
        }
    }

    /// Takes what has been answered, up to the first call that has not.
    fn take_ended(&mut self, state: &mut State) -> Option<()> {
        if self.taken.is_empty() {
            self.bodies.clear();
            self.handed_out = 0;
        }
        let before = self.taken.len();
        while let Some(&Started::Call(key)) = self.calls.front() {
            let ticket = state.ticket(key);
            let mut spare = Vec::new();
            let taken = match &mut ticket.outcome {
                None => break,
                Some(Ok(Reply::Small(payload))) => {
                    self.bodies.extend_from_slice(payload);
                    spare = std::mem::take(payload);
                    Taken::Small { bytes: spare.len() }
                }
                Some(_) => {
                    let outcome = ticket.outcome.take().expect("just seen");
                    Taken::Other(outcome)
                }
            };
            state.close_ticket(key, spare);
            self.calls.pop_front();
            self.taken.push_back(taken);
        }
        (self.taken.len() > before).then_some(())
    }
}

impl Connection {
    /// Starts as many of the `encoded` calls as it can, and publishes them together. If no slot is free, and none of them is under way whose
    /// answer would be waited for, reads first what may free some.
    ///
    /// # Errors
    ///
    /// Why the next one has not been sent.
    pub(crate) fn start_together(
        &self,
        message_type: MessageType,
        deadline: Option<Instant>,
        encoded: &mut Encoded,
        started: &mut Together,
    ) -> Result<(), CallError> {
        let result = self.start_together_now(message_type, deadline, encoded, started);
        if matches!(result, Err(CallError::TooManyCalls { .. }))
            && started.len() == 0
            && self.read_what_is_there()
        {
            return self.start_together_now(message_type, deadline, encoded, started);
        }
        result
    }

    fn start_together_now(
        &self,
        message_type: MessageType,
        deadline: Option<Instant>,
        encoded: &mut Encoded,
        started: &mut Together,
    ) -> Result<(), CallError> {
        let remaining = deadline.map(time_left).transpose()?;
        doorbell_shm::failpoint!("call.before");
        let mut guard = self.lock();
        let mut written = Ok(());
        let mut refused = Ok(());
        while let Some(payload) = encoded.first() {
            let call = NewCall {
                kind: CallKind::Unary,
                message_type,
                deadline,
                metadata: None,
                payload: Outbound::Copy(payload),
            };
            match self.write_request(&mut guard, call, remaining) {
                Ok((_, key, result)) => {
                    encoded.sent += 1;
                    started.push(key);
                    if result.is_err() {
                        written = result; // the connection ends, and with it this call
                        break;
                    }
                }
                Err(error @ CallError::TooLarge { .. }) => {
                    encoded.sent += 1;
                    started.push_failed(error);
                }
                Err(error) => {
                    refused = Err(error);
                    break;
                }
            }
        }
        doorbell_shm::failpoint!("call.written");
        self.sent(guard, written);
        doorbell_shm::failpoint!("call.sent");
        refused
    }

    /// Waits as a thread until something has come of the next call. Returns `false` if there is none.
    ///
    /// # Errors
    ///
    /// [`TimedOut`] when `deadline` has passed.
    pub(crate) fn wait_for_next(
        &self,
        together: &mut Together,
        deadline: Option<Instant>,
    ) -> Result<bool, TimedOut> {
        let Some(key) = together.first() else {
            return Ok(!together.taken.is_empty());
        };
        self.wait_until(key, Awaited::Arrival, deadline, &mut |state| {
            together.take_ended(state)
        })?;
        Ok(true)
    }

    /// As [`wait_for_next`](Self::wait_for_next), for a task.
    #[cfg(feature = "tokio")]
    pub(crate) fn poll_next_of(&self, cx: &mut Context<'_>, together: &mut Together) -> Poll<bool> {
        let Some(key) = together.first() else {
            return Poll::Ready(!together.taken.is_empty());
        };
        self.poll_until(cx, key, Awaited::Arrival, &mut |state| {
            together.take_ended(state)
        })
        .map(|()| true)
    }

    /// Cancels those that are under way, and forgets what has come of the others.
    pub(crate) fn abandon_all(&self, together: &mut Together) {
        together.taken.clear(); // loans among them go back with what is said now
        for started in together.calls.drain(..) {
            if let Started::Call(key) = started {
                self.abandon(key, Vec::new());
            }
        }
        self.give_back_dropped(self.lock());
    }
}

/// Calls that are published together: a few are enough to share what that costs, and the server can begin with them while the next are
/// encoded.
const CALLS_AT_ONCE: usize = 16;

/// As many bytes of them: a chunk.
const BYTES_AT_ONCE: usize = 16 * 1024;

/// Largest buffer of requests that is kept.
const KEPT_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[test]
    fn request_that_fails_or_panics_while_it_is_encoded_leaves_nothing_to_the_next() {
        let mut encoded = Encoded::default();
        let mut add = |bytes: &[u8], fails: bool| {
            encoded.add(|out| {
                out.extend_from_slice(bytes);
                if fails { Err(()) } else { Ok(()) }
            })
        };
        add(b"one", false).unwrap();
        add(b"wrong", true).unwrap_err();
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            encoded.add(|out| -> Result<(), ()> {
                out.extend_from_slice(b"half");
                panic!("on purpose")
            })
        }));
        assert!(panicked.is_err());
        encoded
            .add(|out| {
                out.extend_from_slice(b"two");
                Ok::<_, ()>(())
            })
            .unwrap();
        assert_eq!(encoded.len(), 2);
        assert_eq!(encoded.first(), Some(&b"one"[..]));
        encoded.sent += 1;
        assert_eq!(encoded.first(), Some(&b"two"[..]));
    }
}

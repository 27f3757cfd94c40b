//! A call before it is sent, whoever will wait for it.

use std::time::Instant;

use doorbell_proto::{CallKind, Metadata};

use super::add_metadata;
use crate::{
    connection::{Connection, NewCall, Outcome, TicketKey},
    error::CallError,
    message::Message,
    scratch,
};

/// A message, and the settings of the call that carries it.
pub(crate) struct Unsent<M> {
    message: M,
    pub(crate) deadline: Option<Instant>,
    metadata: Option<Metadata>,
    refused: Option<CallError>,
}

impl<M: Message> Unsent<M> {
    pub(crate) fn new(message: M) -> Self {
        Self {
            message,
            deadline: None,
            metadata: None,
            refused: None,
        }
    }

    pub(crate) fn limit(&mut self, deadline: Instant) {
        let earlier = self.deadline.filter(|before| *before < deadline);
        self.deadline = Some(earlier.unwrap_or(deadline));
    }

    pub(crate) fn add_metadata(&mut self, key: &str, value: &[u8]) {
        if let Err(error) = add_metadata(&mut self.metadata, key, value) {
            self.refused = Some(error);
        }
    }

    /// Sends it. Returns the ticket of the call.
    pub(crate) fn send(
        &mut self,
        connection: &Connection,
        kind: CallKind,
    ) -> Result<TicketKey, CallError> {
        self.encoded(kind, |call| connection.start(call))
    }

    /// Sends it and waits for the reply as long as spinning pays. Returns the ticket, which is closed if there is an outcome.
    pub(crate) fn send_and_spin(
        &mut self,
        connection: &Connection,
        outcome: &mut Outcome,
    ) -> Result<TicketKey, CallError> {
        self.encoded(CallKind::Unary, |call| {
            connection.start_and_spin(call, outcome)
        })
    }

    fn encoded(
        &mut self,
        kind: CallKind,
        send: impl FnOnce(NewCall<'_>) -> Result<TicketKey, CallError>,
    ) -> Result<TicketKey, CallError> {
        if let Some(error) = self.refused.take() {
            return Err(error);
        }
        let (deadline, metadata) = (self.deadline, self.metadata.as_ref());
        scratch::encoded(&self.message, |payload| {
            send(NewCall {
                kind,
                message_type: M::TYPE,
                deadline,
                metadata,
                payload,
            })
        })?
    }
}

/// The methods by which a call is set up, the same for tasks and threads.
macro_rules! call_settings {
    () => {
        /// Gives the call this long in all, its items included. Then it ends on both sides with
        /// [`CallError::DeadlineExceeded`](crate::CallError::DeadlineExceeded).
        pub fn timeout(self, timeout: std::time::Duration) -> Self {
            self.deadline(crate::deadline::after(timeout))
        }

        /// Gives the call until `deadline`, or less if it has an earlier one already.
        pub fn deadline(mut self, deadline: std::time::Instant) -> Self {
            self.unsent.limit(deadline);
            self
        }

        /// Takes over the deadline of the call that is being answered, so that nested calls end with it.
        pub fn inherit(self, context: &crate::Context) -> Self {
            match context.deadline() {
                Some(deadline) => self.deadline(deadline),
                None => self,
            }
        }

        /// Adds a metadata entry: a key of `a-z 0-9 - _ .` and any bytes. A wrong or oversized one fails the call before it is
        /// sent.
        pub fn metadata(mut self, key: &str, value: impl AsRef<[u8]>) -> Self {
            self.unsent.add_metadata(key, value.as_ref());
            self
        }
    };
}
pub(crate) use call_settings;

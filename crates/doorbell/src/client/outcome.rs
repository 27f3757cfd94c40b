//! From what a ticket holds to what the caller gets.

use std::cell::Cell;

use doorbell_proto::Metadata;

use crate::{
    connection::{Reply, State, TicketKey},
    error::CallError,
    message::{EncodeError, Incoming, Payload},
};

/// What ended a wait for a reply.
pub(crate) type Waited = Result<Reply, CallError>;

/// Takes the outcome of a call and closes its ticket, if it has one.
pub(crate) fn take_outcome(state: &mut State, key: TicketKey) -> Option<Waited> {
    let outcome = state.ticket(key).outcome.take()?;
    state.close_ticket(key, SPARE.take());
    Some(outcome)
}

/// Decodes the reply.
pub(crate) fn take_reply<T: Payload>(waited: Waited) -> Result<T, CallError> {
    match waited? {
        Reply::Small(bytes) => {
            let value = T::decode(Incoming::Borrowed(&bytes)).map_err(CallError::Decode);
            SPARE.set(bytes); // lent to the next call, so that small replies need no allocation
            value
        }
        Reply::Large(bytes) => T::decode(Incoming::Owned(bytes)).map_err(CallError::Decode),
    }
}

thread_local! {
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Adds a metadata entry to a call that may have none yet.
pub(crate) fn add_metadata(
    metadata: &mut Option<Metadata>,
    key: &str,
    value: &[u8],
) -> Result<(), CallError> {
    let entries = metadata.get_or_insert_default();
    entries
        .insert(key, value)
        .map_err(|error| CallError::Encode(EncodeError::new(error)))
}

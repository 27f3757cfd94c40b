//! From what a ticket holds to what the caller gets.

use doorbell_proto::Metadata;

use crate::{
    connection::{Outcome, Reply, recycle},
    error::CallError,
    message::{EncodeError, Incoming, Payload},
};

/// Decodes the reply, of a call that has ended.
#[inline]
pub(crate) fn take_reply<T: Payload>(outcome: &mut Outcome) -> Result<T, CallError> {
    outcome
        .take()
        .expect("the call has ended")
        .and_then(decode_reply)
}

/// Decodes a reply.
pub(super) fn decode_reply<T: Payload>(reply: Reply) -> Result<T, CallError> {
    let decoded = match reply {
        Reply::Small(bytes) => {
            let value = T::decode(Incoming::Borrowed(&bytes));
            recycle(bytes);
            value
        }
        Reply::Large(bytes) => T::decode(Incoming::Owned(bytes)),
        Reply::Loaned(loan) => T::decode_loaned(loan.into()),
    };
    decoded.map_err(CallError::Decode)
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

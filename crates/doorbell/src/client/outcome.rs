//! From what a ticket holds to what the caller gets.

use doorbell_proto::Metadata;

use crate::{
    connection::{Reply, Waited, recycle},
    error::CallError,
    message::{EncodeError, Incoming, Payload},
};

/// Decodes the reply.
pub(crate) fn take_reply<T: Payload>(waited: Waited) -> Result<T, CallError> {
    match waited? {
        Reply::Small(bytes) => {
            let value = T::decode(Incoming::Borrowed(&bytes)).map_err(CallError::Decode);
            recycle(bytes);
            value
        }
        Reply::Large(bytes) => T::decode(Incoming::Owned(bytes)).map_err(CallError::Decode),
        Reply::Loaned(loan) => T::decode_loaned(loan.into()).map_err(CallError::Decode),
    }
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

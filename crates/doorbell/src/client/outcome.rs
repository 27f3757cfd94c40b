//! From what a ticket holds to what the caller gets.

use doorbell_proto::Metadata;

use crate::{
    connection::{Outcome, Reply, recycle},
    error::CallError,
    message::{EncodeError, Incoming, Payload},
};

/// Decodes the reply, of a call that has ended.
pub(crate) fn take_reply<T: Payload>(outcome: &mut Outcome) -> Result<T, CallError> {
    let decoded = match outcome.take().expect("the call has ended") {
        Ok(Reply::Small(bytes)) => {
            let value = T::decode(Incoming::Borrowed(&bytes));
            recycle(bytes);
            value
        }
        Ok(Reply::Large(bytes)) => T::decode(Incoming::Owned(bytes)),
        Ok(Reply::Loaned(loan)) => T::decode_loaned(loan.into()),
        Err(error) => return Err(error),
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

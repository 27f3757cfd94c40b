//! A buffer of the thread for messages that are being encoded, so that none is allocated for each.

use std::cell::Cell;

use bytes::Bytes;

use crate::{
    connection::Outbound,
    message::{EncodeError, Payload},
};

thread_local! {
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Encodes `value` and hands the bytes to `send`.
pub(crate) fn encoded<T: Payload, R>(
    value: &T,
    send: impl FnOnce(Outbound<'_>) -> R,
) -> Result<R, EncodeError> {
    if let Some(loan) = value.as_loaned()
        && let Some(loan) = loan.begin_sending()?
    {
        return Ok(send(Outbound::Lend(&loan)));
    }
    if let Some(bytes) = value.as_bytes() {
        return Ok(send(Outbound::Share(bytes)));
    }
    // Taken out for the time being: a serializer or a waker that encodes something itself finds another one.
    let mut buffer = SCRATCH.take();
    buffer.clear();
    let result = value.encode(&mut buffer);
    if buffer.len() > KEPT_BYTES {
        let bytes = Bytes::from(buffer);
        return result.map(|()| send(Outbound::Share(&bytes)));
    }
    let sent = result.map(|()| send(Outbound::Copy(&buffer)));
    if buffer.capacity() <= KEPT_BYTES {
        SCRATCH.set(buffer);
    }
    sent
}

/// A larger message gives its buffer away instead of being copied while it waits.
const KEPT_BYTES: usize = 64 * 1024;

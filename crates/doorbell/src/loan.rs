//! Large payloads that are not copied: written where the peer reads them, and given back when it is done.

#[cfg(feature = "rkyv")]
mod archive;

use std::{io, mem::MaybeUninit, ops::Deref};

#[cfg(feature = "rkyv")]
pub use archive::LoanedArchive;
use bytes::Bytes;
use doorbell_shm::memory::{Claim, SharedBytes};

use crate::{
    connection::Held,
    error::CallError,
    message::{DecodeError, EncodeError, Incoming, Payload},
};

/// Memory that is filled in place and then sent without a copy, as a [`Loaned`] payload.
///
/// It lies in a segment that the peer has mapped for reading; nobody looks at it before it is sent. What has not been written holds
/// zeroes or what this side has sent before. It begins at a multiple of 64, here and where the peer reads it. Dropped, it is free again. Where the peer cannot take loans it is private memory,
/// and sending it copies; so it does on another connection than the one it comes from, for instance after that has ended.
///
/// Get one from the `loan` of a client ([`blocking::Client::loan`](crate::blocking::Client::loan) and its counterpart for tasks), or in a
/// handler from [`Context::try_loan`](crate::Context::try_loan) and those beside it.
#[derive(Debug)]
pub struct Loan {
    loaned: Loaned,
    /// Where [`io::Write`] goes on.
    written: usize,
}

/// A payload that travels without a copy: a filled [`Loan`] on its way out, or what has arrived.
///
/// As a message of its own, a reply or an item, or as the one field of a type with `#[payload(loaned)]`:
///
/// ```
/// use doorbell::{Loaned, Message, MessageType, Payload};
///
/// #[derive(Payload)]
/// #[payload(loaned)]
/// struct Picture(Loaned);
///
/// impl Message for Picture {
///     const TYPE: MessageType = MessageType::new(12);
///     type Reply = Loaned;
/// }
/// ```
///
/// What has arrived is read by copying ([`copy_to_vec`](SharedBytes::copy_to_vec), [`copy_to_slice`](SharedBytes::copy_to_slice),
/// [`to_bytes`](Self::to_bytes)), which is safe whatever the peer does, or where it is, by the unsafe
/// [`as_slice`](SharedBytes::as_slice), where they begin at a multiple of 64 if they [were not copied](Self::is_in_place). Dropping it gives the memory back to the peer; the memory stays mapped until then, also
/// when the connection has ended. A peer has a limited amount of it, so do not keep what you could copy.
#[derive(Debug)]
pub struct Loaned(Inner);

#[derive(Debug)]
enum Inner {
    /// Ours; sent at most once.
    Own(SharedBytes),
    /// The peer's.
    Held(Held),
    /// Copied on its way.
    Private(SharedBytes),
}

/// Why there is no loan.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoanError {
    /// The other side accepts no message of this size.
    #[error("a loan of {bytes} bytes, but the other side accepts {limit}")]
    TooLarge {
        /// Size that was asked for.
        bytes: u64,
        /// Largest message.
        limit: u64,
    },
    /// There is no room, and the server makes no more; or there is none now, and the caller does not want to wait.
    #[error("no room for a loan of {bytes} bytes; see the server's `max_loan_bytes`")]
    NoRoom {
        /// Size that was asked for.
        bytes: u64,
    },
    /// The call that wanted it has ended: nobody waits for its answer.
    #[error("the call has ended before there was room for a loan")]
    Over,
    /// No room came before the deadline.
    #[error("the deadline passed before there was room for a loan")]
    DeadlineExceeded,
    /// There is no connection.
    #[error(transparent)]
    NotConnected(#[from] CallError),
}

impl From<LoanError> for doorbell_proto::Status {
    /// Lets a handler end with `?` when it gets no loan.
    fn from(error: LoanError) -> Self {
        match error {
            LoanError::TooLarge { .. } | LoanError::NoRoom { .. } => {
                Self::resource_exhausted(error.to_string())
            }
            LoanError::Over => Self::cancelled(error.to_string()),
            LoanError::DeadlineExceeded => Self::deadline_exceeded(error.to_string()),
            LoanError::NotConnected(error) => error.into(),
        }
    }
}

impl Loan {
    pub(crate) fn new(bytes: SharedBytes) -> Self {
        doorbell_shm::failpoint!("loan.allocated");
        Self {
            loaned: Loaned(Inner::Own(bytes)),
            written: 0,
        }
    }

    /// Returns the number of bytes, as it was asked for.
    #[inline]
    pub fn len(&self) -> usize {
        self.loaned.len()
    }

    /// Returns `true` if there are no bytes.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the bytes, to be written. What is not written stays as it was.
    pub fn as_uninit(&mut self) -> &mut [MaybeUninit<u8>] {
        match &mut self.loaned.0 {
            Inner::Own(bytes) => bytes.as_uninit().unwrap_or_default(),
            Inner::Held(_) | Inner::Private(_) => &mut [],
        }
    }

    /// Keeps the first `length` bytes; does nothing if there are no more. The rest of the memory is free when the loan is.
    pub fn truncate(&mut self, length: usize) {
        if let Inner::Own(bytes) = &mut self.loaned.0 {
            bytes.truncate(length);
        }
        self.written = self.written.min(length);
    }

    /// Writes `bytes` from byte `at` on.
    ///
    /// # Panics
    ///
    /// If they go beyond the end.
    pub fn write_at(&mut self, at: usize, bytes: &[u8]) {
        let length = self.len();
        let place = at
            .checked_add(bytes.len())
            .and_then(|end| self.as_uninit().get_mut(at..end));
        let Some(place) = place else {
            panic!("{} bytes at {at} of a loan of {length}", bytes.len());
        };
        place.write_copy_of_slice(bytes);
    }

    /// Fills all of it.
    ///
    /// # Panics
    ///
    /// If `bytes` is not exactly as long.
    pub fn copy_from_slice(&mut self, bytes: &[u8]) {
        self.as_uninit().write_copy_of_slice(bytes);
    }
}

impl io::Write for Loan {
    /// Writes behind what was written in this way before; 0 bytes at the end of the loan.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(self.len() - self.written);
        self.write_at(self.written, &bytes[..count]);
        self.written += count;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Loaned {
    /// Returns the bytes as a value of their own: one copy, unless they are private already.
    pub fn to_bytes(&self) -> Bytes {
        Bytes::from(self.copy_to_vec())
    }

    /// Returns `true` if the bytes lie where the peer has written them, rather than having been copied on their way.
    pub fn is_in_place(&self) -> bool {
        matches!(self.0, Inner::Held(_))
    }

    /// Returns what lends the block, and keeps others from doing so, if this lies in one of ours.
    ///
    /// # Errors
    ///
    /// It has been sent, or somebody else is sending it.
    pub(crate) fn begin_sending(&self) -> Result<Option<Sending<'_>>, EncodeError> {
        let Inner::Own(SharedBytes::Own(block)) = &self.0 else {
            return Ok(None);
        };
        let claim = block.claim();
        let claim = claim.ok_or_else(|| EncodeError::new(SENT_ONCE))?;
        Ok(Some(Sending { loan: self, claim }))
    }
}

/// A loan in a block of ours that is about to be sent, by nobody else.
pub(crate) struct Sending<'a> {
    loan: &'a Loaned,
    claim: Claim<'a>,
}

impl Sending<'_> {
    #[inline]
    pub(crate) fn claim(&self) -> &Claim<'_> {
        &self.claim
    }
}

impl Deref for Sending<'_> {
    type Target = Loaned;

    fn deref(&self) -> &Loaned {
        self.loan
    }
}

impl Deref for Loaned {
    type Target = SharedBytes;

    fn deref(&self) -> &SharedBytes {
        match &self.0 {
            Inner::Own(bytes) | Inner::Private(bytes) => bytes,
            Inner::Held(held) => held.bytes(),
        }
    }
}

impl From<Loan> for Loaned {
    fn from(loan: Loan) -> Self {
        doorbell_shm::failpoint!("loan.filled");
        loan.loaned
    }
}

impl From<Vec<u8>> for Loaned {
    /// Makes a payload of bytes that do not lie in a loan: sending it copies.
    fn from(bytes: Vec<u8>) -> Self {
        Self(Inner::Private(SharedBytes::Private(bytes)))
    }
}

impl From<Held> for Loaned {
    fn from(held: Held) -> Self {
        Self(Inner::Held(held))
    }
}

impl Payload for Loaned {
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        match self.try_append_to(out) {
            true => Ok(()),
            false => Err(EncodeError::new(SENT_ONCE)),
        }
    }

    fn decode(bytes: Incoming<'_>) -> Result<Self, DecodeError> {
        Ok(Self::from(match bytes {
            Incoming::Borrowed(bytes) => bytes.to_vec(),
            Incoming::Owned(bytes) => bytes,
        }))
    }

    fn decode_loaned(loaned: Loaned) -> Result<Self, DecodeError> {
        Ok(loaned)
    }

    fn as_loaned(&self) -> Option<&Loaned> {
        Some(self)
    }
}

impl Drop for Loaned {
    fn drop(&mut self) {
        if matches!(self.0, Inner::Held(_)) {
            let nothing = Inner::Private(SharedBytes::Private(Vec::new()));
            if let Inner::Held(held) = std::mem::replace(&mut self.0, nothing) {
                held.give_back();
            }
        }
    }
}

/// Said of a loan that has been sent, and of one that another thread is sending.
const SENT_ONCE: &str = "a loan can be sent once, and by one thread at a time";

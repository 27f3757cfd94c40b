//! Values in the form of rkyv that are written into loans and read where they lie.

use std::{fmt, marker::PhantomData, ops::Deref};

use doorbell_shm::memory::{Buffer, SharedBytes};

use super::{Inner, Loan, Loaned};
use crate::{
    message::{DecodeError, EncodeError, Incoming, Payload},
    rkyv::{RkyvPayload, access, decode, encode_into, is_aligned, with_archived},
};

/// A value in rkyv's form that travels without a copy: written into a [`Loan`], read where it lies or from a copy.
///
/// As a reply, an item, or the one field of a message with `#[payload(loaned)]`. It derefs to the [`Loaned`] that it travels as.
///
/// # Reading
///
/// - [`with`](Self::with) and [`to_value`](Self::to_value) copy it, validate the copy and read that: safe whatever the peer does.
/// - In place it is read from the slice that the unsafe [`as_slice`](SharedBytes::as_slice) returns, by the safe
///   [`access`](Self::access), which validates it there. **That is for peers whose code you trust as your own.** The contract of
///   `as_slice` is that nobody writes while the slice lives, and validation does not replace it: a hostile peer waits until an offset has
///   been validated, changes it, and has this process read, or follow, what it wants. Against accidents, such as a peer of another
///   version, validation in place helps as much as elsewhere.
///
/// ```
/// use doorbell::{blocking, Context, LoanedArchive, Message, Payload, Status};
/// use rkyv::{Archive, Deserialize, Serialize};
///
/// #[derive(Archive, Serialize, Deserialize)]
/// struct Mesh {
///     name: String,
///     heights: Vec<f32>,
/// }
///
/// #[derive(Payload, Message)]
/// #[payload(loaned)]
/// #[message(type = 13, reply = f32)]
/// struct Measure(LoanedArchive<Mesh>);
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = std::env::temp_dir().join(format!("doorbell-archive-{}", std::process::id()));
/// # std::fs::create_dir_all(&directory)?;
/// # let path = directory.join("mesh.sock").display().to_string();
/// let server = blocking::Server::builder(&path)
///     .on(|_: Context, Measure(mesh): Measure| {
///         // SAFETY: the client is our own program; it does not write what it has lent.
///         let bytes = unsafe { mesh.as_slice() };
///         let archived = LoanedArchive::<Mesh>::access(bytes).map_err(|error| Status::invalid_argument(error.to_string()))?;
///         let highest = archived.heights.iter().map(|height| height.to_native()).fold(0.0, f32::max);
///         Ok::<_, Status>(highest)
///     })
///     .bind()?;
/// let client = blocking::Client::connect(&path)?;
///
/// let mesh = Mesh { name: "hill".into(), heights: vec![1.0, 812.5, 3.0] };
/// let loan = client.loan(LoanedArchive::size_bytes(&mesh)?, std::time::Duration::from_secs(1))?;
/// let highest = client.call(Measure(LoanedArchive::new(loan, &mesh)?)).wait()?;
/// assert_eq!(highest, 812.5);
/// # drop((client, server));
/// # std::fs::remove_dir_all(&directory)?;
/// # Ok(())
/// # }
/// ```
pub struct LoanedArchive<T> {
    loaned: Loaned,
    value: PhantomData<fn() -> T>,
}

impl<T: RkyvPayload> LoanedArchive<T> {
    /// Returns the size of the archive of `value`, for the loan that it needs: what writing it costs without the memory.
    ///
    /// # Errors
    ///
    /// [`EncodeError`] if a part of the value refuses.
    pub fn size_bytes(value: &T) -> Result<usize, EncodeError> {
        encode_into(value, &mut [])
    }

    /// Writes the archive of `value` straight into `loan`. One that is larger than needed is cut.
    ///
    /// # Errors
    ///
    /// [`EncodeError`] if the loan is too small, or a part of the value refuses. The loan is free again then.
    pub fn new(mut loan: Loan, value: &T) -> Result<Self, EncodeError> {
        let size = encode_into(value, loan.as_uninit())?;
        if size > loan.len() {
            let room = loan.len();
            return Err(EncodeError::new(format!(
                "its archive has {size} bytes, and the loan {room}"
            )));
        }
        loan.truncate(size);
        Ok(Self::from(Loaned::from(loan)))
    }

    /// Validates an archive that lies in `bytes`, and returns it. Reading it in place, `bytes` are those of
    /// [`as_slice`](SharedBytes::as_slice), whose contract [the type](Self) explains.
    ///
    /// Each call validates, which takes time in proportion to the parts of the value; keep what it returns.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if they are not the archive of a value, or it is nested too deeply; or if they do not begin where its alignment
    /// demands, which those of a `LoanedArchive` do up to an alignment of 16, and up to one of 64 if they
    /// [were not copied](Loaned::is_in_place).
    pub fn access(bytes: &[u8]) -> Result<&T::Archived, DecodeError> {
        access::<T>(bytes)
    }

    /// Calls `read` with the archive, validated on a private copy.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if it is not the archive of a value, or is nested too deeply.
    ///
    /// # Panics
    ///
    /// If it has been sent.
    pub fn with<R>(&self, read: impl FnOnce(&T::Archived) -> R) -> Result<R, DecodeError> {
        match self.private() {
            Some(bytes) => with_archived::<T, _>(bytes, read),
            None => with_archived::<T, _>(&self.loaned.copy_to_vec(), read),
        }
    }

    /// Returns the value itself, read from a private copy that has been validated.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if it is not the archive of a value, or is nested too deeply.
    ///
    /// # Panics
    ///
    /// If it has been sent.
    pub fn to_value(&self) -> Result<T, DecodeError> {
        match self.private() {
            Some(bytes) => decode(bytes),
            None => decode(&self.loaned.copy_to_vec()),
        }
    }

    /// Returns the bytes if they were copied on their way, and need not be once more.
    fn private(&self) -> Option<&[u8]> {
        match &self.loaned.0 {
            Inner::Private(SharedBytes::Private(bytes)) => Some(bytes),
            Inner::Own(_) | Inner::Held(_) | Inner::Private(_) => None,
        }
    }
}

impl<T> From<Loaned> for LoanedArchive<T> {
    /// Takes bytes for an archive, which is checked when it is read.
    fn from(loaned: Loaned) -> Self {
        Self {
            loaned,
            value: PhantomData,
        }
    }
}

impl<T> Deref for LoanedArchive<T> {
    type Target = Loaned;

    fn deref(&self) -> &Loaned {
        &self.loaned
    }
}

impl<T> fmt::Debug for LoanedArchive<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LoanedArchive").field(&self.loaned).finish()
    }
}

impl<T: 'static> Payload for LoanedArchive<T> {
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.loaned.encode(out)
    }

    fn decode(bytes: Incoming<'_>) -> Result<Self, DecodeError> {
        let loaned = match bytes {
            Incoming::Owned(bytes) if is_aligned(&bytes) => Loaned::from(bytes),
            bytes => Loaned(Inner::Private(SharedBytes::Buffer(aligned(
                bytes.as_slice(),
            )))),
        };
        Ok(Self::from(loaned))
    }

    fn decode_loaned(loaned: Loaned) -> Result<Self, DecodeError> {
        Ok(Self::from(loaned))
    }

    fn as_loaned(&self) -> Option<&Loaned> {
        Some(&self.loaned)
    }
}

fn aligned(bytes: &[u8]) -> Buffer {
    let mut buffer = Buffer::new(bytes.len());
    buffer.as_uninit().write_copy_of_slice(bytes);
    buffer
}

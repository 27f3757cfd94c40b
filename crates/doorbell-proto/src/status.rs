//! How a call failed: a code, a text, details and metadata.

use crate::frame::{Flags, FrameError, FrameHeader, FrameKind};
use crate::limits::{MAX_ERROR_DETAILS_BYTES, MAX_ERROR_TEXT_BYTES};
use crate::metadata::{Metadata, MetadataRef};
use std::borrow::Cow;
use std::fmt;

/// What kind of failure it was; the seventeen codes of gRPC with their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Code {
    /// No failure.
    Ok = 0,
    /// The caller has lost interest.
    Cancelled = 1,
    /// A failure without a better code.
    Unknown = 2,
    /// The request is wrong whatever the state of the server.
    InvalidArgument = 3,
    /// The deadline passed first.
    DeadlineExceeded = 4,
    /// Something that was asked for does not exist.
    NotFound = 5,
    /// Something that was to be made exists.
    AlreadyExists = 6,
    /// The caller may not do this.
    PermissionDenied = 7,
    /// A limit or quota is used up.
    ResourceExhausted = 8,
    /// The state of the server does not permit the request.
    FailedPrecondition = 9,
    /// The request lost against a concurrent one.
    Aborted = 10,
    /// The request reaches past a valid range.
    OutOfRange = 11,
    /// The server does not know this request.
    Unimplemented = 12,
    /// Something that must not happen did.
    Internal = 13,
    /// The server cannot answer now.
    Unavailable = 14,
    /// Data is lost or damaged.
    DataLoss = 15,
    /// The caller has not said who it is.
    Unauthenticated = 16,
}

impl Code {
    /// Returns the code with this number.
    pub const fn from_u32(code: u32) -> Option<Self> {
        Some(match code {
            0 => Self::Ok,
            1 => Self::Cancelled,
            2 => Self::Unknown,
            3 => Self::InvalidArgument,
            4 => Self::DeadlineExceeded,
            5 => Self::NotFound,
            6 => Self::AlreadyExists,
            7 => Self::PermissionDenied,
            8 => Self::ResourceExhausted,
            9 => Self::FailedPrecondition,
            10 => Self::Aborted,
            11 => Self::OutOfRange,
            12 => Self::Unimplemented,
            13 => Self::Internal,
            14 => Self::Unavailable,
            15 => Self::DataLoss,
            16 => Self::Unauthenticated,
            _ => return None,
        })
    }

    /// Returns the number.
    #[inline]
    pub const fn as_u32(self) -> u32 {
        self as u32
    }

    /// Returns the name, such as `NOT_FOUND`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Cancelled => "CANCELLED",
            Self::Unknown => "UNKNOWN",
            Self::InvalidArgument => "INVALID_ARGUMENT",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::NotFound => "NOT_FOUND",
            Self::AlreadyExists => "ALREADY_EXISTS",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Self::FailedPrecondition => "FAILED_PRECONDITION",
            Self::Aborted => "ABORTED",
            Self::OutOfRange => "OUT_OF_RANGE",
            Self::Unimplemented => "UNIMPLEMENTED",
            Self::Internal => "INTERNAL",
            Self::Unavailable => "UNAVAILABLE",
            Self::DataLoss => "DATA_LOSS",
            Self::Unauthenticated => "UNAUTHENTICATED",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The failure of a call.
///
/// One pointer wide: results that may hold a status are moved about for every call, and failures are rare.
#[derive(Clone, PartialEq, Eq)]
pub struct Status {
    parts: Box<Parts>,
}

#[derive(Clone, PartialEq, Eq)]
struct Parts {
    code: Code,
    executed: bool,
    message: Cow<'static, str>,
    details: Vec<u8>,
    metadata: Option<Metadata>,
}

impl Status {
    /// Returns a status with this code and text, for a request that a handler has seen.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        let parts = Box::new(Parts {
            code,
            executed: true,
            message: message.into(),
            details: Vec::new(),
            metadata: None,
        });
        Self { parts }
    }

    /// Adds details, a message of the application's own. More than
    /// [`MAX_ERROR_DETAILS_BYTES`] are left out when the status is written.
    #[must_use]
    pub fn with_details(mut self, details: impl Into<Vec<u8>>) -> Self {
        self.parts.details = details.into();
        self
    }

    /// Adds metadata.
    #[must_use]
    pub fn with_metadata(mut self, metadata: Metadata) -> Self {
        self.parts.metadata = Some(metadata).filter(|metadata| !metadata.is_empty());
        self
    }

    /// States that no handler has seen the request, so that it is safe to send it again.
    #[must_use]
    pub fn not_executed(mut self) -> Self {
        self.parts.executed = false;
        self
    }

    /// Returns the code.
    pub fn code(&self) -> Code {
        self.parts.code
    }

    /// Returns the text.
    pub fn message(&self) -> &str {
        &self.parts.message
    }

    /// Returns the details, empty if there are none.
    pub fn details(&self) -> &[u8] {
        &self.parts.details
    }

    /// Returns the metadata, if there is any.
    pub fn metadata(&self) -> Option<&Metadata> {
        self.parts.metadata.as_ref()
    }

    /// Returns `true` if a handler may have seen the request.
    pub fn was_executed(&self) -> bool {
        self.parts.executed
    }

    /// Writes the status as an `ERROR` frame for call `id`, with a body of at most `max_body_bytes`.
    ///
    /// A text that is too long is cut; details and metadata that do not fit are left out whole. [`Code::Ok`] cannot be an error and
    /// is written as [`Code::Unknown`].
    pub fn to_frame(&self, id: u64, max_body_bytes: usize) -> (FrameHeader, Vec<u8>) {
        let code = match self.code() {
            Code::Ok => Code::Unknown,
            code => code,
        };
        let mut header = FrameHeader::new(FrameKind::Error, id, code.as_u32());
        if !self.was_executed() {
            header.flags.insert(Flags::NOT_EXECUTED);
        }
        let mut room = max_body_bytes.saturating_sub(TEXT_LENGTH_BYTES);
        let text = cut(self.message(), room.min(MAX_ERROR_TEXT_BYTES));
        room = room.saturating_sub(text.len());
        let metadata = self
            .metadata()
            .filter(|metadata| metadata.encoded_bytes() <= room);
        room = room.saturating_sub(metadata.map_or(0, Metadata::encoded_bytes));
        let details = Some(self.details())
            .filter(|details| details.len() <= room.min(MAX_ERROR_DETAILS_BYTES));

        let mut body = Vec::new();
        if let Some(metadata) = metadata {
            metadata.encode(&mut body);
            header.metadata_bytes = u16::try_from(body.len()).unwrap_or(0); // at most MAX_METADATA_BYTES
        }
        let text_bytes = u32::try_from(text.len()).unwrap_or(0); // at most MAX_ERROR_TEXT_BYTES
        body.extend_from_slice(&text_bytes.to_le_bytes());
        body.extend_from_slice(text.as_bytes());
        body.extend_from_slice(details.unwrap_or_default());
        header.length = u32::try_from(body.len()).unwrap_or(0); // the sum of three small limits
        (header, body)
    }

    /// Reads the status in an `ERROR` frame.
    ///
    /// # Errors
    ///
    /// [`FrameError`] if the body breaks a rule of the wire format.
    pub fn from_frame(header: &FrameHeader, body: &[u8]) -> Result<Self, FrameError> {
        let kind = header.kind;
        let short = FrameError::Length {
            kind,
            length: header.length,
        };
        let code = Code::from_u32(header.value).ok_or(FrameError::Value {
            kind,
            value: header.value,
        })?;
        let (block, rest) = body
            .split_at_checked(usize::from(header.metadata_bytes))
            .ok_or(short)?;
        let metadata = if block.is_empty() {
            None
        } else {
            MetadataRef::parse(block)?.to_option()
        };
        let (text_bytes, rest) = rest.split_first_chunk().ok_or(short)?;
        let text_bytes = usize::try_from(u32::from_le_bytes(*text_bytes)).unwrap_or(usize::MAX);
        let invalid = FrameError::Text { kind, text_bytes };
        let (text, details) = rest.split_at_checked(text_bytes).ok_or(invalid)?;
        if text_bytes > MAX_ERROR_TEXT_BYTES {
            return Err(invalid);
        }
        let message = std::str::from_utf8(text).map_err(|_| invalid)?.to_owned();
        let parts = Box::new(Parts {
            code,
            executed: !header.flags.contains(Flags::NOT_EXECUTED),
            message: Cow::Owned(message),
            details: details.to_vec(),
            metadata,
        });
        Ok(Self { parts })
    }
}

/// One constructor per code.
macro_rules! constructors {
    ($($name:ident $code:ident)*) => {
        impl Status {
            $(
                #[doc = concat!("Returns a status with [`Code::", stringify!($code), "`].")]
                pub fn $name(message: impl Into<Cow<'static, str>>) -> Self {
                    Self::new(Code::$code, message)
                }
            )*
        }
    };
}

constructors! {
    cancelled Cancelled
    unknown Unknown
    invalid_argument InvalidArgument
    deadline_exceeded DeadlineExceeded
    not_found NotFound
    already_exists AlreadyExists
    permission_denied PermissionDenied
    resource_exhausted ResourceExhausted
    failed_precondition FailedPrecondition
    aborted Aborted
    out_of_range OutOfRange
    unimplemented Unimplemented
    internal Internal
    unavailable Unavailable
    data_loss DataLoss
    unauthenticated Unauthenticated
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.message().is_empty() {
            return self.code().fmt(f);
        }
        write!(f, "{}: {}", self.code(), self.message())
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = &self.parts;
        f.debug_struct("Status")
            .field("code", &parts.code)
            .field("executed", &parts.executed)
            .field("message", &parts.message)
            .field("details", &parts.details)
            .field("metadata", &parts.metadata)
            .finish()
    }
}

impl std::error::Error for Status {}

/// Returns the longest start of `text` that is valid and at most `max_bytes` long.
pub(crate) fn cut(text: &str, max_bytes: usize) -> &str {
    let end = text.floor_char_boundary(max_bytes);
    text.split_at_checked(end).map_or("", |(start, _)| start)
}

const TEXT_LENGTH_BYTES: usize = 4;

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;

//! What can go wrong, one enum for each decision that a caller has to make.

mod kind;

use std::{io, path::PathBuf, time::Duration};

use doorbell_proto::{
    Code, Status, connection::ProtocolError, frame::FrameError, handshake::RefuseReason,
};

use crate::message::{DecodeError, EncodeError};

/// Whether a call that failed may have been executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The handler ran and answered with a status. Whether to try again is for the application to say.
    Application,
    /// No handler has seen the request: it is safe to send it again.
    NotExecuted,
    /// The handler may or may not have run, wholly or in part.
    Unknown,
}

/// Why a call gave no reply. Doorbell never runs a request twice by itself; [`outcome`](Self::outcome) tells whether you may.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The server answered with a status.
    #[error(transparent)]
    Status(#[from] Status),
    /// The request could not be encoded; nothing was sent.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The reply arrived and is not what the message type promises: the two sides disagree about the type.
    #[error("the reply cannot be read: {0}")]
    Decode(#[source] DecodeError),
    /// The message is larger than the server accepts; nothing was sent.
    #[error(
        "the message has {bytes} bytes and the server accepts {limit}; raise `max_message_bytes` there or send it as a stream"
    )]
    TooLarge {
        /// Size of the encoded message.
        bytes: u64,
        /// Largest message that the server accepts.
        limit: u64,
    },
    /// This connection already has as many calls under way as the server allows; nothing was sent. One that was given up counts until the server
    /// has ended it, and a notification that does not fit into a frame until the server has taken it.
    #[error("{limit} calls are already under way on this connection")]
    TooManyCalls {
        /// Calls that the server allows at once.
        limit: u32,
    },
    /// There is no connection and none could be made in time; nothing was sent.
    #[error("not connected: {0}")]
    NotConnected(#[source] std::sync::Arc<ConnectError>),
    /// The server is shutting down and takes no new calls; nothing was sent.
    #[error("the server is going away: {text}")]
    GoingAway {
        /// What the server said.
        text: String,
    },
    /// The deadline passed. The server has been told to stop.
    #[error("the deadline passed")]
    DeadlineExceeded,
    /// The deadline had passed before anything was sent.
    #[error("the deadline passed before the call was sent")]
    DeadlineBeforeSend,
    /// The connection ended while the call was under way.
    #[error("the connection ended during the call: {0}")]
    Disconnected(#[source] Disconnected),
}

impl CallError {
    /// Tells whether the request may have been executed.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Status(status) if status.was_executed() => Outcome::Application,
            Self::Status(_) => Outcome::NotExecuted,
            Self::Decode(_) => Outcome::Application,
            Self::Encode(_)
            | Self::TooLarge { .. }
            | Self::TooManyCalls { .. }
            | Self::NotConnected(_)
            | Self::GoingAway { .. }
            | Self::DeadlineBeforeSend => Outcome::NotExecuted,
            Self::DeadlineExceeded | Self::Disconnected(_) => Outcome::Unknown,
        }
    }

    /// Returns the status code that describes the error best.
    pub fn code(&self) -> Code {
        match self {
            Self::Status(status) => status.code(),
            Self::Encode(_) | Self::Decode(_) => Code::Internal,
            Self::TooLarge { .. } | Self::TooManyCalls { .. } => Code::ResourceExhausted,
            Self::NotConnected(_) | Self::GoingAway { .. } | Self::Disconnected(_) => {
                Code::Unavailable
            }
            Self::DeadlineExceeded | Self::DeadlineBeforeSend => Code::DeadlineExceeded,
        }
    }

    /// Returns `true` if the request was not executed and the same call can succeed later without any change by the caller.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Status(status) => {
                !status.was_executed()
                    && matches!(status.code(), Code::Unavailable | Code::ResourceExhausted)
            }
            Self::TooManyCalls { .. } | Self::GoingAway { .. } => true,
            Self::NotConnected(cause) => cause.is_retryable(),
            Self::Encode(_)
            | Self::Decode(_)
            | Self::TooLarge { .. }
            | Self::DeadlineExceeded
            | Self::DeadlineBeforeSend
            | Self::Disconnected(_) => false,
        }
    }
}

impl From<CallError> for Status {
    /// Lets a handler pass on the failure of a nested call with `?`.
    fn from(error: CallError) -> Self {
        match error {
            CallError::Status(status) => Status::new(status.code(), status.message().to_owned()),
            other => Status::new(other.code(), other.to_string()),
        }
    }
}

/// Why a connection ended.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Disconnected {
    /// The peer closed the connection or its process ended.
    #[error("the peer closed the connection or died")]
    PeerGone,
    /// This side closed it.
    #[error("closed by this side")]
    Closed,
    /// Nothing was sent or received for as long as the server allows.
    #[error("idle for {0:?}")]
    Idle(Duration),
    /// The peer broke the protocol.
    #[error("the peer broke the protocol: {0}")]
    Protocol(std::sync::Arc<Violation>),
    /// A system call on the connection failed.
    #[error("system error: {0}")]
    System(std::sync::Arc<io::Error>),
}

/// What a peer did that it must not do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// A position or record in the ring is impossible.
    #[error(transparent)]
    Ring(#[from] doorbell_shm::Corrupt),
    /// A frame is malformed.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A frame's checksum is wrong.
    #[error("checksum is {found:#010x}, the frame says {announced:#010x}")]
    Checksum {
        /// Checksum in the frame.
        announced: u32,
        /// Checksum of what arrived.
        found: u32,
    },
    /// A frame is not allowed in this state.
    #[error(transparent)]
    State(#[from] ProtocolError),
    /// A segment for loans is not what was announced.
    #[error(transparent)]
    Segment(#[from] SegmentError),
}

/// A [`Violation`] on its way to whoever ends the connection. It is one word, so that a result that hardly ever is an error stays in a
/// register: a larger one is written and copied piece by piece, and each copy waits for the writes to the ring before it.
#[derive(Clone, Debug)]
pub(crate) struct Breach(std::sync::Arc<Violation>);

impl<E: Into<Violation>> From<E> for Breach {
    #[cold]
    fn from(violation: E) -> Self {
        Self(std::sync::Arc::new(violation.into()))
    }
}

impl From<Breach> for Disconnected {
    fn from(breach: Breach) -> Self {
        Self::Protocol(breach.0)
    }
}

/// Why a segment that a server has announced cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SegmentError {
    /// No descriptor came with the message, or more than one.
    #[error("segment {number} did not come as one descriptor")]
    Missing {
        /// Number that was announced.
        number: u32,
    },
    /// The control socket holds something else.
    #[error("what came over the control socket is not segment {number}")]
    Another {
        /// Number that was announced.
        number: u32,
    },
    /// It is not memory of the size and with the seals that it must have.
    #[error("segment {number} is not acceptable: {source}")]
    Region {
        /// Number that was announced.
        number: u32,
        /// In which respect.
        source: doorbell_shm::sys::RegionError,
    },
    /// The control socket holds nothing, or cannot be read.
    #[error("a segment cannot be received: {0}")]
    Io(#[from] io::Error),
}

/// Why a notification was not sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotifyError {
    /// The server does not keep up. Wait with `writable()`, or leave the notification out.
    #[error("the server does not keep up: {queued_bytes} bytes wait to be sent")]
    Full {
        /// Bytes that wait, of notifications that fit into a frame or of larger ones: they do not hold each other up.
        queued_bytes: usize,
    },
    /// The same reasons for which a call is not sent.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// Why an attempt to connect gave no connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The name is not one.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Nothing listens there, or what did has ended without an answer. Retryable: the server may not have started yet.
    #[error("no server is listening at {}: start it, or check the name", .path.display())]
    NotListening {
        /// Address that was tried.
        path: PathBuf,
        /// Reason given by the operating system.
        source: io::Error,
    },
    /// The socket may not be used by this user.
    #[error("permission denied for {}: a server admits its own user only, unless it says otherwise", .path.display())]
    PermissionDenied {
        /// Address that was tried.
        path: PathBuf,
        /// Reason given by the operating system.
        source: io::Error,
    },
    /// The server answered and said no.
    #[error("the server refused the connection: {reason}: {text}")]
    Refused {
        /// Why, for programs.
        reason: RefuseReason,
        /// Why, for people.
        text: String,
    },
    /// The server runs as a user that is neither ours nor root, and not one that was said to be trusted.
    #[error(
        "the server at {} runs as user {uid}, not as ours: if that is right, say `trust_server_user({uid})`",
        .path.display()
    )]
    Stranger {
        /// Address that was tried.
        path: PathBuf,
        /// User that the server runs as.
        uid: u32,
    },
    /// What answered does not speak this protocol, or sent something that is not allowed.
    #[error("the server's handshake is invalid: {text}")]
    Handshake {
        /// What was wrong.
        text: String,
    },
    /// No answer within the time allowed.
    #[error("no connection to {} within {after:?}", .path.display())]
    TimedOut {
        /// Address that was tried.
        path: PathBuf,
        /// Time allowed.
        after: Duration,
    },
    /// The client has been closed.
    #[error("the client has been closed")]
    Closed,
    /// A system call failed.
    #[error("cannot connect to {}: {source}", .path.display())]
    System {
        /// Address that was tried.
        path: PathBuf,
        /// Reason given by the operating system.
        source: io::Error,
    },
}

impl ConnectError {
    /// Returns `true` if the same attempt can succeed later without any change by the caller.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::NotListening { .. } | Self::TimedOut { .. } => true,
            Self::Refused { reason, .. } => matches!(
                reason,
                RefuseReason::Full
                    | RefuseReason::PerUserLimit
                    | RefuseReason::ShuttingDown
                    | RefuseReason::Resources
            ),
            Self::Name(_)
            | Self::PermissionDenied { .. }
            | Self::Stranger { .. }
            | Self::Handshake { .. }
            | Self::Closed
            | Self::System { .. } => false,
        }
    }
}

/// Why a server could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// The name is not one.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The control socket could not be made.
    #[error(transparent)]
    Socket(#[from] doorbell_shm::sys::BindError),
    /// Others were to reach the socket, and the directory of service names is the user's alone.
    #[error(
        "other users cannot reach a service name such as {name:?}: give a path with a slash in it"
    )]
    PrivateName {
        /// Name that was given.
        name: String,
    },
    /// Two handlers were registered for one message type.
    #[error("two handlers for message type {0}: give each message its own number")]
    DuplicateHandler(crate::MessageType),
    /// A worker could not be pinned to the processor asked for.
    #[error("cannot pin I/O worker {worker} to CPU {cpu}: {source}")]
    Pin {
        /// Worker, counted from 0.
        worker: usize,
        /// Processor that was asked for.
        cpu: usize,
        /// Reason given by the operating system.
        source: io::Error,
    },
    /// An option has a value that cannot work.
    #[error("option {option} cannot be {value}: {reason}")]
    Option {
        /// Builder method.
        option: &'static str,
        /// Value given.
        value: u64,
        /// What would work.
        reason: &'static str,
    },
    /// A thread or another resource could not be had.
    #[error("cannot start the server: {0}")]
    System(#[from] io::Error),
}

/// Why a name is not one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// Names are 1 to 64 bytes of `a-z A-Z 0-9 - _ .` and do not start with a dot.
    #[error(
        "{name:?} is not a service name: use 1 to 64 of a-z A-Z 0-9 - _ . (not first), or a path with a slash in it"
    )]
    Invalid {
        /// Name that was given.
        name: String,
    },
    /// The directory for names is missing or unsafe.
    #[error("the runtime directory cannot be used: {0}")]
    Directory(#[source] io::Error),
}

//! The client: calls, streams and notifications over a connection that is made when it is needed and made again when it ends.

#[cfg(feature = "tokio")]
mod awaiting;
#[cfg(feature = "tokio")]
mod call;
#[cfg(feature = "tokio")]
mod dialer;
mod options;
mod outcome;

#[cfg(feature = "tokio")]
pub use awaiting::{Builder, Client};
#[cfg(feature = "tokio")]
pub use call::{
    Bidirectional, Call, PendingReply, Streaming, Unary, UnaryFuture, UploadStream, Uploading,
};
#[cfg(feature = "tokio")]
pub use dialer::ConnectionState;
pub(crate) use options::{BackOff, Options, option_methods};
pub(crate) use outcome::{add_metadata, take_outcome, take_reply};

//! The client: calls, streams and notifications over a connection that is made when it is needed and made again when it ends.

#[cfg(feature = "tokio")]
mod awaiting;
#[cfg(feature = "tokio")]
mod call;
#[cfg(feature = "tokio")]
mod call_all;
#[cfg(feature = "tokio")]
mod dialer;
mod notifications;
mod options;
mod outcome;
mod replaced;
mod replies;
mod shape;
mod unsent;

#[cfg(feature = "tokio")]
pub use awaiting::{Builder, Client};
#[cfg(feature = "tokio")]
pub use call::{Call, PendingReply, UnaryFuture, UploadStream};
#[cfg(feature = "tokio")]
pub use call_all::{CallAll, Replies};
#[cfg(feature = "tokio")]
pub use dialer::ConnectionState;
pub(crate) use notifications::Notifications;
pub(crate) use options::{BackOff, Options, option_methods};
pub(crate) use outcome::{add_metadata, take_reply};
pub(crate) use replaced::Replaced;
pub(crate) use replies::{Pipeline, WINDOW, call_all_settings};
pub use shape::{Bidirectional, Streaming, Unary, Uploading};
pub(crate) use unsent::{Unsent, call_settings};

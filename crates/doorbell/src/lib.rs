//! RPC and streaming between processes on one host, at memory speed, that sleeps for free.
//!
//! ```
//! use doorbell::{Client, Context, Message, MessageType, Server, Status};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Complete {
//!     prefix: String,
//! }
//!
//! impl Message for Complete {
//!     const TYPE: MessageType = MessageType::new(7);
//!     type Reply = String;
//! }
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let name = format!("{}/engine.sock", std::env::temp_dir().join(format!("doorbell-doc-{}", std::process::id())).display());
//! # std::fs::create_dir_all(std::path::Path::new(&name).parent().unwrap())?;
//! // In the engine; `name` is a service name such as "engine", or a path.
//! let server = Server::builder(&name)
//!     .on(|_ctx: Context, request: Complete| async move { Ok::<_, Status>(request.prefix + "ln!") })
//!     .bind()
//!     .await?;
//!
//! // In the editor.
//! let client = Client::connect(&name).await?;
//! assert_eq!(client.call(Complete { prefix: "print".into() }).await?, "println!");
//! # drop(client);
//! # server.shutdown(std::time::Duration::from_secs(1)).await;
//! # std::fs::remove_dir_all(std::path::Path::new(&name).parent().unwrap())?;
//! # Ok(())
//! # }
//! ```
//!
//! Both sides can be in one process as well. Without a runtime, [`blocking`] has the same names.
//!
//! # What a call can end in
//!
//! A reply, or a [`CallError`] with a definite [`Outcome`]: the handler answered with a status; it has not run; or nobody can
//! know. Doorbell never runs a request twice by itself.
//!
//! # Order
//!
//! - The items of one stream arrive in the order in which they were sent.
//! - Handlers of calls and notifications from one connection *start* in the order in which these were sent, as long as each
//!   fits into one frame (16 KiB with the default rings). A larger one starts when all of it has arrived; smaller ones may overtake it.
//! - Nothing is said about the order in which handlers end, or about different connections.
//!
//! # Features
//!
//! `tokio` (default): the awaiting API. `derive` (default): `#[derive(Message)]` and `#[derive(Payload)]`. `rkyv`: messages encoded with rkyv, in loans too.
#![forbid(unsafe_code)]

#[cfg(feature = "derive")]
#[doc(hidden)]
pub mod __private;
pub mod blocking;
pub mod client;
mod connection;
mod deadline;
mod error;
mod link;
mod loan;
mod message;
mod name;
mod nesting;
mod pack;
mod panics;
#[cfg(feature = "rkyv")]
mod rkyv;
mod scratch;
pub mod server;
mod stats;
mod stream;

#[cfg(feature = "tokio")]
pub use client::Client;
#[cfg(feature = "derive")]
pub use doorbell_macros::{Message, Payload};
pub use doorbell_proto::{
    CallKind, Code, Metadata, MetadataError, Status, handshake::RefuseReason,
};
pub use doorbell_shm::memory::SharedBytes;
pub use doorbell_shm::{SpinMode as Spin, sys::PeerIdentity};
pub use error::{
    BindError, CallError, ConnectError, Disconnected, NameError, NotifyError, Outcome,
    SegmentError, Violation,
};
#[cfg(feature = "rkyv")]
pub use loan::LoanedArchive;
pub use loan::{Loan, LoanError, Loaned};
pub use message::{DecodeError, EncodeError, Incoming, Message, MessageType, Payload, Raw, Upload};
pub use server::Context;
#[cfg(feature = "tokio")]
pub use server::Server;
pub use stats::Stats;
#[cfg(feature = "tokio")]
pub use stream::{ByteReader, ByteStream, ByteWriter};
pub use stream::{ItemError, ItemSender, ItemStream};

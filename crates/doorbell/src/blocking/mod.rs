//! The same client and server for programs without a runtime: threads that call, and threads that sleep on a futex.
//!
//! ```
//! use doorbell::{Context, Message, MessageType, Status, blocking};
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
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = std::env::temp_dir().join(format!("doorbell-doc-blocking-{}", std::process::id()));
//! # std::fs::create_dir_all(&directory)?;
//! # let name = format!("{}/engine.sock", directory.display());
//! let server = blocking::Server::builder(&name)
//!     .on(|_ctx: Context, request: Complete| Ok::<_, Status>(request.prefix + "ln!"))
//!     .bind()?;
//!
//! let client = blocking::Client::connect(&name)?;
//! assert_eq!(client.call(Complete { prefix: "print".into() }).wait()?, "println!");
//! # drop(client);
//! # server.shutdown(std::time::Duration::from_secs(1));
//! # std::fs::remove_dir_all(&directory)?;
//! # Ok(())
//! # }
//! ```

mod bytes;
mod call;
mod call_all;
mod client;
mod handler;
mod server;
mod stream;
mod threads;
mod watch;

pub use bytes::{ByteReader, ByteStream, ByteWriter};
pub use call::{Call, PendingReply, UploadStream};
pub use call_all::{CallAll, Replies};
pub use client::{Builder as ClientBuilder, Client};
pub use server::{Builder as ServerBuilder, Server};
pub use stream::{ItemSender, ItemStream};
pub(crate) use threads::leave_place;

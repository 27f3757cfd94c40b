//! The baseline: the same session over a Unix socket of tokio, written as one would without Doorbell.
//!
//! Frames with a length and a request id, postcard inside, many requests at once on one connection, credit for streams,
//! cancel on drop. A task per connection reads, another writes everything that has gathered in one go. (Where there are no
//! Unix sockets, `interprocess` puts a named pipe in their place.)

mod client;
mod frame;
mod outbox;
mod server;

use std::{
    io,
    path::Path,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use doorbell::MessageType;
use interprocess::local_socket::{GenericFilePath, GenericNamespaced, Name, ToFsName, ToNsName};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub(crate) use self::{
    client::{Client, Items, Sender},
    server::serve,
};

/// Items that a stream may have under way; the reader returns half of them at a time.
const STREAM_WINDOW: usize = 256;

/// Number of a message type in a frame; the demo's are small.
const fn tag_of(message_type: MessageType) -> u16 {
    message_type.get() as u16
}

/// Resolves a path to the name of a socket, or of a pipe where sockets have no paths.
fn name_of(path: &Path) -> io::Result<Name<'_>> {
    path.to_fs_name::<GenericFilePath>().or_else(|_| {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        name.to_ns_name::<GenericNamespaced>()
    })
}

/// What one side of a connection has asked of the kernel, at least.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    /// Calls of `recv` and `send` that moved bytes.
    pub(crate) transfers: AtomicU64,
    /// Times the reader had nothing to read and slept.
    pub(crate) sleeps: AtomicU64,
    /// Frames in both directions.
    pub(crate) frames: AtomicU64,
}

/// A half of a connection that counts its system calls.
struct Metered<H> {
    half: H,
    meter: Arc<Meter>,
}

impl<H: AsyncRead + Unpin> AsyncRead for Metered<H> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.half).poll_read(cx, buf);
        let counter = if done.is_ready() {
            &self.meter.transfers
        } else {
            &self.meter.sleeps
        };
        counter.fetch_add(1, Relaxed);
        done
    }
}

impl<H: AsyncWrite + Unpin> AsyncWrite for Metered<H> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.half).poll_write(cx, bytes);
        if done.is_ready() {
            self.meter.transfers.fetch_add(1, Relaxed);
        }
        done
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.half).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.half).poll_shutdown(cx)
    }
}

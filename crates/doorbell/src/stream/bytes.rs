//! Ordinary reading and writing on top of a call, for tasks.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Instant,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Sleep,
};

use super::{
    ItemSender, ItemStream,
    chunks::{ChunkReader, ChunkWriter},
};
use crate::message::Raw;

/// Reads and writes bytes through a bidirectional call, as through a socket.
///
/// For whoever has a protocol of their own: everything that takes tokio's [`AsyncRead`] and [`AsyncWrite`] runs between the two
/// processes. It is made from the two halves of a call whose items are [`Raw`] in both directions, on both sides.
///
/// Each direction has a window of credit, so that writing waits while the reader does not read. A write sends at most one chunk (16 KiB
/// with the default rings) as one frame, at once: there is no buffer and flushing does nothing. Wrap it in a `BufWriter` if you write a
/// few bytes at a time.
///
/// # End
///
/// Each direction ends by itself. `shutdown` ends ours, and the peer reads to the end of what we
/// have written; we read to the end when the peer has shut down or its handler has returned `Ok`.
///
/// On a client, dropping the stream before both directions have ended cancels the call: bytes that were cut short are an error for the
/// peer and never look like the end. On a server the call ends when the handler returns, so keep it running for as long as the stream is
/// used.
///
/// To a peer that uses the halves as they are, each item is a piece of the bytes, cut anywhere, and an empty item ends a direction as the
/// end of the items does: it is how a server, which has only one end to give, shuts down before its handler returns.
///
/// # Errors
///
/// Reading fails if the call does, after the bytes that came before, and writing if nobody reads any more:
///
/// | kind | when |
/// |---|---|
/// | `ConnectionReset` | the peer cancelled, or its process is gone |
/// | `ConnectionAborted` | this side has closed the connection |
/// | `TimedOut` | the call's deadline has passed |
/// | `BrokenPipe` | writing: the handler has returned, or this direction has been shut down |
/// | by the code | the handler returned a status, see `From<CallError>` for [`io::Error`] |
///
/// The source of the error is the [`CallError`](crate::CallError), if the call has failed.
///
/// # Cancel safety
///
/// A future of reading or writing that is dropped has taken and sent nothing.
///
/// # Examples
///
/// ```
/// use doorbell::{ByteStream, Client, Context, ItemSender, ItemStream, Message, MessageType, Raw, Server, Status, Upload};
/// use serde::{Deserialize, Serialize};
/// use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
///
/// /// Opens a stream of lines.
/// #[derive(Serialize, Deserialize)]
/// struct Tunnel;
///
/// impl Message for Tunnel {
///     const TYPE: MessageType = MessageType::new(7);
///     type Reply = Raw;
/// }
///
/// impl Upload for Tunnel {
///     type Item = Raw;
/// }
///
/// async fn answer(stream: ByteStream) -> std::io::Result<()> {
///     let (reader, mut writer) = stream.into_split();
///     let mut lines = BufReader::new(reader).lines();
///     while let Some(line) = lines.next_line().await? {
///         writer.write_all(format!("you said {line}\n").as_bytes()).await?;
///     }
///     Ok(())
/// }
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = std::env::temp_dir().join(format!("doorbell-doc-bytes-{}", std::process::id()));
/// # std::fs::create_dir_all(&directory)?;
/// # let name = format!("{}/engine.sock", directory.display());
/// let server = Server::builder(&name)
///     .on_bidi(|_: Context, _: Tunnel, items: ItemStream<Raw>, out: ItemSender<Raw>| async move {
///         let answered = answer(ByteStream::new(out, items)).await;
///         answered.map_err(|error| Status::internal(error.to_string()))
///     })
///     .bind()
///     .await?;
///
/// let client = Client::connect(&name).await?;
/// let mut stream = ByteStream::from(client.bidi(Tunnel).await?);
/// stream.write_all(b"hello\n").await?;
/// stream.shutdown().await?;
/// let mut answer = String::new();
/// BufReader::new(stream).read_line(&mut answer).await?;
/// assert_eq!(answer, "you said hello\n");
/// # drop(client);
/// # server.shutdown(std::time::Duration::from_secs(1)).await;
/// # std::fs::remove_dir_all(&directory)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct ByteStream {
    reader: ByteReader,
    writer: ByteWriter,
}

/// Reads the bytes of a [`ByteStream`] that was split.
///
/// On a client, dropping it before the end of the bytes cancels the call.
pub struct ByteReader {
    chunks: ChunkReader,
    alarm: Alarm,
}

/// Writes the bytes of a [`ByteStream`] that was split.
///
/// On a client, dropping it before `shutdown` cancels the call.
pub struct ByteWriter {
    chunks: ChunkWriter,
    alarm: Alarm,
}

impl ByteStream {
    /// Makes a byte stream of the two halves of a call.
    pub fn new(sender: ItemSender<Raw>, items: ItemStream<Raw>) -> Self {
        let reader = ByteReader {
            alarm: Alarm::new(items.deadline()),
            chunks: ChunkReader::new(items),
        };
        let writer = ByteWriter {
            alarm: Alarm::new(reader.chunks.deadline()),
            chunks: ChunkWriter::new(sender),
        };
        Self { reader, writer }
    }

    /// Returns the two directions, each of which can have a task of its own.
    pub fn into_split(self) -> (ByteReader, ByteWriter) {
        (self.reader, self.writer)
    }
}

impl From<(ItemSender<Raw>, ItemStream<Raw>)> for ByteStream {
    /// Takes what [`Client::bidi`](crate::Client::bidi) gives.
    fn from((sender, items): (ItemSender<Raw>, ItemStream<Raw>)) -> Self {
        Self::new(sender, items)
    }
}

impl AsyncRead for ByteReader {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let this = self.get_mut();
        let count = loop {
            if let Poll::Ready(filled) = this.chunks.poll_fill(cx) {
                let bytes = filled?;
                let count = bytes.len().min(buffer.remaining());
                buffer.put_slice(&bytes[..count]);
                break count;
            }
            ready!(this.alarm.poll(cx));
            this.chunks.expire();
        };
        this.chunks.consume(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ByteWriter {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        loop {
            if let Poll::Ready(written) = this.chunks.poll_write(cx, bytes) {
                return Poll::Ready(written);
            }
            ready!(this.alarm.poll(cx));
            this.chunks.expire();
        }
    }

    /// Always ready: what was written is on its way.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Says that no more bytes follow. Succeeds if the call is over already.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if let Poll::Ready(ended) = this.chunks.poll_end(cx) {
                return Poll::Ready(ended);
            }
            ready!(this.alarm.poll(cx));
            this.chunks.expire();
        }
    }
}

impl AsyncRead for ByteStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().reader).poll_read(cx, buffer)
    }
}

impl AsyncWrite for ByteStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().writer).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().writer).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().writer).poll_shutdown(cx)
    }
}

impl std::fmt::Debug for ByteReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ByteReader").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for ByteWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ByteWriter").finish_non_exhaustive()
    }
}

/// Rings at the deadline of the call, if it has one; costs nothing before somebody has to wait.
struct Alarm {
    deadline: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Alarm {
    fn new(deadline: Option<Instant>) -> Self {
        Self {
            deadline,
            sleep: None,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.deadline else {
            return Poll::Pending;
        };
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline.into())));
        sleep.as_mut().poll(cx)
    }
}

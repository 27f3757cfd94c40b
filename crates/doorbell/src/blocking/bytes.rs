//! Ordinary reading and writing on top of a call, for threads.

use std::{
    io::{self, Read, Write},
    time::Instant,
};

use super::{ItemSender, ItemStream};
use crate::{
    message::Raw,
    stream::chunks::{ChunkReader, ChunkWriter},
};

/// Reads and writes bytes through a bidirectional call, as through a socket.
///
/// For whoever has a protocol of their own: everything that takes [`Read`] and [`Write`] runs between the two processes. It is made from
/// the two halves of a call whose items are [`Raw`] in both directions, on both sides. Two threads that read and write at the same time
/// have one half each, see [`into_split`](Self::into_split).
///
/// Each direction has a window of credit, so that writing waits while the reader does not read. A write sends at most one chunk (16 KiB
/// with the default rings) as one frame, at once: there is no buffer and flushing does nothing. Wrap it in a
/// [`BufWriter`](std::io::BufWriter) if you write a few bytes at a time.
///
/// # End
///
/// Each direction ends by itself. [`shutdown`](Self::shutdown) ends ours, and the peer reads to the end of what we have written; we read
/// to the end when the peer has shut down or its handler has returned `Ok`.
///
/// On a client, dropping the stream before both directions have ended cancels the call: bytes that were cut short are an error for the
/// peer and never look like the end. On a server the call ends when the handler returns.
///
/// How bytes become items is told at `doorbell::ByteStream`, the same for tasks; either kind may be at the other end.
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
/// # Examples
///
/// ```
/// use doorbell::{Context, Message, MessageType, Raw, Status, Upload, blocking};
/// use serde::{Deserialize, Serialize};
/// use std::io::{Read, Write};
///
/// /// Opens a stream that comes back.
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
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = std::env::temp_dir().join(format!("doorbell-doc-bytes-blocking-{}", std::process::id()));
/// # std::fs::create_dir_all(&directory)?;
/// # let name = format!("{}/engine.sock", directory.display());
/// let server = blocking::Server::builder(&name)
///     .on_bidi(|_: Context, _: Tunnel, items: blocking::ItemStream<Raw>, out: blocking::ItemSender<Raw>| {
///         let (mut reader, mut writer) = blocking::ByteStream::new(out, items).into_split();
///         std::io::copy(&mut reader, &mut writer)
///             .map(drop)
///             .map_err(|error| Status::internal(error.to_string()))
///     })
///     .bind()?;
///
/// let client = blocking::Client::connect(&name)?;
/// let mut stream = blocking::ByteStream::from(client.bidi(Tunnel).open()?);
/// stream.write_all(b"hello")?;
/// stream.shutdown()?;
/// let mut answer = String::new();
/// stream.read_to_string(&mut answer)?;
/// assert_eq!(answer, "hello");
/// # drop((stream, client));
/// # server.shutdown(std::time::Duration::from_secs(1));
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
pub struct ByteReader(ChunkReader);

/// Writes the bytes of a [`ByteStream`] that was split.
///
/// On a client, dropping it before [`shutdown`](Self::shutdown) cancels the call.
pub struct ByteWriter(ChunkWriter, Option<Instant>);

impl ByteStream {
    /// Makes a byte stream of the two halves of a call.
    pub fn new(sender: ItemSender<Raw>, items: ItemStream<Raw>) -> Self {
        Self {
            reader: ByteReader(ChunkReader::new(items.0)),
            writer: ByteWriter(ChunkWriter::new(sender.0), sender.1),
        }
    }

    /// Returns the two directions, each of which can have a thread of its own.
    pub fn into_split(self) -> (ByteReader, ByteWriter) {
        (self.reader, self.writer)
    }

    /// Says that no more bytes follow, see [`ByteWriter::shutdown`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn shutdown(&mut self) -> io::Result<()> {
        self.writer.shutdown()
    }
}

impl ByteWriter {
    /// Says that no more bytes follow: the peer reads to the end of what was written. Succeeds if the call is over already.
    ///
    /// # Errors
    ///
    /// `TimedOut` on a server whose call has a deadline, if the client does not read so much as to learn of the end.
    pub fn shutdown(&mut self) -> io::Result<()> {
        self.0.end_blocking(self.1)
    }
}

impl From<(ItemSender<Raw>, ItemStream<Raw>)> for ByteStream {
    /// Takes what [`Client::bidi`](super::Client::bidi) gives.
    fn from((sender, items): (ItemSender<Raw>, ItemStream<Raw>)) -> Self {
        Self::new(sender, items)
    }
}

impl Read for ByteReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let bytes = self.0.fill_blocking()?;
        let count = bytes.len().min(buffer.len());
        buffer[..count].copy_from_slice(&bytes[..count]);
        self.0.consume(count);
        Ok(count)
    }
}

impl Write for ByteWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write_blocking(bytes, self.1)
    }

    /// Does nothing: what was written is on its way.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for ByteStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer)
    }
}

impl Write for ByteStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
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

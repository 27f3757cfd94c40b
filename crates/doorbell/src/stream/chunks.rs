//! Bytes as items, one direction at a time: what the byte streams for tasks and for threads share.
//!
//! # How bytes travel
//!
//! Every item is a piece of the bytes; where one piece ends and the next begins means nothing. The end of the bytes is the end of the
//! items or an empty item, whichever comes first. A client says `END`. A server cannot, because that ends the whole call, so it sends an
//! empty item and goes on reading. Nobody sends an empty item for any other reason.

#[cfg(feature = "tokio")]
use std::task::{Context, Poll, ready};
use std::{
    io::{self, ErrorKind},
    time::Instant,
};

use bytes::{Buf, Bytes};

use super::{ItemError, ItemSender, ItemStream};
use crate::{error::CallError, message::Raw};

/// The bytes that arrive.
pub(crate) struct ChunkReader {
    items: ItemStream<Raw>,
    /// What is left of the last item.
    chunk: Bytes,
    ended: Option<Ended>,
}

enum Ended {
    InOrder,
    Failed(ErrorKind),
}

impl ChunkReader {
    pub(crate) fn new(items: ItemStream<Raw>) -> Self {
        Self {
            items,
            chunk: Bytes::new(),
            ended: None,
        }
    }

    /// Returns bytes that have not been consumed, or none at the end. Waits as a thread.
    pub(crate) fn fill_blocking(&mut self) -> io::Result<&[u8]> {
        if self.needs_item()? {
            let item = self.items.next_blocking();
            self.take(item)?;
        }
        Ok(&self.chunk)
    }

    pub(crate) fn consume(&mut self, bytes: usize) {
        self.chunk.advance(bytes);
    }

    fn needs_item(&self) -> io::Result<bool> {
        match self.ended {
            None => Ok(self.chunk.is_empty()),
            Some(Ended::InOrder) => Ok(false),
            // The call's own error has been handed out; what failed does not look like an end later.
            Some(Ended::Failed(kind)) => Err(kind.into()),
        }
    }

    fn take(&mut self, item: Option<Result<Raw, CallError>>) -> io::Result<()> {
        match item {
            Some(Ok(Raw(bytes))) if !bytes.is_empty() => self.chunk = bytes,
            Some(Ok(_)) | None => {
                self.ended = Some(Ended::InOrder);
                self.items.disarm(); // the other direction may go on alone
            }
            Some(Err(error)) => {
                let error = io::Error::from(error);
                self.ended = Some(Ended::Failed(error.kind()));
                return Err(error);
            }
        }
        Ok(())
    }
}

#[cfg(feature = "tokio")]
impl ChunkReader {
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.items.deadline()
    }

    /// The deadline has passed: gives the call its end if it has none yet.
    pub(crate) fn expire(&self) {
        self.items.connection().expire();
    }

    /// As [`fill_blocking`](Self::fill_blocking), for tasks.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        if self.needs_item()? {
            let item = ready!(self.items.poll_item(cx));
            self.take(item)?;
        }
        Poll::Ready(Ok(&self.chunk))
    }
}

/// The bytes that are sent. Dropping it before the end of the bytes cancels a client's call.
pub(crate) struct ChunkWriter {
    /// `None` after the end.
    sender: Option<ItemSender<Raw>>,
    chunk_bytes: usize,
}

impl ChunkWriter {
    /// Takes a sender over. What was fed to it is sent now: it comes before the bytes.
    pub(crate) fn new(mut sender: ItemSender<Raw>) -> Self {
        let _ = sender.flush(); // if the stream is over, the first write says so
        let terms = sender.connection().terms();
        let chunk_bytes = u64::from(terms.max_chunk_bytes)
            .min(terms.sent_message_bytes)
            .max(1);
        Self {
            sender: Some(sender),
            chunk_bytes: usize::try_from(chunk_bytes).unwrap_or(usize::MAX),
        }
    }

    /// Sends up to a chunk and returns its size. Waits as a thread until there is credit, or until `deadline`.
    pub(crate) fn write_blocking(
        &mut self,
        bytes: &[u8],
        deadline: Option<Instant>,
    ) -> io::Result<usize> {
        let (sender, chunk) = self.next_chunk(bytes)?;
        if chunk.is_empty() {
            return Ok(0);
        }
        send_blocking(sender, chunk, deadline).map_err(|error| write_error(error, sender))?;
        Ok(chunk.len())
    }

    /// Says that no more bytes follow; a server needs a little credit for that. A call that is over needs no end.
    pub(crate) fn end_blocking(&mut self, deadline: Option<Instant>) -> io::Result<()> {
        if let Some(sender) = self.sender_without_end() {
            let sent = send_blocking(sender, &[], deadline);
            end_error(sent, sender)?;
        }
        self.sender = None;
        Ok(())
    }

    fn next_chunk<'a>(&mut self, bytes: &'a [u8]) -> io::Result<(&mut ItemSender<Raw>, &'a [u8])> {
        let chunk = &bytes[..bytes.len().min(self.chunk_bytes)];
        let sender = self.sender.as_mut().ok_or_else(|| {
            io::Error::new(
                ErrorKind::BrokenPipe,
                "this direction of the stream has been shut down",
            )
        })?;
        Ok((sender, chunk))
    }

    /// The sender, if it is one that says nothing when it is dropped.
    fn sender_without_end(&mut self) -> Option<&mut ItemSender<Raw>> {
        self.sender
            .as_mut()
            .filter(|sender| !sender.ends_when_dropped())
    }
}

#[cfg(feature = "tokio")]
impl ChunkWriter {
    /// The deadline has passed: gives the call its end if it has none yet.
    pub(crate) fn expire(&self) {
        if let Some(sender) = &self.sender {
            sender.connection().expire();
        }
    }

    /// As [`write_blocking`](Self::write_blocking), for tasks.
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let (sender, chunk) = self.next_chunk(bytes)?;
        if chunk.is_empty() {
            return Poll::Ready(Ok(0));
        }
        ready!(poll_send(sender, cx, chunk)).map_err(|error| write_error(error, sender))?;
        Poll::Ready(Ok(chunk.len()))
    }

    /// As [`end_blocking`](Self::end_blocking), for tasks.
    pub(crate) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(sender) = self.sender_without_end() {
            let sent = ready!(poll_send(sender, cx, &[]));
            end_error(sent, sender)?;
        }
        self.sender = None;
        Poll::Ready(Ok(()))
    }
}

impl Drop for ChunkWriter {
    fn drop(&mut self) {
        if let Some(sender) = self.sender.take() {
            sender.give_up(); // half of something must not look like the whole
        }
    }
}

#[cfg(feature = "tokio")]
fn poll_send(
    sender: &mut ItemSender<Raw>,
    cx: &mut Context<'_>,
    bytes: &[u8],
) -> Poll<Result<(), ItemError>> {
    loop {
        match sender.try_send_bytes(bytes) {
            Err(ItemError::Full) => ready!(sender.poll_credit(cx)),
            done => return Poll::Ready(done),
        }
    }
}

fn send_blocking(
    sender: &mut ItemSender<Raw>,
    bytes: &[u8],
    deadline: Option<Instant>,
) -> Result<(), ItemError> {
    loop {
        match sender.try_send_bytes(bytes) {
            Err(ItemError::Full) => sender.wait_for_credit(deadline)?,
            done => return done,
        }
    }
}

fn write_error(error: ItemError, sender: &ItemSender<Raw>) -> io::Error {
    match error {
        ItemError::Over => match sender.why_over() {
            Some(reason) => reason.into(),
            None => io::Error::new(ErrorKind::BrokenPipe, error),
        },
        ItemError::DeadlineExceeded => CallError::DeadlineExceeded.into(),
        ItemError::TooLarge { .. } | ItemError::Encode(_) | ItemError::Full => {
            io::Error::other(error)
        }
    }
}

fn end_error(sent: Result<(), ItemError>, sender: &ItemSender<Raw>) -> io::Result<()> {
    match sent {
        Ok(()) | Err(ItemError::Over) => Ok(()),
        Err(error) => Err(write_error(error, sender)),
    }
}

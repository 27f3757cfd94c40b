//! Frames that wait to be written. Any task puts frames in; one task takes all of them at once and writes them.

use std::{
    io, mem,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering::Relaxed},
};

use bytes::Bytes;
use doorbell::Payload;
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    sync::Notify,
};

use super::{
    Meter,
    frame::{self, Kind},
};

/// Bytes after which senders of items and notifications wait.
const FULL_BYTES: usize = 1 << 20;
/// Raw bodies from this size on are written from where they are.
const LARGE_BYTES: usize = 16 << 10;

/// The connection has ended, so nothing can be sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Closed;

#[derive(Debug)]
pub(super) struct Outbox {
    queue: Mutex<Queue>,
    filled: Notify,
    emptied: Notify,
    meter: Arc<Meter>,
}

#[derive(Debug, Default)]
struct Queue {
    /// Closed-off pieces, then `tail`, in the order in which they are written.
    pieces: Vec<Bytes>,
    tail: Vec<u8>,
    bytes: usize,
    is_closed: bool,
}

impl Outbox {
    pub(super) fn new(meter: Arc<Meter>) -> Self {
        Self {
            queue: Mutex::default(),
            filled: Notify::new(),
            emptied: Notify::new(),
            meter,
        }
    }

    /// Queues a frame without a body.
    pub(super) fn push(&self, kind: Kind, id: u32, tag: u16) -> Result<(), Closed> {
        self.push_with(|queue| {
            queue
                .tail
                .extend_from_slice(&frame::header(0, kind, id, tag))
        })
    }

    /// Queues a frame with an encoded value.
    pub(super) fn push_payload(
        &self,
        kind: Kind,
        id: u32,
        tag: u16,
        payload: &impl Payload,
    ) -> Result<(), Closed> {
        self.push_with(|queue| match payload.as_bytes() {
            Some(bytes) if bytes.len() >= LARGE_BYTES => queue.append_large(kind, id, tag, bytes),
            _ => queue.append(kind, id, tag, payload),
        })
    }

    fn push_with(&self, append: impl FnOnce(&mut Queue)) -> Result<(), Closed> {
        let mut queue = self.lock();
        if queue.is_closed {
            return Err(Closed);
        }
        append(&mut queue);
        drop(queue);
        self.meter.frames.fetch_add(1, Relaxed);
        self.filled.notify_one();
        Ok(())
    }

    /// Waits until fewer than [`FULL_BYTES`] wait.
    pub(super) async fn writable(&self) -> Result<(), Closed> {
        loop {
            let mut emptied = pin!(self.emptied.notified());
            emptied.as_mut().enable();
            match &*self.lock() {
                queue if queue.is_closed => return Err(Closed),
                queue if queue.bytes() < FULL_BYTES => return Ok(()),
                _ => {}
            }
            emptied.await;
        }
    }

    /// Refuses further frames.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.emptied.notify_waiters();
        self.filled.notify_one();
    }

    /// Writes what is queued until the outbox is closed or writing fails; then the outbox is closed.
    pub(super) async fn write_to(&self, mut writer: impl AsyncWrite + Unpin) {
        let mut spare = Vec::new();
        while let Some((pieces, tail)) = self.take(mem::take(&mut spare)).await {
            if write_all(&mut writer, &pieces, &tail).await.is_err() {
                break;
            }
            spare = tail;
            self.emptied.notify_waiters();
        }
        self.close();
    }

    async fn take(&self, mut spare: Vec<u8>) -> Option<(Vec<Bytes>, Vec<u8>)> {
        spare.clear();
        loop {
            {
                let mut queue = self.lock();
                if queue.is_closed {
                    return None;
                }
                if queue.bytes() > 0 {
                    queue.bytes = 0;
                    return Some((
                        mem::take(&mut queue.pieces),
                        mem::replace(&mut queue.tail, spare),
                    ));
                }
            }
            self.filled.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn bytes(&self) -> usize {
        self.bytes + self.tail.len()
    }

    /// Encodes in place, then writes the header that had to wait for the length.
    fn append(&mut self, kind: Kind, id: u32, tag: u16, payload: &impl Payload) {
        let start = self.tail.len();
        let placeholder = frame::header(0, kind, id, tag);
        let body_start = start + placeholder.len();
        self.tail.extend_from_slice(&placeholder);
        payload
            .encode(&mut self.tail)
            .expect("the demo's messages have an encoded form");
        let header = frame::header(self.tail.len() - body_start, kind, id, tag);
        self.tail[start..body_start].copy_from_slice(&header);
    }

    fn append_large(&mut self, kind: Kind, id: u32, tag: u16, bytes: &Bytes) {
        self.tail
            .extend_from_slice(&frame::header(bytes.len(), kind, id, tag));
        let tail = mem::take(&mut self.tail);
        self.bytes += tail.len() + bytes.len();
        self.pieces.extend([tail.into(), bytes.clone()]);
    }
}

async fn write_all(
    writer: &mut (impl AsyncWrite + Unpin),
    pieces: &[Bytes],
    tail: &[u8],
) -> io::Result<()> {
    for piece in pieces {
        writer.write_all(piece).await?;
    }
    writer.write_all(tail).await
}

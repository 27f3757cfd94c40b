//! tokio over a Unix socket: what an awaiting program uses that brings its own frames.
//!
//! Frames have a length prefix. A lone frame is one write and mostly one read. The pipelined client writes all requests that
//! the window allows at once, and the server answers all that one read brought with one write; the one-way client fills 64 KiB
//! for each write. Every frame is looked at on both sides. There are no call ids, deadlines or types: this is the least that
//! such a program can do.

use anyhow::{Context as _, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

use super::not_measured;
use super::runtime::{all_at_once, run, runtime};
use crate::clock::{Caller, Counter, closed_loop_task};
use crate::part::{Part, Work, say_ready};
use crate::payload::{self, Sequence, Turn};
use crate::sample::Figures;

/// Serves until the process is ended.
///
/// # Errors
///
/// If the socket cannot be bound.
pub(super) fn serve(part: &Part) -> anyhow::Result<()> {
    part.pin()?;
    let work = part.work;
    let path = part.socket();
    runtime(part)?.block_on(async move {
        let listener = UnixListener::bind(path).context("cannot bind the socket")?;
        say_ready()?;
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(async move {
                // A client that goes away ends its connection.
                _ = match work {
                    Work::OneWay => sink(stream, Reader::new(work)).await,
                    _ => echo(stream, Reader::new(work)).await,
                };
            });
        }
    })
}

async fn echo(mut stream: UnixStream, mut frames: Reader) -> anyhow::Result<()> {
    let mut answers = Vec::new();
    while frames
        .read(&mut stream, |payload| append(&mut answers, payload))
        .await?
    {
        if !answers.is_empty() {
            stream.write_all(&answers).await?;
            answers.clear();
        }
    }
    Ok(())
}

/// Looks at every frame; says at the end, which is the client's half close, whether they were right.
async fn sink(mut stream: UnixStream, mut frames: Reader) -> anyhow::Result<()> {
    let mut sequence = Sequence::default();
    while frames
        .read(&mut stream, |payload| sequence.handle(payload))
        .await?
    {}
    let verdict = u8::from(sequence.finish().is_ok());
    Ok(stream.write_all(&[verdict]).await?)
}

/// Measures as a client.
///
/// # Errors
///
/// If the server fails or answers something else than was sent.
pub(super) fn measure(part: &Part) -> anyhow::Result<Figures> {
    part.pin()?;
    run(&runtime(part)?, measure_task(part.clone()))
}

async fn measure_task(part: Part) -> anyhow::Result<Figures> {
    match part.work {
        Work::RoundTrip => closed_loop_task(part.limit, Socket::connect(&part).await?).await,
        Work::Pipelined { window } => pipelined(&part, window).await,
        Work::OneWay => one_way(&part).await,
        Work::Connections { count } => {
            let mut callers = Vec::with_capacity(count);
            while callers.len() < count {
                callers.push(Socket::connect(&part).await?);
            }
            all_at_once(callers, part.limit).await
        }
        Work::Loaned | Work::Processes { .. } | Work::Completion => not_measured(&part),
    }
}

/// Round trips one after the other.
struct Socket {
    stream: UnixStream,
    requests: Turn<Vec<u8>>,
    frames: Reader,
}

impl Socket {
    async fn connect(part: &Part) -> anyhow::Result<Self> {
        let frame = |number| {
            let mut frame = Vec::new();
            append(&mut frame, &payload::message(part.size_bytes, number));
            frame
        };
        Ok(Self {
            stream: UnixStream::connect(part.socket())
                .await
                .context("cannot connect")?,
            requests: Turn::new(frame),
            frames: Reader::new(part.work),
        })
    }
}

impl Caller for Socket {
    async fn call(&mut self) -> anyhow::Result<()> {
        let request = self.requests.next();
        self.stream.write_all(request).await?;
        let mut verdict = None;
        while verdict.is_none() {
            let is_open = self
                .frames
                .read(&mut self.stream, |answer| {
                    verdict = Some(payload::check(answer, &request[PREFIX_BYTES..]));
                })
                .await?;
            ensure!(is_open, "the server has closed the socket");
        }
        verdict.unwrap_or(Ok(()))
    }
}

async fn pipelined(part: &Part, window: usize) -> anyhow::Result<Figures> {
    let mut stream = UnixStream::connect(part.socket()).await?;
    let (mut frames, mut sequence) = (Reader::new(part.work), Sequence::default());
    let mut requests = Requests::new(part.size_bytes);
    stream.write_all(requests.next(window)).await?;
    let mut counter = Counter::start(part.limit);
    loop {
        let mut finished = 0;
        let is_open = frames
            .read(&mut stream, |answer| {
                sequence.handle(answer);
                finished += 1;
            })
            .await?;
        ensure!(is_open, "the server has closed the socket");
        if !counter.add(finished as u64) {
            sequence.finish()?;
            return Ok(counter.finish());
        }
        if finished > 0 {
            stream.write_all(requests.next(finished)).await?;
        }
    }
}

async fn one_way(part: &Part) -> anyhow::Result<Figures> {
    let mut stream = UnixStream::connect(part.socket()).await?;
    let batch = (BATCH_BYTES / (PREFIX_BYTES + part.size_bytes)).max(1);
    let mut requests = Requests::new(part.size_bytes);
    let mut counter = Counter::start(part.limit);
    while counter.add(batch as u64) {
        stream.write_all(requests.next(batch)).await?;
    }
    stream.shutdown().await?;
    let verdict = stream.read_u8().await?;
    ensure!(verdict == 1, "the server has not seen what was sent");
    Ok(counter.finish())
}

/// Frames that are written anew each time, as somebody who has something to say must, with numbers that count up.
struct Requests {
    bytes: Vec<u8>,
    message: Vec<u8>,
    number: u64,
}

impl Requests {
    fn new(size_bytes: usize) -> Self {
        Self {
            bytes: Vec::new(),
            message: payload::message(size_bytes, 0),
            number: 0,
        }
    }

    fn next(&mut self, count: usize) -> &[u8] {
        self.bytes.clear();
        for _ in 0..count {
            payload::stamp(&mut self.message, self.number);
            self.number += 1;
            append(&mut self.bytes, &self.message);
        }
        &self.bytes
    }
}

/// Reads as much as there is and finds the frames in it.
struct Reader {
    buffer: Vec<u8>,
    /// Where bytes that belong to no finished frame end.
    filled: usize,
}

impl Reader {
    /// Makes a reader with a buffer that suits the work, and grows when one frame needs more.
    fn new(work: Work) -> Self {
        let capacity_bytes = match work {
            Work::Pipelined { .. } | Work::OneWay => BATCH_BYTES,
            _ => LONE_BYTES,
        };
        Self {
            buffer: vec![0; capacity_bytes],
            filled: 0,
        }
    }

    /// Reads once and hands over each complete frame; returns `false` at the end of the stream.
    async fn read(
        &mut self,
        stream: &mut UnixStream,
        mut handle: impl FnMut(&[u8]),
    ) -> anyhow::Result<bool> {
        let read = stream.read(&mut self.buffer[self.filled..]).await?;
        self.filled += read;
        let mut start = 0;
        while let Some(end) = self.frame_end(start).filter(|&end| end <= self.filled) {
            handle(&self.buffer[start + PREFIX_BYTES..end]);
            start = end;
        }
        self.buffer.copy_within(start..self.filled, 0);
        self.filled -= start;
        if let Some(end) = self.frame_end(0).filter(|&end| end > self.buffer.len()) {
            self.buffer.resize(end, 0);
        }
        Ok(read > 0)
    }

    fn frame_end(&self, start: usize) -> Option<usize> {
        let prefix = self.buffer[start..self.filled].first_chunk()?;
        Some(start + PREFIX_BYTES + u32::from_le_bytes(*prefix) as usize)
    }
}

fn append(out: &mut Vec<u8>, payload: &[u8]) {
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(payload);
}

const PREFIX_BYTES: usize = 4;

/// Bytes of one read where frames come alone; a thousand larger buffers would not stay in a cache.
const LONE_BYTES: usize = 4 << 10;

/// Bytes of one read or write where many frames come together. Larger ones were no faster.
const BATCH_BYTES: usize = 64 << 10;

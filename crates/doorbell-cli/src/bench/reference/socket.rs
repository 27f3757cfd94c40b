//! A Unix socket with tokio, at its best: the strongest rival that awaits.
//!
//! Both sides run on a current-thread runtime, which is faster here than several threads. Frames have a length prefix. The
//! pipelined client writes as many requests at once as the window allows, the server answers all that one read brought with
//! one write; every frame is looked at on both sides. (Where there are no Unix sockets, `interprocess` puts a named pipe in
//! their place.)
#![expect(
    deprecated,
    reason = "the halves are those of tokio; the whole asks the kernel once more before each sleep"
)]

use std::io;
use std::path::Path;

use anyhow::{Context as _, ensure};
use interprocess::local_socket::tokio::{RecvHalf, SendHalf, Stream};
use interprocess::local_socket::traits::tokio::{Listener as _, Stream as _};
use interprocess::local_socket::{
    GenericFilePath, GenericNamespaced, ListenerOptions, Name, ToFsName, ToNsName,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;

use super::Role;
use crate::bench::case::Setting;
use crate::bench::clock::{Counter, Laps};
use crate::bench::peer::{self, Peer};
use crate::bench::sample::Sample;

/// Times single round trips.
///
/// # Errors
///
/// If the second process fails.
pub(crate) fn round_trips(setting: &Setting) -> anyhow::Result<Sample> {
    let (_peer, runtime, mut socket) = connect(Role::SocketEcho, setting)?;
    let request = Frames::of(setting.size_bytes, 1);
    let mut answer = vec![0; request.bytes.len()];
    runtime.block_on(async {
        let mut laps = Laps::start(setting.limit);
        loop {
            laps.pause_task().await;
            socket.writer.write_all(&request.bytes).await?;
            socket.reader.read_exact(&mut answer).await?;
            ensure!(answer == request.bytes, "the echo is not what was sent");
            if !laps.end_lap() {
                return Ok(laps.finish(setting.size_bytes));
            }
        }
    })
}

/// Counts round trips with a full window, or as much of it as the buffers of the socket take without a reader.
///
/// # Errors
///
/// If the second process fails.
pub(crate) fn pipelined(setting: &Setting) -> anyhow::Result<Sample> {
    let (_peer, runtime, mut socket) = connect(Role::SocketEcho, setting)?;
    let most = BATCH_BYTES / (PREFIX_BYTES + setting.size_bytes);
    let mut requests = Frames::of(setting.size_bytes, setting.window.min(most).max(1));
    runtime.block_on(async {
        let mut reader = FrameReader::new(setting.size_bytes);
        socket.writer.write_all(&requests.bytes).await?;
        let mut counter = Counter::start(setting.limit);
        loop {
            let finished = reader.read(&mut socket.reader).await?;
            if !counter.add(finished as u64) {
                return Ok(counter.finish(setting.size_bytes));
            }
            socket.writer.write_all(requests.fill(finished)).await?;
        }
    })
}

/// Counts frames that go one way; the second process looks at each.
///
/// # Errors
///
/// If the second process fails.
pub(crate) fn one_way(setting: &Setting) -> anyhow::Result<Sample> {
    let (_peer, runtime, mut socket) = connect(Role::SocketSink, setting)?;
    let batch = BATCH_BYTES / (PREFIX_BYTES + setting.size_bytes);
    let mut frames = Frames::of(setting.size_bytes, batch.max(1));
    runtime.block_on(async {
        let mut counter = Counter::start(setting.limit);
        while counter.add(frames.count as u64) {
            socket.writer.write_all(frames.fill(frames.count)).await?;
        }
        Ok(counter.finish(setting.size_bytes))
    })
}

/// Counts pieces of a stream of bytes; the second process only reads them.
///
/// # Errors
///
/// If the second process fails.
pub(crate) fn bytes(setting: &Setting) -> anyhow::Result<Sample> {
    let (_peer, runtime, mut socket) = connect(Role::SocketBytes, setting)?;
    let piece = vec![0x5A; setting.size_bytes];
    runtime.block_on(async {
        let mut counter = Counter::start(setting.limit);
        while counter.add(1) {
            socket.writer.write_all(&piece).await?;
        }
        Ok(counter.finish(setting.size_bytes))
    })
}

fn connect(role: Role, setting: &Setting) -> anyhow::Result<(Peer, Runtime, Socket)> {
    let peer = setting.start_peer(peer::Role::Reference(role))?;
    setting.pin_client()?;
    let runtime = current_thread_runtime()?;
    let stream = runtime
        .block_on(async { Stream::connect(name_of(peer.path())?).await })
        .context("cannot connect to the second process")?;
    Ok((peer, runtime, Socket::new(stream)))
}

/// Both halves of a connection.
pub(super) struct Socket {
    pub(super) reader: RecvHalf,
    pub(super) writer: SendHalf,
}

impl Socket {
    pub(super) fn new(stream: Stream) -> Self {
        let (reader, writer) = stream.split();
        Self { reader, writer }
    }
}

/// Returns the name of the socket at `path`, or of a pipe where sockets have no paths.
pub(super) fn name_of(path: &Path) -> io::Result<Name<'_>> {
    path.to_fs_name::<GenericFilePath>().or_else(|_| {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        name.to_ns_name::<GenericNamespaced>()
    })
}

/// Serves one connection: sends every frame back.
pub(super) fn serve_echo(
    path: &Path,
) -> anyhow::Result<impl FnOnce() -> anyhow::Result<()> + use<>> {
    serve(path, async |mut socket| {
        let mut answers = Vec::with_capacity(BATCH_BYTES);
        let mut reader = FrameReader::new(0);
        while reader
            .read_each(&mut socket.reader, |frame| {
                append_frame(&mut answers, frame)
            })
            .await?
        {
            socket.writer.write_all(&answers).await?;
            answers.clear();
        }
        Ok(())
    })
}

/// Serves one connection: looks at every frame and keeps nothing.
pub(super) fn serve_sink(
    path: &Path,
) -> anyhow::Result<impl FnOnce() -> anyhow::Result<()> + use<>> {
    serve(path, async |mut socket| {
        let mut reader = FrameReader::new(0);
        let mut sum = 0_u64;
        while reader
            .read_each(&mut socket.reader, |frame| {
                sum = sum.wrapping_add(first_word(frame))
            })
            .await?
        {}
        std::hint::black_box(sum);
        Ok(())
    })
}

/// Serves one connection: reads bytes and keeps nothing.
pub(super) fn serve_bytes(
    path: &Path,
) -> anyhow::Result<impl FnOnce() -> anyhow::Result<()> + use<>> {
    serve(path, async |mut socket| {
        let mut buffer = vec![0; BATCH_BYTES];
        while socket.reader.read(&mut buffer).await? > 0 {}
        Ok(())
    })
}

/// Binds now, and returns what serves the first connection.
fn serve<F>(
    path: &Path,
    connection: F,
) -> anyhow::Result<impl FnOnce() -> anyhow::Result<()> + use<F>>
where
    F: AsyncFnOnce(Socket) -> anyhow::Result<()>,
{
    let runtime = current_thread_runtime()?;
    let listener = {
        let _guard = runtime.enter();
        ListenerOptions::new()
            .name(name_of(path)?)
            .create_tokio()
            .context("cannot bind the socket")?
    };
    Ok(move || {
        runtime.block_on(async {
            let stream = listener.accept().await?;
            connection(Socket::new(stream)).await
        })
    })
}

pub(super) fn current_thread_runtime() -> anyhow::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot make a runtime")
}

/// A number of equal frames, ready to be written.
pub(super) struct Frames {
    bytes: Vec<u8>,
    frame_bytes: usize,
    count: usize,
    message: Vec<u8>,
    number: u64,
}

impl Frames {
    pub(super) fn of(size_bytes: usize, count: usize) -> Self {
        let mut bytes = Vec::new();
        for _ in 0..count {
            append_frame(&mut bytes, &vec![0x5A; size_bytes]);
        }
        Self {
            bytes,
            frame_bytes: PREFIX_BYTES + size_bytes,
            count,
            message: vec![0x5A; size_bytes],
            number: 0,
        }
    }

    /// Writes each of the first frames anew, as somebody who has something to say must, and returns them.
    pub(super) fn fill(&mut self, count: usize) -> &[u8] {
        let bytes = &mut self.bytes[..count * self.frame_bytes];
        for frame in bytes.chunks_exact_mut(self.frame_bytes) {
            self.number += 1;
            let body = &mut frame[PREFIX_BYTES..];
            body.copy_from_slice(&self.message);
            if let Some(stamp) = body.first_chunk_mut() {
                *stamp = self.number.to_le_bytes();
            }
        }
        bytes
    }
}

/// Reads as much as there is and finds the frames in it.
pub(super) struct FrameReader {
    buffer: Vec<u8>,
    /// Where bytes that belong to no finished frame end.
    filled: usize,
    expected_bytes: usize,
}

impl FrameReader {
    /// Makes a reader; [`read`](Self::read) accepts only frames of that size.
    pub(super) fn new(expected_bytes: usize) -> Self {
        Self {
            buffer: vec![0; BATCH_BYTES],
            filled: 0,
            expected_bytes,
        }
    }

    /// Reads until at least one frame is complete; checks each and returns how many there were.
    pub(super) async fn read(&mut self, stream: &mut RecvHalf) -> anyhow::Result<usize> {
        let (mut frames, mut wrong, mut sum) = (0, 0, 0_u64);
        let expected = self.expected_bytes;
        while frames == 0 {
            let more = self.read_each(stream, |frame| {
                frames += 1;
                wrong += usize::from(frame.len() != expected);
                sum = sum.wrapping_add(first_word(frame));
            });
            ensure!(more.await?, "the second process has closed the socket");
        }
        std::hint::black_box(sum);
        ensure!(wrong == 0, "{wrong} frames have another size than was sent");
        Ok(frames)
    }

    /// Reads once and hands over each complete frame; returns `false` at the end of the stream.
    pub(super) async fn read_each(
        &mut self,
        stream: &mut RecvHalf,
        mut frame: impl FnMut(&[u8]),
    ) -> anyhow::Result<bool> {
        let read = stream.read(&mut self.buffer[self.filled..]).await?;
        self.filled += read;
        let mut start = 0;
        while let Some(end) = self.frame_end(start) {
            frame(&self.buffer[start + PREFIX_BYTES..end]);
            start = end;
        }
        self.buffer.copy_within(start..self.filled, 0);
        self.filled -= start;
        self.make_room();
        Ok(read > 0)
    }

    fn frame_end(&self, start: usize) -> Option<usize> {
        let prefix = self.buffer[start..self.filled].first_chunk::<PREFIX_BYTES>()?;
        let end = start + PREFIX_BYTES + u32::from_le_bytes(*prefix) as usize;
        (end <= self.filled).then_some(end)
    }

    /// Grows the buffer when one frame fills it.
    fn make_room(&mut self) {
        if self.filled == self.buffer.len() {
            self.buffer.resize(2 * self.filled, 0);
        }
    }
}

pub(super) fn append_frame(out: &mut Vec<u8>, payload: &[u8]) {
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(payload);
}

fn first_word(frame: &[u8]) -> u64 {
    frame
        .first_chunk()
        .map_or(0, |word| u64::from_le_bytes(*word))
}

const PREFIX_BYTES: usize = 4;

/// Bytes of one read or write. Larger ones were no faster.
const BATCH_BYTES: usize = 64 << 10;

//! shmipc: streams of bytes in shared memory.
//!
//! Settings: protocol V4 with eventfd, which its documentation recommends for small messages, memory without a name, and slices
//! of the size of the message, a queue of 65,536 and 256 MiB of buffers, as in its own benchmark. Pipelined calls are streams of
//! one session, one for each call under way, as there.

use std::os::unix::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use shmipc::buffer::BufferReader as _;
use shmipc::config::{Config, SizePercentPair};
use shmipc::consts::MemMapType;
use shmipc::session::{SessionManager, SessionManagerConfig};
use shmipc::stream::Stream;
use shmipc::transport::{DefaultUnixConnect, DefaultUnixListen};
use shmipc::{Error, Listener};

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
    let (size_bytes, work) = (part.size_bytes, part.work);
    runtime(part)?.block_on(async move {
        let address = SocketAddr::from_pathname(part.socket())?;
        let mut listener = Listener::new(DefaultUnixListen, address, config(part)).await?;
        say_ready()?;
        loop {
            let stream = listener.accept().await?;
            tokio::spawn(async move {
                // A client that goes away ends its streams.
                _ = match work {
                    Work::OneWay => pour(stream, size_bytes).await,
                    _ => echo(stream, size_bytes).await,
                };
            });
        }
    })
}

async fn echo(mut stream: Stream, size_bytes: usize) -> anyhow::Result<()> {
    let mut message = Vec::with_capacity(size_bytes);
    loop {
        message.clear();
        message.extend_from_slice(&stream.read_exact_bytes(size_bytes).await?);
        stream.recv_buf().release_previous_read();
        send(&mut stream, &message).await?;
    }
}

async fn pour(mut stream: Stream, size_bytes: usize) -> anyhow::Result<()> {
    let mut message = stream.read_exact_bytes(size_bytes).await?.to_vec();
    for number in 0_u64.. {
        payload::stamp(&mut message, number);
        send(&mut stream, &message).await?;
    }
    Ok(())
}

async fn send(stream: &mut Stream, message: &[u8]) -> anyhow::Result<()> {
    let written = stream.write_bytes(message)?;
    ensure!(written == message.len(), "only a part was written");
    loop {
        match stream.flush(false).await {
            // What its own benchmark does then.
            Err(Error::QueueFull) => tokio::time::sleep(Duration::from_micros(1)).await,
            result => return Ok(result?),
        }
    }
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
    let address = SocketAddr::from_pathname(part.socket())?;
    let settings = SessionManagerConfig::new()
        .with_config(config(&part))
        .with_session_num(1);
    let sessions = SessionManager::new(settings, DefaultUnixConnect, address)
        .await
        .context("cannot connect")?;
    let calls = || anyhow::Ok(Calls::new(sessions.get_stream()?, part.size_bytes));
    match part.work {
        Work::RoundTrip => closed_loop_task(part.limit, calls()?).await,
        Work::Pipelined { window } => {
            let callers: anyhow::Result<_> = (0..window).map(|_| calls()).collect();
            all_at_once(callers?, part.limit).await
        }
        Work::OneWay => one_way(sessions.get_stream()?, &part).await,
        Work::Loaned | Work::Connections { .. } | Work::Processes { .. } | Work::Completion => {
            not_measured(&part)
        }
    }
}

/// Round trips one after the other.
struct Calls {
    stream: Stream,
    requests: Turn<Vec<u8>>,
}

impl Calls {
    fn new(stream: Stream, size_bytes: usize) -> Self {
        Self {
            stream,
            requests: Turn::new(|number| payload::message(size_bytes, number)),
        }
    }
}

impl Caller for Calls {
    async fn call(&mut self) -> anyhow::Result<()> {
        let request = self.requests.next();
        send(&mut self.stream, request).await?;
        let answer = self.stream.read_exact_bytes(request.len()).await?;
        payload::check(&answer, request)?;
        drop(answer);
        self.stream.release_read_and_reuse();
        Ok(())
    }
}

async fn one_way(mut stream: Stream, part: &Part) -> anyhow::Result<Figures> {
    let size_bytes = part.size_bytes;
    send(&mut stream, &payload::message(size_bytes, 0)).await?;
    let (mut counter, mut sequence) = (Counter::start(part.limit), Sequence::default());
    while counter.add(1) {
        sequence.handle(&stream.read_exact_bytes(size_bytes).await?);
        stream.recv_buf().release_previous_read();
    }
    sequence.finish()?;
    Ok(counter.finish())
}

fn config(part: &Part) -> Config {
    let slices = |size: usize, percent| SizePercentPair {
        size: (size + SLICE_HEADER_BYTES) as u32,
        percent,
    };
    Config {
        queue_cap: 65_536,
        share_memory_buffer_cap: 256 << 20,
        mem_map_type: MemMapType::MemMapTypeMemFd,
        share_memory_path_prefix: format!("/dev/shm/{}", part.token),
        queue_path: format!("/dev/shm/{}_queue", part.token),
        buffer_slice_sizes: vec![
            slices(part.size_bytes, 70),
            slices(16 << 10, 20),
            slices(64 << 10, 10),
        ],
        ..Config::default()
    }
    .with_v4_eventfd()
}

/// What its own benchmark adds to the size of a message.
const SLICE_HEADER_BYTES: usize = 256;

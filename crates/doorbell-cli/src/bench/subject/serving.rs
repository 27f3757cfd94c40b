//! The second process: a server that sends back, takes and pours out.

use std::hint::black_box;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;
use doorbell::server::{self, ServerStats};
use doorbell::{ByteStream, Raw, Server, Status, blocking};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;

use super::{Api, Report, Role, loans};
use crate::bench::case::pin_current_thread;
use crate::bench::peer::{Answer, Part};
use crate::echo::{Block, Body, Echo, Pour, PourFed, Take, Talk, Tell, Tunnel};

/// Starts the server.
///
/// # Errors
///
/// If the name cannot be bound.
pub(crate) fn play(role: Role, part: &Part) -> anyhow::Result<Answer> {
    let name = part
        .path
        .to_str()
        .context("the path of the socket is not UTF-8")?;
    let told = Told::default();
    match role.api {
        Api::Awaiting => {
            let runtime = runtime(part.cpu)?;
            let builder = pinned(
                Server::builder(name)
                    .spin(role.waiting.spin())
                    .trim_heap_when_quiet(),
                part.cpu,
            );
            let builder = with_handlers::<Block>(with_handlers::<Raw>(builder, &told), &told)
                .on(loans::answer)
                .on(loans::mirror)
                .on_bidi(|_context, _request: Tunnel, items, out| async move {
                    let answered = count_bytes(ByteStream::new(out, items)).await;
                    answered.map_err(|error| Status::internal(error.to_string()))
                });
            let server = runtime
                .block_on(builder.bind())
                .context("cannot start the server of the benchmark")?;
            Ok(answer(told, move || {
                let _is_kept = &runtime;
                server.stats()
            }))
        }
        Api::Blocking => {
            let mut builder = blocking::Server::builder(name)
                .spin(role.waiting.spin())
                .trim_heap_when_quiet();
            if let Some(cpu) = part.cpu {
                builder = builder.pin_workers([cpu]);
            }
            let builder = with_blocking_handlers::<Block>(
                with_blocking_handlers::<Raw>(builder, &told),
                &told,
            )
            .on(loans::answer_blocking)
            .on_bidi(|_context, _request: Tunnel, items, out| {
                let answered = count_bytes_blocking(blocking::ByteStream::new(out, items));
                answered.map_err(|error| Status::internal(error.to_string()))
            });
            let server = builder
                .bind()
                .context("cannot start the server of the benchmark")?;
            Ok(answer(told, move || server.stats()))
        }
    }
}

/// Counts notifications, and keeps the compiler from leaving out what is done with them.
#[derive(Clone, Default)]
struct Told(Arc<AtomicU64>);

impl Told {
    fn handle<B: Body>(&self, body: &B) {
        black_box(body.first_word());
        // One worker reads a connection, and a benchmark that looks at this number has one: nobody else writes.
        self.0
            .store(self.0.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }
}

fn answer(told: Told, stats: impl Fn() -> ServerStats + Send + 'static) -> Answer {
    Box::new(move || {
        let stats = stats();
        let report = Report {
            // A connection that sleeps makes none: the poll of its worker is the sleep of all.
            system_calls: stats.messages.notifies + stats.polls,
            told: told.0.load(Ordering::Relaxed),
        };
        Ok(serde_json::json!(report))
    })
}

fn pinned(builder: server::Builder, cpu: Option<usize>) -> server::Builder {
    match cpu {
        Some(cpu) => builder.pin_workers([cpu]),
        None => builder,
    }
}

fn with_handlers<B: Body>(builder: server::Builder, told: &Told) -> server::Builder {
    let told = told.clone();
    builder
        .on(|_context, request: Echo<B>| async move { Ok::<_, Status>(request.0) })
        .on_notify(move |_context, message: Tell<B>| {
            told.handle(&message.0);
            std::future::ready(())
        })
        .on_stream(|_context, request: Pour<B>, mut items| async move {
            let body = request.0;
            for number in 0_u64.. {
                items.send(body.stamped(number)).await?;
            }
            Ok::<_, Status>(())
        })
        .on_stream(|_context, request: PourFed<B>, mut items| async move {
            let body = request.0;
            for number in 0_u64.. {
                items.feed(body.stamped(number)).await?;
            }
            Ok::<_, Status>(())
        })
        .on_upload(|_context, _request: Take<B>, mut items| async move {
            let mut count = 0_u64;
            while let Some(item) = items.next().await {
                black_box(item?.first_word());
                count += 1;
            }
            Ok::<_, Status>(count)
        })
        .on_bidi(
            |_context, _request: Talk<B>, mut items, mut out| async move {
                while let Some(item) = items.next().await {
                    out.send(item?).await?;
                }
                Ok::<_, Status>(())
            },
        )
}

fn with_blocking_handlers<B: Body>(
    builder: blocking::ServerBuilder,
    told: &Told,
) -> blocking::ServerBuilder {
    let told = told.clone();
    builder
        .on(|_context, request: Echo<B>| Ok::<_, Status>(request.0))
        .on_notify(move |_context, message: Tell<B>| told.handle(&message.0))
        .on_stream(|_context, request: Pour<B>, mut items| {
            let body = request.0;
            for number in 0_u64.. {
                items.send(body.stamped(number))?;
            }
            Ok::<_, Status>(())
        })
        .on_stream(|_context, request: PourFed<B>, mut items| {
            let body = request.0;
            for number in 0_u64.. {
                items.feed(body.stamped(number))?;
            }
            Ok::<_, Status>(())
        })
        .on_upload(|_context, _request: Take<B>, items| {
            let mut count = 0_u64;
            for item in items {
                black_box(item?.first_word());
                count += 1;
            }
            Ok::<_, Status>(count)
        })
        .on_bidi(|_context, _request: Talk<B>, items, mut out| {
            for item in items {
                out.send(item?)?;
            }
            Ok::<_, Status>(())
        })
}

/// Reads to the end and answers with the number of bytes.
async fn count_bytes(mut stream: ByteStream) -> io::Result<()> {
    let (mut buffer, mut count) = (vec![0; READ_BYTES], 0);
    loop {
        match stream.read(&mut buffer).await? {
            0 => return stream.write_all(&u64::to_le_bytes(count)).await,
            more => count += more as u64,
        }
    }
}

/// The same on a thread.
fn count_bytes_blocking(mut stream: blocking::ByteStream) -> io::Result<()> {
    let (mut buffer, mut count) = (vec![0; READ_BYTES], 0);
    loop {
        match stream.read(&mut buffer)? {
            0 => return stream.write_all(&u64::to_le_bytes(count)),
            more => count += more as u64,
        }
    }
}

/// Returns the runtime that a program has by default, on one CPU if there is one to be on.
///
/// # Errors
///
/// If the system gives no threads.
pub(crate) fn runtime(cpu: Option<usize>) -> anyhow::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .on_thread_start(move || {
            // The same call has succeeded on other threads, and a runtime has no way to report it.
            _ = pin_current_thread(cpu);
        })
        .build()
        .context("cannot make a runtime")
}

/// Bytes that are read from a byte stream at once.
const READ_BYTES: usize = 64 << 10;

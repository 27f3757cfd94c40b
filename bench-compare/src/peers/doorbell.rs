//! Doorbell with tasks, with its default settings: the rows with which all others are compared that await.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, ensure};
use doorbell::{Client, Raw, Server, Status, server};

use super::doorbell_messages::{BLOCK_BYTES, Block, Body, CompletionRequest, Echo, Pour, Tell};
use super::runtime::{all_at_once, run, runtime};
use super::{Mode, not_measured};
use crate::clock::{Caller, Counter, Limit, closed_loop_task};
use crate::part::{Part, Work, say_ready_and_stay};
use crate::payload::{self, Sequence, Turn};
use crate::sample::Figures;

/// Serves until the process is ended.
///
/// # Errors
///
/// If the name cannot be bound.
pub(super) fn serve(part: &Part) -> anyhow::Result<()> {
    let runtime = runtime(part)?;
    let mut builder = Server::builder(part.socket_name()?);
    if let Some(cpu) = part.cpu {
        builder = builder.pin_workers([cpu]);
    }
    let builder = with_handlers::<Block>(with_handlers::<Raw>(builder))
        .on(|_context, request: CompletionRequest| async move { Ok::<_, Status>(request.reply()) });
    let _server = runtime.block_on(builder.bind())?;
    say_ready_and_stay()
}

fn with_handlers<B: Body>(builder: server::Builder) -> server::Builder {
    let told = Told::default();
    builder
        .on(|_context, request: Echo<B>| async move { Ok::<_, Status>(request.0) })
        .on_notify(move |_context, message: Tell<B>| {
            told.handle(&message.0);
            std::future::ready(())
        })
        .on_stream(|_context, request: Pour<B>, mut items| async move {
            let size_bytes = request.0.bytes().len();
            for number in 0_u64.. {
                items.feed(B::new(size_bytes, number)).await?;
            }
            Ok::<_, Status>(())
        })
}

/// Looks at notifications; what is wrong with one ends the server, and with it the measurement.
#[derive(Clone, Default)]
pub(super) struct Told(Arc<AtomicU64>);

impl Told {
    /// Handles the next notification, whose number is the count of those before it.
    pub(super) fn handle<B: Body>(&self, body: &B) {
        // One worker reads a connection, and these rows have one: nobody else writes.
        let expected = self.0.load(Ordering::Relaxed);
        if payload::ends(body.bytes()) != (expected, expected) {
            eprintln!("notification {expected} is not what was sent");
            std::process::exit(1);
        }
        self.0.store(expected + 1, Ordering::Relaxed);
    }
}

/// Measures as a client.
///
/// # Errors
///
/// If the server fails or answers something else than was sent.
pub(super) fn measure(part: &Part) -> anyhow::Result<Figures> {
    let runtime = runtime(part)?;
    let client = runtime
        .block_on(Client::connect(part.socket_name()?))
        .context("cannot connect")?;
    if part.mode == Mode::CurrentThread {
        // The runtime runs on this thread.
        part.pin()?;
    }
    let part = part.clone();
    if part.size_bytes == BLOCK_BYTES {
        run(&runtime, measure_bodies::<Block>(client, part))
    } else {
        run(&runtime, measure_bodies::<Raw>(client, part))
    }
}

async fn measure_bodies<B: Body>(client: Client, part: Part) -> anyhow::Result<Figures> {
    let (limit, size_bytes) = (part.limit, part.size_bytes);
    match part.work {
        Work::RoundTrip => closed_loop_task(limit, Calls::<B>::new(client, size_bytes)).await,
        Work::Completion => closed_loop_task(limit, Completions::new(client, size_bytes)).await,
        Work::Pipelined { window } => pipelined::<B>(client, limit, size_bytes, window).await,
        Work::OneWay if part.mode == Mode::MultiThreadNotify => {
            notifications::<B>(client, limit, size_bytes).await
        }
        Work::OneWay => stream::<B>(client, limit, size_bytes).await,
        Work::Connections { count } => {
            let mut callers = vec![Calls::<B>::new(client, size_bytes)];
            while callers.len() < count {
                let client = Client::connect(part.socket_name()?).await?;
                callers.push(Calls::new(client, size_bytes));
            }
            all_at_once(callers, limit).await
        }
        Work::Loaned | Work::Processes { .. } => not_measured(&part),
    }
}

/// Calls one after the other.
struct Calls<B> {
    client: Client,
    requests: Turn<B>,
}

impl<B: Body> Calls<B> {
    fn new(client: Client, size_bytes: usize) -> Self {
        Self {
            client,
            requests: Turn::new(|number| B::new(size_bytes, number)),
        }
    }
}

impl<B: Body> Caller for Calls<B> {
    async fn call(&mut self) -> anyhow::Result<()> {
        let request = self.requests.next();
        let reply = self.client.call(Echo(request.clone())).await?;
        payload::check(reply.bytes(), request.bytes())
    }
}

/// Typed calls one after the other. What a reply brings back is the next request, so that nothing is copied on the way.
struct Completions {
    client: Client,
    requests: VecDeque<CompletionRequest>,
}

impl Completions {
    fn new(client: Client, size_bytes: usize) -> Self {
        let requests = (1..=4).map(|number| CompletionRequest::new(size_bytes, number));
        Self {
            client,
            requests: requests.collect(),
        }
    }
}

impl Caller for Completions {
    async fn call(&mut self) -> anyhow::Result<()> {
        let request = self
            .requests
            .pop_front()
            .context("a call has failed before")?;
        let sent = request.seal();
        let reply = self.client.call(request).await?;
        self.requests.push_back(reply.open(sent)?);
        Ok(())
    }
}

async fn pipelined<B: Body>(
    client: Client,
    limit: Limit,
    size_bytes: usize,
    window: usize,
) -> anyhow::Result<Figures> {
    let mut requests = Turn::new(|number| B::new(size_bytes, number));
    let mut under_way = VecDeque::with_capacity(window);
    let mut counter = Counter::start(limit);
    loop {
        while under_way.len() < window {
            let request = requests.next().clone();
            let reply = client.call(Echo(request.clone())).send().await?;
            under_way.push_back((request, reply));
        }
        let Some((sent, reply)) = under_way.pop_front() else {
            continue;
        };
        payload::check(reply.await?.bytes(), sent.bytes())?;
        if !counter.add(1) {
            return Ok(counter.finish());
        }
    }
}

async fn stream<B: Body>(
    client: Client,
    limit: Limit,
    size_bytes: usize,
) -> anyhow::Result<Figures> {
    let mut items = client.stream(Pour(B::new(size_bytes, 0))).await?;
    let (mut counter, mut sequence) = (Counter::start(limit), Sequence::default());
    while counter.add(1) {
        let item = items.next().await.context("the stream has ended")??;
        sequence.handle(item.bytes());
    }
    sequence.finish()?;
    Ok(counter.finish())
}

/// Notifications that are handed over in one go.
pub(super) const TOGETHER: u64 = 1000;

async fn notifications<B: Body>(
    client: Client,
    limit: Limit,
    size_bytes: usize,
) -> anyhow::Result<Figures> {
    let (mut counter, mut number) = (Counter::start(limit), 0);
    loop {
        let together = (number..number + TOGETHER).map(|number| Tell(B::new(size_bytes, number)));
        client.notify_all(together).await?;
        number += TOGETHER;
        if !counter.add(TOGETHER) {
            break;
        }
    }
    // When this is answered, everything before it has been handled.
    let last = client.call(Echo(B::new(size_bytes, number))).await?;
    ensure!(
        last.bytes().len() == size_bytes,
        "the echo has another size"
    );
    Ok(counter.finish())
}

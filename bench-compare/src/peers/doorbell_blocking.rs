//! Doorbell with threads: with its default settings, or always spinning where the rivals do.

use std::collections::VecDeque;

use anyhow::{Context as _, ensure};
use doorbell::blocking::{Client, Server, ServerBuilder};
use doorbell::{Raw, Spin, Status};

use super::doorbell::{TOGETHER, Told};
use super::doorbell_messages::{BLOCK_BYTES, Block, Body, Echo, Pour, Tell};
use super::{Mode, doorbell_loans, not_measured};
use crate::clock::{Counter, closed_loop};
use crate::part::{Part, Work, say_ready_and_stay};
use crate::payload::{self, Sequence, Turn};
use crate::sample::Figures;

/// Serves until the process is ended.
///
/// # Errors
///
/// If the name cannot be bound.
pub(super) fn serve(part: &Part) -> anyhow::Result<()> {
    let mut builder = Server::builder(part.socket_name()?).spin(spin(part));
    if let Some(cpu) = part.cpu {
        builder = builder.pin_workers([cpu]);
    }
    let builder = doorbell_loans::with_handler(builder);
    let _server = with_handlers::<Block>(with_handlers::<Raw>(builder)).bind()?;
    say_ready_and_stay()
}

fn with_handlers<B: Body>(builder: ServerBuilder) -> ServerBuilder {
    let told = Told::default();
    builder
        .on(|_context, request: Echo<B>| Ok::<_, Status>(request.0))
        .on_notify(move |_context, message: Tell<B>| told.handle(&message.0))
        .on_stream(|_context, request: Pour<B>, mut items| {
            let size_bytes = request.0.bytes().len();
            for number in 0_u64.. {
                items.feed(B::new(size_bytes, number))?;
            }
            Ok::<_, Status>(())
        })
}

/// Measures as a client.
///
/// # Errors
///
/// If the server fails or answers something else than was sent.
pub(super) fn measure(part: &Part) -> anyhow::Result<Figures> {
    if part.size_bytes == BLOCK_BYTES {
        measure_bodies::<Block>(part)
    } else {
        measure_bodies::<Raw>(part)
    }
}

/// Connects and returns what makes one call.
///
/// # Errors
///
/// If there is no server.
pub(super) fn caller(part: &Part) -> anyhow::Result<impl FnMut() -> anyhow::Result<()> + use<>> {
    let client = connect(part)?;
    let mut requests = Turn::new(|number| Block::new(BLOCK_BYTES, number));
    Ok(move || call(&client, &mut requests))
}

fn measure_bodies<B: Body>(part: &Part) -> anyhow::Result<Figures> {
    let client = connect(part)?;
    match part.work {
        Work::RoundTrip => {
            let mut requests = Turn::new(|number| B::new(part.size_bytes, number));
            closed_loop(part.limit, || call(&client, &mut requests))
        }
        Work::Loaned => doorbell_loans::round_trips(&client, part),
        Work::Pipelined { window } => pipelined::<B>(&client, part, window),
        Work::OneWay if part.mode == Mode::BlockingNotify => notifications::<B>(&client, part),
        Work::OneWay => stream::<B>(&client, part),
        Work::Connections { .. } | Work::Processes { .. } | Work::Completion => not_measured(part),
    }
}

fn connect(part: &Part) -> anyhow::Result<Client> {
    let client = Client::builder(part.socket_name()?)
        .spin(spin(part))
        .connect()
        .context("cannot connect")?;
    // Not before: a process that may use one CPU only does not spin at all.
    part.pin()?;
    Ok(client)
}

fn spin(part: &Part) -> Spin {
    match part.mode {
        Mode::Spinning => Spin::Always,
        _ => Spin::Adaptive,
    }
}

fn call<B: Body>(client: &Client, requests: &mut Turn<B>) -> anyhow::Result<()> {
    let request = requests.next();
    let reply = client.call(Echo(request.clone())).wait()?;
    payload::check(reply.bytes(), request.bytes())
}

fn pipelined<B: Body>(client: &Client, part: &Part, window: usize) -> anyhow::Result<Figures> {
    let mut requests = Turn::new(|number| B::new(part.size_bytes, number));
    let mut under_way = VecDeque::with_capacity(window);
    let mut counter = Counter::start(part.limit);
    loop {
        while under_way.len() < window {
            let request = requests.next().clone();
            let reply = client.call(Echo(request.clone())).send()?;
            under_way.push_back((request, reply));
        }
        let Some((sent, reply)) = under_way.pop_front() else {
            continue;
        };
        payload::check(reply.wait()?.bytes(), sent.bytes())?;
        if !counter.add(1) {
            return Ok(counter.finish());
        }
    }
}

fn stream<B: Body>(client: &Client, part: &Part) -> anyhow::Result<Figures> {
    let mut items = client.stream(Pour(B::new(part.size_bytes, 0))).open()?;
    let (mut counter, mut sequence) = (Counter::start(part.limit), Sequence::default());
    while counter.add(1) {
        let item = items.next().context("the stream has ended")??;
        sequence.handle(item.bytes());
    }
    sequence.finish()?;
    Ok(counter.finish())
}

fn notifications<B: Body>(client: &Client, part: &Part) -> anyhow::Result<Figures> {
    let (mut counter, mut number) = (Counter::start(part.limit), 0);
    while counter.add(TOGETHER) {
        let together =
            (number..number + TOGETHER).map(|number| Tell(B::new(part.size_bytes, number)));
        client.notify_all(together)?;
        number += TOGETHER;
    }
    // When this is answered, everything before it has been handled.
    let last = client.call(Echo(B::new(part.size_bytes, number))).wait()?;
    ensure!(
        last.bytes().len() == part.size_bytes,
        "the echo has another size"
    );
    Ok(counter.finish())
}

//! Tasks: the interface with `await`, on a multi-thread runtime with its usual settings.

use std::collections::VecDeque;

use anyhow::{Context as _, ensure};
use doorbell::{Client, NotifyError, Raw};
use tokio::runtime::Runtime;

use super::serving::runtime;
use super::{Api, BESIDE_BYTES, ServedBy, TOGETHER};
use crate::bench::case::Setting;
use crate::bench::clock::{Counter, Laps};
use crate::bench::sample::Sample;
use crate::echo::{Block, Body, Echo, Tell};

/// Times calls one after the other.
///
/// # Errors
///
/// If the server fails.
pub(crate) fn round_trips(setting: &Setting) -> anyhow::Result<Sample> {
    Session::start(setting)?.run(call_one_by_one)
}

/// Times calls one after the other while another task makes large ones on the same connection.
///
/// # Errors
///
/// If the server fails.
pub(crate) fn round_trips_beside_large(setting: &Setting) -> anyhow::Result<Sample> {
    Session::start(setting)?.run(call_beside_large)
}

/// As [`round_trips`], with all tasks on one thread.
///
/// # Errors
///
/// If the server fails.
pub(crate) fn round_trips_of_one_thread(setting: &Setting) -> anyhow::Result<Sample> {
    Session::start_on_one_thread(setting)?.run(call_one_by_one)
}

/// As [`round_trips_beside_large`], with all tasks on one thread.
///
/// # Errors
///
/// If the server fails.
pub(crate) fn round_trips_of_one_thread_beside_large(setting: &Setting) -> anyhow::Result<Sample> {
    Session::start_on_one_thread(setting)?.run(call_beside_large)
}

/// Counts calls with a full window.
///
/// # Errors
///
/// If the server fails.
pub(crate) fn pipelined(setting: &Setting) -> anyhow::Result<Sample> {
    Session::start(setting)?.run(match setting.size_bytes {
        Block::BYTES => |client, setting| Box::pin(window_of_calls::<Block>(client, setting)),
        _ => |client, setting| Box::pin(window_of_calls::<Raw>(client, setting)),
    })
}

/// Counts calls that are made in one go, as many under way as the window allows.
///
/// # Errors
///
/// If the server fails.
pub(crate) fn calls_together(setting: &Setting) -> anyhow::Result<Sample> {
    Session::start(setting)?.run(match setting.size_bytes {
        Block::BYTES => |client, setting| Box::pin(all_in_one_go::<Block>(client, setting)),
        _ => |client, setting| Box::pin(all_in_one_go::<Raw>(client, setting)),
    })
}

/// Counts notifications, all of which the server has handled at the end.
///
/// # Errors
///
/// If the server fails.
pub(crate) fn notifies(setting: &Setting) -> anyhow::Result<Sample> {
    Session::start(setting)?.run(match setting.size_bytes {
        Block::BYTES => |client, setting| Box::pin(tell::<Block>(client, setting)),
        _ => |client, setting| Box::pin(tell::<Raw>(client, setting)),
    })
}

/// As [`notifies`], handed over by the thousand.
///
/// # Errors
///
/// If the server fails.
pub(crate) fn notifies_together(setting: &Setting) -> anyhow::Result<Sample> {
    Session::start(setting)?.run(match setting.size_bytes {
        Block::BYTES => |client, setting| Box::pin(tell_all::<Block>(client, setting)),
        _ => |client, setting| Box::pin(tell_all::<Raw>(client, setting)),
    })
}

/// A connected client on a runtime of its own.
pub(super) struct Session {
    client: Client,
    runtime: Runtime,
    server: ServedBy,
    setting: Setting,
}

pub(super) type Measured = std::pin::Pin<Box<dyn Future<Output = anyhow::Result<Sample>> + Send>>;

impl Session {
    pub(super) fn start(setting: &Setting) -> anyhow::Result<Self> {
        let server = ServedBy::start(setting, Api::Awaiting)?;
        Self::connect(setting, server, runtime(setting.client_cpu())?)
    }

    /// The thread is the calling one.
    fn start_on_one_thread(setting: &Setting) -> anyhow::Result<Self> {
        let server = ServedBy::start(setting, Api::Awaiting)?;
        setting.pin_client()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot make a runtime")?;
        Self::connect(setting, server, runtime)
    }

    fn connect(setting: &Setting, server: ServedBy, runtime: Runtime) -> anyhow::Result<Self> {
        let client = runtime
            .block_on(
                Client::builder(server.name()?)
                    .spin(setting.waiting.spin())
                    .connect(),
            )
            .context("cannot connect")?;
        Ok(Self {
            setting: *setting,
            server,
            runtime,
            client,
        })
    }

    /// Runs `measure` as a task, as a program's own tasks run.
    pub(super) fn run(
        mut self,
        measure: fn(Client, Setting) -> Measured,
    ) -> anyhow::Result<Sample> {
        let (runtime, client, setting) = (&self.runtime, &self.client, self.setting);
        self.server.count_cost(
            || client.stats(),
            || runtime.block_on(runtime.spawn(measure(client.clone(), setting)))?,
        )
    }
}

fn call_one_by_one(client: Client, setting: Setting) -> Measured {
    match setting.size_bytes {
        Block::BYTES => Box::pin(call_by_call::<Block>(client, setting)),
        _ => Box::pin(call_by_call::<Raw>(client, setting)),
    }
}

fn call_beside_large(client: Client, setting: Setting) -> Measured {
    Box::pin(async move {
        let beside = client.clone();
        let large = tokio::spawn(async move {
            let body = Raw::of_size(BESIDE_BYTES);
            loop {
                if let Err(error) = beside.call(Echo(body.clone())).await {
                    return error;
                }
            }
        });
        let sample = call_one_by_one(client, setting).await;
        ensure!(!large.is_finished(), "a large call has failed");
        large.abort();
        sample
    })
}

async fn call_by_call<B: Body>(client: Client, setting: Setting) -> anyhow::Result<Sample> {
    let (mut body, mut number) = (B::of_size(setting.size_bytes), 0);
    let mut laps = Laps::start(setting.limit);
    loop {
        laps.pause_task().await;
        number += 1;
        body.stamp(number);
        let reply = client.call(Echo(body.clone())).await?;
        ensure!(
            reply.first_word() == body.first_word(),
            "the echo is not what was sent"
        );
        ensure!(
            reply.bytes().len() == setting.size_bytes,
            "the echo has another size than was sent"
        );
        if !laps.end_lap() {
            return Ok(laps.finish(setting.size_bytes));
        }
    }
}

async fn window_of_calls<B: Body>(client: Client, setting: Setting) -> anyhow::Result<Sample> {
    let (body, mut number) = (B::of_size(setting.size_bytes), 0);
    let mut under_way = VecDeque::with_capacity(setting.window);
    let mut counter = Counter::start(setting.limit);
    loop {
        while under_way.len() < setting.window {
            number += 1;
            let request = body.stamped(number);
            under_way.push_back((
                request.first_word(),
                client.call(Echo(request)).send().await?,
            ));
        }
        let Some((sent, reply)) = under_way.pop_front() else {
            continue;
        };
        ensure!(
            reply.await?.first_word() == sent,
            "the echo is not what was sent"
        );
        if !counter.add(1) {
            return Ok(counter.finish(setting.size_bytes));
        }
    }
}

async fn all_in_one_go<B: Body>(client: Client, setting: Setting) -> anyhow::Result<Sample> {
    let (body, mut number) = (B::of_size(setting.size_bytes), 0);
    let mut expected = body.clone();
    let messages = std::iter::repeat_with(|| {
        number += 1;
        Echo(body.stamped(number))
    });
    let mut replies = client.call_all(messages).window(setting.window).await?;
    let (mut counter, mut number) = (Counter::start(setting.limit), 0);
    while let Some(reply) = replies.next().await {
        number += 1;
        expected.stamp(number);
        ensure!(
            reply?.first_word() == expected.first_word(),
            "the echo is not what was sent"
        );
        if !counter.add(1) {
            break;
        }
    }
    drop(replies); // it borrows what the messages are made of
    Ok(counter.finish(setting.size_bytes))
}

async fn tell_all<B: Body>(client: Client, setting: Setting) -> anyhow::Result<Sample> {
    let body = B::of_size(setting.size_bytes);
    let mut counter = Counter::start(setting.limit);
    loop {
        let numbered = (0..TOGETHER).map(|number| Tell(body.stamped(number)));
        client.notify_all(numbered).await?;
        if !counter.add(TOGETHER) {
            break;
        }
    }
    client.call(Echo(body)).await?;
    Ok(counter.finish(setting.size_bytes))
}

async fn tell<B: Body>(client: Client, setting: Setting) -> anyhow::Result<Sample> {
    let body = B::of_size(setting.size_bytes);
    let (mut counter, mut number) = (Counter::start(setting.limit), 0);
    loop {
        match client.notify(Tell(body.stamped(number))) {
            Ok(()) => number += 1,
            Err(NotifyError::Full { .. }) => {
                client.writable().await?;
                continue;
            }
            Err(error) => return Err(error.into()),
        }
        if !counter.add(1) {
            break;
        }
    }
    // When this is answered, everything before it has been handled.
    client.call(Echo(body)).await?;
    Ok(counter.finish(setting.size_bytes))
}

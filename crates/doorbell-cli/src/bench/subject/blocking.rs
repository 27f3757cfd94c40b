//! Threads: the interface that needs no runtime.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context as _, ensure};
use doorbell::Raw;
use doorbell::blocking::Client;

use super::{Api, BESIDE_BYTES, ServedBy, TOGETHER};
use crate::bench::case::Setting;
use crate::bench::clock::{Counter, closed_loop};
use crate::bench::sample::Sample;
use crate::echo::{Block, Body, Echo, Tell};

/// Times calls one after the other; both sides wait as the row says.
///
/// # Errors
///
/// If the server fails.
pub(crate) fn round_trips(setting: &Setting) -> anyhow::Result<Sample> {
    Session::start(setting)?.run(match setting.size_bytes {
        Block::BYTES => call_by_call::<Block>,
        _ => call_by_call::<Raw>,
    })
}

/// Times calls one after the other while another thread makes large ones on the same connection.
///
/// # Errors
///
/// If the server fails.
pub(crate) fn round_trips_beside_large(setting: &Setting) -> anyhow::Result<Sample> {
    Session::start(setting)?.run(|client, setting| {
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let large = scope.spawn(|| {
                let body = Raw::of_size(BESIDE_BYTES);
                while !over.load(Ordering::Relaxed) {
                    client.call(Echo(body.clone())).wait()?;
                }
                anyhow::Ok(())
            });
            let sample = match setting.size_bytes {
                Block::BYTES => call_by_call::<Block>(client, setting),
                _ => call_by_call::<Raw>(client, setting),
            };
            over.store(true, Ordering::Relaxed);
            large.join().expect("the other thread does not panic")?;
            sample
        })
    })
}

/// Counts calls with a full window.
///
/// # Errors
///
/// If the server fails.
pub(crate) fn pipelined(setting: &Setting) -> anyhow::Result<Sample> {
    Session::start(setting)?.run(match setting.size_bytes {
        Block::BYTES => window_of_calls::<Block>,
        _ => window_of_calls::<Raw>,
    })
}

/// Counts calls that are made in one go, as many under way as the window allows.
///
/// # Errors
///
/// If the server fails.
pub(crate) fn calls_together(setting: &Setting) -> anyhow::Result<Sample> {
    Session::start(setting)?.run(match setting.size_bytes {
        Block::BYTES => all_in_one_go::<Block>,
        _ => all_in_one_go::<Raw>,
    })
}

/// Counts notifications, all of which the server has handled at the end.
///
/// # Errors
///
/// If the server fails.
pub(crate) fn notifies(setting: &Setting) -> anyhow::Result<Sample> {
    Session::start(setting)?.run(match setting.size_bytes {
        Block::BYTES => tell::<Block>,
        _ => tell::<Raw>,
    })
}

/// As [`notifies`], handed over by the thousand.
///
/// # Errors
///
/// If the server fails.
pub(crate) fn notifies_together(setting: &Setting) -> anyhow::Result<Sample> {
    Session::start(setting)?.run(match setting.size_bytes {
        Block::BYTES => tell_all::<Block>,
        _ => tell_all::<Raw>,
    })
}

/// A connected client.
pub(super) struct Session {
    client: Client,
    server: ServedBy,
    setting: Setting,
}

impl Session {
    pub(super) fn start(setting: &Setting) -> anyhow::Result<Self> {
        let server = ServedBy::start(setting, Api::Blocking)?;
        let client = Client::builder(server.name()?)
            .spin(setting.waiting.spin())
            .connect()
            .context("cannot connect")?;
        setting.pin_client()?;
        Ok(Self {
            client,
            server,
            setting: *setting,
        })
    }

    pub(super) fn run(
        mut self,
        measure: fn(&Client, &Setting) -> anyhow::Result<Sample>,
    ) -> anyhow::Result<Sample> {
        let (client, setting) = (&self.client, &self.setting);
        self.server
            .count_cost(|| client.stats(), || measure(client, setting))
    }
}

pub(crate) fn call_by_call<B: Body>(client: &Client, setting: &Setting) -> anyhow::Result<Sample> {
    let (mut body, mut number) = (B::of_size(setting.size_bytes), 0);
    closed_loop(setting.limit, setting.size_bytes, || {
        number += 1;
        body.stamp(number);
        let reply = client.call(Echo(body.clone())).wait()?;
        ensure!(
            reply.first_word() == body.first_word(),
            "the echo is not what was sent"
        );
        ensure!(
            reply.bytes().len() == setting.size_bytes,
            "the echo has another size than was sent"
        );
        Ok(())
    })
}

pub(crate) fn window_of_calls<B: Body>(
    client: &Client,
    setting: &Setting,
) -> anyhow::Result<Sample> {
    let (body, mut number) = (B::of_size(setting.size_bytes), 0);
    let mut under_way = VecDeque::with_capacity(setting.window);
    let mut counter = Counter::start(setting.limit);
    loop {
        while under_way.len() < setting.window {
            number += 1;
            let request = body.stamped(number);
            under_way.push_back((request.first_word(), client.call(Echo(request)).send()?));
        }
        let Some((sent, reply)) = under_way.pop_front() else {
            continue;
        };
        ensure!(
            reply.wait()?.first_word() == sent,
            "the echo is not what was sent"
        );
        if !counter.add(1) {
            return Ok(counter.finish(setting.size_bytes));
        }
    }
}

fn all_in_one_go<B: Body>(client: &Client, setting: &Setting) -> anyhow::Result<Sample> {
    let (body, mut number) = (B::of_size(setting.size_bytes), 0);
    let mut expected = body.clone();
    let messages = std::iter::repeat_with(|| {
        number += 1;
        Echo(body.stamped(number))
    });
    let replies = client.call_all(messages).window(setting.window).open()?;
    let mut counter = Counter::start(setting.limit);
    for (number, reply) in (1..).zip(replies) {
        expected.stamp(number);
        ensure!(
            reply?.first_word() == expected.first_word(),
            "the echo is not what was sent"
        );
        if !counter.add(1) {
            break;
        }
    }
    Ok(counter.finish(setting.size_bytes))
}

fn tell_all<B: Body>(client: &Client, setting: &Setting) -> anyhow::Result<Sample> {
    let body = B::of_size(setting.size_bytes);
    let mut counter = Counter::start(setting.limit);
    loop {
        client.notify_all((0..TOGETHER).map(|number| Tell(body.stamped(number))))?;
        if !counter.add(TOGETHER) {
            break;
        }
    }
    client.call(Echo(body)).wait()?;
    Ok(counter.finish(setting.size_bytes))
}

fn tell<B: Body>(client: &Client, setting: &Setting) -> anyhow::Result<Sample> {
    let body = B::of_size(setting.size_bytes);
    let (mut counter, mut number) = (Counter::start(setting.limit), 0);
    while counter.add(1) {
        number += 1;
        client.notify(Tell(body.stamped(number)))?;
    }
    // When this is answered, everything before it has been handled.
    client.call(Echo(body)).wait()?;
    Ok(counter.finish(setting.size_bytes))
}

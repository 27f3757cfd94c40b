//! Streams and bytes as threads use them.

use std::hint::black_box;
use std::io::{Read, Write};
use std::thread;

use anyhow::{Context as _, ensure};
use doorbell::Raw;
use doorbell::blocking::{ByteStream, Client, ItemStream};

use super::blocking::Session;
use crate::bench::case::Setting;
use crate::bench::clock::Counter;
use crate::bench::sample::Sample;
use crate::echo::{Block, Body, Pour, PourFed, Take, Talk, Tunnel};

/// Counts the items of one stream from the server.
///
/// # Errors
///
/// If the server fails.
pub(crate) fn from_server(setting: &Setting) -> anyhow::Result<Sample> {
    Session::start(setting)?.run(match setting.size_bytes {
        Block::BYTES => poured::<Block>,
        _ => poured::<Raw>,
    })
}

/// Counts the items of one stream to the server, all of which it has handled at the end.
///
/// # Errors
///
/// If the server fails.
pub(crate) fn from_client(setting: &Setting) -> anyhow::Result<Sample> {
    Session::start(setting)?.run(match setting.size_bytes {
        Block::BYTES => taken::<Block>,
        _ => taken::<Raw>,
    })
}

/// As [`from_server`], with small items collected into frames.
///
/// # Errors
///
/// If the server fails.
pub(crate) fn fed_from_server(setting: &Setting) -> anyhow::Result<Sample> {
    Session::start(setting)?.run(match setting.size_bytes {
        Block::BYTES => poured_fed::<Block>,
        _ => poured_fed::<Raw>,
    })
}

/// As [`from_client`], with small items collected into frames.
///
/// # Errors
///
/// If the server fails.
pub(crate) fn fed_from_client(setting: &Setting) -> anyhow::Result<Sample> {
    Session::start(setting)?.run(match setting.size_bytes {
        Block::BYTES => taken_fed::<Block>,
        _ => taken_fed::<Raw>,
    })
}

/// Counts items that have come back through the other direction of their call.
///
/// # Errors
///
/// If the server fails.
pub(crate) fn both_ways(setting: &Setting) -> anyhow::Result<Sample> {
    Session::start(setting)?.run(match setting.size_bytes {
        Block::BYTES => talk::<Block>,
        _ => talk::<Raw>,
    })
}

/// Counts pieces of a stream of bytes, all of which the server has read at the end.
///
/// # Errors
///
/// If the server fails.
pub(crate) fn bytes(setting: &Setting) -> anyhow::Result<Sample> {
    Session::start(setting)?.run(write)
}

fn poured<B: Body>(client: &Client, setting: &Setting) -> anyhow::Result<Sample> {
    let stream = client.stream(Pour(B::of_size(setting.size_bytes))).open()?;
    count_items(stream, setting)
}

fn poured_fed<B: Body>(client: &Client, setting: &Setting) -> anyhow::Result<Sample> {
    let request = PourFed(B::of_size(setting.size_bytes));
    count_items(client.stream(request).open()?, setting)
}

fn count_items<B: Body>(mut stream: ItemStream<B>, setting: &Setting) -> anyhow::Result<Sample> {
    let mut counter = Counter::start(setting.limit);
    while counter.add(1) {
        let item = stream.next().context("the stream has ended")??;
        black_box(item.first_word());
    }
    Ok(counter.finish(setting.size_bytes))
}

fn taken<B: Body>(client: &Client, setting: &Setting) -> anyhow::Result<Sample> {
    let (body, mut sent) = (B::of_size(setting.size_bytes), 0);
    let mut stream = client.upload(Take(body.clone())).open()?;
    let mut counter = Counter::start(setting.limit);
    while counter.add(1) {
        sent += 1;
        stream.send(body.stamped(sent))?;
    }
    ensure!(
        stream.finish()? == sent,
        "the server has counted something else than was sent"
    );
    Ok(counter.finish(setting.size_bytes))
}

fn taken_fed<B: Body>(client: &Client, setting: &Setting) -> anyhow::Result<Sample> {
    let (body, mut sent) = (B::of_size(setting.size_bytes), 0);
    let mut stream = client.upload(Take(body.clone())).open()?;
    let mut counter = Counter::start(setting.limit);
    while counter.add(1) {
        sent += 1;
        stream.feed(body.stamped(sent))?;
    }
    ensure!(
        stream.finish()? == sent,
        "the server has not taken every item"
    );
    Ok(counter.finish(setting.size_bytes))
}

fn talk<B: Body>(client: &Client, setting: &Setting) -> anyhow::Result<Sample> {
    let mut body = B::of_size(setting.size_bytes);
    let (mut sender, mut items) = client.bidi(Talk(body.clone())).open()?;
    let said = body.clone();
    thread::scope(|scope| {
        scope.spawn(move || {
            for number in 1.. {
                // It ends when nobody listens any more.
                if sender.send(said.stamped(number)).is_err() {
                    return;
                }
            }
        });
        let (mut counter, mut number) = (Counter::start(setting.limit), 0);
        while counter.add(1) {
            let item = items.next().context("the stream has ended")??;
            number += 1;
            body.stamp(number);
            ensure!(
                item.first_word() == body.first_word() && item.bytes().len() == setting.size_bytes,
                "an item is not what was sent"
            );
        }
        drop(items);
        Ok(counter.finish(setting.size_bytes))
    })
}

fn write(client: &Client, setting: &Setting) -> anyhow::Result<Sample> {
    let mut stream = ByteStream::from(client.bidi(Tunnel).open()?);
    let piece = vec![0x5A; setting.size_bytes];
    let (mut counter, mut written) = (Counter::start(setting.limit), 0);
    while counter.add(1) {
        stream.write_all(&piece)?;
        written += piece.len() as u64;
    }
    stream.shutdown()?;
    let mut answer = [0; 8];
    stream.read_exact(&mut answer)?;
    ensure!(
        u64::from_le_bytes(answer) == written,
        "the server has read something else than was written"
    );
    Ok(counter.finish(setting.size_bytes))
}

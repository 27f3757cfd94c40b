//! Streams and bytes as tasks use them.

use std::hint::black_box;

use anyhow::{Context as _, ensure};
use doorbell::{ByteStream, Client, ItemStream, Raw};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::awaiting::Session;
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
        Block::BYTES => |client, setting| Box::pin(poured::<Block>(client, setting)),
        _ => |client, setting| Box::pin(poured::<Raw>(client, setting)),
    })
}

/// Counts the items of one stream to the server, all of which it has handled at the end.
///
/// # Errors
///
/// If the server fails.
pub(crate) fn from_client(setting: &Setting) -> anyhow::Result<Sample> {
    Session::start(setting)?.run(match setting.size_bytes {
        Block::BYTES => |client, setting| Box::pin(taken::<Block>(client, setting)),
        _ => |client, setting| Box::pin(taken::<Raw>(client, setting)),
    })
}

/// As [`from_server`], with small items collected into frames.
///
/// # Errors
///
/// If the server fails.
pub(crate) fn fed_from_server(setting: &Setting) -> anyhow::Result<Sample> {
    Session::start(setting)?.run(match setting.size_bytes {
        Block::BYTES => |client, setting| Box::pin(poured_fed::<Block>(client, setting)),
        _ => |client, setting| Box::pin(poured_fed::<Raw>(client, setting)),
    })
}

/// As [`from_client`], with small items collected into frames.
///
/// # Errors
///
/// If the server fails.
pub(crate) fn fed_from_client(setting: &Setting) -> anyhow::Result<Sample> {
    Session::start(setting)?.run(match setting.size_bytes {
        Block::BYTES => |client, setting| Box::pin(taken_fed::<Block>(client, setting)),
        _ => |client, setting| Box::pin(taken_fed::<Raw>(client, setting)),
    })
}

/// Counts items that have come back through the other direction of their call.
///
/// # Errors
///
/// If the server fails.
pub(crate) fn both_ways(setting: &Setting) -> anyhow::Result<Sample> {
    Session::start(setting)?.run(match setting.size_bytes {
        Block::BYTES => |client, setting| Box::pin(talk::<Block>(client, setting)),
        _ => |client, setting| Box::pin(talk::<Raw>(client, setting)),
    })
}

/// Counts pieces of a stream of bytes, all of which the server has read at the end.
///
/// # Errors
///
/// If the server fails.
pub(crate) fn bytes(setting: &Setting) -> anyhow::Result<Sample> {
    Session::start(setting)?.run(|client, setting| Box::pin(write(client, setting)))
}

async fn poured<B: Body>(client: Client, setting: Setting) -> anyhow::Result<Sample> {
    let stream = client.stream(Pour(B::of_size(setting.size_bytes))).await?;
    count_items(stream, &setting).await
}

async fn poured_fed<B: Body>(client: Client, setting: Setting) -> anyhow::Result<Sample> {
    let request = PourFed(B::of_size(setting.size_bytes));
    count_items(client.stream(request).await?, &setting).await
}

async fn count_items<B: Body>(
    mut stream: ItemStream<B>,
    setting: &Setting,
) -> anyhow::Result<Sample> {
    let mut counter = Counter::start(setting.limit);
    while counter.add(1) {
        let item = stream.next().await.context("the stream has ended")??;
        black_box(item.first_word());
    }
    Ok(counter.finish(setting.size_bytes))
}

async fn taken<B: Body>(client: Client, setting: Setting) -> anyhow::Result<Sample> {
    let (body, mut sent) = (B::of_size(setting.size_bytes), 0);
    let mut stream = client.upload(Take(body.clone())).await?;
    let mut counter = Counter::start(setting.limit);
    while counter.add(1) {
        sent += 1;
        stream.send(body.stamped(sent)).await?;
    }
    ensure!(
        stream.finish().await? == sent,
        "the server has counted something else than was sent"
    );
    Ok(counter.finish(setting.size_bytes))
}

async fn taken_fed<B: Body>(client: Client, setting: Setting) -> anyhow::Result<Sample> {
    let (body, mut sent) = (B::of_size(setting.size_bytes), 0);
    let mut stream = client.upload(Take(body.clone())).await?;
    let mut counter = Counter::start(setting.limit);
    while counter.add(1) {
        sent += 1;
        stream.feed(body.stamped(sent)).await?;
    }
    ensure!(
        stream.finish().await? == sent,
        "the server has not taken every item"
    );
    Ok(counter.finish(setting.size_bytes))
}

async fn talk<B: Body>(client: Client, setting: Setting) -> anyhow::Result<Sample> {
    let mut body = B::of_size(setting.size_bytes);
    let (mut sender, mut items) = client.bidi(Talk(body.clone())).await?;
    let said = body.clone();
    let sending = tokio::spawn(async move {
        for number in 1.. {
            // It ends when nobody listens any more.
            if sender.send(said.stamped(number)).await.is_err() {
                return;
            }
        }
    });
    let (mut counter, mut number) = (Counter::start(setting.limit), 0);
    while counter.add(1) {
        let item = items.next().await.context("the stream has ended")??;
        number += 1;
        body.stamp(number);
        ensure!(
            item.first_word() == body.first_word() && item.bytes().len() == setting.size_bytes,
            "an item is not what was sent"
        );
    }
    let sample = counter.finish(setting.size_bytes);
    drop(items);
    sending.await?;
    Ok(sample)
}

async fn write(client: Client, setting: Setting) -> anyhow::Result<Sample> {
    let mut stream = ByteStream::from(client.bidi(Tunnel).await?);
    let piece = vec![0x5A; setting.size_bytes];
    let (mut counter, mut written) = (Counter::start(setting.limit), 0);
    while counter.add(1) {
        stream.write_all(&piece).await?;
        written += piece.len() as u64;
    }
    stream.shutdown().await?;
    ensure!(
        stream.read_u64_le().await? == written,
        "the server has read something else than was written"
    );
    Ok(counter.finish(setting.size_bytes))
}

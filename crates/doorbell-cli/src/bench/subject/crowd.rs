//! Many connections to one server.

use std::collections::VecDeque;

use anyhow::{Context as _, ensure};
use doorbell::{Client, Raw};

use super::serving::runtime;
use super::{Api, ServedBy};
use crate::bench::case::{Setting, explain_connection};
use crate::bench::crowd::{Crowd, Member};
use crate::bench::load;
use crate::bench::sample::Sample;
use crate::echo::{Block, Body, Echo};

/// Times calls on all connections of this process at once, each with its window full.
///
/// # Errors
///
/// If the server fails.
pub(crate) fn from_one_process(setting: &Setting) -> anyhow::Result<Sample> {
    let server = ServedBy::start(setting, Api::Awaiting)?;
    let runtime = runtime(setting.client_cpu())?;
    let name = server.name()?;
    let (crowd, _connected) = runtime.block_on(async {
        let clients = connect(name, setting).await?;
        let crowd = Crowd::start(setting.limit);
        let calls = clients.iter().map(|client| {
            let (client, member) = (client.clone(), crowd.join());
            match setting.size_bytes {
                Block::BYTES => tokio::spawn(calls::<Block>(client, member, *setting)),
                _ => tokio::spawn(calls::<Raw>(client, member, *setting)),
            }
        });
        for calls in calls.collect::<Vec<_>>() {
            calls.await??;
        }
        anyhow::Ok((crowd, clients))
    })?;
    Ok(Sample {
        server_bytes: server.memory().map(|memory| memory.all()),
        ..crowd.finish(setting.size_bytes)
    })
}

/// Times calls of a process for each connection.
///
/// # Errors
///
/// If a process fails.
pub(crate) fn from_processes(setting: &Setting) -> anyhow::Result<Sample> {
    let server = ServedBy::start(setting, Api::Awaiting)?;
    let (sample, _connected) = load::measure(server.path(), load::Server::Doorbell, setting)?;
    Ok(Sample {
        server_bytes: server.memory().map(|memory| memory.all()),
        ..sample
    })
}

async fn connect(name: &str, setting: &Setting) -> anyhow::Result<Vec<Client>> {
    let mut clients = Vec::with_capacity(setting.connections);
    for number in 1..=setting.connections {
        let client = Client::builder(name).spin(setting.waiting.spin()).connect();
        clients.push(
            client
                .await
                .with_context(|| explain_connection(number, setting.connections))?,
        );
    }
    Ok(clients)
}

async fn calls<B: Body>(
    client: Client,
    mut member: Member,
    setting: Setting,
) -> anyhow::Result<()> {
    let (body, mut number) = (B::of_size(setting.size_bytes), 0);
    let mut under_way = VecDeque::with_capacity(setting.window);
    loop {
        while under_way.len() < setting.window {
            number += 1;
            let start = member.now();
            let request = body.stamped(number);
            let word = request.first_word();
            let reply = client.call(Echo(request)).send().await?;
            under_way.push_back((start, word, reply));
        }
        let Some((start, sent, reply)) = under_way.pop_front() else {
            continue;
        };
        ensure!(
            reply.await?.first_word() == sent,
            "the echo is not what was sent"
        );
        if !member.ended(start) {
            return Ok(());
        }
    }
}

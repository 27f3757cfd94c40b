//! Bodies of child processes.

use doorbell::{ByteStream, Client, Server};
use doorbell_testkit::{PATIENCE, role, say, setting, wait_for_parent};
use std::time::Duration;
use tokio::io::AsyncWriteExt;

use super::{messages::*, service};

/// Runs the body that the parent has chosen; returns at once in a process that is no child.
pub(crate) fn run() {
    match role().as_deref() {
        None => {}
        Some("server") => runtime().block_on(serve()),
        Some("server-of-threads") => serve_with_threads(),
        Some("clients") => runtime().block_on(many_clients()),
        Some("caller") => runtime().block_on(call_without_end()),
        Some("tunnel") => runtime().block_on(write_without_end()),
        Some("connect") => runtime().block_on(connect_once()),
        Some(other) => panic!("no role {other}"),
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

fn number(name: &str) -> Option<u64> {
    std::env::var(format!("DOORBELL_TEST_{}", name.to_uppercase()))
        .ok()
        .map(|text| text.parse().unwrap())
}

async fn serve() {
    let mut builder = service::awaiting(&setting("path"));
    if let Some(count) = number("max_connections") {
        builder = builder.max_connections(count as usize);
    }
    if let Some(bytes) = number("max_message_bytes") {
        builder = builder.max_message_bytes(bytes);
    }
    if let Some(bytes) = number("ring_capacity_bytes") {
        builder = builder.ring_capacity_bytes(bytes as u32);
    }
    if let Some(milliseconds) = number("idle_timeout") {
        builder = builder.idle_timeout(Duration::from_millis(milliseconds));
    }
    if let Some(milliseconds) = number("handshake_timeout") {
        builder = builder.handshake_timeout(Duration::from_millis(milliseconds));
    }
    if let Some(count) = number("workers") {
        builder = builder.workers(count as usize);
    }
    let server = builder.bind().await.unwrap();
    say("READY");
    while let Some(order) = next_order().await {
        obey(&server, &order).await;
    }
}

async fn obey(server: &Server, order: &str) {
    match order.split_once(' ') {
        Some(("shutdown", limit)) => {
            let limit = Duration::from_millis(limit.parse().unwrap());
            let server = server.clone();
            tokio::spawn(async move {
                let drained = server.shutdown(limit).await;
                say(&format!("DRAINED {drained}"));
            });
        }
        _ => {
            let stats = server.stats();
            say(&format!(
                "STATS {} {} {}",
                stats.connections, stats.accepted, stats.refused
            ));
        }
    }
}

async fn next_order() -> Option<String> {
    tokio::task::spawn_blocking(wait_for_parent).await.unwrap()
}

fn serve_with_threads() {
    let _server = service::of_threads(&setting("path")).bind().unwrap();
    say("READY");
    while wait_for_parent().is_some() {}
}

/// Connects many clients at once, calls with each, and keeps them until the parent has heard of it.
async fn many_clients() {
    let (name, count) = (setting("path"), number("count").unwrap());
    doorbell_shm::sys::raise_descriptor_limit().unwrap();
    let connecting: Vec<_> = (0..count as u32)
        .map(|number| {
            let name = name.clone();
            tokio::spawn(async move {
                let client = Client::builder(name)
                    .handshake_timeout(PATIENCE)
                    .connect()
                    .await
                    .unwrap();
                assert_eq!(client.call(Add(number, 1)).await.unwrap(), number + 1);
                client
            })
        })
        .collect();
    let mut clients = Vec::new();
    for client in connecting {
        clients.push(client.await.unwrap());
    }
    say("READY");
    while next_order().await.is_some() {
        for (client, number) in clients.iter().zip(0..) {
            assert_eq!(client.call(Add(number, 2)).await.unwrap(), number + 2);
        }
        say("CALLED");
    }
}

/// Tries to connect once and says what came of it.
async fn connect_once() {
    match Client::connect(setting("path")).await {
        Ok(_) => say("RESULT connected"),
        Err(error) => say(&format!("RESULT {error:?} | {error}")),
    }
}

/// Makes calls that are never answered.
async fn call_without_end() {
    let client = Client::connect(setting("path")).await.unwrap();
    let _pending = (
        client.call(Stuck).send().await.unwrap(),
        client.call(Busy).send().await.unwrap(),
    );
    while next_order().await.is_some() {}
}

/// Writes to a byte stream that is never shut down.
async fn write_without_end() {
    let client = Client::connect(setting("path")).await.unwrap();
    let opened = client.bidi(Tunnel(Through::Greet)).await.unwrap();
    let mut stream = ByteStream::from(opened);
    let bytes = vec![0; number("bytes").unwrap() as usize];
    stream.write_all(&bytes).await.unwrap();
    say("READY");
    while next_order().await.is_some() {}
}

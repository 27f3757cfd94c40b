//! Clients that start, give up and try, and never wait: nobody but they themselves reads what frees slots and gives credit.
//!
//! Each try goes with a small notification, so that the connection is not quiet: a server tells a quiet client to give memory back, which
//! is then read with all that lies before it.

mod support;

use doorbell::{
    Client, Context, ItemSender, ItemStream, Message, MessageType, Server, Status, Upload, blocking,
};
use doorbell_testkit::{PATIENCE, Place, eventually};
use serde::{Deserialize, Serialize};
use support::{messages::*, service};
use tokio::runtime::Runtime;

const MAX_CALLS: u32 = 4;

/// Takes a slot. Returns `false` if there was none.
type StartOfAThread = fn(&blocking::Client) -> bool;
type StartOfATask = fn(&Runtime, &Client) -> bool;

/// A notification.
#[derive(Serialize, Deserialize)]
struct Blob(Vec<u8>);

impl Message for Blob {
    const TYPE: MessageType = MessageType::new(100);
    type Reply = ();
}

impl Blob {
    /// One that does not fit into a frame, and takes the slot of a call.
    fn large() -> Self {
        Self(vec![1; 20_000])
    }
}

/// Takes items and sends none.
#[derive(Serialize, Deserialize)]
struct Sink;

impl Message for Sink {
    const TYPE: MessageType = MessageType::new(101);
    type Reply = u32;
}

impl Upload for Sink {
    type Item = u32;
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

async fn serve(place: &Place) -> Server {
    service::awaiting(&place.name())
        .max_calls(MAX_CALLS)
        .stream_window_bytes(1024)
        .on_notify(|_: Context, _: Blob| async {})
        .on_bidi(
            |_: Context, _: Sink, mut items: ItemStream<u32>, _: ItemSender<u32>| async move {
                while let Some(item) = items.next().await {
                    item?;
                }
                Ok::<_, Status>(())
            },
        )
        .bind()
        .await
        .unwrap()
}

#[test]
fn thread_that_has_given_up_all_its_calls_starts_others_when_the_server_has_ended_those() {
    let runtime = runtime();
    let place = Place::new();
    let _server = runtime.block_on(serve(&place));
    let ways: [(&str, StartOfAThread); 4] = [
        ("a call that is waited for is made", |client| {
            client.call(Add(1, 2)).timeout(PATIENCE).wait().is_ok()
        }),
        ("a call is sent", |client| client.call(Stuck).send().is_ok()),
        ("calls are made in one go", |client| {
            let replies = client.call_all([Add(1, 2)]).open();
            replies.is_ok_and(|mut replies| replies.next().is_some_and(|reply| reply.is_ok()))
        }),
        ("a large notification is sent", |client| {
            client.notify(Blob::large()).is_ok()
        }),
    ];
    for (way, starts) in ways {
        let client = blocking::Client::connect(place.name()).unwrap();
        let send = |_| client.call(Stuck).send().unwrap();
        drop((0..MAX_CALLS).map(send).collect::<Vec<_>>());
        eventually(way, || {
            client.notify(Remember(1)).unwrap();
            starts(&client)
        });
    }
}

#[test]
fn task_that_has_given_up_all_its_calls_starts_others_when_the_server_has_ended_those() {
    let runtime = runtime();
    let place = Place::new();
    let _server = runtime.block_on(serve(&place));
    let ways: [(&str, StartOfATask); 3] = [
        ("a call that is waited for is made", |runtime, client| {
            let call = client.call(Add(1, 2)).timeout(PATIENCE);
            runtime.block_on(call.into_future()).is_ok()
        }),
        ("a call is sent", |runtime, client| {
            runtime.block_on(client.call(Stuck).send()).is_ok()
        }),
        ("a large notification is sent", |_, client| {
            client.notify(Blob::large()).is_ok()
        }),
    ];
    for (way, starts) in ways {
        let client = runtime.block_on(Client::connect(place.name())).unwrap();
        let send = |_| runtime.block_on(client.call(Stuck).send()).unwrap();
        drop((0..MAX_CALLS).map(send).collect::<Vec<_>>());
        eventually(way, || {
            let _ = client.notify(Remember(1));
            starts(&runtime, &client)
        });
    }
}

#[test]
fn client_that_only_notifies_sends_as_many_large_ones_as_the_server_takes() {
    let runtime = runtime();
    let place = Place::new();
    let _server = runtime.block_on(serve(&place));
    let client = runtime.block_on(Client::connect(place.name())).unwrap();
    for _ in 0..10 * MAX_CALLS {
        eventually("the next one is sent", || {
            let _ = client.notify(Remember(1));
            client.notify(Blob::large()).is_ok()
        });
    }
}

#[test]
fn client_that_only_tries_sends_as_many_items_as_the_server_takes() {
    let runtime = runtime();
    let place = Place::new();
    let _server = runtime.block_on(serve(&place));
    let client = runtime.block_on(Client::connect(place.name())).unwrap();
    let opened = runtime.block_on(client.bidi(Sink).into_future());
    let (mut out, _items) = opened.unwrap();
    for number in 0..1000 {
        eventually("the next one is sent", || {
            let _ = client.notify(Remember(1));
            out.try_send(&number).is_ok()
        });
    }
}

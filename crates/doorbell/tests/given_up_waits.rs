//! A future that waits can be dropped at any time. Nothing of it stays behind, neither its waker nor, with that, the memory of its task.

use std::{
    pin::pin,
    sync::{Arc, Mutex, mpsc},
    task::{Context as TaskContext, Wake, Waker},
};

use doorbell::{
    Client, Context, ItemSender, ItemStream, Message, MessageType, NotifyError, Raw, Server,
    Status, Upload, client::PendingReply,
};
use doorbell_testkit::{PATIENCE, Place, RawServer, eventually};
use serde::{Deserialize, Serialize};

const MIB: usize = 1 << 20;

/// Never answered.
#[derive(Serialize, Deserialize)]
struct Stuck;

impl Message for Stuck {
    const TYPE: MessageType = MessageType::new(1);
    type Reply = ();
}

/// A notification.
#[derive(Serialize, Deserialize)]
struct Blob(Vec<u8>);

impl Message for Blob {
    const TYPE: MessageType = MessageType::new(2);
    type Reply = ();
}

/// Waits for something that does not come, gives up, and finds nothing left of the waker; more than once, because what comes for another
/// reason takes all wakers with it.
fn leaves_nothing<F: Future>(what: &str, wait: impl Fn() -> F) {
    struct Task;
    impl Wake for Task {
        fn wake(self: Arc<Self>) {}
    }
    for _ in 0..100 {
        let task = Arc::new(Task);
        let waker = Waker::from(Arc::clone(&task));
        let mut cx = TaskContext::from_waker(&waker);
        {
            let mut waiting = pin!(wait());
            assert!(waiting.as_mut().poll(&mut cx).is_pending(), "{what}");
        }
        drop(waker);
        // Whoever wakes everybody just then has it in hand for a moment.
        eventually(what, || Arc::strong_count(&task) == 1);
    }
}

/// A call, and what its handler knows of it.
struct UnderWay {
    server: Server,
    client: Client,
    context: Context,
    _call: PendingReply<Stuck>,
}

async fn call_under_way(place: &Place) -> UnderWay {
    let (started, contexts) = mpsc::channel();
    let started = Mutex::new(started);
    let server = Server::builder(place.name())
        .max_loan_bytes(MIB as u64)
        .on(move |context: Context, _: Stuck| {
            started.lock().unwrap().send(context).unwrap();
            std::future::pending::<Result<(), Status>>()
        })
        .bind()
        .await
        .unwrap();
    let client = Client::connect(place.name()).await.unwrap();
    let call = client.call(Stuck).send().await.unwrap();
    UnderWay {
        server,
        client,
        context: contexts.recv_timeout(PATIENCE).unwrap(),
        _call: call,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wait_of_a_handler_that_is_given_up_leaves_nothing_behind() {
    let place = Place::new();
    let UnderWay { context, .. } = &call_under_way(&place).await;
    leaves_nothing("the end of the call", || context.cancelled());
    let _taken = context.try_loan(MIB / 2).unwrap();
    leaves_nothing("room for a loan", || context.loan(MIB - MIB / 4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wait_of_a_client_for_a_loan_that_is_given_up_leaves_nothing_behind() {
    let place = Place::new();
    let UnderWay { client, .. } = &call_under_way(&place).await;
    let _taken = client.loan(MIB / 2).await.unwrap();
    leaves_nothing("room for a loan", || client.loan(MIB - MIB / 4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_that_is_given_up_leaves_nothing_behind() {
    let place = Place::new();
    let UnderWay { server, .. } = &call_under_way(&place).await;
    leaves_nothing("the end of all calls", || server.shutdown(PATIENCE));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wait_for_a_server_that_does_not_read_leaves_nothing_behind_when_it_is_given_up() {
    let place = Place::new();
    let listener = RawServer::listen(&place.socket());
    let name = place.name();
    let client = tokio::spawn(async { Client::connect(name).await.unwrap() });
    let _server = RawServer::accept(&listener);
    let client = client.await.unwrap();
    leaves_nothing("a pong", || client.ping());
    let full = std::iter::repeat_with(|| client.notify(Blob(vec![0; 10_000])));
    let refused = full.take(10_000).find_map(Result::err);
    assert!(matches!(refused, Some(NotifyError::Full { .. })));
    leaves_nothing("room for a notification", || client.writable());
}

/// A call with a stream each way, of which a test has all four halves.
#[derive(Serialize, Deserialize)]
struct Both;

impl Message for Both {
    const TYPE: MessageType = MessageType::new(3);
    type Reply = Raw;
}

impl Upload for Both {
    type Item = Raw;
}

/// A task, and whether something of it is still there.
struct Waiter(Arc<Asleep>);

struct Asleep;

impl Wake for Asleep {
    fn wake(self: Arc<Self>) {}
}

impl Waiter {
    /// Begins to wait, and gives up.
    fn of<F: Future>(wait: F) -> Self {
        let task = Arc::new(Asleep);
        let waker = Waker::from(Arc::clone(&task));
        let polled = pin!(wait).poll(&mut TaskContext::from_waker(&waker));
        assert!(polled.is_pending());
        Self(task)
    }

    fn is_forgotten(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_of_a_stream_that_is_dropped_leaves_nothing_of_who_waited_with_it() {
    let place = Place::new();
    let (given, halves) = mpsc::channel();
    let given = Mutex::new(given);
    let _server = Server::builder(place.name())
        .on_bidi(
            move |_: Context, _: Both, items: ItemStream<Raw>, out: ItemSender<Raw>| {
                given.lock().unwrap().send((items, out)).unwrap();
                std::future::pending::<Result<(), Status>>()
            },
        )
        .bind()
        .await
        .unwrap();
    let client = Client::connect(place.name()).await.unwrap();
    let (_sender, _answer) = client.bidi(Both).await.unwrap();
    let (mut items, _out) = halves.recv_timeout(PATIENCE).unwrap();

    let reader = Waiter::of(items.next());
    drop(items);
    eventually("the reader is forgotten", || reader.is_forgotten());

    let (mut sender, _answer) = client.bidi(Both).await.unwrap();
    let _halves = halves.recv_timeout(PATIENCE).unwrap();
    let large = || Raw::from(vec![0; MIB]);
    sender.try_send(&large()).unwrap();
    let writer = Waiter::of(sender.send(large()));
    drop(sender);
    eventually("the writer is forgotten", || writer.is_forgotten());
}

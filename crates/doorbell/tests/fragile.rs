//! The owner of a payload that panics when it is dropped, and a waker that panics when it is called, cost nothing but themselves, whichever
//! thread they happen to: it serves others, who know nothing of them.

mod support;

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    task::{Context as TaskContext, Wake, Waker},
    thread,
};

use bytes::Bytes;
use doorbell::{
    CallError, Client, Context, Message, MessageType, Payload, Raw, Server, Status, blocking,
};
use doorbell_testkit::{PATIENCE, Place, eventually};
use support::{Host, in_time, messages::*};

#[test]
#[ignore = "the body of the child processes"]
fn child_process() {
    support::roles::run();
}

/// How often something has panicked.
#[derive(Clone, Default)]
struct Panics(Arc<AtomicU32>);

impl Panics {
    fn panic(&self) -> ! {
        self.0.fetch_add(1, Ordering::SeqCst);
        std::panic::resume_unwind(Box::new("on purpose"));
    }

    fn wait_for(&self, count: u32) {
        eventually("it has panicked", || self.0.load(Ordering::SeqCst) == count);
    }
}

/// Bytes whose owner panics when it is dropped.
fn fragile(length: usize, panics: &Panics) -> Bytes {
    struct Owner(Vec<u8>, Panics);
    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    impl Drop for Owner {
        fn drop(&mut self) {
            self.1.panic();
        }
    }
    Bytes::from_owner(Owner(vec![1; length], panics.clone()))
}

/// A waker that panics when it is called.
fn fragile_waker(panics: &Panics) -> Waker {
    struct Fragile(Panics);
    impl Wake for Fragile {
        fn wake(self: Arc<Self>) {
            self.0.panic();
        }
    }
    Waker::from(Arc::new(Fragile(panics.clone())))
}

/// Answered with so many bytes, whose owner panics.
#[derive(serde::Serialize, serde::Deserialize)]
struct Get(usize);
impl Message for Get {
    const TYPE: MessageType = MessageType::new(900);
    type Reply = Raw;
}

/// A notification that is sent as it is.
#[derive(Payload)]
#[payload(bytes)]
struct Tell(Bytes);
impl Message for Tell {
    const TYPE: MessageType = MessageType::new(901);
    type Reply = ();
}

/// More than a ring takes.
const LARGE_BYTES: usize = 24 << 20;

/// A server with one I/O worker, and how often something of its has panicked.
fn serve(place: &Place) -> (blocking::Server, Panics) {
    let panics = Panics::default();
    let of_handler = panics.clone();
    let server = blocking::Server::builder(place.name())
        .workers(1)
        .on(|_: Context, add: Add| Ok::<_, Status>(add.0 + add.1))
        .on(move |_: Context, get: Get| Ok::<_, Status>(Raw(fragile(get.0, &of_handler))))
        .on_notify(|_: Context, _: Tell| {})
        .bind()
        .unwrap();
    (server, panics)
}

fn connect(place: &Place) -> blocking::Client {
    blocking::Client::connect(place.name()).unwrap()
}

fn assert_served(client: &blocking::Client) {
    let sum = client.call(Add(1, 2)).timeout(PATIENCE).wait();
    assert_eq!(sum.unwrap(), 3);
}

#[test]
fn owner_of_a_reply_that_has_been_sent_costs_its_worker_nothing() {
    let place = Place::new();
    let (_server, panics) = serve(&place);
    let (client, other) = (connect(&place), connect(&place));
    assert_served(&other);
    let reply = client.call(Get(LARGE_BYTES)).timeout(PATIENCE).wait();
    assert_eq!(reply.unwrap().0.len(), LARGE_BYTES);
    panics.wait_for(1);
    for client in [client, other, connect(&place)] {
        assert_served(&client);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owners_of_replies_whose_client_has_gone_cost_the_acceptor_nothing() {
    in_time(async {
        let place = Place::new();
        let panics = Panics::default();
        let (of_handler, all) = (panics.clone(), Arc::new(tokio::sync::Barrier::new(3)));
        let server = Server::builder(place.name())
            .on(|_: Context, add: Add| async move { Ok::<_, Status>(add.0 + add.1) })
            .on(move |_: Context, get: Get| {
                let (reply, all) = (fragile(get.0, &of_handler), Arc::clone(&all));
                async move {
                    all.wait().await; // nothing is read any more once the first of them waits for room
                    Ok::<_, Status>(Raw(reply))
                }
            })
            .bind()
            .await
            .unwrap();
        let client = blocking::Client::connect(place.name()).unwrap();
        let pending = [(); 3].map(|()| client.call(Get(LARGE_BYTES)).send().unwrap());
        eventually("three replies wait for room", || {
            server.stats().messages.messages_sent == 3
        });
        client.close();
        panics.wait_for(3);
        let new = Client::connect(place.name()).await.unwrap();
        assert_eq!(new.call(Add(1, 2)).timeout(PATIENCE).await.unwrap(), 3);
        eventually("the one that has gone is forgotten", || {
            server.stats().connections == 1
        });
        drop(pending);
    })
    .await;
}

#[test]
fn owner_of_a_notification_costs_the_other_clients_of_its_process_nothing() {
    let place = Place::new();
    let (_server, panics) = serve(&place);
    let mut host = Host::start("server", &[]);
    let other = blocking::Client::connect(host.name()).unwrap();
    let client = connect(&place);
    client.notify(Tell(fragile(LARGE_BYTES, &panics))).unwrap();
    panics.wait_for(1);
    let (waits, is_waiting) = mpsc::channel();
    let waiting = thread::spawn(move || {
        let mut items = other.stream(StuckStream).timeout(PATIENCE).open().unwrap();
        let first = items.next().unwrap();
        waits.send(first.unwrap()).unwrap();
        items.next()
    });
    assert_eq!(is_waiting.recv_timeout(PATIENCE), Ok(1));
    host.child.kill();
    let end = waiting.join().unwrap().unwrap();
    assert!(
        matches!(end, Err(CallError::Disconnected(_))),
        "nobody has seen its server die: {end:?}"
    );
    assert_served(&client);
    assert_served(&connect(&place));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waker_that_panics_at_the_end_of_a_call_costs_its_worker_nothing() {
    in_time(async {
        let place = Place::new();
        let panics = Panics::default();
        let (of_handler, waiting) = (panics.clone(), Arc::new(tokio::sync::Notify::new()));
        let waits = Arc::clone(&waiting);
        let _server = Server::builder(place.name())
            .workers(1)
            .on(|_: Context, add: Add| async move { Ok::<_, Status>(add.0 + add.1) })
            .on(move |context: Context, _: Stuck| {
                let (waker, waits) = (fragile_waker(&of_handler), Arc::clone(&waits));
                async move {
                    let mut end = pin!(context.cancelled());
                    let polled = end.as_mut().poll(&mut TaskContext::from_waker(&waker));
                    assert!(polled.is_pending());
                    waits.notify_one();
                    std::future::pending::<Result<(), Status>>().await
                }
            })
            .bind()
            .await
            .unwrap();
        let other = Client::connect(place.name()).await.unwrap();
        let client = Client::connect(place.name()).await.unwrap();
        let pending = client.call(Stuck).send().await.unwrap();
        waiting.notified().await;
        drop(pending);
        for client in [client, other] {
            assert_eq!(client.call(Add(1, 2)).timeout(PATIENCE).await.unwrap(), 3);
        }
        panics.wait_for(1);
        let new = Client::connect(place.name()).await.unwrap();
        assert_eq!(new.call(Add(1, 2)).timeout(PATIENCE).await.unwrap(), 3);
    })
    .await;
}

//! What a client leaves behind when it ends: messages that lie in its ring, handlers that run, and what those hold.

mod support;

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
    mpsc,
};

use doorbell::{
    Client, ConnectError, Context, Loaned, Message, MessageType, NotifyError, Payload,
    RefuseReason, Server, Status, blocking,
    server::{Resource, ServerStats},
};
use doorbell_testkit::{Child, PATIENCE, Place, eventually, role, say, setting, wait_for_parent};
use support::messages::*;
use tokio::sync::watch;

#[test]
#[ignore = "the body of the child processes"]
fn child_process() {
    let connect = || blocking::Client::connect(setting("path")).unwrap();
    match role().as_deref() {
        Some("notify until it is full") => {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let client = runtime.block_on(Client::connect(setting("path"))).unwrap();
            let refused = loop {
                if let Err(error) = client.notify(Remember(1)) {
                    break error;
                }
            };
            assert!(matches!(refused, NotifyError::Full { .. }), "{refused}");
            say("FULL");
            wait_for_parent();
        }
        Some("notify once") => {
            let client = connect();
            client.notify(Remember(1)).unwrap();
            assert_eq!(client.call(Add(1, 2)).wait().unwrap(), 3, "it is handled");
            say("NOTIFIED");
            wait_for_parent();
        }
        Some("notify in every way") => {
            let client = connect();
            let loan = client.loan(100, PATIENCE).unwrap();
            say("READY");
            wait_for_parent();
            for bytes in SIZES {
                client.notify(Tell(Loaned::from(vec![1; bytes]))).unwrap();
            }
            client.notify(Tell(loan.into())).unwrap();
        }
        Some("lend") => {
            let client = connect();
            let loan = client.loan(100, PATIENCE).unwrap();
            client.call(Keep(loan.into())).wait().unwrap();
        }
        _ => support::roles::run(),
    }
}

/// In one frame, and in two: all chunks fit into the ring at once, however few a client writes ahead. What waits in the client ends with it.
const SIZES: [usize; 3] = [10, 17_000, 30_000];

/// A notification of any size.
#[derive(Payload)]
#[payload(loaned)]
struct Tell(Loaned);

impl Message for Tell {
    const TYPE: MessageType = MessageType::new(900);
    type Reply = ();
}

/// Its loan is kept.
#[derive(Payload)]
#[payload(loaned)]
struct Keep(Loaned);

impl Message for Keep {
    const TYPE: MessageType = MessageType::new(901);
    type Reply = ();
}

/// Handlers of notifications that wait for a gate.
#[derive(Clone)]
struct Waiting {
    gate: watch::Sender<bool>,
    running: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    handled: Arc<AtomicUsize>,
}

impl Waiting {
    fn new() -> Self {
        Self {
            gate: watch::Sender::new(false),
            running: Arc::default(),
            most: Arc::default(),
            handled: Arc::default(),
        }
    }

    async fn wait(self) {
        let running = self.running.fetch_add(1, Ordering::Relaxed) + 1;
        self.most.fetch_max(running, Ordering::Relaxed);
        self.gate
            .subscribe()
            .wait_for(|open| *open)
            .await
            .expect("the gate is there as long as we are");
        self.running.fetch_sub(1, Ordering::Relaxed);
        self.handled.fetch_add(1, Ordering::Relaxed);
    }

    async fn serve(&self, place: &Place, connections: u64) -> Server {
        let waiting = self.clone();
        Server::builder(place.name())
            .workers(1)
            .limit(Resource::Connections, connections)
            .on(|_: Context, add: Add| async move { Ok::<_, Status>(add.0 + add.1) })
            .on_notify(move |_: Context, _: Remember| waiting.clone().wait())
            .bind()
            .await
            .unwrap()
    }
}

fn start(place: &Place, role: &str) -> Child {
    Child::start("child_process", role, &[("path", &place.name())])
}

fn used(server: &Server, resource: Resource) -> u64 {
    server.stats().resource(resource).used
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_clients_notifications_have_as_many_handlers_at_once_as_a_living_ones() {
    let (place, waiting) = (Place::new(), Waiting::new());
    let server = waiting.serve(&place, 100).await;
    let mut child = start(&place, "notify until it is full");
    child.hear("FULL");
    child.kill();
    // The worker hears of the death no later than of this one's calls.
    let witness = Client::connect(place.name()).await.unwrap();
    for _ in 0..100 {
        assert_eq!(witness.call(Add(1, 2)).await.unwrap(), 3);
    }
    drop(witness);
    let most = || waiting.most.load(Ordering::Relaxed);
    assert!((1024..=1024 + 64).contains(&most()), "{}", most());
    waiting.gate.send_replace(true);
    eventually("what it has left is handled", || {
        server.stats().connections == 0 && waiting.running.load(Ordering::Relaxed) == 0
    });
    assert!(most() <= 1024 + 64, "{}", most());
    let handled = waiting.handled.load(Ordering::Relaxed);
    assert!(handled > 4096, "{handled} of a ring of 256 KiB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connection_counts_until_its_last_handler_has_ended() {
    let (place, waiting) = (Place::new(), Waiting::new());
    let server = waiting.serve(&place, 2).await;
    let mut child = start(&place, "notify once");
    child.hear("NOTIFIED");
    child.kill();
    eventually("it has ended", || server.stats().connections == 0);
    assert_eq!(used(&server, Resource::Connections), 1);
    assert!(used(&server, Resource::RingBytes) > 0, "they are mapped");
    let second = Client::connect(place.name()).await.unwrap();
    match Client::connect(place.name()).await {
        Err(ConnectError::Refused { reason, .. }) => assert_eq!(reason, RefuseReason::Full),
        other => panic!("{other:?}"),
    }
    waiting.gate.send_replace(true);
    eventually("its memory is given back", || {
        used(&server, Resource::Connections) == 1
    });
    let third = Client::connect(place.name()).await.unwrap();
    assert_eq!(third.call(Add(1, 2)).await.unwrap(), 3);
    drop((second, third));
    eventually("all is given back", || {
        let used = [Resource::Connections, Resource::RingBytes].map(|what| used(&server, what));
        used == [0, 0]
    });
}

#[test]
fn segment_counts_until_the_last_loan_in_it_is_dropped() {
    let place = Place::new();
    let kept = Arc::new(Mutex::new(Vec::new()));
    let keeps = Arc::clone(&kept);
    let server = blocking::Server::builder(place.name())
        .on(move |_: Context, keep: Keep| {
            keeps.lock().unwrap().push(keep.0);
            Ok::<_, Status>(())
        })
        .bind()
        .unwrap();
    let stats = || -> ServerStats { server.stats() };
    start(&place, "lend").wait();
    eventually("it has ended", || {
        stats().connections == 0 && stats().resource(Resource::Connections).used == 0
    });
    assert!(stats().loan_bytes > 0, "its loan can still be read");
    assert_eq!(kept.lock().unwrap().pop().unwrap().len(), 100);
    assert_eq!(stats().loan_bytes, 0);
}

#[test]
fn notifications_of_every_kind_are_handled_after_the_end_of_who_has_written_them() {
    let place = Place::new();
    let (sizes, seen) = mpsc::channel();
    let (hold, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let server = blocking::Server::builder(place.name())
        .workers(1)
        .on(|_: Context, add: Add| Ok::<_, Status>(add.0 + add.1))
        .on_notify(move |_: Context, _: Remember| {
            let _ = held.lock().unwrap().recv_timeout(PATIENCE);
        })
        .on_notify(move |_: Context, tell: Tell| sizes.send(tell.0.len()).unwrap())
        .bind()
        .unwrap();
    let mut child = start(&place, "notify in every way");
    child.hear("READY");
    let keeper = blocking::Client::connect(place.name()).unwrap();
    keeper.notify(Remember(1)).unwrap(); // the worker waits in its handler
    child.tell("GO");
    child.wait();
    hold.send(()).unwrap();
    let mut came = Vec::new();
    while came.len() <= SIZES.len() {
        let size = seen.recv_timeout(PATIENCE);
        came.push(size.unwrap_or_else(|_| panic!("of all only {came:?} were handled")));
    }
    came.sort_unstable();
    assert_eq!(came, [10, 100, 17_000, 30_000]);
    assert_eq!(keeper.call(Add(1, 2)).wait().unwrap(), 3);
    drop(keeper);
    eventually("all have ended", || server.stats().connections == 0);
}

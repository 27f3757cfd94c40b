//! What clients do while their worker is busy counts when it looks again.

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use doorbell::{Context, Message, MessageType, Spin, Status, blocking};
use doorbell_testkit::{
    PATIENCE, Place,
    by_hand::{Frame, HandClient, HandHello, Memory, kind},
    eventually,
};
use serde::{Deserialize, Serialize};
use support::messages::*;

/// After that a connection is idle.
const IDLE: Duration = Duration::from_secs(2);

/// More than a worker hears of at once.
const CLIENTS: u32 = 300;

/// A worker that a handler keeps from doing anything else.
#[derive(Default)]
struct Held {
    is_held: Arc<AtomicBool>,
    is_open: Arc<AtomicBool>,
}

impl Held {
    /// Returns a server with this worker alone. It sleeps whenever it can, and `Gate` holds it.
    fn server(&self, place: &Place) -> blocking::ServerBuilder {
        let [held, open] = [&self.is_held, &self.is_open].map(Arc::clone);
        blocking::Server::builder(place.name())
            .workers(1)
            .spin(Spin::Never)
            .idle_timeout(IDLE)
            .on(|_: Context, add: Add| Ok::<_, Status>(add.0 + add.1))
            .on(move |_: Context, _: Gate| {
                held.store(true, Ordering::Relaxed);
                eventually("the gate is open", || open.load(Ordering::Relaxed));
                Ok::<_, Status>(0)
            })
    }

    fn wait_until_held(&self) {
        eventually("the worker is held", || {
            self.is_held.load(Ordering::Relaxed)
        });
    }

    fn let_go(&self) {
        self.is_open.store(true, Ordering::Relaxed);
    }
}

#[test]
fn connection_whose_call_has_not_been_seen_yet_is_not_idle() {
    let limit = doorbell_shm::sys::raise_descriptor_limit().unwrap();
    if limit < 4000 {
        eprintln!(
            "skipped: {limit} descriptors are too few for both ends of {CLIENTS} connections"
        );
        return;
    }
    let place = Place::new();
    let worker = Held::default();
    let _server = worker.server(&place).bind().unwrap();
    let connect = || blocking::Client::connect(place.name()).unwrap();
    let holder = connect();
    let clients: Vec<_> = (0..CLIENTS).map(|_| connect()).collect();
    for client in &clients {
        assert_eq!(client.call(Add(1, 2)).timeout(PATIENCE).wait().unwrap(), 3);
    }
    let holding = holder.call(Gate).timeout(PATIENCE).send().unwrap();
    worker.wait_until_held();
    std::thread::sleep(2 * IDLE); // the handler computes
    let calls: Vec<_> = clients
        .iter()
        .map(|client| client.call(Add(1, 2)).timeout(PATIENCE).send().unwrap())
        .collect();
    worker.let_go();
    assert_eq!(holding.wait().unwrap(), 0);
    for call in calls {
        assert_eq!(call.wait().unwrap(), 3);
    }
}

/// Answered with [`PAGE_BYTES`].
#[derive(Serialize, Deserialize)]
struct Page;

impl Message for Page {
    const TYPE: MessageType = MessageType::new(100);
    type Reply = Vec<u8>;
}

const PAGE_BYTES: u32 = 5000;

/// Its client makes room for answers, calls, and rings no bell: more have rung theirs than the worker hears of at once. The answers that have waited go
/// with the visit of a connection that has been quiet for a second, which the worker pays before it looks who has been idle for long.
#[test]
fn connection_whose_answers_go_before_its_call_is_seen_is_not_idle() {
    let place = Place::new();
    let worker = Held::default();
    let pages = Arc::new(AtomicU32::new(0));
    let answered = Arc::clone(&pages);
    let server = worker
        .server(&place)
        .on(move |_: Context, _: Page| {
            answered.fetch_add(1, Ordering::Relaxed);
            Ok::<_, Status>(vec![1; PAGE_BYTES as usize])
        })
        .bind()
        .unwrap();
    let holder = blocking::Client::connect(place.name()).unwrap();
    let mut client = HandClient::connect_with(&place.socket(), &HandHello::proper());
    let ring_bytes = client.welcome.server_ring_capacity_bytes;
    let fitting = ring_bytes / PAGE_BYTES;
    let call = |slot: u32| Frame::new(kind::CALL, 1 << 32 | u64::from(slot), Page::TYPE.get());
    for slot in 0..fitting + 2 {
        client.send(&call(slot));
    }
    eventually("the ring is full", || {
        client.theirs.load(Memory::TAIL) > ring_bytes - 2 * PAGE_BYTES
    });
    client.wait_until_asleep();
    let holding = holder.call(Gate).timeout(PATIENCE).send().unwrap();
    worker.wait_until_held();
    std::thread::sleep(2 * IDLE); // the handler computes
    let before = pages.load(Ordering::Relaxed);
    let read = client.theirs.load(Memory::TAIL);
    client.ours.store(Memory::HEAD, read);
    assert!(client.put(&call(fitting + 2).bytes()));
    client.ours.store(Memory::TAIL, client.tail);
    worker.let_go();
    assert_eq!(holding.wait().unwrap(), 0);
    eventually("the call is executed", || {
        assert_eq!(server.stats().connections, 2);
        pages.load(Ordering::Relaxed) > before
    });
}

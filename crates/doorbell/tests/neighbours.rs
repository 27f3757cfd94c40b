//! Connections of one worker: one that has much to do, or that ends, is no reason for the others to wait.

mod support;

use std::{
    pin::pin,
    sync::{Arc, Mutex, mpsc},
    task::{self, Wake, Waker},
    time::{Duration, Instant},
};

use bytes::Bytes;
use doorbell::{Context, Message, MessageType, Raw, Status, blocking};
use doorbell_proto::frame::{Flags, FrameHeader, FrameKind};
use doorbell_testkit::{PATIENCE, Place, RawClient, eventually};
use serde::{Deserialize, Serialize};
use support::messages::{Add, Echo, Pour};

/// Takes a while, and notes that it was called by this client.
#[derive(Serialize, Deserialize)]
struct Work(u32);

impl Message for Work {
    const TYPE: MessageType = MessageType::new(900);
    type Reply = ();
}

/// Holds the worker until the test lets go.
#[derive(Serialize, Deserialize)]
struct Hold;

impl Message for Hold {
    const TYPE: MessageType = MessageType::new(901);
    type Reply = ();
}

/// Frames are counted, and 64 of them may be read in one turn; but it is the time that others wait for.
#[test]
fn requests_that_take_long_are_served_in_turn_with_those_of_others() {
    let place = Place::new();
    let order = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&order);
    let (held, is_held) = mpsc::channel();
    let (let_go, until) = mpsc::channel::<()>();
    let until = Mutex::new(until);
    let server = blocking::Server::builder(place.name())
        .on(|_: Context, sum: Add| Ok::<_, Status>(sum.0 + sum.1))
        .on(move |_: Context, work: Work| {
            noted.lock().unwrap().push(work.0);
            let start = Instant::now();
            while start.elapsed() < WORK {}
            Ok::<_, Status>(())
        })
        .on(move |_: Context, _: Hold| {
            held.send(()).expect("the test waits");
            let waited = until.lock().unwrap().recv_timeout(PATIENCE);
            waited.map_err(|error| Status::internal(error.to_string()))
        })
        .workers(1)
        .bind()
        .unwrap();
    let clients = [0, 1].map(|_| blocking::Client::connect(place.name()).unwrap());
    // One that has never been served may not be known to the worker yet, which then has nobody to be fair to.
    for client in &clients {
        assert_eq!(client.call(Add(1, 2)).wait().unwrap(), 3);
    }
    let hold = clients[0].call(Hold).send().unwrap();
    is_held.recv_timeout(PATIENCE).expect("the worker is held");
    let calls: Vec<_> = clients
        .iter()
        .zip(0..)
        .flat_map(|(client, number)| {
            (0..CALLS).map(move |_| client.call(Work(number)).send().unwrap())
        })
        .collect();
    let_go.send(()).expect("the handler waits");
    hold.wait().unwrap();
    calls.into_iter().for_each(|call| call.wait().unwrap());
    let order = order.lock().unwrap();
    // From then on only one of them has something left.
    let ends = [0, 1].map(|number| order.iter().rposition(|served| *served == number));
    let end = ends[0].min(ends[1]).expect("both were served");
    let mut turns = order[..=end].chunk_by(|a, b| a == b).map(<[u32]>::len);
    let first = turns.next();
    assert!(first <= Some(MOST_AT_FIRST), "{first:?} first of {order:?}");
    let longest = turns.max();
    assert!(
        longest <= Some(MOST_AT_ONCE),
        "{longest:?} in one go of {order:?}"
    );
    drop(server);
}

/// What it has mapped, opened and queued goes on another thread than that of the worker.
#[test]
fn connection_that_ends_is_taken_apart_while_the_worker_serves_others() {
    let place = Place::new();
    let (dropped, drops) = mpsc::channel();
    let dropped = Mutex::new(dropped);
    let _server = blocking::Server::builder(place.name())
        .on(|_: Context, sum: Add| Ok::<_, Status>(sum.0 + sum.1))
        .on(move |_: Context, _: Echo| {
            let on_drop = dropped.lock().unwrap().clone();
            let answer = Owner(vec![7; 1 << 20], on_drop);
            Ok::<_, Status>(Raw(Bytes::from_owner(answer)))
        })
        .workers(1)
        .bind()
        .unwrap();
    let witness = blocking::Client::connect(place.name()).unwrap();
    let mut leaves = RawClient::connect(&place.socket());
    leaves.send(
        FrameHeader::new(FrameKind::Call, 1 << 32, Echo::TYPE.get()),
        &[],
    );
    eventually("the answer begins, and the rest waits for room", || {
        leaves.published_bytes() > 0
    });
    drop(leaves);
    let thread = drops.recv_timeout(PATIENCE).expect("the answer is dropped");
    assert_eq!(thread, "doorbell-accept");
    assert_eq!(witness.call(Add(1, 2)).timeout(PATIENCE).wait().unwrap(), 3);
}

/// There may be a thousand calls, and a task to wake for each.
#[test]
fn calls_of_a_connection_that_is_over_end_while_the_worker_serves_others() {
    let place = Place::new();
    let (heard, hears) = mpsc::channel();
    let (let_go, until) = mpsc::channel::<()>();
    let both = Mutex::new(Some((heard, until)));
    let _server = blocking::Server::builder(place.name())
        .on(|_: Context, sum: Add| Ok::<_, Status>(sum.0 + sum.1))
        .on_stream(
            move |context: Context, _: Pour, _: blocking::ItemSender<Raw>| {
                let (heard, until) = both.lock().unwrap().take().expect("one call");
                let waker = Waker::from(Arc::new(Listener(heard.clone())));
                let mut is_over = pin!(context.cancelled());
                let look = is_over
                    .as_mut()
                    .poll(&mut task::Context::from_waker(&waker));
                assert!(look.is_pending());
                heard.send("waits".to_owned()).expect("the test listens");
                let _ = until.recv_timeout(PATIENCE);
                Ok::<_, Status>(())
            },
        )
        .workers(1)
        .bind()
        .unwrap();
    let witness = blocking::Client::connect(place.name()).unwrap();
    let mut leaves = RawClient::connect(&place.socket());
    let open = FrameHeader {
        flags: Flags::STREAMING,
        ..FrameHeader::new(FrameKind::Call, 1 << 32, Pour::TYPE.get())
    };
    leaves.send(open, &[1, 1]); // two small numbers
    let next = || hears.recv_timeout(PATIENCE).expect("the call is there");
    assert_eq!(next(), "waits");
    drop(leaves);
    assert_eq!(next(), "doorbell-accept");
    assert_eq!(witness.call(Add(1, 2)).timeout(PATIENCE).wait().unwrap(), 3);
    let_go.send(()).expect("the handler waits");
}

/// Tells on which thread it is woken.
struct Listener(mpsc::Sender<String>);

impl Wake for Listener {
    fn wake(self: Arc<Self>) {
        let thread = std::thread::current();
        let _ = self.0.send(thread.name().unwrap_or_default().to_owned());
    }
}

/// Bytes that tell on which thread they are dropped.
struct Owner(Vec<u8>, mpsc::Sender<String>);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let thread = std::thread::current();
        let _ = self.1.send(thread.name().unwrap_or_default().to_owned());
    }
}

/// What a request takes: much more than a turn may.
const WORK: Duration = Duration::from_micros(200);
/// What each client has under way, not more than could be read in one turn.
const CALLS: usize = 60;
/// The clock is looked at after the first and the second of a turn.
const MOST_AT_ONCE: usize = 2;
/// Before the first whole turn comes the rest of that in which the worker was held.
const MOST_AT_FIRST: usize = MOST_AT_ONCE + 1;

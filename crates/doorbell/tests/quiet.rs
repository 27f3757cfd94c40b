//! Memory of a connection that has moved much and then is quiet: it goes back to the system, on both sides, and the connection goes on.

mod support;

use std::{
    collections::HashMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use doorbell::{Client, Message as _, blocking};
use doorbell_proto::frame::{Flags, FrameHeader, FrameKind};
use doorbell_testkit::by_hand::{Frame, HandClient, HandHello, Memory, kind};
use doorbell_testkit::{PATIENCE, Place, RawClient, RawServer, eventually, resident_bytes};
use support::{Host, in_time, messages::*};

#[test]
#[ignore = "the body of the child processes"]
fn child_process() {
    support::roles::run();
}

/// What this process holds is looked at: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// The first page of each of two rings.
const LIGHT_USE_BYTES: u64 = 8192;

fn body(round: u8) -> Bytes {
    (0..1 << 20).map(|place: u32| place as u8 ^ round).collect()
}

/// A server of each kind, each in a process of its own, with a client of each kind here.
struct Pairs {
    hosts: Vec<Host>,
    tasks: Vec<Client>,
    threads: Vec<blocking::Client>,
}

impl Pairs {
    fn new(runtime: &tokio::runtime::Runtime) -> Self {
        let hosts: Vec<_> = ["server", "server-of-threads"]
            .map(|role| Host::start(role, &[]))
            .into();
        let names = || hosts.iter().map(Host::name);
        let tasks = names().map(|name| runtime.block_on(Client::connect(name)).unwrap());
        let threads = names().map(|name| blocking::Client::connect(name).unwrap());
        let (tasks, threads) = (tasks.collect(), threads.collect());
        Self {
            hosts,
            tasks,
            threads,
        }
    }

    /// Whether both servers have touched no more than light users do, and whether we have not.
    fn are_light(&self) -> [bool; 3] {
        let clients = |id: u32| if id == std::process::id() { 4 } else { 2 };
        let processes = [
            self.hosts[0].child.id(),
            self.hosts[1].child.id(),
            std::process::id(),
        ];
        processes.map(|id| resident_bytes(id) <= clients(id) * LIGHT_USE_BYTES)
    }

    fn add_all(&self, runtime: &tokio::runtime::Runtime, number: u32) {
        for client in &self.tasks {
            let sum = runtime.block_on(in_time(client.call(Add(number, 1)).into_future()));
            assert_eq!(sum.unwrap(), number + 1);
        }
        for client in &self.threads {
            let sum = client.call(Add(number, 1)).timeout(PATIENCE).wait();
            assert_eq!(sum.unwrap(), number + 1);
        }
    }

    async fn call_all(&self, round: u8) {
        let sent = body(round);
        for client in &self.tasks {
            assert_eq!(client.call(Echo(sent.clone())).await.unwrap().0, sent);
        }
        tokio::task::block_in_place(|| {
            for client in &self.threads {
                let reply = client.call(Echo(sent.clone())).timeout(PATIENCE).wait();
                assert_eq!(reply.unwrap().0, sent);
            }
        });
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

#[test]
fn rings_that_carried_large_messages_go_back_when_the_connection_is_quiet() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = runtime();
    let pairs = Pairs::new(&runtime);
    runtime.block_on(in_time(async {
        for round in 0..2 {
            pairs.call_all(round).await;
            assert_eq!(pairs.are_light(), [false; 3], "a large message takes room");
            eventually("the rings are given back", || {
                pairs.are_light() == [true; 3]
            });
        }
        for number in 0..1000 {
            for client in &pairs.tasks {
                assert_eq!(client.call(Add(number, 1)).await.unwrap(), number + 1);
            }
        }
    }));
    for client in &pairs.threads {
        assert_eq!(client.call(Add(1, 2)).wait().unwrap(), 3);
    }
}

#[test]
fn rings_that_were_touched_behind_their_first_page_go_back() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = runtime();
    let pairs = Pairs::new(&runtime);
    let sent = Bytes::from(vec![1; 6000]);
    for client in &pairs.tasks {
        let called = runtime.block_on(in_time(client.call(Echo(sent.clone())).into_future()));
        assert_eq!(called.unwrap().0, sent);
    }
    for client in &pairs.threads {
        let called = client.call(Echo(sent.clone())).timeout(PATIENCE).wait();
        assert_eq!(called.unwrap().0, sent);
    }
    assert_eq!(pairs.are_light(), [false; 3], "it took a second page");
    eventually("the rings are given back", || {
        pairs.are_light() == [true; 3]
    });
}

/// What tells that the ring begins again lies where the large message has ended.
#[test]
fn rings_that_begin_again_after_they_went_back_do_so_once_more() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = runtime();
    let pairs = Pairs::new(&runtime);
    runtime.block_on(in_time(pairs.call_all(0)));
    for round in 0..3 {
        eventually("the rings are given back", || {
            pairs.are_light() == [true; 3]
        });
        pairs.add_all(&runtime, round);
    }
}

/// The client leaves the room of the last answer with itself, each time, and the server must not wait for it.
#[test]
fn rings_go_back_though_small_calls_came_between_the_looks_of_the_server() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = runtime();
    let pairs = Pairs::new(&runtime);
    runtime.block_on(in_time(pairs.call_all(0)));
    assert_eq!(pairs.are_light(), [false; 3], "a large message takes room");
    for number in 0..6 {
        pairs.add_all(&runtime, number);
        thread::sleep(Duration::from_millis(700)); // too long for the server to call it busy, too short to be done
    }
    eventually("the rings are given back", || {
        pairs.are_light() == [true; 3]
    });
}

#[test]
fn pages_of_cancel_words_go_back() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = runtime();
    let pairs = Pairs::new(&runtime);
    runtime.block_on(in_time(async {
        let mut items = pairs.tasks[0].stream(StuckStream).await.unwrap();
        items.next().await.unwrap().unwrap();
    }));
    let mut items = pairs.threads[0].stream(StuckStream).open().unwrap();
    items.next().unwrap().unwrap();
    drop(items);
    assert!(!pairs.are_light()[2], "a cancel word lies behind the ring");
    eventually("the rings are given back", || {
        pairs.are_light() == [true; 3]
    });
}

/// The worker sleeps, and has given everything back.
#[test]
fn page_of_cancel_words_goes_back_also_if_a_handler_looks_at_it_late() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let host = Host::start("server", &[]);
    let client = blocking::Client::connect(host.name()).unwrap();
    let call = client.call(LookLate(4000)).timeout(PATIENCE);
    assert!(!call.wait().unwrap());
    eventually("the page is given back", || {
        resident_bytes(host.child.id()) <= LIGHT_USE_BYTES
    });
}

#[test]
fn ring_of_a_server_goes_back_also_when_the_client_reads_late() {
    let host = Host::start("server", &[]);
    let hello = HandHello {
        features: HandHello::GIVE_BACK,
        ..HandHello::proper()
    };
    let mut client = HandClient::connect_with(&host.place.socket(), &hello);
    let calls: u32 = 400;
    for slot in 0..calls {
        let call = Frame::new(kind::CALL, 1 << 32 | u64::from(slot), Add::TYPE.get());
        assert!(client.put(&call.body([1, 2]).bytes()));
    }
    client.publish();
    let written = || client.theirs.load(Memory::TAIL);
    eventually("the calls are answered", || written() >= 32 * calls);
    let answered = written();
    eventually("the server says that it is quiet", || written() > answered);
    thread::sleep(Duration::from_secs(2)); // to be late is what this client is about
    let server = host.child.id();
    let before = resident_bytes(server);
    // The answers lie on four pages, the first of which stays, and so does all of our own ring.
    eventually("the ring is given back", || {
        client.ours.store(Memory::HEAD, written());
        resident_bytes(server) == before - 3 * 4096
    });
}

/// Requests that are under way at once, and how large they are: more than the ring holds.
const REQUESTS: u32 = 400;
const REQUEST_BYTES: usize = 40_000;

fn request(number: u32) -> Bytes {
    (0..REQUEST_BYTES as u32)
        .map(|place| (place * 7 + number) as u8)
        .collect()
}

/// A server says nothing but that it is quiet, as fast as it can, while its client sends: the client gives back no memory with a byte in it
/// that has not been read.
#[test]
fn requests_that_are_sent_while_the_server_says_quiet_arrive_whole() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let place = Place::new();
    let listener = RawServer::listen(&place.socket());
    let runtime = runtime();
    let connecting = runtime.spawn(Client::connect(place.name()));
    let mut server = RawServer::accept_giving_back(&listener);
    let client = runtime.block_on(connecting).unwrap().unwrap();
    let senders: Vec<_> = (0..REQUESTS)
        .map(|number| {
            let client = client.clone();
            runtime.spawn(async move { client.call(Echo(request(number))).await })
        })
        .collect();
    let over = AtomicBool::new(false);
    let quiet = FrameHeader::new(FrameKind::Quiet, 0, 0);
    let say_quiet = server.flood(&RawClient::seal(quiet, &[]));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                say_quiet();
                thread::yield_now();
            }
        });
        let _over = RaiseAtEnd(&over);
        receive_all(&mut server);
    });
    assert!(!server.has_ended(), "the client has found nothing wrong");
    client.close();
    for sender in senders {
        runtime.block_on(sender).unwrap().unwrap_err();
    }
}

/// Reads all requests as they come, in pieces, and compares them.
fn receive_all(server: &mut RawServer) {
    let mut pieces: HashMap<u64, Vec<u8>> = HashMap::new();
    let mut arrived = 0;
    eventually("all requests arrive", || {
        while let Some((header, body)) = server.read() {
            let piece = match header.kind {
                FrameKind::Call
                    if header.flags.contains(Flags::MORE)
                        && !header.flags.contains(Flags::CONTINUE) =>
                {
                    &body[8..]
                }
                FrameKind::Call => &body[..],
                other => panic!("{other:?} of a client that only calls"),
            };
            let whole = pieces.entry(header.id).or_default();
            whole.extend_from_slice(piece);
            if whole.len() == REQUEST_BYTES {
                let whole = pieces.remove(&header.id).unwrap();
                let number = u32::from(whole[0]);
                assert!(
                    whole == request(number),
                    "a request has other bytes than were sent"
                );
                arrived += 1;
            }
        }
        server.wake_for_room();
        arrived == REQUESTS
    });
}

struct RaiseAtEnd<'a>(&'a AtomicBool);

impl Drop for RaiseAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

//! Loans between two processes: requests, replies, items and notifications that stay where they were written.

mod lending;

use std::{
    future::Future as _,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    task::{Poll, Wake, Waker},
    thread,
    time::Duration,
};

use doorbell::{
    CallError, Client, Code, Context, Disconnected, LoanError, Loaned, Message, MessageType,
    NotifyError, Payload, Spin, Status, blocking,
};
use doorbell_testkit::{PATIENCE, Place, eventually, mappings};
use lending::*;
use serde::{Deserialize, Serialize};

#[test]
#[ignore = "the body of the child processes"]
fn child_process() {
    serving::run();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_and_replies_are_lent_between_tasks() {
    for kind in ["tasks", "threads"] {
        let host = Host::start(kind, ENOUGH);
        in_time(async {
            let client = host.client().await;
            for length in SIZES {
                let reply = client.call(Shift(filled(&client, length).await)).await;
                let reply = reply.unwrap();
                assert!(reply.is_in_place(), "{length} bytes were copied");
                assert!(reply.copy_to_vec() == shifted(length), "{length} bytes");
            }
        })
        .await;
    }
}

#[test]
fn requests_and_replies_are_lent_between_threads() {
    for kind in ["tasks", "threads"] {
        let host = Host::start(kind, ENOUGH);
        let client = host.blocking_client();
        for length in SIZES {
            let mut loan = client.loan(length, PATIENCE).unwrap();
            loan.copy_from_slice(&pattern(length));
            let reply = client.call(Shift(loan.into())).wait().unwrap();
            assert!(reply.is_in_place(), "{length} bytes were copied");
            assert!(reply.copy_to_vec() == shifted(length), "{length} bytes");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_block_comes_back_however_its_call_ends() {
    let host = Host::start("tasks", ENOUGH);
    in_time(async {
        let client = host.client().await;
        for round in 0..300 {
            let call = client.call(Shift(filled(&client, MIB / 4).await));
            match round % 4 {
                0 => drop(call),
                1 => drop(call.send().await.unwrap()),
                2 => drop(client.loan(MIB / 4).await.unwrap()),
                _ => drop(call.await.unwrap()),
            }
        }
        let numbers = client.call(Look()).await.unwrap();
        // 300 blocks each way are 75 MiB; a few are under way at once.
        assert!(
            numbers.refused == 0 && numbers.loan_bytes <= 8 * MIB as u64,
            "{numbers:?}"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loan_waits_for_what_the_server_keeps_and_fails_when_nothing_can_help() {
    let host = Host::start("tasks", MIB as u64);
    in_time(async {
        let client = host.client().await;
        let error = client.loan(2 * MIB).await.unwrap_err();
        assert!(matches!(error, LoanError::NoRoom { bytes } if bytes == 2 * MIB as u64));
        let loan = filled(&client, MIB).await;
        assert_eq!(client.call(Keep(loan)).await.unwrap(), 1);
        assert!(matches!(
            client.try_loan(MIB),
            Err(LoanError::NoRoom { .. })
        ));
        let waiting = tokio::spawn({
            let client = client.clone();
            async move { client.loan(MIB).await.map(|loan| loan.len()) }
        });
        let waited = tokio::time::timeout(Duration::from_millis(50), client.loan(MIB)).await;
        assert!(waited.is_err(), "there is no room");
        client.call(Forget()).await.unwrap();
        assert_eq!(waiting.await.unwrap().unwrap(), MIB);
        // And again from another task's loan that is dropped unsent.
        let loan = client.loan(MIB).await.unwrap();
        let waiting = tokio::spawn({
            let client = client.clone();
            async move { client.loan(MIB).await.map(|loan| loan.len()) }
        });
        drop(loan);
        assert_eq!(waiting.await.unwrap().unwrap(), MIB);
        assert!(client.call(Look()).await.unwrap().refused > 0);
    })
    .await;
}

#[test]
fn thread_waits_for_what_the_server_keeps_until_its_deadline() {
    let host = Host::start("threads", MIB as u64);
    let client = host.blocking_client();
    let mut loan = client.loan(MIB, PATIENCE).unwrap();
    loan.copy_from_slice(&pattern(MIB));
    assert_eq!(client.call(Keep(loan.into())).wait().unwrap(), 1);
    let short = Duration::from_millis(30);
    let error = client.loan(MIB, short).unwrap_err();
    assert!(matches!(error, LoanError::DeadlineExceeded), "{error}");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| client.loan(MIB, PATIENCE).map(|loan| loan.len()));
        client.call(Forget()).wait().unwrap();
        assert_eq!(waiting.join().unwrap().unwrap(), MIB);
    });
}

/// The segment that has come is being mapped when a thread looks that was stopped before: it is not to ask for another, which the server
/// has no room for.
#[test]
fn loan_is_had_beside_busy_threads_where_there_is_room_for_one() {
    let host = Host::start("threads", MIB as u64);
    let client = host.blocking_client();
    let _busy = Busy::start(4);
    for round in 0..ROUNDS_BESIDE_BUSY_THREADS {
        let loan = client.loan(MIB, PATIENCE);
        let loan = loan.unwrap_or_else(|error| panic!("round {round}: {error}"));
        client.call(Keep(loan.into())).wait().unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| client.loan(MIB, PATIENCE).map(drop));
            client.call(Forget()).wait().unwrap();
            let waited = waiting.join().unwrap();
            waited.unwrap_or_else(|error| panic!("round {round}, waiting: {error}"));
        });
    }
}

/// Threads that want all of the machine.
struct Busy {
    is_over: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Busy {
    fn start(count: usize) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let threads = (0..count).map(|_| {
            let is_over = Arc::clone(&is_over);
            thread::spawn(move || while !is_over.load(Ordering::Relaxed) {})
        });
        Self {
            threads: threads.collect(),
            is_over,
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

const ROUNDS_BESIDE_BUSY_THREADS: usize = 30;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handler_waits_for_what_the_client_keeps() {
    for kind in ["tasks", "threads"] {
        let host = Host::start(kind, MIB as u64);
        in_time(async {
            let client = host.client().await;
            let half = MIB as u32 / 2;
            let mut items = client.stream(Produce(20, half)).await.unwrap();
            let mut before = None;
            for _ in 0..20 {
                let item = items.next().await.unwrap().unwrap();
                assert!(item.is_in_place());
                assert!(item.copy_to_vec() == pattern(half as usize));
                before = Some(item); // two fit, so that the handler waits for the one before
            }
            assert!(items.next().await.is_none());
            drop(before);
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn items_and_notifications_are_lent() {
    let host = Host::start("tasks", ENOUGH);
    in_time(async {
        let client = host.client().await;
        let mut upload = client.upload(Consume()).await.unwrap();
        for length in SIZES {
            upload.send(filled(&client, length).await).await.unwrap();
            upload.feed(filled(&client, length).await).await.unwrap();
        }
        let sum: usize = SIZES.iter().sum();
        assert_eq!(upload.finish().await.unwrap(), 2 * sum as u64);
        for _ in 0..10 {
            client.notify(Tell(filled(&client, MIB).await)).unwrap();
        }
        while client.call(Look()).await.unwrap().told < 10 {}
        // A stream that is dropped with items unread.
        for _ in 0..20 {
            let mut items = client.stream(Produce(8, MIB as u32)).await.unwrap();
            items.next().await.unwrap().unwrap();
        }
        let numbers = client.call(Look()).await.unwrap();
        assert_eq!(numbers.refused, 0, "{numbers:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_agreement_everything_works_and_is_copied() {
    let host = Host::start("tasks", 0);
    in_time(async {
        let client = host.client().await;
        for length in SIZES {
            let reply = client.call(Shift(filled(&client, length).await)).await;
            let reply = reply.unwrap();
            assert!(!reply.is_in_place());
            assert!(reply.copy_to_vec() == shifted(length), "{length} bytes");
        }
        let mut upload = client.upload(Consume()).await.unwrap();
        upload.send(filled(&client, MIB).await).await.unwrap();
        assert_eq!(upload.finish().await.unwrap(), MIB as u64);
        assert_eq!(client.call(Look()).await.unwrap().loan_bytes, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loan_for_a_type_that_knows_nothing_of_loans_is_copied_there() {
    let host = Host::start("tasks", ENOUGH);
    in_time(async {
        let client = host.client().await;
        let bytes = pattern(1000);
        let mut encoded = Vec::new();
        PlainBytes(bytes.clone()).encode(&mut encoded).unwrap();
        let mut loan = client.loan(encoded.len()).await.unwrap();
        std::io::Write::write_all(&mut loan, &encoded).unwrap();
        assert_eq!(client.call(Plain(loan.into())).await.unwrap(), bytes);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reply_outlives_its_connection_and_a_loan_travels_on_the_next() {
    let mut host = Host::start("tasks", ENOUGH);
    in_time(async {
        let client = host.client().await;
        let reply = client
            .call(Shift(filled(&client, MIB).await))
            .await
            .unwrap();
        let unsent = filled(&client, MIB).await;
        host.child.kill();
        let mut state = client.state();
        state
            .wait_for(|state| *state == doorbell::client::ConnectionState::Disconnected)
            .await
            .unwrap();
        assert!(reply.copy_to_vec() == shifted(MIB));
        host.child = Host::start_at(&host.place, "tasks", ENOUGH);
        // It lies in a segment that this server has never seen, so it is copied into the ring.
        assert_eq!(client.call(Keep(unsent)).await.unwrap(), 1);
        drop(reply);
        let reply = client
            .call(Shift(filled(&client, MIB).await))
            .await
            .unwrap();
        assert!(reply.is_in_place());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wait_for_room_ends_with_the_connection() {
    let mut host = Host::start("tasks", MIB as u64);
    in_time(async {
        let client = host.client().await;
        let loan = filled(&client, MIB).await;
        assert_eq!(client.call(Keep(loan)).await.unwrap(), 1);
        let waiting = tokio::spawn({
            let client = client.clone();
            async move { client.loan(MIB).await.map(drop) }
        });
        host.child.kill();
        let error = waiting.await.unwrap().unwrap_err();
        let LoanError::NotConnected(error) = error else {
            panic!("{error}")
        };
        assert!(
            matches!(
                &error,
                CallError::Disconnected(Disconnected::PeerGone) | CallError::NotConnected(_)
            ),
            "{error}"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_of_a_client_that_is_killed_comes_back() {
    let host = Host::start("tasks", ENOUGH);
    let mut keeper = Host::start_at(&host.place, "client", ENOUGH);
    let looker = host.blocking_client();
    let looks = || looker.call(Look()).wait().unwrap().loan_bytes;
    assert!(looks() >= 2 * MIB as u64);
    keeper.kill();
    eventually("the segments are given up", || looks() == 0);
}

/// Other tests of this program run beside this one, so the client is a process of its own. Nobody calls meanwhile: what the looker sees
/// is what the connection gives up by itself.
#[test]
fn pool_shrinks_on_both_sides_when_the_connection_sleeps() {
    for kind in ["tasks", "threads"] {
        let host = Host::start(kind, ENOUGH);
        let looker = host.blocking_client();
        let looks = || looker.call(Look()).wait().unwrap().loan_bytes;
        for client in ["burst of tasks", "burst of threads"] {
            let mut client = Host::start_at(&host.place, client, ENOUGH);
            let regions = mappings(client.id());
            let of_server = mappings(host.child.id());
            client.tell("burst");
            client.hear("DONE");
            eventually("the server gives its segments up", || {
                looks() <= KEPT_BYTES && mappings(host.child.id()) <= of_server + 2
            });
            eventually("the client unmaps them", || {
                mappings(client.id()) <= regions + 2
            });
            client.tell("burst");
            client.hear("DONE");
            client.kill();
            eventually("nothing is left", || looks() == 0);
        }
    }
}

/// What a small segment holds would add up with many connections.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connection_that_has_been_quiet_for_a_while_keeps_no_segment() {
    for kind in ["tasks", "threads"] {
        let host = Host::start(kind, ENOUGH);
        let looker = host.blocking_client();
        let looks = || looker.call(Look()).wait().unwrap().loan_bytes;
        let (threads, tasks) = (host.blocking_client(), host.client().await);
        for _ in 0..2 {
            let mut loan = threads.loan(1000, PATIENCE).unwrap();
            loan.copy_from_slice(&pattern(1000));
            let reply = threads.call(Shift(loan.into())).wait().unwrap();
            assert!(reply.copy_to_vec() == shifted(1000));
            let other = tasks.call(Shift(filled(&tasks, 1000).await)).await.unwrap();
            assert!(other.copy_to_vec() == shifted(1000));
            assert!(looks() > 0, "replies are lent");
            drop((reply, other));
            eventually("nothing is kept", || looks() == 0);
        }
    }
}

/// What a connection keeps while it sleeps for a moment: a small segment each way.
const KEPT_BYTES: u64 = 2 * 256 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn message_larger_than_the_server_accepts_is_no_loan() {
    let host = Host::start("tasks", ENOUGH);
    let client = host.client().await;
    let error = client.loan((64 << 20) + 1).await.unwrap_err();
    assert!(matches!(error, LoanError::TooLarge { .. }), "{error}");
}

/// Handlers on several threads make segments at once. What one has made for itself, another may not take before it has.
#[test]
fn room_that_is_made_for_a_handler_is_not_taken_by_another() {
    const HANDLERS: usize = 4;
    const BLOCK_BYTES: usize = 128 << 10; // two in the smallest segment
    /// Two blocks in each of 64 segments, without those that are begun at once at the end.
    const MOST_BLOCKS: usize = 128 - 4 * HANDLERS;
    let (contexts, streams) = mpsc::channel();
    let contexts = Mutex::new(contexts);
    let place = Place::new();
    let _server = blocking::Server::builder(place.name())
        .max_loan_bytes(64 << 20)
        .on_stream(
            move |context: Context, _: Produce, _: blocking::ItemSender<Loaned>| {
                let (over, until_dropped) = mpsc::channel::<()>();
                contexts.lock().unwrap().send((context, over)).unwrap();
                let _ = until_dropped.recv();
                Ok::<_, Status>(())
            },
        )
        .bind()
        .unwrap();
    for _ in 0..20 {
        let client = blocking::Client::connect(place.name()).unwrap();
        let _stream = client.stream(Produce(0, 0)).open().unwrap();
        let (context, _over) = streams.recv().unwrap();
        let taken = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..HANDLERS {
                scope.spawn(|| {
                    let mut loans = Vec::new();
                    while let Ok(loan) = context.try_loan(BLOCK_BYTES) {
                        loans.push(loan);
                        taken.fetch_add(1, Ordering::Relaxed);
                    }
                    let taken = taken.load(Ordering::Relaxed);
                    assert!(
                        taken >= MOST_BLOCKS,
                        "there is no room beside {taken} blocks"
                    );
                    loans
                });
            }
        });
    }
}

/// What it lends takes calls of the protocol, whose answers nobody else reads.
#[test]
fn thread_that_only_notifies_with_loans_has_room_for_the_next() {
    let place = Place::new();
    let told = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&told);
    let _server = blocking::Server::builder(place.name())
        .max_calls(8)
        .on_notify(move |_: Context, Tell(loan): Tell| {
            drop(loan);
            count.fetch_add(1, Ordering::Relaxed);
        })
        .bind()
        .unwrap();
    let client = blocking::Client::connect(place.name()).unwrap();
    for round in 0..40_usize {
        // Its worker may have handled all of them and not have said so yet.
        eventually("there is room for the next", || {
            let mut loan = client.loan(1000, PATIENCE).unwrap();
            loan.copy_from_slice(&pattern(1000));
            match client.notify(Tell(loan.into())) {
                Err(NotifyError::Call(CallError::TooManyCalls { .. })) => false,
                told => {
                    told.unwrap();
                    true
                }
            }
        });
        eventually("most have been handled", || {
            told.load(Ordering::Relaxed) + 3 >= round
        });
    }
}

#[derive(Serialize, Deserialize)]
struct Lend(u32);

impl Message for Lend {
    const TYPE: MessageType = MessageType::new(20);
    type Reply = Loaned;
}

/// Returns a loan of a handler, filled.
fn lent(loan: Result<doorbell::Loan, LoanError>) -> Result<Loaned, Status> {
    let mut loan = loan?;
    let bytes = pattern(loan.len());
    loan.copy_from_slice(&bytes);
    Ok(loan.into())
}

#[test]
fn replies_of_calls_in_one_go_that_nobody_takes_go_back() {
    const HALF: u32 = 512 << 10;
    let place = Place::new();
    let _server = blocking::Server::builder(place.name())
        .max_loan_bytes(1 << 20)
        .on(|context: Context, Lend(length): Lend| lent(context.try_loan(length as usize)))
        .on_stream(
            |context: Context, produce: Produce, mut out: blocking::ItemSender<Loaned>| {
                for _ in 0..produce.0 {
                    out.send(lent(context.wait_loan(produce.1 as usize))?)?;
                }
                Ok::<_, Status>(())
            },
        )
        .bind()
        .unwrap();
    let client = blocking::Client::connect(place.name()).unwrap();
    let mut replies = client.call_all([Lend(HALF), Lend(HALF)]).open().unwrap();
    let first = replies.next().unwrap().unwrap();
    assert!(first.is_in_place());
    drop(replies); // the second may have come with it
    let items = client.stream(Produce(1, HALF)).timeout(PATIENCE);
    let item = items.open().unwrap().next().unwrap();
    assert!(item.is_ok(), "{:?}", item.err());
}

/// What it would wait for comes back through this very thread.
#[test]
fn handler_on_an_io_worker_does_not_wait_for_a_block() {
    let place = Place::new();
    let _server = blocking::Server::builder(place.name())
        .workers(1)
        .max_loan_bytes(MIB as u64)
        .on(|context: Context, Lend(length): Lend| lent(context.wait_loan(length as usize)))
        .bind()
        .unwrap();
    let client = blocking::Client::connect(place.name()).unwrap();
    let call = || client.call(Lend(1 << 19)).timeout(PATIENCE).wait();
    let mut kept = Vec::new();
    let error = loop {
        match call() {
            Ok(reply) => kept.push(reply),
            Err(error) => break error,
        }
    };
    assert!(!kept.is_empty() && kept[0].is_in_place());
    assert_eq!(error.code(), Code::ResourceExhausted, "{error}");
    drop(kept);
    eventually("what was kept has come back", || call().is_ok());
}

/// It asks for room and does not wait for it; nobody else reads that there is some. A server that goes to sleep wants large segments back
/// that are not used, and rings for that, but not small ones.
#[test]
fn client_that_only_tries_has_room_a_little_later() {
    const SMALL_BYTES: u64 = 256 << 10;
    for most_bytes in [SMALL_BYTES, 4 * SMALL_BYTES] {
        let place = Place::new();
        let _server = blocking::Server::builder(place.name())
            .max_loan_bytes(most_bytes)
            .on_notify(|_: Context, Tell(loan): Tell| drop(loan))
            .bind()
            .unwrap();
        let client = blocking::Client::connect(place.name()).unwrap();
        for _ in 0..40 {
            let mut lent = None;
            eventually("there is room", || {
                lent = client.try_loan(most_bytes as usize / 4).ok();
                lent.is_some()
            });
            client.notify(Tell(lent.unwrap().into())).unwrap();
        }
    }
}

#[test]
fn room_that_was_wished_for_and_not_used_is_had_by_a_larger_loan() {
    let place = Place::new();
    let server = blocking::Server::builder(place.name())
        .max_loan_bytes(2 * MIB as u64)
        .bind()
        .unwrap();
    let client = blocking::Client::connect(place.name()).unwrap();
    for drops in [false, true] {
        match client.try_loan(MIB / 2) {
            Ok(loan) => drop(loan),
            Err(error) => assert!(matches!(error, LoanError::NoRoom { .. }), "{error}"),
        }
        eventually("there is some", || server.stats().loan_bytes > 0);
        if drops {
            drop(client.try_loan(MIB / 2));
        }
        let large = client.loan(3 * MIB / 2, PATIENCE);
        assert_eq!(large.map(|loan| loan.len()).unwrap(), 3 * MIB / 2);
    }
}

/// A thread waits for more room than there is, and asks again whenever some may have come. What another thread gives back just before it falls asleep
/// is no exception.
#[test]
fn wish_of_a_thread_that_is_about_to_sleep_is_written() {
    let place = Place::new();
    let server = blocking::Server::builder(place.name())
        .max_loan_bytes(MIB as u64 / 2)
        .bind()
        .unwrap();
    let client = blocking::Client::builder(place.name())
        .spin(Spin::Always)
        .connect()
        .unwrap();
    let loan = |bytes| client.loan(bytes, PATIENCE);
    let _kept = loan(50_000).unwrap();
    let small: Vec<_> = (0..8).map(|_| loan(10_000).unwrap()).collect();
    thread::scope(|scope| {
        let refused = || server.stats().loans_refused;
        let mut before = refused();
        let waiting = scope.spawn(|| loan(400_000));
        for small in small {
            eventually("the server has been asked, and has no room", || {
                refused() > before
            });
            client.ping(PATIENCE).unwrap(); // the client has heard of it, and spins
            before = refused();
            drop(small);
        }
        eventually("it has been asked again", || refused() > before);
        client.close();
        waiting.join().unwrap().unwrap_err();
    });
}

#[derive(Serialize, Deserialize)]
struct Noise(Vec<u8>);

impl Message for Noise {
    const TYPE: MessageType = MessageType::new(21);
    type Reply = ();
}

/// The ring is full and its reader busy, so that the call waits on this side, with the only block that there can be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn block_of_a_call_that_is_given_up_in_the_queue_is_had_by_who_waits() {
    let place = Place::new();
    let (go_on, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let is_held = Arc::new(AtomicBool::new(false));
    let holds = Arc::clone(&is_held);
    let _server = blocking::Server::builder(place.name())
        .max_loan_bytes(MIB as u64)
        .on_notify(move |_: Context, noise: Noise| {
            if noise.0.is_empty() {
                holds.store(true, Ordering::Relaxed);
                let _ = gate.lock().unwrap().recv();
            }
        })
        .on(|_: Context, Keep(_): Keep| Ok::<_, Status>(1))
        .bind()
        .unwrap();
    let _go_on = go_on; // dropped before the server, which waits for its worker
    let client = Client::builder(place.name())
        .ring_capacity_bytes(16 << 10)
        .connect()
        .await
        .unwrap();
    let loan = filled(&client, MIB).await;
    let refused = tokio::time::timeout(Duration::from_millis(200), client.loan(MIB)).await;
    assert!(refused.is_err(), "there is one");
    client.notify(Noise(Vec::new())).unwrap();
    eventually("the worker is held", || is_held.load(Ordering::Relaxed));
    while client.notify(Noise(vec![1; 1000])).is_ok() {}
    let pending = client.call(Keep(loan)).send().await.unwrap();
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut waiting = Box::pin(client.loan(MIB));
    let mut look = || {
        waiting
            .as_mut()
            .poll(&mut std::task::Context::from_waker(&waker))
    };
    assert!(look().is_pending());
    drop(pending);
    eventually("who waits is told", || woken.0.load(Ordering::Relaxed));
    assert!(matches!(look(), Poll::Ready(Ok(_))));
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

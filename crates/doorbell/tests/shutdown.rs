//! What lies in the rings when a shutdown begins, and clients that keep one waiting.

mod support;

use std::{
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use doorbell::{CallError, Client, Context, Message as _, Outcome, Raw, Server, Status, blocking};
use doorbell_testkit::{
    PATIENCE, Place,
    by_hand::{Frame, HandClient, kind},
    eventually,
};
use support::{SHORT, in_time, messages::*};

/// Keeps the only I/O worker of a server in a handler until it is opened.
#[derive(Clone, Default)]
struct Latch(Arc<(Mutex<bool>, Condvar)>);

impl Latch {
    fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    fn wait(&self) {
        let is_shut = |open: &mut bool| !*open;
        let open = self.0.0.lock().unwrap();
        let waited = self.0.1.wait_timeout_while(open, PATIENCE, is_shut);
        assert!(!waited.unwrap().1.timed_out(), "the latch stays shut");
    }
}

/// A server whose only worker can be held, and what it has been told.
struct Held {
    place: Place,
    server: blocking::Server,
    latch: Latch,
    is_held: Arc<AtomicBool>,
    remembered: Arc<AtomicU32>,
}

impl Held {
    fn new() -> Self {
        let place = Place::new();
        let (latch, is_held) = (Latch::default(), Arc::new(AtomicBool::new(false)));
        let remembered = Arc::new(AtomicU32::new(0));
        let (shut, held, counter) = (latch.clone(), Arc::clone(&is_held), Arc::clone(&remembered));
        let of_large = Arc::clone(&remembered);
        let server = blocking::Server::builder(place.name())
            .workers(1)
            .on(move |_: Context, _: Gate| {
                held.store(true, Ordering::Relaxed);
                shut.wait();
                Ok::<_, Status>(0)
            })
            .on(|_: Context, add: Add| Ok::<_, Status>(add.0 + add.1))
            .on(move |_: Context, Echo(bytes)| {
                of_large.fetch_add(1, Ordering::Relaxed);
                Ok::<_, Status>(Raw(bytes))
            })
            .on_notify(move |_: Context, _: Remember| {
                counter.fetch_add(1, Ordering::Relaxed);
            })
            .bind()
            .unwrap();
        Self {
            place,
            server,
            latch,
            is_held,
            remembered,
        }
    }

    /// Holds the worker. Returns the call that does so, with its client.
    fn hold(&self) -> (blocking::Client, blocking::PendingReply<Gate>) {
        let client = blocking::Client::connect(self.place.name()).unwrap();
        let pending = client.call(Gate).send().unwrap();
        let is_held = || self.is_held.load(Ordering::Relaxed);
        eventually("the worker is held", is_held);
        (client, pending)
    }

    fn shut_down(&self) -> thread::JoinHandle<bool> {
        let server = self.server.clone();
        thread::spawn(move || server.shutdown(PATIENCE))
    }
}

/// Connects a client that does not wait for another server when this one has gone.
fn impatient(place: &Place) -> blocking::Client {
    blocking::Client::builder(place.name())
        .reconnect_timeout(Duration::from_millis(1))
        .connect()
        .unwrap()
}

/// Waits until a client has heard that the server leaves.
fn has_heard(client: &blocking::Client) {
    eventually("the client has heard of it", || {
        let ping = client.ping(SHORT);
        matches!(
            ping,
            Err(CallError::GoingAway { .. } | CallError::NotConnected(_))
        )
    });
}

#[test]
fn what_lies_in_the_ring_when_a_shutdown_begins_is_served() {
    let held = Held::new();
    let (_holder, holding) = held.hold();
    let client = impatient(&held.place);
    let calls: Vec<_> = (0..20)
        .map(|number| client.call(Add(number, 1)).send().unwrap())
        .collect();
    for number in 0..100 {
        client.notify(Remember(number)).unwrap();
    }
    let shutdown = held.shut_down();
    has_heard(&client);
    held.latch.open();
    for (call, number) in calls.into_iter().zip(0..) {
        assert_eq!(call.wait().unwrap(), number + 1);
    }
    assert_eq!(holding.wait().unwrap(), 0);
    assert!(shutdown.join().unwrap(), "every call could end");
    assert_eq!(held.remembered.load(Ordering::Relaxed), 100);
}

/// They are larger than the ring together: most of them have not been begun when the client hears that the server leaves.
#[test]
fn what_waits_for_room_when_a_shutdown_begins_is_served() {
    let held = Held::new();
    let (_holder, holding) = held.hold();
    let client = impatient(&held.place);
    let sent = pattern(1 << 20);
    let calls: Vec<_> = (0..20)
        .map(|_| client.call(Echo(sent.clone())).send().unwrap())
        .collect();
    client.notify(Echo(sent.clone())).unwrap();
    let shutdown = held.shut_down();
    has_heard(&client);
    held.latch.open();
    for call in calls {
        assert!(call.wait().unwrap().0 == sent);
    }
    assert_eq!(holding.wait().unwrap(), 0);
    assert!(shutdown.join().unwrap(), "every call could end");
    assert_eq!(held.remembered.load(Ordering::Relaxed), 21);
}

/// The client has said long ago that it knows, but behind what it had sent, and nobody has read that.
#[test]
fn what_lies_in_the_ring_is_served_though_its_worker_is_busy_for_longer_than_a_client_may_say_nothing()
 {
    let held = Held::new();
    let (_holder, holding) = held.hold();
    let client = impatient(&held.place);
    let call = client.call(Add(1, 2)).send().unwrap();
    for number in 0..100 {
        client.notify(Remember(number)).unwrap();
    }
    let shutdown = held.shut_down();
    has_heard(&client);
    thread::sleep(2 * TIME_TO_ANSWER); // the handler computes
    held.latch.open();
    assert_eq!(call.wait().unwrap(), 3);
    assert_eq!(holding.wait().unwrap(), 0);
    assert!(shutdown.join().unwrap(), "every call could end");
    assert_eq!(held.remembered.load(Ordering::Relaxed), 100);
}

/// More than a server runs at once for one connection, and fewer than fill the ring.
const NOTIFICATIONS: u32 = 3000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notifications_that_wait_for_the_handlers_of_others_are_handled_before_a_shutdown_ends() {
    in_time(async {
        let place = Place::new();
        let gate = tokio::sync::watch::Sender::new(false);
        let handled = Arc::new(AtomicU32::new(0));
        let (open, counter) = (gate.subscribe(), Arc::clone(&handled));
        let server = Server::builder(place.name())
            .on_notify(move |_: Context, _: Remember| {
                let (mut open, counter) = (open.clone(), Arc::clone(&counter));
                async move {
                    open.wait_for(|open| *open).await.unwrap();
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            })
            .bind()
            .await
            .unwrap();
        let client = Client::connect(place.name()).await.unwrap();
        for number in 0..NOTIFICATIONS {
            client.notify(Remember(number)).unwrap();
        }
        let shutdown = tokio::spawn(async move { server.shutdown(PATIENCE).await });
        tokio::time::sleep(2 * TIME_TO_ANSWER).await; // the handlers are slow
        gate.send_replace(true);
        assert!(shutdown.await.unwrap());
        eventually("every notification is handled", || {
            handled.load(Ordering::Relaxed) == NOTIFICATIONS
        });
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_whose_calls_another_one_cuts_off_says_so() {
    in_time(async {
        let place = Place::new();
        let server = Server::builder(place.name())
            .on(|_: Context, _: Stuck| std::future::pending::<Result<(), Status>>())
            .bind()
            .await
            .unwrap();
        let client = Client::connect(place.name()).await.unwrap();
        let pending = client.call(Stuck).send().await.unwrap();
        let patient = server.clone();
        let patient = tokio::spawn(async move { patient.shutdown(PATIENCE).await });
        eventually("it has begun", || !place.socket().exists());
        assert!(!server.shutdown(SHORT).await);
        assert_eq!(pending.await.unwrap_err().outcome(), Outcome::Unknown);
        assert!(!patient.await.unwrap(), "a call could not end");
    })
    .await;
}

/// What callers and somebody who notifies have seen of a shutdown.
struct Witnesses {
    callers: Vec<thread::JoinHandle<CallError>>,
    /// With its client: what waits in that goes with it.
    notifier: thread::JoinHandle<(u32, blocking::Client)>,
}

impl Witnesses {
    /// Starts them; they have begun then.
    fn start(place: &Place) -> Self {
        let begun = Arc::new(AtomicU32::new(0));
        let callers = (0..2).map(|_| {
            let (client, begun) = (impatient(place), Arc::clone(&begun));
            thread::spawn(move || {
                begun.fetch_add(1, Ordering::Relaxed);
                loop {
                    if let Err(error) = client.call(Add(1, 2)).timeout(PATIENCE).wait() {
                        return error;
                    }
                }
            })
        });
        let callers = callers.collect();
        let (client, has_begun) = (impatient(place), Arc::clone(&begun));
        let notifier = thread::spawn(move || {
            has_begun.fetch_add(1, Ordering::Relaxed);
            let mut sent = 0;
            while client.notify(Remember(sent)).is_ok() {
                sent += 1;
            }
            (sent, client)
        });
        eventually("they have begun", || begun.load(Ordering::Relaxed) == 3);
        Self { callers, notifier }
    }

    /// Looks at what they have seen of a server that says that every call could end.
    fn end(self, remembered: &AtomicU32) {
        for caller in self.callers {
            let error = caller.join().unwrap();
            assert_eq!(error.outcome(), Outcome::NotExecuted, "{error:?}");
        }
        let (sent, _client) = self.notifier.join().unwrap();
        assert_eq!(remembered.load(Ordering::Relaxed), sent);
    }
}

#[test]
fn shutdown_of_a_server_of_threads_that_says_true_has_cut_nothing_off() {
    for _ in 0..ROUNDS {
        let held = Held::new();
        let witnesses = Witnesses::start(&held.place);
        assert!(held.server.shutdown(PATIENCE));
        witnesses.end(&held.remembered);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_of_a_server_of_tasks_that_says_true_has_cut_nothing_off() {
    in_time(async {
        for _ in 0..ROUNDS {
            let place = Place::new();
            let remembered = Arc::new(AtomicU32::new(0));
            let counter = Arc::clone(&remembered);
            let server = Server::builder(place.name())
                .on(|_: Context, add: Add| async move { Ok::<_, Status>(add.0 + add.1) })
                .on_notify(move |_: Context, _: Remember| {
                    counter.fetch_add(1, Ordering::Relaxed);
                    async {}
                })
                .bind()
                .await
                .unwrap();
            let witnesses = tokio::task::spawn_blocking(move || Witnesses::start(&place));
            let witnesses = witnesses.await.unwrap();
            assert!(server.shutdown(PATIENCE).await);
            let ended = tokio::task::spawn_blocking(move || witnesses.end(&remembered));
            ended.await.unwrap();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_are_idle_do_not_delay_a_shutdown() {
    in_time(async {
        let held = Held::new();
        let threads = [(); 3].map(|()| impatient(&held.place));
        for client in &threads {
            assert_eq!(client.call(Add(1, 2)).wait().unwrap(), 3);
        }
        let never_used = impatient(&held.place);
        let mut tasks = Vec::new();
        for _ in 0..3 {
            let client = Client::connect(held.place.name()).await.unwrap();
            assert_eq!(client.call(Add(1, 2)).await.unwrap(), 3);
            tasks.push(client);
        }
        let since = Instant::now();
        let shutdown = held.shut_down();
        let drained = tokio::task::spawn_blocking(|| shutdown.join().unwrap());
        assert!(drained.await.unwrap());
        assert!(since.elapsed() < TIME_TO_ANSWER, "{:?}", since.elapsed());
        drop(never_used);
    })
    .await;
}

#[test]
fn client_that_says_nothing_costs_a_second_and_not_the_limit() {
    let held = Held::new();
    let mut silent = HandClient::connect(&held.place.socket());
    let notify = || Frame::new(kind::NOTIFY, 0, Remember::TYPE.get()).body([1]);
    silent.send(&notify());
    let since = Instant::now();
    let shutdown = held.shut_down();
    let farewell = [(); 2].map(|()| silent.wait_for_frame().kind);
    assert_eq!(farewell, [kind::GOAWAY, kind::PING]);
    silent.send(&notify()); // it need not have read them
    assert!(shutdown.join().unwrap());
    assert!(since.elapsed() < PATIENCE / 2, "{:?}", since.elapsed());
    assert_eq!(held.remembered.load(Ordering::Relaxed), 2);
}

#[test]
fn client_that_has_answered_is_refused_what_it_calls_then() {
    let held = Held::new();
    let (_holder, holding) = held.hold();
    let mut late = HandClient::connect(&held.place.socket());
    let shutdown = held.shut_down();
    assert_eq!(late.wait_for_frame().kind, kind::GOAWAY);
    let ping = late.wait_for_frame();
    late.send(&Frame::new(kind::PONG, ping.id, 0));
    late.send(&Frame::new(kind::CALL, 1 << 32, Add::TYPE.get()).body([1, 2]));
    held.latch.open();
    assert_eq!(holding.wait().unwrap(), 0);
    assert!(shutdown.join().unwrap());
    while let Some(frame) = late.read() {
        assert_ne!(frame.kind, kind::RESPONSE, "{frame:?}");
    }
}

/// It says nothing either, and there is always something unread.
#[test]
fn client_that_floods_does_not_keep_a_shutdown_beyond_its_limit() {
    for kind in [kind::NOTIFY, kind::PONG] {
        let held = Held::new();
        let mut enemy = HandClient::connect(&held.place.socket());
        let (over, sent) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU32::new(0)),
        );
        let (stop, floods) = (Arc::clone(&over), Arc::clone(&sent));
        let flood = thread::spawn(move || {
            let value = if kind == kind::NOTIFY {
                Remember::TYPE.get()
            } else {
                0
            };
            let frame = Frame::new(kind, 0, value).bytes();
            while !stop.load(Ordering::Relaxed) {
                enemy.put(&frame);
                enemy.publish();
                floods.fetch_add(1, Ordering::Relaxed);
            }
        });
        eventually("it floods", || sent.load(Ordering::Relaxed) > 1000);
        let limit = 2 * TIME_TO_ANSWER;
        let since = Instant::now();
        held.server.shutdown(limit);
        assert!(since.elapsed() < PATIENCE / 2, "{:?}", since.elapsed());
        over.store(true, Ordering::Relaxed);
        flood.join().unwrap();
    }
}

/// What a shutdown waits for a client to say that it knows.
const TIME_TO_ANSWER: Duration = Duration::from_secs(1);

const ROUNDS: u32 = 20;

//! The user's own code runs in places that are easily forgotten: when a waker is called or dropped, when the owner of a payload is, and when
//! something is logged. It may call the same connection again there, which must neither lock up nor fail.
//!
//! (What cloning a waker runs can only be chosen by `unsafe` code, which there is none of here.)

mod support;

use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    task::{Context as TaskContext, Poll, Wake, Waker},
    thread,
    time::Duration,
};

use bytes::Bytes;
use doorbell::{
    Client, Context, Message, NotifyError, Raw, Server, Status, blocking,
    client::{ConnectionState, PendingReply},
};
use doorbell_proto::frame::{FrameHeader, FrameKind};
use doorbell_testkit::{PATIENCE, Place, RawClient, RawServer, eventually};
use support::{Host, log, messages::*, server_has_seen};
use tokio::runtime::Runtime;

#[test]
#[ignore = "the body of the child processes"]
fn child_process() {
    support::roles::run();
}

/// Runs `scenario` in a thread of its own: one that has locked itself up can only be left behind.
fn unless_stuck(scenario: impl FnOnce(Runtime) + Send + 'static) {
    let (done, ended) = mpsc::channel::<()>();
    let thread = thread::spawn(move || {
        let _done = done;
        let runtime = Runtime::new().unwrap();
        let handle = runtime.handle().clone();
        let _entered = handle.enter();
        scenario(runtime);
    });
    let waited = ended.recv_timeout(PATIENCE);
    assert_eq!(waited, Err(mpsc::RecvTimeoutError::Disconnected), "stuck");
    thread.join().unwrap();
}

/// Calls the client from wherever it is.
struct Meddler {
    client: Client,
    /// A call that it gives up.
    other: Mutex<Option<PendingReply<Stuck>>>,
    times: Arc<AtomicU32>,
}

impl Meddler {
    fn meddle(&self) {
        let notified = self.client.notify(Remember(1));
        assert!(matches!(
            notified,
            Ok(()) | Err(NotifyError::Full { .. } | NotifyError::Call(_))
        ));
        let mut call = pin!(self.client.call(Add(1, 2)).into_future());
        let _ = call
            .as_mut()
            .poll(&mut TaskContext::from_waker(Waker::noop()));
        drop(self.other.lock().unwrap().take());
        self.client.stats();
        self.times.fetch_add(1, Ordering::SeqCst);
    }
}

impl Wake for Meddler {
    fn wake(self: Arc<Self>) {
        self.meddle();
    }
}

impl Drop for Meddler {
    fn drop(&mut self) {
        self.meddle();
    }
}

/// Bytes of a user with an opinion on their end.
struct Owner<F: FnMut()> {
    bytes: Vec<u8>,
    on_drop: F,
}

impl<F: FnMut()> AsRef<[u8]> for Owner<F> {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl<F: FnMut()> Drop for Owner<F> {
    fn drop(&mut self) {
        (self.on_drop)();
    }
}

/// More than a ring takes.
const LARGE_BYTES: usize = 24 << 20;

fn owned(on_drop: impl FnMut() + Send + 'static) -> Bytes {
    Bytes::from_owner(Owner {
        bytes: vec![7; LARGE_BYTES],
        on_drop,
    })
}

fn poll_once<F: Future + Unpin>(future: &mut F, waker: &Waker) -> Poll<F::Output> {
    std::pin::Pin::new(future).poll(&mut TaskContext::from_waker(waker))
}

/// A client of a server in another process, and how often a meddler has called it.
struct Stage {
    runtime: Runtime,
    host: Host,
    client: Client,
    times: Arc<AtomicU32>,
}

/// Plays a scene, after which the client must be served as before.
fn play(scene: impl FnOnce(&mut Stage) + Send + 'static) {
    unless_stuck(move |runtime| {
        let host = Host::start("server", &[]);
        let client = runtime.block_on(Client::connect(host.name())).unwrap();
        let mut stage = Stage {
            runtime,
            host,
            client,
            times: Arc::default(),
        };
        scene(&mut stage);
        let call = stage.client.call(Add(1, 2));
        assert_eq!(stage.runtime.block_on(call.into_future()).unwrap(), 3);
    });
}

impl Stage {
    fn send<M: Message>(&self, message: M) -> PendingReply<M> {
        self.runtime
            .block_on(self.client.call(message).send())
            .unwrap()
    }

    fn meddler(&self) -> Meddler {
        Meddler {
            client: self.client.clone(),
            other: Mutex::new(Some(self.send(Stuck))),
            times: Arc::clone(&self.times),
        }
    }

    fn waker(&self) -> Waker {
        Waker::from(Arc::new(self.meddler()))
    }

    fn times(&self) -> u32 {
        self.times.load(Ordering::SeqCst)
    }

    /// Waits until the meddler has been at work so often.
    fn meddled(&self, least: u32) {
        eventually("the meddler runs", || self.times() >= least);
    }
}

#[test]
fn waker_that_is_replaced_may_call_when_it_is_dropped() {
    play(|stage| {
        let mut pending = stage.send(Stuck);
        let waker = stage.waker();
        assert!(poll_once(&mut pending, &waker).is_pending());
        drop(waker);
        assert!(poll_once(&mut pending, Waker::noop()).is_pending());
        assert_eq!(stage.times(), 1, "it was the last");
    });
}

#[test]
fn waker_of_a_call_that_is_given_up_may_call_when_it_is_dropped() {
    play(|stage| {
        let mut pending = stage.send(Stuck);
        let waker = stage.waker();
        assert!(poll_once(&mut pending, &waker).is_pending());
        drop(waker);
        drop(pending);
        assert_eq!(stage.times(), 1, "it was the last");
    });
}

#[test]
fn waker_of_a_sender_that_waits_for_credit_may_call_when_it_is_dropped() {
    play(|stage| {
        let call = stage.client.upload(StuckUpload);
        let mut upload = stage.runtime.block_on(call.into_future()).unwrap();
        let waker = stage.waker();
        while poll_once(&mut Box::pin(upload.send(vec![0; 60_000])), &waker).is_ready() {}
        drop(waker);
        drop(upload);
        assert_eq!(stage.times(), 1, "it was the last");
    });
}

#[test]
fn waker_may_call_when_it_is_woken() {
    play(|stage| {
        let mut pending = stage.send(Gate);
        let waker = stage.waker();
        assert!(poll_once(&mut pending, &waker).is_pending());
        stage.runtime.block_on(async {
            let started = Seen {
                started: 1,
                ..Seen::default()
            };
            server_has_seen(&stage.client, started).await;
            stage.client.call(Open).await.unwrap();
        });
        stage.meddled(1);
        stage.runtime.block_on(pending).unwrap();
    });
}

/// A large answer on its way wakes a task before it is there, so that it drives.
#[test]
fn waker_may_call_when_it_is_woken_to_drive() {
    play(|stage| {
        let mut pending = stage.send(Echo(pattern(LARGE_BYTES)));
        let waker = stage.waker();
        assert!(poll_once(&mut pending, &waker).is_pending());
        stage.meddled(1);
        let reply = stage.runtime.block_on(pending).unwrap();
        assert_eq!(reply.0.len(), LARGE_BYTES);
    });
}

#[test]
fn waker_that_watches_the_connection_may_call_when_it_ends() {
    play(|stage| {
        let waker = stage.waker();
        let mut state = stage.client.state();
        assert_eq!(*state.borrow_and_update(), ConnectionState::Connected);
        let mut changed = Box::pin(state.changed());
        assert!(poll_once(&mut changed, &waker).is_pending());
        stage.host.child.kill();
        stage.meddled(1);
        stage.runtime.block_on(changed).unwrap();
        stage.host.restart("server");
    });
}

#[test]
fn payload_may_call_when_its_last_byte_is_sent() {
    play(|stage| {
        let meddler = stage.meddler();
        let pending = stage.send(Echo(owned(move || meddler.meddle())));
        let reply = stage.runtime.block_on(pending).unwrap();
        assert_eq!(reply.0.len(), LARGE_BYTES);
        stage.meddled(2);
    });
}

#[test]
fn payload_of_a_call_that_is_given_up_may_call() {
    play(|stage| {
        let meddler = stage.meddler();
        drop(stage.send(Echo(owned(move || meddler.meddle()))));
        stage.meddled(2);
    });
}

#[test]
fn payload_of_a_thread_may_call_when_its_last_byte_is_sent() {
    play(|stage| {
        let client = blocking::Client::connect(stage.host.name()).unwrap();
        let times = Arc::new(AtomicU32::new(0));
        let payload = owned({
            let (client, times) = (client.clone(), Arc::clone(&times));
            move || {
                client.notify(Remember(1)).unwrap();
                drop(client.call(Stuck).send().unwrap());
                // It may be the thread that drives: nobody reads the answer then.
                let _ = client
                    .call(Add(1, 2))
                    .timeout(Duration::from_millis(1))
                    .wait();
                times.fetch_add(1, Ordering::SeqCst);
            }
        });
        let reply = client.call(Echo(payload)).send().unwrap().wait().unwrap();
        assert_eq!(
            (reply.0.len(), times.load(Ordering::SeqCst)),
            (LARGE_BYTES, 1)
        );
        assert_eq!(client.call(Add(1, 2)).wait().unwrap(), 3);
    });
}

#[test]
fn payload_of_a_handler_may_use_its_context_when_its_last_byte_is_sent() {
    unless_stuck(move |runtime| {
        let (place, times) = (Place::new(), Arc::new(AtomicU32::new(0)));
        let counted = Arc::clone(&times);
        let answer = move |context: Context, _: Echo| {
            let times = Arc::clone(&counted);
            let payload = owned(move || {
                drop(context.try_loan(1));
                times.fetch_add(1, Ordering::SeqCst);
            });
            async move { Ok::<_, Status>(Raw(payload)) }
        };
        let builder = Server::builder(place.name()).on(answer);
        let _server = runtime.block_on(builder.bind()).unwrap();
        let client = runtime.block_on(Client::connect(place.name())).unwrap();
        let call = client.call(Echo(Bytes::new()));
        assert_eq!(
            runtime.block_on(call.into_future()).unwrap().0.len(),
            LARGE_BYTES
        );
        eventually("the payload is dropped", || {
            times.load(Ordering::SeqCst) == 1
        });
    });
}

/// A client of threads logs what a server does that breaks the protocol, and the end of the connection: whoever hears of it waits for an answer of
/// that client and makes another one.
#[test]
fn listener_to_the_log_may_call_when_it_hears() {
    unless_stuck(|_| {
        let (place, honest) = (Place::new(), Host::start("server", &[]));
        let listener = RawServer::listen(&place.socket());
        let breaking = thread::spawn(move || {
            let mut server = RawServer::accept(&listener);
            // Who waits for the second call hears of it; before that it could be the thread that watches connections.
            for call in ["the first call", "the second call"] {
                eventually(call, || server.read().is_some());
            }
            let reply = FrameHeader::new(FrameKind::Response, 0, 0);
            server.push(&RawClient::seal(reply, &[]), &[]);
            server.ring();
            server.wait_for_end();
        });
        let builder = blocking::Client::builder(place.name());
        let client = builder.reconnect_timeout(Duration::ZERO).connect().unwrap();
        let pending = Mutex::new(Some(client.call(Stuck).send().unwrap()));
        let heard = Arc::new(Mutex::new(Vec::new()));
        log::listen({
            let (client, heard, name) = (client.clone(), Arc::clone(&heard), honest.name());
            let this = thread::current().id();
            move |said| {
                if thread::current().id() != this {
                    return; // of another test
                }
                drop(pending.lock().unwrap().take());
                client.call(Add(1, 2)).wait().unwrap_err();
                let other = blocking::Client::connect(&*name).unwrap();
                assert_eq!(other.call(Add(1, 2)).wait().unwrap(), 3);
                heard.lock().unwrap().push(said.to_owned());
            }
        });
        client.call(Add(1, 2)).wait().unwrap_err();
        breaking.join().unwrap();
        let heard = heard.lock().unwrap();
        for said in [
            "connection ended with calls under way",
            "closed the connection",
        ] {
            assert!(heard.iter().any(|heard| heard == said), "{heard:?}");
        }
    });
}

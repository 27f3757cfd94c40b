//! The user's own code runs in places that are easily forgotten: when a waker is called or dropped, and when the owner of a payload is. It may
//! call the same connection again there, which must neither lock up nor fail.
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
    Client, Context, NotifyError, Raw, Server, Status, blocking,
    client::{ConnectionState, PendingReply},
};
use doorbell_testkit::{PATIENCE, Place};
use support::{Host, messages::*, server_has_seen};
use tokio::runtime::Runtime;

#[test]
#[ignore = "the body of the child processes"]
fn child_process() {
    support::roles::run();
}

/// Runs `scenario` in a thread of its own: one that has locked itself up can only be left behind.
fn unless_stuck(scenario: impl FnOnce(&Runtime) + Send + 'static) {
    let (done, ended) = mpsc::channel::<()>();
    let thread = thread::spawn(move || {
        let _done = done;
        let runtime = Runtime::new().unwrap();
        let _entered = runtime.enter();
        scenario(&runtime);
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
    fn new(runtime: &Runtime, client: &Client, times: &Arc<AtomicU32>) -> Self {
        let other = runtime.block_on(client.call(Stuck).send()).unwrap();
        Self {
            client: client.clone(),
            other: Mutex::new(Some(other)),
            times: Arc::clone(times),
        }
    }

    fn waker(runtime: &Runtime, client: &Client, times: &Arc<AtomicU32>) -> Waker {
        Waker::from(Arc::new(Self::new(runtime, client, times)))
    }

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

/// Waits until the meddler has been at work so often.
fn meddled(times: &AtomicU32, least: u32) {
    doorbell_testkit::eventually("the waker runs", || times.load(Ordering::SeqCst) >= least);
}

#[test]
fn waker_that_is_replaced_may_call_when_it_is_dropped() {
    let host = Host::start("server", &[]);
    let name = host.name();
    unless_stuck(move |runtime| {
        let client = runtime.block_on(Client::connect(name)).unwrap();
        let times = Arc::default();
        let mut pending = runtime.block_on(client.call(Stuck).send()).unwrap();
        let waker = Meddler::waker(runtime, &client, &times);
        assert!(poll_once(&mut pending, &waker).is_pending());
        drop(waker);
        assert!(poll_once(&mut pending, Waker::noop()).is_pending());
        assert_eq!(times.load(Ordering::SeqCst), 1, "it was the last");
        assert_eq!(
            runtime
                .block_on(client.call(Add(1, 2)).into_future())
                .unwrap(),
            3
        );
    });
}

#[test]
fn waker_of_a_call_that_is_given_up_may_call_when_it_is_dropped() {
    let host = Host::start("server", &[]);
    let name = host.name();
    unless_stuck(move |runtime| {
        let client = runtime.block_on(Client::connect(name)).unwrap();
        let times = Arc::default();
        let mut pending = runtime.block_on(client.call(Stuck).send()).unwrap();
        let waker = Meddler::waker(runtime, &client, &times);
        assert!(poll_once(&mut pending, &waker).is_pending());
        drop(waker);
        drop(pending);
        assert_eq!(times.load(Ordering::SeqCst), 1, "it was the last");
        assert_eq!(
            runtime
                .block_on(client.call(Add(1, 2)).into_future())
                .unwrap(),
            3
        );
    });
}

#[test]
fn waker_of_a_sender_that_waits_for_credit_may_call_when_it_is_dropped() {
    let host = Host::start("server", &[]);
    let name = host.name();
    unless_stuck(move |runtime| {
        let client = runtime.block_on(Client::connect(name)).unwrap();
        let times = Arc::default();
        let mut upload = runtime
            .block_on(client.upload(StuckUpload).into_future())
            .unwrap();
        let waker = Meddler::waker(runtime, &client, &times);
        while poll_once(&mut Box::pin(upload.send(vec![0; 60_000])), &waker).is_ready() {}
        drop(waker);
        drop(upload);
        assert_eq!(times.load(Ordering::SeqCst), 1, "it was the last");
        assert_eq!(
            runtime
                .block_on(client.call(Add(1, 2)).into_future())
                .unwrap(),
            3
        );
    });
}

#[test]
fn waker_may_call_when_it_is_woken() {
    let host = Host::start("server", &[]);
    let name = host.name();
    unless_stuck(move |runtime| {
        let client = runtime.block_on(Client::connect(name)).unwrap();
        let times = Arc::default();
        let mut pending = runtime.block_on(client.call(Gate).send()).unwrap();
        let waker = Meddler::waker(runtime, &client, &times);
        assert!(poll_once(&mut pending, &waker).is_pending());
        runtime.block_on(async {
            server_has_seen(
                &client,
                Seen {
                    started: 1,
                    ..Seen::default()
                },
            )
            .await;
            client.call(Open).await.unwrap();
        });
        meddled(&times, 1);
        runtime.block_on(pending).unwrap();
    });
}

/// A large answer on its way wakes a task before it is there, so that it drives.
#[test]
fn waker_may_call_when_it_is_woken_to_drive() {
    let host = Host::start("server", &[]);
    let name = host.name();
    unless_stuck(move |runtime| {
        let client = runtime.block_on(Client::connect(name)).unwrap();
        let times = Arc::default();
        let echo = Echo(pattern(LARGE_BYTES));
        let mut pending = runtime.block_on(client.call(echo).send()).unwrap();
        let waker = Meddler::waker(runtime, &client, &times);
        assert!(poll_once(&mut pending, &waker).is_pending());
        meddled(&times, 1);
        assert_eq!(runtime.block_on(pending).unwrap().0.len(), LARGE_BYTES);
    });
}

#[test]
fn waker_that_watches_the_connection_may_call_when_it_ends() {
    let mut host = Host::start("server", &[]);
    let name = host.name();
    unless_stuck(move |runtime| {
        let client = runtime.block_on(Client::connect(name)).unwrap();
        let times = Arc::default();
        let waker = Meddler::waker(runtime, &client, &times);
        let mut state = client.state();
        assert_eq!(*state.borrow_and_update(), ConnectionState::Connected);
        let mut changed = Box::pin(state.changed());
        assert!(poll_once(&mut changed, &waker).is_pending());
        host.child.kill();
        meddled(&times, 1);
        runtime.block_on(changed).unwrap();
        host.restart("server");
        assert_eq!(
            runtime
                .block_on(client.call(Add(1, 2)).into_future())
                .unwrap(),
            3
        );
        drop(waker);
    });
}

#[test]
fn payload_may_call_when_its_last_byte_is_sent() {
    let host = Host::start("server", &[]);
    let name = host.name();
    unless_stuck(move |runtime| {
        let client = runtime.block_on(Client::connect(name)).unwrap();
        let times = Arc::default();
        let meddler = Meddler::new(runtime, &client, &times);
        let payload = owned(move || meddler.meddle());
        let pending = runtime.block_on(client.call(Echo(payload)).send()).unwrap();
        assert_eq!(runtime.block_on(pending).unwrap().0.len(), LARGE_BYTES);
        meddled(&times, 2);
    });
}

#[test]
fn payload_of_a_call_that_is_given_up_may_call() {
    let host = Host::start("server", &[]);
    let name = host.name();
    unless_stuck(move |runtime| {
        let client = runtime.block_on(Client::connect(name)).unwrap();
        let times = Arc::default();
        let meddler = Meddler::new(runtime, &client, &times);
        let payload = owned(move || meddler.meddle());
        let pending = runtime.block_on(client.call(Echo(payload)).send()).unwrap();
        drop(pending);
        meddled(&times, 2);
        assert_eq!(
            runtime
                .block_on(client.call(Add(1, 2)).into_future())
                .unwrap(),
            3
        );
    });
}

#[test]
fn payload_of_a_thread_may_call_when_its_last_byte_is_sent() {
    let host = Host::start("server", &[]);
    let name = host.name();
    unless_stuck(move |_| {
        let client = blocking::Client::connect(name).unwrap();
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
        meddled(&times, 1);
    });
}

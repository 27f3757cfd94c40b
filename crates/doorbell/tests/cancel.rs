//! What a caller gives up reaches the handler in the other process.

mod support;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
    mpsc,
};

use doorbell::{CallError, Client, Code, Context, Message as _, Outcome, Status, blocking};
use doorbell_proto::frame::{CallId, FrameHeader, FrameKind};
use doorbell_testkit::{
    Child, PATIENCE, Place, RawServer,
    by_hand::{Frame, HandClient, HandHello, Memory, flags, kind},
    eventually, role, say, setting, wait_for_parent,
};
use support::{Host, SHORT, in_time, messages::*, server_has_seen};

#[test]
#[ignore = "the body of the child processes"]
fn child_process() {
    match role().as_deref() {
        Some("give up") => give_up(),
        _ => support::roles::run(),
    }
}

/// Says what it does with one slot when it is told to go on.
struct Slot {
    client: HandClient,
    generation: u32,
}

impl Slot {
    const NUMBER: u32 = 3;

    fn word() -> u64 {
        let ring = HandHello::proper().ring_capacity_bytes;
        Memory::RING + u64::from(ring) + 4 * u64::from(Self::NUMBER)
    }

    fn id(&self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(Self::NUMBER)
    }

    fn call(&mut self) {
        self.generation += 1;
        let call = Frame::new(kind::CALL, self.id(), Count::TYPE.get());
        self.client.send(&call.flags(flags::STREAMING).body([1]));
        wait_for_parent();
    }

    fn give_up(&mut self) {
        self.client.ours.store(Self::word(), self.generation);
        self.client.send(&Frame::new(kind::CANCEL, self.id(), 0));
        self.client.ping(); // it has been read
        say("GIVEN UP");
        wait_for_parent();
    }
}

/// Gives up one call after the other, then the memory that says so.
fn give_up() {
    let mut slot = Slot {
        client: HandClient::connect(setting("path").as_ref()),
        generation: 0,
    };
    for _ in 0..CALLS {
        slot.call();
        slot.give_up();
    }
    slot.client.ours.store(Slot::word(), 0);
    say("GIVEN BACK");
    wait_for_parent();
}

/// Calls of one slot.
const CALLS: u32 = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_a_call_drops_its_handler() {
    let host = Host::start("server", &[]);
    in_time(async {
        let client = host.client().await;
        let pending = client.call(Stuck).send().await.unwrap();
        server_has_seen(
            &client,
            Seen {
                started: 1,
                ..Seen::default()
            },
        )
        .await;
        assert_eq!(
            client.call(Look).await.unwrap().dropped,
            0,
            "it is dropped only when the caller says so"
        );
        drop(pending);
        server_has_seen(
            &client,
            Seen {
                dropped: 1,
                ..Seen::default()
            },
        )
        .await;
        assert_eq!(client.call(Add(1, 2)).await.unwrap(), 3);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aborting_the_task_of_a_call_drops_its_handler() {
    let host = Host::start("server", &[]);
    in_time(async {
        let client = host.client().await;
        let caller = client.clone();
        let task = tokio::spawn(async move { caller.call(Stuck).await });
        server_has_seen(
            &client,
            Seen {
                started: 1,
                ..Seen::default()
            },
        )
        .await;
        task.abort();
        server_has_seen(
            &client,
            Seen {
                dropped: 1,
                ..Seen::default()
            },
        )
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_a_stream_drops_its_handler() {
    let host = Host::start("server", &[]);
    in_time(async {
        let client = host.client().await;
        let mut items = client.stream(StuckStream).await.unwrap();
        assert_eq!(items.next().await.unwrap().unwrap(), 1);
        drop(items);
        server_has_seen(
            &client,
            Seen {
                started: 1,
                dropped: 1,
                ..Seen::default()
            },
        )
        .await;
        assert_eq!(client.call(Add(1, 2)).await.unwrap(), 3);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_an_upload_drops_its_handler() {
    let host = Host::start("server", &[]);
    in_time(async {
        let client = host.client().await;
        let mut upload = client.upload(StuckUpload).await.unwrap();
        upload.send(vec![1; 100]).await.unwrap();
        server_has_seen(
            &client,
            Seen {
                started: 1,
                ..Seen::default()
            },
        )
        .await;
        drop(upload);
        server_has_seen(
            &client,
            Seen {
                dropped: 1,
                ..Seen::default()
            },
        )
        .await;
        assert_eq!(client.call(Add(1, 2)).await.unwrap(), 3);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_the_client_drops_the_handlers_of_its_calls() {
    let host = Host::start("server", &[]);
    in_time(async {
        let (client, witness) = (host.client().await, host.client().await);
        let pending = client.call(Stuck).send().await.unwrap();
        server_has_seen(
            &witness,
            Seen {
                started: 1,
                ..Seen::default()
            },
        )
        .await;
        client.close();
        let error = pending.await.unwrap_err();
        assert_eq!(
            (error.code(), error.outcome()),
            (Code::Unavailable, Outcome::Unknown),
            "{error}"
        );
        server_has_seen(
            &witness,
            Seen {
                dropped: 1,
                ..Seen::default()
            },
        )
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handler_that_computes_sees_that_its_call_was_dropped() {
    let host = Host::start("server", &[]);
    in_time(async {
        let client = host.client().await;
        let pending = client.call(Busy).send().await.unwrap();
        server_has_seen(
            &client,
            Seen {
                busy: 1,
                ..Seen::default()
            },
        )
        .await;
        drop(pending);
        server_has_seen(
            &client,
            Seen {
                cancelled_while_busy: 1,
                ..Seen::default()
            },
        )
        .await;
    })
    .await;
}

/// A server whose handlers give their contexts away and go on until told.
struct Stubborn {
    _server: blocking::Server,
    contexts: mpsc::Receiver<Context>,
    is_over: Arc<AtomicBool>,
}

impl Stubborn {
    fn serve(place: &Place) -> Self {
        let (tell, contexts) = mpsc::channel();
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let server = blocking::Server::builder(place.name())
            .on_stream(
                move |context: Context, _: Count, _: blocking::ItemSender<u32>| {
                    tell.send(context).unwrap();
                    while !over.load(Ordering::Relaxed) {
                        std::thread::yield_now();
                    }
                    Ok::<_, Status>(())
                },
            )
            .bind()
            .unwrap();
        Self {
            _server: server,
            contexts,
            is_over,
        }
    }

    fn next(&self) -> Context {
        self.contexts.recv_timeout(PATIENCE).expect("a handler")
    }
}

impl Drop for Stubborn {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

#[test]
fn call_that_was_given_up_stays_so_whatever_becomes_of_its_cancel_word() {
    let place = Place::new();
    let server = Stubborn::serve(&place);
    let settings = [("path", &*place.name())];
    let mut child = Child::start("child_process", "give up", &settings);
    let mut given_up = Vec::new();
    for _ in 0..CALLS {
        let context = server.next();
        assert!(!context.is_cancelled());
        child.tell("GO");
        child.hear("GIVEN UP");
        given_up.push(context);
        assert!(given_up.iter().all(Context::is_cancelled));
        child.tell("GO ON");
    }
    child.hear("GIVEN BACK");
    assert!(given_up.iter().all(Context::is_cancelled));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_resolves_when_the_stream_is_dropped() {
    let host = Host::start("server", &[]);
    in_time(async {
        let client = host.client().await;
        let mut items = client.stream(Watching).await.unwrap();
        assert_eq!(items.next().await.unwrap().unwrap(), 1);
        assert_eq!(client.call(Look).await.unwrap().told, 0);
        drop(items);
        server_has_seen(
            &client,
            Seen {
                told: 1,
                ..Seen::default()
            },
        )
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn call_in_a_slot_that_was_cancelled_before_is_not_cancelled() {
    let host = Host::start("server", &[]);
    in_time(async {
        let client = host.client().await;
        for number in 0..200 {
            drop(client.call(Stuck).send().await.unwrap());
            assert_eq!(client.call(Add(number, 1)).await.unwrap(), number + 1);
            let busy = client.call(Gate).send().await.unwrap();
            drop(busy);
        }
        server_has_seen(
            &client,
            Seen {
                started: 400,
                dropped: 400,
                ..Seen::default()
            },
        )
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_client_drops_the_handlers_of_its_calls() {
    let host = Host::start("server", &[]);
    in_time(async {
        let witness = host.client().await;
        let name = host.name();
        let mut other =
            doorbell_testkit::Child::start("child_process", "caller", &[("path", &name)]);
        server_has_seen(
            &witness,
            Seen {
                started: 1,
                busy: 1,
                ..Seen::default()
            },
        )
        .await;
        other.kill();
        server_has_seen(
            &witness,
            Seen {
                dropped: 1,
                cancelled_while_busy: 1,
                ..Seen::default()
            },
        )
        .await;
    })
    .await;
}

/// Returns a client whose ring is full, and its server.
async fn client_without_room(place: &Place) -> (Client, RawServer) {
    let listener = RawServer::listen(&place.socket());
    let builder = Client::builder(place.name()).ring_capacity_bytes(4096);
    let connecting = tokio::spawn(builder.connect());
    let server = RawServer::accept(&listener);
    let client = connecting.await.unwrap().unwrap();
    while client.notify(Remember(0)).is_ok() {}
    (client, server)
}

/// Reads until a frame comes that is no notification.
fn next_frame(server: &mut RawServer) -> FrameHeader {
    let mut frame = None;
    eventually("the client sends a frame", || {
        frame = server.read().map(|(header, _)| header);
        server.wake_for_room();
        frame.is_some_and(|header| header.kind != FrameKind::Notify)
    });
    frame.unwrap()
}

/// A call that is given up while it waits for room has never been: its id is that of the next call, which nobody has cancelled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn call_after_one_that_was_given_up_unsent_is_not_cancelled() {
    async fn drop_it(client: &Client) {
        drop(client.call(Stuck).send().await.unwrap());
    }
    async fn let_it_expire(client: &Client) {
        let error = client.call(Stuck).timeout(SHORT).await.unwrap_err();
        assert!(matches!(error, CallError::DeadlineExceeded), "{error:?}");
    }
    in_time(async {
        for expires in [false, true] {
            let place = Place::new();
            let (client, mut server) = client_without_room(&place).await;
            if expires {
                let_it_expire(&client).await;
            } else {
                drop_it(&client).await;
            }
            let _next = client.call(Gate).send().await.unwrap();
            let call = next_frame(&mut server);
            assert_eq!((call.kind, call.value), (FrameKind::Call, Gate::TYPE.get()));
            let id = CallId::from_raw(call.id);
            assert_ne!(
                server.cancel_generation(id.slot()),
                id.generation(),
                "expires: {expires}"
            );
        }
    })
    .await;
}

/// As above: whoever has a half of the call that was given up cannot end the items of the next one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_of_a_stream_that_was_given_up_unsent_leaves_the_next_alone() {
    in_time(async {
        let place = Place::new();
        let (client, mut server) = client_without_room(&place).await;
        let (upload, doubled) = client.bidi(Double).await.unwrap();
        drop(doubled);
        let (mut next, _doubled) = client.bidi(Double).await.unwrap();
        drop(upload);
        next.send(1).await.unwrap();
        assert_eq!(next_frame(&mut server).kind, FrameKind::Call);
        assert_eq!(next_frame(&mut server).kind, FrameKind::Data);
        next.finish();
        assert_eq!(next_frame(&mut server).kind, FrameKind::End);
    })
    .await;
}

//! What a caller gives up reaches the handler in the other process.

mod support;

use doorbell::{CallError, Client, Code, Message as _, Outcome};
use doorbell_proto::frame::{CallId, FrameHeader, FrameKind};
use doorbell_testkit::{Place, RawServer, eventually};
use support::{Host, SHORT, in_time, messages::*, server_has_seen};

#[test]
#[ignore = "the body of the child processes"]
fn child_process() {
    support::roles::run();
}

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

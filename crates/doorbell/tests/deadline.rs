//! Deadlines end calls on both sides, and travel with nested calls.

mod support;

use std::{
    sync::{Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use doorbell::{CallError, Client, Code, Context, ItemError, Outcome, Server, Status, blocking};
use doorbell_proto::frame::FrameKind;
use doorbell_testkit::{PATIENCE, Place, RawServer, eventually};
use support::{Host, SHORT, in_time, messages::*, server_has_seen};

#[test]
#[ignore = "the body of the child processes"]
fn child_process() {
    support::roles::run();
}

fn assert_exceeded(error: &CallError) {
    assert!(matches!(error, CallError::DeadlineExceeded), "{error:?}");
    assert_eq!(
        (error.code(), error.outcome()),
        (Code::DeadlineExceeded, Outcome::Unknown)
    );
    assert!(!error.is_retryable());
}

fn assert_not_sent(error: &CallError) {
    assert!(matches!(error, CallError::DeadlineBeforeSend), "{error:?}");
    assert_eq!(
        (error.code(), error.outcome()),
        (Code::DeadlineExceeded, Outcome::NotExecuted)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn call_past_its_deadline_ends_on_both_sides() {
    let host = Host::start("server", &[]);
    in_time(async {
        let client = host.client().await;
        let begun = Instant::now();
        let error = client.call(Stuck).timeout(SHORT).await.unwrap_err();
        assert!(begun.elapsed() >= SHORT, "not before the deadline");
        assert_exceeded(&error);
        server_has_seen(
            &client,
            Seen {
                started: 1,
                dropped: 1,
                ..Seen::default()
            },
        )
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stream_past_its_deadline_ends_on_both_sides() {
    let host = Host::start("server", &[]);
    in_time(async {
        let client = host.client().await;
        let mut items = client.stream(StuckStream).timeout(SHORT).await.unwrap();
        assert_eq!(items.next().await.unwrap().unwrap(), 1);
        assert_exceeded(&items.next().await.unwrap().unwrap_err());
        assert!(items.next().await.is_none(), "nothing follows the error");
        server_has_seen(
            &client,
            Seen {
                started: 1,
                dropped: 1,
                ..Seen::default()
            },
        )
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handler_of_a_caller_that_does_not_look_is_dropped_at_the_deadline() {
    let host = Host::start("server", &[]);
    in_time(async {
        let (client, witness) = (host.client().await, host.client().await);
        let pending = client.call(Stuck).timeout(SHORT).send().await.unwrap();
        // Nobody polls the reply: the server has its own clock.
        server_has_seen(
            &witness,
            Seen {
                started: 1,
                dropped: 1,
                ..Seen::default()
            },
        )
        .await;
        assert_exceeded(&pending.await.unwrap_err());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handler_that_computes_sees_the_deadline() {
    let host = Host::start("server", &[]);
    in_time(async {
        let client = host.client().await;
        // Both clocks end at the same moment: what the handler answers when it sees that may be just in time.
        if let Err(error) = client.call(Busy).timeout(SHORT).await {
            assert_exceeded(&error);
        }
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
async fn upload_whose_items_nobody_takes_ends_at_the_deadline() {
    let host = Host::start("server", &[]);
    in_time(async {
        let client = host.client().await;
        let mut upload = client.upload(StuckUpload).timeout(SHORT).await.unwrap();
        let mut sent = 0;
        // The window fills; then the deadline must end the wait for credit.
        while upload.send(vec![0; 10_000]).await.is_ok() {
            sent += 1;
            assert!(sent < 1000, "items go on although nobody takes them");
        }
        assert_exceeded(&upload.finish().await.unwrap_err());
        server_has_seen(
            &client,
            Seen {
                started: 1,
                dropped: 1,
                ..Seen::default()
            },
        )
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deadline_that_has_passed_is_not_sent() {
    let host = Host::start("server", &[]);
    in_time(async {
        let client = host.client().await;
        assert_not_sent(
            &client
                .call(Stuck)
                .deadline(Instant::now())
                .await
                .unwrap_err(),
        );
        assert_not_sent(
            &client
                .call(Stuck)
                .timeout(Duration::ZERO)
                .await
                .unwrap_err(),
        );
        let error = client
            .stream(StuckStream)
            .timeout(Duration::ZERO)
            .await
            .unwrap_err();
        assert_not_sent(&error);
        assert_eq!(
            client.call(Look).await.unwrap(),
            Seen::default(),
            "no handler has run"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deadline_that_passes_while_the_server_is_away_was_not_sent() {
    let place = doorbell_testkit::Place::new();
    in_time(async {
        let client = Client::builder(place.name()).lazy().unwrap();
        let error = client.call(Stuck).timeout(SHORT).await.unwrap_err();
        assert_eq!(error.outcome(), Outcome::NotExecuted, "{error}");
        assert!(
            matches!(
                error,
                CallError::DeadlineBeforeSend | CallError::NotConnected(_)
            ),
            "{error:?}"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn earlier_of_two_deadlines_counts() {
    let host = Host::start("server", &[]);
    in_time(async {
        let client = host.client().await;
        let call = client
            .call(Stuck)
            .timeout(SHORT)
            .timeout(Duration::from_secs(1000));
        assert_exceeded(&call.await.unwrap_err());
        let left = client
            .call(TimeLeft)
            .timeout(Duration::from_secs(1000))
            .timeout(Duration::from_secs(5))
            .await;
        assert!(left.unwrap().unwrap() <= 5000);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nested_call_ends_with_the_call_that_it_serves() {
    let host = Host::start("server", &[]);
    in_time(async {
        let client = host.client().await;
        assert_exceeded(&client.call(Nested).timeout(SHORT * 4).await.unwrap_err());
        // The nested call, of which this process knows nothing, has ended too.
        server_has_seen(
            &client,
            Seen {
                started: 1,
                dropped: 1,
                ..Seen::default()
            },
        )
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_a_call_ends_the_calls_nested_in_it() {
    let host = Host::start("server", &[]);
    in_time(async {
        let client = host.client().await;
        let pending = client.call(Nested).send().await.unwrap();
        server_has_seen(
            &client,
            Seen {
                started: 1,
                ..Seen::default()
            },
        )
        .await;
        drop(pending);
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

#[test]
fn call_of_a_thread_past_its_deadline_ends_on_both_sides() {
    let host = Host::start("server", &[]);
    let client = blocking::Client::connect(host.name()).unwrap();
    assert_exceeded(&client.call(Stuck).timeout(SHORT).wait().unwrap_err());
    let mut items = client.stream(StuckStream).timeout(SHORT).open().unwrap();
    assert_eq!(items.next().unwrap().unwrap(), 1);
    assert_exceeded(&items.next().unwrap().unwrap_err());
    assert!(items.next().is_none());
    assert_not_sent(
        &client
            .call(Stuck)
            .timeout(Duration::ZERO)
            .wait()
            .unwrap_err(),
    );
    let seen = Seen {
        started: 2,
        dropped: 2,
        ..Seen::default()
    };
    client
        .call(WaitFor(seen))
        .timeout(doorbell_testkit::PATIENCE)
        .wait()
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_that_are_never_reached_are_as_good_as_none_for_tasks() {
    in_time(async {
        let place = Place::new();
        let server = Server::builder(place.name())
            .handshake_timeout(Duration::MAX)
            .idle_timeout(Duration::MAX)
            .on(|_: Context, add: Add| async move { Ok::<_, Status>(add.0 + add.1) })
            .bind()
            .await
            .unwrap();
        let builder = || {
            Client::builder(place.name())
                .handshake_timeout(Duration::MAX)
                .wait_for_server(Duration::MAX)
                .reconnect_timeout(Duration::MAX)
        };
        for client in [
            builder().connect().await.unwrap(),
            builder().lazy().unwrap(),
        ] {
            let sum = client.call(Add(1, 2)).timeout(Duration::MAX).await;
            assert_eq!(sum.unwrap(), 3);
            let sent = client.call(Add(1, 2)).timeout(Duration::MAX).send().await;
            assert_eq!(sent.unwrap().await.unwrap(), 3);
        }
        assert!(server.shutdown(Duration::MAX).await);
    })
    .await;
}

#[test]
fn limits_that_are_never_reached_are_as_good_as_none_for_threads() {
    let place = Place::new();
    let server = blocking::Server::builder(place.name())
        .handshake_timeout(Duration::MAX)
        .idle_timeout(Duration::MAX)
        .on(|_: Context, add: Add| Ok::<_, Status>(add.0 + add.1))
        .bind()
        .unwrap();
    let builder = || {
        blocking::Client::builder(place.name())
            .handshake_timeout(Duration::MAX)
            .wait_for_server(Duration::MAX)
            .reconnect_timeout(Duration::MAX)
    };
    for client in [builder().connect().unwrap(), builder().lazy().unwrap()] {
        let sum = client.call(Add(1, 2)).timeout(Duration::MAX).wait();
        assert_eq!(sum.unwrap(), 3);
        let sent = client.call(Add(1, 2)).timeout(Duration::MAX).send();
        assert_eq!(sent.unwrap().wait().unwrap(), 3);
        client.ping(Duration::MAX).unwrap();
    }
    assert!(server.shutdown(Duration::MAX));
}

/// The caller neither sends nor reads, nor gives up.
#[test]
fn handler_of_a_thread_waits_for_items_until_the_deadline() {
    let place = Place::new();
    let (ended, end) = mpsc::channel();
    let _server = blocking::Server::builder(place.name())
        .on_upload(
            move |_: Context, _: StuckUpload, mut items: blocking::ItemStream<Vec<u8>>| {
                ended.send(items.next()).unwrap();
                Ok::<_, Status>(0)
            },
        )
        .bind()
        .unwrap();
    let client = blocking::Client::connect(place.name()).unwrap();
    let call = client.upload(StuckUpload).timeout(SHORT).open().unwrap();
    let item = end.recv_timeout(PATIENCE).unwrap();
    match item {
        Some(Err(error)) => assert_eq!(error.code(), Code::DeadlineExceeded, "{error:?}"),
        other => panic!("{other:?}"),
    }
    assert_exceeded(&call.finish().unwrap_err());
}

/// The handler neither reads nor ends, and its server looks at no clock meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn task_waits_for_room_for_an_item_until_the_deadline() {
    let place = Place::new();
    let (go, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let _server = blocking::Server::builder(place.name())
        .on_upload(
            move |_: Context, _: StuckUpload, items: blocking::ItemStream<Vec<u8>>| {
                let _ = gate.lock().unwrap().recv();
                drop(items);
                Ok::<_, Status>(0)
            },
        )
        .bind()
        .unwrap();
    let _go = go;
    in_time(async {
        let client = Client::connect(place.name()).await.unwrap();
        let call = client.upload(StuckUpload).timeout(SHORT);
        let mut upload = call.await.unwrap();
        let error = loop {
            if let Err(error) = upload.send(vec![1; 1000]).await {
                break error;
            }
        };
        assert!(matches!(error, ItemError::DeadlineExceeded), "{error:?}");
        assert_exceeded(&upload.finish().await.unwrap_err());
    })
    .await;
}

/// A paused clock jumps to the next deadline as soon as nobody has anything to do.
#[test]
fn handler_goes_on_whose_runtime_has_a_clock_that_is_ahead() {
    let place = Place::new();
    let name = place.name();
    let (say_ready, ready) = mpsc::channel();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let (begin, began) = tokio::sync::oneshot::channel();
    let (finish, finished) = tokio::sync::oneshot::channel();
    let of_one_call = Mutex::new(Some((begin, finished)));
    let thread = std::thread::spawn(move || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async move {
            let _server = Server::builder(name)
                .on(move |_: Context, _: Gate| {
                    let (begin, finished) = of_one_call.lock().unwrap().take().unwrap();
                    async move {
                        tokio::task::yield_now().await; // from here on it is a task
                        begin.send(()).unwrap();
                        Ok::<_, Status>(finished.await.unwrap())
                    }
                })
                .bind()
                .await
                .unwrap();
            say_ready.send(()).unwrap();
            began.await.unwrap();
            tokio::time::sleep(PATIENCE * 2).await; // no time at all
            tokio::time::sleep(SHORT).await; // by now the handler has been polled for its deadline
            let _ = finish.send(7);
            let _ = stopped.await;
        });
    });
    ready.recv_timeout(PATIENCE).unwrap();
    let client = blocking::Client::connect(place.name()).unwrap();
    assert_eq!(client.call(Gate).timeout(PATIENCE).wait().unwrap(), 7);
    drop(stop);
    thread.join().unwrap();
}

/// Half of the items must not look like all of them to a server whose deadline comes a little later.
#[test]
fn items_that_a_thread_has_no_room_for_until_the_deadline_are_cancelled_and_not_ended() {
    let place = Place::new();
    let listener = RawServer::listen(&place.socket());
    let accepting = thread::spawn(move || RawServer::accept(&listener));
    let client = blocking::Client::connect(place.name()).unwrap();
    let mut server = accepting.join().unwrap();
    let (mut items, _answers) = client.bidi(Double).timeout(SHORT).open().unwrap();
    let refused = std::iter::repeat_with(|| items.send(1)).find_map(Result::err);
    assert!(
        matches!(refused, Some(ItemError::DeadlineExceeded)),
        "{refused:?}"
    );
    drop(items);
    let mut last = None;
    eventually("the server hears of it", || {
        let frame = server.read();
        server.wake_for_room();
        last = frame.map(|(header, _)| header.kind);
        matches!(last, Some(FrameKind::End | FrameKind::Cancel))
    });
    assert_eq!(last, Some(FrameKind::Cancel));
}

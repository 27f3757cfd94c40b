//! What a client goes through besides its calls: runtimes that end, servers that are replaced or do not answer.

mod support;

use std::{
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    task::Poll,
    time::Instant,
};

use doorbell::{Client, Code, Context, Outcome, Server, Status, blocking, client::ConnectionState};
use doorbell_proto::frame::{Flags, FrameHeader, FrameKind};
use doorbell_testkit::{
    Child, PATIENCE, Place, RawClient, RawServer, descriptors, eventually, role, say, setting,
    wait_for_parent,
};
use support::{Host, SHORT, in_time, messages::*};

#[test]
#[ignore = "the body of the child processes"]
fn child_process() {
    match role().as_deref() {
        Some("caller of threads") => call_when_told(),
        _ => support::roles::run(),
    }
}

/// Makes a call at every order, on whatever connection there is or can be made.
fn call_when_told() {
    let client = blocking::Client::connect(setting("path")).unwrap();
    say("READY");
    while wait_for_parent().is_some() {
        eventually("a call is answered", || {
            client.call(Add(1, 2)).wait().is_ok()
        });
        say("DONE");
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

#[test]
fn client_whose_runtime_has_ended_connects_again_on_another() {
    let host = Host::start("server", &[]);
    let first = runtime();
    let client = first.block_on(host.client());
    let pending = first.block_on(client.call(Stuck).send()).unwrap();
    drop(first);
    runtime().block_on(in_time(async {
        let ended = tokio::time::timeout(PATIENCE, pending).await;
        let error = ended.expect("the call ends").unwrap_err();
        assert_eq!(error.outcome(), Outcome::Unknown, "{error:?}");
        let sum = client.call(Add(1, 2)).timeout(PATIENCE).await;
        assert_eq!(sum.unwrap(), 3);
    }));
}

#[test]
fn client_without_a_connection_makes_one_for_a_thread_that_has_no_runtime() {
    let mut host = Host::start("server", &[]);
    let runtime = runtime();
    let client = runtime.block_on(host.client());
    let state = client.state();
    host.child.kill();
    eventually("the connection has ended", || {
        *state.borrow() == ConnectionState::Disconnected
    });
    let error = client.notify(Remember(1)).unwrap_err();
    assert!(error.to_string().contains("one is being made"), "{error}");
    assert!(client.try_loan(100).is_err());
    host.restart("server");
    eventually("a notification goes out again", || {
        client.notify(Remember(1)).is_ok()
    });
    eventually("there is room for a loan", || client.try_loan(100).is_ok());
    drop(runtime);
    eventually("the connection has ended with its runtime", || {
        *state.borrow() == ConnectionState::Disconnected
    });
    let error = client.notify(Remember(1)).unwrap_err();
    assert!(error.to_string().contains("no tokio runtime"), "{error}");
    client.try_loan(100).unwrap_err();
}

#[test]
fn client_that_has_never_seen_a_runtime_says_that_it_needs_one() {
    let host = Host::start("server", &[]);
    let client = Client::builder(host.name()).lazy().unwrap();
    let error = client.notify(Remember(1)).unwrap_err();
    assert!(error.to_string().contains("no tokio runtime"), "{error}");
    runtime().block_on(async {
        let sum = client.call(Add(1, 2)).timeout(PATIENCE).await;
        assert_eq!(sum.unwrap(), 3);
    });
}

/// The first deadline would fail without them, and nothing would say why.
#[test]
fn runtime_without_timers_is_refused_at_once() {
    let place = Place::new();
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_io().build().unwrap();
    let refused = |run: &dyn Fn()| {
        let panic = catch_unwind(AssertUnwindSafe(run)).expect_err("it is not refused");
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref().map(|text: &&str| text.to_string()));
        let text = text.expect("it says something");
        assert!(text.contains("enable_time"), "{text}");
    };
    refused(&|| drop(runtime.block_on(Server::builder(place.name()).bind())));
    assert!(!place.socket().exists());
    let host = Host::start("server", &[]);
    refused(&|| drop(runtime.block_on(host.client())));
}

#[test]
fn deadline_of_a_thread_counts_while_a_silent_server_is_dialled() {
    let place = Place::new();
    let _silent = RawServer::listen(&place.socket());
    let client = blocking::Client::builder(place.name())
        .handshake_timeout(PATIENCE)
        .reconnect_timeout(PATIENCE)
        .lazy()
        .unwrap();
    let started = Instant::now();
    let callers: [_; 2] = std::array::from_fn(|_| {
        let client = client.clone();
        std::thread::spawn(move || client.call(Add(1, 2)).timeout(4 * SHORT).wait())
    });
    for caller in callers {
        let error = caller.join().unwrap().unwrap_err();
        assert_eq!(error.code(), Code::DeadlineExceeded, "{error:?}");
        assert_eq!(error.outcome(), Outcome::NotExecuted, "{error:?}");
    }
    let took = started.elapsed();
    assert!(took < PATIENCE / 3, "200 ms took {took:?}");
}

async fn serve(name: &str, gate: &tokio::sync::watch::Sender<bool>) -> Server {
    let gate = gate.subscribe();
    Server::builder(name)
        .on(|_: Context, add: Add| async move { Ok::<_, Status>(add.0 + add.1) })
        .on(move |_: Context, _: Gate| {
            let mut gate = gate.clone();
            async move {
                gate.wait_for(|open| *open).await.unwrap();
                Ok::<_, Status>(1)
            }
        })
        .bind()
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn end_of_a_connection_that_has_been_replaced_is_no_disconnection() {
    in_time(async {
        let place = Place::new();
        let gate = tokio::sync::watch::Sender::new(false);
        let first = serve(&place.name(), &gate).await;
        let client = Client::connect(place.name()).await.unwrap();
        let state = client.state();
        let pending = client.call(Gate).send().await.unwrap();
        eventually("a handler waits at the gate", || gate.receiver_count() == 2);
        let leaving = tokio::spawn(async move { first.shutdown(PATIENCE).await });
        // The call under way goes on with the first server; the next one finds the second.
        eventually("the first server has left its name", || {
            !place.socket().exists()
        });
        let _second = serve(&place.name(), &gate).await;
        let pending = tokio::spawn(pending);
        let moved_on = async { while client.call(Add(1, 2)).await.is_err() {} };
        moved_on.await;
        gate.send_replace(true);
        assert_eq!(pending.await.unwrap().unwrap(), 1);
        assert!(leaving.await.unwrap());
        leaving_is_seen(&client).await;
        assert_eq!(*state.borrow(), ConnectionState::Connected);
    })
    .await;
}

/// Nobody uses the first connection any more, and nobody has closed it either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connection_that_a_thread_has_replaced_leaves_nothing_behind() {
    in_time(async {
        let place = Place::new();
        let gate = tokio::sync::watch::Sender::new(false);
        let first = serve(&place.name(), &gate).await;
        let name = place.name();
        let mut caller = Child::start("child_process", "caller of threads", &[("path", &name)]);
        caller.hear("READY");
        let before = descriptors(caller.id());
        // What keeps the first server from closing its connections.
        let waiting = Client::connect(place.name()).await.unwrap();
        let pending = waiting.call(Gate).send().await.unwrap();
        eventually("a handler waits at the gate", || gate.receiver_count() == 2);
        let leaving = tokio::spawn(async move { first.shutdown(PATIENCE).await });
        eventually("the first server has left its name", || {
            !place.socket().exists()
        });
        let second = serve(&place.name(), &gate).await;
        eventually("the caller is with the second server", || {
            caller.tell("call");
            caller.hear("DONE");
            second.stats().connections == 1
        });
        eventually("nothing is left of the first connection", || {
            descriptors(caller.id()) == before
        });
        gate.send_replace(true);
        assert_eq!(pending.await.unwrap(), 1);
        assert!(leaving.await.unwrap());
    })
    .await;
}

/// Lets the client see that the first server has closed its end: nothing announces that a state does not change.
async fn leaving_is_seen(client: &Client) {
    let mut state = client.state();
    let lost = state.wait_for(|state| *state == ConnectionState::Disconnected);
    let _ = tokio::time::timeout(4 * SHORT, lost).await;
}

/// A batch ends before a chunk if somebody is to be woken, and a server that has gone rings no more.
#[tokio::test]
async fn answers_that_a_server_has_left_arrive_if_one_of_them_is_large() {
    for _ in 0..10 {
        let place = Place::new();
        let listener = RawServer::listen(&place.socket());
        let connecting = tokio::spawn(Client::connect(place.name()));
        let accepting = tokio::task::spawn_blocking(move || RawServer::accept(&listener));
        let mut server = accepting.await.unwrap();
        let client = connecting.await.unwrap().unwrap();
        let mut small = pin!(client.call(Add(1, 2)).into_future());
        let mut large = pin!(client.call(Echo(pattern(20_000))).into_future());
        // This is the only thread of the runtime: nobody reads before the server has gone.
        assert!(poll_once(small.as_mut()).await.is_pending());
        assert!(poll_once(large.as_mut()).await.is_pending());
        let mut calls = Vec::new();
        while let Some((header, _)) = server.read() {
            if header.kind == FrameKind::Call && !header.flags.contains(Flags::CONTINUE) {
                calls.push(header);
            }
        }
        let [add, echo] = calls[..] else {
            panic!("{calls:?}");
        };
        let answer = |call: &FrameHeader, flags, bytes: usize| FrameHeader {
            kind: FrameKind::Response,
            flags,
            length: bytes as u32,
            metadata_bytes: 0,
            ..*call
        };
        let mut push = |header: FrameHeader, body: &[u8]| {
            server.push(&RawClient::seal(header, body), body);
        };
        let sent = pattern(20_000);
        let first = [&20_000_u64.to_le_bytes()[..], &sent[..10_000]].concat();
        push(answer(&echo, Flags::MORE, first.len()), &first);
        push(answer(&add, Flags::default(), 1), &[3]);
        push(answer(&echo, Flags::CONTINUE, 10_000), &sent[10_000..]);
        drop(server);
        let mut state = client.state();
        let lost = state.wait_for(|state| *state == ConnectionState::Disconnected);
        assert!(lost.await.is_ok());
        assert_eq!(small.await.unwrap(), 3);
        assert!(large.await.unwrap().0 == sent);
    }
}

async fn poll_once<F: Future>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
}

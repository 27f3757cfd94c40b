//! Connections that a client replaces because their server leaves, while something is under way on them.

mod support;

use std::thread;

use doorbell::{CallError, Client, Disconnected, blocking};
use doorbell_proto::frame::{Flags, FrameHeader, FrameKind};
use doorbell_shm::sys::Listener;
use doorbell_testkit::{PATIENCE, Place, RawClient, RawServer, eventually};
use support::{SHORT, in_time, messages::*};

fn listen(place: &Place) -> Listener {
    RawServer::listen(&place.socket())
}

/// Tells the client that the server leaves.
fn leave(server: &mut RawServer) {
    let header = FrameHeader::new(FrameKind::GoAway, 0, 0);
    server.push(&RawClient::seal(header, &[]), &[]);
}

/// Waits for the connection that a client makes when it has heard that its server leaves.
fn accept_again(listener: &Listener, client: &blocking::Client) -> RawServer {
    thread::scope(|scope| {
        let accepted = scope.spawn(|| RawServer::accept(listener));
        eventually("the client has moved on", || {
            let _ = client.ping(SHORT); // nobody answers
            accepted.is_finished()
        });
        accepted.join().unwrap()
    })
}

/// Waits for the connection that a client of tasks makes when it has heard that its server leaves.
async fn accept_from_task(listener: &Listener, client: &Client) -> RawServer {
    thread::scope(|scope| {
        let accepted = scope.spawn(|| RawServer::accept(listener));
        eventually("the client has moved on", || {
            let _ = client.notify(Remember(1));
            accepted.is_finished()
        });
        accepted.join().unwrap()
    })
}

#[test]
fn notification_that_waits_in_a_client_of_threads_reaches_the_server_that_leaves() {
    let place = Place::new();
    let listener = listen(&place);
    let accepting = thread::spawn(move || (RawServer::accept(&listener), listener));
    let client = blocking::Client::connect(place.name()).unwrap();
    let (mut first, listener) = accepting.join().unwrap();
    let sent = pattern(4 << 20); // more than the ring takes
    client.notify(Echo(sent)).unwrap();
    leave(&mut first);
    let _second = accept_again(&listener, &client);
    let is_of_it = |header: &FrameHeader| header.kind == FrameKind::Call;
    eventually("all of it arrives", || {
        let frame = first.read();
        first.wake_for_room();
        frame.is_some_and(|(header, _)| is_of_it(&header) && !header.flags.contains(Flags::MORE))
    });
    assert!(!first.has_ended(), "its server has to answer it");
    drop(client);
    first.wait_for_end();
}

#[test]
fn client_of_threads_that_is_closed_ends_calls_on_connections_that_it_has_replaced() {
    let place = Place::new();
    let listener = listen(&place);
    let accepting = thread::spawn(move || (RawServer::accept(&listener), listener));
    let client = blocking::Client::connect(place.name()).unwrap();
    let (mut first, listener) = accepting.join().unwrap();
    let pending = client.call(Add(1, 2)).timeout(PATIENCE).send().unwrap();
    leave(&mut first);
    let _second = accept_again(&listener, &client);
    client.close();
    first.wait_for_end();
    let error = pending.wait().unwrap_err();
    let is_closed = matches!(error, CallError::Disconnected(Disconnected::Closed));
    assert!(is_closed, "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_that_is_closed_ends_calls_on_connections_that_it_has_replaced() {
    in_time(async {
        let place = Place::new();
        let listener = listen(&place);
        let accepting = thread::spawn(move || (RawServer::accept(&listener), listener));
        let client = Client::connect(place.name()).await.unwrap();
        let (mut first, listener) = accepting.join().unwrap();
        let pending = client.call(Add(1, 2)).send().await.unwrap();
        leave(&mut first);
        let _second = accept_from_task(&listener, &client).await;
        client.close();
        let ended = tokio::time::timeout(4 * SHORT, pending).await;
        let error = ended.expect("the call ends").unwrap_err();
        let is_closed = matches!(error, CallError::Disconnected(Disconnected::Closed));
        assert!(is_closed, "{error:?}");
        first.wait_for_end();
    })
    .await;
}

/// Such a server could make the client keep the memory and the descriptors of as many connections as it likes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_say_that_they_leave_and_stay_keep_no_connections() {
    in_time(async {
        let place = Place::new();
        let listener = listen(&place);
        let accepting = thread::spawn(move || (RawServer::accept(&listener), listener));
        let client = Client::connect(place.name()).await.unwrap();
        let (mut latest, listener) = accepting.join().unwrap();
        for _ in 0..3 {
            leave(&mut latest);
            let next = accept_from_task(&listener, &client).await;
            latest.wait_for_end();
            latest = next;
        }
    })
    .await;
}

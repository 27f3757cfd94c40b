//! A client that changes from a server that leaves to the one that follows it.

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use doorbell::{Context, Message, MessageType, Payload, Status, blocking};
use doorbell_testkit::{PATIENCE, Place, eventually};
use support::messages::*;

/// A notification that is sent as it is.
#[derive(Payload)]
#[payload(bytes)]
struct Tell(Bytes);
impl Message for Tell {
    const TYPE: MessageType = MessageType::new(901);
    type Reply = ();
}

/// More than a ring takes.
const LARGE_BYTES: usize = 24 << 20;

/// The client is still there, and so is the server that it has told: what waits for room goes there.
#[test]
fn what_waits_for_a_server_that_leaves_is_sent_though_the_client_has_changed_over() {
    let place = Place::new();
    let [is_held, is_open] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
    let told_bytes = Arc::new(AtomicUsize::new(0));
    let (held, open, told) = (is_held.clone(), is_open.clone(), told_bytes.clone());
    let leaving = blocking::Server::builder(place.name())
        .workers(1)
        .on(move |_: Context, _: Gate| {
            held.store(true, Ordering::Relaxed);
            eventually("the gate is open", || open.load(Ordering::Relaxed));
            Ok::<_, Status>(0)
        })
        .on_notify(move |_: Context, Tell(bytes)| {
            told.fetch_add(bytes.len(), Ordering::Relaxed);
        })
        .bind()
        .unwrap();
    let holder = blocking::Client::connect(place.name()).unwrap();
    let client = blocking::Client::builder(place.name())
        .reconnect_timeout(Duration::from_millis(1))
        .connect()
        .unwrap();
    let holding = holder.call(Gate).timeout(PATIENCE).send().unwrap();
    eventually("the worker is held", || is_held.load(Ordering::Relaxed));
    client.notify(Tell(vec![1; LARGE_BYTES].into())).unwrap();
    let shutdown = thread::spawn(move || leaving.shutdown(PATIENCE));
    eventually("its name is free", || !place.socket().exists());
    let _next = blocking::Server::builder(place.name())
        .on(|_: Context, add: Add| Ok::<_, Status>(add.0 + add.1))
        .bind()
        .unwrap();
    eventually("the client has changed over", || {
        client
            .call(Add(1, 2))
            .timeout(PATIENCE / 100)
            .wait()
            .is_ok()
    });
    is_open.store(true, Ordering::Relaxed);
    assert_eq!(holding.wait().unwrap(), 0);
    assert!(shutdown.join().unwrap());
    assert_eq!(told_bytes.load(Ordering::Relaxed), LARGE_BYTES);
}

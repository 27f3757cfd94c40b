//! What clients do while their worker is busy counts when it looks again.

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use doorbell::{Context, Spin, Status, blocking};
use doorbell_testkit::{PATIENCE, Place, eventually};
use support::messages::*;

/// After that a connection is idle.
const IDLE: Duration = Duration::from_secs(2);

/// More than a worker hears of at once.
const CLIENTS: u32 = 300;

#[test]
fn connection_whose_call_has_not_been_seen_yet_is_not_idle() {
    let limit = doorbell_shm::sys::raise_descriptor_limit().unwrap();
    if limit < 4000 {
        eprintln!(
            "skipped: {limit} descriptors are too few for both ends of {CLIENTS} connections"
        );
        return;
    }
    let place = Place::new();
    let [is_held, is_open] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
    let (held, open) = (Arc::clone(&is_held), Arc::clone(&is_open));
    let _server = blocking::Server::builder(place.name())
        .workers(1)
        .spin(Spin::Never)
        .idle_timeout(IDLE)
        .on(|_: Context, add: Add| Ok::<_, Status>(add.0 + add.1))
        .on(move |_: Context, _: Gate| {
            held.store(true, Ordering::Relaxed);
            eventually("the gate is open", || open.load(Ordering::Relaxed));
            Ok::<_, Status>(0)
        })
        .bind()
        .unwrap();
    let connect = || blocking::Client::connect(place.name()).unwrap();
    let holder = connect();
    let clients: Vec<_> = (0..CLIENTS).map(|_| connect()).collect();
    for client in &clients {
        assert_eq!(client.call(Add(1, 2)).timeout(PATIENCE).wait().unwrap(), 3);
    }
    let holding = holder.call(Gate).timeout(PATIENCE).send().unwrap();
    eventually("the worker is held", || is_held.load(Ordering::Relaxed));
    std::thread::sleep(2 * IDLE); // the handler computes
    let calls: Vec<_> = clients
        .iter()
        .map(|client| client.call(Add(1, 2)).timeout(PATIENCE).send().unwrap())
        .collect();
    is_open.store(true, Ordering::Relaxed);
    assert_eq!(holding.wait().unwrap(), 0);
    for call in calls {
        assert_eq!(call.wait().unwrap(), 3);
    }
}

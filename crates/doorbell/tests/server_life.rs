//! A server with handlers that take their time, and callers who do not wait for them.

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use doorbell::{Client, Code, Context, Server, Spin, blocking};
use doorbell_testkit::{PATIENCE, Place, eventually};
use support::{Host, SHORT, in_time, messages::*};

#[test]
#[ignore = "the body of the child processes"]
fn child_process() {
    support::roles::run();
}

/// More than a server runs at once for one connection, and fewer than fill the ring.
const NOTIFICATIONS: u32 = 3000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connection_whose_notifications_are_held_back_is_not_idle() {
    in_time(async {
        let place = Place::new();
        let gate = tokio::sync::watch::Sender::new(false);
        let handled = Arc::new(AtomicU32::new(0));
        let (open, counter) = (gate.subscribe(), Arc::clone(&handled));
        let _server = Server::builder(place.name())
            .idle_timeout(SHORT)
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
        tokio::time::sleep(6 * SHORT).await; // the handlers are slow
        gate.send_replace(true);
        eventually("every notification is handled", || {
            handled.load(Ordering::Relaxed) == NOTIFICATIONS
        });
    })
    .await;
}

/// Somebody else's stream comes without a pause. Who drains it for them still ends at the own deadline.
#[test]
fn deadline_of_a_thread_counts_while_it_drains_for_others() {
    for spin in [Spin::Always, Spin::Adaptive] {
        let host = Host::start("server", &[]);
        let client = blocking::Client::builder(host.name())
            .spin(spin)
            .connect()
            .unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let reader = std::thread::spawn({
            let (client, over) = (client.clone(), Arc::clone(&over));
            move || {
                let numbers = client.stream(Count(u32::MAX)).open().unwrap();
                let read = numbers.take_while(|_| !over.load(Ordering::Relaxed));
                read.map(Result::unwrap).count()
            }
        });
        let mut longest = Duration::ZERO;
        for _ in 0..10 {
            let started = Instant::now();
            let waited = client.call(Stuck).timeout(SHORT).wait();
            assert_eq!(waited.unwrap_err().code(), Code::DeadlineExceeded);
            longest = longest.max(started.elapsed());
        }
        over.store(true, Ordering::Relaxed);
        let read = reader.join().unwrap();
        assert!(
            longest < PATIENCE / 10,
            "{SHORT:?} took {longest:?} with {spin:?}, {read} items"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deadline_of_a_task_counts_while_it_drains_for_others() {
    for spin in [Spin::Always, Spin::Adaptive] {
        in_time(async {
            let host = Host::start("server", &[]);
            let client = Client::builder(host.name())
                .spin(spin)
                .connect()
                .await
                .unwrap();
            let reader = tokio::spawn({
                let client = client.clone();
                async move {
                    let mut numbers = client.stream(Count(u32::MAX)).await.unwrap();
                    while numbers.next().await.unwrap().is_ok() {}
                }
            });
            let mut longest = Duration::ZERO;
            for _ in 0..10 {
                let started = Instant::now();
                let waited = client.call(Stuck).timeout(SHORT).await;
                assert_eq!(waited.unwrap_err().code(), Code::DeadlineExceeded);
                longest = longest.max(started.elapsed());
            }
            reader.abort();
            assert!(
                longest < PATIENCE / 10,
                "{SHORT:?} took {longest:?} with {spin:?}"
            );
        })
        .await;
    }
}

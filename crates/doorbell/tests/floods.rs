//! Servers that never stop talking: whoever drives looks up from it.

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use doorbell::{CallError, Client, blocking};
use doorbell_proto::frame::{FrameHeader, FrameKind};
use doorbell_testkit::{PATIENCE, Place, RawClient, RawServer};
use support::{SHORT, messages::*};

/// A server that never stops talking, about nothing.
fn with_flood(test: impl FnOnce(String)) {
    let place = Place::new();
    let listener = RawServer::listen(&place.socket());
    let over = Arc::new(AtomicBool::new(false));
    let server = std::thread::spawn({
        let over = Arc::clone(&over);
        move || {
            let mut server = RawServer::accept(&listener);
            let pong = RawClient::seal(FrameHeader::new(FrameKind::Pong, 0, 0), &[]);
            let more = server.flood(&pong);
            server.wait_for_frame();
            more();
            server.ring();
            let start = Instant::now();
            while !over.load(Ordering::Relaxed) && start.elapsed() < PATIENCE {
                (0..100).for_each(|_| more());
            }
        }
    });
    test(place.name());
    over.store(true, Ordering::Relaxed);
    server.join().unwrap();
}

#[test]
fn flood_does_not_keep_a_thread_beyond_its_deadline() {
    with_flood(|name| {
        let client = blocking::Client::connect(name).unwrap();
        let start = Instant::now();
        let error = client.call(Who).timeout(SHORT).wait().unwrap_err();
        assert!(matches!(error, CallError::DeadlineExceeded), "{error:?}");
        assert!(start.elapsed() < PATIENCE / 2, "{:?}", start.elapsed());
    });
}

#[test]
fn flood_does_not_keep_a_task_beyond_its_deadline_nor_others_from_running() {
    with_flood(|name| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let client = Client::connect(name).await.unwrap();
            let start = Instant::now();
            let turns = Arc::new(AtomicU64::new(0));
            let other = tokio::spawn({
                let turns = Arc::clone(&turns);
                async move {
                    loop {
                        turns.fetch_add(1, Ordering::Relaxed);
                        tokio::task::yield_now().await;
                    }
                }
            });
            // An unoptimised build on a busy machine reads for some milliseconds before it looks up.
            let error = client.call(Who).timeout(10 * SHORT).await.unwrap_err();
            assert!(matches!(error, CallError::DeadlineExceeded), "{error:?}");
            assert!(start.elapsed() < PATIENCE / 2, "{:?}", start.elapsed());
            assert!(turns.load(Ordering::Relaxed) > 10, "nobody else ran");
            other.abort();
            client.close();
        });
    });
}

/// The thread that sees deaths for all connections is called by the doorbell of one whose server never stops talking.
#[test]
fn flood_does_not_hide_the_death_of_another_server() {
    with_flood(|name| {
        let flooded = blocking::Client::connect(name).unwrap();
        flooded.notify(Remember(1)).unwrap();
        let place = Place::new();
        let listener = RawServer::listen(&place.socket());
        let dying = std::thread::spawn(move || RawServer::accept(&listener).wait_for_frame());
        let client = blocking::Client::connect(place.name()).unwrap();
        let start = Instant::now();
        let error = client.call(Who).wait().unwrap_err();
        assert!(matches!(error, CallError::Disconnected(_)), "{error:?}");
        assert!(start.elapsed() < PATIENCE / 2, "{:?}", start.elapsed());
        dying.join().unwrap();
    });
}

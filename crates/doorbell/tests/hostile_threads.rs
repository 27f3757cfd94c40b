//! Attacks of a client on a server of threads, where each stream keeps a thread while it lasts: the thread must come back.
//!
//! The tables of the other `hostile_*` run against such a server, too, where they say so: rings, frames and messages are the same for both.

mod hostile;
mod support;

use doorbell::Message as _;
use doorbell_testkit::{
    by_hand::{Frame, HandClient, HandHello, Memory, flags, kind},
    eventually,
};
use hostile::{
    Attack, Scene,
    account::{of_going_on, of_the_end},
    attack, calm, suffer_in_threads,
};
use support::messages::{Double, Panic, Pour, Sum};

#[test]
#[ignore = "the body of the child processes"]
fn child_process() {
    hostile::child(&[STREAMS, STOPPED]);
}

#[test]
fn thread_of_a_stream_comes_back_whatever_its_client_does() {
    suffer_in_threads(STREAMS);
}

/// The threads wait for room, and for items; nobody will ever bring either.
#[test]
fn thread_of_a_stream_comes_back_when_its_client_is_killed() {
    let mut scene = Scene::start(&[("server", "of threads")]);
    let before = scene.victim.settle();
    let (mut enemy, account) = scene.attack(STOPPED[0].name());
    scene.witness.goes_on("while threads wait for the enemy");
    scene.serves_a_fresh_client();
    assert!(
        scene.victim.held().threads >= before.threads + 8,
        "{account}"
    );
    enemy.kill();
    scene.witness.goes_on("after the enemy was killed");
    scene.victim.gives_back(before, STOPPED[0].name());
    scene.end();
}

const FIRST: u64 = 1 << 32;

fn upload(slot: u64) -> Frame {
    Frame::new(kind::CALL, FIRST | slot, Sum::TYPE.get()).flags(flags::UPLOAD)
}

/// 2^32 - 1 items of 1000 bytes.
fn pour(slot: u64) -> Frame {
    Frame::new(kind::CALL, FIRST | slot, Pour::TYPE.get())
        .flags(flags::STREAMING)
        .body([0xFF, 0xFF, 0xFF, 0xFF, 0x0F, 0xE8, 0x07])
}

/// Waits for the end of a call and returns its kind and status.
fn end(client: &mut HandClient) -> (u8, u32) {
    loop {
        let frame = client.wait_for_frame();
        if matches!(frame.kind, kind::ERROR | kind::RESPONSE | kind::END) {
            return (frame.kind, frame.value);
        }
    }
}

/// Whether the same attack may have been made just before, and have left threads that have not ended yet.
fn threads_may_be_left() -> bool {
    calm::length().is_some()
}

const STREAMS: &[Attack] = &[
    attack("more uploads than threads", "served: ", |path| {
        of_going_on(path, |client| {
            (0..100).for_each(|slot| client.send(&upload(slot)));
            // There are 64 threads.
            (0..36).for_each(|_| assert_eq!(end(client), (kind::ERROR, 8)));
            let mut more = 0;
            client.ping_and(|frame| more += u32::from(frame.kind == kind::ERROR));
            assert!(
                more == 0 || threads_may_be_left(),
                "{more} more were refused"
            );
            "36 of 100 were refused".to_owned()
        })
    }),
    attack("streams that are never read", "served: ", |path| {
        let mut client = HandClient::connect(path);
        (0..8).for_each(|slot| client.send(&pour(slot)));
        eventually("the server sends", || {
            client.theirs.load(Memory::TAIL) > 100_000
        });
        of_going_on(path, |_| "another connection".to_owned())
    }),
    attack("an item that cannot be read", "served: ", |path| {
        of_going_on(path, |client| {
            let both = flags::UPLOAD | flags::STREAMING;
            client.send(&Frame::new(kind::CALL, FIRST, Double::TYPE.get()).flags(both));
            client.send(&Frame::new(kind::DATA, FIRST, 0).body([0xFF; 50]));
            let (kind, status) = end(client);
            assert_eq!(kind, kind::ERROR);
            format!("status {status}")
        })
    }),
    attack("handlers that panic", "served: 100", |path| {
        of_going_on(path, |client| {
            for slot in 0..100 {
                client.send(&Frame::new(kind::CALL, FIRST | slot, Panic::TYPE.get()));
                assert_eq!(end(client), (kind::ERROR, 13));
            }
            "100 panics".to_owned()
        })
    }),
    attack("uploads that are cancelled", "served: 64", |path| {
        of_going_on(path, |client| {
            (0..64).for_each(|slot| client.send(&upload(slot)));
            (0..64).for_each(|slot| client.send(&Frame::new(kind::CANCEL, FIRST | slot, 0)));
            for _ in 0..64 {
                let end = end(client);
                let is_refused = threads_may_be_left() && end == (kind::ERROR, 8);
                assert!(end == (kind::ERROR, 1) || is_refused, "{end:?}");
            }
            "64 cancelled".to_owned()
        })
    }),
    attack(
        "a frame that is none while threads wait for items",
        "told: frame kind 99",
        |path| {
            of_the_end(path, |client| {
                (0..8).for_each(|slot| client.send(&upload(slot)));
                client.send(&Frame::new(99, 0, 0));
            })
        },
    ),
    // The thread is the one who finds it, and the worker sleeps.
    attack(
        "a head that cannot be while threads send",
        "thrown out",
        |path| {
            let hello = HandHello {
                ring_capacity_bytes: 4096,
                ..HandHello::proper()
            };
            let mut client = HandClient::connect_with(path, &hello);
            (0..4).for_each(|slot| client.send(&pour(slot)));
            eventually("the ring is full", || {
                client.theirs.load(Memory::TAIL) >= 3000
            });
            client.ours.store(Memory::HEAD, 1 << 20);
            client.ring();
            client.wait_for_end().unwrap_or("thrown out".to_owned())
        },
    ),
];

const STOPPED: &[Attack] = &[attack("stays with threads that wait", "", |path| {
    let mut client = HandClient::connect(path);
    (0..4).for_each(|slot| client.send(&pour(slot)));
    (4..8).for_each(|slot| client.send(&upload(slot)));
    client.ping_and(|_| {});
    Box::leak(Box::new(client));
    "8 streams".to_owned()
})];

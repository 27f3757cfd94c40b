//! Clients that stop, die and leave children, and handlers that misbehave, each beside a witness.

mod hostile;
mod support;

use std::{os::fd::AsFd, process::Stdio};

use doorbell::Message as _;
use doorbell_testkit::{
    by_hand::{Frame, HandClient, flags, kind},
    kill_process, stop_process,
};
use hostile::{Attack, Scene, account::of_going_on, attack, suffer, victim::Block};
use support::messages::{Busy, Echo, Panic, Stuck, StuckStream, StuckUpload};

#[test]
#[ignore = "the body of the child processes"]
fn child_process() {
    hostile::child(&[HANDLERS, STOPPED, ORPHANED]);
}

#[test]
fn handler_that_misbehaves_holds_nobody_up() {
    suffer(HANDLERS, &[("workers", "2")]);
}

/// Answers fill its ring, then the server's queue, and then the server reads no more of it. It dies as it lies there.
#[test]
fn client_that_is_stopped_with_full_rings_costs_only_itself() {
    for row in STOPPED {
        die(row.name(), |scene, enemy, _| {
            stop_process(enemy);
            scene.witness.goes_on("while it is stopped");
            scene.serves_a_fresh_client();
        });
    }
}

/// The socket stays open in a child of the dead client, and its end says nothing.
#[test]
fn client_that_dies_is_gone_although_its_child_keeps_the_socket() {
    for row in ORPHANED {
        let mut orphan = None;
        die(row.name(), |_, _, account| {
            let id = account.split(' ').next_back().expect("a number");
            orphan = Some(Orphan(id.parse().expect("a number")));
        });
        drop(orphan); // it has lived until now
    }
}

/// Lets the enemy do its worst, and kills it. The server must be as before.
fn die(name: &str, then: impl FnOnce(&Scene, u32, &str)) {
    let mut scene = Scene::start(&[]);
    let before = scene.victim.settle();
    let since = scene.witness.mark();
    let (mut enemy, account) = scene.attack(name);
    then(&scene, enemy.id(), &account);
    enemy.kill();
    scene.witness.goes_on(name);
    scene.victim.gives_back(before, name);
    println!("{name:48} {} | {account}", scene.witness.since(since));
    scene.end();
}

const FIRST: u64 = 1 << 32;

fn call(id: u64, message: u32) -> Frame {
    Frame::new(kind::CALL, id, message)
}

/// Waits for so many calls to end with that status.
fn ended(client: &mut HandClient, count: usize, status: u32) {
    for _ in 0..count {
        let frame = client.wait_for_frame();
        assert_eq!((frame.kind, frame.value), (kind::ERROR, status));
    }
}

const HANDLERS: &[Attack] = &[
    attack("handlers that panic", "served: 1000", |path| {
        of_going_on(path, |client| {
            for slot in 0..1000 {
                client.send(&call(FIRST | slot, Panic::TYPE.get()));
                ended(client, 1, 13);
            }
            "1000 panics".to_owned()
        })
    }),
    // It holds up the connections of its own worker, and no other.
    attack("a handler that blocks its worker", "served: ", |path| {
        of_going_on(path, |client| {
            client.send(&call(FIRST, Block::TYPE.get()).body([0xAC, 0x02])); // 300 ms
            assert_eq!(client.wait_for_frame().kind, kind::RESPONSE);
            "for 300 ms".to_owned()
        })
    }),
    attack("handlers that never end", "served: 1023", |path| {
        of_going_on(path, |client| {
            for slot in 0..1023 {
                let frame = match slot % 3 {
                    0 => call(FIRST | slot, Stuck::TYPE.get()),
                    1 => call(FIRST | slot, StuckStream::TYPE.get()).flags(flags::STREAMING),
                    _ => call(FIRST | slot, StuckUpload::TYPE.get()).flags(flags::UPLOAD),
                };
                client.send(&frame);
            }
            "1023 handlers".to_owned()
        })
    }),
    attack(
        "a handler that computes until it is cancelled",
        "served: ",
        |path| {
            of_going_on(path, |client| {
                client.send(&call(FIRST, Busy::TYPE.get()));
                "one thread".to_owned()
            })
        },
    ),
];

const STOPPED: &[Attack] = &[attack("is stopped with full rings", "", |path| {
    let mut client = HandClient::connect(path);
    let frame = |number: u64| {
        call(
            ((number / 1024 + 1) << 32) | (number % 1024),
            Echo::TYPE.get(),
        )
    };
    let (mut sent, mut tries) = (0, 0);
    while tries < 1_000_000 {
        let is_written = client.put(&frame(sent).body(vec![7; 8000]).bytes());
        (sent, tries) = if is_written {
            (sent + 1, 0)
        } else {
            (sent, tries + 1)
        };
        client.publish();
    }
    Box::leak(Box::new(client));
    format!("{sent} requests of 8000 bytes")
})];

#[expect(
    clippy::zombie_processes,
    reason = "the child is to outlive its parent"
)]
const ORPHANED: &[Attack] = &[attack("leaves a child with its socket", "", |path| {
    let mut client = HandClient::connect(path);
    client.send(&call(FIRST, Stuck::TYPE.get()));
    client.ping();
    let mut child = std::process::Command::new("sleep");
    child
        .arg("60")
        .stdin(client.socket.as_fd().try_clone_to_owned().unwrap());
    let child = child
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    Box::leak(Box::new(client));
    format!("it is process {}", child.id())
})];

/// A process that nobody waits for any more.
struct Orphan(u32);

impl Drop for Orphan {
    fn drop(&mut self) {
        kill_process(self.0);
    }
}

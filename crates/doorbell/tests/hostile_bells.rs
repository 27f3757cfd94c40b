//! Attacks of a client on a server through its doorbells.

mod hostile;
mod support;

use std::time::{Duration, Instant};

use doorbell_testkit::by_hand::{HandClient, HandHello, HandSocket, Memory};
use hostile::{Attack, account::of_going_on, attack, scaled, suffer, suffer_in_threads};

#[test]
#[ignore = "the body of the child processes"]
fn child_process() {
    hostile::child(&[BELLS]);
}

#[test]
fn bell_that_is_misused_holds_nobody_up() {
    suffer(BELLS, &[]);
    suffer_in_threads(BELLS);
}

/// A hello of a client that has sockets for bells only, as other users and other systems have.
fn sockets() -> HandHello {
    HandHello {
        bells: 2,
        ..HandHello::proper()
    }
}

fn flood(client: &mut HandClient) -> String {
    let (begun, count) = (Instant::now(), scaled(300_000));
    (0..count).for_each(|_| client.ring());
    client.ping();
    format!(
        "{:.0} a second",
        count as f64 / begun.elapsed().as_secs_f64()
    )
}

/// Has the server ring us for every ping, while nobody listens.
fn is_rung_often(client: &mut HandClient) {
    for number in 1..=500_u32 {
        client.ours.store(Memory::SLEEP, number << 3 | 2);
        client.ping();
    }
}

const BELLS: &[Attack] = &[
    attack("an event counter that is flooded", "served: ", |path| {
        of_going_on(path, flood)
    }),
    attack("a socket that is flooded", "a second", |path| {
        let mut client = HandClient::connect_with(path, &sockets());
        flood(&mut client)
    }),
    attack(
        "an event counter that is drained under the server's eyes",
        "drained",
        |path| {
            let client = HandClient::connect(path);
            let (end, mut count) = (Instant::now() + Duration::from_millis(300), 0);
            while Instant::now() < end {
                client.ring();
                count += u32::from(client.take_from_the_servers_bell());
            }
            format!("drained {count} times")
        },
    ),
    attack("an event counter that is full", "served: ", |path| {
        of_going_on(path, |client| {
            client.fill_our_bell();
            is_rung_often(client);
            "500 pongs".to_owned()
        })
    }),
    attack("a socket that nobody reads", "500 pongs", |path| {
        let mut client = HandClient::connect_with(path, &sockets());
        is_rung_often(&mut client);
        "500 pongs".to_owned()
    }),
    attack("a socket that is full and blocks", "500 pongs", |path| {
        let mut client = HandClient::connect_with(path, &sockets());
        client.make_bells_block();
        is_rung_often(&mut client);
        "500 pongs".to_owned()
    }),
    attack("a socket that is closed", "500 pongs", |path| {
        let mut client = HandClient::connect_with(path, &sockets());
        client.own_bell = std::fs::File::open("/dev/null").unwrap().into();
        is_rung_often(&mut client);
        "500 pongs".to_owned()
    }),
    attack(
        "a megabyte through the bell, and descriptors",
        "said",
        |path| {
            let client = HandClient::connect_with(path, &sockets());
            let bell = client.bell.try_clone().unwrap();
            let bell = HandSocket(std::os::unix::net::UnixStream::from(bell));
            let null = std::fs::File::open("/dev/null").unwrap();
            let mut said = 0;
            for _ in 0..1000 {
                said += usize::from(
                    bell.send_with(&[7; 1024], &[std::os::fd::AsFd::as_fd(&null); 16])
                        .is_ok(),
                );
                said += usize::from(write_some(&bell));
            }
            format!("said {said} times")
        },
    ),
];

/// Writes a kilobyte if there is room.
fn write_some(bell: &HandSocket) -> bool {
    use std::io::Write;
    (&bell.0).write(&[7; 1024]).is_ok()
}

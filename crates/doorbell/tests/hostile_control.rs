//! Attacks on a server through its control socket.

mod hostile;
mod support;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use doorbell::Message as _;
use doorbell_testkit::by_hand::{
    Answer, Frame, HandClient, HandHello, HandSocket, HandWelcome, control, kind,
};
use doorbell_testkit::eventually;
use hostile::{Attack, Scene, account, attack, scaled, suffer, victim::Fill};

#[test]
#[ignore = "the body of the child processes"]
fn child_process() {
    hostile::child(&[SILENCE, WORDS, DESCRIPTORS, CROWDS, STARVED, STORM]);
}

#[test]
fn clients_that_do_not_finish_their_hello_are_sent_away() {
    suffer(SILENCE, &[]);
}

#[test]
fn hello_that_is_wrong_is_refused_with_what_is_wrong() {
    suffer(WORDS, &[]);
}

#[test]
fn descriptors_of_clients_are_not_taken() {
    suffer(DESCRIPTORS, &[]);
}

#[test]
fn crowds_that_come_and_go_hold_nobody_up() {
    suffer(CROWDS, &[]);
}

#[test]
fn server_without_descriptors_serves_those_it_has_and_then_the_next() {
    suffer(STARVED, &[("descriptors", "64")]);
}

/// The one who accepts looks up from it.
#[test]
fn storm_of_connects_keeps_nobody_out_and_the_server_from_nothing() {
    let mut scene = Scene::start(&[]);
    let since = scene.witness.mark();
    let (_storm, _) = scene.attack("comes and goes without end");
    // Silent ones are sent away when their time is over, and clients are let in.
    let silent = HandSocket::connect(&scene.place.socket());
    for _ in 0..20 {
        scene.serves_a_fresh_client();
    }
    assert!(matches!(silent.answer(), Answer::Refused { reason: 6, .. }));
    scene.witness.goes_on("in the storm");
    println!("{}", scene.witness.since(since));
    scene.witness.leave();
    scene.victim.child.tell("end");
    scene.victim.child.hear("ENDED");
}

const SILENCE: &[Attack] = &[
    attack(
        "says nothing",
        "refused 6: no complete hello in time",
        |path| {
            let socket = HandSocket::connect(path);
            let answer = socket.answer();
            account::of_answer(socket, answer)
        },
    ),
    attack(
        "one byte per 900 ms",
        "refused 6: no complete hello in time after 3 bytes",
        |path| {
            let socket = HandSocket::connect(path);
            let begun = Instant::now();
            let mut sent = 0;
            for byte in HandHello::proper().bytes() {
                // The deadline is over the whole: bytes do not move it.
                std::thread::sleep(
                    (begun + Duration::from_millis(900) * sent)
                        .saturating_duration_since(Instant::now()),
                );
                if begun.elapsed() > Duration::from_secs(2) || !socket.send(&[byte]) {
                    break;
                }
                sent += 1;
            }
            let answer = socket.answer();
            format!("{} after {sent} bytes", account::of_answer(socket, answer))
        },
    ),
    attack(
        "half a hello, and no more to come",
        "refused 6: the client closed the connection before",
        |path| {
            let socket = HandSocket::connect(path);
            socket.send(&HandHello::proper().bytes()[..20]);
            socket.stop_talking();
            let answer = socket.answer();
            account::of_answer(socket, answer)
        },
    ),
    attack("a hello in 64 pieces", "served", |path| {
        let hello = HandHello {
            name: vec![b'x'; 20],
            name_bytes: 20,
            ..HandHello::proper()
        }
        .bytes();
        assert_eq!(hello.len(), 64);
        let socket = HandSocket::connect(path);
        hello.iter().for_each(|byte| assert!(socket.send(&[*byte])));
        let answer = socket.answer();
        account::of_answer(socket, answer)
    }),
    attack("leaves with its welcome unread", "left 200 times", |path| {
        for _ in 0..200 {
            assert!(HandSocket::connect(path).send(&HandHello::proper().bytes()));
        }
        "left 200 times".to_owned()
    }),
];

fn say(path: &Path, bytes: &[u8]) -> String {
    let socket = HandSocket::connect(path);
    socket.send(bytes);
    let answer = socket.answer();
    account::of_answer(socket, answer)
}

fn hello(path: &Path, change: impl FnOnce(&mut HandHello)) -> String {
    let mut hello = HandHello::proper();
    change(&mut hello);
    say(path, &hello.bytes())
}

const WORDS: &[Attack] = &[
    attack(
        "another protocol",
        "refused 6: byte 0 of the magic",
        |path| say(path, b"GET / HTTP/1.1\r\n\r\n"),
    ),
    attack("one wrong byte", "refused 6: byte 0 of the magic", |path| {
        say(path, b"X")
    }),
    attack("a length of 0", "refused 6: message of 0 bytes", |path| {
        say(path, b"DRBLCTL1\0\0\0\0")
    }),
    attack(
        "a length of 2^32 - 1",
        "refused 6: message of 4294967295 bytes",
        |path| say(path, b"DRBLCTL1\xFF\xFF\xFF\xFF"),
    ),
    attack(
        "a hello of 4097 bytes",
        "refused 6: message of 4085 bytes",
        |path| say(path, &control(1, &[0; 4097 - 13])),
    ),
    attack("trailing bytes", "refused 6: bytes follow", |path| {
        say(path, &[HandHello::proper().bytes(), vec![0]].concat())
    }),
    attack(
        "a field too many",
        "refused 6: 1 bytes after the last field",
        |path| {
            let mut bytes = HandHello::proper().bytes();
            bytes[8] += 1;
            bytes.push(0);
            say(path, &bytes)
        },
    ),
    attack(
        "a field too few",
        "refused 6: message ends inside field",
        |path| say(path, &control(1, &HandHello::proper().bytes()[13..33])),
    ),
    attack(
        "a server's message",
        "refused 6: the client sent a server's message",
        |path| say(path, &HandWelcome::proper(3).bytes()),
    ),
    attack(
        "a message of kind 0",
        "refused 6: message kind 0 is unknown",
        |path| say(path, &control(0, &[0; 37])),
    ),
    attack(
        "a message of kind 255",
        "refused 6: message kind 255 is unknown",
        |path| say(path, &control(255, &[0; 37])),
    ),
    attack("version 0", "refused 6: field versions.min", |path| {
        hello(path, |hello| hello.versions = (0, 0))
    }),
    attack("version 65535", "refused 1: ", |path| {
        hello(path, |hello| hello.versions = (65535, 65535))
    }),
    attack(
        "versions the wrong way round",
        "refused 6: field versions.max",
        |path| hello(path, |hello| hello.versions = (2, 1)),
    ),
    attack("versions 1 to 65535", "served", |path| {
        hello(path, |hello| hello.versions = (1, 65535))
    }),
    attack("unknown features", "served", |path| {
        hello(path, |hello| hello.features = u64::MAX)
    }),
    attack("no features", "served", |path| {
        hello(path, |hello| hello.features = 0)
    }),
    attack(
        "a ring of 1 byte",
        "served with rings of 4096 and 4096",
        |path| hello(path, |hello| hello.ring_capacity_bytes = 1),
    ),
    attack(
        "a ring of 5000 bytes",
        "served with rings of 8192 and 8192",
        |path| hello(path, |hello| hello.ring_capacity_bytes = 5000),
    ),
    attack("a ring of 2^31 bytes", "served with rings of ", |path| {
        hello(path, |hello| hello.ring_capacity_bytes = 1 << 31)
    }),
    attack(
        "a ring of 2^32 - 1 bytes",
        "served with rings of ",
        |path| hello(path, |hello| hello.ring_capacity_bytes = u32::MAX),
    ),
    attack(
        "a window of 0",
        "refused 6: window or message size",
        |path| hello(path, |hello| hello.receive_window_bytes = 0),
    ),
    attack(
        "a window of 2^31",
        "refused 6: window or message size",
        |path| hello(path, |hello| hello.receive_window_bytes = 1 << 31),
    ),
    attack(
        "messages of 0 bytes",
        "refused 6: window or message size",
        |path| hello(path, |hello| hello.max_message_bytes = 0),
    ),
    attack("messages of 2^63 bytes", "served", |path| {
        hello(path, |hello| hello.max_message_bytes = 1 << 63)
    }),
    attack("messages of 2^64 - 1 bytes", "served", |path| {
        hello(path, |hello| hello.max_message_bytes = u64::MAX)
    }),
    attack("no doorbell", "refused 8: ", |path| {
        hello(path, |hello| hello.bells = 0)
    }),
    attack("a doorbell that nobody knows", "refused 8: ", |path| {
        hello(path, |hello| hello.bells = 0x80)
    }),
    attack(
        "a name of 65 bytes",
        "refused 6: field name of 65 bytes",
        |path| {
            hello(path, |hello| {
                (hello.name, hello.name_bytes) = (vec![b'x'; 65], 65)
            })
        },
    ),
    attack(
        "a name that is no text",
        "refused 6: field name of",
        |path| hello(path, |hello| hello.name = vec![0xFF; 4]),
    ),
    attack("a name beyond the hello", "refused 6: ", |path| {
        hello(path, |hello| hello.name_bytes = u16::MAX)
    }),
    attack("a word after the welcome", "the connection ended", |path| {
        let mut client = HandClient::connect(path);
        client.socket.send(b"?");
        client.wait_for_end();
        "the connection ended".to_owned()
    }),
    attack("a second hello", "the connection ended", |path| {
        let mut client = HandClient::connect(path);
        client.socket.send(&HandHello::proper().bytes());
        client.wait_for_end();
        "the connection ended".to_owned()
    }),
    attack(
        "no more to say, and listening on",
        "the connection ended",
        |path| {
            let mut client = HandClient::connect(path);
            client.socket.stop_talking();
            client.wait_for_end();
            "the connection ended".to_owned()
        },
    ),
];

/// Sends bytes with 253 descriptors, the most that one message takes.
fn with_descriptors(socket: &HandSocket, bytes: &[u8]) -> Result<(), String> {
    let null = std::fs::File::open("/dev/null").unwrap();
    let all = [std::os::fd::AsFd::as_fd(&null); 253];
    let sent = socket.send_with(bytes, &all);
    sent.map(drop)
        .map_err(|error| format!("not taken: {error}"))
}

const DESCRIPTORS: &[Attack] = &[
    attack("253 descriptors with the hello", "not taken", |path| {
        let socket = HandSocket::connect(path);
        match with_descriptors(&socket, &HandHello::proper().bytes()) {
            Err(refused_by_the_kernel) => refused_by_the_kernel,
            Ok(()) => match socket.answer() {
                Answer::Refused { reason: 6, text } => format!("not taken: {text}"),
                other => panic!("the server said {other:?}"),
            },
        }
    }),
    attack("253 descriptors after the welcome", "not taken", |path| {
        let mut client = HandClient::connect(path);
        if let Err(refused_by_the_kernel) = with_descriptors(&client.socket, b"?") {
            return refused_by_the_kernel;
        }
        client.wait_for_end();
        "not taken: the connection ended".to_owned()
    }),
];

const CROWDS: &[Attack] = &[
    attack("comes and goes", "times a second", |path| {
        let (begun, mut count) = (Instant::now(), 0);
        for _ in 0..scaled(20_000) {
            count += u32::from(HandSocket::try_connect(path).is_ok());
        }
        format!(
            "{:.0} times a second, {count} in all",
            f64::from(count) / begun.elapsed().as_secs_f64()
        )
    }),
    attack("comes, says hello and goes", "times a second", |path| {
        let (begun, hello, mut count) = (Instant::now(), HandHello::proper().bytes(), 0);
        for _ in 0..scaled(3_000) {
            let socket = HandSocket::connect(path);
            count += u32::from(socket.send(&hello));
        }
        format!(
            "{:.0} times a second, {count} in all",
            f64::from(count) / begun.elapsed().as_secs_f64()
        )
    }),
    attack("10,000 that say nothing", "of 10000 connected", |path| {
        let _ = doorbell_shm::sys::raise_descriptor_limit();
        let sockets: Vec<_> = (0..10_000)
            .filter_map(|_| HandSocket::try_connect(path).ok())
            .collect();
        let count = sockets.len();
        let (mut silent, mut full) = (0, 0);
        for socket in sockets {
            match socket.answer() {
                Answer::Refused { reason: 6, .. } => silent += 1,
                Answer::Refused { reason: 3, .. } => full += 1,
                other => panic!("the server said {other:?}"),
            }
        }
        format!(
            "{count} of 10000 connected: {silent} sent away when their time was over, {full} at once"
        )
    }),
    attack("1000 connections at once", "1000 served", |path| {
        let _ = doorbell_shm::sys::raise_descriptor_limit();
        let mut clients: Vec<_> = (0..1000).map(|_| HandClient::connect(path)).collect();
        clients.iter_mut().for_each(HandClient::ping);
        format!("{} served", clients.len())
    }),
];

const STARVED: &[Attack] = &[
    attack("takes all descriptors", "then refused 7: ", |path| {
        let mut clients = Vec::new();
        loop {
            let socket = HandSocket::connect(path);
            match socket.greet(&HandHello::proper()) {
                Answer::Welcome(welcome, handles) => {
                    clients.push(HandClient::new(socket, welcome, handles))
                }
                other => {
                    return format!(
                        "{} connections, then {}",
                        clients.len(),
                        account::of_answer(socket, other)
                    );
                }
            }
        }
    }),
    // It is told so, although telling takes a descriptor, too.
    attack(
        "comes when no descriptor is left",
        "refused 7: the server has no descriptor left",
        |path| {
            let mut filling = None;
            eventually(
                "there are descriptors, after the last one who did this",
                || {
                    let socket = HandSocket::connect(path);
                    if let Answer::Welcome(welcome, handles) = socket.greet(&HandHello::proper()) {
                        filling = Some(HandClient::new(socket, welcome, handles));
                    }
                    filling.is_some()
                },
            );
            let mut filling = filling.expect("just seen");
            filling.send(&Frame::new(kind::CALL, 1 << 32, Fill::TYPE.get()));
            filling.ping();
            let accounts = (0..100).map(|_| {
                let socket = HandSocket::connect(path);
                let answer = socket.greet(&HandHello::proper());
                account::of_answer(socket, answer)
            });
            let accounts: std::collections::BTreeSet<_> = accounts.collect();
            format!("{accounts:?}")
        },
    ),
];

const STORM: &[Attack] = &[attack("comes and goes without end", "storming", |path| {
    for _ in 0..4 {
        let path = path.to_owned();
        std::thread::spawn(move || {
            loop {
                let _ = HandSocket::try_connect(&path);
            }
        });
    }
    "storming".to_owned()
})];

//! Attacks of a server on honest clients through shared memory, after a handshake in order.
//!
//! Everything here happens in one test: it counts what its own process holds.

mod hostile;
mod support;

use std::time::{Duration, Instant};

use doorbell::{CallError, Client, Disconnected, LoanError, blocking};
use doorbell_proto::frame::{CallId, Flags, FrameHeader, FrameKind};
use doorbell_shm::memory::OwnMemory as _;
use doorbell_testkit::{Child, PATIENCE, Place, RawClient, RawServer, role, say, setting};
use hostile::{Scene, is_chosen, path, trap};
use support::messages::Add;

#[test]
#[ignore = "the body of the child processes"]
fn child_process() {
    match role().as_deref() {
        Some("liar") => answer(),
        Some("miser") => refuse(),
        _ => hostile::child(&[]),
    }
}

/// A row: what the victim's error must say, and what the server does once a client has called.
struct Lie {
    name: &'static str,
    words: &'static str,
    tell: fn(&mut RawServer),
}

const fn lie(name: &'static str, words: &'static str, tell: fn(&mut RawServer)) -> Lie {
    Lie { name, words, tell }
}

/// Sends a frame with a checksum that fits.
fn push(server: &mut RawServer, mut header: FrameHeader, body: &[u8]) {
    header.length = u32::try_from(body.len()).unwrap();
    server.push(&RawClient::seal(header, body), body);
}

/// A frame for the first call of the client.
fn to_the_call(kind: FrameKind, value: u32) -> FrameHeader {
    FrameHeader::new(kind, CallId::new(0, 1).raw(), value)
}

/// Publishes a header that claims a body of that size, as so many bytes.
fn claim(server: &mut RawServer, length: u32, published: u32) {
    let mut header = FrameHeader::new(FrameKind::Pong, 0, 0);
    header.length = length;
    server.write(&RawClient::seal(header, &[]), &[]);
    server.publish(published);
}

const LIES: &[Lie] = &[
    lie(
        "a tail beyond the ring",
        "the peer moved its tail",
        |server| server.publish(1 << 30),
    ),
    lie(
        "a tail that goes back",
        "the peer moved its tail back",
        |server| server.publish(u32::MAX - 7),
    ),
    lie(
        "a tail between two records",
        "not a multiple of 8",
        |server| server.publish(13),
    ),
    lie(
        "eight bytes of a header",
        "a record needs 24 bytes, 8 are published",
        |server| server.publish(8),
    ),
    lie("a body that is not published", "a record needs", |server| {
        claim(server, 1000, 24)
    }),
    lie(
        "a body of 2^32 - 1 bytes",
        "a record has a body of 4294967295",
        |server| claim(server, u32::MAX, 64),
    ),
    lie("nothing but zeros", "padding record", |server| {
        server.publish(4096)
    }),
    lie(
        "a tail that flips as fast as it can",
        "the peer",
        |server| {
            let end = Instant::now() + Duration::from_secs(10);
            while !server.has_ended() && Instant::now() < end {
                [8, u32::MAX, 1 << 31, 24, 5]
                    .iter()
                    .for_each(|tail| server.own.store_tail(*tail));
                server.ring();
                server.wake();
            }
        },
    ),
    lie("a wrong checksum", "checksum is", |server| {
        let mut header = RawClient::seal(FrameHeader::new(FrameKind::Pong, 1, 0), &[]);
        header[22] ^= 1;
        server.push(&header, &[]);
    }),
    lie(
        "a kind that there is not",
        "frame kind 99 is unknown",
        |server| {
            let mut header = FrameHeader::new(FrameKind::Pong, 1, 0).encode();
            header[4] = 99;
            server.push(&RawClient::seal_bytes(header, &[]), &[]);
        },
    ),
    lie(
        "quiet, which was not agreed on",
        "QUIET, which was not agreed on",
        |server| push(server, FrameHeader::new(FrameKind::Quiet, 0, 0), &[]),
    ),
    lie(
        "quiet, with a number",
        "id 0x1 on QUIET must be zero",
        |server| {
            push(server, FrameHeader::new(FrameKind::Quiet, 1, 0), &[]);
        },
    ),
    lie(
        "a call of its own",
        "CALL does not travel to a client",
        |server| push(server, to_the_call(FrameKind::Call, 1), &[]),
    ),
    lie(
        "a cancel of its own",
        "CANCEL does not travel to a client",
        |server| push(server, to_the_call(FrameKind::Cancel, 0), &[]),
    ),
    lie(
        "a notification of its own",
        "NOTIFY does not travel to a client",
        |server| {
            push(server, FrameHeader::new(FrameKind::Notify, 0, 1), &[]);
        },
    ),
    lie(
        "an answer to a call that nobody made",
        "RESPONSE for call",
        |server| {
            push(
                server,
                FrameHeader::new(FrameKind::Response, CallId::new(9, 1).raw(), 1),
                &[],
            );
        },
    ),
    lie(
        "an answer in a slot that there is not",
        "RESPONSE for call 4294967295",
        |server| {
            push(
                server,
                FrameHeader::new(FrameKind::Response, CallId::new(u32::MAX, 1).raw(), 1),
                &[],
            );
        },
    ),
    lie("items of a call that has none", "DATA", |server| {
        push(server, to_the_call(FrameKind::Data, 0), &[1])
    }),
    lie("credit for a call that sends nothing", "CREDIT", |server| {
        push(server, to_the_call(FrameKind::Credit, 5), &[])
    }),
    lie("the end of a stream that there is not", "END", |server| {
        push(server, to_the_call(FrameKind::End, 0), &[])
    }),
    lie(
        "the refusal of a segment that nobody wanted",
        "segment 0 of 0 pages answers a wish that nobody had",
        |server| push(server, FrameHeader::new(FrameKind::Segment, 0, 0), &[]),
    ),
    lie(
        "a segment to write that nobody wanted",
        "segment 1 of 16 pages answers a wish that nobody had",
        |server| push(server, FrameHeader::new(FrameKind::Segment, 1, 16), &[]),
    ),
    lie("status 0", "value 0", |server| {
        push(server, to_the_call(FrameKind::Error, 0), &[0; 4])
    }),
    lie("an error with a text beyond it", "ERROR", |server| {
        push(server, to_the_call(FrameKind::Error, 5), &[100, 0, 0, 0])
    }),
    lie(
        "a divided answer that is longer than announced",
        "was announced with 20 bytes",
        |server| {
            let mut header = to_the_call(FrameKind::Response, 1);
            header.flags.insert(Flags::MORE);
            push(server, header, &[20, 0, 0, 0, 0, 0, 0, 0, 1]);
            header.flags = Flags::CONTINUE;
            push(server, header, &[1; 100]);
        },
    ),
];

/// In the enemy's process.
fn answer() {
    let name = setting("lie");
    let row = LIES
        .iter()
        .find(|lie| lie.name == name)
        .expect("a row of the table");
    let listener = RawServer::listen(&path());
    say("READY");
    loop {
        let mut server = RawServer::accept(&listener);
        server.wait_for_frame();
        (row.tell)(&mut server);
        server.wait_for_end();
    }
}

/// In the enemy's process: whatever segment a client wants, there is none.
fn refuse() {
    let listener = RawServer::listen(&path());
    say("READY");
    loop {
        let mut server = RawServer::accept(&listener);
        while !server.has_ended() {
            match server.read() {
                Some((frame, _)) if frame.kind == FrameKind::WantSegment => {
                    push(&mut server, FrameHeader::new(FrameKind::Segment, 0, 0), &[]);
                }
                _ => std::thread::yield_now(),
            }
        }
    }
}

#[test]
fn every_lie_of_a_server_that_is_connected_is_an_error_that_names_it() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(1)
        .thread_keep_alive(PATIENCE * 100)
        .enable_all()
        .build()
        .unwrap();
    let scene = Scene::start(&[]);
    // What a process makes for its first clients, it has now.
    let honest = scene.place.name();
    runtime.block_on(Client::connect(&honest)).unwrap().close();
    drop(blocking::Client::connect(&honest).unwrap());
    for lie in LIES.iter().filter(|lie| is_chosen(lie.name)) {
        believe(lie, &scene, &runtime);
    }
    borrow_in_vain(&scene, &runtime);
    scene.end();
}

/// Asks a server that refuses every loan, again and again, from a task and from a thread. That is no lie, so the connection stays.
fn borrow_in_vain(scene: &Scene, runtime: &tokio::runtime::Runtime) {
    const BYTES: usize = 1 << 20;
    let before = trap::settle();
    let place = Place::new();
    let enemy = Child::start("child_process", "miser", &[("path", &*place.name())]);
    enemy.hear("READY");
    let is_refusal =
        |error: &LoanError| matches!(error, LoanError::NoRoom { bytes } if *bytes == BYTES as u64);
    runtime.block_on(async {
        let client = Client::connect(place.name()).await.unwrap();
        for time in 0..500 {
            let loan = tokio::time::timeout(PATIENCE, client.loan(BYTES));
            let error = loan.await.expect("an answer").unwrap_err();
            assert!(is_refusal(&error), "loan {time} of a task: {error:?}");
        }
    });
    let client = blocking::Client::connect(place.name()).unwrap();
    for time in 0..500 {
        let error = client.loan(BYTES, PATIENCE).unwrap_err();
        assert!(is_refusal(&error), "loan {time} of a thread: {error:?}");
    }
    drop((client, enemy));
    scene.witness.goes_on("while every loan is refused");
    assert_eq!(
        trap::settle_to(before),
        before,
        "refused loans: we hold something else than before"
    );
}

/// Calls the liar from a task and from a thread.
fn believe(lie: &Lie, scene: &Scene, runtime: &tokio::runtime::Runtime) {
    let before = trap::settle();
    let since = scene.witness.mark();
    let place = Place::new();
    let settings = [("path", &*place.name()), ("lie", lie.name)];
    let enemy = Child::start("child_process", "liar", &settings);
    enemy.hear("READY");
    let of_task = runtime.block_on(async {
        let client = Client::connect(place.name()).await.unwrap();
        client.call(Add(1, 2)).timeout(PATIENCE).await.unwrap_err()
    });
    let client = blocking::Client::connect(place.name()).unwrap();
    let of_thread = client.call(Add(1, 2)).timeout(PATIENCE).wait().unwrap_err();
    drop(client);
    for error in [&of_task, &of_thread] {
        let named = error.to_string();
        let is_violation = matches!(error, CallError::Disconnected(Disconnected::Protocol(_)));
        assert!(
            is_violation && named.contains(lie.words),
            "{}: {error:?}: {named}",
            lie.name
        );
    }
    drop(enemy);
    scene.witness.goes_on(lie.name);
    assert_eq!(
        trap::settle_to(before),
        before,
        "{}: we hold something else than before",
        lie.name
    );
    println!("{:48} {} | {of_task}", lie.name, scene.witness.since(since));
}

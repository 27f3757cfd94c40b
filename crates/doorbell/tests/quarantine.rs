//! Clients whose memory is not there when their worker reads it: it sleeps for them once, and then another thread does.

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use doorbell::{Client, Context, Message, MessageType, Raw, Server, Spin, Status, blocking};
use doorbell_testkit::{
    Child, PATIENCE, Place,
    by_hand::{Frame, HandClient, HandHello, flags, kind},
    eventually, role, say, setting, wait_for_parent,
};
use serde::{Deserialize, Serialize};
use support::{
    in_time,
    messages::{Add, Echo, Gate, Open},
};

/// Sleeps, and touches memory for the first time.
#[derive(Serialize, Deserialize)]
struct SleepAndFault;

impl Message for SleepAndFault {
    const TYPE: MessageType = MessageType::new(910);
    type Reply = ();
}

#[test]
#[ignore = "the body of the child processes"]
fn child_process() {
    match role().as_deref() {
        Some("thrower") => throw_away(),
        Some("lender") => lend(),
        Some(role) => panic!("no role {role}"),
        None => {}
    }
}

/// A client that does as it is told.
fn throw_away() {
    let path = setting("path");
    let connect = || HandClient::connect(path.as_ref());
    let mut clients = vec![connect()];
    while let Some(line) = wait_for_parent() {
        match line.as_str() {
            "THROW" => throw_until_told(&clients[0], || {}),
            "THROW AND RING WITH ALL" => throw_until_told(&clients[0], || {
                clients.iter().for_each(HandClient::ring);
            }),
            "THROW WHEN ASLEEP" => {
                let client = &clients[0];
                throw_until_told(client, || {
                    client.wait_until_asleep();
                });
            }
            "PING" => clients[0].ping(),
            "PING THE LAST" => clients.last_mut().expect("some").ping(),
            "CONNECT" => {
                clients.push(connect());
                clients.last_mut().expect("just pushed").ping();
            }
            line => panic!("what is {line}?"),
        }
        say("DONE");
    }
}

/// Throws the memory away again and again and makes the server look at it, each time after `pause`, until the parent says something. It was never
/// written to, so that it is as it was.
fn throw_until_told(client: &HandClient, pause: impl Fn() + Sync) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                client.ours.try_punch().expect("it is ours");
            }
        });
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                pause();
                client.ring();
            }
        });
        wait_for_parent();
        over.store(true, Ordering::Relaxed);
    });
}

/// A client that has a call under way, and throws its loans away while the server reads them.
fn lend() {
    let hello = HandHello {
        features: 1 | HandHello::LOANS,
        ..HandHello::proper()
    };
    let mut client = HandClient::connect_with(setting("path").as_ref(), &hello);
    client.send(&Frame::new(kind::CALL, GATE, Gate::TYPE.get()));
    let (number, segment) = client.segment(LENT / 4096);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                segment.try_punch_bytes(LENT.into()).expect("it is ours");
            }
        });
        scope.spawn(|| {
            wait_for_parent();
            over.store(true, Ordering::Relaxed);
        });
        for generation in 1_u64.. {
            if over.load(Ordering::Relaxed) {
                break;
            }
            let descriptor = [number, 0, LENT].map(u32::to_le_bytes).concat();
            let call = Frame::new(kind::CALL, generation << 32, Echo::TYPE.get());
            client.send(&call.flags(flags::LOANED).body(descriptor));
            let (mut is_answered, mut is_back) = (false, false);
            while !(is_answered && is_back) {
                let frame = client.wait_for_frame();
                assert_ne!(frame.id, GATE, "it is closed");
                is_back |= frame.kind == kind::RELEASE;
                is_answered |= frame.kind == kind::RESPONSE && frame.flags & flags::MORE == 0;
            }
        }
    });
    say("DONE");
    loop {
        let frame = client.wait_for_frame();
        if (frame.kind, frame.id) == (kind::RESPONSE, GATE) {
            return say("ANSWERED");
        }
    }
}

/// The call of [`Gate`], in a slot of its own.
const GATE: u64 = 1 << 32 | 1;

/// Bytes that are lent.
const LENT: u32 = 64 << 10;

/// A server with one worker, and an enemy of it.
struct Scene {
    server: blocking::Server,
    enemy: Child,
    place: Place,
}

impl Scene {
    fn new() -> Self {
        Self::with(Spin::Adaptive)
    }

    fn with(spin: Spin) -> Self {
        let place = Place::new();
        let server = blocking::Server::builder(place.name())
            .workers(1)
            .spin(spin)
            .on(|_: Context, sum: Add| Ok::<_, Status>(sum.0 + sum.1))
            .on(|_: Context, _: SleepAndFault| {
                std::thread::sleep(Duration::from_millis(1));
                std::hint::black_box(vec![1_u8; 40 << 20]);
                Ok::<_, Status>(())
            })
            .bind()
            .unwrap();
        let enemy = Child::start("child_process", "thrower", &[("path", &place.name())]);
        eventually("the enemy is in", || server.stats().connections == 1);
        Self {
            server,
            enemy,
            place,
        }
    }

    /// Lets the enemy throw its memory away until it is caught.
    fn catch(&mut self) {
        self.catch_by("THROW");
    }

    fn catch_by(&mut self, way: &str) {
        let before = self.server.stats().quarantined;
        self.enemy.tell(way);
        eventually("it is caught", || self.server.stats().quarantined > before);
        self.enemy.tell("ENOUGH");
        self.enemy.hear("DONE");
    }

    fn tell(&mut self, line: &str) {
        self.enemy.tell(line);
        self.enemy.hear("DONE");
    }

    fn held(&self) -> usize {
        self.server.stats().in_quarantine
    }

    fn client(&self) -> blocking::Client {
        blocking::Client::connect(self.place.name()).unwrap()
    }
}

#[test]
fn client_whose_memory_is_not_there_is_served_apart_from_others_and_comes_back() {
    let mut scene = Scene::new();
    let other = scene.client();
    assert_eq!(other.call(Add(1, 2)).wait().unwrap(), 3);
    scene.catch();
    scene.tell("PING");
    assert_eq!(other.call(Add(3, 4)).wait().unwrap(), 7);
    eventually("it has come back", || scene.held() == 0);
    scene.tell("PING");
    let stats = scene.server.stats();
    assert_eq!((stats.quarantined, stats.connections), (1, 2));
}

/// A worker that looks at the time only while it is busy would never notice.
#[test]
fn client_is_caught_that_lets_its_worker_fall_asleep_each_time() {
    let mut scene = Scene::with(Spin::Never);
    scene.catch_by("THROW WHEN ASLEEP");
}

#[test]
fn process_that_was_caught_comes_in_apart_from_others() {
    let mut scene = Scene::new();
    let since = Instant::now();
    scene.catch();
    for _ in 0..3 {
        scene.tell("CONNECT");
    }
    let other = scene.client();
    assert_eq!(other.call(Add(1, 2)).wait().unwrap(), 3);
    let stats = scene.server.stats();
    if since.elapsed() < Duration::from_millis(900) {
        assert_eq!((stats.in_quarantine, stats.connections), (4, 5));
    }
    assert_eq!(stats.quarantined, 1, "the others were never at the worker");
    eventually("all have come back", || scene.held() == 0);
    scene.tell("PING");
}

/// Until then it is none of the worker's business.
#[test]
fn connection_that_slept_when_another_of_its_process_was_caught_goes_apart_when_it_rings() {
    let mut scene = Scene::new();
    scene.tell("CONNECT");
    eventually("both are in", || scene.server.stats().connections == 2);
    let since = Instant::now();
    scene.catch();
    scene.tell("PING THE LAST");
    let held = scene.held();
    if since.elapsed() < Duration::from_millis(900) {
        assert_eq!(held, 2);
    }
    eventually("both have come back", || scene.held() == 0);
    scene.tell("PING THE LAST");
    scene.tell("PING");
}

/// Those of the process that was caught go apart one by one as they ring.
#[test]
fn server_can_be_stopped_while_connections_move() {
    for _ in 0..10 {
        let mut scene = Scene::new();
        for _ in 0..8 {
            scene.tell("CONNECT");
        }
        scene.enemy.tell("THROW AND RING WITH ALL");
        eventually("one is caught", || scene.server.stats().quarantined > 0);
        assert!(scene.server.shutdown(Duration::from_secs(5)));
        let stats = scene.server.stats();
        assert_eq!((stats.connections, stats.in_quarantine), (0, 0));
    }
}

#[test]
fn what_is_in_quarantine_ends_with_its_process_and_with_the_server() {
    let mut scene = Scene::new();
    scene.catch();
    scene.enemy.kill();
    eventually("it is gone", || scene.server.stats().connections == 0);
    assert_eq!(scene.held(), 0);
    let mut scene = Scene::new();
    scene.catch();
    drop(scene.server);
    drop(scene.enemy);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn call_that_is_under_way_when_its_connection_moves_is_answered() {
    let (server, place, _) = gated_server().await;
    let mut enemy = Child::start("child_process", "lender", &[("path", &place.name())]);
    let client = in_time(Client::connect(place.name())).await.unwrap();
    eventually("it is caught", || server.stats().quarantined > 0);
    enemy.tell("ENOUGH");
    enemy.hear("DONE");
    in_time(async { client.call(Open).await.unwrap() }).await;
    enemy.hear("ANSWERED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_that_drains_waits_for_a_call_in_quarantine() {
    let (server, place, open) = gated_server().await;
    let since = Instant::now();
    let mut enemy = Child::start("child_process", "lender", &[("path", &place.name())]);
    eventually("it is caught", || server.stats().quarantined > 0);
    enemy.tell("ENOUGH");
    enemy.hear("DONE");
    eventually("it is apart, or was", || {
        server.stats().in_quarantine > 0 || since.elapsed() >= Duration::from_millis(900)
    });
    let drain = server.shutdown(PATIENCE);
    let answer = async {
        tokio::task::yield_now().await; // the drain has begun
        open.notify_one();
    };
    let (is_drained, ()) = in_time(async { tokio::join!(drain, answer) }).await;
    assert!(is_drained);
    enemy.hear("ANSWERED");
}

/// A server that echoes, and has a call that is not answered until another one comes, or what is returned is notified.
async fn gated_server() -> (Server, Place, Arc<tokio::sync::Notify>) {
    let place = Place::new();
    let open = Arc::new(tokio::sync::Notify::new());
    let gate = Arc::clone(&open);
    let opened = Arc::clone(&open);
    let server = Server::builder(place.name())
        .workers(1)
        .on(|_: Context, echo: Echo| async move { Ok::<_, Status>(Raw(echo.0)) })
        .on(move |_: Context, _: Gate| {
            let opened = Arc::clone(&opened);
            async move {
                opened.notified().await;
                Ok::<_, Status>(1)
            }
        })
        .on(move |_: Context, _: Open| {
            open.notify_one();
            async { Ok::<_, Status>(()) }
        })
        .bind()
        .await
        .unwrap();
    (server, place, gate)
}

/// What a handler does is no reason: many wait for a disk.
#[test]
fn client_whose_handler_sleeps_stays_where_it_is() {
    let scene = Scene::new();
    let client = scene.client();
    for _ in 0..50 {
        client.call(SleepAndFault).wait().unwrap();
        assert_eq!(client.call(Add(1, 2)).wait().unwrap(), 3);
    }
    assert_eq!(scene.server.stats().quarantined, 0);
}

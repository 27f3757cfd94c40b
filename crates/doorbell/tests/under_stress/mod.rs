//! The clients' process: callers of every kind, and somebody who watches over them.

mod board;
mod lending;
mod random;
pub(crate) mod server;
mod tasks;
mod threads;

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant, SystemTime},
};

use doorbell::{Client, Spin, blocking};
use doorbell_testkit::{eventually, say, setting, wait_for_parent};

use crate::support::messages::*;
use board::Board;
use random::Random;

/// What every caller needs.
#[derive(Clone)]
pub(crate) struct Stress {
    pub(crate) board: Arc<Board>,
    pub(crate) seed: u64,
    /// The server has the handlers that never end.
    pub(crate) has_stuck: bool,
}

/// What a caller may do next.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Deed {
    Add,
    Echo,
    EchoWithDeadline,
    EchoDropped,
    Many,
    Stream,
    StreamDropped,
    Upload,
    UploadDropped,
    Bidi,
    BidiDropped,
    Notify,
    Ping,
    Fail,
    Lend,
    LendDropped,
    Tell,
    StuckWithDeadline,
    StuckDropped,
    SlowReader,
    StuckUpload,
}

const DEEDS: [Deed; 21] = {
    use Deed::*;
    [
        Add,
        Echo,
        EchoWithDeadline,
        EchoDropped,
        Many,
        Stream,
        StreamDropped,
        Upload,
        UploadDropped,
        Bidi,
        BidiDropped,
        Notify,
        Ping,
        Fail,
        Lend,
        LendDropped,
        Tell,
        StuckWithDeadline,
        StuckDropped,
        SlowReader,
        StuckUpload,
    ]
};

/// The last of them need a server that has handlers for them.
const DEEDS_EVERYWHERE: u32 = 17;

/// Most notifications of one caller: the server remembers all of them.
const MOST_NOTIFICATIONS: u32 = 20_000;

impl Stress {
    fn next(&self, random: &mut Random) -> Deed {
        let count = if self.has_stuck {
            DEEDS.len() as u32
        } else {
            DEEDS_EVERYWHERE
        };
        DEEDS[random.below(count) as usize]
    }
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().expect("a number"))
}

fn spin(random: &mut Random) -> Spin {
    [Spin::Never, Spin::Adaptive, Spin::Always][random.below(3) as usize]
}

fn ring_capacity_bytes(random: &mut Random) -> u32 {
    [4096, 16 << 10, 256 << 10][random.below(3) as usize]
}

pub(crate) fn run_clients() {
    let seconds = number("DOORBELL_STRESS_SECONDS").unwrap_or(3);
    let seed = number("DOORBELL_STRESS_SEED").unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        now.unwrap().as_nanos() as u64
    });
    eprintln!("stress: DOORBELL_STRESS_SEED={seed}");
    let stress = Stress {
        board: Arc::default(),
        seed,
        has_stuck: setting("kind") == "tasks",
    };
    let path = setting("path");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_keep_alive(Duration::from_millis(10))
        .enable_all()
        .build()
        .unwrap();
    warm_up(&runtime, &path);
    say("WARM");
    wait_for_parent().unwrap();

    let mut joined = Vec::new();
    let mut random = Random::new(seed, 1000);
    for _ in 0..2 {
        tasks::spawn_many(&stress, &runtime, connect(&runtime, &path, &mut random));
    }
    joined.push(tasks::spawn_on_a_thread(&stress, &path, &mut random));
    for callers in [4, 1] {
        let client = blocking::Client::builder(&path)
            .spin(spin(&mut random))
            .ring_capacity_bytes(ring_capacity_bytes(&mut random))
            .connect()
            .unwrap();
        for _ in 0..callers {
            joined.push(threads::spawn(&stress, client.clone()));
        }
    }
    let end = Instant::now() + Duration::from_secs(seconds);
    watch_over(&stress.board, end);
    for thread in joined {
        thread.join().expect("a caller failed");
    }
    let board = &stress.board;
    let (begun, ended) = (
        board.begun.load(Ordering::Relaxed),
        board.ended.load(Ordering::Relaxed),
    );
    assert_eq!(begun, ended, "what has begun has ended");
    runtime.block_on(check_server(&stress, &path));
    eprintln!("stress: {ended} deeds, seed {seed}");
    say("DONE");
    while wait_for_parent().is_some() {}
}

/// Everything that is made once in a process is made before anything is counted.
fn warm_up(runtime: &tokio::runtime::Runtime, path: &str) {
    let client = blocking::Client::connect(path).unwrap();
    assert_eq!(client.call(Add(1, 2)).wait().unwrap(), 3);
    runtime.block_on(async {
        let client = Client::connect(path).await.unwrap();
        assert_eq!(client.call(Add(1, 2)).await.unwrap(), 3);
    });
    drop(client);
    let own = std::process::id();
    eventually("the first clients are gone", || {
        doorbell_testkit::mappings(own) == 0 && threads_settled()
    });
}

/// The pool of the runtime and the thread that watches over connections have ended.
fn threads_settled() -> bool {
    let names = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = names.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    let workers = names
        .filter(|name| name.starts_with("tokio") || name.starts_with("doorbell"))
        .count();
    workers <= 2
}

fn connect(runtime: &tokio::runtime::Runtime, path: &str, random: &mut Random) -> Client {
    let builder = Client::builder(path)
        .spin(spin(random))
        .ring_capacity_bytes(ring_capacity_bytes(random));
    runtime.block_on(builder.connect()).unwrap()
}

fn watch_over(board: &Board, end: Instant) {
    let mut told = Instant::now();
    while !board.all_left() {
        if Instant::now() >= end {
            board.over.store(true, Ordering::Relaxed);
        }
        if told.elapsed() > Duration::from_secs(1) {
            told = Instant::now();
            say("ALIVE");
        }
        std::thread::sleep(Duration::from_millis(10)); // between looks
    }
}

/// Returns how many notifications of each caller the server has heard: each once and in order.
async fn heard_of_each(client: &Client, callers: usize) -> Vec<u32> {
    let mut heard = vec![0; callers];
    for notification in client.call(Recall).await.unwrap() {
        let (caller, number) = (
            (notification >> 20) as usize,
            notification & ((1 << 20) - 1),
        );
        assert_eq!(number, heard[caller], "notifications of caller {caller}");
        heard[caller] += 1;
    }
    heard
}

/// The server has heard everything, in order, and has ended every handler.
async fn check_server(stress: &Stress, path: &str) {
    let client = Client::connect(path).await.unwrap();
    let give_up = Instant::now() + doorbell_testkit::PATIENCE;
    let sent = stress.board.notified();
    // What a client has left behind may still be read.
    loop {
        let heard = heard_of_each(&client, sent.len()).await;
        if heard == sent {
            break;
        }
        assert!(
            Instant::now() < give_up,
            "notifications of all callers: {heard:?} of {sent:?}"
        );
        tokio::task::yield_now().await;
    }
    if !stress.has_stuck {
        return;
    }
    loop {
        let seen = client.call(Look).await.unwrap();
        if seen.started == seen.dropped {
            return;
        }
        assert!(Instant::now() < give_up, "handlers are left: {seen:?}");
        tokio::time::sleep(Duration::from_millis(1)).await; // between looks
    }
}

//! SIGKILL of either side at random points, a thousand times each: nothing lost, torn, executed twice or leaked, and nobody hangs.
//!
//! `DOORBELL_DEATH_SEED` plays a run again as far as the two processes allow; `DOORBELL_DEATH_CYCLES` sets how often each side dies.

mod death;

use std::{
    collections::HashMap,
    path::Path,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use death::{
    Random, blocking,
    counts::Counts,
    messages::{Answer, Sealed, Shape},
    process::{Part, Victim, be_the_victim, number, runtime, spin},
    resources::Resources,
    servers::Servers,
    serving::{self, Log},
};
use doorbell::blocking::Client;

/// The other process of the tests below.
#[test]
fn victim() {
    be_the_victim();
}

#[test]
fn server_of_tasks_outlives_its_clients() {
    let _alone = alone();
    let runtime = runtime();
    let log = Log::in_memory();
    let (directory, socket) = place();
    let server = runtime.block_on(serving::bind(&socket, &log)).unwrap();
    Clients {
        log: &log,
        directory: directory.path(),
        socket: &socket,
        run: 1,
        connections: &|| server.stats().connections,
    }
    .die();
}

#[test]
fn server_of_threads_outlives_its_clients() {
    let _alone = alone();
    let log = Log::in_memory();
    let (directory, socket) = place();
    let server = serving::bind_blocking(&socket, &log).unwrap();
    Clients {
        log: &log,
        directory: directory.path(),
        socket: &socket,
        run: 2,
        connections: &|| server.stats().connections,
    }
    .die();
}

#[test]
fn clients_of_both_kinds_outlive_their_server() {
    let _alone = alone();
    let (seed, cycles) = (seed(), cycles());
    let (directory, socket) = place();
    let runtime = runtime();
    let mut servers = Servers::new(&runtime, &socket);
    servers.run_once(&mut Random(seed), 0); // threads of the runtime start with the first use
    let start = Resources::settle_at_rest(directory.path());
    let began = Instant::now();
    let mut random = Random(seed);
    for cycle in 1..=cycles {
        servers.die(&mut random, cycle);
    }
    servers.run_once(&mut random, cycles + 1); // the path works still
    let held = Resources::settle(directory.path(), start);
    let counts = servers.counts;
    println!(
        "seed {seed:#x}: {cycles} servers killed in {:.1?}: {counts:?}, {start:?} -> {held:?}",
        began.elapsed()
    );
    assert_eq!(counts.faults(), [0; 5]);
    assert_eq!(held, start);
    assert!(
        counts.answered > cycles,
        "the kills came too early to mean anything"
    );
}

/// The places lie between the steps of a connection; see `doorbell_shm::failpoint`.
#[cfg(doorbell_failpoints)]
#[test]
fn each_step_of_either_side_may_be_the_last() {
    let _alone = alone();
    let (directory, _) = place();
    let began = Instant::now();
    let mut walk = death::walk::Walk {
        runtime: &runtime(),
        directory: directory.path(),
        seed: seed(),
        visits: variable("DOORBELL_DEATH_VISITS").unwrap_or(2),
        judged: Default::default(),
        deaths: 0,
    };
    walk.clients();
    walk.servers();
    println!(
        "seed {:#x}: {} deaths at {} places in {:.1?}: {:?}",
        walk.seed,
        walk.deaths,
        doorbell_shm::failpoint::PLACES.len(),
        began.elapsed(),
        walk.judged
    );
}

/// Clients that are killed one after the other.
struct Clients<'a> {
    log: &'a Log,
    directory: &'a Path,
    socket: &'a str,
    run: u64,
    connections: &'a (dyn Fn() -> usize + Sync),
}

impl Clients<'_> {
    /// Kills them while a witness goes on working.
    fn die(&self) {
        let (seed, cycles) = (seed() ^ self.run, cycles() / 2);
        let witness = Client::connect(self.socket).unwrap();
        let mut random = Random(seed);
        self.die_once(&mut random, 0, 1); // what starts with the first use
        let start = Resources::settle_at_rest(self.directory);
        let began = Instant::now();
        let (stop, witnessed) = (AtomicBool::new(false), AtomicU64::new(0));
        let (mut counts, mut answered) = (Counts::default(), HashMap::new());
        std::thread::scope(|scope| {
            let stopped = StopOnDrop(&stop); // also if a cycle fails
            let witnessing = scope.spawn(|| self.bear_witness(&witness, &stop, &witnessed));
            for cycle in 1..=cycles {
                let others = || {
                    self.log
                        .count()
                        .saturating_sub(witnessed.load(Ordering::Relaxed))
                };
                let (ids, noticed) = self.die_at_random(&mut random, cycle, &others);
                answered.extend(ids);
                counts.slowest = counts.slowest.max(noticed);
            }
            drop(stopped);
            witnessing.join().unwrap();
        });
        counts.compare(&self.log.take(), &answered);
        let held = Resources::settle(self.directory, start);
        let witnessed = witnessed.into_inner();
        let took = began.elapsed();
        println!(
            "seed {seed:#x}: {cycles} clients killed in {took:.1?}: {counts:?}, witness {witnessed}, {start:?} -> {held:?}"
        );
        assert_eq!(counts.faults(), [0; 5]);
        assert_eq!(held, start);
        assert!(
            witnessed > cycles && counts.answered > cycles,
            "the kills came too early to mean anything"
        );
    }

    /// One in four is killed some time after its start, which may be before it has connected; the others while they work.
    fn die_at_random(
        &self,
        random: &mut Random,
        cycle: u64,
        done: &dyn Fn() -> u64,
    ) -> (HashMap<u64, u32>, Duration) {
        let mut life = self.start(random, cycle);
        if random.below(4) == 0 {
            spin(Duration::from_micros(random.below(12_000)));
        } else {
            life.await_calls(done, random.below(30));
            spin(Duration::from_micros(random.below(200)));
        }
        self.end(life)
    }

    fn die_once(&self, random: &mut Random, cycle: u64, calls: u64) {
        let mut life = self.start(random, cycle);
        life.await_calls(&|| self.log.count(), calls);
        self.end(life);
    }

    fn start(&self, random: &mut Random, cycle: u64) -> Life {
        let part = if random.below(2) == 0 {
            Part::Client
        } else {
            Part::BlockingClient
        };
        let log = tempfile::NamedTempFile::new().unwrap();
        let victim = Victim::start(part, self.socket, log.path(), self.run << 24 | cycle);
        Life { victim, log }
    }

    /// Kills it and waits until the server has noticed. Returns what had been answered to it.
    fn end(&self, mut life: Life) -> (HashMap<u64, u32>, Duration) {
        let killed = Instant::now();
        life.victim.kill();
        while (self.connections)() != 1 {
            let held = (self.connections)();
            assert!(
                killed.elapsed() < Duration::from_secs(10),
                "the server has {held} connections after its client's death"
            );
            std::thread::yield_now();
        }
        (serving::read(life.log.path()), killed.elapsed())
    }

    fn bear_witness(&self, client: &Client, stop: &AtomicBool, count: &AtomicU64) {
        let mut random = Random(self.run);
        for call in 0.. {
            if stop.load(Ordering::Acquire) {
                return;
            }
            let shape = Shape::pick(&mut random);
            let message = Sealed::new(
                number(self.run << 24, 0xff, call),
                shape.length(&mut random),
            );
            match blocking::ask(client, shape, message) {
                Answer::Whole | Answer::GivenUp => count.fetch_add(1, Ordering::Relaxed),
                Answer::Torn => panic!("the witness got a torn answer"),
                Answer::Failed(error) => panic!("the witness was hurt: {error}"),
            };
        }
    }
}

/// Tells the witness to stop.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

struct Life {
    victim: Victim,
    log: tempfile::NamedTempFile,
}

impl Life {
    /// Waits until so many calls more have been executed.
    fn await_calls(&mut self, done: &dyn Fn() -> u64, calls: u64) {
        let (began, target) = (Instant::now(), done() + calls);
        while done() < target {
            assert!(!self.victim.has_ended(), "the client ended by itself");
            assert!(
                began.elapsed() < Duration::from_secs(10),
                "the client does not come to work"
            );
            std::thread::yield_now();
        }
    }
}

fn place() -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("server.sock").display().to_string();
    (directory, socket)
}

/// What one test holds must not be taken for what another one leaks.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn seed() -> u64 {
    variable("DOORBELL_DEATH_SEED").unwrap_or_else(|| u64::from(std::process::id()) << 8)
}

fn cycles() -> u64 {
    variable("DOORBELL_DEATH_CYCLES").unwrap_or(1000)
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|value| value.parse().expect("a number"))
}

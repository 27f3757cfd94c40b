//! Clients that are killed, several at once, while a witness goes on working.

use std::{
    collections::HashMap,
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use doorbell::blocking::Client;

use super::{
    Random, blocking,
    counts::Counts,
    messages::{Answer, Sealed, Shape},
    process::{Part, Victim, number, spin},
    resources::Resources,
    serving::{self, Log, WITNESS},
};

/// A server that outlives its clients.
pub(crate) struct Clients<'a> {
    pub(crate) log: &'a Log,
    pub(crate) directory: &'a Path,
    pub(crate) socket: &'a str,
    /// Tells the numbers of this campaign from those of others.
    pub(crate) run: u64,
    pub(crate) connections: &'a (dyn Fn() -> usize + Sync),
}

/// What the witness shares.
#[derive(Default)]
struct Witness {
    stop: AtomicBool,
    executed: AtomicU64,
    /// Answers that were wrong, or no answers.
    hurt: AtomicU64,
}

impl Clients<'_> {
    /// Kills so many.
    pub(crate) fn die(&self, seed: u64, kills: u64) {
        let mut random = Random(seed);
        let client = Client::connect(self.socket).unwrap();
        let mut counts = Counts::default();
        let mut first = Counts::default();
        self.die_together(&mut random, 0, &mut first); // what starts with the first use
        let start = Resources::settle_at_rest(self.directory);
        let witness = Witness::default();
        std::thread::scope(|scope| {
            let stopped = StopOnDrop(&witness.stop); // also if a cycle fails
            scope.spawn(|| self.bear_witness(&client, &witness));
            let cycles = kills.div_ceil(AT_ONCE);
            for cycle in 1..=cycles {
                self.die_together(&mut random, cycle, &mut counts);
                counts.end_of(cycle, cycles);
            }
            drop(stopped);
        });
        counts.faults.indefinite += witness.hurt.into_inner();
        assert!(
            witness.executed.into_inner() > kills / 2,
            "the witness was kept from its work"
        );
        let held = Resources::settle(self.directory, start);
        counts.judge("clients", seed, (start, held));
    }

    /// One in four dies some time after its start, which may be before it has connected; the others while they work.
    fn die_together(&self, random: &mut Random, cycle: u64, counts: &mut Counts) {
        let mut lives: Vec<Life> = (0..AT_ONCE)
            .map(|index| self.start(random, cycle * AT_ONCE + index))
            .collect();
        if cycle > 0 && random.below(4) == 0 {
            spin(Duration::from_micros(random.below(12_000)));
        } else {
            let target = self.log.count() + 1 + random.below(60);
            lives[0].wait_until("the clients come to work", || self.log.count() >= target);
            spin(Duration::from_micros(random.below(200)));
        }
        let killed = Instant::now();
        for life in &mut lives {
            life.victim.send_kill();
            spin(Duration::from_micros(random.below(50)));
        }
        while (self.connections)() > 1 {
            assert!(
                killed.elapsed() < Duration::from_secs(10),
                "the server has {} connections after its clients' death",
                (self.connections)()
            );
            std::thread::yield_now();
        }
        counts.saw(killed.elapsed());
        counts.kills += AT_ONCE;
        let mut answered = HashMap::new();
        for mut life in lives {
            life.victim.kill();
            answered.extend(serving::read(life.log.path()));
        }
        counts.compare(&self.log.take(), &answered, true);
    }

    fn start(&self, random: &mut Random, index: u64) -> Life {
        let part = if random.below(2) == 0 {
            Part::Client
        } else {
            Part::BlockingClient
        };
        let log = tempfile::NamedTempFile::new().unwrap();
        let victim = Victim::start(part, self.socket, log.path(), self.run << 24 | index);
        Life { victim, log }
    }

    /// Calls all the time, and looks after each answer whether the call was executed once.
    fn bear_witness(&self, client: &Client, witness: &Witness) {
        let mut random = Random(self.run);
        for call in 0..1 << 24 {
            if witness.stop.load(Ordering::Acquire) {
                return;
            }
            let shape = match Shape::pick(&mut random) {
                Shape::Lend => Shape::Large, // a segment that it keeps for its next loan would look like one that a dead client has left
                other => other,
            };
            let id = number(self.run << 24, WITNESS, call);
            let answer = blocking::ask(client, shape, Sealed::new(id, shape.length(&mut random)));
            let is_right = match answer {
                Answer::Whole => self.log.take_one(id) == Some(1),
                Answer::GivenUp => {
                    self.log.take_one(id);
                    true
                }
                Answer::Torn => false,
                Answer::Failed(error) => {
                    println!("the witness was hurt: {error}");
                    false
                }
            };
            witness
                .hurt
                .fetch_add(u64::from(!is_right), Ordering::Relaxed);
            witness.executed.fetch_add(1, Ordering::Relaxed);
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

/// A process that is to die, and what it writes down.
pub(crate) struct Life {
    pub(crate) victim: Victim,
    pub(crate) log: tempfile::NamedTempFile,
}

impl Life {
    /// Waits for something that the process brings about.
    pub(crate) fn wait_until(&mut self, what: &str, mut holds: impl FnMut() -> bool) {
        let began = Instant::now();
        while !holds() {
            assert!(
                !self.victim.has_ended(),
                "not yet, and a process ended by itself: {what}"
            );
            assert!(
                began.elapsed() < Duration::from_secs(20),
                "not in time: {what}"
            );
            std::thread::yield_now();
        }
    }
}

/// Clients that live and die together.
const AT_ONCE: u64 = 4;

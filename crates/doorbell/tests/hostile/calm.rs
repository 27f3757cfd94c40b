//! The long form: what the witness feels of an attack that goes on for a while.
//!
//! `DOORBELL_HOSTILE_SECONDS` is how long each attack is repeated, and the time within which the witness has 99 of 100 answers is compared with
//! the same right before and right after.
//!
//! With `DOORBELL_HOSTILE_APART=0,1` as well, the witness calls every 0.3 ms, it and after it its worker have CPU 1 before all
//! others, and everybody else is on CPU 0, the server's other threads before the enemy, which could else stop one that has a lock. Then only
//! the server can hold it up, and more than twice as long is a failure.
//!
//! Without that it calls without pauses, and whoever takes processors slows it down, whatever the server does. So if it is more than twice as
//! long, it is compared, too, with the time beside a process that knows nothing of Doorbell, and takes as much of the processors as enemy and
//! server together take for the attack, about as often. Only what is far beyond both is a failure: on a machine without processors to spare
//! the scheduler decides about factors of two. Somebody else may disturb any of it, so a row has three tries.

use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use doorbell_shm::sys::pin_current_thread;
use doorbell_testkit::{Child, cpu_time, prefer_threads, say, scheduled, setting, wait_for_parent};

use super::{Attack, Scene, witness::Felt};

/// How long each attack is repeated, in the long form.
pub(crate) fn length() -> Option<Duration> {
    let seconds = std::env::var("DOORBELL_HOSTILE_SECONDS").ok()?;
    Some(Duration::from_secs_f64(seconds.parse().expect("seconds")))
}

/// Two CPUs if the witness is to be apart: that of everybody else, and that of the witness and its worker.
fn apart() -> Option<[usize; 2]> {
    let cpus = std::env::var("DOORBELL_HOSTILE_APART").ok()?;
    let (others, witness) = cpus.split_once(',').expect("two CPUs");
    Some([others, witness].map(|cpu| cpu.parse().expect("a CPU")))
}

/// How the witness calls.
pub(crate) fn manner() -> Manner {
    match (length(), apart()) {
        (Some(_), Some([_, cpu])) => Manner::Apart { cpu },
        (Some(_), None) => Manner::WithoutPauses,
        (None, _) => Manner::WithPauses,
    }
}

pub(crate) enum Manner {
    WithPauses,
    WithoutPauses,
    /// With pauses, from a CPU that only its worker wants as well, and has it first.
    Apart {
        cpu: usize,
    },
}

/// Puts the calling thread, and whom it starts from now on, where the witness is not. Threads of handlers, which Doorbell lets run on every CPU
/// of the process, call this themselves.
pub(crate) fn stay_away() {
    if let Some([others, _]) = apart() {
        pin_current_thread(others).expect("a CPU of this process");
    }
}

/// Prefers the server to its enemy, if the witness is apart, and its worker to all others that it has.
pub(crate) fn prefer_server(server: u32) {
    if apart().is_some() {
        let is_its_worker = |thread: &str| thread == "doorbell-io-0";
        prefer_threads(server, is_its_worker, -10); // after the witness
        prefer_threads(server, |thread| !is_its_worker(thread), -5);
    }
}

/// Returns where the workers are to be: that of the witness, which is the first client, is with it, and the others are with everybody else.
pub(crate) fn cpus_of_workers() -> Vec<usize> {
    apart().map_or(Vec::new(), |[others, cpu]| vec![cpu, others])
}

/// Lets the server suffer each attack for so long, prints what the witness felt, and fails if it was too much.
pub(crate) fn measure<'a>(
    scene: &mut Scene,
    attacks: impl Iterator<Item = &'a Attack>,
    length: Duration,
) {
    let mut rows = Vec::new();
    for attack in attacks {
        let mut row = Row::measure(scene, attack, length);
        for _ in 1..TRIES {
            if row.verdict() < Verdict::More && row.verdict() <= worst_allowed() {
                break;
            }
            println!("{row} (again)");
            let again = Row::measure(scene, attack, length);
            if again.verdict() <= row.verdict() {
                row = again;
            }
        }
        println!("{row}");
        rows.push(row);
    }
    let count = |verdict| rows.iter().filter(|row| row.verdict() == verdict).count();
    println!(
        "{} attacks: {} within {TWICE} x of the undisturbed p99, {} more within {TWICE} x of that beside as much other work, \
         {} within {FAR} x, {} beyond",
        rows.len(),
        count(Verdict::Undisturbed),
        count(Verdict::AsBusy),
        count(Verdict::More),
        count(Verdict::TooMuch)
    );
    let too_slow = rows.iter().filter(|row| row.verdict() > worst_allowed());
    let too_slow: Vec<_> = too_slow.map(Row::to_string).collect();
    assert!(too_slow.is_empty(), "{}", too_slow.join("\n"));
}

/// What is no failure.
fn worst_allowed() -> Verdict {
    match apart() {
        Some(_) => Verdict::Undisturbed,
        None => Verdict::More,
    }
}

/// How slow the witness became.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Undisturbed,
    AsBusy,
    More,
    TooMuch,
}

/// What the witness felt.
struct Row {
    name: &'static str,
    calm: [Felt; 2],
    attacked: Felt,
    /// How many times the attack was made, and what it took.
    attacks: usize,
    work: Work,
    /// Beside as much work that is not ours, if it was needed.
    busy: Option<Felt>,
}

/// What is taken of the processors.
#[derive(Clone, Copy)]
struct Work {
    /// How many are kept busy.
    share: f64,
    /// How often in a second.
    turns: f64,
}

impl Row {
    fn measure(scene: &mut Scene, attack: &Attack, length: Duration) -> Self {
        let before = scene.witness.feels(length);
        let mut enemy = scene.child("enemy that goes on", attack.name);
        enemy.hear("BEGUN");
        let work = Work::begin([enemy.id(), scene.victim.child.id()]);
        let attacked = scene.witness.feels(length);
        let work = work();
        enemy.tell("enough");
        let attacks = enemy.hear("MADE").parse().expect("a number");
        enemy.finish();
        scene.witness.goes_on(attack.name);
        scene.victim.settle();
        let mut row = Self {
            name: attack.name,
            calm: [before, scene.witness.feels(length)],
            attacked,
            attacks,
            work,
            busy: None,
        };
        if row.verdict() > Verdict::Undisturbed {
            let (share, turns) = (row.work.share.to_string(), row.work.turns.to_string());
            let settings = [("share", &*share), ("turns", &*turns)];
            let busy = Child::start("child_process", "busy", &settings);
            busy.hear("BEGUN");
            row.busy = Some(scene.witness.feels(length));
            busy.finish();
        }
        row
    }

    fn verdict(&self) -> Verdict {
        let undisturbed = self.calm[0].p99.max(self.calm[1].p99);
        let busy = self
            .busy
            .map_or(undisturbed, |busy| undisturbed.max(busy.p99));
        match self.attacked.p99 {
            p99 if p99 <= TWICE * undisturbed => Verdict::Undisturbed,
            p99 if p99 <= TWICE * busy => Verdict::AsBusy,
            p99 if p99 <= (FAR * busy).max(A_SLICE) => Verdict::More,
            _ => Verdict::TooMuch,
        }
    }
}

impl Work {
    /// Begins to watch enemy and server. What is returned tells what both have taken, without the worker, whose work for the witness cannot be
    /// told from that for the enemy.
    fn begin([enemy, server]: [u32; 2]) -> impl FnOnce() -> Self {
        let now = move || {
            let worker = scheduled(server, is_worker);
            let turns = scheduled(enemy, |_| true).turns + scheduled(server, |_| true).turns;
            let used = cpu_time(enemy) + cpu_time(server).saturating_sub(worker.ran);
            (used, turns - worker.turns)
        };
        let (start, before) = (Instant::now(), now());
        move || {
            let (after, seconds) = (now(), start.elapsed().as_secs_f64());
            Self {
                share: after.0.saturating_sub(before.0).as_secs_f64() / seconds,
                turns: after.1.saturating_sub(before.1) as f64 / seconds,
            }
        }
    }
}

fn is_worker(thread: &str) -> bool {
    thread.starts_with("doorbell-io")
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            name,
            calm: [before, after],
            attacked,
            attacks,
            work: Work { share, turns },
            ..
        } = self;
        write!(
            f,
            "{name:56} {before} | {attacked} | {after}; {attacks} times, {share:.2} CPU in {turns:.0} turns a second"
        )?;
        match self.busy {
            Some(busy) => write!(f, ", beside as much other work {busy}"),
            None => Ok(()),
        }
    }
}

impl std::fmt::Display for Felt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [p50, p99] = [self.p50, self.p99].map(|time| time.as_nanos() as f64 / 1e3);
        write!(
            f,
            "p50 {p50:.1} p99 {p99:.1} us (no CPU {:.2})",
            self.waited
        )
    }
}

/// In the enemy's process: makes the attack until it is told that it is enough.
pub(crate) fn go_on(attack: &Attack, path: &Path) {
    let (over, mut count) = (AtomicBool::new(false), 0);
    say("BEGUN");
    thread::scope(|scope| {
        scope.spawn(|| {
            wait_for_parent();
            over.store(true, Ordering::Relaxed);
        });
        while !over.load(Ordering::Relaxed) {
            let account = (attack.run)(path);
            assert!(account.contains(attack.sees), "{account}");
            count += 1;
        }
    });
    say(&format!("MADE {count}"));
    while wait_for_parent().is_some() {}
}

/// In a child: takes a share of the processors, so often.
pub(crate) fn keep_busy() {
    let of = |name| setting(name).parse::<f64>().expect("a number");
    let (share, turns) = (of("share"), of("turns"));
    let threads = share.ceil().max(1.0);
    let period = Duration::from_secs_f64(threads / turns.max(1.0)).clamp(SHORTEST, LONGEST);
    let share = share / threads;
    let over = AtomicBool::new(false);
    say("BEGUN");
    thread::scope(|scope| {
        scope.spawn(|| {
            while wait_for_parent().is_some() {}
            over.store(true, Ordering::Relaxed);
        });
        for _ in 0..threads as usize {
            scope.spawn(|| {
                let begun = Instant::now();
                let mut taken = Duration::ZERO;
                while !over.load(Ordering::Relaxed) {
                    let due = (begun.elapsed() + period)
                        .mul_f64(share)
                        .saturating_sub(taken);
                    let start = Instant::now();
                    while start.elapsed() < due {}
                    taken += start.elapsed();
                    thread::sleep(period.mul_f64(1.0 - share)); // not to wait for anything, but to take no more
                }
            });
        }
    });
}

const TRIES: u32 = 3;
/// What is promised.
const TWICE: u32 = 2;
/// What is asserted, and up to which time it is not: what a scheduler gives to whoever computes, before somebody else has his turn.
const FAR: u32 = 8;
const A_SLICE: Duration = Duration::from_micros(200);
/// Sleeping takes longer than less than that, and a scheduler would not let a longer one be.
const SHORTEST: Duration = Duration::from_micros(100);
const LONGEST: Duration = Duration::from_millis(1);

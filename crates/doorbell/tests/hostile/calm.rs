//! The long form: what the witness feels of an attack that goes on for a while.
//!
//! `DOORBELL_HOSTILE_SECONDS` is how long each attack is repeated. The witness calls without pauses, and the time within which it has 99 of 100
//! answers is compared with the same right before and right after: it may be twice that. An attack that keeps a processor busy slows
//! everybody down whom it leaves none, whatever the server does; what is asserted is then twice the time beside a process that knows nothing of
//! Doorbell and takes as much of a processor as the enemy does. Somebody else may disturb any of it, so a row has three tries.

use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use doorbell_testkit::{Child, cpu_time, say, setting, wait_for_parent};

use super::{Attack, Scene};

/// How long each attack is repeated, in the long form.
pub(crate) fn length() -> Option<Duration> {
    let seconds = std::env::var("DOORBELL_HOSTILE_SECONDS").ok()?;
    Some(Duration::from_secs_f64(seconds.parse().expect("seconds")))
}

/// Lets the server suffer each attack for so long, prints what the witness felt, and fails if it was too much.
pub(crate) fn measure<'a>(
    scene: &mut Scene,
    attacks: impl Iterator<Item = &'a Attack>,
    length: Duration,
) {
    let mut too_slow = Vec::new();
    for attack in attacks {
        let mut row = Row::measure(scene, attack, length);
        for _ in 1..TRIES {
            if row.holds() {
                break;
            }
            println!("{row} (again)");
            row = Row::measure(scene, attack, length);
        }
        println!("{row}");
        if !row.holds() {
            too_slow.push(row.to_string());
        }
    }
    assert!(too_slow.is_empty(), "{}", too_slow.join("\n"));
}

/// Times within which 99 of 100 calls were answered.
struct Row {
    name: &'static str,
    calm: [Duration; 2],
    attacked: Duration,
    /// How many times the attack was made, and how much of a processor the enemy took.
    attacks: usize,
    share: f64,
    /// Beside as much work that is not ours, if it was needed.
    busy: Option<Duration>,
}

impl Row {
    fn measure(scene: &mut Scene, attack: &Attack, length: Duration) -> Self {
        let before = scene.witness.p99_of(length);
        let mut enemy = scene.child("enemy that goes on", attack.name);
        enemy.hear("BEGUN");
        let (start, used) = (Instant::now(), cpu_time(enemy.id()));
        let attacked = scene.witness.p99_of(length);
        let share = (cpu_time(enemy.id()) - used).as_secs_f64() / start.elapsed().as_secs_f64();
        enemy.tell("enough");
        let attacks = enemy.hear("MADE").parse().expect("a number");
        enemy.finish();
        scene.witness.goes_on(attack.name);
        scene.victim.settle();
        let mut row = Self {
            name: attack.name,
            calm: [before, scene.witness.p99_of(length)],
            attacked,
            attacks,
            share,
            busy: None,
        };
        if !row.holds() {
            let busy = Child::start("child_process", "busy", &[("share", &*share.to_string())]);
            busy.hear("BEGUN");
            row.busy = Some(scene.witness.p99_of(length));
            busy.finish();
        }
        row
    }

    fn holds(&self) -> bool {
        let [before, after] = self.calm;
        let undisturbed = before.max(after).max(self.busy.unwrap_or_default());
        self.attacked <= 2 * undisturbed
    }
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let micros = |time: Duration| time.as_nanos() as f64 / 1e3;
        let [before, after] = self.calm.map(micros);
        let Self {
            name,
            attacks,
            share,
            ..
        } = self;
        write!(
            f,
            "{name:56} p99 {before:8.1} | {:8.1} | {after:8.1} us, {attacks:6} times, {share:.2} CPU",
            micros(self.attacked)
        )?;
        match self.busy {
            Some(busy) => write!(f, ", beside as much other work {:8.1} us", micros(busy)),
            None => Ok(()),
        }
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

/// In a child: takes a share of a processor, a millisecond at a time, until its parent has no more to say.
pub(crate) fn keep_busy() {
    let share: f64 = setting("share").parse().expect("a number");
    let over = AtomicBool::new(false);
    say("BEGUN");
    thread::scope(|scope| {
        scope.spawn(|| {
            while wait_for_parent().is_some() {}
            over.store(true, Ordering::Relaxed);
        });
        let of_thread = |number| (share - f64::from(number)).clamp(0.0, 1.0);
        for share in (0..8).map(of_thread).take_while(|share| *share > 0.0) {
            let over = &over;
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let start = Instant::now();
                    while start.elapsed() < PERIOD.mul_f64(share) {}
                    thread::sleep(PERIOD.mul_f64(1.0 - share)); // not to wait for anything, but to take no more
                }
            });
        }
    });
}

const PERIOD: Duration = Duration::from_millis(1);
const TRIES: u32 = 3;

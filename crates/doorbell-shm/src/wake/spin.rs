//! How long to look before sleeping.

use std::time::{Duration, Instant};

/// Whether a waiter may spin before it sleeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SpinMode {
    /// As long as it has recently paid, up to 200 µs.
    #[default]
    Adaptive,
    /// Not at all.
    Never,
    /// Always for 1 ms, whatever it pays. For machines with cores to burn, and for processes that are pinned to a CPU each.
    Always,
}

/// How long one waiter spins before it sleeps, learnt from what spinning has paid.
///
/// The rule is that of KVM's halt polling (Linux, `Documentation/virt/kvm/halt-polling.rst`), where the
/// host decides whether to poll for a guest that has nothing to do: a wait that ends while we spin leaves
/// the budget alone; one that outlives the spin but ends soon afterwards doubles it, up to a maximum, since
/// a little more would have paid; one that lasts long shrinks it, to nothing after a few. The maximum is
/// that of KVM too, 200 µs. Some things differ:
///
/// - What counts as *soon* is longer than the longest spin, because a sleep that ended at once still
///   takes the 40–150 µs that waking an idle virtual CPU costs.
/// - It starts at the maximum, for the first calls of a program matter to it, and nothing is known against it yet.
/// - A budget that stays at its maximum without paying is given up for a while, which doubles each time until spinning pays again.
/// - If sleeps took less during that while than an answer from another CPU, and the next spin misses nevertheless, then the spin is
///   what the answer waits for: both sides run on one CPU, and the while may become very long.
/// - A spin that the scheduler interrupted is worse than useless: somebody wanted this CPU. It costs the budget at once, and as long as
///   those that pay do not outweigh it, ever longer whiles.
/// - Unless waits have taken less, with all interruptions, since the last while than sleeps took during it: then it is a crowd of such
///   waiters that shares the CPU, in which each sleep costs the peer a wake-up on top. What has been learnt is forgotten with the next while.
/// - No such while lasts longer than 64 ms of sleeping: whoever kept the CPUs busy may be gone.
/// - A spin that lasts offers its CPU to others now and then, because the peer may be the one that waits for it: with more threads
///   awake than CPUs it otherwise waits for the end of our time slice, which is milliseconds. While somebody takes them, offers come
///   early in a wait; if the CPU comes back only after a whole time slice, somebody is computing on it, and the spin counts as
///   interrupted.
///
/// With one CPU to run on nobody can answer while we spin, and the budget is always 0: unless the user, who knows where the peer
/// runs, has asked for [`SpinMode::Always`].
///
/// # Examples
///
/// ```
/// # use std::time::{Duration, Instant};
/// # use doorbell_shm::wake::{Spin, SpinMode};
/// # fn look() -> bool { true }
/// # fn sleep() {}
/// let mut spin = Spin::new(SpinMode::Adaptive, 2);
/// let mut turn = spin.start();
/// let mut found = false;
/// while turn.again() && !found {
///     found = look();
/// }
/// if found {
///     spin.paid(&turn);
/// } else {
///     spin.missed(&turn);
///     let asleep = Instant::now();
///     sleep();
///     spin.slept(asleep.elapsed());
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Spin {
    mode: SpinMode,
    budget: Duration,
    /// Turns in a row that used up the whole maximum and paid nothing.
    missed_turns: u32,
    /// Sleeps that must pass before the budget may grow again, unless they last for so long together.
    rest_sleeps: u32,
    rest_time: Duration,
    /// How many sleeps the latest rest has lasted, how many of them were shorter than any spin, and how many the next one will last.
    rest_length: u32,
    quick_sleeps: u32,
    next_rest: u32,
    /// Turns that must pay before the next rest is a short one again.
    to_pay_back: u32,
    /// The first turn after a rest is still to come.
    is_trial: bool,
    /// A turn has missed since the last sleep.
    tried: bool,
    /// Somebody has used the CPU when it was offered last.
    is_shared: bool,
    /// What waits have taken since the last rest, all of which were spun at least at first, and what they took asleep during that rest. Those with a
    /// long sleep are left out of both.
    spun: Mean,
    asleep: Mean,
}

impl Spin {
    /// Returns the spin of one waiter on a machine with `cpu_count` usable CPUs.
    pub fn new(mode: SpinMode, cpu_count: usize) -> Self {
        let mode = match mode {
            SpinMode::Adaptive if cpu_count == 1 => SpinMode::Never,
            mode => mode,
        };
        let budget = match mode {
            SpinMode::Adaptive => MAXIMUM,
            SpinMode::Never => Duration::ZERO,
            SpinMode::Always => ALWAYS,
        };
        Self {
            mode,
            budget,
            missed_turns: 0,
            rest_sleeps: 0,
            rest_time: Duration::ZERO,
            rest_length: 0,
            quick_sleeps: 0,
            next_rest: REST_SLEEPS,
            to_pay_back: 0,
            is_trial: false,
            tried: false,
            is_shared: false,
            spun: Mean::default(),
            asleep: Mean::default(),
        }
    }

    /// Begins one wait.
    #[inline]
    pub fn start(&self) -> SpinTurn {
        SpinTurn {
            budget: self.budget,
            pauses_left: if self.budget.is_zero() {
                0
            } else {
                pauses(self.is_shared)
            },
            clock: None,
            stolen: false,
            is_shared: self.is_shared,
        }
    }

    /// Returns how long the next turn may last.
    pub fn budget(&self) -> Duration {
        self.budget
    }

    /// Learns that what was waited for came during `turn`.
    ///
    /// What was there at once teaches nothing: with both sides on one CPU an answer can come before the wait for it begins.
    #[inline]
    pub fn paid(&mut self, turn: &SpinTurn) {
        if !turn.has_paused() {
            return;
        }
        self.is_shared = turn.is_shared;
        self.spun.count(turn.lasted());
        self.missed_turns = 0;
        self.is_trial = false;
        match self.to_pay_back.checked_sub(1) {
            Some(left) => self.to_pay_back = left,
            None => self.next_rest = REST_SLEEPS,
        }
    }

    /// Learns that `turn` ended with nothing. Without that, a sleep says nothing of what spinning would have paid: it may have begun
    /// while nobody spun, or belong to somebody else who waited for the same connection.
    #[inline]
    pub fn missed(&mut self, turn: &SpinTurn) {
        if !turn.has_paused() {
            return;
        }
        self.tried = true;
        self.is_shared = turn.is_shared;
        self.spun.count(turn.lasted());
        if turn.stolen && self.mode == SpinMode::Adaptive && !self.spun.is_less_than(&self.asleep) {
            self.rest(LONGEST_REST);
            self.to_pay_back = PAY_BACK;
        }
    }

    /// Learns that a sleep lasted for `duration`; the turn before it, if there was one, has [missed](Self::missed).
    pub fn slept(&mut self, duration: Duration) {
        if self.mode != SpinMode::Adaptive {
            return;
        }
        let tried = std::mem::take(&mut self.tried);
        if duration >= LONG_SLEEP {
            return self.shrink();
        }
        if tried {
            self.spun.total += duration; // one wait with the turn before it
        }
        if self.rest_sleeps > 0 {
            self.rest_time = self.rest_time.saturating_sub(duration);
            self.rest_sleeps = if self.rest_time.is_zero() {
                0
            } else {
                self.rest_sleeps - 1
            };
            self.quick_sleeps += u32::from(duration < QUICK_SLEEP);
            self.asleep.count(Some(duration));
        } else if tried && self.is_in_the_way() {
            self.rest(LONGEST_REST);
        } else if self.budget < MAXIMUM {
            self.grow();
        } else if tried {
            self.miss();
        }
    }

    /// The first turn after a rest has missed, although most sleeps of the rest had been shorter than it.
    fn is_in_the_way(&mut self) -> bool {
        std::mem::take(&mut self.is_trial) && 2 * self.quick_sleeps > self.rest_length
    }

    fn grow(&mut self) {
        self.budget = (self.budget * 2).clamp(START, MAXIMUM);
    }

    fn shrink(&mut self) {
        self.missed_turns = 0;
        self.budget /= 2;
        if self.budget < LEAST {
            self.budget = Duration::ZERO;
        }
    }

    fn miss(&mut self) {
        self.missed_turns += 1;
        if self.missed_turns == MISSES {
            self.rest(LONG_REST);
        }
    }

    /// Gives spinning up for a while, and for twice as long the next time, up to `longest`, if it does not pay in between.
    fn rest(&mut self, longest: u32) {
        self.budget = Duration::ZERO;
        self.missed_turns = 0;
        self.rest_length = self.next_rest.min(longest);
        self.next_rest = 2 * self.rest_length;
        self.rest_sleeps = self.rest_length;
        self.rest_time = LONGEST_REST_TIME;
        self.quick_sleeps = 0;
        self.is_trial = true;
        (self.spun, self.asleep) = (Mean::default(), Mean::default());
    }
}

/// The mean time of the latest waits.
#[derive(Clone, Copy, Debug, Default)]
struct Mean {
    total: Duration,
    waits: u32,
}

impl Mean {
    #[inline]
    fn count(&mut self, wait: Option<Duration>) {
        self.waits += 1;
        if let Some(wait) = wait {
            self.total += wait;
        }
        if self.waits == REMEMBERED {
            self.waits /= 2;
            self.total /= 2;
        }
    }

    /// Nothing is less than what is not known.
    fn is_less_than(&self, other: &Self) -> bool {
        other.waits > 0 && self.total * other.waits < other.total * self.waits
    }
}

/// One wait: how often to look before sleeping. Made by [`Spin::start`].
#[derive(Debug)]
pub struct SpinTurn {
    budget: Duration,
    /// Looks that may pass before the clock is looked at again.
    pauses_left: u32,
    clock: Option<Clock>,
    stolen: bool,
    is_shared: bool,
}

#[derive(Clone, Copy, Debug)]
struct Clock {
    started: Instant,
    /// When the turn began, later by the time for which others had the CPU.
    began: Instant,
    looked: Instant,
    offer_at: Instant,
}

impl SpinTurn {
    /// Returns a turn that is over: for a wait whose spin has been done before.
    pub fn over() -> Self {
        Self {
            budget: Duration::ZERO,
            pauses_left: 0,
            clock: None,
            stolen: false,
            is_shared: false,
        }
    }

    /// Pauses, and returns `true` while it is worth to look once more.
    ///
    /// The clock is looked at once every few pauses, and not at all during the first few: what comes
    /// at once costs no look at it.
    #[inline]
    pub fn again(&mut self) -> bool {
        if self.pauses_left > 0 {
            self.pauses_left -= 1;
            std::hint::spin_loop();
            return true;
        }
        !self.budget.is_zero() && self.look_at_clock(Instant::now())
    }

    #[inline]
    fn has_paused(&self) -> bool {
        let has_begun = self.pauses_left < pauses(self.is_shared) && !self.budget.is_zero();
        self.clock.is_some() || has_begun
    }

    /// Returns how long it has lasted up to the last look at the clock, if there was one.
    #[inline]
    fn lasted(&self) -> Option<Duration> {
        self.clock
            .map(|clock| clock.looked.duration_since(clock.started))
    }

    #[cold]
    fn look_at_clock(&mut self, now: Instant) -> bool {
        let is_shared = self.is_shared;
        let clock = self.clock.get_or_insert(Clock {
            started: now,
            began: now,
            looked: now,
            offer_at: if is_shared { now } else { now + OFFER_AFTER },
        });
        self.stolen = now.duration_since(clock.looked) > STOLEN;
        clock.looked = now;
        let is_due = clock.offer_at <= now;
        if !self.is_over(now) && is_due {
            std::thread::yield_now();
            self.offered(now, Instant::now());
        }
        let over = self.is_over(now);
        self.pauses_left = if over { 0 } else { PAUSES };
        if over {
            self.budget = Duration::ZERO;
        }
        !over
    }

    fn is_over(&self, now: Instant) -> bool {
        let began = self.clock.map_or(now, |clock| clock.began);
        self.stolen || now.saturating_duration_since(began) >= self.budget
    }

    /// Learns that the CPU was offered to others, from when until when.
    fn offered(&mut self, from: Instant, until: Instant) {
        let away = until.duration_since(from);
        self.is_shared = away >= SWITCH;
        self.stolen = away >= TIME_SLICE;
        let pause = if self.is_shared {
            OFFER_AFTER
        } else {
            BETWEEN_OFFERS
        };
        if let Some(clock) = &mut self.clock {
            clock.began += away;
            clock.looked = until;
            clock.offer_at = until + pause;
        }
    }
}

/// Returns how often to look before the first look at the clock.
fn pauses(is_shared: bool) -> u32 {
    if is_shared {
        PAUSES_BEFORE_OFFER
    } else {
        PAUSES
    }
}

/// Looks between two looks at the clock: 1 to 2 µs of pauses on current processors. Looking costs about 30 ns, during which an answer
/// is not seen.
const PAUSES: u32 = 32;
/// The same at the beginning of a turn while others want the CPU, before it is offered to them: about 0.4 µs, in which most of an answer
/// comes from a peer that has a CPU of its own. (Without them two clients that share a CPU hand it to and fro, and both wait for a
/// server on the other one.)
const PAUSES_BEFORE_OFFER: u32 = 10;
/// The budget that one grows from: an answer of a process that is awake, or asleep on a CPU that is not.
const START: Duration = Duration::from_micros(50);
/// Largest budget, and the first: the answer of a peer that had to be woken on an idle CPU, which takes 60 to 150 µs on a virtual machine. The same as
/// KVM's own (`halt_poll_ns`).
const MAXIMUM: Duration = Duration::from_micros(200);
/// Smallest budget worth a turn.
const LEAST: Duration = Duration::from_micros(5);
/// A turn in [`SpinMode::Always`].
const ALWAYS: Duration = Duration::from_millis(1);
/// A sleep so short is over before an answer could have come from another CPU that had to be woken: both sides run on one.
const QUICK_SLEEP: Duration = Duration::from_micros(20);
/// From here on a sleep was one that no spin should have replaced: the longest spin, and two wake-ups, which on a virtual machine in a bad
/// mood have been seen to take 150 µs each. Below that, sleeping once would mean sleeping always.
const LONG_SLEEP: Duration = Duration::from_micros(500);
/// Time between two looks at the clock that no number of pauses explains.
const STOLEN: Duration = Duration::from_micros(100);
/// When a turn that is alone on its CPU, as far as it knows, offers it for the first time, and another one once more after somebody took
/// it. An answer from another CPU has come by then.
const OFFER_AFTER: Duration = Duration::from_micros(2);
/// How long it waits until the next offer: nobody wanted the CPU, and asking costs half a microsecond.
const BETWEEN_OFFERS: Duration = Duration::from_micros(10);
/// An offer that takes so long was taken: it takes a third of that if nobody else wants the CPU, and two switches more otherwise.
const SWITCH: Duration = Duration::from_nanos(1500);
/// An offer that takes so long was taken by somebody who computes, rather than by a peer or a handful of them. With less, a server whose
/// clients have more threads than there are CPUs sleeps more and its large messages take twice as long (`doorbell bench stress`).
const TIME_SLICE: Duration = Duration::from_millis(1);
/// Turns that outweigh one that was interrupted: each saves a few microseconds, it has cost a millisecond.
const PAY_BACK: u32 = 256;
/// Waits after which the mean of the earlier half counts no more than that of the later one.
const REMEMBERED: u32 = 256;
/// Turns of the maximum without success before spinning is given up for a while.
const MISSES: u32 = 8;
/// How long that is at first, in sleeps.
const REST_SLEEPS: u32 = 32;
/// How long at most, if turns merely miss. Then what they cost, 2 ms of CPU time at most, is a thirtieth of the time of so many sleeps.
const LONG_REST: u32 = 256;
/// How long at most, if turns keep somebody from the CPU: 20 ms of calls on one CPU, during which a turn of 50 µs does not count.
const LONGEST_REST: u32 = 4096;
/// How long at most, in time asleep. At a hundred calls a second 4096 sleeps would be most of a minute after the CPUs have become free.
const LONGEST_REST_TIME: Duration = Duration::from_millis(64);

#[cfg(all(test, not(loom)))]
mod tests;

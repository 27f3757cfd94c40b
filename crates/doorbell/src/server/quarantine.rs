//! Where connections go whose memory makes their worker sleep: to a worker of their own, so that they hold up each other alone.
//!
//! A worker finds such a connection by [`stall`], while it is [wary](Wary). The connection travels to the quarantine as a new one would to
//! a worker, with everything that it has under way. It is served there as anywhere, and goes home when its process has caused no
//! stall for a while. Whoever comes in again and again comes in there: a process is suspected for a while after three stalls within a second,
//! the longer the more often it has come from its worker; and all processes of a user are if many of them are.
//!
//! That is no punishment. Memory that the system has moved to disk makes a worker sleep in the same way, and then, too, it is better if nobody
//! else waits for it.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use doorbell_shm::{
    stall,
    sys::{PeerIdentity, ThreadSleeps, thread_sleeps},
};

use super::mailbox::Mailbox;
use crate::connection::lock;

/// What workers, acceptor and quarantine share.
pub(super) struct Quarantine {
    pub(super) mailbox: Arc<Mailbox>,
    /// The workers from which connections come.
    pub(super) homes: Vec<Arc<Mailbox>>,
    suspects: Mutex<Suspects>,
    /// There may be suspects.
    has_suspects: AtomicBool,
    /// Connections that workers have sent here since the start.
    pub(super) sent: AtomicU64,
    /// Connections that are here.
    pub(super) held: AtomicUsize,
}

impl Quarantine {
    pub(super) fn new(homes: Vec<Arc<Mailbox>>) -> std::io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            mailbox: Mailbox::new()?,
            homes,
            suspects: Mutex::default(),
            has_suspects: AtomicBool::new(false),
            sent: AtomicU64::new(0),
            held: AtomicUsize::new(0),
        }))
    }

    /// A connection has come to the calling thread, the quarantine's, which is wary as long as it has some.
    pub(super) fn came(&self) {
        if self.held.fetch_add(1, Ordering::Relaxed) == 0 {
            stall::watch(true);
        }
    }

    /// A connection has left the calling thread, the quarantine's.
    pub(super) fn left(&self) {
        if self.held.fetch_sub(1, Ordering::Relaxed) == 1 {
            stall::watch(false);
        }
    }

    /// Notes that a connection of this process has made a worker, or the quarantine, sleep. Returns `true` if it belongs into the quarantine.
    pub(super) fn note_stall(&self, peer: &PeerIdentity, now: Instant) -> bool {
        let mut suspects = lock(&self.suspects);
        let is_suspected = suspects.add(peer, now);
        if is_suspected {
            self.has_suspects.store(true, Ordering::Relaxed);
        }
        is_suspected
    }

    /// Returns `true` if connections of this process belong here now.
    #[inline]
    pub(super) fn is_suspected(&self, peer: &PeerIdentity) -> bool {
        self.has_suspects.load(Ordering::Relaxed)
            && self.suspected_until(peer, Instant::now()).is_some()
    }

    /// Returns until when connections of this process stay here, as far as is known now; `None` if they need not.
    pub(super) fn suspected_until(&self, peer: &PeerIdentity, now: Instant) -> Option<Instant> {
        let suspects = lock(&self.suspects);
        if suspects.0.iter().all(|suspect| suspect.until <= now) {
            self.has_suspects.store(false, Ordering::Relaxed); // under the lock, so that none comes meanwhile
        }
        suspects.until(peer, now)
    }
}

/// The processes that have caused stalls lately, of which there are few.
#[derive(Debug, Default)]
struct Suspects(Vec<Suspect>);

#[derive(Debug)]
struct Suspect {
    uid: u32,
    pid: u32,
    until: Instant,
    /// How long it was suspected when it last came from its worker.
    period: Duration,
    /// Stalls so far in a window of time, and when that began.
    stalls: u32,
    since: Instant,
}

impl Suspects {
    /// Notes a stall, and returns `true` if the process is suspected now.
    fn add(&mut self, peer: &PeerIdentity, now: Instant) -> bool {
        self.0.retain(|suspect| now <= suspect.until + MEMORY);
        if self.find(peer).is_none() {
            self.make_room();
            self.0.push(Suspect {
                uid: peer.uid,
                pid: peer.pid,
                until: now,
                period: SHORTEST / 2, // doubled with the first suspicion
                stalls: 0,
                since: now,
            });
        }
        self.find(peer).is_some_and(|suspect| suspect.add(now))
    }

    fn make_room(&mut self) {
        if self.0.len() == MOST_SUSPECTS {
            let all = self.0.iter().enumerate();
            let soonest = all.min_by_key(|(_, suspect)| suspect.until);
            soonest
                .map(|(place, _)| place)
                .map(|place| self.0.swap_remove(place));
        }
    }

    fn find(&mut self, peer: &PeerIdentity) -> Option<&mut Suspect> {
        self.0.iter_mut().find(|suspect| suspect.is(peer))
    }

    fn until(&self, peer: &PeerIdentity, now: Instant) -> Option<Instant> {
        let is_of_user = |suspect: &&Suspect| suspect.uid == peer.uid && suspect.until > now;
        let of_user = self.0.iter().filter(is_of_user);
        let are_many = of_user.clone().count() >= MOST_OF_A_USER;
        of_user
            .filter(|suspect| are_many || suspect.is(peer))
            .map(|suspect| suspect.until)
            .max()
    }
}

impl Suspect {
    fn add(&mut self, now: Instant) -> bool {
        if now > self.since + WINDOW {
            (self.stalls, self.since) = (0, now);
        }
        self.stalls += 1;
        let is_suspected = self.until > now;
        if self.stalls < ENOUGH_STALLS {
            return is_suspected; // its other connections go where it is, too
        }
        self.stalls = 0;
        if is_suspected {
            self.until = self.until.max(now + SHORTEST);
        } else {
            self.period = (self.period * 2).min(LONGEST);
            self.until = now + self.period;
        }
        true
    }

    fn is(&self, peer: &PeerIdentity) -> bool {
        (self.uid, self.pid) == (peer.uid, peer.pid)
    }
}

/// When a worker measures its visits, which costs more than a glance at a connection that has nothing: for a while after some that have taken
/// long, if it has slept and had a page fault since the last time. If nothing is found it rests, the longer the more often that happens: where
/// much memory is new there are faults and locks to wait for that are nobody's. So that nobody can hide in that, a rest ends, too, when a tenth of
/// it has gone in such visits.
pub(super) struct Wary {
    state: State,
    known: ThreadSleeps,
    /// How long the next rest is, and when the last one ended.
    rest: Duration,
    rested_at: Option<Instant>,
}

enum State {
    Calm,
    Wary {
        until: Instant,
        has_found: bool,
    },
    /// Nothing was found the last time.
    Resting {
        until: Instant,
        /// What may go in visits that have taken long.
        patience: Duration,
    },
}

impl Wary {
    pub(super) fn new() -> Self {
        Self {
            state: State::Calm,
            known: ThreadSleeps::default(),
            rest: TIME_WARY,
            rested_at: None,
        }
    }

    /// Learns what the last visits, so many, have taken together.
    #[inline]
    pub(super) fn looked(&mut self, now: Instant, visits: usize, took: Duration) {
        if matches!(self.state, State::Calm) && took <= SUSPICIOUS {
            return;
        }
        self.look_closer(now, visits, took);
    }

    #[cold]
    fn look_closer(&mut self, now: Instant, visits: usize, took: Duration) {
        let visits = u32::try_from(visits).unwrap_or(u32::MAX);
        let is_long = took > SUSPICIOUS + TIME_OF_A_VISIT.saturating_mul(visits);
        match self.state {
            State::Wary { until, .. } if now < until => {}
            State::Wary { has_found, .. } => self.end(now, has_found),
            State::Resting { until, .. } if now >= until => self.state = State::Calm,
            State::Calm | State::Resting { .. } if is_long => {
                self.took_long(now, took, thread_sleeps());
            }
            State::Calm | State::Resting { .. } => {}
        }
    }

    /// A stall has been found.
    pub(super) fn found(&mut self) {
        if let State::Wary { has_found, .. } = &mut self.state {
            *has_found = true;
        }
    }

    /// Is not wary while it sleeps, which may be for ever.
    pub(super) fn sleeps(&self) {
        if let State::Wary { .. } = self.state {
            stall::watch(false);
        }
    }

    /// Has slept, and is as wary as before.
    pub(super) fn woke(&self) {
        if let State::Wary { .. } = self.state {
            stall::watch(true);
        }
    }

    fn took_long(&mut self, now: Instant, took: Duration, sleeps: ThreadSleeps) {
        let before = std::mem::replace(&mut self.known, sleeps);
        if sleeps.faults == before.faults || sleeps.sleeps == before.sleeps {
            return; // it had to wait for a CPU, or somebody has computed
        }
        if let State::Resting { patience, .. } = &mut self.state {
            *patience = patience.saturating_sub(took);
            if !patience.is_zero() {
                return;
            }
        }
        stall::watch(true);
        self.state = State::Wary {
            until: now + TIME_WARY,
            has_found: false,
        };
    }

    fn end(&mut self, now: Instant, has_found: bool) {
        stall::watch(false);
        let was_long_ago = |at| now.saturating_duration_since(at) > LONGEST_REST;
        if has_found || self.rested_at.is_none_or(was_long_ago) {
            self.rest = TIME_WARY;
        }
        if has_found {
            self.state = State::Calm;
            return;
        }
        let until = now + self.rest;
        self.state = State::Resting {
            until,
            patience: self.rest / 10,
        };
        self.rested_at = Some(until);
        self.rest = (self.rest * 2).min(LONGEST_REST);
    }
}

/// Twice the longest turn while others are asleep: a worker that keeps to its limits does not take so long between two looks at the clock.
const SUSPICIOUS: Duration = Duration::from_micros(50);
/// What a visit may take on top of that, when there are many between two looks: more than a call of which all memory is new.
const TIME_OF_A_VISIT: Duration = Duration::from_micros(5);
/// Long enough for the stalls of a client that matters.
const TIME_WARY: Duration = Duration::from_millis(50);
/// Then a worker is wary for a tenth of the time, at most, if there is nothing to find.
const LONGEST_REST: Duration = Duration::from_millis(500);

/// How long a process is suspected, first and at most.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(64);
/// How long it is known afterwards that a process was suspected.
const MEMORY: Duration = Duration::from_secs(64);

/// Stalls of a process within a second from which on it is suspected. Fewer take less than a hundredth of the time, even if each is a time slice
/// of somebody else; and a process that has just connected may cause one or two, because memory is new everywhere.
const ENOUGH_STALLS: u32 = 3;
const WINDOW: Duration = Duration::from_secs(1);

/// Suspected processes of a user from which on all are.
const MOST_OF_A_USER: usize = 8;

/// Many more than it takes to suspect some users.
const MOST_SUSPECTS: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(uid: u32, pid: u32) -> PeerIdentity {
        PeerIdentity { pid, uid, gid: 0 }
    }

    struct Played {
        start: Instant,
        suspects: Suspects,
    }

    impl Played {
        fn new() -> Self {
            Self {
                start: Instant::now(),
                suspects: Suspects::default(),
            }
        }

        fn at(&self, seconds: u64) -> Instant {
            self.start + Duration::from_secs(seconds)
        }

        /// Notes as many stalls as it takes.
        fn stall(&mut self, peer: &PeerIdentity, seconds: u64) {
            let now = self.at(seconds);
            for _ in 0..ENOUGH_STALLS {
                self.suspects.add(peer, now);
            }
        }

        /// Returns for how many more seconds a process is suspected.
        fn remaining(&self, peer: &PeerIdentity, seconds: u64) -> Option<u64> {
            let now = self.at(seconds);
            let until = self.suspects.until(peer, now)?;
            Some(until.duration_since(now).as_secs())
        }
    }

    /// A thread that has long visits, in each of which it has so many sleeps and faults.
    struct Thread {
        now: Instant,
        wary: Wary,
        counts: ThreadSleeps,
    }

    impl Thread {
        fn new() -> Self {
            Self {
                now: Instant::now(),
                wary: Wary::new(),
                counts: ThreadSleeps::default(),
            }
        }

        /// Has a long visit, and returns whether it is wary.
        fn has_long_visit(&mut self, took: Duration, sleeps: u64, faults: u64) -> bool {
            self.now += took;
            self.counts.sleeps += sleeps;
            self.counts.faults += faults;
            self.wary.took_long(self.now, took, self.counts);
            self.is_wary()
        }

        /// Lets time pass in which nothing takes long, and returns for how much of it it was wary.
        fn has_short_visits(&mut self, time: Duration) -> Duration {
            let (until, step) = (self.now + time, Duration::from_millis(1));
            let mut wary = Duration::ZERO;
            while self.now < until {
                wary += if self.is_wary() { step } else { Duration::ZERO };
                self.now += step;
                self.wary.looked(self.now, 8, Duration::from_micros(1));
            }
            wary
        }

        fn is_wary(&self) -> bool {
            assert_eq!(
                matches!(self.wary.state, State::Wary { .. }),
                stall::is_watched()
            );
            stall::is_watched()
        }
    }

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn worker_is_wary_for_a_while_after_a_long_visit_with_a_sleep_and_a_fault() {
        let mut thread = Thread::new();
        assert!(!thread.has_long_visit(MS, 0, 0), "it was preempted");
        assert!(!thread.has_long_visit(MS, 1, 0), "it has waited for a lock");
        assert!(!thread.has_long_visit(MS, 0, 1), "memory was new");
        assert!(thread.has_long_visit(MS, 1, 1));
        assert_eq!(thread.has_short_visits(TIME_WARY * 2), TIME_WARY);
    }

    #[test]
    fn visit_among_many_may_be_longer() {
        let mut wary = Wary::new();
        let took = SUSPICIOUS + TIME_OF_A_VISIT * 99;
        let now = Instant::now();
        for (visits, was_looked_at) in [(100, false), (98, true)] {
            wary.known.faults = u64::MAX;
            wary.looked(now, visits, took);
            let is_known = wary.known.faults < u64::MAX;
            assert_eq!(is_known, was_looked_at, "{visits} visits");
        }
        stall::watch(false);
    }

    #[test]
    fn rest_after_nothing_was_found_is_longer_each_time() {
        let mut thread = Thread::new();
        for rest in [1, 2, 4, 8, 10, 10] {
            assert!(thread.has_long_visit(MS, 1, 1));
            thread.has_short_visits(TIME_WARY);
            let patience = TIME_WARY * rest / 10;
            assert!(!thread.has_long_visit(patience - MS, 1, 1), "it rests");
            thread.has_short_visits(TIME_WARY * rest - patience + MS);
            assert!(matches!(thread.wary.state, State::Calm), "{rest}");
        }
        thread.has_short_visits(LONGEST_REST + MS);
        assert!(thread.has_long_visit(MS, 1, 1));
        thread.has_short_visits(TIME_WARY * 2 + MS);
        assert!(thread.has_long_visit(MS, 1, 1), "the first is short again");
        stall::watch(false);
    }

    #[test]
    fn rest_ends_when_a_tenth_of_it_has_gone_in_long_visits() {
        let mut thread = Thread::new();
        thread.has_long_visit(MS, 1, 1);
        thread.has_short_visits(TIME_WARY);
        for _ in 0..4 {
            assert!(!thread.has_long_visit(MS, 1, 1));
            assert!(!thread.has_long_visit(MS, 0, 1), "these do not count");
        }
        assert!(thread.has_long_visit(MS, 1, 1));
        stall::watch(false);
    }

    #[test]
    fn worker_that_has_found_something_does_not_rest() {
        let mut thread = Thread::new();
        thread.has_long_visit(MS, 1, 1);
        thread.wary.found();
        assert_eq!(thread.has_short_visits(TIME_WARY * 2), TIME_WARY);
        assert!(thread.has_long_visit(MS, 1, 1));
        stall::watch(false);
    }

    #[test]
    fn process_is_suspected_until_it_has_caused_no_stalls_for_a_second() {
        let mut played = Played::new();
        let it = peer(1, 100);
        played.stall(&it, 0);
        assert_eq!(played.remaining(&it, 0), Some(1));
        for other in [peer(1, 101), peer(2, 100)] {
            assert_eq!(played.remaining(&other, 0), None);
        }
        assert_eq!(played.remaining(&it, 1), None);
    }

    #[test]
    fn few_stalls_within_a_second_are_nothing() {
        let mut played = Played::new();
        let it = peer(1, 100);
        for second in [0, 0, 2, 2, 4, 6] {
            let now = played.at(second);
            assert!(!played.suspects.add(&it, now));
        }
        assert_eq!(played.remaining(&it, 6), None);
        let now = played.at(6);
        assert!(!played.suspects.add(&it, now));
        assert!(played.suspects.add(&it, now));
        assert!(played.suspects.add(&it, now), "its other connections");
    }

    #[test]
    fn process_that_comes_back_is_suspected_for_longer() {
        let mut played = Played::new();
        let it = peer(1, 100);
        let mut now = 0;
        for period in [1, 2, 4, 8, 16, 32, 64, 64] {
            played.stall(&it, now);
            assert_eq!(played.remaining(&it, now), Some(period));
            now += period;
        }
        let long_after = now + MEMORY.as_secs() + 1;
        played.stall(&it, long_after);
        assert_eq!(played.remaining(&it, long_after), Some(1));
    }

    #[test]
    fn stalls_in_quarantine_prolong_it_by_no_more_than_a_second() {
        let mut played = Played::new();
        let it = peer(1, 100);
        for now in [0, 1, 3] {
            played.stall(&it, now);
        }
        assert_eq!(played.remaining(&it, 3), Some(4));
        played.stall(&it, 5);
        assert_eq!(played.remaining(&it, 5), Some(2));
        played.stall(&it, 6);
        assert_eq!(played.remaining(&it, 6), Some(1));
    }

    #[test]
    fn user_is_suspected_who_has_many_such_processes() {
        let mut played = Played::new();
        let most = u32::try_from(MOST_OF_A_USER).unwrap();
        for pid in 1..most {
            played.stall(&peer(1, pid), 0);
        }
        assert_eq!(played.remaining(&peer(1, 100), 0), None);
        played.stall(&peer(1, most), 0);
        assert_eq!(played.remaining(&peer(1, 100), 0), Some(1));
        assert_eq!(played.remaining(&peer(2, 1), 0), None);
        assert_eq!(played.remaining(&peer(1, 100), 1), None);
    }

    #[test]
    fn suspects_are_forgotten_and_there_are_never_too_many() {
        let mut played = Played::new();
        for pid in 0..2 * u32::try_from(MOST_SUSPECTS).unwrap() {
            let it = peer(pid, pid);
            played.stall(&it, 1);
            assert_eq!(played.remaining(&it, 1), Some(1), "the latest counts");
        }
        assert_eq!(played.suspects.0.len(), MOST_SUSPECTS);
        played.stall(&peer(1, 1), 1000);
        assert_eq!(played.suspects.0.len(), 1);
    }
}

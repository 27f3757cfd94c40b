//! Where connections go whose memory makes their worker sleep: to a worker of their own, so that they hold up each other alone.
//!
//! A worker finds such a connection by [`stall`], while it is [wary](super::wary). The connection travels to the quarantine as a new one would to
//! a worker, with everything that it has under way. It is served there as anywhere, and goes home when its process has caused no
//! stall for a while. Whoever comes in again and again comes in there: a process is suspected for a while after three stalls within a second, or
//! one that is long, the longer the more often it has come from its worker; and all processes of a user are if many of them are.
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

use doorbell_shm::{stall, sys::PeerIdentity};

use super::{door::Door, mailbox::Mailbox};
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
    pub(super) fn new(homes: Vec<Arc<Mailbox>>, door: Arc<Door>) -> std::io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            mailbox: Mailbox::new(door)?,
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

    /// Notes that a connection of this process has made a worker, or the quarantine, sleep for so long. Returns `true` if it belongs into the
    /// quarantine.
    pub(super) fn note_stall(&self, peer: &PeerIdentity, took: Duration, now: Instant) -> bool {
        let mut suspects = lock(&self.suspects);
        let is_suspected = suspects.add(peer, took, now);
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
    /// Stalls so far in a window of time, what they have taken, and when that began.
    stalls: u32,
    stalled: Duration,
    since: Instant,
}

impl Suspects {
    /// Notes a stall, and returns `true` if the process is suspected now.
    fn add(&mut self, peer: &PeerIdentity, took: Duration, now: Instant) -> bool {
        self.0.retain(|suspect| now <= suspect.until + MEMORY);
        if self.find(peer).is_none() {
            self.make_room();
            self.0.push(Suspect {
                uid: peer.uid,
                pid: peer.pid,
                until: now,
                period: SHORTEST / 2, // doubled with the first suspicion
                stalls: 0,
                stalled: Duration::ZERO,
                since: now,
            });
        }
        let suspect = self.find(peer);
        suspect.is_some_and(|suspect| suspect.add(took, now))
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
    fn add(&mut self, took: Duration, now: Instant) -> bool {
        if now > self.since + WINDOW {
            self.begin_window(now);
        }
        self.stalls += 1;
        self.stalled += took;
        let is_suspected = self.until > now;
        if self.stalls < ENOUGH_STALLS && self.stalled < LONG_STALL {
            return is_suspected; // its other connections go where it is, too
        }
        self.begin_window(now);
        if is_suspected {
            self.until = self.until.max(now + SHORTEST);
        } else {
            self.period = (self.period * 2).min(LONGEST);
            self.until = now + self.period;
        }
        true
    }

    fn begin_window(&mut self, now: Instant) {
        (self.stalls, self.stalled, self.since) = (0, Duration::ZERO, now);
    }

    fn is(&self, peer: &PeerIdentity) -> bool {
        (self.uid, self.pid) == (peer.uid, peer.pid)
    }
}

/// How long a process is suspected, first and at most.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(64);
/// How long it is known afterwards that a process was suspected.
const MEMORY: Duration = Duration::from_secs(64);

/// Stalls of a process within a second from which on it is suspected, and what they may take together: a hundredth of the time. A process that
/// has just connected may cause one or two short ones, because memory is new everywhere.
const ENOUGH_STALLS: u32 = 3;
const LONG_STALL: Duration = Duration::from_millis(10);
const WINDOW: Duration = Duration::from_secs(1);

/// Suspected processes of a user from which on all are.
const MOST_OF_A_USER: usize = 8;

/// Many more than it takes to suspect some users.
const MOST_SUSPECTS: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(1);

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
                self.suspects.add(peer, SHORT, now);
            }
        }

        /// Returns for how many more seconds a process is suspected.
        fn remaining(&self, peer: &PeerIdentity, seconds: u64) -> Option<u64> {
            let now = self.at(seconds);
            let until = self.suspects.until(peer, now)?;
            Some(until.duration_since(now).as_secs())
        }
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
            assert!(!played.suspects.add(&it, SHORT, now));
        }
        assert_eq!(played.remaining(&it, 6), None);
        let now = played.at(6);
        assert!(!played.suspects.add(&it, SHORT, now));
        assert!(played.suspects.add(&it, SHORT, now));
        assert!(
            played.suspects.add(&it, SHORT, now),
            "its other connections"
        );
    }

    #[test]
    fn one_long_stall_is_enough_and_so_are_two_that_are_long_together() {
        let mut played = Played::new();
        let now = played.at(0);
        assert!(played.suspects.add(&peer(1, 100), LONG_STALL, now));
        let it = peer(1, 101);
        assert!(!played.suspects.add(&it, LONG_STALL / 2, now));
        assert!(played.suspects.add(&it, LONG_STALL / 2, now));
        let it = peer(1, 102);
        assert!(!played.suspects.add(&it, LONG_STALL / 2, now));
        let later = played.at(2);
        assert!(!played.suspects.add(&it, LONG_STALL / 2, later));
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

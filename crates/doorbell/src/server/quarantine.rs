//! Where connections go whose memory makes their worker sleep: to a worker of their own, so that they hold up each other alone.
//!
//! A worker finds such a connection by [`stall`], while it is [wary](Wary). The connection travels to the quarantine as a new one would to
//! a worker, with everything that it has under way. It is served there as anywhere, and goes home when its process has caused no
//! stall for a while. Whoever comes in again and again comes in there: a process is suspected for a while after a stall, the longer the
//! more often it has come from its worker; and all processes of a user are if many of them are.
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
    sys::{PeerIdentity, thread_sleeps},
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

    /// Suspects a process, because a connection of it has made its worker sleep.
    pub(super) fn suspect(&self, peer: &PeerIdentity, now: Instant) {
        let mut suspects = lock(&self.suspects);
        suspects.add(peer, now);
        self.has_suspects.store(true, Ordering::Relaxed);
    }

    /// Suspects a process for longer, because a connection of it has made the quarantine sleep.
    pub(super) fn suspect_still(&self, peer: &PeerIdentity, now: Instant) {
        let mut suspects = lock(&self.suspects);
        suspects.keep(peer, now);
        self.has_suspects.store(true, Ordering::Relaxed);
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
}

impl Suspects {
    fn add(&mut self, peer: &PeerIdentity, now: Instant) {
        self.0.retain(|suspect| now <= suspect.until + MEMORY);
        if let Some(suspect) = self.find(peer) {
            // The connections that it has beside the first one are no news.
            if suspect.until <= now {
                suspect.period = (suspect.period * 2).min(LONGEST);
            }
            suspect.until = now + suspect.period;
            return;
        }
        if self.0.len() == MOST_SUSPECTS {
            let soonest = self.0.iter().enumerate();
            let soonest = soonest.min_by_key(|(_, suspect)| suspect.until);
            soonest
                .map(|(place, _)| place)
                .map(|place| self.0.swap_remove(place));
        }
        self.0.push(Suspect {
            uid: peer.uid,
            pid: peer.pid,
            until: now + SHORTEST,
            period: SHORTEST,
        });
    }

    fn keep(&mut self, peer: &PeerIdentity, now: Instant) {
        match self.find(peer) {
            Some(suspect) => suspect.until = suspect.until.max(now + SHORTEST),
            None => self.add(peer, now),
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
    fn is(&self, peer: &PeerIdentity) -> bool {
        (self.uid, self.pid) == (peer.uid, peer.pid)
    }
}

/// When a worker measures its visits, which costs as much as a small call: for a while after one that has taken long and had a page fault, as
/// hardly any has where everything is in memory. The longer it has taken the longer, so that what is never found takes a hundredth of the time.
pub(super) struct Wary {
    until: Option<Instant>,
    faults: u64,
}

impl Wary {
    pub(super) fn new() -> Self {
        Self {
            until: None,
            faults: 0,
        }
    }

    /// Learns what the last visits have taken together.
    #[inline]
    pub(super) fn looked(&mut self, now: Instant, took: Duration) {
        if took > SUSPICIOUS {
            self.took_long(now, took);
        } else if self.until.is_some_and(|until| until <= now) {
            stall::watch(false);
            self.until = None;
        }
    }

    /// Is not wary while it sleeps, which may be for ever.
    pub(super) fn sleeps(&self) {
        if self.until.is_some() {
            stall::watch(false);
        }
    }

    /// Has slept, and is as wary as before.
    pub(super) fn woke(&self) {
        if self.until.is_some() {
            stall::watch(true);
        }
    }

    #[cold]
    fn took_long(&mut self, now: Instant, took: Duration) {
        let faults = thread_sleeps().faults;
        if std::mem::replace(&mut self.faults, faults) == faults {
            return;
        }
        if self.until.is_none() {
            stall::watch(true);
        }
        let until = now + (took * 100).min(LONGEST_WARY);
        self.until = self.until.max(Some(until));
    }
}

/// Twice the longest turn while others are asleep: a worker that keeps to its limits does not take so long between two looks at the clock.
const SUSPICIOUS: Duration = Duration::from_micros(50);
const LONGEST_WARY: Duration = Duration::from_secs(1);

/// How long a process is suspected, first and at most.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(64);
/// How long it is known afterwards that a process was suspected.
const MEMORY: Duration = Duration::from_secs(64);

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

        /// Returns for how many more seconds a process is suspected.
        fn remaining(&self, peer: &PeerIdentity, seconds: u64) -> Option<u64> {
            let now = self.at(seconds);
            let until = self.suspects.until(peer, now)?;
            Some(until.duration_since(now).as_secs())
        }
    }

    #[test]
    fn process_is_suspected_until_it_has_caused_no_stall_for_a_second() {
        let mut played = Played::new();
        let it = peer(1, 100);
        played.suspects.add(&it, played.at(0));
        assert_eq!(played.remaining(&it, 0), Some(1));
        played.suspects.keep(&it, played.at(1));
        assert_eq!(played.remaining(&it, 1), Some(1));
        assert_eq!(played.remaining(&it, 2), None);
        for other in [peer(1, 101), peer(2, 100)] {
            assert_eq!(played.remaining(&other, 0), None);
        }
    }

    #[test]
    fn process_that_comes_back_is_suspected_for_longer() {
        let mut played = Played::new();
        let it = peer(1, 100);
        let mut now = 0;
        for period in [1, 2, 4, 8, 16, 32, 64, 64] {
            played.suspects.add(&it, played.at(now));
            played.suspects.add(&it, played.at(now)); // its other connections
            assert_eq!(played.remaining(&it, now), Some(period));
            now += period;
        }
        let long_after = now + MEMORY.as_secs() + 1;
        played.suspects.add(&it, played.at(long_after));
        assert_eq!(played.remaining(&it, long_after), Some(1));
    }

    #[test]
    fn user_is_suspected_who_has_many_such_processes() {
        let mut played = Played::new();
        let most = u32::try_from(MOST_OF_A_USER).unwrap();
        for pid in 1..most {
            played.suspects.add(&peer(1, pid), played.at(0));
        }
        assert_eq!(played.remaining(&peer(1, 100), 0), None);
        played.suspects.add(&peer(1, most), played.at(0));
        assert_eq!(played.remaining(&peer(1, 100), 0), Some(1));
        assert_eq!(played.remaining(&peer(2, 1), 0), None);
        assert_eq!(played.remaining(&peer(1, 100), 1), None);
    }

    #[test]
    fn stalls_in_quarantine_prolong_it_by_no_more_than_a_second() {
        let mut played = Played::new();
        let it = peer(1, 100);
        for now in [0, 1, 3] {
            played.suspects.add(&it, played.at(now));
        }
        assert_eq!(played.remaining(&it, 3), Some(4));
        played.suspects.keep(&it, played.at(4));
        assert_eq!(played.remaining(&it, 4), Some(3));
        played.suspects.keep(&it, played.at(7));
        assert_eq!(played.remaining(&it, 7), Some(1));
    }

    #[test]
    fn suspects_are_forgotten_and_there_are_never_too_many() {
        let mut played = Played::new();
        let twice = 2 * u32::try_from(MOST_SUSPECTS).unwrap();
        for pid in 0..twice {
            played.suspects.add(&peer(pid, pid), played.at(pid.into()));
        }
        assert!(played.suspects.0.len() <= MOST_SUSPECTS);
        let mut played = Played::new();
        played.suspects.add(&peer(1, 0), played.at(0));
        for pid in 1..twice {
            played.suspects.add(&peer(pid, pid), played.at(1));
        }
        assert_eq!(played.suspects.0.len(), MOST_SUSPECTS);
        let last = peer(twice - 1, twice - 1);
        assert_eq!(played.remaining(&last, 1), Some(1), "the latest counts");
        played.suspects.add(&peer(2, 1), played.at(1000));
        assert_eq!(played.suspects.0.len(), 1);
    }
}

//! An I/O worker: a thread that owns a share of the connections and reads their rings.
//!
//! Connections with traffic are *hot*: the worker looks at each in turn, for a bounded number of frames, and publishes the answers
//! of a turn together. A connection that has been quiet is announced as asleep, looked at once more, and left to its doorbell.
//! With nothing hot the worker sleeps in the poller, for as long as nothing happens.

mod idle;
mod moves;

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use doorbell_shm::{
    Spin, SpinMode, SpinTurn, stall,
    sys::{self, Event, Mode, Wait},
};

use super::{
    mailbox::{Mailbox, Traveller},
    pace::{self, Pace},
    quarantine::Quarantine,
    quiet::Quiet,
    registry::{Registry, Snapshot},
    turn::{Brought, Others, Served, serve, serve_the_dead},
    wary::Wary,
};
use crate::{
    connection::{Connection, Rest, Watched, be_worker, lock},
    deadline::after,
    error::Disconnected,
};

/// What a worker needs to know.
pub(super) struct Duties {
    pub(super) registry: Arc<Registry>,
    pub(super) spin: SpinMode,
    pub(super) idle_timeout: Option<Duration>,
    /// The allocator gives back what it keeps, when something that has used much is quiet.
    pub(super) trims_heap: bool,
    pub(super) quarantine: Arc<Quarantine>,
    pub(super) post: Post,
}

/// Where a worker serves.
pub(super) enum Post {
    /// Where connections come first; one of those, by number.
    Home(usize),
    Quarantine,
}

/// The thread's own state.
pub(super) struct Worker {
    mailbox: Arc<Mailbox>,
    duties: Duties,
    handlers: Snapshot,
    connections: Vec<Option<Owned>>,
    free: Vec<usize>,
    hot: Vec<usize>,
    quiet: Quiet,
    spin: Spin,
    pace: Pace,
    wary: Wary,
    /// When the quarantine looks who can go home.
    release_at: Option<Instant>,
    /// When a busy worker looks for idle connections again.
    idle_check_at: Option<Instant>,
    events: Vec<Event>,
}

struct Owned {
    watched: Watched,
    connection: Arc<Connection>,
    /// A handle of it for the next context.
    spare: Option<Arc<Connection>>,
    /// The client is dead, and so many frames of what it left may still be read.
    legacy: Option<usize>,
    hot: bool,
    quiet_turns: u32,
    last_active: Instant,
    /// It has its place among those that give memory back when they are quiet.
    is_untidy: bool,
    home: usize,
}

impl Worker {
    pub(super) fn new(mailbox: Arc<Mailbox>, duties: Duties) -> Self {
        let handlers = Snapshot::new(Arc::clone(&duties.registry));
        let spin = Spin::new(duties.spin, sys::cpu_count());
        let idle_check_at = duties.idle_timeout.map(after);
        Self {
            mailbox,
            duties,
            handlers,
            connections: Vec::new(),
            free: Vec::new(),
            hot: Vec::new(),
            quiet: Quiet::default(),
            spin,
            pace: Pace::new(Instant::now()),
            wary: Wary::new(),
            release_at: None,
            idle_check_at,
            events: Vec::new(),
        }
    }

    /// Works until told to stop.
    pub(super) fn run(mut self) {
        be_worker();
        while !self.mailbox.stop.load(Ordering::Relaxed) {
            if !self.work_while_hot() {
                break;
            }
            self.sleep();
        }
    }

    /// Serves the hot connections until none is left. Returns `false` if the worker is to stop.
    fn work_while_hot(&mut self) -> bool {
        let mut turn = self.spin.start();
        let mut is_first = true;
        let mut polled_at = Instant::now();
        self.pace.start(polled_at);
        let (mut quiet_visits, mut have_waited) = (0, false);
        while !self.hot.is_empty() {
            let served = self.serve_hot();
            if served.brought == Brought::Credit && is_first {
                turn = SpinTurn::over(); // what has woken us is not worth a spin
            }
            is_first &= served.brought == Brought::Nothing;
            if served.brought == Brought::Messages {
                self.spin.paid(&turn);
                turn = self.spin.start();
                quiet_visits = 0;
            } else if !turn.again() {
                self.spin.missed(&turn);
                turn = SpinTurn::over(); // whatever comes from now on, it was not this turn that paid
                self.cool_down(0);
            } else {
                quiet_visits += 1 + self.hot.len();
                if quiet_visits >= QUIET_VISITS_BEFORE_POLL && self.has_cold() {
                    quiet_visits = 0;
                    self.poll(Wait::Poll);
                }
            }
            if self.pace.is_due(self.hot.len()) || served.was_long {
                let now = Instant::now();
                let (visits, took) = self.pace.looked(now);
                have_waited |= took > pace::LONG || served.was_long;
                self.learn(now, visits, took);
                let period = match self.has_cold() {
                    true if served.was_long => pace::LONG,
                    true => TIME_BETWEEN_POLLS,
                    false => TIME_BETWEEN_POLLS_ALONE,
                };
                if now.duration_since(polled_at) >= period {
                    polled_at = now;
                    self.pace.polled();
                    let awake = self.hot.len();
                    self.poll(Wait::Poll);
                    if std::mem::take(&mut have_waited) {
                        self.hot.rotate_left(awake); // who has come goes before those that it has waited for
                    }
                    if self.mailbox.stop.load(Ordering::Relaxed) {
                        return false;
                    }
                    self.cool_the_quiet_ones();
                    self.give_back(now);
                    self.release(now);
                    if self.idle_check_at.is_some_and(|at| at <= now) {
                        self.end_idle();
                    }
                }
            }
        }
        true
    }

    /// Learns what the last visits have taken.
    #[inline]
    fn learn(&mut self, now: Instant, visits: u32, took: Duration) {
        if !self.is_quarantine() {
            self.wary.looked(now, visits, took);
        }
    }

    /// Returns `true` if there are connections that ring before they are read.
    fn has_cold(&self) -> bool {
        self.hot.len() + self.free.len() < self.connections.len()
    }

    /// Gives every hot connection its turn.
    fn serve_hot(&mut self) -> Served {
        let mut all = Served::default();
        let mut place = 0;
        while let Some(&index) = self.hot.get(place) {
            match self.serve(index) {
                Ok(served) => {
                    all = all.and(served);
                    if served.brought != Brought::Nothing {
                        self.pace.has_brought();
                    }
                    // One that pauses has left the hot set, and the next one its place.
                    place += usize::from(self.hot.get(place) == Some(&index));
                }
                Err(reason) => {
                    all.was_long = true;
                    self.end(index, reason);
                }
            }
        }
        all
    }

    /// Reads one connection's ring for one turn, and looks whether that has made us sleep, while we are wary.
    #[inline]
    fn serve(&mut self, index: usize) -> Result<Served, Disconnected> {
        if stall::is_watched() {
            return self.serve_warily(index);
        }
        self.visit(index)
    }

    #[cold]
    #[inline(never)]
    fn serve_warily(&mut self, index: usize) -> Result<Served, Disconnected> {
        let Some(owned) = &self.connections[index] else {
            return Err(Disconnected::Closed);
        };
        let subject = owned.connection.subject();
        let served = stall::measure(subject, || self.visit(index));
        let Some(took) = stall::take() else {
            return served;
        };
        let is_suspected = self.note_stall(index, took);
        let mut served = served?;
        served.was_long = true;
        if is_suspected {
            self.isolate(index);
        }
        Ok(served)
    }

    #[inline(always)]
    fn visit(&mut self, index: usize) -> Result<Served, Disconnected> {
        let others = match self.hot.len() {
            0 | 1 if self.has_cold() => Others::Asleep,
            0 | 1 => Others::None,
            _ => Others::Awake,
        };
        let Some(owned) = &mut self.connections[index] else {
            return Err(Disconnected::Closed);
        };
        if owned.legacy.is_none() && owned.connection.looks_quiet() {
            owned.quiet_turns = owned.quiet_turns.saturating_add(1);
            return Ok(Served::default());
        }
        if owned.connection.is_closed() {
            return Err(owned.connection.end().unwrap_or(Disconnected::Closed));
        }
        if owned.connection.must_pause() {
            owned.hot = false;
            owned.connection.rest();
            self.hot.retain(|&hot| hot != index);
            return Ok(Brought::Messages.into());
        }
        if let Some(left) = &mut owned.legacy {
            return serve_the_dead(&owned.connection, &mut self.handlers, left);
        }
        let (connection, spare) = (&owned.connection, &mut owned.spare);
        let served = serve(connection, spare, &mut self.handlers, others)?;
        if served.brought != Brought::Nothing {
            owned.quiet_turns = 0;
        } else {
            owned.quiet_turns = owned.quiet_turns.saturating_add(1);
        }
        Ok(served)
    }

    /// Announces the connections as asleep that have been quiet for long while others were not. If all are quiet, it is for the spin
    /// budget to say how long that goes on.
    fn cool_the_quiet_ones(&mut self) {
        let is_busy = |owned: &Owned| owned.legacy.is_some() || owned.quiet_turns < QUIET_TURNS;
        let mut hot = self.hot.iter().map(|&index| &self.connections[index]);
        if hot.any(|owned| owned.as_ref().is_some_and(is_busy)) {
            self.cool_down(QUIET_TURNS);
        }
    }

    /// Announces the connections that were quiet for so many turns as asleep, unless something has come just then.
    fn cool_down(&mut self, quiet_turns: u32) {
        let now = Instant::now();
        let quiet = |owned: &Owned| owned.legacy.is_none() && owned.quiet_turns >= quiet_turns;
        let cooling = self
            .hot
            .iter()
            .copied()
            .filter(|&index| self.connections[index].as_ref().is_some_and(quiet));
        for index in cooling.collect::<Vec<_>>() {
            self.announce_asleep(index, now);
        }
    }

    fn announce_asleep(&mut self, index: usize, now: Instant) {
        let Some(owned) = &self.connections[index] else {
            return;
        };
        let connection = &owned.connection;
        let rest = stall::measure(connection.subject(), || connection.fall_asleep());
        let is_suspected = self.has_stalled_too_much(index);
        let Some(owned) = &mut self.connections[index] else {
            return;
        };
        match rest {
            Ok(Rest::Asleep { is_untidy }) => {
                owned.hot = false;
                owned.last_active = now;
                if is_untidy && !std::mem::replace(&mut owned.is_untidy, true) {
                    self.quiet.push(now, index);
                }
                self.hot.retain(|&hot| hot != index);
            }
            Ok(Rest::Awake) => owned.quiet_turns = 0,
            Err(reason) => self.end(index, reason),
        }
        if is_suspected {
            self.isolate(index);
        }
    }

    fn sleep(&mut self) {
        let since = Instant::now();
        let (visits, took) = self.pace.since_look(since);
        self.learn(since, visits, took); // there may be few visits, each of which takes long, between two sleeps
        let deadlines = [
            self.next_idle_deadline(),
            self.quiet.next(),
            self.release_at,
        ];
        let wait = match deadlines.into_iter().flatten().min() {
            Some(deadline) => Wait::Until(deadline),
            None => Wait::Forever,
        };
        self.wary.sleeps();
        doorbell_shm::failpoint!("worker.sleep.before");
        self.poll(wait);
        doorbell_shm::failpoint!("worker.sleep.after");
        self.wary.woke();
        self.spin.slept(since.elapsed());
        let now = Instant::now();
        self.give_back(now);
        self.release(now);
        self.end_idle();
    }

    fn poll(&mut self, wait: Wait) {
        let mut events = std::mem::take(&mut self.events);
        events.clear();
        self.mailbox.polls.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = self.mailbox.poller.wait(&mut events, wait) {
            tracing::error!(%error, "an I/O worker cannot wait");
            self.mailbox.stop.store(true, Ordering::Relaxed);
        }
        for event in events.drain(..) {
            self.handle(event);
        }
        self.events = events;
        self.take_arrivals();
        let resumed = std::mem::take(&mut *lock(&self.mailbox.resumed));
        for index in resumed {
            self.warm_up(index);
        }
        self.handlers.refresh();
    }

    fn handle(&mut self, event: Event) {
        let what = event.token % TOKENS;
        match usize::try_from(event.token / TOKENS) {
            Ok(index) if what == BELL => self.warm_up(index),
            Ok(index) => self.peer_gone(index),
            Err(_) => {}
        }
    }

    fn warm_up(&mut self, index: usize) {
        let Some(Some(owned)) = self.connections.get_mut(index) else {
            return;
        };
        if let Err(error) = owned.watched.bell.make_room() {
            tracing::debug!(%error, "the peer's end of the doorbell is closed");
        }
        if !owned.hot && self.is_suspected(index) {
            return self.isolate(index); // one of the same process was found while this one slept
        }
        self.heat(index);
    }

    fn heat(&mut self, index: usize) {
        if let Some(Some(owned)) = self.connections.get_mut(index)
            && !owned.hot
        {
            owned.hot = true;
            owned.quiet_turns = 0;
            owned.connection.wake_up();
            self.hot.push(index);
        }
    }

    /// The socket or the process has ended: what the peer published before is still read, in turns like everybody's. It may be a
    /// process that goes on writing, so that a ring full of frames is the most.
    fn peer_gone(&mut self, index: usize) {
        let Some(Some(owned)) = self.connections.get_mut(index) else {
            return;
        };
        if owned.legacy.is_none() {
            doorbell_shm::failpoint!("peer.gone.before");
            owned.legacy = Some(owned.connection.frames_in_a_ring());
            self.heat(index);
        }
    }

    fn take_arrivals(&mut self) {
        let arrivals = std::mem::take(&mut *lock(&self.mailbox.arrivals));
        for arrival in arrivals {
            self.take_in(arrival);
        }
    }

    fn take_in(
        &mut self,
        Traveller {
            connection,
            watched,
            home,
            legacy,
        }: Traveller,
    ) {
        // A place is used again only after all events of its last owner have been handled.
        let index = self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        });
        let added = self.watch(&watched, index as u64);
        connection.on_resume({
            let mailbox = Arc::downgrade(&self.mailbox);
            move || {
                if let Some(mailbox) = mailbox.upgrade() {
                    lock(&mailbox.resumed).push(index);
                    mailbox.wake();
                }
            }
        });
        let owned = Owned {
            connection,
            spare: None,
            watched,
            legacy,
            hot: true,
            quiet_turns: 0,
            last_active: Instant::now(),
            is_untidy: false,
            home: match self.duties.post {
                Post::Home(number) => number,
                Post::Quarantine => home,
            },
        };
        self.connections[index] = Some(owned);
        self.hot.push(index);
        if self.is_quarantine() {
            self.duties.quarantine.came();
            self.release_at = Some(Instant::now()); // it is found then until when it stays
        }
        doorbell_shm::failpoint!("worker.taken");
        if let Err(error) = added {
            self.end(index, Disconnected::System(Arc::new(error)));
        }
    }

    fn watch(&self, watched: &Watched, index: u64) -> std::io::Result<()> {
        let poller = &self.mailbox.poller;
        poller.add(&watched.bell, index * TOKENS + BELL, Mode::Edge)?;
        poller.add(&watched.control, index * TOKENS + CONTROL, Mode::Edge)?;
        match &watched.process {
            Some(process) => poller.add(process, index * TOKENS + PROCESS, Mode::Edge),
            None => Ok(()),
        }
    }

    fn end(&mut self, index: usize, reason: Disconnected) {
        if let Some(traveller) = self.take_out(index) {
            self.mailbox.door.see_off(traveller, reason); // to end it is no work for a worker, whose other clients would wait for it
        }
    }

    /// Gives up a connection, which may go on elsewhere.
    fn take_out(&mut self, index: usize) -> Option<Traveller> {
        self.hot.retain(|&hot| hot != index);
        let Owned {
            connection,
            watched,
            legacy,
            is_untidy,
            home,
            ..
        } = self.connections[index].take()?;
        if is_untidy || connection.is_untidy() {
            self.quiet.end(Instant::now(), index);
        }
        self.free.push(index);
        let poller = &self.mailbox.poller;
        // Closing a descriptor takes it out of the poller only with its last duplicate.
        let _ = poller.remove(&watched.bell);
        let _ = poller.remove(&watched.control);
        if let Some(process) = &watched.process {
            let _ = poller.remove(process);
        }
        if self.is_quarantine() {
            self.duties.quarantine.left();
        }
        Some(Traveller {
            connection,
            watched,
            home,
            legacy,
        })
    }
}

impl Drop for Worker {
    /// When a worker leaves, even by a panic, nobody is to wait for it: it closes what it has.
    fn drop(&mut self) {
        stall::watch(false);
        if !self.mailbox.stop.swap(true, Ordering::Relaxed) {
            tracing::error!(
                "an I/O worker leaves before the end of the server; its connections are closed"
            );
        }
        for index in 0..self.connections.len() {
            self.end(index, Disconnected::Closed);
        }
        self.mailbox.turn_away();
    }
}

/// Turns without traffic after which a connection leaves the hot set while others stay.
const QUIET_TURNS: u32 = 256;

/// How often a busy worker looks at the doorbells of connections that are not hot, which wait meanwhile. After a turn that was
/// long it looks after half of that. One system call each time, 0.4 µs.
const TIME_BETWEEN_POLLS: Duration = Duration::from_micros(25);
/// The same if there are none, and only a new connection or the end of the server can be found.
const TIME_BETWEEN_POLLS_ALONE: Duration = Duration::from_micros(100);
/// Hot connections that had nothing, one after the other, after which it looks at once: somebody who rings may keep it from falling asleep. About
/// 5 µs with one that is hot.
const QUIET_VISITS_BEFORE_POLL: usize = 128;
const TOKENS: u64 = 4;
const BELL: u64 = 0;
const CONTROL: u64 = 1;
const PROCESS: u64 = 2;

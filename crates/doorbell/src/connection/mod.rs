//! An established connection: who sends, who receives, and who waits.
//!
//! Two short locks. The *state lock* is taken by whoever sends. The *receive half* belongs to one driver at a time: it is only
//! ever tried, never waited for, so a driver may keep it while it waits. Lock order: receive half, then state. The state lock is
//! not held while user code runs; see [`guard`].
//!
//! # Who drives
//!
//! On the server the I/O worker. On a client, whoever waits: it spins and drains the ring itself. When its budget is gone a
//! thread sleeps on the futex of the peer's position word and keeps the receive half; a task announces the doorbell and leaves,
//! and the connection's background task drains when the bell rings. See [`drive`].

mod account;
mod backlog;
mod cancels;
mod company;
mod drive;
mod events;
mod guard;
mod inbox;
mod items;
mod load;
mod loans;
mod outbound;
mod outgoing;
mod overlap;
mod parting;
mod past_caches;
mod publishing;
mod ready;
mod receive;
mod reply;
mod send;
mod serve;
mod spin;
mod state;
mod thread;
mod ticket;
mod together;
#[cfg(feature = "tokio")]
mod turns;
mod waiters;
mod writing;

use std::{
    any::Any,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError, Weak,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    task::Waker,
    time::{Duration, Instant},
};

pub(crate) use account::Account;
use backlog::BacklogHint;
use cancels::{Cancels, says_given_up};
use doorbell_proto::{
    CallId, Time, connection::Connection as Machine, frame::HEADER_BYTES, limits,
};
use doorbell_shm::{
    Consumer, Kick, OwnRegion, PeerRegion, SleepOn, Spin, SpinMode,
    memory::PeerMemory,
    stall::{self, Subject},
    sys::{self, ControlStream, Doorbell, PeerIdentity, ProcessHandle},
};
use guard::StateGuard;
pub(crate) use inbox::Inbox;
pub(crate) use items::ItemRefused;
pub(crate) use loans::{Held, Purse, Spending};
use loans::{Pool, Returns};
pub(crate) use outbound::{Outbound, Preamble};
pub(crate) use receive::Dispatch;
use reply::Requests;
pub(crate) use reply::{InlineReplies, Outcome, recycle, take_outcome};
pub(crate) use send::{Answer, NewCall};
pub(crate) use serve::Rest;
pub(crate) use state::State;
pub(crate) use thread::{be_worker, park_until, thread_waker};
use ticket::Ticket;
pub(crate) use ticket::{Awaited, Reply, TicketKey};
pub(crate) use together::{Encoded, Ended, Together};
#[cfg(feature = "tokio")]
pub(crate) use turns::Turns;
pub(crate) use waiters::{Registration, Waiters};

use crate::{
    error::Disconnected,
    link::{Link, Terms},
    panics::{contain, wake},
    stats::Stats,
};

/// One side of a connection.
pub(crate) struct Connection {
    state: Mutex<State>,
    receive: Mutex<Receive>,
    own: OwnRegion,
    peer: PeerRegion,
    peer_bell: Doorbell,
    kick: Kick,
    sleeper: Sleeper,
    #[cfg(feature = "tokio")]
    never_spins: bool,
    closed: AtomicBool,
    /// The peer takes no new calls.
    leaving: AtomicBool,
    /// Frames wait for room; written under the state lock, read without it by whoever spins.
    backlog: BacklogHint,
    /// Where the holder of the receive half has come to; read without it by whoever glances.
    read_to: AtomicU32,
    /// The peer's cancel words have been looked at since memory was last given back.
    has_looked_for_cancel: AtomicBool,
    /// What they have said so far; noted under the state lock.
    cancels: Arc<Cancels>,
    on_close: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    attendant: OnceLock<Box<dyn Fn() + Send + Sync>>,
    load: load::Load,
    identity: PeerIdentity,
    terms: Terms,
    origin: Instant,
    /// The last to go: fields go in their order.
    _rent: Option<Box<dyn Any + Send + Sync>>,
}

/// What the driver holds.
pub(crate) struct Receive {
    consumer: Consumer,
    scratch: Vec<u8>,
    requests: Requests,
    inline: InlineReplies,
    /// What we had released when we last looked whether the peer waits for room.
    checked_release: u32,
    /// How many of the frames that were read last gave credit.
    pub(crate) credits: usize,
    /// How long may be read in one go, because others wait meanwhile; the first frame does not count.
    pub(crate) longest: Option<Duration>,
    /// What was read last was as much as may be read in one go, or somebody has been given work or woken for it.
    pub(crate) was_long: bool,
    /// More has come than light use brings.
    is_untidy: bool,
}

/// How this side waits when nothing comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sleeper {
    /// Calling threads take turns in sleeping on a futex.
    Threads,
    /// A background task awaits the doorbell.
    #[cfg(feature = "tokio")]
    Task,
    /// An I/O worker polls the doorbell.
    Worker,
}

/// What shows the peer's death; whoever watches it calls [`Connection::close`].
pub(crate) struct Watched {
    pub(crate) bell: Doorbell,
    pub(crate) control: Arc<ControlStream>,
    pub(crate) process: Option<ProcessHandle>,
}

/// Wakers to call and a peer to wake, once the locks are released.
#[derive(Default)]
#[must_use]
pub(crate) struct Effects {
    notify: Option<SleepOn>,
    waker: Option<Waker>,
    more: Vec<Waker>,
    /// A thread that drives and sleeps is to look again.
    kicks: bool,
}

impl Connection {
    pub(crate) fn new(
        link: Link,
        sleeper: Sleeper,
        spin: SpinMode,
        max_assembly_bytes: u64,
        account: Account,
    ) -> (Arc<Self>, Watched) {
        let (producer, consumer) = link.rings();
        let config = link.terms.machine(link.role, max_assembly_bytes);
        let machine = match account.allowance {
            Some(allowance) => Machine::with_allowance(config, allowance),
            None => Machine::new(config),
        };
        #[cfg(feature = "tokio")]
        let never_spins = spin == SpinMode::Never;
        let spin = Spin::new(spin, sys::cpu_count());
        let sleep_words = link.sleep_words();
        let control = Arc::new(link.control);
        let watched_control = Arc::clone(&control);
        let cancels = Arc::new(Cancels::new(link.terms.max_calls));
        let connection = Arc::new_cyclic(|this| Self {
            state: Mutex::new(State::new(
                machine,
                producer,
                sleep_words,
                spin,
                Pool::new(Returns::new(Weak::clone(this)), control, account.spending),
                link.terms,
                Arc::clone(&cancels),
            )),
            receive: Mutex::new(Receive {
                consumer,
                scratch: Vec::new(),
                requests: Requests::default(),
                inline: InlineReplies::default(),
                checked_release: 0,
                credits: 0,
                longest: None,
                was_long: false,
                is_untidy: false,
            }),
            own: link.own,
            peer: link.peer,
            peer_bell: link.peer_bell,
            kick: Kick::new(),
            sleeper,
            #[cfg(feature = "tokio")]
            never_spins,
            closed: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            backlog: BacklogHint::default(),
            read_to: AtomicU32::new(0),
            has_looked_for_cancel: AtomicBool::new(false),
            cancels,
            on_close: Mutex::new(None),
            attendant: OnceLock::new(),
            load: load::Load::default(),
            identity: link.identity,
            terms: link.terms,
            origin: Instant::now(),
            _rent: account.rent,
        });
        (
            connection,
            Watched {
                bell: link.bell,
                control: watched_control,
                process: link.process,
            },
        )
    }

    pub(crate) fn identity(&self) -> &PeerIdentity {
        &self.identity
    }

    /// Returns for whom a thread stalls that touches memory of this connection.
    #[inline]
    pub(crate) fn subject(&self) -> Subject {
        Subject::of(self)
    }

    pub(crate) fn terms(&self) -> &Terms {
        &self.terms
    }

    pub(crate) fn stats(&self) -> Stats {
        self.lock().counters
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    pub(crate) fn end(&self) -> Option<Disconnected> {
        self.lock().end.clone()
    }

    /// Returns `true` from when the client has cancelled the call, as seen in shared memory, or the connection has ended.
    pub(crate) fn is_cancelled(&self, id: CallId) -> bool {
        if !self.has_looked_for_cancel.load(Ordering::Relaxed) {
            self.has_looked_for_cancel.store(true, Ordering::Relaxed); // others read what lies beside it
        }
        let word = stall::count(self.subject(), || self.peer.cancel_generation(id.slot()));
        says_given_up(word, id) || self.is_closed() || self.was_cancelled(id)
    }

    /// Returns `true` if the client's frame has said so. The word may be that of another call since.
    fn was_cancelled(&self, id: CallId) -> bool {
        self.cancels.may_have(id) && !self.lock().machine.is_active(id)
    }

    /// Registers what is done once when the connection ends, or when nobody has it any more; done at once if it has ended.
    pub(crate) fn on_close(&self, action: impl FnOnce() + Send + 'static) {
        *lock(&self.on_close) = Some(Box::new(action));
        if self.is_closed() {
            self.run_on_close();
        }
    }

    /// Registers how whoever watches the doorbell is called to [attend](Self::attend) without its having rung.
    pub(crate) fn set_attendant(&self, call: impl Fn() + Send + Sync + 'static) {
        let first = self.attendant.set(Box::new(call)).is_ok();
        debug_assert!(first, "a connection is watched once");
    }

    /// Ends the connection: every call gets its outcome, everybody who waits is woken. Later calls do nothing.
    ///
    /// What the peer published before it ended is read first, so that no answer that was given is lost. If somebody drives, they
    /// do that, and end the connection, when they leave.
    pub(crate) fn close(&self, reason: Disconnected) {
        let is_ended = self.close_as_driver(reason);
        if is_ended && self.sleeper == Sleeper::Worker {
            self.ask_to_resume(); // it gives back what it watches, also if the peer never stirs again
        }
    }

    /// As [`close`](Self::close), for an I/O worker, which need not be told. Returns `false` if there was nothing to end, or not yet.
    pub(crate) fn close_as_driver(&self, reason: Disconnected) -> bool {
        doorbell_shm::failpoint!("close.before");
        // What a dead client has left, a worker has read before; and a client that goes on writing must not keep whoever ends the connection.
        let may_have_left_some = self.sleeper != Sleeper::Worker;
        if matches!(reason, Disconnected::PeerGone) && may_have_left_some && !self.read_the_rest() {
            return false;
        }
        let (wakers, calls) = {
            let mut state = self.lock();
            if state.end.is_some() {
                return false;
            }
            if let Disconnected::Protocol(violation) = &reason {
                state.say_what_was_wrong(violation);
            }
            state.end = Some(reason.clone());
            self.closed.store(true, Ordering::Relaxed);
            end_everything(&mut state)
        };
        doorbell_shm::failpoint!("close.marked");
        self.kick.raise();
        wakers.into_iter().for_each(wake);
        self.run_on_close();
        if matches!(reason, Disconnected::Protocol(_)) {
            tracing::warn!(%reason, peer = self.identity.pid, "closed the connection");
        }
        tracing::debug!(calls, "connection ended with calls under way");
        doorbell_shm::failpoint!("close.after");
        true
    }

    /// Reads what a peer that is gone has left, or makes whoever drives do so: they look for `gone` under the state lock when they
    /// leave, so one of the two sees the other. Returns `false` if it is for the driver to go on.
    fn read_the_rest(&self) -> bool {
        self.lock().gone = true;
        let Some(mut receive) = self.try_receive() else {
            self.kick.raise();
            return false;
        };
        self.drain_whole_ring(&mut receive);
        true
    }

    /// Reads what is there: as much as can be when this begins. An error has closed the connection.
    fn drain_whole_ring(&self, receive: &mut Receive) {
        let mut left = self.frames_in_a_ring();
        while let Ok(count @ 1..) = self.drain(receive, left, &mut |_, _| {}) {
            left = left.saturating_sub(count);
        }
    }

    /// Returns the most frames that can lie unread: what a peer that has ended may have left. One that goes on writing keeps nobody.
    pub(crate) fn frames_in_a_ring(&self) -> usize {
        self.peer.ring_capacity_bytes() as usize / HEADER_BYTES
    }

    fn run_on_close(&self) {
        let action = lock(&self.on_close).take();
        if let Some(action) = action {
            contain(action); // who hears of a client's state has a waker
        }
    }

    fn lock(&self) -> StateGuard<'_> {
        StateGuard::new(lock(&self.state))
    }

    /// Takes the receive half if nobody drives.
    pub(crate) fn try_receive(&self) -> Option<MutexGuard<'_, Receive>> {
        match self.receive.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn now(&self) -> Time {
        self.time(Instant::now())
    }

    fn time(&self, instant: Instant) -> Time {
        let since = instant.saturating_duration_since(self.origin);
        Time::from_nanos(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }

    /// Returns the instant that `time` stands for.
    pub(crate) fn instant(&self, time: Time) -> Instant {
        let since = Duration::from_nanos(time.as_nanos()).min(limits::MAX_DEADLINE);
        self.origin + since
    }

    /// Does what had to wait for the locks.
    #[inline]
    pub(crate) fn apply(&self, effects: Effects) {
        if let Some(on) = effects.notify {
            self.notify_peer(on);
        }
        if let Some(waker) = effects.waker {
            wake(waker);
        }
        if !effects.more.is_empty() {
            effects.more.into_iter().for_each(wake);
        }
        if effects.kicks {
            self.kick.raise();
        }
    }

    fn notify_peer(&self, on: SleepOn) {
        let result = match on {
            SleepOn::Futex => self.own.wake(),
            SleepOn::Doorbell => self.peer_bell.notify(),
        };
        // A bell that cannot be rung belongs to a peer that is gone, which its socket shows as well.
        if let Err(error) = result {
            tracing::debug!(%error, "cannot ring the peer's doorbell");
        }
    }
}

impl Drop for Connection {
    /// One that was not closed, because it could not be watched over, ends here.
    fn drop(&mut self) {
        self.run_on_close();
        self.lock().put_all_aside();
    }
}

impl Effects {
    fn wake(&mut self, waker: Option<Waker>) {
        if let Some(before) = self.waker.take() {
            self.more.push(before);
        }
        self.waker = waker;
    }

    /// Returns how long it takes to wake those who wait behind the first, roughly.
    fn time(&self) -> Duration {
        u32::try_from(self.more.len()).map_or(Duration::MAX, |count| TIME_OF_A_WAKE * count)
    }

    /// Returns how many are to be woken on this side.
    #[inline]
    fn wakers(&self) -> usize {
        usize::from(self.waker.is_some()) + self.more.len()
    }
}

/// What it takes to wake a thread that sleeps: 2 µs, and in a virtual machine the interrupt of another CPU, which takes about as long.
const TIME_OF_A_WAKE: Duration = Duration::from_micros(4);

/// Returns whom to wake, and how many calls were under way.
fn end_everything(state: &mut State) -> (Vec<Waker>, usize) {
    let calls = state.machine.handle_closed().len();
    let end = state.end.clone().expect("set by the caller");
    let wakers = state.take_wakers(|ticket| {
        ticket.cancelled = true;
        if !ticket.over {
            ticket.over = true;
            ticket.outcome = Some(Err(crate::CallError::Disconnected(end.clone())));
        }
    });
    state.pool.close();
    (wakers, calls)
}

/// Locks a mutex whose data stays consistent even if a holder panicked: nothing under these locks runs user code.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

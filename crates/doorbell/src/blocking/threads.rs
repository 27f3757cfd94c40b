//! Threads for handlers that wait for items or credit: one for each call, up to a limit.
//!
//! A thread that has nothing left to do stays for a while, because making one takes as long as a hundred small calls, which the I/O worker cannot
//! answer meanwhile. Nor does the worker wake one for each job, which takes 2 µs and more: it wakes one, and each that takes a job wakes others
//! as long as there are jobs.

use std::{
    cell::Cell,
    collections::VecDeque,
    io,
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use doorbell_shm::sys;

use crate::{connection::lock, panics::contain};

/// The threads of one server. When it has gone, those end that have nothing to do.
pub(super) struct Threads {
    shared: Arc<Shared>,
    limit: AtomicUsize,
    /// How long a thread stays without anything to do.
    stay: Duration,
}

/// Why something is not run.
pub(super) enum Refused {
    /// So many threads are busy, which is the limit.
    Busy(usize),
    /// The system has no thread for it.
    System(io::Error),
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// There is a job for an idle thread, or never will be.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Jobs that run, and those for idle threads.
    running: usize,
    /// Threads that wait, or have been given one of the jobs and not taken it yet.
    idle: usize,
    /// Idle threads that have been woken and have not looked for a job yet. No fewer are about to look.
    woken: usize,
    jobs: VecDeque<Job>,
    is_over: bool,
}

type Job = Box<dyn FnOnce() + Send>;

/// A job counts as long as its thread has this.
struct Place(Arc<Shared>);

thread_local! {
    /// The place of the job that this thread runs.
    static PLACE: Cell<Option<Place>> = const { Cell::new(None) };
}

/// The calling thread is about to answer the call whose handler it has run, if it has: that counts no more. Whoever has been answered finds the
/// place free.
pub(crate) fn leave_place() {
    drop(PLACE.take());
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.0.state).running -= 1;
    }
}

impl Threads {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Self::that_stay(limit, STAY)
    }

    fn that_stay(limit: usize, stay: Duration) -> Arc<Self> {
        Arc::new(Self {
            shared: Arc::default(),
            limit: AtomicUsize::new(limit),
            stay,
        })
    }

    pub(super) fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Runs `job` on a thread that is idle, or on a new one. It counts until it [says](leave_place) that it does not, or ends.
    ///
    /// # Errors
    ///
    /// It does not run and never will, and is dropped.
    pub(super) fn run(&self, job: impl FnOnce() + Send + 'static) -> Result<(), Refused> {
        let limit = self.limit.load(Ordering::Relaxed);
        let mut state = lock(&self.shared.state);
        if state.running >= limit {
            return Err(Refused::Busy(limit));
        }
        state.running += 1;
        let place = Place(Arc::clone(&self.shared));
        let job = Box::new(move || {
            PLACE.set(Some(place));
            job();
        });
        if state.idle > state.jobs.len() {
            state.jobs.push_back(job);
            self.shared.wake(state, 1);
            return Ok(());
        }
        drop(state);
        self.start(job).map_err(Refused::System)
    }

    fn start(&self, job: Job) -> io::Result<()> {
        let (shared, stay) = (Arc::clone(&self.shared), self.stay);
        let thread = std::thread::Builder::new().name("doorbell-handler".to_owned());
        thread.spawn(move || {
            if let Err(error) = sys::unpin_current_thread() {
                tracing::warn!(%error, "a handler stays on the CPU of its I/O worker");
            }
            let mut next = Some(job);
            while let Some(job) = next {
                contain(job); // it has answered that itself
                leave_place();
                next = shared.next(stay);
            }
        })?;
        Ok(())
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        lock(&self.shared.state).is_over = true;
        self.shared.changed.notify_all();
    }
}

impl Shared {
    /// Ends one job, and returns the next one if it comes soon enough for the thread to stay.
    fn next(&self, stay: Duration) -> Option<Job> {
        let mut state = lock(&self.state);
        state.idle += 1;
        let until = Instant::now() + stay;
        let job = loop {
            if let Some(job) = state.jobs.pop_front() {
                break Some(job);
            }
            let left = until.saturating_duration_since(Instant::now());
            if state.is_over || left.is_zero() {
                break None;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
            // Too much, if it was time that woke this thread: then one more than needed is woken.
            state.woken = state.woken.saturating_sub(1);
        };
        state.idle -= 1;
        self.wake(state, WAKES_EACH);
        job
    }

    /// Sees to it that so many idle threads are about to look for jobs, if there are as many of both.
    fn wake(&self, mut state: MutexGuard<'_, State>, most: usize) {
        let wanted = most.min(state.jobs.len()).min(state.idle);
        let missing = wanted.saturating_sub(state.woken);
        state.woken += missing;
        drop(state);
        (0..missing).for_each(|_| self.changed.notify_one());
    }
}

/// With two the number of those that are awake doubles each time.
const WAKES_EACH: usize = 2;

/// Streams of one client come closer together than that; a process that is quiet is to have no more threads than it needs.
const STAY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;

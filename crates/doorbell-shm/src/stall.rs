//! Whether a thread has had to sleep for a page of shared memory.
//!
//! A page of a mapping may be gone when it is next touched: its writer has thrown it away, or the system has moved it to disk. The access is
//! a page fault then, in which the kernel may let the thread sleep: until the page has come; or, while a hole is punched into the memory,
//! until that is done, and whoever punches can be preempted meanwhile. A thread that serves many peers cannot prevent that one of them
//! makes it sleep so. This module tells it afterwards which one it was.
//!
//! The kernel counts faults and sleeps of each thread (`getrusage(2)`, `RUSAGE_THREAD`). To read the numbers is a system call, too much for
//! each look at a ring. So a thread [watches](watch) itself only for a while, when something has taken long, and reads them only after a
//! piece of work that has taken longer than the shortest sleep. If it has slept in it *and* had a fault, the piece was a stall. What runs in
//! between and is somebody else's, such as a handler, which may sleep as it likes, is [left out](leave_out), but for what the
//! library reads and writes for it in memory of the very peer for whom it works. What it reads in place is left out.
//!
//! All of this is about the calling thread.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::sys::{ThreadSleeps, thread_sleeps};

/// Begins to watch the calling thread, or ends it.
pub fn watch(is_on: bool) {
    METER.with(|meter| {
        if is_on {
            meter.known.set(thread_sleeps());
        }
        match (meter.is_on.replace(is_on), is_on) {
            (false, true) => WATCHED.fetch_add(1, Ordering::Relaxed),
            (true, false) => WATCHED.fetch_sub(1, Ordering::Relaxed),
            _ => return,
        };
    });
}

/// Returns `true` if the calling thread is watched.
#[inline]
pub fn is_watched() -> bool {
    may_be_watched() && METER.with(|meter| meter.is_on.get())
}

/// Returns `false` if no thread is watched. In a library that is loaded later it takes a call to look at what belongs to a thread.
#[inline]
pub fn may_be_watched() -> bool {
    WATCHED.load(Ordering::Relaxed) > 0
}

/// Threads of this process that are watched.
static WATCHED: AtomicUsize = AtomicUsize::new(0);

/// For whom a thread may stall: whoever has the memory that it reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Subject(usize);

impl Subject {
    /// Returns the subject that has a place in memory, which no other has as long as it keeps it.
    pub fn of<T>(subject: &T) -> Self {
        Self(std::ptr::from_ref(subject).addr())
    }
}

/// Runs `work` for `subject` and notes whether the calling thread stalls in it, if it is watched.
#[inline]
pub fn measure<T>(subject: Subject, work: impl FnOnce() -> T) -> T {
    as_part(|| begin_measure(subject), work)
}

/// Returns how long the pieces have taken, together, in which the calling thread has stalled, of what it has [measured](measure) last; `None` if it
/// has not, or this was asked before.
#[inline]
pub fn take() -> Option<Duration> {
    may_be_watched().then(take_stalled).flatten()
}

/// Runs `work` as a part of what is [measured](measure), if that is so, that may sleep without being a stall.
#[inline]
pub fn leave_out<T>(work: impl FnOnce() -> T) -> T {
    as_part(|| begin(Part::LeftOut), work)
}

/// Runs `work`, which reads or writes memory of `subject`, and counts even as a part of what is [left out](leave_out), if it is that subject that
/// is measured.
#[inline(always)]
pub fn count<T>(subject: Subject, work: impl FnOnce() -> T) -> T {
    as_part(|| begin_count(subject), work)
}

/// There is one copy of `work` in the code, where it is wanted: it is what matters when nobody watches.
#[inline(always)]
fn as_part<T>(begin: impl FnOnce() -> Before, work: impl FnOnce() -> T) -> T {
    let before = match may_be_watched() {
        true => begin(),
        false => Before::Unwatched,
    };
    let value = work();
    if let Before::Part(around) = before {
        turn_to(around);
    }
    value
}

/// What was before a part began.
#[derive(Clone, Copy)]
enum Before {
    Unwatched,
    Part(Option<Part>),
}

struct Meter {
    is_on: Cell<bool>,
    /// What runs now, and since when; `None` outside of what is measured.
    part: Cell<Option<(Part, Instant)>>,
    /// What has been read last: sleeps until then are nobody's, or have been judged.
    known: Cell<ThreadSleeps>,
    stalled: Cell<Option<Duration>>,
    /// For whom it works.
    subject: Cell<Option<Subject>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Counts,
    LeftOut,
}

thread_local! {
    static METER: Meter = const {
        Meter {
            is_on: Cell::new(false),
            part: Cell::new(None),
            known: Cell::new(ThreadSleeps { sleeps: 0, faults: 0 }),
            stalled: Cell::new(None),
            subject: Cell::new(None),
        }
    };
}

#[cold]
fn begin_measure(subject: Subject) -> Before {
    METER.with(|meter| {
        if meter.is_on.get() {
            meter.subject.set(Some(subject));
            meter.known.set(thread_sleeps());
            meter.stalled.set(None);
        }
    });
    begin(Part::Counts)
}

#[cold]
fn begin_count(subject: Subject) -> Before {
    match is_measured(subject) {
        true => begin(Part::Counts),
        false => Before::Unwatched,
    }
}

/// Begins a part, and returns the one around it.
#[cold]
fn begin(part: Part) -> Before {
    if !is_watched() {
        return Before::Unwatched;
    }
    let around = METER.with(|meter| meter.part.get().map(|(around, _)| around));
    if around != Some(part) {
        turn_to(Some(part));
    }
    Before::Part(around)
}

/// Returns `true` if the calling thread works for `subject` now.
#[cold]
fn is_measured(subject: Subject) -> bool {
    METER.with(|meter| meter.part.get().is_some() && meter.subject.get() == Some(subject))
}

#[cold]
fn take_stalled() -> Option<Duration> {
    METER.with(|meter| meter.stalled.take())
}

/// Judges what runs now, and goes on with another part.
#[cold]
fn turn_to(part: Option<Part>) {
    METER.with(|meter| {
        if meter.part.get().map(|(part, _)| part) == part {
            return;
        }
        let now = Instant::now();
        if let Some((ended, since)) = meter.part.get()
            && let took = now.duration_since(since)
            && took > SHORTEST_SLEEP
        {
            let known = meter.known.replace(thread_sleeps());
            let has_stalled = meter.known.get().has_stalled_since(known);
            if ended == Part::Counts && has_stalled {
                let before = meter.stalled.get().unwrap_or_default();
                meter.stalled.set(Some(before + took));
            }
        }
        meter.part.set(part.map(|part| (part, now)));
    });
}

impl ThreadSleeps {
    fn has_stalled_since(self, before: Self) -> bool {
        self.sleeps > before.sleeps && self.faults > before.faults
    }
}

/// Shorter than the sleeps that matter: to be woken takes some microseconds, of a halted processor some tens.
const SHORTEST_SLEEP: Duration = Duration::from_micros(20);

#[cfg(test)]
mod tests;

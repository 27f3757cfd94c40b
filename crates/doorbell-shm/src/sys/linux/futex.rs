//! Sleeping on a word in shared memory.
//!
//! Never with the `PRIVATE` flag: the kernel would then look for sleepers by our own address, and find nobody from
//! another process or through another mapping. The kernel compares the word under its own lock, so a change between
//! the caller's look and the sleep is not lost. A read-only mapping is enough for all three calls.

use std::io;
use std::ptr::from_ref;
use std::sync::atomic::AtomicU32;
use std::time::Instant;

use rustix::io::Errno;
use rustix::thread::futex::{ClockId, Flags, Wait, WaitFlags, WaitPtr, WaitvFlags};

use super::call::{Call, call, call_once};
use super::deadline::{monotonic, time_left};
use crate::sys::Woken;

/// Sleeps while `word` holds `expected`, until [`futex_wake`] or the deadline.
///
/// [`Woken::Notified`] also when the word held another value at once; it promises nothing about the word.
///
/// # Errors
///
/// `EFAULT` when `word` lies in memory that cannot be shared.
pub fn futex_wait(word: &AtomicU32, expected: u32, deadline: Option<Instant>) -> io::Result<Woken> {
    loop {
        let timeout = deadline.map(time_left);
        let slept = call_once(Call::FutexWait, || {
            rustix::thread::futex::wait(word, Flags::empty(), expected, timeout.as_ref())
        });
        if let Some(outcome) = outcome(slept) {
            return outcome;
        }
    }
}

/// Sleeps while each word holds the value expected of it, until one is woken or the deadline.
///
/// # Errors
///
/// As [`futex_wait`]; `InvalidInput` unless there are one to four words; `ENOSYS` before Linux 5.16.
pub fn futex_wait_any(words: &[(&AtomicU32, u32)], deadline: Option<Instant>) -> io::Result<Woken> {
    let mut waits = [Wait::new(); MAX_WORDS];
    let Some(waits) = waits
        .get_mut(..words.len())
        .filter(|waits| !waits.is_empty())
    else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "cannot wait on {} words, only on 1 to {MAX_WORDS}",
                words.len()
            ),
        ));
    };
    for (wait, &(word, expected)) in waits.iter_mut().zip(words) {
        wait.val = expected.into();
        wait.uaddr = WaitPtr::new(from_ref(word).cast_mut().cast());
        wait.flags = WaitFlags::SIZE_U32;
    }
    // This call takes the instant itself, so an interruption needs no new calculation.
    let timeout = deadline.and_then(monotonic);
    loop {
        let slept = call_once(Call::FutexWaitv, || {
            let (flags, clock) = (WaitvFlags::empty(), ClockId::Monotonic);
            rustix::thread::futex::waitv(waits, flags, timeout.as_ref(), clock)
        });
        if let Some(outcome) = outcome(slept.map(drop)) {
            return outcome;
        }
    }
}

/// Wakes at most `count` threads of any process that sleep on `word`; returns how many there were.
///
/// # Errors
///
/// `EFAULT` when `word` lies in memory that cannot be shared.
pub fn futex_wake(word: &AtomicU32, count: u32) -> io::Result<u32> {
    // The kernel reads the count as a signed number.
    let count = count.min(i32::MAX as u32);
    let woken = call(Call::FutexWake, || {
        rustix::thread::futex::wake(word, Flags::empty(), count)
    })?;
    Ok(u32::try_from(woken).unwrap_or(u32::MAX))
}

/// Translates the result of a sleep; `None` means that a signal came and the sleep has to be resumed.
fn outcome(slept: rustix::io::Result<()>) -> Option<io::Result<Woken>> {
    match slept {
        Ok(()) | Err(Errno::AGAIN) => Some(Ok(Woken::Notified)),
        Err(Errno::TIMEDOUT) => Some(Ok(Woken::Deadline)),
        Err(Errno::INTR) => None,
        Err(error) => Some(Err(error.into())),
    }
}

/// A sleeper waits for the peer's two positions; twice that leaves room.
const MAX_WORDS: usize = 4;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn in_a_moment() -> Option<Instant> {
        Some(Instant::now() + Duration::from_millis(20))
    }

    #[test]
    fn word_with_another_value_does_not_sleep() {
        let (one, other) = (AtomicU32::new(1), AtomicU32::new(1));
        assert_eq!(futex_wait(&one, 0, None).unwrap(), Woken::Notified);
        let either = [(&one, 1), (&other, 0)];
        assert_eq!(futex_wait_any(&either, None).unwrap(), Woken::Notified);
    }

    #[test]
    fn sleep_ends_at_the_deadline_and_not_before() {
        let word = AtomicU32::new(0);
        for _ in 0..5 {
            let deadline = in_a_moment();
            assert_eq!(futex_wait(&word, 0, deadline).unwrap(), Woken::Deadline);
            assert!(Some(Instant::now()) >= deadline);
            let deadline = in_a_moment();
            let woken = futex_wait_any(&[(&word, 0)], deadline).unwrap();
            assert_eq!(woken, Woken::Deadline);
            assert!(Some(Instant::now()) >= deadline);
        }
    }

    #[test]
    fn deadline_in_the_past_is_over() {
        let word = AtomicU32::new(0);
        let past = Some(Instant::now());
        assert_eq!(futex_wait(&word, 0, past).unwrap(), Woken::Deadline);
        assert_eq!(
            futex_wait_any(&[(&word, 0)], past).unwrap(),
            Woken::Deadline
        );
    }

    #[test]
    fn any_takes_one_to_four_words() {
        let word = AtomicU32::new(0);
        for count in [0, 5, 200] {
            let words = vec![(&word, 0); count];
            let error = futex_wait_any(&words, in_a_moment()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        }
        for count in 1..=4 {
            let words = vec![(&word, 0); count];
            let woken = futex_wait_any(&words, in_a_moment()).unwrap();
            assert_eq!(woken, Woken::Deadline);
        }
    }
}

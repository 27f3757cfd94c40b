//! A futex sleep is also ended by another thread of the same process.

use loom::cell::UnsafeCell;
use loom::sync::{Arc, Mutex};
use loom::thread;

use super::model;
use super::side::sides;
use crate::sync::kept;
use crate::wake::SleepOn;

/// What the kicker changes before it kicks; unordered accesses fail the model.
struct Reason(UnsafeCell<bool>);

// SAFETY: loom's cell reports every unordered pair of accesses.
unsafe impl Sync for Reason {}
// SAFETY: as above.
unsafe impl Send for Reason {}

/// Edge `kicked`, and no kick between the last look and the sleep is lost.
#[test]
fn loom_close_racing_with_sleep_ends_it() {
    model(|| {
        let (_peer, mut sleeper) = sides(SleepOn::Futex);
        let closed = Arc::new(Reason(UnsafeCell::new(false)));
        let kick = sleeper.kicker();
        let closer = thread::spawn({
            let closed = Arc::clone(&closed);
            move || {
                // SAFETY: loom has checked that nobody else has access.
                closed.0.with_mut(|closed| unsafe { *closed = true });
                kick();
            }
        });
        while !sleeper.kick.lower() {
            sleeper.sleep(false);
        }
        // SAFETY: loom has checked that nobody writes.
        assert!(closed.0.with(|closed| unsafe { *closed }));
        closer.join().unwrap();
    });
}

/// A kick that was raised before anybody looked is not forgotten, and a second one is not lost.
#[test]
fn loom_two_kicks_are_seen_as_one_or_two() {
    model(|| {
        let (_peer, mut sleeper) = sides(SleepOn::Futex);
        let (first, second) = (sleeper.kicker(), sleeper.kicker());
        let one = thread::spawn(first);
        let two = thread::spawn(second);
        while !sleeper.kick.lower() {
            sleeper.sleep(false);
        }
        one.join().unwrap();
        two.join().unwrap();
        assert!(!sleeper.kick.lower() || !sleeper.kick.lower());
    });
}

/// `wait_state` and `drive_or_sleep` against another thread that brings what they wait for without the peer (`sent_with_more`, `loan_was_dropped`,
/// `abandon`): the last look and the announcement are one step, and whoever brings the change kicks a driver that is announced.
#[test]
fn loom_driver_that_sleeps_for_what_another_thread_brings_is_kicked() {
    #[derive(Default)]
    struct State {
        is_there: bool,
        is_announced: bool,
    }
    model(|| {
        let (_peer, mut driver) = sides(SleepOn::Futex);
        let state = Arc::new(Mutex::new(State::default()));
        let kick = driver.kicker();
        let other = thread::spawn({
            let state = Arc::clone(&state);
            move || {
                let mut state = state.lock().unwrap();
                state.is_there = true;
                if state.is_announced {
                    kick();
                }
            }
        });
        loop {
            driver.kick.lower();
            let mut locked = state.lock().unwrap();
            if locked.is_there {
                break;
            }
            if !kept("look-with-announce") {
                drop(locked);
                locked = state.lock().unwrap();
            }
            locked.is_announced = true;
            drop(locked);
            driver.sleep_unless(true, |_| false);
            state.lock().unwrap().is_announced = false;
        }
        other.join().unwrap();
    });
}

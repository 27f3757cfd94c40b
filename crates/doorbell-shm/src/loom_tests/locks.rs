//! Steps of the crate above that end in a lock: which of two things comes first. The locks are loom's and the steps are written down
//! here once more, because that crate does not build under loom; each names the function that it follows.

use loom::sync::atomic::{AtomicBool, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use super::model;
use crate::sync::kept;

/// The receive half, and the state with who waits.
struct Connection {
    /// What a lock is to somebody who only tries: an exchange that is not ordered when it fails. (Loom's own has no step there.)
    receive_is_taken: AtomicBool,
    state: Mutex<State>,
    woken: Condvar,
}

#[derive(Default)]
struct State {
    is_waiting: bool,
    is_woken: bool,
}

impl Connection {
    /// `Connection::hand_over` and `leave`: looks for who waits after the receive half is free.
    fn leave(&self) {
        let release = || self.receive_is_taken.store(false, Ordering::Release);
        if kept("leave-release-first") {
            release();
            self.wake_one();
        } else {
            self.wake_one();
            release();
        }
    }

    fn try_receive(&self) -> bool {
        let (taken, failed) = (Ordering::Acquire, Ordering::Relaxed);
        let tried = self
            .receive_is_taken
            .compare_exchange(false, true, taken, failed);
        tried.is_ok()
    }

    fn wake_one(&self) {
        let mut state = self.state.lock().unwrap();
        if state.is_waiting {
            state.is_woken = true;
            self.woken.notify_one();
        }
    }

    /// `Connection::park`: tries the receive half after it is known to wait. Returns when it drives.
    fn wait(&self) {
        loop {
            let tried_too_early = !kept("park-register-first") && self.try_receive();
            self.state.lock().unwrap().is_waiting = true;
            if tried_too_early || kept("park-register-first") && self.try_receive() {
                return;
            }
            let mut state = self.state.lock().unwrap();
            while !state.is_woken {
                state = self.woken.wait(state).unwrap();
            }
            state.is_woken = false;
        }
    }
}

/// Somebody waits while the driver leaves: one of the two sees the other. If not, both are content and nobody drives: a deadlock.
#[test]
fn loom_waiter_racing_with_a_driver_that_leaves_drives() {
    model(|| {
        let connection = Arc::new(Connection {
            receive_is_taken: AtomicBool::new(true), // by the driver
            state: Mutex::default(),
            woken: Condvar::new(),
        });
        let driver = thread::spawn({
            let connection = Arc::clone(&connection);
            move || connection.leave()
        });
        connection.wait();
        driver.join().unwrap();
    });
}

/// `Mailbox::deliver` against a worker that leaves, `Reception::admit` against a drain, `dial_once` against `close`, and
/// `Connection::on_close` against the end: what is put down under the lock and the flag that is raised before the lock is taken. One of the
/// two sees the other, by the lock alone.
#[test]
fn loom_arrival_racing_with_a_stop_is_turned_away() {
    model(|| {
        let stopped = Arc::new(AtomicBool::new(false));
        let arrivals = Arc::new(Mutex::new(0));
        let worker = thread::spawn({
            let (stopped, arrivals) = (Arc::clone(&stopped), Arc::clone(&arrivals));
            move || {
                let stop = || stopped.store(true, Ordering::Relaxed);
                kept("stop-raise-first").then(stop);
                *arrivals.lock().unwrap() = 0;
                (!kept("stop-raise-first")).then(stop);
            }
        });
        *arrivals.lock().unwrap() += 1;
        if kept("arrival-look-again") && stopped.load(Ordering::Relaxed) {
            *arrivals.lock().unwrap() = 0;
        }
        worker.join().unwrap();
        let left = *arrivals.lock().unwrap();
        assert_eq!(left, 0, "waits for ever: nobody will come");
    });
}

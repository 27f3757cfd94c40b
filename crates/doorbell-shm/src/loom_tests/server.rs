//! Steps of a server: connections that are handed to a worker or taken up again, the end of a drain, and handlers that are replaced. As in
//! [`locks`](super::locks), what orders them are locks, and the steps are written down once more.

use loom::sync::atomic::{AtomicU32, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use super::model;
use super::side::{Bell, FULL, sides};
use crate::sync::kept;
use crate::wake::SleepOn;

/// `Mailbox::deliver`, `on_resume` and `Watch::call` against the thread that waits in the poller: what is put down first and told then is found,
/// because the poller remembers that it was woken.
#[test]
fn loom_connection_that_is_resumed_is_looked_at() {
    model(|| {
        let (poller, resumed) = (Arc::new(Bell::new()), Arc::new(Mutex::new(0)));
        let handler = thread::spawn({
            let (poller, resumed) = (Arc::clone(&poller), Arc::clone(&resumed));
            move || {
                let put = || *resumed.lock().unwrap() += 1;
                kept("resume-put-first").then(put);
                poller.notify();
                (!kept("resume-put-first")).then(put);
            }
        });
        loop {
            poller.wait();
            if std::mem::take(&mut *resumed.lock().unwrap()) > 0 {
                break;
            }
        }
        handler.join().unwrap();
    });
}

/// `poll_quiet` against the answer of the last call, and everybody else who registers for something that the state lock protects: the look and
/// the registration are one step, and whoever brings the change takes the wakers with it.
#[test]
fn loom_change_that_races_with_a_registration_wakes() {
    struct State {
        calls: u32,
        is_registered: bool,
    }
    model(|| {
        let state = Arc::new(Mutex::new(State {
            calls: 1,
            is_registered: false,
        }));
        let task = Arc::new((Mutex::new(false), Condvar::new()));
        let answer = thread::spawn({
            let (state, task) = (Arc::clone(&state), Arc::clone(&task));
            move || {
                let mut state = state.lock().unwrap();
                state.calls -= 1;
                let waker = std::mem::take(&mut state.is_registered);
                drop(state);
                if waker {
                    *task.0.lock().unwrap() = true; // outside of the state lock
                    task.1.notify_one();
                }
            }
        });
        loop {
            let mut looked = state.lock().unwrap();
            if looked.calls == 0 {
                break;
            }
            if !kept("register-with-look") {
                drop(looked);
                looked = state.lock().unwrap();
            }
            looked.is_registered = true;
            drop(looked);
            let mut is_woken = task.0.lock().unwrap();
            while !*is_woken {
                is_woken = task.1.wait(is_woken).unwrap();
            }
            *is_woken = false;
        }
        answer.join().unwrap();
    });
}

/// `Registry::change` against a worker that takes its first snapshot, and is then called by somebody who knows of the new handler.
#[test]
fn loom_handler_that_was_replaced_is_the_one_that_is_called() {
    model(|| {
        let (mut client, mut worker) = sides(SleepOn::Futex);
        let (table, version) = (Arc::new(Mutex::new(1)), Arc::new(AtomicU32::new(0)));
        let changing = thread::spawn({
            let (table, version) = (Arc::clone(&table), Arc::clone(&version));
            move || {
                let mut current = table.lock().unwrap();
                *current = 2;
                version.fetch_add(1, Ordering::Relaxed);
                drop(current);
                assert!(client.try_send(1));
            }
        });
        let latest = || {
            let early = version.load(Ordering::Relaxed);
            let table = *table.lock().unwrap();
            if kept("version-read-first") {
                (table, early)
            } else {
                (table, version.load(Ordering::Relaxed))
            }
        };
        let mut snapshot = latest();
        while worker.try_receive().is_none() {
            thread::yield_now();
        }
        if version.load(Ordering::Relaxed) != snapshot.1 {
            snapshot = latest();
        }
        assert_eq!(snapshot.0, 2, "the old handler is called");
        changing.join().unwrap();
    });
}

/// `announce_asleep`: a frame for which there was no room before the announcement is tried once more after it, if `backlog` says so. (The room
/// that came between has woken nobody.)
#[test]
fn loom_frame_that_waits_when_the_worker_falls_asleep_is_written() {
    model(|| {
        let (mut worker, mut client) = sides(SleepOn::Doorbell);
        (1..=FULL).for_each(|value| assert!(worker.try_send(value)));
        let reader = thread::spawn(move || {
            assert_eq!(client.try_receive(), Some(1));
            client.release();
            client.notify(false, true);
        });
        let mut is_written = worker.try_send(FULL + 1);
        let backlog = !is_written && kept("backlog-said");
        if !is_written {
            worker.sleep_unless(true, |worker| {
                is_written = backlog && worker.try_send(FULL + 1); // `relieve`
                is_written
            });
        }
        assert!(is_written || worker.try_send(FULL + 1));
        reader.join().unwrap();
    });
}

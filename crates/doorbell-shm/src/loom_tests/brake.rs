//! Work that ends while its starter is being held.

use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use super::model;
use crate::sync::kept;
use crate::wake::Brake;

const LIMIT: u32 = 2;

/// The starter's place to wait, which remembers that it was asked to go on.
struct Starter {
    asked: Mutex<bool>,
    waits: Condvar,
}

impl Starter {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            asked: Mutex::new(false),
            waits: Condvar::new(),
        })
    }

    fn ask(&self) {
        *self.asked.lock().unwrap() = true;
        self.waits.notify_one();
    }

    fn wait(&self) {
        let mut asked = self.asked.lock().unwrap();
        while !*asked {
            asked = self.waits.wait(asked).unwrap();
        }
    }
}

/// Whoever ends the work that counts, the starter goes on: it sees the end, or is asked. A lost request shows as a deadlock.
#[test]
fn loom_work_that_ends_while_its_starter_is_held_lets_it_go_on() {
    model(|| {
        let brake = Arc::new(Brake::new());
        let starter = Starter::new();
        (0..LIMIT).for_each(|_| brake.begin());
        let works: Vec<_> = (0..LIMIT)
            .map(|_| {
                let (brake, starter) = (Arc::clone(&brake), Arc::clone(&starter));
                thread::spawn(move || {
                    if brake.end(LIMIT) {
                        starter.ask();
                    }
                })
            })
            .collect();
        if brake.holds(LIMIT) {
            starter.wait();
        }
        works.into_iter().for_each(|work| work.join().unwrap());
        assert!(!brake.is_busy());
    });
}

/// `Connection::on_resume` and `ask_to_resume`: a connection that is held goes to another worker, which says first whom to ask, and looks then.
#[test]
fn loom_work_that_ends_while_what_is_held_moves_is_told_to_its_new_place() {
    model(|| {
        let brake = Arc::new(Brake::new());
        let (before, after) = (Starter::new(), Starter::new());
        let whom = Arc::new(Mutex::new(before));
        (0..LIMIT).for_each(|_| brake.begin());
        let _ = brake.holds(LIMIT); // where it was before, nobody waits for it any more
        let works: Vec<_> = (0..LIMIT)
            .map(|_| {
                let (brake, whom) = (Arc::clone(&brake), Arc::clone(&whom));
                thread::spawn(move || {
                    if brake.end(LIMIT) {
                        let starter = Arc::clone(&*whom.lock().unwrap());
                        starter.ask();
                    }
                })
            })
            .collect();
        let say = || *whom.lock().unwrap() = Arc::clone(&after);
        kept("resume-set-first").then(say);
        let is_held = brake.holds(LIMIT);
        (!kept("resume-set-first")).then(say);
        if is_held {
            after.wait();
        }
        works.into_iter().for_each(|work| work.join().unwrap());
    });
}

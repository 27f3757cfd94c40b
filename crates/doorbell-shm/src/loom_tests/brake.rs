//! Work that ends while its starter is being held.

use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use super::model;
use crate::wake::Brake;

const LIMIT: u32 = 2;

/// The starter's place to wait, which remembers that it was asked to go on.
struct Starter {
    asked: Mutex<bool>,
    waits: Condvar,
}

/// Whoever ends the work that counts, the starter goes on: it sees the end, or is asked. A lost request shows as a deadlock.
#[test]
fn loom_work_that_ends_while_its_starter_is_held_lets_it_go_on() {
    model(|| {
        let brake = Arc::new(Brake::new());
        let starter = Arc::new(Starter {
            asked: Mutex::new(false),
            waits: Condvar::new(),
        });
        (0..LIMIT).for_each(|_| brake.begin());
        let works: Vec<_> = (0..LIMIT)
            .map(|_| {
                let (brake, starter) = (Arc::clone(&brake), Arc::clone(&starter));
                thread::spawn(move || {
                    if brake.end(LIMIT) {
                        *starter.asked.lock().unwrap() = true;
                        starter.waits.notify_one();
                    }
                })
            })
            .collect();
        if brake.holds(LIMIT) {
            let mut asked = starter.asked.lock().unwrap();
            while !*asked {
                asked = starter.waits.wait(asked).unwrap();
            }
        }
        works.into_iter().for_each(|work| work.join().unwrap());
        assert!(!brake.is_busy());
    });
}

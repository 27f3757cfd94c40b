//! Rests: moments at which no client works, and what memory both sides keep then.
//!
//! Under work a process holds what is under way, and what its allocator keeps of it afterwards, up to the most that was ever needed at once.
//! Neither is left over. At a rest nothing is under way, the connections have given back what they do when they are quiet, and both
//! allocators are asked for what they keep: what is in memory now is what stays.

use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::RwLock;

/// Lets clients work side by side, or none at all.
#[derive(Debug, Default)]
pub(super) struct Gate(RwLock<()>);

impl Gate {
    /// Waits until clients may work; they do as long as the guard is there.
    pub(super) async fn work(&self) -> impl Drop + '_ {
        self.0.read().await
    }

    /// Waits until nobody works, and keeps everybody from it as long as the guard is there. `None` if somebody does not finish.
    pub(super) fn close(&self, runtime: &Runtime) -> Option<impl Drop + '_> {
        let closed =
            runtime.block_on(async { tokio::time::timeout(PATIENCE, self.0.write()).await });
        closed.ok()
    }
}

/// Returns how long the clients work between two rests.
pub(super) fn between(length: Duration) -> Duration {
    (length / 60).clamp(SHORTEST, LONGEST).min(length / 10)
}

/// Connections give back what they can after a second of quiet, the two sides one after the other, and many connections in groups: between two
/// of them there is less than this.
pub(super) const TIME_TO_GIVE_BACK: Duration = Duration::from_secs(2);

pub(super) const BETWEEN_LOOKS: Duration = Duration::from_millis(250);

const SHORTEST: Duration = Duration::from_secs(15);
const LONGEST: Duration = Duration::from_secs(60);

/// A piece of work is done long before; what takes longer has been lost.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn nobody_works_while_the_gate_is_closed_and_all_do_again_afterwards() {
        let runtime = Runtime::new().unwrap();
        let (gate, working, done) = (
            Arc::new(Gate::default()),
            Arc::new(AtomicUsize::new(0)),
            Arc::new(AtomicUsize::new(0)),
        );
        for _ in 0..4 {
            let (gate, working, done) =
                (Arc::clone(&gate), Arc::clone(&working), Arc::clone(&done));
            runtime.spawn(async move {
                loop {
                    let _working = gate.work().await;
                    working.fetch_add(1, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                    working.fetch_sub(1, Ordering::SeqCst);
                    done.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        for _ in 0..200 {
            let before = done.load(Ordering::SeqCst);
            while done.load(Ordering::SeqCst) == before {
                std::thread::yield_now();
            }
            let _closed = gate.close(&runtime).unwrap();
            let before = done.load(Ordering::SeqCst);
            assert_eq!(working.load(Ordering::SeqCst), 0);
            std::thread::yield_now();
            assert_eq!(done.load(Ordering::SeqCst), before);
        }
    }

    #[test]
    fn rests_are_neither_rare_nor_all_there_is() {
        let minutes = |minutes: u64| between(Duration::from_secs(60 * minutes)).as_secs();
        assert_eq!([1, 10, 30, 24 * 60].map(minutes), [6, 15, 30, 60]);
    }
}

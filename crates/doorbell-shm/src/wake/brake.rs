//! Holding back who starts work while too much of it runs, and telling them when to go on.

use crate::sync::{AtomicU32, Ordering, fence_at, kept};

/// Counts work that runs, so that one thread, the starter, stops at a limit and is asked to go on when half of it has ended.
///
/// ```text
/// starter, at the limit                     who ends some work
/// held: store 1                             running: subtract 1
/// fence(SeqCst)        brake-fence          fence(SeqCst)        release-fence
/// look once more: load running              at half of the limit: load held
/// stop, if it is still above half           exchange it, if it is 1, and ask to go on
/// ```
///
/// The same race as that of going to sleep: each side stores one word and loads the other's. Without both fences the starter may miss
/// that the work has ended, and the one who ends the last of it that somebody is held; nobody would ever go on.
#[derive(Debug, Default)]
pub struct Brake {
    running: AtomicU32,
    held: AtomicU32,
}

const HELD: u32 = 1;
const FREE: u32 = 0;

impl Brake {
    /// Returns a brake that holds nobody.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts work that begins.
    pub fn begin(&self) {
        self.running.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts work that has ended. Returns `true` if the starter is to be asked to go on: it has been held, and nobody else has been told so.
    #[must_use]
    pub fn end(&self, limit: u32) -> bool {
        let before = self.running.fetch_sub(1, Ordering::Relaxed);
        fence_at("release-fence", Ordering::SeqCst);
        before <= limit / 2 && self.held.load(Ordering::Relaxed) == HELD && self.let_go()
    }

    /// Returns `true` if the starter must stop; it will be asked to go on.
    #[must_use]
    pub fn holds(&self, limit: u32) -> bool {
        if self.running.load(Ordering::Relaxed) < limit {
            return false;
        }
        self.held.store(HELD, Ordering::Relaxed);
        fence_at("brake-fence", Ordering::SeqCst);
        if !kept("brake-look-again") || self.running.load(Ordering::Relaxed) > limit / 2 {
            return true;
        }
        // Whoever has let us go asks us to go on.
        !self.let_go()
    }

    /// Returns `true` for one of those who find somebody held.
    fn let_go(&self) -> bool {
        self.held.swap(FREE, Ordering::Relaxed) == HELD
    }

    /// Returns `true` if any work runs.
    pub fn is_busy(&self) -> bool {
        self.running.load(Ordering::Relaxed) > 0
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn starter_is_held_at_the_limit_and_asked_once_at_half() {
        let brake = Brake::new();
        for _ in 0..4 {
            assert!(!brake.holds(4));
            brake.begin();
        }
        assert!(brake.holds(4) && brake.is_busy());
        let asked: Vec<_> = (0..4).map(|_| brake.end(4)).collect();
        assert_eq!(asked, [false, false, true, false]);
        assert!(!brake.holds(4) && !brake.is_busy());
    }

    #[test]
    fn nobody_is_asked_who_was_not_held() {
        let brake = Brake::new();
        brake.begin();
        assert!(!brake.end(4));
    }
}

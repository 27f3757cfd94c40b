//! Whether the peer reads a large message while we write it.
//!
//! If it does, it has a CPU of its own, and chunks are better written past our caches, where its own would have to fetch them line by line. If it
//! reads them only after we have given up the CPU, it may have this one, and finds them in its caches.

/// What has been seen of it. Looked at while several chunks are written in one go, in which we do not sleep.
#[derive(Debug)]
pub(super) struct Overlap {
    /// Chunks written in goes during which nothing was read, since the last during which something was.
    unseen_chunks: u32,
}

/// One go.
pub(super) struct Go {
    head: Option<u32>,
    chunks: u32,
    has_moved: bool,
}

impl Overlap {
    /// Returns that of a process that may run on so many CPUs.
    pub(super) fn new(cpu_count: usize) -> Self {
        Self {
            unseen_chunks: if cpu_count > 1 { 0 } else { UNSEEN_CHUNKS },
        }
    }

    /// Begins to write in one go.
    pub(super) fn start() -> Go {
        Go {
            head: None,
            chunks: 0,
            has_moved: false,
        }
    }

    /// Learns from a go that has ended.
    pub(super) fn learn(&mut self, go: &Go) {
        if go.has_moved {
            self.unseen_chunks = 0;
        } else if go.chunks > 1 {
            self.unseen_chunks = self.unseen_chunks.saturating_add(go.chunks);
        }
    }

    /// The peer has a CPU of its own, as far as we know.
    #[inline]
    pub(super) fn is_likely(&self) -> bool {
        self.unseen_chunks < UNSEEN_CHUNKS
    }
}

impl Go {
    /// The peer has read up to `head`, before the next chunk is written.
    pub(super) fn look(&mut self, head: u32) {
        self.has_moved |= self.head.is_some_and(|before| before != head);
        self.head = Some(head);
    }

    /// A chunk has been written.
    pub(super) fn wrote_chunk(&mut self) {
        self.chunks += 1;
    }
}

/// So many chunks without a sign of the peer, and it is taken for one that waits for our CPU. A peer that sleeps lets seven pass before it is
/// woken.
const UNSEEN_CHUNKS: u32 = 32;

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes chunks with the peer's head as told before each.
    fn go(overlap: &mut Overlap, heads: &[u32]) {
        let mut go = Overlap::start();
        for &head in heads {
            go.look(head);
            go.wrote_chunk();
        }
        overlap.learn(&go);
    }

    #[test]
    fn a_peer_that_reads_between_our_goes_only_is_taken_for_one_on_our_cpu() {
        let mut overlap = Overlap::new(2);
        for number in 0..8 {
            assert!(overlap.is_likely(), "after {number} goes");
            go(&mut overlap, &[number; 4]);
        }
        assert!(!overlap.is_likely());
    }

    #[test]
    fn one_chunk_read_while_we_write_shows_a_cpu_of_its_own() {
        let mut overlap = Overlap::new(2);
        go(&mut overlap, &[7; 100]);
        assert!(!overlap.is_likely());
        go(&mut overlap, &[7, 8]);
        assert!(overlap.is_likely());
    }

    #[test]
    fn one_chunk_alone_says_nothing() {
        let mut overlap = Overlap::new(2);
        (0..100).for_each(|number| go(&mut overlap, &[number]));
        assert!(overlap.is_likely());
    }

    #[test]
    fn with_one_cpu_nobody_has_one_of_its_own() {
        assert!(!Overlap::new(1).is_likely());
    }
}

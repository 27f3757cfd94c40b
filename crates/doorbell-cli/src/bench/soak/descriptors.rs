//! Open descriptors of a process, before its connections and after them.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

/// How many there are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Descriptors {
    process: u32,
    pub(super) before: usize,
    pub(super) after: usize,
}

impl Descriptors {
    /// Counts those of process `id`, which has no connection yet. Where the system does not tell, there are none.
    pub(super) fn of_process(id: u32) -> Self {
        let before = count(id);
        Self {
            process: id,
            before,
            after: before,
        }
    }

    /// Counts again when the connections have been closed; waits a while for as few as there were before.
    pub(super) fn wait_for_end(&mut self) {
        let deadline = Instant::now() + TIME_TO_CLOSE;
        loop {
            self.after = count(self.process);
            if self.after == self.before || Instant::now() > deadline {
                return;
            }
            thread::sleep(BETWEEN_LOOKS);
        }
    }
}

fn count(process: u32) -> usize {
    fs::read_dir(format!("/proc/{process}/fd")).map_or(0, Iterator::count)
}

/// The last clients may have a thousand connections to close, on a busy machine.
const TIME_TO_CLOSE: Duration = Duration::from_secs(20);
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

//! What a process holds, as the operating system sees it.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use doorbell_testkit::{eventually, handler_threads};

/// Descriptors, mappings of shared memory, and threads of this process; files in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Resources {
    pub(crate) descriptors: usize,
    pub(crate) mappings: usize,
    pub(crate) threads: usize,
    pub(crate) files: usize,
}

impl Resources {
    pub(crate) fn now(directory: &Path) -> Self {
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        Self {
            descriptors: entries(Path::new("/proc/self/fd")),
            mappings: maps.lines().filter(|line| line.contains("/memfd:")).count(),
            threads: threads(),
            files: entries(directory),
        }
    }

    /// Looks until what is held stays the same over many looks: what ended before has been cleaned up, and the threads that a handler could
    /// still have used have ended.
    pub(crate) fn settle_at_rest(directory: &Path) -> Self {
        eventually("no thread waits for a handler", || {
            handler_threads(std::process::id()) == 0
        });
        let mut last = Self::now(directory);
        let mut same = 0;
        while same < 200 {
            std::thread::yield_now();
            let now = Self::now(directory);
            same = if now == last { same + 1 } else { 0 };
            last = now;
        }
        last
    }

    /// Looks until what is held is what was held at `start`, at most for ten seconds. Returns what is held then.
    pub(crate) fn settle(directory: &Path, start: Self) -> Self {
        let give_up = Instant::now() + Duration::from_secs(10);
        loop {
            let now = Self::now(directory);
            if now == start || Instant::now() > give_up {
                return now;
            }
            std::thread::yield_now();
        }
    }
}

/// Counts the threads but those that the test harness starts, which are named after the tests.
fn threads() -> usize {
    const TESTS: [&str; 6] = [
        "victim",
        "server_of_",
        "clients_of_",
        "each_step_",
        "both_sides_",
        "peer_death",
    ];
    let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm")).ok();
    let names = fs::read_dir("/proc/self/task")
        .unwrap()
        .flatten()
        .filter_map(name);
    names
        .filter(|name| !TESTS.iter().any(|test| name.starts_with(test)))
        .count()
}

/// Returns the memory of this process that belongs to no file and is shared with nobody.
pub(crate) fn private_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kilobytes = line
        .and_then(|line| line.trim().strip_suffix(" kB"))
        .expect("Linux 4.5");
    kilobytes.parse::<u64>().expect("a number") << 10
}

fn entries(directory: &Path) -> usize {
    fs::read_dir(directory).unwrap().count()
}

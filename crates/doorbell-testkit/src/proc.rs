//! What a process holds, as `/proc` tells.

use std::{os::unix::fs::MetadataExt, path::PathBuf, process::Command, time::Duration};

/// Returns how many descriptors the process has open. Of this process, the one needed to look is not counted, nor are those that
/// ThreadSanitizer keeps for itself.
///
/// # Panics
///
/// If there is no such process.
pub fn descriptors(process: u32) -> usize {
    let count = entries(process, "fd").count() - PIPES_TO_SYMBOLIZER * symbolizers(process);
    if process == std::process::id() {
        count - 1
    } else {
        count
    }
}

/// Returns how many programs the process has started that name functions for ThreadSanitizer: one from its first report on, one that is suppressed
/// included.
fn symbolizers(process: u32) -> usize {
    let children = entries(process, "task")
        .filter_map(|thread| std::fs::read_to_string(thread.join("children")).ok());
    let is_symbolizer = |child: &str| {
        std::fs::read_to_string(format!("/proc/{child}/comm"))
            .is_ok_and(|name| name.trim_end() == "llvm-symbolizer")
    };
    children
        .map(|children| {
            children
                .split_whitespace()
                .filter(|child| is_symbolizer(child))
                .count()
        })
        .sum()
}

/// One each way.
const PIPES_TO_SYMBOLIZER: usize = 2;

/// Returns how many threads the process has.
///
/// # Panics
///
/// If there is no such process.
pub fn threads(process: u32) -> usize {
    entries(process, "task").count()
}

/// Returns how many threads the process has that a server of threads runs handlers of streams on, of which those stay for a while that have
/// nothing to do. A count of threads that is to be compared is taken when there are none.
///
/// # Panics
///
/// If there is no such process.
pub fn handler_threads(process: u32) -> usize {
    let threads = std::fs::read_dir(path(process, "task")).expect("the process lives");
    let names = threads
        .flatten()
        .filter_map(|thread| std::fs::read_to_string(thread.path().join("comm")).ok());
    // The kernel keeps 15 bytes of "doorbell-handler".
    names
        .filter(|name| name.trim_end() == "doorbell-handle")
        .count()
}

/// Returns how many mappings of Doorbell's memory the process has.
///
/// # Panics
///
/// If there is no such process.
pub fn mappings(process: u32) -> usize {
    let maps = std::fs::read_to_string(path(process, "maps")).expect("the process lives");
    maps.lines()
        .filter(|line| line.contains("/memfd:doorbell"))
        .count()
}

/// Returns how many bytes of Doorbell's memory the process has touched that the system still keeps.
///
/// # Panics
///
/// If there is no such process.
pub fn resident_bytes(process: u32) -> u64 {
    let smaps = std::fs::read_to_string(path(process, "smaps")).expect("the process lives");
    let mut is_ours = false;
    let mut kibibytes = 0;
    for line in smaps.lines() {
        if line.contains("rw-s") || line.contains("r--s") || line.contains("-p ") {
            is_ours = line.contains("/memfd:doorbell"); // the line with which a mapping begins
        } else if let Some(rss) = line.strip_prefix("Rss:").filter(|_| is_ours) {
            let number = rss.trim().trim_end_matches(" kB");
            kibibytes += number.parse::<u64>().expect("a number");
        }
    }
    kibibytes << 10
}

/// Returns `true` if every thread of the process sleeps at this moment: none runs, or would if it had a processor.
///
/// # Panics
///
/// If there is no such process.
pub fn is_asleep(process: u32) -> bool {
    let threads = std::fs::read_dir(path(process, "task")).expect("the process lives");
    threads.flatten().all(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        // The state follows the name, which is in parentheses and may contain anything.
        stat.rsplit(") ")
            .next()
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('S'))
    })
}

/// Returns a user that is not ours and that children can run as; `None`, having said so, if we may not start such.
///
/// # Panics
///
/// If there is no `/proc`.
pub fn second_user() -> Option<u32> {
    let ours = std::fs::metadata("/proc/self").expect("mounted").uid();
    if ours == 0 {
        return Some(NOBODY);
    }
    eprintln!("SKIPPED: a process of a second user takes root, and this runs as user {ours}");
    None
}

/// The user without rights, on every Linux.
const NOBODY: u32 = 65_534;

/// Returns how much memory of the process is resident, shared memory included, in bytes.
///
/// # Panics
///
/// If there is no such process.
pub fn memory_bytes(process: u32) -> u64 {
    let status = std::fs::read_to_string(path(process, "status")).expect("the process lives");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes.expect("a line of the kernel") * 1024
}

/// Returns how long the process has kept processors busy, in steps of the kernel's 10 ms.
///
/// # Panics
///
/// If there is no such process.
pub fn cpu_time(process: u32) -> Duration {
    let stat = std::fs::read_to_string(path(process, "stat")).expect("the process lives");
    // The name may have anything in it; after it come the state, ten numbers, and the times of user and system.
    let (_, fields) = stat.rsplit_once(')').expect("a line of the kernel");
    let times = fields.split_whitespace().skip(11).take(2);
    let ticks: u64 = times
        .map(|time| time.parse::<u64>().expect("a number"))
        .sum();
    Duration::from_millis(10 * ticks)
}

/// What threads have had of the processors.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scheduled {
    /// Time on a processor.
    pub ran: Duration,
    /// Time for which they could have run and had none.
    pub waited: Duration,
    /// How often they came to run.
    pub turns: u64,
}

impl std::ops::Sub for Scheduled {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            ran: self.ran.saturating_sub(earlier.ran),
            waited: self.waited.saturating_sub(earlier.waited),
            turns: self.turns.saturating_sub(earlier.turns),
        }
    }
}

/// Returns what the threads that the process has now have had, as far as `counts` says so of their names. Nothing of a process that has
/// ended.
pub fn scheduled(process: u32, counts: impl Fn(&str) -> bool) -> Scheduled {
    let threads = std::fs::read_dir(path(process, "task"));
    let mut sum = Scheduled::default();
    for thread in threads.into_iter().flatten().flatten() {
        let read = |what| std::fs::read_to_string(thread.path().join(what)).unwrap_or_default();
        if !counts(read("comm").trim_end()) {
            continue;
        }
        // Nanoseconds on a processor, nanoseconds in the queue for one, and turns.
        let numbers = read("schedstat");
        let mut numbers = numbers
            .split_whitespace()
            .map_while(|number| number.parse().ok());
        let mut next = || numbers.next().unwrap_or(0);
        sum.ran += Duration::from_nanos(next());
        sum.waited += Duration::from_nanos(next());
        sum.turns += next();
    }
    sum
}

/// Lets some threads of a process, by their names, have their processor before others who want it, as far as priorities do that: `niceness` is 0
/// for everybody and -20 for who comes first. Not the threads that they start.
///
/// # Panics
///
/// If it may not: that takes root's rights, and the command `chrt`.
pub fn prefer_threads(process: u32, is_one: impl Fn(&str) -> bool, niceness: i32) {
    let threads = std::fs::read_dir(path(process, "task")).expect("the process lives");
    for thread in threads.flatten() {
        let name = std::fs::read_to_string(thread.path().join("comm")).unwrap_or_default();
        if is_one(name.trim_end()) {
            prefer(
                &thread.file_name().into_string().expect("a number"),
                niceness,
            );
        }
    }
}

fn prefer(thread: &str, niceness: i32) {
    let resets = Command::new("chrt")
        .args(["--reset-on-fork", "--other", "--pid", "0", thread])
        .status();
    assert!(resets.expect("chrt").success());
    // Linux takes the number of a thread.
    let id = thread.parse().ok().and_then(rustix::process::Pid::from_raw);
    rustix::process::setpriority_process(id, niceness).expect("the rights of root");
}

/// Returns how many processors the calling thread may run on.
///
/// # Panics
///
/// If the kernel does not say.
pub fn cpus_of_this_thread() -> u32 {
    let status = std::fs::read_to_string("/proc/thread-self/status").expect("a thread");
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed:"));
    let digits = mask.expect("a line of the kernel").trim().chars();
    digits
        .filter_map(|digit| digit.to_digit(16))
        .map(u32::count_ones)
        .sum()
}

/// Lets this process have so many descriptors and no more, for good.
///
/// # Panics
///
/// If more are open than a process may have.
pub fn limit_descriptors(count: u64) {
    let limit = rustix::process::Rlimit {
        current: Some(count),
        maximum: Some(count),
    };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).expect("a lower limit");
}

/// Stops the process until it is killed.
///
/// # Panics
///
/// If there is no such process.
pub fn stop_process(process: u32) {
    signal(process, rustix::process::Signal::STOP);
}

/// Kills the process, which need not be a child of ours.
///
/// # Panics
///
/// If there is no such process.
pub fn kill_process(process: u32) {
    signal(process, rustix::process::Signal::KILL);
}

fn signal(process: u32, signal: rustix::process::Signal) {
    let id = i32::try_from(process)
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    rustix::process::kill_process(id.expect("a number of a process"), signal).expect("it lives");
}

fn entries(process: u32, what: &str) -> impl Iterator<Item = PathBuf> {
    std::fs::read_dir(path(process, what))
        .expect("the process lives")
        .flatten()
        .map(|entry| entry.path())
}

fn path(process: u32, what: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{process}/{what}"))
}

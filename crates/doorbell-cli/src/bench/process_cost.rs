//! What a process costs the system, as the system tells it under `/proc`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;

/// Memory of a process, by who pays for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Bytes that go away with the process: neither files nor regions of connections.
    pub(crate) private_bytes: u64,
    /// Bytes of connections' regions that the process has touched.
    pub(crate) region_bytes: u64,
    /// All bytes that the process has in memory: those two, and what it has of the program and of other files.
    pub(crate) resident_bytes: u64,
}

/// What a process has used since it was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Activity {
    /// Time on a CPU.
    pub(crate) cpu: Duration,
    /// How often one of its threads went to sleep or was put aside: once for each time it had been woken.
    pub(crate) wake_ups: u64,
}

impl Memory {
    /// Reads the memory of process `id`.
    ///
    /// # Errors
    ///
    /// If this system does not tell.
    pub(crate) fn of_process(id: u32) -> anyhow::Result<Self> {
        Ok(Self::parse(&read(&process(id).join("smaps"))?))
    }

    /// Returns private memory and regions together.
    pub(crate) fn all(&self) -> u64 {
        self.private_bytes + self.region_bytes
    }

    fn parse(smaps: &str) -> Self {
        let mut memory = Self::default();
        let mut is_region = false;
        for line in smaps.lines() {
            let Some((key, value)) = line.split_once(':').filter(|(key, _)| !key.contains(' '))
            else {
                is_region = line.contains(REGION_MAPPING); // a line without a key begins the next mapping
                continue;
            };
            if key == "Rss" {
                memory.resident_bytes += kibibytes(value);
            }
            match key {
                "Rss" if is_region => memory.region_bytes += kibibytes(value),
                "Private_Clean" | "Private_Dirty" if !is_region => {
                    memory.private_bytes += kibibytes(value)
                }
                _ => {}
            }
        }
        memory
    }
}

impl Activity {
    /// Reads what process `id` has used so far, all threads together.
    ///
    /// # Errors
    ///
    /// If this system does not tell.
    pub(crate) fn of_process(id: u32) -> anyhow::Result<Self> {
        let mut total = Self::default();
        let threads = process(id).join("task");
        for thread in fs::read_dir(&threads).with_context(|| unreadable(&threads))? {
            let thread = thread?.path();
            // A thread may end between the listing and the reading.
            let (Ok(status), Ok(stat)) = (read(&thread.join("status")), read(&thread.join("stat")))
            else {
                continue;
            };
            total.wake_ups += context_switches(&status);
            let exact = read(&thread.join("schedstat")).ok();
            let exact = exact.as_deref().and_then(exact_cpu_time);
            total.cpu += exact.or_else(|| cpu_time(&stat, 2)).unwrap_or_default();
        }
        Ok(total)
    }

    /// Returns what was used since `earlier`.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(earlier.cpu),
            wake_ups: self.wake_ups.saturating_sub(earlier.wake_ups),
        }
    }
}

/// CPU time of the whole system and of this process, for telling what other programs have used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    read_at: Instant,
    system: Duration,
    /// With that of the processes that it has started and that have ended.
    ours: Duration,
}

impl Load {
    /// Reads both, or returns `None` where the system does not tell.
    pub(crate) fn now() -> Option<Self> {
        let (stat, own) = (
            read(Path::new("/proc/stat")).ok()?,
            read(Path::new("/proc/self/stat")).ok()?,
        );
        Some(Self {
            read_at: Instant::now(),
            system: busy_time(&stat)?,
            ours: cpu_time(&own, 4)?,
        })
    }

    /// Returns how many CPUs other programs have kept busy since `earlier`, on average.
    pub(crate) fn of_others_since(&self, earlier: &Self) -> f64 {
        let all = self.system.saturating_sub(earlier.system);
        let ours = self.ours.saturating_sub(earlier.ours);
        let passed = self.read_at.duration_since(earlier.read_at);
        all.saturating_sub(ours).as_secs_f64() / passed.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

/// Returns the time that all CPUs together have spent in user mode, the kernel and interrupts.
fn busy_time(stat: &str) -> Option<Duration> {
    let fields = stat
        .lines()
        .next()?
        .strip_prefix("cpu ")?
        .split_ascii_whitespace();
    let ticks: Vec<u32> = fields.map_while(|field| field.parse().ok()).collect();
    let [
        user,
        nice,
        system,
        _idle,
        _io_wait,
        interrupts,
        soft_interrupts,
        ..,
    ] = ticks[..]
    else {
        return None;
    };
    Some(TICK * (user + nice + system + interrupts + soft_interrupts))
}

/// Returns the bytes of shared memory without a file in the whole system.
///
/// # Errors
///
/// If this system does not tell.
pub(crate) fn system_shared_bytes() -> anyhow::Result<u64> {
    let meminfo = read(Path::new("/proc/meminfo"))?;
    meminfo
        .lines()
        .find_map(|line| line.strip_prefix("Shmem:"))
        .map(kibibytes)
        .context("this system does not tell how much shared memory is in use")
}

fn context_switches(status: &str) -> u64 {
    let is_count = |line: &&str| {
        line.starts_with("voluntary_ctxt_switches") || line.starts_with("nonvoluntary_ctxt")
    };
    let counts = status
        .lines()
        .filter(is_count)
        .filter_map(|line| line.split_once(':'));
    counts
        .filter_map(|(_, count)| count.trim().parse::<u64>().ok())
        .sum()
}

/// Returns the sum of the first `count` times of a `stat` line: user and system time of the process, then of its children.
///
/// The name in the line may contain anything, so count from its end.
fn cpu_time(stat: &str, count: usize) -> Option<Duration> {
    let after_name = &stat[stat.rfind(')')? + 1..];
    let times = after_name
        .split_ascii_whitespace()
        .skip(USER_TIME_AFTER_NAME)
        .take(count);
    let ticks = times
        .map(|ticks| ticks.parse::<u32>().ok())
        .sum::<Option<u32>>()?;
    Some(TICK * ticks)
}

/// Returns the time on a CPU that a `schedstat` tells, to the nanosecond.
fn exact_cpu_time(schedstat: &str) -> Option<Duration> {
    let on_cpu_ns = schedstat.split_ascii_whitespace().next()?;
    Some(Duration::from_nanos(on_cpu_ns.parse().ok()?))
}

fn kibibytes(value: &str) -> u64 {
    let number = value.trim().trim_end_matches(" kB").trim();
    number.parse::<u64>().map_or(0, |number| number << 10)
}

fn process(id: u32) -> PathBuf {
    Path::new("/proc").join(id.to_string())
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| unreadable(path))
}

fn unreadable(path: &Path) -> String {
    format!(
        "cannot read {}: what a process costs can be measured only where the system tells it there",
        path.display()
    )
}

/// How the mapping of a connection's region is named.
const REGION_MAPPING: &str = "/memfd:";

/// Fields of a `stat` line between the name and the time spent in user mode.
const USER_TIME_AFTER_NAME: usize = 11;

/// The unit of the times under `/proc`: 100 to the second on every system that has it.
const TICK: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
5581-5582 rw-p 00000000 00:00 0                          [heap]
Size:                132 kB
Rss:                  40 kB
Private_Clean:         4 kB
Private_Dirty:        36 kB
VmFlags: rd wr mr mw me ac
7f00-7f01 rw-s 00000000 00:01 1032                       /memfd:doorbell (deleted)
Size:               1028 kB
Rss:                   8 kB
Private_Dirty:         8 kB
";

    #[test]
    fn memory_of_regions_is_told_apart_from_private_memory() {
        let memory = Memory::parse(SMAPS);
        assert_eq!(
            memory,
            Memory {
                private_bytes: 40 << 10,
                region_bytes: 8 << 10,
                resident_bytes: 48 << 10,
            }
        );
    }

    #[test]
    fn cpu_time_is_found_after_a_name_with_brackets_and_spaces() {
        let stat = "12 (a) b (c) S 1 1 1 0 -1 4194560 100 0 0 0 7 3 0 0 20 0 1 0 100";
        assert_eq!(cpu_time(stat, 2), Some(Duration::from_millis(100)));
    }

    #[test]
    fn the_exact_cpu_time_stands_first() {
        assert_eq!(
            exact_cpu_time("1500 20 7\n"),
            Some(Duration::from_nanos(1500))
        );
        assert_eq!(exact_cpu_time(""), None);
    }

    #[test]
    fn busy_time_leaves_out_idle_time() {
        let stat = "cpu  10 1 5 1000 20 2 2 7 0 0\ncpu0 5 0 0 500 0 0 0 0 0 0\n";
        assert_eq!(busy_time(stat), Some(Duration::from_millis(200)));
    }

    #[test]
    fn switches_of_both_kinds_are_added() {
        let status = "Name:\tx\nvoluntary_ctxt_switches:\t12\nnonvoluntary_ctxt_switches:\t3\n";
        assert_eq!(context_switches(status), 15);
    }
}

//! Questions to the system and requests to it: CPUs, descriptors, a clock that all processes share.

use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Resource, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

/// Lets the calling thread, and all threads and processes that it starts from now on, run on `cpu` only.
///
/// # Errors
///
/// If the system refuses.
pub(crate) fn pin_current_thread(cpu: Option<usize>) -> anyhow::Result<()> {
    let Some(cpu) = cpu else { return Ok(()) };
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set)
        .with_context(|| format!("cannot pin a thread to CPU {cpu}; choose others with --cpus"))
}

/// Returns `true` if this process may run on `cpu`.
pub(crate) fn may_run_on(cpu: usize) -> bool {
    sched_getaffinity(None).is_ok_and(|set| cpu < CpuSet::MAX_CPU && set.is_set(cpu))
}

/// Allows as many open descriptors as the system lets this process have: a thousand connections need several thousand.
pub(crate) fn allow_many_descriptors() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Where it is refused, the rows that need many say so themselves.
    _ = setrlimit(Resource::Nofile, limit);
}

/// Returns the time on a clock that shows the same in every process.
pub(crate) fn shared_now() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec as u32)
}

/// Says in one line what this machine is.
pub(crate) fn describe() -> String {
    let name = rustix::system::uname();
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown CPU", |(_, model)| model);
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    format!(
        "{model}, {count} CPUs, {} {}",
        name.sysname().to_string_lossy(),
        name.release().to_string_lossy()
    )
}

//! System calls that fail on demand, for tests; in no build without `--cfg doorbell_faults`.
//!
//! A fault takes the place of the call: the kernel is not asked. It holds for the whole process, whichever thread comes first.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

pub use super::call::Call;

/// A call that is to fail, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which call.
    pub call: Call,
    /// The number of the error.
    pub errno: i32,
    /// At which time, counted from 1 since [`arm`].
    pub hit: u64,
}

/// What has happened since [`arm`].
#[derive(Debug)]
pub struct Report {
    /// How often each call was made, in the order of [`Call::ALL`].
    pub hits: Vec<(Call, u64)>,
    /// Faults that have happened.
    pub fired: usize,
}

/// Begins to count, and makes these calls fail.
pub fn arm(faults: &[Fault]) {
    *plan() = Plan {
        hits: [0; Call::ALL.len()],
        faults: faults.to_vec(),
        fired: 0,
    };
}

/// Lets every call succeed again, and tells what has happened.
pub fn disarm() -> Report {
    let mut plan = plan();
    plan.faults.clear();
    Report {
        hits: Call::ALL.iter().copied().zip(plan.hits).collect(),
        fired: plan.fired,
    }
}

/// Returns how many faults have happened since [`arm`].
pub fn fired() -> usize {
    plan().fired
}

/// Counts a call, and returns the error that it is to have.
pub(super) fn fail(call: Call) -> rustix::io::Result<()> {
    let mut plan = plan();
    let hits = &mut plan.hits[call as usize];
    *hits += 1;
    let hit = *hits;
    let is_due = |fault: &&Fault| fault.call == call && fault.hit == hit;
    match plan.faults.iter().find(is_due).copied() {
        None => Ok(()),
        Some(fault) => {
            plan.fired += 1;
            Err(Errno::from_raw_os_error(fault.errno))
        }
    }
}

struct Plan {
    hits: [u64; Call::ALL.len()],
    faults: Vec<Fault>,
    fired: usize,
}

static PLAN: Mutex<Plan> = Mutex::new(Plan {
    hits: [0; Call::ALL.len()],
    faults: Vec::new(),
    fired: 0,
});

fn plan() -> MutexGuard<'static, Plan> {
    PLAN.lock().unwrap_or_else(PoisonError::into_inner)
}

//! What went wrong, and what went well.

use std::{collections::HashMap, time::Duration};

use super::{
    resources::{Resources, private_bytes},
    serving::{CUT_OFF, DENIED, TORN},
    torn,
};

/// What a campaign has come to so far.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) kills: u64,
    pub(crate) answered: u64,
    pub(crate) executed: u64,
    pub(crate) unknown: u64,
    pub(crate) not_executed: u64,
    pub(crate) faults: Faults,
    /// From a kill until the survivor had noticed it, one for each.
    seen: Vec<Duration>,
    /// Memory of this process once everything had been used for a while.
    warm_bytes: Option<u64>,
}

/// All of these must be zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Faults {
    /// Answered to the client and never executed.
    pub(crate) lost: u64,
    /// Arrived as it was never sent, as a message or as a frame.
    pub(crate) torn: u64,
    pub(crate) twice: u64,
    /// Said to be not executed, and executed.
    pub(crate) denied: u64,
    /// Without an outcome in time, with one that cannot be, or disconnected from somebody who lives.
    pub(crate) indefinite: u64,
}

impl Counts {
    /// Compares what was executed with what was answered. `alive`: nobody had died when the last of it was written.
    pub(crate) fn compare(
        &mut self,
        executed: &HashMap<u64, u32>,
        answered: &HashMap<u64, u32>,
        alive: bool,
    ) {
        for (id, times) in executed {
            self.faults.torn += u64::from(id & TORN != 0);
            self.faults.twice += u64::from(*times > 1);
        }
        for &entry in answered.keys() {
            let id = entry & !(TORN | DENIED | CUT_OFF);
            if entry & TORN != 0 {
                self.faults.torn += 1;
            } else if entry & DENIED != 0 {
                self.not_executed += 1;
                self.faults.denied += u64::from(executed.contains_key(&id));
            } else if entry & CUT_OFF != 0 {
                self.unknown += 1;
            } else {
                self.answered += 1;
                self.faults.lost += u64::from(!executed.contains_key(&id));
            }
            if alive && entry & (DENIED | CUT_OFF) != 0 {
                self.faults.indefinite += 1;
            }
        }
        self.executed += executed.len() as u64;
    }

    /// A death was noticed so long after the kill.
    pub(crate) fn saw(&mut self, after: Duration) {
        self.seen.push(after);
    }

    /// To be called after every cycle.
    pub(crate) fn end_of(&mut self, cycle: u64, cycles: u64) {
        if cycle == cycles.div_ceil(4) {
            self.warm_bytes = Some(private_bytes());
        }
    }

    /// Prints everything, then fails unless all of it is right.
    pub(crate) fn judge(mut self, what: &str, seed: u64, held: (Resources, Resources)) {
        self.faults.torn += torn::take();
        let (start, end) = held;
        let warm = self.warm_bytes.expect("the campaign has run");
        let grown = private_bytes().saturating_sub(warm);
        println!(
            "seed {seed:#x}: {} {what} killed: {} executed, {} answered, {} unknown, {} not executed; {:?}",
            self.kills, self.executed, self.answered, self.unknown, self.not_executed, self.faults
        );
        if !self.seen.is_empty() {
            println!("  death seen after {}", distribution(&mut self.seen));
        }
        println!("  {start:?} -> {end:?}, memory {warm} bytes + {grown}");
        assert_eq!(self.faults, Faults::default());
        assert_eq!(end, start);
        // AddressSanitizer keeps a part of what is freed, and something of each thread: `ci/asan.sh`.
        let is_own = std::env::var_os("DOORBELL_SANITIZED").is_none();
        assert!(
            grown < MOST_GROWTH_BYTES || !is_own,
            "{grown} bytes of memory are gone"
        );
        assert!(
            self.executed > self.kills && self.answered > self.kills / 2,
            "the kills came too early to mean anything"
        );
    }
}

fn distribution(seen: &mut [Duration]) -> String {
    seen.sort();
    let at = |share: f64| {
        let last = seen.len().saturating_sub(1);
        seen.get((last as f64 * share) as usize)
            .copied()
            .unwrap_or_default()
    };
    format!(
        "{:.1?} (half of {}), {:.1?} (90 %), {:.1?} (99 %), {:.1?} (all)",
        at(0.5),
        seen.len(),
        at(0.9),
        at(0.99),
        at(1.0)
    )
}

/// What an allocator may keep for itself. A kilobyte for each of 20,000 deaths is more.
const MOST_GROWTH_BYTES: u64 = 16 << 20;

//! What went wrong, and what went well.

use std::{collections::HashMap, time::Duration};

use super::serving::TORN;

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) answered: u64,
    pub(crate) executed: u64,
    pub(crate) unknown: u64,
    pub(crate) not_executed: u64,
    /// Answered to the client and never executed.
    pub(crate) lost: u64,
    pub(crate) torn: u64,
    pub(crate) twice: u64,
    /// Said to be not executed, and executed.
    pub(crate) denied: u64,
    /// Without an outcome in time, or with one that cannot be.
    pub(crate) indefinite: u64,
    /// From the kill until the survivor was done with it.
    pub(crate) slowest: Duration,
}

impl Counts {
    pub(crate) fn faults(&self) -> [u64; 5] {
        [
            self.lost,
            self.torn,
            self.twice,
            self.denied,
            self.indefinite,
        ]
    }

    /// Compares what was executed with what was answered.
    pub(crate) fn compare(&mut self, executed: &HashMap<u64, u32>, answered: &HashMap<u64, u32>) {
        for (id, times) in executed {
            self.torn += u64::from(id & TORN != 0);
            self.twice += u64::from(*times > 1);
        }
        for id in answered.keys() {
            self.torn += u64::from(id & TORN != 0);
            self.lost += u64::from(!executed.contains_key(id));
        }
        self.answered += answered.len() as u64;
        self.executed += executed.len() as u64;
    }
}

//! What callers were told of their calls, written down so that it outlives them, and compared with what was executed.

use std::{collections::HashMap, fs::File, io::Write, path::Path};

use doorbell::Outcome;

use super::{messages::Answer, serving::TORN};

/// What a caller was told, one entry for each call that came to an end.
pub(crate) struct Told(File);

impl Told {
    pub(crate) fn in_file(file: File) -> Self {
        Self(file)
    }

    pub(crate) fn write_down(&self, id: u64, answer: &Answer) {
        let word = match answer {
            Answer::Whole => WHOLE,
            Answer::Torn => PART,
            Answer::GivenUp => GIVEN_UP,
            Answer::Failed(error) => match error.outcome() {
                Outcome::NotExecuted => NOT_EXECUTED,
                Outcome::Unknown => UNKNOWN,
                Outcome::Application => {
                    eprintln!("call {id:#x} ended with {error}");
                    IMPOSSIBLE
                }
            },
        };
        let mut entry = [0; 16];
        entry[..8].copy_from_slice(&id.to_le_bytes());
        entry[8..].copy_from_slice(&word.to_le_bytes());
        (&self.0).write_all(&entry).expect("it can be written");
    }
}

/// How often what was told, and what was not right.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Judged {
    pub(crate) whole: u64,
    pub(crate) not_executed: u64,
    pub(crate) unknown: u64,
    pub(crate) faults: Faults,
}

/// All of these must be zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Faults {
    /// Answered, and not executed.
    pub(crate) lost: u64,
    /// Arrived as it was never sent, on either side.
    pub(crate) torn: u64,
    pub(crate) twice: u64,
    /// Told to be not executed, and executed.
    pub(crate) denied: u64,
    /// Told something that nobody can have said.
    pub(crate) impossible: u64,
}

impl Judged {
    /// Compares what was executed with what was told in the file at `told`.
    pub(crate) fn add(&mut self, executed: &HashMap<u64, u32>, told: &Path) {
        for (id, times) in executed {
            self.faults.torn += u64::from(id & TORN != 0);
            self.faults.twice += u64::from(*times > 1);
        }
        let bytes = std::fs::read(told).unwrap_or_default(); // killed before it could make the file
        for entry in bytes.chunks_exact(16) {
            let word = |at: usize| u64::from_le_bytes(entry[at..at + 8].try_into().unwrap());
            let was_executed = executed.contains_key(&word(0));
            match word(8) {
                WHOLE => {
                    self.whole += 1;
                    self.faults.lost += u64::from(!was_executed);
                }
                NOT_EXECUTED => {
                    self.not_executed += 1;
                    self.faults.denied += u64::from(was_executed);
                }
                UNKNOWN => self.unknown += 1,
                GIVEN_UP => {}
                PART => self.faults.torn += 1,
                _ => self.faults.impossible += 1,
            }
        }
    }
}

const WHOLE: u64 = 0;
const PART: u64 = 1;
const NOT_EXECUTED: u64 = 2;
const UNKNOWN: u64 = 3;
const GIVEN_UP: u64 = 4;
const IMPOSSIBLE: u64 = 5;

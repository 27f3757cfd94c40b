//! What `bench large` measures: large messages there and back, one after the other.
//!
//! The reference copies the same bytes through shared memory and back, with both sides awake. What one copy in private memory
//! takes stands above it: nothing that moves bytes is faster than that. Loans are not copied: both sides stamp 16 bytes of theirs and look
//! at those of the other, and the reference is a small call.

use super::case::{Case, Compared, Group, Measure};
use super::options::{Options, Pin, Waiting};
use super::plot::rows as plots;
use super::reference::{copy, memcpy};
use super::runner::Bench;
use super::subject::{Api, awaiting, blocking, loans};
use crate::echo::Block;

/// The benchmark.
pub(crate) const BENCH: Bench = Bench {
    name: "large",
    about: "Round trips of large messages, one after the other, beside copying the same bytes through shared memory and back \
            with both sides awake; and of loans, which are not copied, beside a small call.",
    plots: plots::large,
};

/// Returns the groups of rows, references first.
pub(crate) fn groups(options: &Options) -> Vec<Group> {
    let sizes = options.sizes(&SIZES);
    let copied = |&size: &usize| [memory(options, size), round_trips(options, size)];
    let mut groups: Vec<_> = sizes.iter().flat_map(copied).collect();
    groups.push(loaned(options, &sizes, Api::Blocking));
    groups.push(loaned(options, &sizes, Api::Awaiting));
    groups
}

/// How fast this machine copies at all.
fn memory(options: &Options, size: usize) -> Group {
    let pin = options.pin(Pin::Cross);
    Group {
        name: "memcpy",
        reference: Case::new("memcpy", "one-way", size, pin, memcpy::copies),
        subjects: vec![],
        compared: Compared::Typical,
    }
}

fn round_trips(options: &Options, size: usize) -> Group {
    let pin = options.pin(Pin::Cross);
    let case = |mode, measure| Case::new("doorbell", mode, size, pin, measure);
    Group {
        name: "there-and-back",
        reference: Case::new("raw-copy", "spin", size, pin, copy::round_trips),
        subjects: vec![
            Case {
                waiting: Some(Waiting::Always),
                ..case("blocking-spin", blocking::round_trips)
            },
            case("blocking", blocking::round_trips),
            case("async", awaiting::round_trips),
        ],
        compared: Compared::Typical,
    }
}

/// Loans of each size that a server lends by default, beside a call of 64 bytes by the same means.
fn loaned(options: &Options, sizes: &[usize], api: Api) -> Group {
    let pin = options.pin(Pin::Cross);
    let ([call, loan], small, measure): (_, Measure, Measure) = match api {
        Api::Blocking => (
            ["blocking", "blocking-loan"],
            blocking::round_trips,
            loans::round_trips_of_threads,
        ),
        Api::Awaiting => (
            ["async", "async-loan"],
            awaiting::round_trips,
            loans::round_trips_of_tasks,
        ),
    };
    let subjects = sizes.iter().filter(|&&size| size <= LARGEST_LOAN);
    Group {
        name: "loaned",
        reference: Case::new("doorbell", call, Block::BYTES, pin, small),
        subjects: subjects
            .map(|&size| Case::new("doorbell", loan, size, pin, measure))
            .collect(),
        compared: Compared::Typical,
    }
}

/// Larger ones fit into a server's loans too, but say nothing new.
const LARGEST_LOAN: usize = 10 << 20;

const SIZES: [usize; 4] = [64 << 10, 1 << 20, 10 << 20, 64 << 20];

//! What `bench large` measures: large messages there and back, one after the other.
//!
//! The reference copies the same bytes through shared memory and back, with both sides awake. What one copy in private memory
//! takes stands above it: nothing that moves bytes is faster than that.

use super::case::{Case, Compared, Group};
use super::options::{Options, Pin, Waiting};
use super::plot::rows as plots;
use super::reference::{copy, memcpy};
use super::runner::Bench;
use super::subject::{awaiting, blocking};

/// The benchmark.
pub(crate) const BENCH: Bench = Bench {
    name: "large",
    about: "Round trips of large messages, one after the other, beside copying the same bytes through shared memory and back \
            with both sides awake.",
    plots: plots::large,
};

/// Returns the groups of rows, references first.
pub(crate) fn groups(options: &Options) -> Vec<Group> {
    let sizes = options.sizes(&SIZES);
    let both = |&size: &usize| [memory(options, size), round_trips(options, size)];
    sizes.iter().flat_map(both).collect()
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

const SIZES: [usize; 4] = [64 << 10, 1 << 20, 10 << 20, 64 << 20];

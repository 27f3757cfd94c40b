//! What `bench idle-gap` measures: round trips with a pause before each, from one that any spin bridges to one that puts everything
//! to sleep.

use std::time::Duration;

use super::case::{Case, Compared, Group, Measure};
use super::options::{Options, Pin};
use super::plot::rows as plots;
use super::reference::{event, futex};
use super::runner::Bench;
use super::subject::{awaiting, blocking};

/// The benchmark.
pub(crate) const BENCH: Bench = Bench {
    name: "idle-gap",
    about: "Round trips with a pause before each, beside the least that waking a thread (a futex) or a task (a descriptor) takes.",
    plots: plots::distributions,
};

/// Returns the groups of rows, references first.
pub(crate) fn groups(options: &Options) -> Vec<Group> {
    let sizes = options.sizes(&[SMALL]);
    let mut groups = Vec::new();
    for (gap, threads, tasks) in GAPS {
        for &size in &sizes {
            groups.push(group(
                options,
                threads,
                (gap, size),
                [
                    ("raw-futex", "blocking", futex::round_trips),
                    ("doorbell", "blocking", blocking::round_trips),
                ],
            ));
            groups.push(group(
                options,
                tasks,
                (gap, size),
                [
                    ("raw-event", "blocking", event::round_trips),
                    ("doorbell", "async", awaiting::round_trips),
                ],
            ));
        }
    }
    groups
}

fn group(
    options: &Options,
    name: &'static str,
    (gap, size_bytes): (Duration, usize),
    [reference, subject]: [(&'static str, &'static str, Measure); 2],
) -> Group {
    let pin = options.pin(Pin::Cross);
    let case = |(peer, mode, measure)| Case {
        pause: Some(gap),
        ..Case::new(peer, mode, size_bytes, pin, measure)
    };
    Group {
        name,
        reference: case(reference),
        subjects: vec![case(subject)],
        compared: Compared::Typical,
    }
}

const SMALL: usize = 64;

/// Each gap, with the names of its groups.
const GAPS: [(Duration, &str, &str); 3] = [
    (
        Duration::from_micros(100),
        "10kHz-blocking",
        "10kHz-awaited",
    ),
    (Duration::from_millis(10), "100Hz-blocking", "100Hz-awaited"),
    (Duration::from_secs(1), "1Hz-blocking", "1Hz-awaited"),
];

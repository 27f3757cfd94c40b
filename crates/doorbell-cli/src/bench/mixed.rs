//! What `bench mixed` measures: what a small call has to suffer from large ones on the same connection.
//!
//! The reference is the same call undisturbed, and it is the slow ones that are compared: the 99th percentile.

use super::case::{Case, Compared, Group, Measure};
use super::options::{Options, Pin};
use super::plot::rows as plots;
use super::runner::Bench;
use super::subject::{awaiting, blocking};

/// The benchmark.
pub(crate) const BENCH: Bench = Bench {
    name: "mixed",
    about: "Small calls while messages of 10 MiB go there and back on the same connection, beside the same calls undisturbed.",
    plots: plots::distributions,
};

/// Returns the groups of rows, references first.
pub(crate) fn groups(options: &Options) -> Vec<Group> {
    let sizes = options.sizes(&[SMALL]);
    let all = |&size: &usize| {
        [
            threads(options, size),
            tasks(options, size),
            tasks_of_one_thread(options, size),
        ]
    };
    sizes.iter().flat_map(all).collect()
}

fn threads(options: &Options, size: usize) -> Group {
    Group {
        name: "beside-large-blocking",
        reference: case(options, "blocking", size, blocking::round_trips),
        subjects: vec![case(
            options,
            "blocking-beside-10MiB",
            size,
            blocking::round_trips_beside_large,
        )],
        compared: Compared::P99,
    }
}

fn tasks(options: &Options, size: usize) -> Group {
    Group {
        name: "beside-large-awaited",
        reference: case(options, "async", size, awaiting::round_trips),
        subjects: vec![case(
            options,
            "async-beside-10MiB",
            size,
            awaiting::round_trips_beside_large,
        )],
        compared: Compared::P99,
    }
}

/// With one thread on either side, so that each has a CPU where there are two.
fn tasks_of_one_thread(options: &Options, size: usize) -> Group {
    Group {
        name: "beside-large-one-thread",
        reference: case(
            options,
            "async-one-thread",
            size,
            awaiting::round_trips_of_one_thread,
        ),
        subjects: vec![case(
            options,
            "async-one-thread-beside-10MiB",
            size,
            awaiting::round_trips_of_one_thread_beside_large,
        )],
        compared: Compared::P99,
    }
}

fn case(options: &Options, mode: &'static str, size_bytes: usize, measure: Measure) -> Case {
    Case::new(
        "doorbell",
        mode,
        size_bytes,
        options.pin(Pin::None),
        measure,
    )
}

const SMALL: usize = 64;

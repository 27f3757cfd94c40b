//! What `bench rtt` measures: round trips one after the other.

use std::time::Duration;

use super::case::{Case, Compared, Group};
use super::options::{Options, Pin, Waiting};
use super::plot::rows as plots;
use super::reference::{bounce, copy, event, futex, socket};
use super::runner::Bench;
use super::subject::{awaiting, blocking};

/// The benchmark.
pub(crate) const BENCH: Bench = Bench {
    name: "rtt",
    about: "Round trips of small messages, one after the other. The reference of each group does only what cannot be avoided: \
            it copies the bytes through shared memory, or wakes the other side.",
    plots: plots::distributions,
};

/// Returns the groups of rows, references first.
pub(crate) fn groups(options: &Options) -> Vec<Group> {
    let small = options.sizes(&[SMALL]);
    let mut groups = vec![bounce_alone(options)];
    groups.extend(
        options
            .sizes(&[SMALL])
            .into_iter()
            .map(|size| awake(options, size)),
    );
    for make in [
        awaited,
        asleep_blocking,
        asleep_awaited,
        one_cpu_blocking,
        one_cpu_awaited,
    ] {
        groups.extend(small.iter().map(|&size| make(options, size)));
    }
    groups
}

/// One cache line, back and forth: how far the two CPUs are from each other.
fn bounce_alone(options: &Options) -> Group {
    let pin = options.pin(Pin::Cross);
    Group {
        name: "bounce",
        reference: Case::new("bounce", "spin", 4, pin, bounce::round_trips),
        subjects: vec![],
        compared: Compared::Typical,
    }
}

/// Both sides awake, each on its CPU.
fn awake(options: &Options, size: usize) -> Group {
    let pin = options.pin(Pin::Cross);
    let spinning = Case {
        waiting: Some(Waiting::Always),
        ..Case::new(
            "doorbell",
            "blocking-spin",
            size,
            pin,
            blocking::round_trips,
        )
    };
    Group {
        name: "awake",
        reference: Case::new("raw-copy", "spin", size, pin, copy::round_trips),
        subjects: vec![
            spinning,
            Case::new("doorbell", "blocking", size, pin, blocking::round_trips),
        ],
        compared: Compared::Typical,
    }
}

/// Tasks that await, where the system puts them.
fn awaited(options: &Options, size: usize) -> Group {
    let pin = options.pin(Pin::None);
    Group {
        name: "awaited",
        reference: Case::new("tokio-socket", "async", size, pin, socket::round_trips),
        subjects: vec![Case::new(
            "doorbell",
            "async",
            size,
            pin,
            awaiting::round_trips,
        )],
        compared: Compared::Typical,
    }
}

/// Long pauses, so that both sides sleep: threads.
fn asleep_blocking(options: &Options, size: usize) -> Group {
    let pin = options.pin(Pin::Cross);
    Group {
        name: "asleep-blocking",
        reference: paced(Case::new(
            "raw-futex",
            "blocking",
            size,
            pin,
            futex::round_trips,
        )),
        subjects: vec![paced(Case::new(
            "doorbell",
            "blocking",
            size,
            pin,
            blocking::round_trips,
        ))],
        compared: Compared::Typical,
    }
}

/// Long pauses, so that both sides sleep: tasks.
fn asleep_awaited(options: &Options, size: usize) -> Group {
    let pin = options.pin(Pin::Cross);
    Group {
        name: "asleep-awaited",
        reference: paced(Case::new(
            "raw-event",
            "blocking",
            size,
            pin,
            event::round_trips,
        )),
        subjects: vec![paced(Case::new(
            "doorbell",
            "async",
            size,
            pin,
            awaiting::round_trips,
        ))],
        compared: Compared::Typical,
    }
}

/// Both sides on one CPU, where waiting awake only keeps the other side from running: threads.
fn one_cpu_blocking(options: &Options, size: usize) -> Group {
    let pin = options.pin(Pin::Same);
    Group {
        name: "one-cpu-blocking",
        reference: Case::new("raw-futex", "blocking", size, pin, futex::round_trips),
        subjects: vec![Case::new(
            "doorbell",
            "blocking",
            size,
            pin,
            blocking::round_trips,
        )],
        compared: Compared::Typical,
    }
}

/// Both sides on one CPU: tasks.
fn one_cpu_awaited(options: &Options, size: usize) -> Group {
    let pin = options.pin(Pin::Same);
    Group {
        name: "one-cpu-awaited",
        reference: Case::new("tokio-socket", "async", size, pin, socket::round_trips),
        subjects: vec![Case::new(
            "doorbell",
            "async",
            size,
            pin,
            awaiting::round_trips,
        )],
        compared: Compared::Typical,
    }
}

fn paced(case: Case) -> Case {
    Case {
        pause: Some(PAUSE),
        ..case
    }
}

const SMALL: usize = 64;

/// Long enough for any CPU to go to sleep and for any spin to have ended.
const PAUSE: Duration = Duration::from_millis(10);

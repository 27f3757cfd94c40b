//! What `bench waking` measures: what it costs to be woken, and what it costs not to sleep.
//!
//! Round trips from one each second to as many as there can be, with each way to wait, where both sides have a CPU, where they
//! share one, and where other programs keep both CPUs busy. What spinning gains in time has to be seen beside the CPUs it uses.

use std::time::Duration;

use super::case::{Case, Compared, Group, Measure};
use super::options::{Options, Pin, Waiting};
use super::plot::rows as plots;
use super::reference::{event, futex};
use super::runner::Bench;
use super::subject::{awaiting, blocking};

/// The benchmark.
pub(crate) const BENCH: Bench = Bench {
    name: "waking",
    about: "Round trips from one each second to as many as there can be: how long they take and how many CPUs both processes \
            together use, never spinning, always, and adaptively; with a CPU for each side, with one for both, and with both \
            kept busy by other programs. The reference only wakes. A curve \
            joins rows that may have had the CPUs near or far; the table tells.",
    plots: plots::waking,
};

/// Returns the groups of rows, references first.
pub(crate) fn groups(options: &Options) -> Vec<Group> {
    let pauses = options.pauses(match options.common.quick {
        true => &QUICK_PAUSES,
        false => &PAUSES,
    });
    let sizes = options.sizes(&[SMALL]);
    let mut groups = Vec::new();
    for setup in &SETUPS {
        for &size in &sizes {
            groups.extend(
                pauses
                    .iter()
                    .map(|&pause| setup.group(options, size, pause)),
            );
        }
    }
    groups
}

/// Who runs where, and who else.
struct Setup {
    name: &'static str,
    pin: Pin,
    is_busy: bool,
    reference: (&'static str, Measure),
    mode: &'static str,
    subject: Measure,
}

impl Setup {
    fn group(&self, options: &Options, size: usize, pause: Option<Duration>) -> Group {
        let case = |peer, mode, measure, waiting| Case {
            pause,
            waiting,
            is_busy: self.is_busy,
            ..Case::new(peer, mode, size, options.pin(self.pin), measure)
        };
        let subject = |waiting| case("doorbell", self.mode, self.subject, Some(waiting));
        let waitings = [Waiting::Never, Waiting::Adaptive, Waiting::Always];
        let asked = waitings
            .into_iter()
            .filter(|waiting| options.common.spin.is_none_or(|spin| spin == *waiting));
        Group {
            name: self.name,
            reference: case(self.reference.0, "blocking", self.reference.1, None),
            subjects: asked.map(subject).collect(),
            compared: Compared::Typical,
        }
    }
}

const FUTEX: (&str, Measure) = ("raw-futex", futex::round_trips);
const EVENT: (&str, Measure) = ("raw-event", event::round_trips);

const SETUPS: [Setup; 6] = [
    Setup {
        name: "two-cpus-blocking",
        pin: Pin::Cross,
        is_busy: false,
        reference: FUTEX,
        mode: "blocking",
        subject: blocking::round_trips,
    },
    Setup {
        name: "two-cpus-awaited",
        pin: Pin::Cross,
        is_busy: false,
        reference: EVENT,
        mode: "async",
        subject: awaiting::round_trips,
    },
    Setup {
        name: "one-cpu-blocking",
        pin: Pin::Same,
        is_busy: false,
        reference: FUTEX,
        mode: "blocking",
        subject: blocking::round_trips,
    },
    Setup {
        name: "one-cpu-awaited",
        pin: Pin::Same,
        is_busy: false,
        reference: EVENT,
        mode: "async",
        subject: awaiting::round_trips,
    },
    Setup {
        name: "busy-cpus-blocking",
        pin: Pin::Cross,
        is_busy: true,
        reference: FUTEX,
        mode: "blocking",
        subject: blocking::round_trips,
    },
    Setup {
        name: "busy-cpus-awaited",
        pin: Pin::Cross,
        is_busy: true,
        reference: EVENT,
        mode: "async",
        subject: awaiting::round_trips,
    },
];

const SMALL: usize = 64;

/// Pauses between two round trips; without one there are as many as there can be.
const PAUSES: [Option<Duration>; 6] = [
    Some(Duration::from_secs(1)),
    Some(Duration::from_millis(100)),
    Some(Duration::from_millis(10)),
    Some(Duration::from_millis(1)),
    Some(Duration::from_micros(100)),
    None,
];
const QUICK_PAUSES: [Option<Duration>; 2] = [Some(Duration::from_millis(1)), None];

//! What `bench throughput` measures: many small messages under way.

use super::case::{Case, Compared, Group, Measure};
use super::options::{Options, Pin, USUAL_WINDOW};
use super::plot::rows as plots;
use super::reference::{ring, socket};
use super::runner::Bench;
use super::subject::{awaiting, blocking};

/// The benchmark.
pub(crate) const BENCH: Bench = Bench {
    name: "throughput",
    about: "Small messages, many under way on one connection: calls with a full window, and notifications, each of which is \
            decoded and handled. The reference is a Unix socket with tokio whose user batches by hand.",
    plots: plots::rates,
};

/// Returns the groups of rows, references first.
pub(crate) fn groups(options: &Options) -> Vec<Group> {
    let sizes = options.sizes(&[SMALL]);
    let each =
        |make: fn(&Options, usize) -> Group| sizes.iter().map(move |&size| make(options, size));
    [rings, pipelined, one_way]
        .into_iter()
        .flat_map(each)
        .collect()
}

/// Doorbell's rings without calls, beside a ring that copies whole batches.
fn rings(options: &Options, size: usize) -> Group {
    let case = |peer, mode, measure| windowed(options, peer, mode, size, measure);
    Group {
        name: "ring",
        reference: case("raw-batch", "one-way", ring::batches_one_way),
        subjects: vec![
            case("raw-ring", "one-way", ring::one_way),
            case("raw-ring", "echo", ring::echo),
        ],
        compared: Compared::Typical,
    }
}

/// Calls, as many under way as the window allows.
fn pipelined(options: &Options, size: usize) -> Group {
    let case = |peer, mode, measure| windowed(options, peer, mode, size, measure);
    Group {
        name: "pipelined",
        reference: case("tokio-socket", "async", socket::pipelined),
        subjects: vec![
            case("doorbell", "blocking", blocking::pipelined),
            case("doorbell", "async", awaiting::pipelined),
            case("doorbell", "blocking-call-all", blocking::calls_together),
            case("doorbell", "async-call-all", awaiting::calls_together),
        ],
        compared: Compared::Typical,
    }
}

/// Notifications: messages that nobody answers, each decoded and handled.
fn one_way(options: &Options, size: usize) -> Group {
    let case = |peer, mode, measure| windowed(options, peer, mode, size, measure);
    Group {
        name: "one-way",
        reference: case("tokio-socket", "async-one-way", socket::one_way),
        subjects: vec![
            case("doorbell", "blocking-notify", blocking::notifies),
            case("doorbell", "async-notify", awaiting::notifies),
            case(
                "doorbell",
                "blocking-notify-all",
                blocking::notifies_together,
            ),
            case("doorbell", "async-notify-all", awaiting::notifies_together),
        ],
        compared: Compared::Typical,
    }
}

fn windowed(
    options: &Options,
    peer: &'static str,
    mode: &'static str,
    size_bytes: usize,
    measure: Measure,
) -> Case {
    Case {
        window: options.window(USUAL_WINDOW),
        ..Case::new(peer, mode, size_bytes, options.pin(Pin::Cross), measure)
    }
}

const SMALL: usize = 64;

//! What `bench throughput` measures: many messages under way.

use super::case::{Case, Compared, Group, Measure};
use super::options::{Options, Pin};
use super::reference::{memcpy, ring, socket};
use super::subject::{awaiting, blocking};

/// Returns the groups of rows, references first.
pub(crate) fn groups(options: &Options) -> Vec<Group> {
    let mut groups = Vec::new();
    groups.extend(
        options
            .sizes(&[SMALL, LARGE])
            .into_iter()
            .map(|size| copies(options, size)),
    );
    for make in [rings, pipelined, one_way] {
        groups.extend(
            options
                .sizes(&[SMALL])
                .into_iter()
                .map(|size| make(options, size)),
        );
    }
    groups
}

/// How fast this machine copies at all.
fn copies(options: &Options, size: usize) -> Group {
    Group {
        name: "memcpy",
        reference: Case {
            window: 1,
            ..case(options, "memcpy", "one-way", size, memcpy::copies)
        },
        subjects: vec![],
        compared: Compared::Typical,
    }
}

/// Doorbell's rings without calls, beside a ring that copies whole batches.
fn rings(options: &Options, size: usize) -> Group {
    Group {
        name: "ring",
        reference: case(options, "raw-batch", "one-way", size, ring::batches_one_way),
        subjects: vec![
            case(options, "raw-ring", "one-way", size, ring::one_way),
            case(options, "raw-ring", "echo", size, ring::echo),
        ],
        compared: Compared::Typical,
    }
}

/// Calls, as many under way as the window allows.
fn pipelined(options: &Options, size: usize) -> Group {
    Group {
        name: "pipelined",
        reference: case(options, "tokio-socket", "async", size, socket::pipelined),
        subjects: vec![
            case(options, "doorbell", "blocking", size, blocking::pipelined),
            case(options, "doorbell", "async", size, awaiting::pipelined),
        ],
        compared: Compared::Typical,
    }
}

/// Messages that nobody answers, each decoded and handled.
fn one_way(options: &Options, size: usize) -> Group {
    Group {
        name: "one-way",
        reference: case(
            options,
            "tokio-socket",
            "async-one-way",
            size,
            socket::one_way,
        ),
        subjects: vec![
            case(
                options,
                "doorbell",
                "blocking-notify",
                size,
                blocking::notifies,
            ),
            case(
                options,
                "doorbell",
                "blocking-stream",
                size,
                blocking::stream,
            ),
            case(
                options,
                "doorbell",
                "async-notify",
                size,
                awaiting::notifies,
            ),
            case(options, "doorbell", "async-stream", size, awaiting::stream),
            case(
                options,
                "doorbell",
                "blocking-notify-all",
                size,
                blocking::notifies_together,
            ),
            case(
                options,
                "doorbell",
                "blocking-stream-fed",
                size,
                blocking::fed_stream,
            ),
            case(
                options,
                "doorbell",
                "async-notify-all",
                size,
                awaiting::notifies_together,
            ),
            case(
                options,
                "doorbell",
                "async-stream-fed",
                size,
                awaiting::fed_stream,
            ),
        ],
        compared: Compared::Typical,
    }
}

fn case(
    options: &Options,
    peer: &'static str,
    mode: &'static str,
    size_bytes: usize,
    measure: Measure,
) -> Case {
    let pin = options.pin(Pin::Cross);
    Case {
        peer,
        mode,
        size_bytes,
        window: options.window,
        pin,
        pause: None,
        measure,
    }
}

const SMALL: usize = 64;
const LARGE: usize = 1 << 20;

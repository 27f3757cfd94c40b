//! What `bench stream` measures: items of one streaming call, and bytes.
//!
//! The reference of the rows that go one way is a socket whose frames somebody looks at; that of the rows that go both ways, one
//! whose frames are sent back; that of the byte stream, one whose bytes are only read.

use super::case::{Case, Compared, Group, Measure};
use super::options::{Options, Pin, USUAL_WINDOW};
use super::plot::rows as plots;
use super::reference::socket;
use super::runner::Bench;
use super::subject::{streams_awaiting as tasks, streams_blocking as threads};

/// The benchmark.
pub(crate) const BENCH: Bench = Bench {
    name: "stream",
    about: "Items of one streaming call, from the server, from the client and both ways, and a stream of bytes, beside a Unix \
            socket with tokio whose user batches by hand.",
    plots: plots::bytes_by_size,
};

/// Returns the groups of rows, references first.
pub(crate) fn groups(options: &Options) -> Vec<Group> {
    let sizes = options.sizes(&SIZES);
    let each = |kind: &'static Kind| sizes.iter().map(|&size| kind.group(options, size));
    KINDS.iter().flat_map(each).collect()
}

/// A direction, with what is measured of it.
struct Kind {
    name: &'static str,
    reference: (&'static str, Measure),
    blocking: Measure,
    awaiting: Measure,
    /// The same with small items collected into frames.
    fed: &'static [(&'static str, Measure)],
}

impl Kind {
    fn group(&self, options: &Options, size: usize) -> Group {
        let case = |peer, mode, measure| Case {
            window: options.window(USUAL_WINDOW),
            ..Case::new(peer, mode, size, options.pin(Pin::Cross), measure)
        };
        Group {
            name: self.name,
            reference: case("tokio-socket", self.reference.0, self.reference.1),
            subjects: [("blocking", self.blocking), ("async", self.awaiting)]
                .iter()
                .chain(self.fed.iter().filter(|_| size <= LARGEST_FED))
                .map(|&(mode, measure)| case("doorbell", mode, measure))
                .collect(),
            compared: Compared::Rate,
        }
    }
}

const KINDS: [Kind; 4] = [
    Kind {
        name: "server-stream",
        reference: ("async-one-way", socket::one_way),
        blocking: threads::from_server,
        awaiting: tasks::from_server,
        fed: &[
            ("blocking-fed", threads::fed_from_server),
            ("async-fed", tasks::fed_from_server),
        ],
    },
    Kind {
        name: "client-stream",
        reference: ("async-one-way", socket::one_way),
        blocking: threads::from_client,
        awaiting: tasks::from_client,
        fed: &[
            ("blocking-fed", threads::fed_from_client),
            ("async-fed", tasks::fed_from_client),
        ],
    },
    Kind {
        name: "both-ways",
        reference: ("async", socket::pipelined),
        blocking: threads::both_ways,
        awaiting: tasks::both_ways,
        fed: &[],
    },
    Kind {
        name: "bytes",
        reference: ("async-bytes", socket::bytes),
        blocking: threads::bytes,
        awaiting: tasks::bytes,
        fed: &[],
    },
];

/// Larger items have a frame for themselves.
const LARGEST_FED: usize = 1 << 10;

const SIZES: [usize; 4] = [64, 1 << 10, 16 << 10, 256 << 10];

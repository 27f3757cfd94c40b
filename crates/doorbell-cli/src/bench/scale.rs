//! What `bench scale` measures: one server with many connections, all of them busy.
//!
//! The connections belong to one process, or each to a process of its own. Each has one call under way, or a window full. The
//! reference is a tokio server with as many Unix sockets.

use clap::Args;

use super::case::{Case, Compared, Group, Measure};
use super::options::{Options, Pin};
use super::plot::rows as plots;
use super::reference::socket_crowd;
use super::runner::Bench;
use super::subject::crowd;

/// The benchmark.
pub(crate) const BENCH: Bench = Bench {
    name: "scale",
    about: "One server with many connections, all busy, from one process and from a process for each, beside a Unix socket \
            server with tokio and as many connections.",
    plots: plots::scale,
};

/// Options of `bench scale`.
#[derive(Clone, Debug, Args)]
pub(crate) struct ScaleArgs {
    #[command(flatten)]
    pub(crate) options: Options,
    /// How many connections there are; can be given several times [default: 32, 128, 512 and 1000]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=4096))]
    connections: Vec<u32>,
}

/// Returns the groups of rows, references first.
pub(crate) fn groups(args: &ScaleArgs) -> Vec<Group> {
    let usual: &[u32] = match args.options.common.quick {
        true => &QUICK_CONNECTIONS,
        false => &CONNECTIONS,
    };
    let counts = match args.connections.as_slice() {
        [] => usual,
        asked => asked,
    };
    let sizes = args.options.sizes(&[SMALL]);
    let mut groups = Vec::new();
    for kind in &KINDS {
        for &size in &sizes {
            let group = |&count: &u32| kind.group(&args.options, size, count as usize);
            groups.extend(counts.iter().map(group));
        }
    }
    groups
}

/// Who calls, and how.
struct Kind {
    name: &'static str,
    window: usize,
    /// Of each side, as it is used here.
    modes: [&'static str; 2],
    reference: Measure,
    subject: Measure,
}

impl Kind {
    fn group(&self, options: &Options, size: usize, connections: usize) -> Group {
        let window = match self.window {
            1 => 1,
            natural => options.window(natural),
        };
        let case = |peer, mode, measure| Case {
            connections,
            window,
            ..Case::new(peer, mode, size, options.pin(Pin::None), measure)
        };
        Group {
            name: self.name,
            reference: case("tokio-socket", self.modes[0], self.reference),
            subjects: vec![case("doorbell", self.modes[1], self.subject)],
            compared: Compared::Rate,
        }
    }
}

const KINDS: [Kind; 4] = [
    Kind {
        name: "pipelined",
        window: WINDOW,
        modes: ["async", "async"],
        reference: socket_crowd::from_one_process,
        subject: crowd::from_one_process,
    },
    Kind {
        name: "one-call-each",
        window: 1,
        modes: ["async", "async"],
        reference: socket_crowd::from_one_process,
        subject: crowd::from_one_process,
    },
    Kind {
        name: "pipelined-processes",
        window: WINDOW,
        modes: ["blocking", "blocking"],
        reference: socket_crowd::from_processes,
        subject: crowd::from_processes,
    },
    Kind {
        name: "one-call-each-processes",
        window: 1,
        modes: ["blocking", "blocking"],
        reference: socket_crowd::from_processes,
        subject: crowd::from_processes,
    },
];

/// Calls under way on each connection where it is more than one: a thousand connections have many even so.
const WINDOW: usize = 32;

const SMALL: usize = 64;
const CONNECTIONS: [u32; 4] = [32, 128, 512, 1000];
const QUICK_CONNECTIONS: [u32; 2] = [4, 8];

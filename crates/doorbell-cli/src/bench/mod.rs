//! `doorbell bench`: Doorbell beside the limits of the machine it runs on.
//!
//! A figure alone says little: the same code is three times faster or slower when the host moves the CPUs. So each row is
//! measured right after its reference, a few lines of code that do only what cannot be avoided, and between two processes
//! that bounce one cache line, which shows where the CPUs are. What is printed first of all is the ratio.
//!
//! [`rtt`], [`throughput`], [`mod@stream`], [`large`], [`mod@mixed`], [`idle_gap`], [`scale`] and [`waking`] say what is measured in
//! rows; [`runner`] measures it; [`mod@reference`] holds the references and [`subject`] the rows of Doorbell itself. [`memory`],
//! [`stress`] and [`soak`] watch a server. [`peer`] is the second process. [`output`] takes what was found, [`mod@report`] makes a
//! page of it.

mod all;
mod busy;
mod case;
mod clock;
mod crowd;
mod idle_gap;
mod large;
mod load;
mod memory;
mod mixed;
mod options;
mod output;
pub(crate) mod peer;
mod plot;
mod process_cost;
mod progress;
mod reference;
mod report;
mod row;
mod rtt;
mod runner;
mod sample;
mod scale;
mod soak;
mod stream;
mod stress;
mod subject;
pub(crate) mod table;
mod throughput;
mod timeline;
mod waking;

use clap::{Args, Subcommand};
use doorbell_shm::sys;

use self::all::AllArgs;
use self::case::Group;
use self::memory::MemoryArgs;
use self::options::{Common, Options};
use self::output::Output;
use self::plot::rows as plots;
use self::runner::Bench;
use self::scale::ScaleArgs;
use self::soak::SoakArgs;
use self::stress::StressArgs;
use crate::interrupt;

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Round trips one after the other: awake, asleep, on one CPU
    Rtt(Options),
    /// Many small messages under way: pipelined calls and notifications
    Throughput(Options),
    /// Items of a streaming call in either direction and in both, and bytes
    Stream(Options),
    /// Round trips of 64 KiB to 64 MiB
    Large(Options),
    /// Small calls while large ones go on beside them
    Mixed(Options),
    /// Round trips with a pause before each: 100 µs, 10 ms and 1 s
    IdleGap(Options),
    /// Many connections, all busy, from one process and from as many processes
    Scale(ScaleArgs),
    /// What a server costs: idle, with idle connections, and after a burst of large messages
    #[command(visible_alias = "idle")]
    Memory(MemoryArgs),
    /// Latency and CPU time against the message rate, for each way to wait, also on one CPU and on busy ones
    Waking(Options),
    /// Everything at once with many clients, every byte looked at
    Stress(StressArgs),
    /// A steady rate for a long time: does memory grow?
    Soak(SoakArgs),
    /// All of these, one after the other
    All(AllArgs),
}

impl What {
    fn common(&self) -> &Common {
        match self {
            Self::Rtt(options)
            | Self::Throughput(options)
            | Self::Stream(options)
            | Self::Large(options)
            | Self::Mixed(options)
            | Self::IdleGap(options)
            | Self::Waking(options) => &options.common,
            Self::Scale(args) => &args.options.common,
            Self::Memory(args) => &args.common,
            Self::Stress(args) => &args.common,
            Self::Soak(args) => &args.common,
            Self::All(args) => &args.common,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Rtt(_) => RTT.name,
            Self::Throughput(_) => THROUGHPUT.name,
            Self::Stream(_) => STREAM.name,
            Self::Large(_) => LARGE.name,
            Self::Mixed(_) => MIXED.name,
            Self::IdleGap(_) => IDLE_GAP.name,
            Self::Scale(_) => SCALE.name,
            Self::Waking(_) => WAKING.name,
            Self::Memory(_) => "memory",
            Self::Stress(_) => "stress",
            Self::Soak(_) => "soak",
            Self::All(_) => "all",
        }
    }

    fn run(&self, output: &mut Output) -> anyhow::Result<()> {
        match self {
            Self::Rtt(options) => run_groups(&RTT, rtt::groups(options), options, output),
            Self::Throughput(options) => {
                run_groups(&THROUGHPUT, throughput::groups(options), options, output)
            }
            Self::Stream(options) => run_groups(&STREAM, stream::groups(options), options, output),
            Self::Large(options) => run_groups(&LARGE, large::groups(options), options, output),
            Self::Mixed(options) => run_groups(&MIXED, mixed::groups(options), options, output),
            Self::IdleGap(options) => {
                run_groups(&IDLE_GAP, idle_gap::groups(options), options, output)
            }
            Self::Scale(args) => run_groups(&SCALE, scale::groups(args), &args.options, output),
            Self::Waking(options) => run_groups(&WAKING, waking::groups(options), options, output),
            Self::Memory(args) => memory::run(args, output),
            Self::Stress(args) => stress::run(args, output),
            Self::Soak(args) => soak::run(args, output),
            Self::All(args) => all::run(args, output),
        }
    }
}

/// Runs a benchmark and prints what it found.
///
/// # Errors
///
/// If a row cannot be measured. The rows before it are printed.
pub(crate) fn run(args: &BenchArgs) -> anyhow::Result<()> {
    interrupt::raise_flag_on_ctrl_c()?;
    // Each connection takes a few descriptors. If this is not enough, the connection that fails says so.
    _ = sys::raise_descriptor_limit();
    let mut output = Output::new(args.what.common())?;
    let result = args.what.run(&mut output);
    result.and(output.finish())
}

fn run_groups(
    bench: &Bench,
    groups: Vec<Group>,
    options: &Options,
    output: &mut Output,
) -> anyhow::Result<()> {
    let (mut wanted, rest): (Vec<_>, Vec<_>) = groups
        .into_iter()
        .partition(|group| options.wants(group.name));
    if wanted.is_empty() {
        let mut names: Vec<_> = rest.iter().map(|group| group.name).collect();
        names.dedup();
        anyhow::bail!(
            "no group of rows has such a name; there are {}",
            names.join(", ")
        );
    }
    for group in &mut wanted {
        group.settle_waiting(options.spin);
    }
    runner::run(bench, &wanted, options, output)
}

const RTT: Bench = Bench {
    name: "rtt",
    about: "Round trips of small messages, one after the other. The reference of each group does only what cannot be avoided: \
            it copies the bytes through shared memory, or wakes the other side.",
    plots: plots::distributions,
};

const THROUGHPUT: Bench = Bench {
    name: "throughput",
    about: "Small messages, many under way on one connection: calls with a full window, and notifications, each of which is \
            decoded and handled. The reference is a Unix socket with tokio whose user batches by hand.",
    plots: plots::rates,
};

const STREAM: Bench = Bench {
    name: "stream",
    about: "Items of one streaming call, from the server, from the client and both ways, and a stream of bytes, beside a Unix \
            socket with tokio whose user batches by hand.",
    plots: plots::bytes_by_size,
};

const LARGE: Bench = Bench {
    name: "large",
    about: "Round trips of large messages, one after the other, beside copying the same bytes through shared memory and back \
            with both sides awake.",
    plots: plots::bytes_by_size,
};

const MIXED: Bench = Bench {
    name: "mixed",
    about: "Small calls while messages of 10 MiB go there and back on the same connection, beside the same calls undisturbed.",
    plots: plots::distributions,
};

const IDLE_GAP: Bench = Bench {
    name: "idle-gap",
    about: "Round trips with a pause before each, beside the least that waking a thread (a futex) or a task (a descriptor) takes.",
    plots: plots::distributions,
};

const SCALE: Bench = Bench {
    name: "scale",
    about: "One server with many connections, all busy, from one process and from a process for each, beside a Unix socket \
            server with tokio and as many connections.",
    plots: plots::scale,
};

const WAKING: Bench = Bench {
    name: "waking",
    about: "Round trips from one each second to as many as there can be: how long they take and how many CPUs both processes \
            together use, never spinning, always, and adaptively; with a CPU for each side, with one for both, and with both \
            kept busy by other programs. The reference only wakes. A curve \
            joins rows that may have had the CPUs near or far; the table tells.",
    plots: plots::waking,
};

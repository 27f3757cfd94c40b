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
    /// All of these, one after the other, which takes more than an hour
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
            Self::Rtt(_) => rtt::BENCH.name,
            Self::Throughput(_) => throughput::BENCH.name,
            Self::Stream(_) => stream::BENCH.name,
            Self::Large(_) => large::BENCH.name,
            Self::Mixed(_) => mixed::BENCH.name,
            Self::IdleGap(_) => idle_gap::BENCH.name,
            Self::Scale(_) => scale::BENCH.name,
            Self::Waking(_) => waking::BENCH.name,
            Self::Memory(_) => "memory",
            Self::Stress(_) => "stress",
            Self::Soak(_) => "soak",
            Self::All(_) => "all",
        }
    }

    fn run(&self, output: &mut Output) -> anyhow::Result<()> {
        match self {
            Self::Rtt(options) => run_groups(&rtt::BENCH, rtt::groups(options), options, output),
            Self::Throughput(options) => run_groups(
                &throughput::BENCH,
                throughput::groups(options),
                options,
                output,
            ),
            Self::Stream(options) => {
                run_groups(&stream::BENCH, stream::groups(options), options, output)
            }
            Self::Large(options) => {
                run_groups(&large::BENCH, large::groups(options), options, output)
            }
            Self::Mixed(options) => {
                run_groups(&mixed::BENCH, mixed::groups(options), options, output)
            }
            Self::IdleGap(options) => {
                run_groups(&idle_gap::BENCH, idle_gap::groups(options), options, output)
            }
            Self::Scale(args) => {
                run_groups(&scale::BENCH, scale::groups(args), &args.options, output)
            }
            Self::Waking(options) => {
                run_groups(&waking::BENCH, waking::groups(options), options, output)
            }
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
    if let What::Soak(_) = args.what {
        soak::prepare()?;
    }
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
        names.sort_unstable();
        names.dedup();
        anyhow::bail!(
            "no group of rows has such a name; there are {}",
            names.join(", ")
        );
    }
    for group in &mut wanted {
        group.settle_waiting(options.common.spin);
    }
    runner::run(bench, &wanted, options, output)
}

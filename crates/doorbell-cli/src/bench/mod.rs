//! `doorbell bench`: Doorbell beside the limits of the machine it runs on.
//!
//! A figure alone says little: the same code is three times faster or slower when the host moves the CPUs. So each row is
//! measured right after its reference, a few lines of code that do only what cannot be avoided, and between two processes
//! that bounce one cache line, which shows where the CPUs are. What is printed first of all is the ratio.
//!
//! [`rtt`], [`throughput`], [`mod@mixed`], [`idle_gap`] and [`idle`] say what is measured; [`runner`] measures it; [`mod@reference`] holds the references
//! and [`subject`] the rows of Doorbell itself; [`peer`] is the second process.

mod case;
mod clock;
mod idle;
mod idle_gap;
mod mixed;
mod options;
pub(crate) mod peer;
mod process_cost;
mod progress;
mod reference;
mod row;
mod rtt;
mod runner;
mod sample;
mod subject;
pub(crate) mod table;
mod throughput;

use clap::{Args, Subcommand};

use self::case::Group;
use self::idle::IdleArgs;
use self::options::Options;
use crate::interrupt;

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Round trips one after the other: awake, asleep, on one CPU, small and large
    Rtt(Options),
    /// Many messages under way: pipelined calls, streams and notifies
    Throughput(Options),
    /// Small calls while large ones go on beside them
    Mixed(Options),
    /// Round trips with a pause before each: 100 µs, 10 ms and 1 s
    IdleGap(Options),
    /// What a server with idle connections costs: memory, CPU time and wake-ups
    Idle(IdleArgs),
}

/// Runs a benchmark and prints what it found.
///
/// # Errors
///
/// If a row cannot be measured. The rows before it are printed.
pub(crate) fn run(args: &BenchArgs) -> anyhow::Result<()> {
    interrupt::raise_flag_on_ctrl_c()?;
    match &args.what {
        What::Rtt(options) => run_groups("rtt", rtt::groups(options), options),
        What::Throughput(options) => run_groups("throughput", throughput::groups(options), options),
        What::Mixed(options) => run_groups("mixed", mixed::groups(options), options),
        What::IdleGap(options) => run_groups("idle-gap", idle_gap::groups(options), options),
        What::Idle(args) => idle::run(args),
    }
}

fn run_groups(bench: &'static str, groups: Vec<Group>, options: &Options) -> anyhow::Result<()> {
    let (wanted, rest): (Vec<_>, Vec<_>) = groups
        .into_iter()
        .partition(|group| options.wants(group.name));
    if wanted.is_empty() {
        let names: Vec<_> = rest.iter().map(|group| group.name).collect();
        anyhow::bail!(
            "no group of rows has such a name; there are {}",
            names.join(", ")
        );
    }
    runner::run(bench, &wanted, options)
}

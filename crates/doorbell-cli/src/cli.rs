//! The command line: what can be asked for, and the words of `--help`.

use clap::{Args, Parser, Subcommand};

use crate::bench::BenchArgs;

/// Calls between programs on one host, at memory speed.
#[derive(Debug, Parser)]
#[command(name = "doorbell", version, about)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Measures Doorbell beside the limits of this machine
    Bench(BenchArgs),
    /// The second process of a benchmark; started by `bench` itself
    #[command(hide = true)]
    BenchPeer(BenchPeerArgs),
}

#[derive(Debug, Args)]
pub(crate) struct BenchPeerArgs {
    /// What the process does, as JSON
    pub(crate) role: String,
}

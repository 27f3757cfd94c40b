//! The command line: what can be asked for, and the words of `--help`.

use clap::{Args, Parser, Subcommand};
use doorbell_cli::demo::{DemoArgs, EngineArgs};

use crate::bench::BenchArgs;
use crate::ping::PingArgs;
use crate::serve::ServeArgs;

/// Calls between programs on one host, at memory speed.
#[derive(Debug, Parser)]
#[command(name = "doorbell", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Connects to a server and times round trips to it
    Ping(PingArgs),
    /// Serves a name, so that there is something to connect to
    Serve(ServeArgs),
    /// Measures Doorbell beside the limits of this machine
    Bench(BenchArgs),
    /// Plays an editor and its AI engine on the files of a directory
    Demo(DemoArgs),
    /// The engine process of the demo; started by `demo` itself
    #[command(hide = true)]
    Engine(EngineArgs),
    /// The second process of a benchmark; started by `bench` itself
    #[command(name = BENCH_PEER, hide = true)]
    BenchPeer(BenchPeerArgs),
}

/// Unlike any command that a user types: a mistyped one is answered with those that it resembles, hidden or not.
pub(crate) const BENCH_PEER: &str = "second-process";

#[derive(Debug, Args)]
pub(crate) struct BenchPeerArgs {
    /// What the process does, as JSON
    pub(crate) role: String,
}

//! The `doorbell` command.
//!
//! `ping` and `serve --echo` try a connection by hand, `bench` measures Doorbell beside the limits of the machine.
//! Everything here uses the public interfaces of the libraries; the raw references of the benchmarks use the low-level
//! ones of `doorbell-shm`.
#![forbid(unsafe_code)]

mod bench;
mod cli;
mod interrupt;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Bench(args) => bench::run(&args),
        Command::BenchPeer(args) => bench::peer::run(&args.role),
    }
}

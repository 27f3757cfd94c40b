//! The `doorbell` command.
//!
//! `ping` and `serve --echo` try a connection by hand, `bench` measures Doorbell beside the limits of the machine,
//! `demo` plays an editor with its engine.
//! Everything here uses the public interfaces of the libraries; the raw references of the benchmarks use the low-level
//! ones of `doorbell-shm`.
#![forbid(unsafe_code)]

mod bench;
mod cli;
mod echo;
mod interrupt;
mod ping;
mod serve;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use doorbell_cli::demo;
use tokio::runtime::Runtime;

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
        Command::Ping(args) => ping::run(&args),
        Command::Serve(args) => serve::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Demo(args) => runtime()?.block_on(demo::run(args)),
        Command::Engine(args) => runtime()?.block_on(demo::run_engine(args)),
        Command::BenchPeer(args) => bench::peer::run(&args.role),
    }
}

fn runtime() -> anyhow::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the threads of the runtime")
}

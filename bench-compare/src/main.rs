//! Doorbell beside other ways for two processes on one host to talk, each at its own best settings.
//!
//! [`plan`] says what is measured beside what; [`runner`] measures it; [`mod@table`] and [`report`] show it. Every measurement
//! starts two fresh processes of this same program, a server and a client, which [`part`] describes and [`peers`] play. The
//! first process runs no rival itself: whatever hangs, aborts or leaves something behind does so in a process that can be ended.
#![deny(unsafe_code)]

mod bounce;
mod clock;
mod histogram;
mod host;
mod interrupt;
mod options;
mod part;
mod payload;
mod peers;
mod placement;
mod plan;
mod plot;
mod process;
mod report;
mod row;
mod runner;
mod sample;
mod table;
mod versions;

use std::process::ExitCode;

use clap::Parser as _;

use self::options::{Command, Options};

fn main() -> ExitCode {
    let options = Options::parse();
    let result = match &options.command {
        Some(Command::Part { part }) => part::play(part),
        None => runner::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

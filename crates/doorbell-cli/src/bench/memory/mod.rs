//! What `bench memory` measures: what a server costs while nothing happens, and after a burst.
//!
//! The server runs in the second process and is looked at from outside.

mod burst;
mod idle;

use clap::{Args, ValueEnum};

use super::options::{Common, Waiting, positive_seconds, size_in_bytes};
use super::output::{Output, Section};
use super::peer::{self, Peer};
use super::subject::{Api, Role};
use crate::interrupt::interrupted;

/// Options of `bench memory`.
#[derive(Clone, Debug, Args)]
pub(crate) struct MemoryArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    /// How long to watch an idle server, and a server after its burst, in seconds
    #[arg(long, default_value_t = 5.0, value_parser = positive_seconds)]
    seconds: f64,
    /// How many connections the server has [default: 1000, and 10 with --quick]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=4096))]
    connections: Option<u32>,
    /// Size of the messages of the burst; each connection sends three
    #[arg(long, default_value = "1MiB", value_parser = size_in_bytes)]
    size: usize,
    /// Measures only one of the two
    #[arg(long, value_enum)]
    only: Option<Part>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// A server whose clients have nothing to say
    Idle,
    /// A server all of whose clients send something large at once
    Burst,
}

impl MemoryArgs {
    fn connections(&self) -> u32 {
        let natural = if self.common.quick { 10 } else { 1000 };
        self.connections.unwrap_or(natural)
    }

    fn wants(&self, part: Part) -> bool {
        self.only.is_none_or(|only| only == part)
    }
}

/// Measures both parts and puts out what was found.
///
/// # Errors
///
/// If a server cannot be started or the system does not tell what it costs. What was measured before is put out.
pub(crate) fn run(args: &MemoryArgs, output: &mut Output) -> anyhow::Result<()> {
    let (mut sheets, mut plots) = (Vec::new(), Vec::new());
    let mut result = Ok(());
    if args.wants(Part::Idle) {
        result = idle::run(args, output, &mut sheets);
    }
    if args.wants(Part::Burst) && result.is_ok() && !interrupted() {
        result = burst::run(args, output, &mut sheets, &mut plots);
    }
    output.section(Section {
        bench: "memory",
        about: "What a server costs: without connections, with many that have nothing to say, and after all of them have sent large \
                messages at once. Private memory goes away with the process; regions are the memory that it shares with its clients.",
        sheets,
        plots,
    })?;
    result
}

fn start_server(api: Api, waiting: Waiting) -> anyhow::Result<Peer> {
    Peer::start(peer::Role::Subject(Role { api, waiting }), None)
}

fn api_name(api: Api) -> &'static str {
    match api {
        Api::Awaiting => "async",
        Api::Blocking => "blocking",
    }
}

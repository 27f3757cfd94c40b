//! `doorbell ping`: connects to a server and times round trips to it.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use doorbell::Client;

use crate::bench::table::duration;
use crate::interrupt;

/// Whom to ping, and how.
#[derive(Debug, Args)]
pub(crate) struct PingArgs {
    /// Name of the service, or the path of its socket (a path has a slash in it)
    name: String,
    /// How many times; 0 goes on until Ctrl-C
    #[arg(short, long, default_value_t = 5)]
    count: u64,
    /// Milliseconds between two pings
    #[arg(short, long, default_value_t = 1000, value_name = "MS")]
    interval: u64,
    /// Milliseconds to wait for the connection and for each answer
    #[arg(short, long, default_value_t = 1000, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
}

/// Pings and prints each round trip, and a summary.
///
/// # Errors
///
/// If there is no connection, or an answer does not come in time.
pub(crate) fn run(args: &PingArgs) -> anyhow::Result<()> {
    interrupt::raise_flag_on_ctrl_c()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(ping(args))
}

async fn ping(args: &PingArgs) -> anyhow::Result<()> {
    let limit = Duration::from_millis(args.timeout);
    let started = Instant::now();
    let client = tokio::time::timeout(limit, Client::connect(args.name.as_str()))
        .await
        .with_context(|| format!("{:?} did not answer within {limit:?}", args.name))?
        .with_context(|| format!("cannot connect to {:?}", args.name))?;
    println!(
        "connected to {} in {}",
        args.name,
        nanoseconds(started.elapsed())
    );
    let mut times = Vec::new();
    while (args.count == 0 || (times.len() as u64) < args.count) && !interrupt::interrupted() {
        if !times.is_empty() {
            pause(Duration::from_millis(args.interval)).await;
        }
        let time = tokio::time::timeout(limit, client.ping())
            .await
            .with_context(|| {
                format!("no answer within {limit:?}: the server is alive but busy or stopped")
            })??;
        println!("ping {}: {}", times.len() + 1, nanoseconds(time));
        times.push(time);
    }
    print_summary(times);
    Ok(())
}

/// Sleeps, but not longer than until Ctrl-C.
async fn pause(length: Duration) {
    tokio::select! {
        () = tokio::time::sleep(length) => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

fn print_summary(mut times: Vec<Duration>) {
    times.sort_unstable();
    if let (Some(&least), Some(&greatest)) = (times.first(), times.last()) {
        let median = times[times.len() / 2];
        println!(
            "{} pings: least {}, median {}, greatest {}",
            times.len(),
            nanoseconds(least),
            nanoseconds(median),
            nanoseconds(greatest)
        );
    }
}

fn nanoseconds(time: Duration) -> String {
    duration(time.as_nanos() as f64)
}

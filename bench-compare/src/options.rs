//! What the user can ask for.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};

/// Measures Doorbell beside other ways for two processes on one host to talk.
#[derive(Debug, Parser)]
#[command(version, about)]
pub(crate) struct Options {
    /// Runs everything once and very shortly, to see that it works; the figures mean nothing
    #[arg(long)]
    pub(crate) quick: bool,
    /// Runs only the groups of rows whose name contains this text, or the rows of the peer of this name
    #[arg(long, value_name = "TEXT")]
    pub(crate) only: Option<String>,
    /// Length of one measurement, in seconds
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    pub(crate) seconds: f64,
    /// How often each measurement is repeated, each time with fresh processes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) runs: u32,
    /// Writes one JSON object per row into this file
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Writes the page with the plots here
    #[arg(long, value_name = "FILE", default_value = "compare.html")]
    pub(crate) report: PathBuf,
    /// The two CPUs that pinned rows and the bounce use
    #[arg(long, default_value = "0,1", value_name = "CLIENT,SERVER", value_parser = cpu_pair)]
    pub(crate) cpus: CpuPair,
    /// Lists the groups of rows and ends
    #[arg(long)]
    pub(crate) list: bool,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// One of the processes of a measurement; this program starts it by itself
    #[command(hide = true)]
    Part { part: String },
}

impl Options {
    /// Returns how long one measurement lasts.
    pub(crate) fn length(&self) -> Duration {
        if self.quick {
            QUICK_LENGTH
        } else {
            Duration::from_secs_f64(self.seconds)
        }
    }

    /// Returns how long a pair of processes runs before it is measured.
    pub(crate) fn warm_up(&self) -> Duration {
        self.length() / 4
    }

    /// Returns how often each measurement is done.
    pub(crate) fn runs(&self) -> u32 {
        if self.quick { 1 } else { self.runs }
    }
}

/// The two CPUs of pinned rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CpuPair {
    pub(crate) client: usize,
    pub(crate) server: usize,
}

fn cpu_pair(text: &str) -> Result<CpuPair, String> {
    let parsed = text.split_once(',').and_then(|(client, server)| {
        Some(CpuPair {
            client: client.trim().parse().ok()?,
            server: server.trim().parse().ok()?,
        })
    });
    parsed
        .filter(|pair| pair.client != pair.server)
        .ok_or_else(|| {
            "give two different CPU numbers with a comma between them, such as 0,1".into()
        })
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.01..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("give a number of seconds from 0.01 to 3600".into()),
    }
}

/// Length of a measurement with `--quick`.
const QUICK_LENGTH: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_pair_names_two_different_cpus() {
        let pair = CpuPair {
            client: 2,
            server: 5,
        };
        assert_eq!(cpu_pair("2, 5"), Ok(pair));
        assert!(cpu_pair("1,1").is_err());
        assert!(cpu_pair("1").is_err());
    }
}

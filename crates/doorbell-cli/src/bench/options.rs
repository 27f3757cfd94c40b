//! What the user can ask of every benchmark.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use doorbell::Spin;
use serde::{Deserialize, Serialize};

/// Options of every benchmark.
#[derive(Clone, Debug, Args)]
pub(crate) struct Common {
    /// Prints one JSON object per row instead of a table
    #[arg(long)]
    pub(crate) json: bool,
    /// Runs everything once and very shortly, to see that it works; the figures mean nothing
    #[arg(long)]
    pub(crate) quick: bool,
    /// Writes a page with plots and tables as well, readable in any browser
    #[arg(long, value_name = "FILE.html")]
    pub(crate) report: Option<PathBuf>,
    /// What Doorbell does before it goes to sleep [default: adaptive, or what a row is about]
    #[arg(long, value_enum)]
    pub(crate) spin: Option<Waiting>,
}

impl Common {
    /// Returns how both sides wait, where nothing else is said.
    pub(crate) fn waiting(&self) -> Waiting {
        self.spin.unwrap_or(Waiting::Adaptive)
    }
}

/// Options of the benchmarks that have groups of rows.
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Length of one measurement, in seconds
    #[arg(long, default_value_t = 1.0, value_parser = positive_seconds)]
    pub(crate) seconds: f64,
    /// How often each measurement is repeated, each time with fresh processes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) runs: u32,
    /// Message size in bytes, such as 64, 4KiB or 1MiB; can be given several times [default: all that a benchmark has]
    #[arg(long, value_parser = size_in_bytes)]
    pub(crate) size: Vec<usize>,
    /// Round trips a second, a number or `max`, in rows with pauses between them; can be given several times. A rate is that of the pauses:
    /// what a round trip takes is added [default: all that a benchmark has]
    #[arg(long, value_name = "PER_SECOND", value_parser = rate)]
    pub(crate) rate: Vec<Rate>,
    /// Calls under way at once on a connection in pipelined rows [default: 256, and 32 where there are many connections]
    #[arg(long, value_parser = window_size)]
    pub(crate) window: Option<usize>,
    /// Where the two processes run [default: what each row is about]
    #[arg(long, value_enum)]
    pub(crate) pin: Option<Pin>,
    /// The two CPUs that pinned rows and the bounce use
    #[arg(long, default_value = "0,1", value_name = "CLIENT,SERVER", value_parser = cpu_pair)]
    pub(crate) cpus: CpuPair,
    /// Runs only the groups of rows whose name contains this text
    #[arg(long, value_name = "TEXT")]
    pub(crate) only: Option<String>,
}

impl Options {
    /// Returns how long one measurement lasts.
    pub(crate) fn length(&self) -> Duration {
        if self.common.quick {
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
        if self.common.quick { 1 } else { self.runs }
    }

    /// Returns the sizes to measure: those asked for, or `usual`.
    pub(crate) fn sizes(&self, usual: &[usize]) -> Vec<usize> {
        if self.size.is_empty() {
            usual.to_vec()
        } else {
            self.size.clone()
        }
    }

    /// Returns the pauses to measure with: those of the rates asked for, or `usual`. Without a pause there are as many round trips as there
    /// can be.
    pub(crate) fn pauses(&self, usual: &[Option<Duration>]) -> Vec<Option<Duration>> {
        if self.rate.is_empty() {
            usual.to_vec()
        } else {
            self.rate.iter().map(|rate| rate.0).collect()
        }
    }

    /// Returns how many calls are under way in a row that would by itself have `natural` of them.
    pub(crate) fn window(&self, natural: usize) -> usize {
        self.window.unwrap_or(natural)
    }

    /// Returns where a row runs that would by itself run at `natural`.
    pub(crate) fn pin(&self, natural: Pin) -> Pin {
        self.pin.unwrap_or(natural)
    }

    /// Returns `true` if the user wants the group of this name.
    pub(crate) fn wants(&self, group: &str) -> bool {
        self.only.as_deref().is_none_or(|text| group.contains(text))
    }
}

/// What is done before going to sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Waiting {
    /// Nothing
    Never,
    /// Spins for as long as that has paid recently, which is the default of the library
    Adaptive,
    /// Spins for as long as it is allowed
    Always,
}

impl Waiting {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Adaptive => "adaptive",
            Self::Always => "always",
        }
    }

    /// Returns what the library calls it.
    pub(crate) fn spin(self) -> Spin {
        match self {
            Self::Never => Spin::Never,
            Self::Adaptive => Spin::Adaptive,
            Self::Always => Spin::Always,
        }
    }
}

/// Where the client and the server run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub(crate) enum Pin {
    /// Each on a CPU of its own
    Cross,
    /// Both on one CPU
    Same,
    /// Where the system puts them
    None,
}

impl Pin {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cross => "cross",
            Self::Same => "same",
            Self::None => "none",
        }
    }

    /// Returns the CPU of the client, if it has a fixed one.
    pub(crate) fn client_cpu(self, cpus: CpuPair) -> Option<usize> {
        match self {
            Self::Cross | Self::Same => Some(cpus.client),
            Self::None => None,
        }
    }

    /// Returns the CPU of the server, if it has a fixed one.
    pub(crate) fn server_cpu(self, cpus: CpuPair) -> Option<usize> {
        match self {
            Self::Cross => Some(cpus.server),
            Self::Same => Some(cpus.client),
            Self::None => None,
        }
    }
}

/// The two CPUs of pinned rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CpuPair {
    pub(crate) client: usize,
    pub(crate) server: usize,
}

impl CpuPair {
    pub(crate) const FIRST: Self = Self {
        client: 0,
        server: 1,
    };
}

fn cpu_pair(text: &str) -> Result<CpuPair, String> {
    let parsed = text.split_once(',').and_then(|(client, server)| {
        Some(CpuPair {
            client: client.trim().parse().ok()?,
            server: server.trim().parse().ok()?,
        })
    });
    match parsed {
        Some(pair) if pair.client != pair.server => Ok(pair),
        _ => Err("give two different CPU numbers with a comma between them, such as 0,1".into()),
    }
}

pub(super) fn positive_seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.001..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("give a number of seconds from 0.001 to 3600".into()),
    }
}

/// How often something is done: with a pause, or without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate(Option<Duration>);

fn rate(text: &str) -> Result<Rate, String> {
    if text == "max" {
        return Ok(Rate(None));
    }
    match text.parse::<u32>() {
        Ok(per_s @ 1..=MAX_RATE) => Ok(Rate(Some(Duration::from_secs(1) / per_s))),
        _ => Err(format!("give a number from 1 to {MAX_RATE}, or `max`")),
    }
}

fn window_size(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(window) if (1..=MAX_WINDOW).contains(&window) => Ok(window),
        _ => Err(format!("give a number from 1 to {MAX_WINDOW}")),
    }
}

pub(super) fn size_in_bytes(text: &str) -> Result<usize, String> {
    let digits = text.trim_end_matches(|character: char| character.is_ascii_alphabetic());
    let unit = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        _ => return Err("the units are B, KiB and MiB".into()),
    };
    let size = digits
        .parse::<usize>()
        .ok()
        .and_then(|number| number.checked_mul(unit));
    match size {
        Some(size) if (MIN_SIZE..=MAX_SIZE).contains(&size) => Ok(size),
        _ => Err(format!(
            "give a size from {MIN_SIZE} B to {} MiB",
            MAX_SIZE >> 20
        )),
    }
}

/// Length of a measurement with `--quick`.
const QUICK_LENGTH: Duration = Duration::from_millis(40);

/// The highest rate: shorter pauses than 50 µs are not what a sleeping thread gets.
const MAX_RATE: u32 = 20_000;

/// Calls under way at once on a connection, unless the user or a row says otherwise.
pub(crate) const USUAL_WINDOW: usize = 256;

/// The largest window: as many calls as a connection allows by default.
const MAX_WINDOW: usize = 4096;

/// The smallest message: it has to hold the number that is checked at the far end.
const MIN_SIZE: usize = 8;

/// The largest message; larger ones would only measure the memory of the machine.
const MAX_SIZE: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_may_have_a_binary_unit() {
        assert_eq!(size_in_bytes("64"), Ok(64));
        assert_eq!(size_in_bytes("4KiB"), Ok(4096));
        assert_eq!(size_in_bytes("10m"), Ok(10 << 20));
    }

    #[test]
    fn sizes_out_of_range_or_without_a_number_are_refused() {
        for text in ["0", "7", "MiB", "1GiB", "65MiB", "-1"] {
            assert!(size_in_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rates_are_numbers_or_as_many_as_there_can_be() {
        assert_eq!(rate("100"), Ok(Rate(Some(Duration::from_millis(10)))));
        assert_eq!(rate("max"), Ok(Rate(None)));
        for text in ["0", "20001", "most", "-1", "1.5"] {
            assert!(rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_cpu_pair_names_two_different_cpus() {
        assert_eq!(
            cpu_pair("2, 5"),
            Ok(CpuPair {
                client: 2,
                server: 5
            })
        );
        assert!(cpu_pair("1,1").is_err());
        assert!(cpu_pair("1").is_err());
    }
}

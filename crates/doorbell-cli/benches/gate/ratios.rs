//! Ratios to a raw reference of the same run, as `doorbell bench` measures them.

use std::process::Command;

use anyhow::{Context as _, ensure};
use serde_json::Value;

/// A row of a benchmark, and what its ratio to the reference must not pass.
struct Limit {
    bench: &'static [&'static str],
    mode: &'static str,
    size_bytes: u64,
    bound: Bound,
}

enum Bound {
    /// A time, in multiples of the reference's.
    AtMost(f64),
    /// A rate.
    AtLeast(f64),
}

/// Twice to three times what a quiet machine shows: this finds what has gone wrong, not what has become a little slower.
const LIMITS: &[Limit] = &[
    Limit {
        bench: &["rtt", "--only", "awake"],
        mode: "blocking-spin",
        size_bytes: 64,
        bound: Bound::AtMost(20.0),
    },
    Limit {
        bench: &["rtt", "--only", "one-cpu-blocking"],
        mode: "blocking",
        size_bytes: 64,
        bound: Bound::AtMost(3.0),
    },
    Limit {
        bench: &["throughput", "--only", "pipelined"],
        mode: "blocking",
        size_bytes: 64,
        bound: Bound::AtLeast(0.1),
    },
];

/// Fails if a ratio is beyond its limit in every one of a few attempts.
pub(crate) fn check() -> anyhow::Result<()> {
    let mut beyond = Vec::new();
    for limit in LIMITS {
        let mut said = String::new();
        let within = (0..ATTEMPTS).any(|_| match measure(limit) {
            Ok(ratio) => {
                said = format!(
                    "{}: {ratio:.2} × the reference, {}",
                    limit.name(),
                    limit.bound.text()
                );
                println!("{said}");
                limit.bound.holds(ratio)
            }
            Err(error) => {
                said = format!("{}: {error:#}", limit.name());
                false
            }
        });
        if !within {
            beyond.push(said);
        }
    }
    ensure!(
        beyond.is_empty(),
        "slower than allowed:\n{}",
        beyond.join("\n")
    );
    Ok(())
}

fn measure(limit: &Limit) -> anyhow::Result<f64> {
    let output = Command::new(env!("CARGO_BIN_EXE_doorbell"))
        .arg("bench")
        .args(limit.bench)
        .args(["--runs", "1", "--seconds", "0.3", "--json"])
        .args(["--size", &limit.size_bytes.to_string()])
        .output()?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let rows = String::from_utf8(output.stdout)?;
    let rows: Vec<Value> = rows
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    let row = rows
        .iter()
        .find(|row| row["peer"] == "doorbell" && row["mode"] == limit.mode);
    let ratio = row.and_then(|row| row["ratio"].as_f64());
    ratio.context("the CPUs were moved, or there is no such row")
}

impl Limit {
    fn name(&self) -> String {
        format!(
            "{} {}, {} B",
            self.bench.join(" "),
            self.mode,
            self.size_bytes
        )
    }
}

impl Bound {
    fn holds(&self, ratio: f64) -> bool {
        match *self {
            Self::AtMost(most) => ratio <= most,
            Self::AtLeast(least) => ratio >= least,
        }
    }

    fn text(&self) -> String {
        match self {
            Self::AtMost(most) => format!("at most {most} allowed"),
            Self::AtLeast(least) => format!("at least {least} wanted"),
        }
    }
}

const ATTEMPTS: usize = 4;

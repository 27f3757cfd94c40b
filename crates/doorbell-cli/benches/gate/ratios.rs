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
    Limit {
        bench: &["throughput", "--only", "pipelined"],
        mode: "blocking-call-all",
        size_bytes: 64,
        bound: Bound::AtLeast(0.3),
    },
];

/// Fails if a ratio is beyond its limit each time that it can be told.
pub(crate) fn check() -> anyhow::Result<()> {
    let mut beyond = Vec::new();
    for limit in LIMITS {
        let mut worst = None;
        for _ in 0..ATTEMPTS {
            let Some(ratio) = measure(limit)? else {
                println!("{}: the CPUs were moved meanwhile", limit.name());
                continue;
            };
            let said = format!(
                "{}: {ratio:.2} × the reference, {}",
                limit.name(),
                limit.bound.text()
            );
            println!("{said}");
            if limit.bound.holds(ratio) {
                worst = None;
                break;
            }
            worst = Some(said);
        }
        beyond.extend(worst);
    }
    ensure!(
        beyond.is_empty(),
        "slower than allowed:\n{}",
        beyond.join("\n")
    );
    Ok(())
}

/// `None` if the CPUs were moved between the reference and the row, so that the two say nothing about each other.
fn measure(limit: &Limit) -> anyhow::Result<Option<f64>> {
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
    let row = row.context("the benchmark has no such row")?;
    Ok(row["ratio"].as_f64())
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

const ATTEMPTS: usize = 6;

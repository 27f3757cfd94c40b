//! What a stress has found, as rows, tables and plots.

use std::time::Duration;

use serde_json::{Value, json};

use super::tally::Count;
use crate::bench::options::Waiting;
use crate::bench::output::Section;
use crate::bench::plot::{self, Axis, Curve, Plot, Quantity, Shape};
use crate::bench::process_cost::Memory;
use crate::bench::row::Placement;
use crate::bench::sample::distribution_ns;
use crate::bench::table::{Sheet, duration, memory, rate};
use crate::bench::timeline::{self, Timeline};

/// Everything a stress has found.
pub(super) struct Found {
    pub(super) connections: u32,
    pub(super) seed: u64,
    pub(super) waiting: Waiting,
    pub(super) length: Duration,
    /// By kind of work, all together last.
    pub(super) counts: Vec<Count>,
    /// Messages each second, whenever somebody looked, with the seconds that had passed.
    pub(super) rates: Vec<(f64, f64)>,
    /// Memory of the server with its connections, before the first message.
    pub(super) before: Memory,
    pub(super) timeline: Timeline,
    /// CPUs that the server and the clients have kept busy.
    pub(super) cpus: [f64; 2],
    /// Where the CPUs were, looked at before and after.
    pub(super) placement: Placement,
    /// Clients that were still waiting for something long after the end.
    pub(super) unfinished: usize,
}

impl Found {
    /// Returns what is wrong, if anything is.
    pub(super) fn failure(&self) -> Option<String> {
        let all = self.counts.last()?;
        let first = all.first_error.as_deref().unwrap_or("none");
        match (all.errors, self.unfinished) {
            (0, 0) => None,
            (errors, 0) => Some(format!(
                "{errors} pieces of work failed; the first: {first}"
            )),
            (errors, unfinished) => Some(format!(
                "{unfinished} clients still wait for something, and {errors} pieces of work failed; the first: {first}"
            )),
        }
    }

    fn after(&self) -> Memory {
        let last = self.timeline.moments().last();
        last.map_or(self.before, |(_, memory)| *memory)
    }

    /// Returns a row for each kind of work, and one for all with what it cost.
    pub(super) fn json(&self) -> Vec<Value> {
        let mut rows: Vec<_> = self.counts.iter().map(|count| self.row(count)).collect();
        if let Some(all) = rows.last_mut() {
            all["server_cpus_used"] = json!(self.cpus[0]);
            all["client_cpus_used"] = json!(self.cpus[1]);
            let moments = [
                ("before", self.before),
                ("most", self.timeline.most().1),
                ("after", self.after()),
            ];
            for (moment, found) in moments {
                all[format!("private_bytes_{moment}")] = json!(found.private_bytes);
                all[format!("region_bytes_{moment}")] = json!(found.region_bytes);
            }
            all["unfinished"] = json!(self.unfinished);
        }
        rows
    }

    fn row(&self, count: &Count) -> Value {
        let quantile = |quantile| count.latency.value_at_quantile(quantile);
        json!({
            "bench": "stress",
            "group": count.name,
            "peer": "doorbell",
            "mode": "async",
            "spin": self.waiting.name(),
            "connections": self.connections,
            "seed": self.seed,
            "seconds": self.length.as_secs_f64(),
            "messages": count.messages,
            "errors": count.errors,
            "first_error": count.first_error,
            "per_s": self.per_s(count.messages),
            "bytes_per_s": self.per_s(count.bytes),
            "p50_ns": quantile(0.5),
            "p99_ns": quantile(0.99),
            "p999_ns": quantile(0.999),
            "max_ns": count.latency.max(),
            "near_far": self.placement.name(),
            "runs": 1,
        })
    }

    fn cells(&self, count: &Count) -> Vec<String> {
        let quantile = |quantile| duration(count.latency.value_at_quantile(quantile) as f64);
        vec![
            count.name.into(),
            count.messages.to_string(),
            rate(self.per_s(count.messages)),
            format!("{}B/s", rate(self.per_s(count.bytes))),
            quantile(0.5),
            quantile(0.99),
            quantile(0.999),
            duration(count.latency.max() as f64),
            count.errors.to_string(),
        ]
    }

    fn per_s(&self, amount: u64) -> f64 {
        amount as f64 / self.length.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    fn costs(&self) -> Sheet {
        let line = |moment: &str, found: Memory| {
            let bytes = [found.private_bytes, found.region_bytes, found.all()];
            let cells = bytes.map(|bytes| memory(bytes as f64));
            [moment.to_owned()].into_iter().chain(cells).collect()
        };
        let title = format!(
            "CPUs kept busy: {:.2} by the server, {:.2} by the clients. Memory of the server:",
            self.cpus[0], self.cpus[1]
        );
        let moments = [
            line("before", self.before),
            line("most", self.timeline.most().1),
            line("after", self.after()),
        ];
        Sheet::new(title, &COSTS_HEADER, 1, moments)
    }
}

/// Returns tables and plots.
pub(super) fn section(found: &Found) -> Section {
    let title = format!(
        "{} clients for {:.1} s, seed {}, CPUs {}; times are those of whole pieces of work",
        found.connections,
        found.length.as_secs_f64(),
        found.seed,
        found.placement.name(),
    );
    let lines = found.counts.iter().map(|count| found.cells(count));
    let distributions = found
        .counts
        .iter()
        .filter(|count| !count.latency.is_empty());
    let distributions = distributions.map(|count| {
        let is_all = count.name == found.counts[found.counts.len() - 1].name;
        (
            count.name.to_owned(),
            is_all,
            distribution_ns(&count.latency),
        )
    });
    let rates = Plot {
        title: "messages over time".into(),
        x: Axis::linear("time", Quantity::Seconds),
        y: Axis::linear("messages each second", Quantity::PerSecond),
        curves: vec![Curve {
            name: "all clients".into(),
            is_reference: false,
            points: found.rates.clone(),
        }],
        shape: Shape::Lines,
    };
    let plots = vec![
        plot::of_distributions("how long work took".into(), distributions),
        rates,
        timeline::plot("memory of the server", &[("server", &found.timeline)]),
    ];
    Section {
        bench: "stress",
        about: "Many clients that do everything at once: calls of 100 B to 10 MB, streams in all directions, bursts, and \
                connections that come and go. Every byte that comes back is compared with what was sent; the number of errors \
                has to be 0.",
        sheets: vec![Sheet::new(title, &HEADER, 1, lines), found.costs()],
        plots,
    }
}

const HEADER: [&str; 9] = [
    "work", "messages", "per s", "bytes", "p50", "p99", "p99.9", "longest", "errors",
];

const COSTS_HEADER: [&str; 4] = ["moment", "private", "regions touched", "together"];

//! What a soak has found, as rows, tables and plots.

use std::time::Duration;

use serde_json::{Value, json};

use super::descriptors::Descriptors;
use super::slope::slope_per_hour;
use crate::bench::options::Waiting;
use crate::bench::output::Section;
use crate::bench::process_cost::Memory;
use crate::bench::sample::median;
use crate::bench::stress::tally::Count;
use crate::bench::table::{Sheet, duration, memory, rate};
use crate::bench::timeline::{self, Timeline};

/// Everything a soak has found.
pub(super) struct Found {
    /// What the clients did.
    pub(super) work: &'static str,
    pub(super) waiting: Waiting,
    pub(super) length: Duration,
    pub(super) counts: Vec<Count>,
    pub(super) sides: [Side; 2],
    /// Clients that were still waiting for something long after the end.
    pub(super) unfinished: usize,
}

/// A process that was watched.
pub(super) struct Side {
    pub(super) name: &'static str,
    pub(super) timeline: Timeline,
    pub(super) descriptors: Descriptors,
}

/// What became of the memory of a process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Verdict {
    /// So much, in parts of what it was after the warm-up.
    Steady(f64),
    Grows(f64),
    /// There were too few looks.
    Unknown,
}

impl Side {
    /// Returns the median of one tenth of all looks.
    fn typical(&self, tenth: usize, part: Part) -> Option<f64> {
        let moments = self.timeline.moments();
        let at = |tenth| tenth * moments.len() / 10;
        let moments = moments[at(tenth)..at(tenth + 1)].iter();
        median(moments.map(|(_, memory)| part(memory) as f64))
    }

    pub(super) fn verdict(&self) -> Verdict {
        let all = Memory::all;
        match self.typical(1, all).zip(self.typical(9, all)) {
            Some((early, late)) if early > 0.0 => match late / early - 1.0 {
                growth if growth > MOST_GROWTH => Verdict::Grows(growth),
                growth => Verdict::Steady(growth),
            },
            _ => Verdict::Unknown,
        }
    }

    /// Returns by how much of what it holds the process grows in an hour, after the first tenth of the time.
    pub(super) fn slope(&self) -> Option<f64> {
        let moments = self.timeline.moments();
        slope_per_hour(&moments[moments.len() / 10..])
    }

    /// Returns what the process held in each tenth.
    fn tenths(&self, part: Part) -> Vec<Option<f64>> {
        (0..10).map(|tenth| self.typical(tenth, part)).collect()
    }

    /// Returns a line of a table for each part of the memory, and one for all, with the verdict.
    fn lines(&self) -> [Vec<String>; 3] {
        let verdict = self.verdict();
        let percent = |part: f64, unit: &str| format!("{:+.2} %{unit}, ", part * 100.0);
        let growth = verdict.growth().map(|growth| percent(growth, ""));
        let slope = self.slope().map(|slope| percent(slope, "/h"));
        let verdict = [growth, slope, Some(verdict.name().to_owned())];
        let verdict = verdict.into_iter().flatten().collect();
        let parts: [(&str, Part, String); 3] = [
            ("private", |memory| memory.private_bytes, String::new()),
            ("regions", |memory| memory.region_bytes, String::new()),
            ("together", |memory| memory.all(), verdict),
        ];
        parts.map(|(name, part, verdict)| {
            let cells = self.tenths(part).into_iter();
            let cells = cells.map(|bytes| bytes.map_or_else(|| "–".into(), memory));
            let names = [self.name.to_owned(), name.to_owned()];
            names.into_iter().chain(cells).chain([verdict]).collect()
        })
    }
}

/// A part of the memory of a process.
type Part = fn(&Memory) -> u64;

impl Verdict {
    fn growth(self) -> Option<f64> {
        match self {
            Self::Steady(growth) | Self::Grows(growth) => Some(growth),
            Self::Unknown => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Steady(_) => "steady",
            Self::Grows(_) => "grows",
            Self::Unknown => "unknown",
        }
    }
}

impl Found {
    fn per_s(&self, count: &Count) -> f64 {
        count.messages as f64 / self.length.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    pub(super) fn json(&self) -> Vec<Value> {
        let all = self.counts.last();
        let row = |side: &Side| {
            json!({
                "bench": "soak",
                "group": side.name,
                "peer": "doorbell",
                "mode": "async",
                "work": self.work,
                "spin": self.waiting.name(),
                "seconds": self.length.as_secs_f64(),
                "messages": all.map(|count| count.messages),
                "errors": all.map(|count| count.errors),
                "unfinished": self.unfinished,
                "per_s": all.map(|count| self.per_s(count)),
                "private_bytes_by_tenth": side.tenths(|memory| memory.private_bytes),
                "region_bytes_by_tenth": side.tenths(|memory| memory.region_bytes),
                "growth": side.verdict().growth(),
                "slope_per_hour": side.slope(),
                "descriptors_before": side.descriptors.before,
                "descriptors_after": side.descriptors.after,
                "verdict": side.verdict().name(),
                "runs": 1,
            })
        };
        self.sides.iter().map(row).collect()
    }

    pub(super) fn section(&self) -> Section {
        let lines = self.counts.iter().map(|count| {
            let quantile = |quantile| duration(count.latency.value_at_quantile(quantile) as f64);
            vec![
                count.name.into(),
                count.messages.to_string(),
                rate(self.per_s(count)),
                quantile(0.5),
                quantile(0.99),
                quantile(0.999),
                count.errors.to_string(),
            ]
        });
        let descriptors = self.sides.iter().map(|side| {
            let Descriptors { before, after, .. } = side.descriptors;
            vec![side.name.into(), before.to_string(), after.to_string()]
        });
        let [server, clients] = &self.sides;
        Section {
            bench: "soak",
            about: "Messages at a steady rate for a long time. Memory may not grow by more than 1 % from the second tenth of \
                    the time to the last; what it grows in an hour is the median of the slopes between any two looks after the first \
                    tenth.",
            sheets: vec![
                Sheet::new(
                    "Memory in each tenth of the time",
                    &TENTHS_HEADER,
                    2,
                    self.sides.iter().flat_map(Side::lines),
                ),
                Sheet::new("Work done", &WORK_HEADER, 1, lines),
                Sheet::new("Open descriptors", &DESCRIPTORS_HEADER, 1, descriptors),
            ],
            plots: vec![
                timeline::plot("memory of the server", &[(server.name, &server.timeline)]),
                timeline::plot(
                    "memory of the clients",
                    &[(clients.name, &clients.timeline)],
                ),
            ],
        }
    }
}

const TENTHS_HEADER: [&str; 13] = [
    "process", "memory", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "growth",
];
const WORK_HEADER: [&str; 7] = ["work", "messages", "per s", "p50", "p99", "p99.9", "errors"];

const DESCRIPTORS_HEADER: [&str; 3] = ["process", "before", "after all clients have left"];

/// How much more than after the warm-up a process may hold in the end, in parts of that.
const MOST_GROWTH: f64 = 0.01;

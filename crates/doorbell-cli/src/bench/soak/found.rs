//! What a soak has found, as rows, tables and plots.

use std::time::Duration;

use serde_json::{Value, json};

use super::descriptors::Descriptors;
use super::series::{Part, Series};
use crate::bench::options::Waiting;
use crate::bench::output::Section;
use crate::bench::plot::Plot;
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
    /// What it held while the clients worked.
    pub(super) at_work: Timeline,
    /// What it held while they [rested](super::rest).
    pub(super) at_rest: Timeline,
    /// What its allocator had handed out then, where it tells.
    pub(super) heap_in_use: Series,
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
    /// Counts the descriptors of a process that has no connection yet. There is room for so many looks.
    pub(super) fn new(name: &'static str, process: u32, looks: usize) -> Self {
        Self {
            name,
            at_work: Timeline::with_room(process, looks),
            at_rest: Timeline::with_room(process, looks),
            heap_in_use: Series::with_room(looks),
            descriptors: Descriptors::of_process(process),
        }
    }

    /// Returns all memory at rest, which is what may not grow.
    pub(super) fn resident(&self) -> Series {
        Series::of(&self.at_rest, RESIDENT)
    }

    pub(super) fn verdict(&self) -> Verdict {
        match self.resident().growth() {
            Some(growth) if growth > MOST_GROWTH => Verdict::Grows(growth),
            Some(growth) => Verdict::Steady(growth),
            None => Verdict::Unknown,
        }
    }

    /// Returns every kind of memory, with its name.
    fn memory(&self) -> Vec<(&'static str, Series)> {
        let private: Part = |memory| memory.private_bytes;
        let regions: Part = |memory| memory.region_bytes;
        let mut all = vec![
            (AT_REST, self.resident()),
            ("– private", Series::of(&self.at_rest, private)),
            ("– regions", Series::of(&self.at_rest, regions)),
            ("heap in use", self.heap_in_use.clone()),
            ("at work", Series::of(&self.at_work, RESIDENT)),
        ];
        all.retain(|(_, series)| series.first().is_some());
        all
    }

    fn plot(&self) -> Plot {
        let name = format!("memory of the {}", self.name);
        timeline::plot(
            &name,
            &[("at work", &self.at_work), ("at rest", &self.at_rest)],
        )
    }

    /// Returns a line of a table for each kind of memory: its ends, and how fast it grows.
    fn ends(&self) -> Vec<Vec<String>> {
        let line = |(name, series): (&str, Series)| {
            let slope = series.slope();
            let cells = [
                series.first().map(memory),
                series.last().map(memory),
                series.most().map(memory),
                series
                    .growth()
                    .map(|part| format!("{:+.2} %", part * 100.0)),
                slope.map(|slope| format!("{:+.2} %/h", slope.part * 100.0)),
                slope.map(|slope| format!("{:+.1} KiB/h", slope.bytes / 1024.0)),
            ];
            let names = [self.name.to_owned(), name.to_owned()];
            let cells = cells.map(|cell| cell.unwrap_or_else(|| "–".into()));
            let verdict = match name {
                AT_REST => self.verdict().name(),
                _ => "",
            };
            let cells = names.into_iter().chain(cells);
            cells.chain([verdict.to_owned()]).collect()
        };
        self.memory().into_iter().map(line).collect()
    }

    /// Returns a line of a table for each kind of memory: what there was of it in each tenth.
    fn tenths(&self) -> Vec<Vec<String>> {
        let line = |(name, series): (&str, Series)| {
            let cells = series.tenths().into_iter();
            let cells = cells.map(|bytes| bytes.map_or_else(|| "–".into(), memory));
            let names = [self.name.to_owned(), name.to_owned()];
            names.into_iter().chain(cells).collect()
        };
        self.memory().into_iter().map(line).collect()
    }
}

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
                "at_rest": side.resident().json(),
                "at_work": Series::of(&side.at_work, RESIDENT).json(),
                "heap_in_use": side.heap_in_use.json(),
                "growth": side.verdict().growth(),
                "slope_per_hour": side.resident().slope().map(|slope| slope.part),
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
        Section {
            bench: "soak",
            about: "Messages at a steady rate for a long time. Now and then all clients rest, connections and allocators give back what \
                    they keep, and everything is counted that both processes have in memory. After the first tenth of the time this \
                    may not grow by more than 1 % to the last tenth. A slope is the median of those between any two moments after the \
                    first tenth, in parts of the median (Theil and Sen).",
            sheets: vec![
                Sheet::new(
                    "Memory",
                    &ENDS_HEADER,
                    2,
                    self.sides.iter().flat_map(Side::ends),
                ),
                Sheet::new(
                    "Memory in each tenth of the time",
                    &TENTHS_HEADER,
                    2,
                    self.sides.iter().flat_map(Side::tenths),
                ),
                Sheet::new("Work done", &WORK_HEADER, 1, lines),
                Sheet::new("Open descriptors", &DESCRIPTORS_HEADER, 1, descriptors),
            ],
            plots: self.sides.iter().map(Side::plot).collect(),
        }
    }
}

const AT_REST: &str = "at rest";

const ENDS_HEADER: [&str; 9] = [
    "process", "memory", "first", "last", "most", "growth", "slope", "that is", "",
];
const TENTHS_HEADER: [&str; 12] = [
    "process", "memory", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10",
];
const WORK_HEADER: [&str; 7] = ["work", "messages", "per s", "p50", "p99", "p99.9", "errors"];

const DESCRIPTORS_HEADER: [&str; 3] = ["process", "before", "after all clients have left"];

/// How much more than after the warm-up a process may hold in the end, in parts of that.
const MOST_GROWTH: f64 = 0.01;

const RESIDENT: Part = |memory| memory.resident_bytes;

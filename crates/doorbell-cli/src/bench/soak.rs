//! What `bench soak` measures: whether memory grows while messages come at a steady rate for a long time.
//!
//! The first tenth is warm-up. The second tenth is compared with the last one, by their medians, for the server and for the
//! clients.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::options::{Common, Waiting};
use super::output::{Output, Section};
use super::peer::{self, Peer};
use super::process_cost::Memory;
use super::progress::Progress;
use super::sample::median;
use super::stress::client::Worker;
use super::stress::mix::{self, Bytes, Mix};
use super::stress::tally::{Count, Tally};
use super::subject::{Api, Role};
use super::table::{Sheet, duration, memory, rate};
use super::timeline::{self, Timeline};
use crate::interrupt::interrupted;

/// Options of `bench soak`.
#[derive(Clone, Debug, Args)]
pub(crate) struct SoakArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    /// How long it lasts
    #[arg(long, default_value_t = 10.0, value_parser = minutes)]
    minutes: f64,
    /// Pieces of work each minute, of all clients together
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    rate: u32,
    /// How many clients share the work
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=4096))]
    connections: u32,
    /// What the clients do: the same seed gives the same work
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl SoakArgs {
    fn length(&self) -> Duration {
        match self.common.quick {
            true => QUICK_LENGTH,
            false => Duration::from_secs_f64(self.minutes * 60.0),
        }
    }

    /// Returns how long each client waits from the beginning of one piece of work to the next.
    fn period(&self) -> Duration {
        Duration::from_secs_f64(60.0 * f64::from(self.connections) / f64::from(self.rate))
    }
}

fn minutes(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(minutes) if (0.01..=100_000.0).contains(&minutes) => Ok(minutes),
        _ => Err("give a number of minutes from 0.01 to 100000".into()),
    }
}

/// Lets the clients work, and puts out how memory went.
///
/// # Errors
///
/// If anything failed, or memory grew more than it may. All that was found is put out before.
pub(crate) fn run(args: &SoakArgs, output: &mut Output) -> anyhow::Result<()> {
    let found = measure(args)?;
    output.json(found.json())?;
    output.section(found.section())?;
    let all = found.counts.last();
    if let Some(error) = all.and_then(|count| count.first_error.as_deref()) {
        bail!("a piece of work failed: {error}");
    }
    // A moment shows no growth, and neither does a run that was cut short.
    if !args.common.quick && !interrupted() {
        for side in &found.sides {
            if let Verdict::Grows(growth) = side.verdict() {
                bail!(
                    "memory of the {} grew by {:.1} %",
                    side.name,
                    growth * 100.0
                );
            }
        }
    }
    Ok(())
}

/// Everything a soak has found.
struct Found {
    length: Duration,
    counts: Vec<Count>,
    sides: [Side; 2],
}

/// A process whose memory was watched.
struct Side {
    name: &'static str,
    timeline: Timeline,
}

/// What became of the memory of a process.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Verdict {
    /// So much, in parts of what it was after the warm-up.
    Steady(f64),
    Grows(f64),
    /// There were too few looks.
    Unknown,
}

fn measure(args: &SoakArgs) -> anyhow::Result<Found> {
    let progress = Progress::start(args.length().as_secs().max(1));
    let peer = Peer::start(
        peer::Role::Subject(Role {
            api: Api::Awaiting,
            waiting: Waiting::Adaptive,
        }),
        None,
    )?;
    let runtime = Runtime::new().context("cannot make a runtime")?;
    let (tally, bytes) = (Arc::new(Tally::new()), Bytes::of_seed(args.seed));
    let (started, period) = (Instant::now(), args.period());
    let end = started + args.length();
    let mut clients = JoinSet::new();
    for number in 0..args.connections {
        let worker = runtime.block_on(Worker::connect(peer.name()?))?;
        let mix = Mix::new(mix::STEADY, &bytes, args.seed, number as usize);
        let first = started + period * number / args.connections;
        let paced = Paced {
            worker,
            mix,
            first,
            period,
        };
        clients.spawn_on(paced.work(Arc::clone(&tally), end), runtime.handle());
    }
    let mut sides =
        [("server", peer.id()), ("clients", std::process::id())].map(|(name, id)| Side {
            name,
            timeline: Timeline::start(id),
        });
    let between_looks = args.length() / LOOKS;
    while Instant::now() < end && !interrupted() {
        for side in &mut sides {
            side.timeline.look()?;
        }
        progress.reach(started.elapsed().as_secs());
        let all = sides[0].timeline.most().1.all();
        progress.next(format!(
            "{} messages, the server held {} at most",
            tally.messages(),
            memory(all as f64)
        ));
        nap(between_looks);
    }
    progress.finish();
    let length = started.elapsed();
    runtime.block_on(async { while clients.join_next().await.is_some() {} });
    Ok(Found {
        length,
        counts: tally.counts(),
        sides,
    })
}

/// Sleeps, but not through a Ctrl-C.
fn nap(length: Duration) {
    let end = Instant::now() + length;
    while Instant::now() < end && !interrupted() {
        thread::sleep(LOOK_FOR_INTERRUPT.min(end.saturating_duration_since(Instant::now())));
    }
}

/// A client that works at a steady rate.
struct Paced {
    worker: Worker,
    mix: Mix,
    first: Instant,
    period: Duration,
}

impl Paced {
    async fn work(mut self, tally: Arc<Tally>, end: Instant) {
        let mut due = self.first;
        while due < end && !interrupted() {
            tokio::time::sleep_until(due.into()).await;
            let work = self.mix.next();
            let started = Instant::now();
            let result = self.worker.work(&work).await;
            tally.count(work.kind, started.elapsed(), &result);
            due += self.period; // a late one is made up for
        }
    }
}

impl Side {
    /// Returns the median of one tenth of all looks.
    fn typical(&self, tenth: usize, part: Part) -> Option<f64> {
        let moments = self.timeline.moments();
        let at = |tenth| tenth * moments.len() / 10;
        let moments = moments[at(tenth)..at(tenth + 1)].iter();
        median(moments.map(|(_, memory)| part(memory) as f64))
    }

    fn verdict(&self) -> Verdict {
        let all = Memory::all;
        match self.typical(1, all).zip(self.typical(9, all)) {
            Some((early, late)) if early > 0.0 => match late / early - 1.0 {
                growth if growth > MOST_GROWTH => Verdict::Grows(growth),
                growth => Verdict::Steady(growth),
            },
            _ => Verdict::Unknown,
        }
    }

    /// Returns what the process held in each tenth.
    fn tenths(&self, part: Part) -> Vec<Option<f64>> {
        (0..10).map(|tenth| self.typical(tenth, part)).collect()
    }

    /// Returns a line of a table for each part of the memory, and one for all, with the verdict.
    fn lines(&self) -> [Vec<String>; 3] {
        let verdict = self.verdict();
        let growth = verdict
            .growth()
            .map(|growth| format!("{:+.2} %, ", growth * 100.0));
        let verdict = format!("{}{}", growth.unwrap_or_default(), verdict.name());
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

    fn json(&self) -> Vec<Value> {
        let all = self.counts.last();
        let row = |side: &Side| {
            json!({
                "bench": "soak",
                "group": side.name,
                "peer": "doorbell",
                "mode": "async",
                "seconds": self.length.as_secs_f64(),
                "messages": all.map(|count| count.messages),
                "errors": all.map(|count| count.errors),
                "per_s": all.map(|count| self.per_s(count)),
                "private_bytes_by_tenth": side.tenths(|memory| memory.private_bytes),
                "region_bytes_by_tenth": side.tenths(|memory| memory.region_bytes),
                "growth": side.verdict().growth(),
                "verdict": side.verdict().name(),
                "runs": 1,
            })
        };
        self.sides.iter().map(row).collect()
    }

    fn section(&self) -> Section {
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
        let [server, clients] = &self.sides;
        Section {
            bench: "soak",
            about: "Messages at a steady rate for a long time. Memory may not grow by more than 1 % from the second tenth of \
                    the time to the last.",
            sheets: vec![
                Sheet::new(
                    "Memory in each tenth of the time",
                    &TENTHS_HEADER,
                    2,
                    self.sides.iter().flat_map(Side::lines),
                ),
                Sheet::new("Work done", &WORK_HEADER, 1, lines),
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

/// How much more than after the warm-up a process may hold in the end, in parts of that.
const MOST_GROWTH: f64 = 0.01;

/// How often the processes are looked at.
const LOOKS: u32 = 600;
const LOOK_FOR_INTERRUPT: Duration = Duration::from_millis(100);
const QUICK_LENGTH: Duration = Duration::from_millis(600);

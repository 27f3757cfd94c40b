//! What `bench soak` measures: whether memory grows while messages come at a steady rate for a long time.
//!
//! The first tenth is warm-up. The second tenth is compared with the last one, by their medians, for the server and for the
//! clients.

mod found;

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use self::found::{Found, Side, Verdict};
use super::options::Common;
use super::output::Output;
use super::peer::{self, Peer};
use super::progress::Progress;
use super::stress::client::Worker;
use super::stress::mix::{self, Bytes, Mix};
use super::stress::tally::Tally;
use super::stress::wait_for;
use super::subject::{Api, Role};
use super::timeline::Timeline;
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
    ensure!(
        found.unfinished == 0,
        "{} clients still wait for something",
        found.unfinished
    );
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

fn measure(args: &SoakArgs) -> anyhow::Result<Found> {
    let progress = Progress::start(args.length().as_secs().max(1));
    let peer = Peer::start(
        peer::Role::Subject(Role {
            api: Api::Awaiting,
            waiting: args.common.waiting(),
        }),
        None,
    )?;
    let runtime = Runtime::new().context("cannot make a runtime")?;
    let (tally, bytes) = (Arc::new(Tally::new()), Bytes::of_seed(args.seed));
    let (started, period) = (Instant::now(), args.period());
    let end = started + args.length();
    let mut clients = JoinSet::new();
    for number in 0..args.connections {
        let worker = runtime.block_on(Worker::connect(peer.name()?, args.common.waiting()))?;
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
    watch(args, &tally, &mut sides, &progress);
    progress.finish();
    let length = started.elapsed();
    let finished = runtime.block_on(wait_for(&mut clients)).len();
    Ok(Found {
        unfinished: args.connections as usize - finished,
        waiting: args.common.waiting(),
        length,
        counts: tally.counts(),
        sides,
    })
}

/// Looks at both sides until the time is over.
fn watch(args: &SoakArgs, tally: &Tally, sides: &mut [Side], progress: &Progress) {
    let started = Instant::now();
    let end = started + args.length();
    while Instant::now() < end && !interrupted() {
        for side in &mut *sides {
            if side.timeline.look().is_err() {
                return; // it is gone, which the clients will have noticed
            }
        }
        progress.reach(started.elapsed().as_secs());
        progress.next(format!("{} messages", tally.messages()));
        nap(args.length() / LOOKS);
    }
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
        while due < end && Instant::now() < end && !interrupted() {
            tokio::time::sleep_until(due.into()).await;
            let work = self.mix.next();
            let started = Instant::now();
            let result = self.worker.work(&work).await;
            tally.count(work.kind, started.elapsed(), &result);
            due += self.period; // a late one is made up for
        }
    }
}

/// How often the processes are looked at.
const LOOKS: u32 = 600;
const LOOK_FOR_INTERRUPT: Duration = Duration::from_millis(100);
const QUICK_LENGTH: Duration = Duration::from_millis(600);

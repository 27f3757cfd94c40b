//! What `bench stress` measures: everything at once, with every byte looked at.
//!
//! Many clients do one thing after the other: calls of all sizes, some of them lent, streams, bursts, and now and then they leave and come back.
//! What they do depends on the seed alone.

pub(crate) mod client;
pub(crate) mod mix;
mod rows;
pub(crate) mod tally;

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use doorbell_shm::sys;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use self::client::Worker;
use self::mix::{Bytes, Mix};
use self::rows::{Found, section};
use self::tally::Tally;
use super::case::explain_connection;
use super::options::{Common, CpuPair, positive_seconds};
use super::output::Output;
use super::peer::{self, Peer};
use super::process_cost::Activity;
use super::progress::Progress;
use super::reference::bounce;
use super::row::Placement;
use super::subject::{Api, Role};
use super::timeline::Timeline;
use crate::interrupt::interrupted;

/// Options of `bench stress`.
#[derive(Clone, Debug, Args)]
pub(crate) struct StressArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    /// How long it lasts, in seconds
    #[arg(long, default_value_t = 30.0, value_parser = positive_seconds)]
    seconds: f64,
    /// How many clients there are [default: 1000, and 10 with --quick]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=4096))]
    connections: Option<u32>,
    /// What the clients do: the same seed gives the same work
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl StressArgs {
    fn connections(&self) -> u32 {
        let natural = if self.common.quick { 10 } else { 1000 };
        self.connections.unwrap_or(natural)
    }

    fn length(&self) -> Duration {
        match self.common.quick {
            true => QUICK_LENGTH,
            false => Duration::from_secs_f64(self.seconds),
        }
    }
}

/// Lets the clients work, and puts out what they found.
///
/// # Errors
///
/// If anything failed or came back changed. All that was counted is put out before.
pub(crate) fn run(args: &StressArgs, output: &mut Output) -> anyhow::Result<()> {
    let found = measure(args)?;
    output.json(found.json())?;
    let section = section(&found);
    output.section(section)?;
    match found.failure() {
        Some(failure) => bail!(failure),
        None => Ok(()),
    }
}

fn measure(args: &StressArgs) -> anyhow::Result<Found> {
    let progress = Progress::start(args.length().as_secs().max(1));
    let bounce_before = bounce_now(args.common.quick)?;
    let peer = Peer::start(
        peer::Role::Subject(Role {
            api: Api::Awaiting,
            waiting: args.common.waiting(),
        }),
        None,
    )?;
    let runtime = Runtime::new().context("cannot make a runtime")?;
    progress.next(format!("{} connections are made", args.connections()));
    let workers = runtime.block_on(connect(&peer, args))?;
    // All this takes a while on a loaded machine, and is no part of the time.
    let (tally, bytes) = (Arc::new(Tally::new()), Bytes::of_seed(args.seed));
    let mut timeline = Timeline::start(peer.id());
    let before = timeline.look()?.1;
    let activity = || {
        anyhow::Ok([
            Activity::of_process(peer.id())?,
            Activity::of_process(std::process::id())?,
        ])
    };
    let (activity_before, started) = (activity()?, Instant::now());

    let end = started + args.length();
    let mut clients = JoinSet::new();
    for (number, worker) in workers.into_iter().enumerate() {
        let mix = Mix::new(mix::ALL, &bytes, args.seed, number);
        clients.spawn_on(work(worker, mix, Arc::clone(&tally), end), runtime.handle());
    }
    let rates = watch(args, &tally, &mut timeline, &progress);
    let workers = runtime.block_on(wait_for(&mut clients));
    let length = started.elapsed();
    // Of a server that is gone nothing can be read; what the clients have counted tells what happened.
    let [server, own] = activity().unwrap_or(activity_before);
    let cpus = |now: Activity, before| now.since(before).cpu.as_secs_f64() / length.as_secs_f64();
    let cpus = [
        cpus(server, activity_before[0]),
        cpus(own, activity_before[1]),
    ];
    progress.next("what is left is looked at".into());
    if !args.common.quick && !interrupted() {
        thread::sleep(TIME_TO_SETTLE);
    }
    _ = timeline.look();
    progress.finish();
    Ok(Found {
        placement: Placement::of_bounces(&[bounce_before, bounce_now(args.common.quick)?].concat()),
        connections: args.connections(),
        seed: args.seed,
        waiting: args.common.waiting(),
        length,
        counts: tally.counts(),
        rates,
        before,
        timeline,
        cpus,
        unfinished: args.connections() as usize - workers.len(),
    })
}

/// Looks at the server until the time is over; returns the messages each second, with the seconds that had passed.
fn watch(
    args: &StressArgs,
    tally: &Tally,
    timeline: &mut Timeline,
    progress: &Progress,
) -> Vec<(f64, f64)> {
    let started = Instant::now();
    let end = started + args.length();
    let between_looks = (args.length() / LOOKS).max(LEAST_BETWEEN_LOOKS);
    let mut rates = Vec::new();
    let (mut looked, mut known) = (started, 0);
    // Once at least, however late it is.
    while (rates.is_empty() || Instant::now() < end) && !interrupted() {
        thread::sleep(between_looks.min(end.saturating_duration_since(Instant::now())));
        if timeline.look().is_err() {
            break; // the server is gone, which the clients will have noticed
        }
        let (now, messages) = (Instant::now(), tally.messages());
        let rate = (messages - known) as f64 / (now - looked).as_secs_f64();
        rates.push(((now - started).as_secs_f64(), rate));
        progress.reach(started.elapsed().as_secs());
        progress.next(format!("{messages} messages"));
        (looked, known) = (now, messages);
    }
    rates
}

/// Returns how far the first two CPUs are from each other now; nothing where there is only one.
fn bounce_now(is_quick: bool) -> anyhow::Result<Vec<f64>> {
    let bounce = (sys::cpu_count() > 1).then(|| bounce::round_trip_ns(CpuPair::FIRST, is_quick));
    Ok(Vec::from_iter(bounce.transpose()?))
}

async fn connect(peer: &Peer, args: &StressArgs) -> anyhow::Result<Vec<Worker>> {
    let (count, waiting) = (args.connections(), args.common.waiting());
    let mut workers = Vec::new();
    for number in 1..=count {
        let explain = || explain_connection(number as usize, count as usize);
        workers.push(
            Worker::connect(peer.name()?, waiting)
                .await
                .with_context(explain)?,
        );
    }
    Ok(workers)
}

/// Works until the end, and keeps the connection so that its memory can be looked at. However late its turn comes, it does something.
async fn work(mut worker: Worker, mut mix: Mix, tally: Arc<Tally>, end: Instant) -> Worker {
    while !interrupted() {
        let work = mix.next();
        let started = Instant::now();
        let result = worker.work(&work).await;
        tally.count(work.kind, started.elapsed(), &result);
        if Instant::now() >= end {
            break;
        }
    }
    worker
}

/// Waits for all clients to finish what they have begun; returns what those give back that do.
pub(crate) async fn wait_for<T: 'static>(clients: &mut JoinSet<T>) -> Vec<T> {
    let mut finished = Vec::new();
    let all = async {
        while let Some(worker) = clients.join_next().await {
            finished.extend(worker);
        }
    };
    // What has not come by then will not come.
    _ = tokio::time::timeout(PATIENCE, all).await;
    finished
}

const QUICK_LENGTH: Duration = Duration::from_millis(500);

/// How often the server is looked at, which takes it a moment when it has many connections.
const LOOKS: u32 = 60;
const LEAST_BETWEEN_LOOKS: Duration = Duration::from_millis(100);
const TIME_TO_SETTLE: Duration = Duration::from_secs(2);

/// The last messages are large and many at once.
const PATIENCE: Duration = Duration::from_secs(60);

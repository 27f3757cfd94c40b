//! What `bench soak` measures: whether anything is left over when work comes at a steady rate for a long time.
//!
//! All clients connect at once, and work. Now and then all of them [rest], and everything is counted that the server and the clients have in
//! memory, and what their [allocators](heap) have handed out of it. The first tenth is warm-up. The second tenth is compared with the last
//! one, by their medians, and a [line](slope) is laid through everything after the warm-up. When the clients have left, both sides must have as
//! many descriptors as before.

mod descriptors;
mod found;
mod heap;
mod rest;
mod series;
mod slope;

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::{Args, ValueEnum};
use futures_util::future::try_join_all;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use self::found::{Found, Side, Verdict};
use self::rest::Gate;
use super::case::explain_connection;
use super::options::Common;
use super::output::Output;
use super::peer::{self, Peer};
use super::process_cost::Memory;
use super::progress::Progress;
use super::stress::client::Worker;
use super::stress::mix::{self, Bytes, Mix, Weights};
use super::stress::tally::Tally;
use super::stress::wait_for;
use super::subject::{Api, Role};
use crate::interrupt::interrupted;

/// Options of `bench soak`.
#[derive(Clone, Debug, Args)]
pub(crate) struct SoakArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    /// How long it lasts
    #[arg(long, default_value_t = 10.0, value_parser = minutes)]
    minutes: f64,
    /// What the clients do
    #[arg(long, value_enum, default_value_t = Kind::Steady)]
    work: Kind,
    /// Pieces of work each minute, of all clients together [default: 100000, and 6000 of churn]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    rate: Option<u32>,
    /// How many clients share the work
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=4096))]
    connections: u32,
    /// What the clients do: the same seed gives the same work
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Fails if memory at rest grows by so many percent an hour, or more: the median of the slopes between any two rests after the
    /// first tenth of the time [default: 1 from ten minutes on; the slope of a shorter time says nothing]
    #[arg(long, value_name = "PERCENT")]
    max_slope: Option<f64>,
}

/// What the clients do all the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Calls and streams, most of them small
    Steady,
    /// Everything: all sizes up to 10 MB, streams, bursts, clients that leave and come back
    Mixed,
    /// Clients that leave and come back for one call
    Churn,
}

impl Kind {
    fn weights(self) -> &'static Weights {
        match self {
            Self::Steady => mix::STEADY,
            Self::Mixed => mix::ALL,
            Self::Churn => mix::CHURN,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Mixed => "mixed",
            Self::Churn => "churn",
        }
    }
}

impl SoakArgs {
    fn length(&self) -> Duration {
        match self.common.quick {
            true => QUICK_LENGTH,
            false => Duration::from_secs_f64(self.minutes * 60.0),
        }
    }

    fn rate(&self) -> u32 {
        let natural = match self.work {
            Kind::Churn => 6_000,
            Kind::Steady | Kind::Mixed => 100_000,
        };
        self.rate.unwrap_or(natural)
    }

    /// Returns what the slope has to be below, in percent an hour.
    fn max_slope(&self) -> Option<f64> {
        let says_something = self.length() >= LONG_ENOUGH_FOR_A_SLOPE && heap::is_set_up();
        let natural = says_something.then_some(1.0);
        self.max_slope.or(natural)
    }

    /// Returns how many looks there will be at most.
    fn looks(&self) -> usize {
        let rests = self.length().as_secs_f64() / rest::between(self.length()).as_secs_f64();
        LOOKS.max(rests as u32) as usize + 2
    }

    /// Returns how long each client waits from the beginning of one piece of work to the next.
    fn period(&self) -> Duration {
        Duration::from_secs_f64(60.0 * f64::from(self.connections) / f64::from(self.rate()))
    }
}

fn minutes(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(minutes) if (0.01..=100_000.0).contains(&minutes) => Ok(minutes),
        _ => Err("give a number of minutes from 0.01 to 100000".into()),
    }
}

/// Prepares the process, which may begin anew for it.
///
/// # Errors
///
/// If it cannot.
pub(crate) fn prepare() -> anyhow::Result<()> {
    heap::set_up()
}

/// Lets the clients work, and puts out how memory went. Without [`prepare`] the allocator keeps more, and the slope is judged only if a
/// limit is given; growth always is.
///
/// # Errors
///
/// If anything failed, a descriptor is left over, or memory grew more than it may. All that was found is put out before.
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
    for side in &found.sides {
        let (before, after) = (side.descriptors.before, side.descriptors.after);
        ensure!(
            before == after,
            "the {} had {before} descriptors before and {after} after",
            side.name
        );
    }
    // A moment shows no growth, and neither does a run that was cut short.
    if !args.common.quick && !interrupted() {
        found
            .sides
            .iter()
            .try_for_each(|side| check_growth(side, args))?;
    }
    Ok(())
}

fn check_growth(side: &Side, args: &SoakArgs) -> anyhow::Result<()> {
    let name = side.name;
    if let Verdict::Grows(growth) = side.verdict() {
        bail!("memory of the {name} grew by {:.1} %", growth * 100.0);
    }
    if let Some(limit) = args.max_slope() {
        let slope = side
            .resident()
            .slope()
            .context("there were too few looks")?;
        let slope = slope.part * 100.0;
        ensure!(
            slope < limit,
            "memory of the {name} grows by {slope:.2} % an hour"
        );
    }
    Ok(())
}

fn measure(args: &SoakArgs) -> anyhow::Result<Found> {
    let progress = Progress::start(args.length().as_secs().max(1));
    let mut peer = Peer::start(
        peer::Role::Subject(Role {
            api: Api::Awaiting,
            waiting: args.common.waiting(),
        }),
        None,
    )?;
    let runtime = runtime()?;
    let mut sides = [("server", peer.id()), ("clients", std::process::id())]
        .map(|(name, process)| Side::new(name, process, args.looks()));
    let (tally, bytes) = (Arc::new(Tally::new()), Bytes::of_seed(args.seed));
    let workers = runtime.block_on(connect_at_once(peer.name()?, args))?;
    let (started, period) = (Instant::now(), args.period());
    let (end, gate) = (started + args.length(), Arc::new(Gate::default()));
    let mut clients = JoinSet::new();
    for (worker, number) in workers.into_iter().zip(0..) {
        let paced = Paced {
            worker,
            mix: Mix::new(args.work.weights(), &bytes, args.seed, number as usize),
            gate: Arc::clone(&gate),
            first: started + period * number / args.connections,
            period,
        };
        clients.spawn_on(paced.work(Arc::clone(&tally), end), runtime.handle());
    }
    let mut watch = Watch {
        args,
        peer: &mut peer,
        gate: &gate,
        runtime: &runtime,
        sides: &mut sides,
    };
    // A server that is gone is something the clients will have noticed.
    _ = watch.run(&tally, &progress);
    let length = started.elapsed();
    progress.finish();
    let finished = runtime.block_on(wait_for(&mut clients)).len(); // and closed with that
    drop(clients);
    for side in &mut sides {
        side.descriptors.wait_for_end();
    }
    Ok(Found {
        work: args.work.name(),
        unfinished: args.connections as usize - finished,
        waiting: args.common.waiting(),
        length,
        counts: tally.counts(),
        sides,
    })
}

/// Returns a runtime whose threads for what blocks, such as making a connection, end at a rest: how many there are depends on how much came at
/// once, and each has a stack.
fn runtime() -> anyhow::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_keep_alive(rest::TIME_TO_GIVE_BACK / 2)
        .build()
        .context("cannot make a runtime")
}

/// Makes all connections at the same time.
async fn connect_at_once(name: &str, args: &SoakArgs) -> anyhow::Result<Vec<Worker>> {
    let (waiting, count) = (args.common.waiting(), args.connections as usize);
    let connect = |number| async move {
        let connected = Worker::connect(name, waiting).await;
        connected.with_context(|| explain_connection(number, count))
    };
    try_join_all((1..=count).map(connect)).await
}

/// What looks at both sides.
struct Watch<'a> {
    args: &'a SoakArgs,
    peer: &'a mut Peer,
    gate: &'a Gate,
    runtime: &'a Runtime,
    sides: &'a mut [Side; 2],
}

impl Watch<'_> {
    /// Looks until the time is over, and lets the clients rest now and then, at the beginning and at the end too.
    fn run(&mut self, tally: &Tally, progress: &Progress) -> anyhow::Result<()> {
        let started = Instant::now();
        let end = started + self.args.length();
        let mut next_rest = started;
        while Instant::now() < end && !interrupted() {
            if Instant::now() >= next_rest {
                self.rest()?;
                next_rest += rest::between(self.args.length());
            }
            for side in &mut *self.sides {
                side.at_work.look()?;
            }
            progress.reach(started.elapsed().as_secs());
            progress.next(format!("{} messages", tally.messages()));
            nap(self.args.length() / LOOKS);
        }
        self.rest()
    }

    /// Waits until connections give nothing back any more: they come to it in groups, a second or so apart.
    fn wait_for_quiet(&self) -> anyhow::Result<()> {
        let began = Instant::now();
        let (mut least, mut since) = (u64::MAX, began);
        while since.elapsed() < rest::TIME_TO_GIVE_BACK
            && began.elapsed() < rest::PATIENCE
            && !interrupted()
        {
            let region_bytes = Memory::of_process(self.peer.id())?.region_bytes;
            if region_bytes < least {
                (least, since) = (region_bytes, Instant::now());
            }
            nap(rest::BETWEEN_LOOKS);
        }
        Ok(())
    }

    /// Lets everybody rest, and looks at what both sides keep.
    fn rest(&mut self) -> anyhow::Result<()> {
        let _closed = self
            .gate
            .close(self.runtime)
            .context("a client does not finish")?;
        if !self.args.common.quick {
            self.wait_for_quiet()?;
        }
        let in_use = [self.peer.rest()?, peer::rest()];
        for (side, in_use) in self.sides.iter_mut().zip(in_use) {
            let (at, _) = side.at_rest.look()?;
            if let Some(bytes) = in_use {
                side.heap_in_use.push(at, bytes);
            }
        }
        Ok(())
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
    gate: Arc<Gate>,
    first: Instant,
    period: Duration,
}

impl Paced {
    /// Works until the end, and returns the connection.
    async fn work(mut self, tally: Arc<Tally>, end: Instant) -> Worker {
        let mut due = self.first;
        while due < end && Instant::now() < end && !interrupted() {
            tokio::time::sleep_until(due.into()).await;
            let _working = self.gate.work().await;
            let work = self.mix.next();
            let started = Instant::now();
            let result = self.worker.work(&work).await;
            tally.count(work.kind, started.elapsed(), &result);
            due += self.period; // a late one is made up for
        }
        self.worker
    }
}

/// How often the processes are looked at.
const LOOKS: u32 = 600;
const LOOK_FOR_INTERRUPT: Duration = Duration::from_millis(100);
const LONG_ENOUGH_FOR_A_SLOPE: Duration = Duration::from_secs(10 * 60);
const QUICK_LENGTH: Duration = Duration::from_millis(600);

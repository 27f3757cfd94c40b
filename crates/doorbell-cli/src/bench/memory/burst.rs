//! A server all of whose clients send something large at once.
//!
//! Looked at before, with its connections idle, all the time meanwhile, and once more some seconds later: what the burst needed
//! has to be given back by then.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use doorbell::{Client, Raw};
use serde_json::json;
use tokio::task::JoinHandle;

use super::{MemoryArgs, api_name, start_server};
use crate::bench::case::explain_connection;
use crate::bench::options::Waiting;
use crate::bench::output::Output;
use crate::bench::peer::Peer;
use crate::bench::plot::Plot;
use crate::bench::process_cost::Memory;
use crate::bench::progress::Progress;
use crate::bench::subject::Api;
use crate::bench::table::{Sheet, memory};
use crate::bench::timeline::{self, Timeline};
use crate::echo::{Body, Echo};
use crate::interrupt::interrupted;

/// Measures both kinds of server.
///
/// # Errors
///
/// If a server or a call fails. What was measured before is put out.
pub(super) fn run(
    args: &MemoryArgs,
    output: &Output,
    sheets: &mut Vec<Sheet>,
    plots: &mut Vec<Plot>,
) -> anyhow::Result<()> {
    let (mut rows, mut timelines) = (Vec::new(), Vec::new());
    let progress = Progress::start(2);
    let mut result = Ok(());
    for api in [Api::Awaiting, Api::Blocking] {
        progress.next(format!("burst, {} server", api_name(api)));
        match measure(api, args) {
            Ok((found, timeline)) => {
                progress.suspend(|| output.json(found.iter().map(Row::to_json)))?;
                rows.extend(found);
                timelines.push((api_name(api), timeline));
            }
            Err(error) => result = Err(error),
        }
        progress.done(1);
        if interrupted() || result.is_err() {
            break;
        }
    }
    progress.finish();
    let title = format!(
        "A server before and after {} clients have sent {ROUNDS} messages of {} each",
        args.connections(),
        crate::bench::table::bytes(args.size)
    );
    sheets.push(Sheet::new(title, &HEADER, 2, rows.iter().map(Row::cells)));
    let seen: Vec<_> = timelines
        .iter()
        .map(|(name, timeline)| (*name, timeline))
        .collect();
    plots.push(timeline::plot("memory of the server in a burst", &seen));
    result
}

/// What the server held at one moment.
struct Row {
    mode: &'static str,
    waiting: Waiting,
    moment: &'static str,
    at: Duration,
    memory: Memory,
    before: Memory,
}

fn measure(api: Api, args: &MemoryArgs) -> anyhow::Result<(Vec<Row>, Timeline)> {
    let peer = start_server(api, args.common.waiting())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let clients = runtime.block_on(connect(&peer, args))?;
    let (settle, watch) = match args.common.quick {
        true => (Duration::ZERO, QUICK_WATCH),
        false => (TIME_TO_SETTLE, Duration::from_secs_f64(args.seconds)),
    };
    thread::sleep(settle);
    let mut timeline = Timeline::start(peer.id());
    let before = timeline.look()?;
    let burst: Vec<_> = clients
        .iter()
        .map(|client| runtime.spawn(large_calls(client.clone(), args.size)))
        .collect();
    while !burst.iter().all(JoinHandle::is_finished) {
        timeline.look()?;
        thread::sleep(BETWEEN_LOOKS);
    }
    let right_after = timeline.look()?;
    for calls in burst {
        runtime.block_on(calls)??;
    }
    let ended = Instant::now();
    while ended.elapsed() < watch && !interrupted() {
        thread::sleep(BETWEEN_LOOKS);
        timeline.look()?;
    }
    let later = timeline.look()?;
    let row = |moment, (at, memory)| Row {
        mode: api_name(api),
        waiting: args.common.waiting(),
        moment,
        at,
        memory,
        before: before.1,
    };
    let rows = vec![
        row("before", before),
        row("most", timeline.most()),
        row("right after", right_after),
        row("later", later),
    ];
    Ok((rows, timeline))
}

async fn connect(peer: &Peer, args: &MemoryArgs) -> anyhow::Result<Vec<Client>> {
    let (count, spin) = (args.connections(), args.common.waiting().spin());
    let mut clients = Vec::new();
    for number in 1..=count {
        let explain = || explain_connection(number as usize, count as usize);
        let client = Client::builder(peer.name()?).spin(spin).connect();
        let client = client.await.with_context(explain)?;
        client.call(Echo(Raw::of_size(64))).await?;
        clients.push(client);
    }
    Ok(clients)
}

async fn large_calls(client: Client, size_bytes: usize) -> anyhow::Result<()> {
    for _ in 0..ROUNDS {
        if interrupted() {
            break;
        }
        let body = Raw::of_size(size_bytes);
        let reply = client.call(Echo(body.clone())).await?;
        ensure!(reply.0 == body.0, "the echo is not what was sent");
    }
    Ok(())
}

impl Row {
    fn against_before(&self) -> f64 {
        self.memory.all() as f64 / (self.before.all() as f64).max(1.0)
    }

    fn to_json(&self) -> serde_json::Value {
        json!({
            "bench": "memory",
            "group": "burst",
            "peer": "doorbell",
            "mode": self.mode,
            "spin": self.waiting.name(),
            "moment": self.moment,
            "seconds": self.at.as_secs_f64(),
            "private_bytes": self.memory.private_bytes,
            "region_bytes": self.memory.region_bytes,
            "ratio": self.against_before(),
            "ratio_of": "memory before",
            "runs": 1,
        })
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.mode.into(),
            self.moment.into(),
            format!("{:.1} s", self.at.as_secs_f64()),
            memory(self.memory.private_bytes as f64),
            memory(self.memory.region_bytes as f64),
            format!("{:.2} × before", self.against_before()),
        ]
    }
}

const HEADER: [&str; 6] = [
    "server",
    "moment",
    "at",
    "private memory",
    "regions touched",
    "both together",
];

/// Messages that each client sends.
const ROUNDS: usize = 3;

const TIME_TO_SETTLE: Duration = Duration::from_secs(1);
const QUICK_WATCH: Duration = Duration::from_millis(100);
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

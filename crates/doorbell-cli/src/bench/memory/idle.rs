//! A server whose clients have nothing to say.
//!
//! Its memory, CPU time and wake-ups are read from the system, first without a connection, then with many, each of which has
//! made one call. Nobody asks the server anything meanwhile.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use doorbell::{Client, Spin, blocking};
use serde_json::json;

use super::{MemoryArgs, api_name, start_server};
use crate::bench::case::explain_connection;
use crate::bench::options::Waiting;
use crate::bench::output::Output;
use crate::bench::peer::Peer;
use crate::bench::process_cost::{Activity, Memory, system_shared_bytes};
use crate::bench::progress::Progress;
use crate::bench::subject::Api;
use crate::bench::table::{Sheet, memory};
use crate::echo::{Block, Body, Echo};
use crate::interrupt::interrupted;

/// Measures both kinds of server.
///
/// # Errors
///
/// If a server cannot be started or the system does not tell what it costs. What was measured before is put out.
pub(super) fn run(
    args: &MemoryArgs,
    output: &Output,
    sheets: &mut Vec<Sheet>,
) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    let progress = Progress::start(4);
    let mut result = Ok(());
    for api in [Api::Awaiting, Api::Blocking] {
        let known = rows.len();
        result = measure(api, args, &progress, &mut rows);
        progress.suspend(|| output.json(rows[known..].iter().map(Row::to_json)))?;
        if interrupted() || result.is_err() {
            break;
        }
    }
    progress.finish();
    let title = "A server with idle connections";
    sheets.push(Sheet::new(title, &HEADER, 1, rows.iter().map(Row::cells)));
    result
}

/// A server with so many idle connections.
struct Row {
    mode: &'static str,
    waiting: Waiting,
    connections: u32,
    memory: Memory,
    /// Shared memory that the whole system has more than before the connections; other programs count too.
    shared_bytes: u64,
    activity: Activity,
    watched: Duration,
}

fn measure(
    api: Api,
    args: &MemoryArgs,
    progress: &Progress,
    rows: &mut Vec<Row>,
) -> anyhow::Result<()> {
    let peer = start_server(api, args.common.waiting())?;
    let shared_before = system_shared_bytes()?;
    let settle = || {
        thread::sleep(if args.common.quick {
            Duration::ZERO
        } else {
            TIME_TO_SETTLE
        })
    };
    let connections = args.connections();
    progress.next(format!("{} server without connections", api_name(api)));
    settle();
    rows.push(watch(&peer, api, 0, shared_before, args)?);
    progress.done(1);
    progress.next(format!(
        "{} server with {} idle connections",
        api_name(api),
        connections
    ));
    let clients = Clients::connect(api, &peer, args)?;
    settle();
    rows.push(watch(&peer, api, clients.len(), shared_before, args)?);
    progress.done(1);
    Ok(())
}

fn watch(
    peer: &Peer,
    api: Api,
    connections: u32,
    shared_before: u64,
    args: &MemoryArgs,
) -> anyhow::Result<Row> {
    let length = if args.common.quick {
        QUICK_LENGTH
    } else {
        Duration::from_secs_f64(args.seconds)
    };
    let (before, started) = (Activity::of_process(peer.id())?, Instant::now());
    while started.elapsed() < length && !interrupted() {
        thread::sleep(LOOK_FOR_INTERRUPT.min(length));
    }
    Ok(Row {
        mode: api_name(api),
        waiting: args.common.waiting(),
        connections,
        activity: Activity::of_process(peer.id())?.since(before),
        watched: started.elapsed(),
        memory: Memory::of_process(peer.id())?,
        shared_bytes: system_shared_bytes()?.saturating_sub(shared_before),
    })
}

/// Connections that have been used once.
enum Clients {
    Awaiting {
        clients: Vec<Client>,
        _runtime: tokio::runtime::Runtime,
    },
    Blocking(Vec<blocking::Client>),
}

impl Clients {
    fn connect(api: Api, peer: &Peer, args: &MemoryArgs) -> anyhow::Result<Self> {
        let (count, spin) = (args.connections(), args.common.waiting().spin());
        let name = peer.name()?;
        let numbers = 1..=count;
        let explain = |number| explain_connection(number as usize, count as usize);
        match api {
            Api::Blocking => {
                let connect =
                    |number| connect_blocking(name, spin).with_context(|| explain(number));
                Ok(Self::Blocking(
                    numbers.map(connect).collect::<Result<_, _>>()?,
                ))
            }
            Api::Awaiting => {
                let runtime = tokio::runtime::Builder::new_multi_thread()
                    .enable_all()
                    .build()?;
                let connect = |number| {
                    runtime
                        .block_on(connect_awaiting(name, spin))
                        .with_context(|| explain(number))
                };
                let clients = numbers.map(connect).collect::<Result<_, _>>()?;
                Ok(Self::Awaiting {
                    clients,
                    _runtime: runtime,
                })
            }
        }
    }

    fn len(&self) -> u32 {
        let count = match self {
            Self::Awaiting { clients, .. } => clients.len(),
            Self::Blocking(clients) => clients.len(),
        };
        count as u32
    }
}

fn connect_blocking(name: &str, spin: Spin) -> anyhow::Result<blocking::Client> {
    let client = blocking::Client::builder(name).spin(spin).connect()?;
    client.call(Echo(Block::of_size(Block::BYTES))).wait()?;
    Ok(client)
}

async fn connect_awaiting(name: &str, spin: Spin) -> anyhow::Result<Client> {
    let client = Client::builder(name).spin(spin).connect().await?;
    client.call(Echo(Block::of_size(Block::BYTES))).await?;
    Ok(client)
}

impl Row {
    fn shared_per_connection(&self) -> Option<u64> {
        self.shared_bytes.checked_div(self.connections.into())
    }

    fn per_s(&self, amount: f64) -> f64 {
        amount / self.watched.as_secs_f64()
    }

    fn cpu_ms_per_s(&self) -> f64 {
        self.per_s(self.activity.cpu.as_secs_f64() * 1e3)
    }

    fn wake_ups_per_s(&self) -> f64 {
        self.per_s(self.activity.wake_ups as f64)
    }

    fn to_json(&self) -> serde_json::Value {
        json!({
            "bench": "memory",
            "group": "idle",
            "peer": "doorbell",
            "mode": self.mode,
            "spin": self.waiting.name(),
            "connections": self.connections,
            "private_bytes": self.memory.private_bytes,
            "region_bytes": self.memory.region_bytes,
            "system_shared_bytes": self.shared_bytes,
            "system_shared_bytes_per_connection": self.shared_per_connection(),
            "cpu_ms_per_s": self.cpu_ms_per_s(),
            "wake_ups_per_s": self.wake_ups_per_s(),
            "seconds": self.watched.as_secs_f64(),
            "runs": 1,
        })
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.mode.into(),
            self.connections.to_string(),
            memory(self.memory.private_bytes as f64),
            memory(self.memory.region_bytes as f64),
            memory(self.shared_bytes as f64),
            self.shared_per_connection().map_or_else(
                || "–".into(),
                |bytes| format!("{:.1} KiB", bytes as f64 / 1024.0),
            ),
            format!("{:.1} ms", self.cpu_ms_per_s()),
            format!("{:.1}", self.wake_ups_per_s()),
        ]
    }
}

const HEADER: [&str; 8] = [
    "server",
    "idle connections",
    "private memory",
    "regions touched",
    "shared in the system",
    "shared each",
    "CPU per s",
    "wake-ups per s",
];

/// What was busy until now has gone to sleep after this.
const TIME_TO_SETTLE: Duration = Duration::from_secs(1);

const QUICK_LENGTH: Duration = Duration::from_millis(50);
const LOOK_FOR_INTERRUPT: Duration = Duration::from_millis(100);

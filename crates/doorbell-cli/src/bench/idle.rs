//! What `bench idle` measures: a server whose clients have nothing to say.
//!
//! The server runs in the second process. Its memory, CPU time and wake-ups are read from the system, first without a
//! connection, then with many, each of which has made one call. Nobody asks the server anything meanwhile.

use std::io::{self, Write};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use doorbell::{Client, blocking};
use doorbell_shm::sys;
use serde_json::json;

use super::peer::{self, Peer};
use super::process_cost::{Activity, Memory, system_shared_bytes};
use super::progress::Progress;
use super::subject::{Api, Role, Waiting};
use crate::echo::{Block, Body, Echo};
use crate::interrupt::interrupted;

/// Options of `bench idle`.
#[derive(Debug, Args)]
pub(crate) struct IdleArgs {
    /// Prints one JSON object per row instead of a table
    #[arg(long)]
    json: bool,
    /// Looks only for a moment, to see that it works
    #[arg(long)]
    quick: bool,
    /// How long to watch the idle server, in seconds
    #[arg(long, default_value_t = 5.0, value_parser = super::options::positive_seconds)]
    seconds: f64,
    /// How many idle connections the server has in the second row
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    connections: u32,
}

/// Measures both kinds of server and prints what they cost.
///
/// # Errors
///
/// If a server cannot be started or the system does not tell what it costs. What was measured before is printed.
pub(crate) fn run(args: &IdleArgs) -> anyhow::Result<()> {
    sys::raise_descriptor_limit()
        .context("cannot raise the limit on open files for so many connections")?;
    let mut rows = Vec::new();
    let progress = Progress::start(4);
    let mut result = Ok(());
    for api in [Api::Awaiting, Api::Blocking] {
        result = measure(api, args, &progress, &mut rows);
        if interrupted() || result.is_err() {
            break;
        }
    }
    progress.finish();
    print(&rows, args.json)?;
    result
}

/// A server with so many idle connections.
struct Row {
    mode: &'static str,
    connections: u32,
    memory: Memory,
    /// Shared memory that the whole system has more than before the connections; other programs count too.
    shared_bytes: u64,
    activity: Activity,
    watched: Duration,
}

fn measure(
    api: Api,
    args: &IdleArgs,
    progress: &Progress,
    rows: &mut Vec<Row>,
) -> anyhow::Result<()> {
    let peer = Peer::start(
        peer::Role::Subject(Role {
            api,
            waiting: Waiting::Adaptive,
        }),
        None,
    )?;
    let shared_before = system_shared_bytes()?;
    let settle = || {
        thread::sleep(if args.quick {
            Duration::ZERO
        } else {
            TIME_TO_SETTLE
        })
    };
    progress.next(format!("{} server without connections", name(api)));
    settle();
    rows.push(watch(&peer, api, 0, shared_before, args)?);
    progress.done(1);
    progress.next(format!(
        "{} server with {} idle connections",
        name(api),
        args.connections
    ));
    let clients = Clients::connect(api, &peer, args.connections)?;
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
    args: &IdleArgs,
) -> anyhow::Result<Row> {
    let length = if args.quick {
        QUICK_LENGTH
    } else {
        Duration::from_secs_f64(args.seconds)
    };
    let (before, started) = (Activity::of_process(peer.id())?, Instant::now());
    while started.elapsed() < length && !interrupted() {
        thread::sleep(LOOK_FOR_INTERRUPT.min(length));
    }
    Ok(Row {
        mode: name(api),
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
    fn connect(api: Api, peer: &Peer, count: u32) -> anyhow::Result<Self> {
        let path = peer.path();
        let name = path.to_str().context(
            "the temporary directory has a name that is not UTF-8; set TMPDIR to another",
        )?;
        let numbers = 1..=count;
        let explain = |number| {
            format!("cannot make connection {number} of {count}; try fewer with --connections")
        };
        match api {
            Api::Blocking => {
                let connect = |number| connect_blocking(name).with_context(|| explain(number));
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
                        .block_on(connect_awaiting(name))
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

fn connect_blocking(name: &str) -> anyhow::Result<blocking::Client> {
    let client = blocking::Client::connect(name)?;
    client.call(Echo(Block::of_size(Block::BYTES))).wait()?;
    Ok(client)
}

async fn connect_awaiting(name: &str) -> anyhow::Result<Client> {
    let client = Client::connect(name).await?;
    client.call(Echo(Block::of_size(Block::BYTES))).await?;
    Ok(client)
}

fn name(api: Api) -> &'static str {
    match api {
        Api::Awaiting => "async",
        Api::Blocking => "blocking",
    }
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
            "bench": "idle",
            "peer": "doorbell",
            "mode": self.mode,
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
        let kib = |bytes: u64| format!("{} KiB", bytes >> 10);
        vec![
            self.mode.into(),
            self.connections.to_string(),
            kib(self.memory.private_bytes),
            kib(self.memory.region_bytes),
            kib(self.shared_bytes),
            self.shared_per_connection().map_or_else(
                || "–".into(),
                |bytes| format!("{:.1} KiB", bytes as f64 / 1024.0),
            ),
            format!("{:.1} ms", self.cpu_ms_per_s()),
            format!("{:.1}", self.wake_ups_per_s()),
        ]
    }
}

fn print(rows: &[Row], json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        return rows
            .iter()
            .try_for_each(|row| writeln!(out, "{}", row.to_json()));
    }
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(HEADER);
    table.add_rows(rows.iter().map(Row::cells));
    writeln!(out, "{table}")
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

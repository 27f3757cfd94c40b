//! A process that does nothing but call: one of many clients.
//!
//! It connects, waits until all others have, calls for as long as it was told, and reports every round trip.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use doorbell::Raw;
use doorbell::blocking::Client;
use serde::{Deserialize, Serialize};

use super::case::{Setting, pin_current_thread};
use super::peer::{self, Answer, Part, Peers};
use super::reference::socket_crowd::BlockingSocket;
use super::sample::{Sample, histogram};
use super::subject::blocking::{call_by_call, window_of_calls};
use crate::echo::{Block, Body};

/// Whom to call, and how.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Role {
    pub(crate) server: Server,
    pub(crate) setting: Setting,
}

/// Which server is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Server {
    Doorbell,
    /// The reference.
    Socket,
}

/// Connects, and returns what calls when it is asked to report.
///
/// # Errors
///
/// If there is no server.
pub(super) fn play(role: Role, part: &Part) -> anyhow::Result<Answer> {
    pin_current_thread(part.cpu)?;
    let setting = role.setting;
    if role.server == Server::Socket {
        let mut socket = BlockingSocket::connect(&part.path)?;
        return Ok(Box::new(move || Counts::json_of(&socket.calls(&setting)?)));
    }
    let name = part
        .path
        .to_str()
        .context("the path of the server is not UTF-8")?;
    let client = Client::builder(name)
        .spin(setting.waiting.spin())
        .wait_for_server(PATIENCE)
        .connect()
        .context("cannot connect")?;
    let calls = match setting.size_bytes {
        Block::BYTES => calls::<Block>,
        _ => calls::<Raw>,
    };
    Ok(Box::new(move || {
        Counts::json_of(&calls(&client, &setting)?)
    }))
}

fn calls<B: Body>(client: &Client, setting: &Setting) -> anyhow::Result<Sample> {
    match setting.window {
        1 => call_by_call::<B>(client, setting),
        _ => window_of_calls::<B>(client, setting),
    }
}

/// Lets a process for each connection call the server at `path`, all at once. The processes stay connected until they are dropped.
///
/// # Errors
///
/// If one of them fails.
pub(crate) fn measure(
    path: &Path,
    server: Server,
    setting: &Setting,
) -> anyhow::Result<(Sample, Peers)> {
    let role = peer::Role::Load(Role {
        server,
        setting: *setting,
    });
    let mut peers = Peers::start(role, setting.client_cpu(), path, setting.connections)?;
    let mut all = Total::default();
    for report in peers.reports()? {
        all.add(&serde_json::from_value(report)?);
    }
    Ok((all.sample(setting.size_bytes), peers))
}

/// A sample on its way from one process to another.
#[derive(Debug, Serialize, Deserialize)]
struct Counts {
    /// Nanoseconds, and how many round trips took that long.
    latency: Option<Vec<(u64, u64)>>,
    messages: u64,
    elapsed: Duration,
}

impl Counts {
    fn json_of(sample: &Sample) -> anyhow::Result<serde_json::Value> {
        let counts = |latency: &hdrhistogram::Histogram<u64>| {
            let recorded = latency.iter_recorded();
            recorded
                .map(|value| (value.value_iterated_to(), value.count_at_value()))
                .collect()
        };
        Ok(serde_json::to_value(Self {
            latency: sample.latency.as_ref().map(counts),
            messages: sample.messages,
            elapsed: sample.elapsed,
        })?)
    }
}

/// What several processes have done at the same time.
#[derive(Default)]
struct Total {
    latency: Option<hdrhistogram::Histogram<u64>>,
    messages: u64,
    elapsed: Duration,
    processes: u32,
}

impl Total {
    fn add(&mut self, counts: &Counts) {
        self.messages += counts.messages;
        self.elapsed += counts.elapsed;
        self.processes += 1;
        for &(value, count) in counts.latency.iter().flatten() {
            let latency = self.latency.get_or_insert_with(histogram);
            latency.saturating_record_n(value, count);
        }
    }

    fn sample(self, size_bytes: usize) -> Sample {
        Sample {
            latency: self.latency,
            ..Sample::of_throughput(
                self.messages,
                self.elapsed / self.processes.max(1),
                size_bytes,
            )
        }
    }
}

/// How long a server may need to take up a thousand connections at once.
const PATIENCE: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_of_several_processes_add_up() {
        let mut latency = histogram();
        latency.record_n(100, 3).unwrap();
        let sample = Sample::of_round_trips(latency, Duration::from_secs(1), 64);
        let counts: Counts = serde_json::from_value(Counts::json_of(&sample).unwrap()).unwrap();
        let mut total = Total::default();
        total.add(&counts);
        total.add(&counts);
        let figures = total.sample(64).figures();
        assert_eq!((figures.per_s, figures.p50_ns), (6.0, Some(100.0)));
    }
}

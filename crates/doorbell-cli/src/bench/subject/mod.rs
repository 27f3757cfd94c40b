//! Doorbell itself, as a program uses it: the rows that are compared with the references.
//!
//! The server of a row uses the same interface as its client: threads where the client is a thread, tokio where it awaits.
//! Small messages are [`Block`](crate::echo::Block)s and others [`Raw`](doorbell::Raw) bytes, see [`crate::echo`].

pub(crate) mod awaiting;
pub(crate) mod blocking;
pub(crate) mod crowd;
pub(crate) mod loans;
mod serving;
pub(crate) mod streams_awaiting;
pub(crate) mod streams_blocking;

use std::path::Path;
use std::time::{Duration, Instant};

use doorbell::Stats;
use serde::{Deserialize, Serialize};

use super::case::Setting;
use super::options::Waiting;
use super::peer::{self, Peer};
use super::process_cost::{Activity, Memory};
use super::sample::Sample;

pub(super) use self::serving::play;

/// What the second process does: an echo server.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Role {
    pub(crate) api: Api,
    pub(crate) waiting: Waiting,
}

/// Which of the two interfaces is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Api {
    /// Threads.
    Blocking,
    /// Tasks.
    Awaiting,
}

/// A server in the second process, with its counters.
pub(crate) struct ServedBy {
    peer: Peer,
}

impl ServedBy {
    /// Starts the server.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub(crate) fn start(setting: &Setting, api: Api) -> anyhow::Result<Self> {
        let waiting = setting.waiting;
        Ok(Self {
            peer: setting.start_peer(peer::Role::Subject(Role { api, waiting }))?,
        })
    }

    /// Returns the name to connect to.
    ///
    /// # Errors
    ///
    /// If it cannot be one.
    pub(crate) fn name(&self) -> anyhow::Result<&str> {
        self.peer.name()
    }

    /// Returns the path to connect to.
    pub(crate) fn path(&self) -> &Path {
        self.peer.path()
    }

    /// Returns the report of the server.
    pub(crate) fn report(&mut self) -> anyhow::Result<Report> {
        Ok(serde_json::from_value(self.peer.report()?)?)
    }

    /// Measures, and adds to the sample what that cost on both sides together.
    pub(crate) fn count_cost(
        &mut self,
        client_stats: impl Fn() -> Stats,
        measure: impl FnOnce() -> anyhow::Result<Sample>,
    ) -> anyhow::Result<Sample> {
        let calls_before = client_stats().system_calls() + self.report()?.system_calls;
        let cpu_before = self.cpu_of_both();
        let started = Instant::now();
        let mut sample = measure()?;
        let passed = started.elapsed();
        // Where the system does not tell, nothing is printed.
        sample.cpus_used = self.cpu_of_both().zip(cpu_before).map(|(after, before)| {
            (after.saturating_sub(before)).as_secs_f64() / passed.as_secs_f64()
        });
        let calls_after = client_stats().system_calls() + self.report()?.system_calls;
        // The warm-up is part of the difference, so this is rather too much than too little.
        sample.system_calls_per_message =
            Some((calls_after - calls_before) as f64 / sample.messages.max(1) as f64);
        Ok(sample)
    }

    /// Returns the memory of the server, if the system tells.
    pub(crate) fn memory(&self) -> Option<Memory> {
        Memory::of_process(self.peer.id()).ok()
    }

    /// Returns the CPU time of the server and of this process, which does nothing else while something is measured.
    fn cpu_of_both(&self) -> Option<Duration> {
        let of = |id| Activity::of_process(id).ok();
        Some(of(self.peer.id())?.cpu + of(std::process::id())?.cpu)
    }
}

/// What a server says about itself.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    /// System calls made for messages.
    pub(crate) system_calls: u64,
    /// Notifications that were handled.
    pub(crate) told: u64,
}

/// Notifications that are handed over in one go.
const TOGETHER: u64 = 1000;

/// Size of the messages that go on beside small ones: a file that somebody opens.
const BESIDE_BYTES: usize = 10 << 20;

//! Doorbell itself, as a program uses it: the rows that are compared with the references.
//!
//! The server of a row uses the same interface as its client: threads where the client is a thread, tokio where it awaits.
//! Small messages are [`Block`](crate::echo::Block)s and others [`Raw`](doorbell::Raw) bytes, see [`crate::echo`].

pub(crate) mod awaiting;
pub(crate) mod blocking;
mod serving;

use anyhow::Context as _;
use doorbell::{Spin, Stats};
use serde::{Deserialize, Serialize};

use super::case::Setting;
use super::peer::{self, Peer};
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

/// What is done before going to sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Waiting {
    /// The default: what experience says.
    Adaptive,
    /// Always spin as long as it is allowed.
    Spinning,
}

impl Waiting {
    fn spin(self) -> Spin {
        match self {
            Self::Adaptive => Spin::Adaptive,
            Self::Spinning => Spin::Always,
        }
    }
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
    pub(crate) fn start(setting: &Setting, api: Api, waiting: Waiting) -> anyhow::Result<Self> {
        Ok(Self {
            peer: setting.start_peer(peer::Role::Subject(Role { api, waiting }))?,
        })
    }

    /// Returns the name to connect to.
    pub(crate) fn name(&self) -> anyhow::Result<String> {
        let path = self.peer.path();
        let name = path.to_str().context(
            "the temporary directory has a name that is not UTF-8; set TMPDIR to another one",
        )?;
        Ok(name.to_owned())
    }

    /// Returns the report of the server.
    pub(crate) fn report(&mut self) -> anyhow::Result<Report> {
        Ok(serde_json::from_value(self.peer.report()?)?)
    }

    /// Measures, and adds to the sample how many system calls each message took on both sides.
    pub(crate) fn count_system_calls(
        &mut self,
        client_stats: impl Fn() -> Stats,
        measure: impl FnOnce() -> anyhow::Result<Sample>,
    ) -> anyhow::Result<Sample> {
        let before = client_stats().system_calls() + self.report()?.system_calls;
        let mut sample = measure()?;
        let after = client_stats().system_calls() + self.report()?.system_calls;
        // The warm-up is part of the difference, so this is rather too much than too little.
        sample.system_calls_per_message =
            Some((after - before) as f64 / sample.messages.max(1) as f64);
        Ok(sample)
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

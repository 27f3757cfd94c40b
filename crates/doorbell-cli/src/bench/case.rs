//! What is measured beside what.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use doorbell_shm::sys;
use serde::{Deserialize, Serialize};

use super::busy::BusyCpus;
use super::clock::Limit;
use super::options::{CpuPair, Options, Pin, Waiting};
use super::peer::{self, Peer};
use super::sample::Sample;

/// A reference and the rows that are compared with it, always measured one after the other.
pub(crate) struct Group {
    /// Name for `--only` and for the progress line.
    pub(crate) name: &'static str,
    /// What "1.0 times the reference" is.
    pub(crate) reference: Case,
    /// The rows that are compared with it.
    pub(crate) subjects: Vec<Case>,
    /// What of them.
    pub(crate) compared: Compared,
}

/// What of a row is compared with the reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compared {
    /// The median time where round trips are timed, else the rate.
    Typical,
    /// The time that one round trip in a hundred exceeds.
    P99,
    /// The rate, also where round trips are timed.
    Rate,
}

impl Group {
    /// Returns how many measurements one run of the group takes.
    pub(crate) fn measurements(&self, options: &Options) -> usize {
        let references = if options.common.quick {
            1
        } else {
            1 + self.subjects.len()
        };
        references + self.subjects.len()
    }

    /// Decides how the rows of Doorbell wait that do not say so themselves.
    pub(crate) fn settle_waiting(&mut self, asked: Option<Waiting>) {
        for case in self.subjects.iter_mut().chain([&mut self.reference]) {
            if case.peer == DOORBELL {
                case.waiting = case.waiting.or(asked).or(Some(Waiting::Adaptive));
            }
        }
    }
}

/// One row: what it is called and how it is measured.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    /// `doorbell` or the name of a reference.
    pub(crate) peer: &'static str,
    /// How it is used: `blocking`, `async`, `spin`, …
    pub(crate) mode: &'static str,
    /// Bytes of one message.
    pub(crate) size_bytes: usize,
    /// Messages under way at once; 1 for a closed loop.
    pub(crate) window: usize,
    /// Connections that are used at once.
    pub(crate) connections: usize,
    /// Where the two processes run.
    pub(crate) pin: Pin,
    /// Pause between two round trips.
    pub(crate) pause: Option<Duration>,
    /// What Doorbell does before it goes to sleep; references have nothing to choose.
    pub(crate) waiting: Option<Waiting>,
    /// Other programs keep both CPUs busy meanwhile.
    pub(crate) is_busy: bool,
    /// How it is measured.
    pub(crate) measure: Measure,
}

/// Starts the second process, measures and ends it.
pub(crate) type Measure = fn(&Setting) -> anyhow::Result<Sample>;

impl Case {
    /// Makes a row of round trips one after the other on one connection.
    pub(crate) fn new(
        peer: &'static str,
        mode: &'static str,
        size_bytes: usize,
        pin: Pin,
        measure: Measure,
    ) -> Self {
        Self {
            peer,
            mode,
            size_bytes,
            window: 1,
            connections: 1,
            pin,
            pause: None,
            waiting: None,
            is_busy: false,
            measure,
        }
    }

    /// Measures once, on a thread of its own so that pinning it leaves no trace.
    ///
    /// # Errors
    ///
    /// Whatever kept the measurement from being made, with the name of the row.
    pub(crate) fn measure(&self, options: &Options) -> anyhow::Result<Sample> {
        let (setting, measure, is_busy) = (self.setting(options), self.measure, self.is_busy);
        let (done, result) = mpsc::channel();
        // The thread is left behind if it does not come back; the process ends soon after that.
        thread::spawn(move || {
            let result = if is_busy {
                BusyCpus::start(setting.cpus).and_then(|_busy| measure(&setting))
            } else {
                measure(&setting)
            };
            // Nobody listens any more when this comes too late.
            _ = done.send(result);
        });
        let patience = setting.limit.patience();
        result
            .recv_timeout(patience)
            .unwrap_or_else(|error| {
                Err(match error {
                    RecvTimeoutError::Timeout => anyhow!("nothing has come back for {patience:?}"),
                    RecvTimeoutError::Disconnected => anyhow!("the measuring thread panicked"),
                })
            })
            .with_context(|| {
                format!(
                    "cannot measure {} {} {} B",
                    self.peer, self.mode, self.size_bytes
                )
            })
    }

    /// Long enough for a few round trips, however long the pauses between them.
    fn length(&self, options: &Options) -> Duration {
        let least = self
            .pause
            .filter(|_| !options.common.quick)
            .map(|pause| LEAST_PAUSES * pause);
        options.length().max(least.unwrap_or_default())
    }

    fn setting(&self, options: &Options) -> Setting {
        Setting {
            limit: Limit {
                warm_up: options.warm_up(),
                length: self.length(options),
                pause: self.pause,
            },
            size_bytes: self.size_bytes,
            window: self.window,
            connections: self.connections,
            pin: self.pin,
            waiting: self.waiting.unwrap_or(Waiting::Adaptive),
            cpus: options.cpus,
        }
    }
}

/// What a measurement has to know about its row.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Setting {
    pub(crate) limit: Limit,
    pub(crate) size_bytes: usize,
    pub(crate) window: usize,
    pub(crate) connections: usize,
    pub(crate) pin: Pin,
    pub(crate) waiting: Waiting,
    pub(crate) cpus: CpuPair,
}

impl Setting {
    /// Starts the second process.
    ///
    /// To be called before [`pin_client`](Self::pin_client): a process inherits the CPUs of the thread that starts it.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub(crate) fn start_peer(&self, role: peer::Role) -> anyhow::Result<Peer> {
        Peer::start(role, self.pin.server_cpu(self.cpus))
    }

    /// Returns the CPU of this process, if the row fixes one.
    pub(crate) fn client_cpu(&self) -> Option<usize> {
        self.pin.client_cpu(self.cpus)
    }

    /// Puts the calling thread, and all that it starts from now on, on the CPU of this process, if the row fixes one.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub(crate) fn pin_client(&self) -> anyhow::Result<()> {
        pin_current_thread(self.client_cpu())
    }
}

/// Returns what to say when a connection of many cannot be made.
pub(crate) fn explain_connection(number: usize, count: usize) -> String {
    format!(
        "cannot make connection {number} of {count}; if too many files are open, raise the hard limit on them (`ulimit -Hn`) \
         or ask for fewer with --connections"
    )
}

/// Pins the calling thread, if there is a CPU to pin it to.
///
/// # Errors
///
/// If the system refuses; the message says which option to change.
pub(crate) fn pin_current_thread(cpu: Option<usize>) -> anyhow::Result<()> {
    let Some(cpu) = cpu else { return Ok(()) };
    sys::pin_current_thread(cpu).with_context(|| {
        format!(
            "cannot pin a thread to CPU {cpu}; choose others with --cpus, or none with --pin none"
        )
    })
}

/// The peer of Doorbell's own rows.
pub(crate) const DOORBELL: &str = "doorbell";

/// Pauses that a measurement has at least.
const LEAST_PAUSES: u32 = 8;

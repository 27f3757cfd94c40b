//! Other programs that want the CPUs: processes that compute until they are ended.

use std::hint::spin_loop;

use serde_json::Value;

use super::case::pin_current_thread;
use super::options::CpuPair;
use super::peer::{self, Answer, Part, Peer, spawn_work};

/// Keeps both CPUs busy until it is dropped.
pub(crate) struct BusyCpus {
    _processes: [Peer; 2],
}

impl BusyCpus {
    /// Starts a process on each CPU.
    ///
    /// # Errors
    ///
    /// If one cannot be started.
    pub(crate) fn start(cpus: CpuPair) -> anyhow::Result<Self> {
        let on = |cpu| Peer::start(peer::Role::Busy, Some(cpu));
        Ok(Self {
            _processes: [on(cpus.client)?, on(cpus.server)?],
        })
    }
}

/// Computes nothing, forever.
///
/// # Errors
///
/// If there is no thread for it.
pub(super) fn play(part: &Part) -> anyhow::Result<Answer> {
    let cpu = part.cpu;
    spawn_work(move || {
        pin_current_thread(cpu)?;
        loop {
            spin_loop();
        }
    })?;
    Ok(Box::new(|| Ok(Value::Null)))
}

//! Raw references: what the machine can do, in a few lines of code each.
//!
//! Each does only what cannot be avoided: no header, no checksum, no call, no dispatch. Those in shared memory stand on the
//! low-level interface of `doorbell-shm`, as Doorbell does, so that both use the same copies and the same system calls.

mod area;
pub(crate) mod bounce;
pub(crate) mod copy;
pub(crate) mod event;
pub(crate) mod futex;
mod handover;
pub(crate) mod memcpy;
mod regions;
pub(crate) mod ring;
pub(crate) mod socket;
pub(crate) mod socket_crowd;
mod spin;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::case::pin_current_thread;
use super::peer::{Answer, Part, spawn_work};

/// What the second process does for a reference.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Role {
    /// Sends a cache line back as soon as it comes.
    Bounce,
    /// Copies a message in and out again.
    Copy { size_bytes: usize },
    /// Sleeps on a word and answers when woken.
    Futex,
    /// Sleeps on a doorbell and answers with another.
    Event,
    /// Takes records out of a ring and looks at them.
    RingSink { size_bytes: usize },
    /// Takes records out of a ring and puts them into another.
    RingEcho { size_bytes: usize },
    /// Takes whole batches of messages out of a ring with one copy.
    BatchSink { size_bytes: usize },
    /// Sends frames back through a socket.
    SocketEcho,
    /// Takes frames out of a socket and looks at them.
    SocketSink,
    /// Takes bytes out of a socket.
    SocketBytes,
    /// Sends frames back through any number of sockets.
    SocketCrowd,
}

/// Makes ready for `role` and plays it on a thread of its own.
///
/// # Errors
///
/// If the role needs something that cannot be had.
pub(super) fn play(role: Role, part: &Part) -> anyhow::Result<Answer> {
    match role {
        Role::Bounce => start(part, bounce::serve(&part.path)?),
        Role::Copy { size_bytes } => start(part, copy::serve(&part.path, size_bytes)?),
        Role::Futex => start(part, futex::serve(&part.path)?),
        Role::Event => start(part, event::serve(&part.path)?),
        Role::RingSink { size_bytes } => start(part, ring::serve_sink(&part.path, size_bytes)?),
        Role::RingEcho { size_bytes } => start(part, ring::serve_echo(&part.path, size_bytes)?),
        Role::BatchSink { size_bytes } => start(part, ring::serve_batches(&part.path, size_bytes)?),
        Role::SocketEcho => start(part, socket::serve_echo(&part.path)?),
        Role::SocketSink => start(part, socket::serve_sink(&part.path)?),
        Role::SocketBytes => start(part, socket::serve_bytes(&part.path)?),
        Role::SocketCrowd => start(part, socket_crowd::serve(&part.path)?),
    }?;
    Ok(Box::new(|| Ok(Value::Null))) // references have nothing to report
}

fn start(
    part: &Part,
    work: impl FnOnce() -> anyhow::Result<()> + Send + 'static,
) -> anyhow::Result<()> {
    let cpu = part.cpu;
    spawn_work(move || {
        pin_current_thread(cpu)?;
        work()
    })
}

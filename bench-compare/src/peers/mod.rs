//! Who is measured: Doorbell and its rivals, one module each.
//!
//! A module serves one process and measures in another. Its comment says which settings the rival has and why these are its
//! best for the work in question.

mod crowd;
mod doorbell;
mod doorbell_blocking;
mod doorbell_loans;
mod doorbell_messages;
mod grpc;
mod iceoryx;
mod ipc_channel;
pub(crate) mod node;
mod runtime;
mod share;
mod shmipc;
mod tokio_socket;
mod unix_socket;
mod zeromq;

use anyhow::bail;
use serde::{Deserialize, Serialize};

use crate::part::{Part, Work};
use crate::sample::Figures;

/// Who.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Peer {
    Doorbell,
    TokioSocket,
    UnixSocket,
    Tonic,
    Iceoryx2,
    Shmipc,
    IpcChannel,
    ZeroMq,
    Node,
}

impl Peer {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Doorbell => "doorbell",
            Self::TokioSocket => "tokio-socket",
            Self::UnixSocket => "unix-socket",
            Self::Tonic => "tonic",
            Self::Iceoryx2 => "iceoryx2",
            Self::Shmipc => "shmipc",
            Self::IpcChannel => "ipc-channel",
            Self::ZeroMq => "zeromq",
            Self::Node => "node",
        }
    }
}

/// How it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Mode {
    /// Threads that spin as long as they wait.
    Spinning,
    /// Threads, as they wait by default.
    Blocking,
    /// Threads and notifications, handed over together, instead of a stream.
    BlockingNotify,
    /// Tasks on a runtime of several threads.
    MultiThread,
    /// Tasks on a runtime of one thread.
    CurrentThread,
    /// Tasks and notifications, handed over together, instead of a stream.
    MultiThreadNotify,
    /// Request-response, both sides ask again and again.
    CallPolled,
    /// Request-response, each side sleeps until the other notifies it.
    CallWoken,
    /// Two topics, both sides ask again and again.
    TopicPolled,
    /// Two topics, each side sleeps until the other notifies it.
    TopicWoken,
    /// `child_process.fork`, messages as JSON.
    ForkJson,
    /// `child_process.fork`, messages as structured clones.
    ForkAdvanced,
    /// A Unix socket with one line of JSON for each message.
    SocketJson,
}

impl Mode {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Spinning => "blocking-spin",
            Self::Blocking => "blocking",
            Self::BlockingNotify => "blocking-notify-all",
            Self::MultiThread => "async-mt",
            Self::CurrentThread => "async-ct",
            Self::MultiThreadNotify => "async-mt-notify-all",
            Self::CallPolled => "req-res-polled",
            Self::CallWoken => "req-res-woken",
            Self::TopicPolled => "pub-sub-polled",
            Self::TopicWoken => "pub-sub-woken",
            Self::ForkJson => "fork-json",
            Self::ForkAdvanced => "fork-advanced",
            Self::SocketJson => "net-json-lines",
        }
    }

    /// Returns `true` if both sides are tasks.
    pub(crate) fn is_async(self) -> bool {
        match self {
            Self::MultiThread | Self::CurrentThread | Self::MultiThreadNotify => true,
            Self::Spinning
            | Self::Blocking
            | Self::BlockingNotify
            | Self::CallPolled
            | Self::CallWoken
            | Self::TopicPolled
            | Self::TopicWoken
            | Self::ForkJson
            | Self::ForkAdvanced
            | Self::SocketJson => false,
        }
    }
}

/// Serves until the process is ended.
///
/// # Errors
///
/// If the server cannot be started.
pub(crate) fn serve(part: &Part) -> anyhow::Result<()> {
    match part.peer {
        Peer::Doorbell if part.mode.is_async() => doorbell::serve(part),
        Peer::Doorbell => doorbell_blocking::serve(part),
        Peer::TokioSocket => tokio_socket::serve(part),
        Peer::UnixSocket => unix_socket::serve(part),
        Peer::Tonic => grpc::serve(part),
        Peer::Iceoryx2 => iceoryx::serve(part),
        Peer::Shmipc => shmipc::serve(part),
        Peer::IpcChannel => ipc_channel::serve(part),
        Peer::ZeroMq => zeromq::serve(part),
        Peer::Node => bail!("Node.js starts its own server"),
    }
}

/// Measures as the client of a server that is ready.
///
/// # Errors
///
/// If the server fails or does not answer what was sent.
pub(crate) fn measure(part: &Part) -> anyhow::Result<Figures> {
    if let Work::Processes { count } = part.work {
        return crowd::measure(part, count);
    }
    match part.peer {
        Peer::Doorbell if part.mode.is_async() => doorbell::measure(part),
        Peer::Doorbell => doorbell_blocking::measure(part),
        Peer::TokioSocket => tokio_socket::measure(part),
        Peer::UnixSocket => unix_socket::measure(part),
        Peer::Tonic => grpc::measure(part),
        Peer::Iceoryx2 => iceoryx::measure(part),
        Peer::Shmipc => shmipc::measure(part),
        Peer::IpcChannel => ipc_channel::measure(part),
        Peer::ZeroMq => zeromq::measure(part),
        Peer::Node => bail!("Node.js measures in a process of its own"),
    }
}

/// Plays one of many client processes.
///
/// # Errors
///
/// If the server fails or does not answer what was sent.
pub(crate) fn play_member(part: &Part) -> anyhow::Result<()> {
    match part.peer {
        Peer::Doorbell => crowd::play(part, doorbell_blocking::caller(part)?),
        Peer::TokioSocket | Peer::UnixSocket => crowd::play(part, unix_socket::caller(part)?),
        peer => bail!("{} is not measured with many processes", peer.name()),
    }
}

/// Returns the error for a combination that no row of the plan has.
fn not_measured<T>(part: &Part) -> anyhow::Result<T> {
    bail!(
        "{} {} is not measured for {:?}",
        part.peer.name(),
        part.mode.name(),
        part.work
    )
}

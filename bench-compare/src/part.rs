//! What the other processes of a measurement are told, and how they answer.
//!
//! A part is a process of this same program, started with a [`Part`] in JSON. A server prints [`READY`] as soon as it can be
//! reached, a client the [`Answer`] of its measurement. Every part ends when its standard input does, so none outlives the first
//! process, however that ends.

use std::io::{self, Read as _, Write as _};
use std::path::PathBuf;
use std::thread;

use serde::{Deserialize, Serialize};

use crate::clock::Limit;
use crate::host;
use crate::peers::{self, Mode, Peer};
use crate::sample::Figures;

/// Everything that a process has to know to play its part.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Part {
    pub(crate) side: Side,
    pub(crate) peer: Peer,
    pub(crate) mode: Mode,
    pub(crate) work: Work,
    pub(crate) size_bytes: usize,
    pub(crate) limit: Limit,
    /// CPU to stay on.
    pub(crate) cpu: Option<usize>,
    /// A directory that goes away with the measurement.
    pub(crate) directory: PathBuf,
    /// A name that nobody else on this machine has; begins with [`TOKEN_PREFIX`].
    pub(crate) token: String,
}

/// Which of the processes of a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Side {
    Server,
    Client,
    /// One of the processes that a client starts.
    Member,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Work {
    /// Messages that come back, one after the other.
    RoundTrip,
    /// Messages that are written where the other side reads them, and come back in the same way, one after the other.
    Loaned,
    /// Messages that come back, so many under way at once.
    Pipelined { window: usize },
    /// Messages that go one way, each looked at where it arrives.
    OneWay,
    /// Round trips on so many connections of one process at once.
    Connections { count: usize },
    /// Round trips of so many processes at once.
    Processes { count: usize },
    /// Typed requests and replies as an editor and its engine exchange them, one after the other.
    Completion,
}

impl Work {
    /// Returns how many messages are under way at once.
    pub(crate) fn window(self) -> usize {
        match self {
            Self::RoundTrip | Self::Loaned | Self::Completion => 1,
            Self::Pipelined { window } => window,
            Self::OneWay => 0,
            Self::Connections { count } | Self::Processes { count } => count,
        }
    }
}

/// What a client prints.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    Figures(Figures),
    Error(String),
}

impl Part {
    /// Returns the path of the socket at which the server is reached.
    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.join("peer.sock")
    }

    /// Returns the path of the socket as text.
    ///
    /// # Errors
    ///
    /// If the temporary directory has a name that is not UTF-8.
    pub(crate) fn socket_name(&self) -> anyhow::Result<String> {
        let path = self.socket().into_os_string();
        path.into_string()
            .map_err(|path| anyhow::anyhow!("{} is not UTF-8; set TMPDIR", path.display()))
    }

    /// Keeps the calling thread, and all that it starts from now on, on the CPU of this process, if it has one.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub(crate) fn pin(&self) -> anyhow::Result<()> {
        host::pin_current_thread(self.cpu)
    }
}

/// Plays the part that `text` describes. Does not return.
///
/// # Errors
///
/// If the part cannot be read.
pub(crate) fn play(text: &str) -> anyhow::Result<()> {
    let part: Part = serde_json::from_str(text)?;
    host::allow_many_descriptors();
    if part.side != Side::Member {
        end_with_standard_input()?;
    }
    match part.side {
        Side::Server => {
            if let Err(error) = peers::serve(&part) {
                print(&Answer::Error(format!("server: {error:#}")))?;
            }
        }
        Side::Client => {
            let answer = match peers::measure(&part) {
                Ok(figures) => Answer::Figures(figures),
                Err(error) => Answer::Error(format!("{error:#}")),
            };
            print(&answer)?;
        }
        Side::Member => peers::play_member(&part)?,
    }
    // Whatever a rival still runs or would tidy up slowly is not waited for.
    std::process::exit(0)
}

/// Tells the first process that the server can be reached.
///
/// # Errors
///
/// If nobody listens any more.
pub(crate) fn say_ready() -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{READY}")?;
    Ok(out.flush()?)
}

/// Tells the first process that the server can be reached, and waits until it is ended.
///
/// # Errors
///
/// If nobody listens any more.
pub(crate) fn say_ready_and_stay() -> anyhow::Result<()> {
    say_ready()?;
    loop {
        thread::park();
    }
}

fn print(answer: &Answer) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(answer)?)?;
    Ok(out.flush()?)
}

fn end_with_standard_input() -> io::Result<()> {
    let watch = || {
        let mut rest = Vec::new();
        _ = io::stdin().read_to_end(&mut rest);
        std::process::exit(0);
    };
    thread::Builder::new()
        .name("watch-stdin".into())
        .stack_size(64 << 10)
        .spawn(watch)?;
    Ok(())
}

/// What a server prints.
pub(crate) const READY: &str = "ready";

/// How the names begin that rivals give to what they leave in shared directories.
pub(crate) const TOKEN_PREFIX: &str = "doorbell_compare_";

//! The second process of a benchmark.
//!
//! It is this same program, started again with a hidden subcommand and a [`Role`]. The two talk in lines: the first process
//! writes a request to the standard input of the second and reads one line of JSON from its standard output. The second
//! process lives as long as its standard input is open, so it ends with the first one however that ends.

use std::io::{self, BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tempfile::TempDir;

use super::{reference, subject};
use crate::interrupt;

/// What the second process does.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Role {
    /// One of the raw references.
    Reference(reference::Role),
    /// A server of Doorbell.
    Subject(subject::Role),
}

/// A role with everything that is needed to play it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Part {
    pub(crate) role: Role,
    /// CPU to stay on.
    pub(crate) cpu: Option<usize>,
    /// Path at which to be reached.
    pub(crate) path: PathBuf,
}

/// Answers a request of the first process.
pub(crate) type Answer = Box<dyn Fn() -> Value + Send>;

/// Runs the second process. Returns when the first one is gone.
///
/// # Errors
///
/// If the part cannot be read or played.
pub(crate) fn run(part: &str) -> anyhow::Result<()> {
    interrupt::ignore_ctrl_c()?;
    let part: Part = serde_json::from_str(part)
        .context("this is for `doorbell bench` only: the part is not valid")?;
    let report = match part.role {
        Role::Reference(role) => reference::play(role, &part)?,
        Role::Subject(role) => subject::play(role, &part)?,
    };
    answer(READY)?;
    for request in io::stdin().lock().lines() {
        match request?.as_str() {
            REPORT => answer(&report().to_string())?,
            unknown => bail!("unknown request {unknown:?}"),
        }
    }
    // Threads that spin for the first process know nothing of its end.
    std::process::exit(0)
}

/// Runs `work` on a thread of the second process; its failure ends the process with a message.
pub(crate) fn spawn_work(
    work: impl FnOnce() -> anyhow::Result<()> + Send + 'static,
) -> anyhow::Result<()> {
    let guarded = move || {
        if let Err(error) = work() {
            eprintln!("error: the second process of the benchmark: {error:#}");
            std::process::exit(1);
        }
    };
    thread::Builder::new()
        .name("bench-peer".into())
        .spawn(guarded)?;
    Ok(())
}

fn answer(line: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// The second process, seen from the first. Dropping it ends the process.
pub(crate) struct Peer {
    child: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    directory: TempDir,
}

impl Peer {
    /// Starts a process that plays `role` and returns when it is ready.
    ///
    /// # Errors
    ///
    /// If it cannot be started or says that it cannot play its part.
    pub(crate) fn start(role: Role, cpu: Option<usize>) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("doorbell-bench-")
            .tempdir()
            .context("cannot make a temporary directory for the benchmark's socket")?;
        let part = Part {
            role,
            cpu,
            path: socket_in(&directory),
        };
        let program = std::env::current_exe()
            .context("cannot find this program to start it a second time")?;
        let mut child = Command::new(program)
            .arg("bench-peer")
            .arg(serde_json::to_string(&part)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the second process")?;
        let requests = child.stdin.take();
        let answers = BufReader::new(
            child
                .stdout
                .take()
                .context("the second process has no output")?,
        );
        let mut peer = Self {
            child,
            requests,
            answers,
            directory,
        };
        match peer.read_answer()?.as_str() {
            READY => Ok(peer),
            other => Err(anyhow!(
                "the second process said {other:?} instead of {READY:?}"
            )),
        }
    }

    /// Returns the path at which the process is reached.
    pub(crate) fn path(&self) -> PathBuf {
        socket_in(&self.directory)
    }

    /// Returns the id of the process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns what the process reports about itself.
    ///
    /// # Errors
    ///
    /// If it has ended.
    pub(crate) fn report(&mut self) -> anyhow::Result<Value> {
        let requests = self
            .requests
            .as_mut()
            .context("the second process has no input")?;
        writeln!(requests, "{REPORT}").context(ENDED_EARLY)?;
        Ok(serde_json::from_str(&self.read_answer()?)?)
    }

    fn read_answer(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            bail!(ENDED_EARLY);
        }
        Ok(line.trim_end().to_owned())
    }

    /// Waits until the process has ended by itself, or the deadline.
    fn wait_for_end(&mut self, deadline: Instant) -> bool {
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return true;
            }
            thread::sleep(Duration::from_millis(1));
        }
        false
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.requests.take()); // tells it to end
        if !self.wait_for_end(Instant::now() + TIME_TO_END) {
            // Nothing is lost by ending it the hard way, and there is nobody to tell.
            _ = self.child.kill();
            _ = self.child.wait();
        }
    }
}

fn socket_in(directory: &TempDir) -> PathBuf {
    directory.path().join("peer.sock")
}

const READY: &str = "ready";
const REPORT: &str = "report";
const ENDED_EARLY: &str = "the second process has ended too early; its own message stands above";

/// Ending takes a process a few milliseconds; a busy machine may need more.
const TIME_TO_END: Duration = Duration::from_secs(2);

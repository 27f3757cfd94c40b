//! The second process of a benchmark.
//!
//! It is this same program, started again with a hidden subcommand and a [`Role`]. The two talk in lines: the first process
//! writes a request to the standard input of the second and reads one line of JSON from its standard output. The second
//! process lives as long as its standard input is open, so it ends with the first one however that ends.

use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, anyhow, bail};
use doorbell_shm::sys;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{busy, load, reference, subject};
use crate::interrupt;

/// What the second process does.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Role {
    /// One of the raw references.
    Reference(reference::Role),
    /// A server of Doorbell.
    Subject(subject::Role),
    /// One client of many.
    Load(load::Role),
    /// Keeps its CPU busy.
    Busy,
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
pub(crate) type Answer = Box<dyn FnMut() -> anyhow::Result<Value> + Send>;

/// Runs the second process. Returns when the first one is gone.
///
/// # Errors
///
/// If the part cannot be read or played.
pub(crate) fn run(part: &str) -> anyhow::Result<()> {
    interrupt::ignore_ctrl_c()?;
    let part: Part = serde_json::from_str(part)
        .context("this is for `doorbell bench` only: the part is not valid")?;
    let mut report = match part.role {
        Role::Reference(role) => reference::play(role, &part)?,
        Role::Subject(role) => subject::play(role, &part)?,
        Role::Load(role) => load::play(role, &part)?,
        Role::Busy => busy::play(&part)?,
    };
    answer(READY)?;
    for request in io::stdin().lock().lines() {
        match request?.as_str() {
            REPORT => answer(&report()?.to_string())?,
            REST => answer(&json!(rest()).to_string())?,
            at => {
                sleep_until(at)?;
                answer(&report()?.to_string())?;
            }
        }
    }
    // Threads that spin for the first process know nothing of its end.
    std::process::exit(0)
}

/// Lets the allocator of this process give back what it keeps of freed memory. Returns the bytes that are in use, if it tells.
pub(crate) fn rest() -> Option<u64> {
    sys::trim_heap();
    sys::heap_bytes_in_use()
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

/// Sleeps until a time that another process has written down.
fn sleep_until(request: &str) -> anyhow::Result<()> {
    let since_epoch = request
        .parse()
        .with_context(|| format!("unknown request {request:?}"))?;
    let at = SystemTime::UNIX_EPOCH + Duration::from_micros(since_epoch);
    // A time that has passed is now.
    thread::sleep(at.duration_since(SystemTime::now()).unwrap_or_default());
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
    path: PathBuf,
    /// Holds the path, unless that is another process's.
    _directory: Option<TempDir>,
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
        let path = directory.path().join("peer.sock");
        let mut peer = Self::spawn(Part { role, cpu, path }, Some(directory))?;
        peer.wait_until_ready()?;
        Ok(peer)
    }

    fn spawn(part: Part, directory: Option<TempDir>) -> anyhow::Result<Self> {
        let program = std::env::current_exe()
            .context("cannot find this program to start it a second time")?;
        let mut child = Command::new(program)
            .arg(crate::cli::BENCH_PEER)
            .arg(serde_json::to_string(&part)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start another process")?;
        let (requests, answers) = (child.stdin.take(), child.stdout.take());
        Ok(Self {
            child,
            requests,
            answers: BufReader::new(answers.expect("the pipe was asked for")),
            path: part.path,
            _directory: directory,
        })
    }

    fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        match self.read_answer()?.as_str() {
            READY => Ok(()),
            other => Err(anyhow!(
                "the second process said {other:?} instead of {READY:?}"
            )),
        }
    }

    /// Returns the path at which the process is reached.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns that path as a name to connect to.
    ///
    /// # Errors
    ///
    /// If it cannot be one.
    pub(crate) fn name(&self) -> anyhow::Result<&str> {
        self.path.to_str().context(
            "the temporary directory has a name that is not UTF-8; set TMPDIR to another one",
        )
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
        self.ask(REPORT)?;
        self.reported()
    }

    /// Lets the process [rest].
    ///
    /// # Errors
    ///
    /// If it has ended.
    pub(crate) fn rest(&mut self) -> anyhow::Result<Option<u64>> {
        self.ask(REST)?;
        Ok(self.reported()?.as_u64())
    }

    fn ask(&mut self, request: &str) -> anyhow::Result<()> {
        let requests = self
            .requests
            .as_mut()
            .context("the second process has no input")?;
        writeln!(requests, "{request}").context(ENDED_EARLY)
    }

    fn reported(&mut self) -> anyhow::Result<Value> {
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

/// Many processes that do the same. Dropping it ends all of them.
pub(crate) struct Peers(Vec<Peer>);

impl Peers {
    /// Starts `count` processes that play `role` at the path of another one, and returns when all are ready.
    ///
    /// # Errors
    ///
    /// If one cannot be started or says that it cannot play its part; the others have ended then.
    pub(crate) fn start(
        role: Role,
        cpu: Option<usize>,
        path: &Path,
        count: usize,
    ) -> anyhow::Result<Self> {
        let mut peers = Self(Vec::with_capacity(count));
        for number in 1..=count {
            let path = path.to_owned();
            let peer = Peer::spawn(Part { role, cpu, path }, None)
                .with_context(|| format!("cannot start process {number} of {count}"))?;
            peers.0.push(peer);
        }
        peers.0.iter_mut().try_for_each(Peer::wait_until_ready)?;
        Ok(peers)
    }

    /// Returns what all report, which they begin to find out at the same time.
    ///
    /// # Errors
    ///
    /// If one has ended.
    pub(crate) fn reports(&mut self) -> anyhow::Result<Vec<Value>> {
        // Late enough for the last one to have been asked.
        let begin = SystemTime::now() + TIME_TO_ASK * self.0.len() as u32;
        let since_epoch = begin.duration_since(SystemTime::UNIX_EPOCH)?;
        let request = since_epoch.as_micros().to_string();
        self.0.iter_mut().try_for_each(|peer| peer.ask(&request))?;
        self.0.iter_mut().map(Peer::reported).collect()
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        // All are told before one is waited for.
        for peer in &mut self.0 {
            drop(peer.requests.take());
        }
    }
}

const READY: &str = "ready";
const REPORT: &str = "report";
const REST: &str = "rest";
const ENDED_EARLY: &str = "the second process has ended too early; its own message stands above";

/// Asking takes far less, also when every process asked wakes up for it.
const TIME_TO_ASK: Duration = Duration::from_micros(500);

/// Ending takes a process a few milliseconds; a busy machine may need more.
const TIME_TO_END: Duration = Duration::from_secs(2);

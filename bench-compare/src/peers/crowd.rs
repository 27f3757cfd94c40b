//! Many client processes at once: one process that starts them and adds up what they say.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

use super::share::{COARSE, Crowd, Share, Window};
use crate::histogram::{Packed, Times};
use crate::host;
use crate::part::{Part, Side};
use crate::sample::Figures;

/// Starts `count` processes, lets them begin at one moment, and adds up their round trips.
///
/// # Errors
///
/// If one of them fails.
pub(crate) fn measure(part: &Part, count: usize) -> anyhow::Result<Figures> {
    let mut members = (0..count)
        .map(|_| Member::start(part))
        .collect::<anyhow::Result<Vec<_>>>()?;
    for member in &mut members {
        let line = member.read_line()?;
        ensure!(line == CONNECTED, "a client process said {line:?}");
    }
    let start = Start {
        at: host::shared_now() + TIME_TO_TELL,
    };
    let line = serde_json::to_string(&start)?;
    for member in &mut members {
        writeln!(member.requests, "{line}")?;
    }
    let mut all = Crowd::new(Window::starting_at(start.at, part.limit));
    for member in &mut members {
        let report: Report = serde_json::from_str(&member.read_line()?)?;
        let mut times = Times::new(COARSE);
        report.times.add_to(&mut times);
        all.add(report.messages, &times);
    }
    for member in &mut members {
        _ = member.child.wait();
    }
    Ok(all.figures())
}

/// Plays one of the processes: `call` makes one round trip and checks it.
///
/// # Errors
///
/// If a call fails.
pub(crate) fn play(
    part: &Part,
    mut call: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    call()?;
    println!("{CONNECTED}");
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    let start: Start = serde_json::from_str(&line)?;
    std::thread::sleep(start.at.saturating_sub(host::shared_now()));
    let mut share = Share::new(Window::starting_at(start.at, part.limit));
    while share.goes_on() {
        call()?;
        share.end_call();
    }
    let report = Report {
        messages: share.messages(),
        times: share.times().packed(),
    };
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

/// What one process says at the end.
#[derive(Serialize, Deserialize)]
struct Report {
    messages: u64,
    times: Packed,
}

/// When all of them begin, on the clock that they share.
#[derive(Serialize, Deserialize)]
struct Start {
    at: Duration,
}

struct Member {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Member {
    fn start(part: &Part) -> anyhow::Result<Self> {
        let part = Part {
            side: Side::Member,
            ..part.clone()
        };
        let mut child = Command::new(std::env::current_exe()?)
            .arg("part")
            .arg(serde_json::to_string(&part)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start so many processes")?;
        Ok(Self {
            requests: child.stdin.take().context("no standard input")?,
            answers: BufReader::new(child.stdout.take().context("no standard output")?),
            child,
        })
    }

    fn read_line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        let read = self.answers.read_line(&mut line)?;
        ensure!(read > 0, "a client process has ended too early");
        Ok(line.trim_end().to_owned())
    }
}

const CONNECTED: &str = "connected";

/// Long enough to write a line to a thousand processes.
const TIME_TO_TELL: Duration = Duration::from_millis(200);

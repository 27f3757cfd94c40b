//! A process of a measurement, seen from the first process. Every wait has a deadline.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus, kill_process_group, waitid,
};

use crate::interrupt::interrupted;
use crate::part::{Answer, Part, READY};
use crate::sample::Figures;

/// A process with everything that it starts itself. Dropping it ends them all.
pub(crate) struct Process {
    child: Child,
    lines: Receiver<String>,
    errors: PathBuf,
}

impl Process {
    /// Starts this program once more to play `part`.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub(crate) fn start_part(part: &Part) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut command = Command::new(program);
        command.arg("part").arg(serde_json::to_string(part)?);
        let errors = part.directory.join(format!("{:?}.err", part.side));
        Self::start(command, errors)
    }

    /// Starts `command`, whose messages go to the file `errors`.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub(crate) fn start(mut command: Command, errors: PathBuf) -> anyhow::Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&errors)?)
            // Away from the terminal's Ctrl-C, and ended together with what it starts.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {:?}", command.get_program()))?;
        let out = BufReader::new(child.stdout.take().context("no standard output")?);
        let (send, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self {
            child,
            lines,
            errors,
        })
    }

    /// Waits until the process says that it can be reached.
    ///
    /// # Errors
    ///
    /// If it says something else, or nothing before the deadline.
    pub(crate) fn wait_until_ready(&mut self, patience: Duration) -> anyhow::Result<()> {
        let line = self.read_line(patience)?;
        if line == READY {
            return Ok(());
        }
        match serde_json::from_str(&line) {
            Ok(Answer::Error(error)) => bail!(error),
            _ => bail!("the server said {line:?} instead of {READY:?}"),
        }
    }

    /// Waits for the figures of the measurement.
    ///
    /// # Errors
    ///
    /// If there are none before the deadline; the message is that of the process where it left one.
    pub(crate) fn wait_for_figures(&mut self, patience: Duration) -> anyhow::Result<Figures> {
        let line = self.read_line(patience)?;
        match serde_json::from_str(&line) {
            Ok(Answer::Figures(figures)) => Ok(figures),
            Ok(Answer::Error(error)) => Err(anyhow!(error)),
            Err(error) => bail!("the client said {line:?}: {error}"),
        }
    }

    fn read_line(&mut self, patience: Duration) -> anyhow::Result<String> {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left.min(LOOK)) {
                Ok(line) => return Ok(line),
                Err(RecvTimeoutError::Disconnected) => bail!(self.last_words()),
                Err(RecvTimeoutError::Timeout) if interrupted() => bail!("interrupted"),
                Err(RecvTimeoutError::Timeout) if left.is_zero() => {
                    bail!("hangs: nothing within {patience:.1?}")
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Returns why the process ended without an answer.
    fn last_words(&self) -> String {
        let how = match self.wait_for_end() {
            Some(status) => match status.terminating_signal() {
                Some(signal) => format!("signal {signal}"),
                None => format!("exit status {}", status.exit_status().unwrap_or_default()),
            },
            None => "still there".to_owned(),
        };
        let errors = fs::read_to_string(&self.errors).unwrap_or_default();
        let lines: Vec<_> = errors.lines().filter(|line| !line.is_empty()).collect();
        // A panic says where and why first, and then how to see more.
        let said = match lines.iter().position(|line| line.contains("panicked at")) {
            Some(at) => lines[at..]
                .iter()
                .take(2)
                .copied()
                .collect::<Vec<_>>()
                .join(" "),
            None => lines.last().map_or("no message", |line| line).to_owned(),
        };
        format!("ended without a result ({how}): {said}")
    }

    /// Waits a moment until the process has ended. Its number stays taken, and with it that of its group.
    fn wait_for_end(&self) -> Option<WaitIdStatus> {
        let id = self.id()?;
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let deadline = Instant::now() + TIME_TO_END;
        while Instant::now() < deadline {
            if let Ok(Some(status)) = waitid(WaitId::Pid(id), options) {
                return Some(status);
            }
            thread::sleep(Duration::from_millis(1));
        }
        None
    }

    fn id(&self) -> Option<Pid> {
        Pid::from_raw(self.child.id().cast_signed())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.stdin.take()); // tells it to end
        self.wait_for_end();
        // What it has started may still be there, and it itself may hang.
        if let Some(group) = self.id() {
            _ = kill_process_group(group, Signal::KILL);
        }
        _ = self.child.wait();
    }
}

/// Removes what rivals have left in shared memory under `token`.
pub(crate) fn remove_leftovers(token: &str) {
    let Ok(entries) = fs::read_dir(Path::new("/dev/shm")) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().contains(token) {
            // Somebody else may have been faster.
            _ = fs::remove_file(entry.path());
        }
    }
}

/// How often a wait looks whether the user has interrupted.
const LOOK: Duration = Duration::from_millis(50);

/// Ending takes a process a few milliseconds.
const TIME_TO_END: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    fn start(script: &str, directory: &Path) -> Process {
        let mut command = Command::new("sh");
        command.arg("-c").arg(script);
        Process::start(command, directory.join("errors")).unwrap()
    }

    #[test]
    fn a_process_that_hangs_is_given_up_and_ended_with_its_children() {
        let directory = tempfile::tempdir().unwrap();
        let mut process = start("sleep 600 & wait", directory.path());
        let group = process.id().unwrap();
        let error = process
            .wait_until_ready(Duration::from_millis(100))
            .unwrap_err();
        assert!(error.to_string().starts_with("hangs"), "{error}");
        drop(process);
        let deadline = Instant::now() + Duration::from_secs(10);
        while rustix::process::test_kill_process_group(group).is_ok() {
            assert!(Instant::now() < deadline, "a child is still there");
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_process_that_fails_is_quoted() {
        let directory = tempfile::tempdir().unwrap();
        let mut process = start("echo no such thing >&2; exit 3", directory.path());
        let error = process
            .wait_for_figures(Duration::from_secs(10))
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "ended without a result (exit status 3): no such thing"
        );
    }
}

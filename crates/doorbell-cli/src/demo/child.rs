//! The engine as a second process: start, wait until it serves, kill, stop.

use std::{
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, bail};
use clap::ValueEnum;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

use super::link::Transport;

/// Line that the engine prints once clients can connect.
pub(crate) const READY_LINE: &str = "ready";

/// Longest time to build the model and start serving.
const START_LIMIT: Duration = Duration::from_secs(120);
/// Longest time between the end of the work and the end of the process.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// A running engine. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct EngineProcess(Child);

impl EngineProcess {
    /// Starts this same program as the engine of `root`, and waits until it serves `path`.
    ///
    /// # Errors
    ///
    /// If it cannot be started or ends before it serves.
    pub(crate) async fn start(
        transport: Transport,
        path: &Path,
        root: &Path,
    ) -> anyhow::Result<Self> {
        let program = std::env::current_exe()
            .context("cannot find this program's own file, to start it once more")?;
        let name = transport
            .to_possible_value()
            .expect("every transport has a name on the command line");
        let mut command = Command::new(program);
        command
            .args(["engine", "--transport", name.get_name(), "--path"])
            .arg(path)
            .arg(root);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut engine = Self(command.spawn().context("cannot start the engine process")?);
        match timeout(START_LIMIT, engine.read_line()).await {
            Ok(Ok(Some(line))) if line == READY_LINE => Ok(engine),
            Ok(Ok(Some(line))) => bail!("the engine said {line:?} instead of {READY_LINE:?}"),
            Ok(Ok(None)) => bail!(
                "the engine ended before it served ({})",
                engine.0.wait().await?
            ),
            Ok(Err(error)) => Err(error).context("cannot read what the engine says"),
            Err(_) => {
                bail!("the engine does not serve after {START_LIMIT:?}; is the tree very large?")
            }
        }
    }

    async fn read_line(&mut self) -> std::io::Result<Option<String>> {
        let stdout = self
            .0
            .stdout
            .take()
            .expect("the pipe was asked for and is read once");
        BufReader::new(stdout).lines().next_line().await
    }

    /// Kills the process at once (SIGKILL where there are signals) and returns how it ended.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub(crate) async fn kill(mut self) -> std::io::Result<ExitStatus> {
        self.0.start_kill()?;
        self.0.wait().await
    }

    /// Asks the process to end, by closing its input, and waits.
    ///
    /// # Errors
    ///
    /// If it does not end in time or not well.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        drop(self.0.stdin.take());
        match timeout(STOP_LIMIT, self.0.wait()).await {
            Ok(status) => match status? {
                status if status.success() => Ok(()),
                status => bail!("the engine ended badly: {status}"),
            },
            Err(_) => bail!("the engine still runs {STOP_LIMIT:?} after it was asked to stop"),
        }
    }
}

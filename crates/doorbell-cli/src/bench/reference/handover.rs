//! Handing memory and doorbells from the second process to the first.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use doorbell_shm::sys::{BorrowedHandle, ControlStream, Listener, Mode, OwnedHandle, Poller, Wait};

/// The second process's end, which waits for the first.
pub(super) struct Giver {
    listener: Listener,
}

impl Giver {
    /// Listens at `path`.
    ///
    /// # Errors
    ///
    /// If the path cannot be had.
    pub(super) fn listen(path: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            listener: Listener::bind(path)?,
        })
    }

    /// Gives the handles to the first process that asks, and returns when it has them.
    ///
    /// # Errors
    ///
    /// If it does not take them.
    pub(super) fn give(&self, handles: &[BorrowedHandle<'_>]) -> anyhow::Result<()> {
        let stream = self.accept()?;
        stream
            .send_with_handles(&[1], handles)
            .context("cannot hand over the memory")?;
        stream.wait_readable(None)?; // it closes its end when it has them
        Ok(())
    }

    fn accept(&self) -> anyhow::Result<ControlStream> {
        let poller = Poller::new()?;
        poller.add(&self.listener, 0, Mode::Level)?;
        let mut events = Vec::new();
        loop {
            if let Some(stream) = self.listener.accept()? {
                return Ok(stream);
            }
            poller.wait(&mut events, Wait::Forever)?;
        }
    }
}

/// Takes `count` handles from the second process that listens at `path`.
///
/// # Errors
///
/// If it does not give them.
pub(super) fn take(path: &Path, count: usize) -> anyhow::Result<Vec<OwnedHandle>> {
    let deadline = Some(Instant::now() + PATIENCE);
    let stream =
        ControlStream::connect(path, deadline).context("cannot connect to the second process")?;
    stream.wait_readable(deadline)?;
    let (_, handles) = stream
        .receive_with_handles(&mut [0; 1], count)
        .context("the second process hands over nothing")?;
    ensure!(
        handles.len() == count,
        "the second process handed over {} things instead of {count}",
        handles.len()
    );
    Ok(handles)
}

/// The second process has said that it is ready, so it answers at once unless the machine is very busy.
const PATIENCE: Duration = Duration::from_secs(10);

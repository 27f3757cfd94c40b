//! Doorbells and the peer's death for tasks of tokio.
//!
//! tokio registers descriptors edge-triggered and remembers an edge until [`clear_ready`] forgets it. An edge that
//! comes while we clear is kept.
//!
//! [`clear_ready`]: AsyncFdReadyGuard::clear_ready

use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::AsRawFd;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::Interest;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};

use super::{ControlStream, Doorbell, PeerIdentity, ProcessHandle, Source};

/// The listening end of a doorbell, for tasks.
#[derive(Debug)]
pub struct AsyncDoorbell(AsyncFd<Doorbell>);

impl AsyncDoorbell {
    /// Registers the listening end of a doorbell with the current runtime.
    ///
    /// # Errors
    ///
    /// Those of the registration.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, or in one without I/O.
    pub fn new(doorbell: Doorbell) -> io::Result<Self> {
        register(doorbell).map(Self)
    }

    /// Waits for a notify, and takes it (and all others) away.
    ///
    /// With several tasks waiting, all may be woken by one notify or only one.
    ///
    /// # Errors
    ///
    /// Those of [`Doorbell::drain`]: the ringing end is gone.
    ///
    /// # Cancel safety
    ///
    /// A notify is taken in the very poll that returns it, so dropping the future loses none.
    pub async fn notified(&self) -> io::Result<()> {
        loop {
            let guard = self.0.readable().await?;
            if let Some(taken) = self.take(guard) {
                return taken;
            }
        }
    }

    /// Same as [`notified`](Self::notified) for hand-written futures. Only the task that polled last is woken.
    pub fn poll_notified(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let guard = ready!(self.0.poll_read_ready(cx))?;
            if let Some(taken) = self.take(guard) {
                return Poll::Ready(taken);
            }
        }
    }

    /// Takes the notify behind an edge; `None` if there was none.
    fn take(&self, mut guard: AsyncFdReadyGuard<'_, Doorbell>) -> Option<io::Result<()>> {
        let doorbell = self.0.get_ref();
        match doorbell.make_room() {
            Ok(has_rung) => {
                guard.clear_ready();
                has_rung.then_some(Ok(()))
            }
            Err(error) => Some(Err(error)),
        }
    }
}

/// The peer of a connection whose handshake is over, for tasks that want to know when it is gone.
#[derive(Debug)]
pub struct AsyncPeer {
    control: AsyncFd<Arc<ControlStream>>,
    process: Option<AsyncFd<ProcessHandle>>,
}

impl AsyncPeer {
    /// Registers a control stream, and the peer's process if it is known, with the current runtime.
    ///
    /// # Errors
    ///
    /// Those of the registration.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, or in one without I/O.
    pub fn new(control: Arc<ControlStream>, process: Option<ProcessHandle>) -> io::Result<Self> {
        Ok(Self {
            control: register(control)?,
            process: process.map(register).transpose()?,
        })
    }

    /// Returns who the peer was when the connection was made.
    ///
    /// # Errors
    ///
    /// None that the caller can do something about.
    pub fn peer(&self) -> io::Result<PeerIdentity> {
        self.control.get_ref().peer()
    }

    /// Waits until the peer is gone: its process has ended, or its end of the control stream is closed or broken.
    ///
    /// What it has sent is left for whoever is told elsewhere that it is there. Since nothing is read here, a peer that sends what
    /// does not belong there can make us look as often as its socket takes something, and no more.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing; once the peer is gone, every later call returns at once.
    pub async fn gone(&self) {
        let mut control = pin!(self.control_ends());
        let mut process = pin!(self.process_exits());
        poll_fn(|cx| {
            if control.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            process.as_mut().poll(cx)
        })
        .await;
    }

    async fn control_ends(&self) {
        // An error of the readiness itself means that the runtime shuts down: nobody will be told of anything.
        while let Ok(mut guard) = self.control.readable().await {
            if !matches!(self.control.get_ref().is_hung_up(), Ok(false)) {
                return;
            }
            guard.clear_ready();
        }
    }

    async fn process_exits(&self) {
        let Some(process) = &self.process else {
            return std::future::pending().await;
        };
        while let Ok(mut guard) = process.readable().await {
            if !matches!(process.get_ref().has_exited(), Ok(false)) {
                return;
            }
            guard.clear_ready();
        }
    }
}

/// Registers a source with the current runtime.
fn register<T: Source + AsRawFd>(source: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: `Source` is sealed, and each of its types owns one open descriptor from its construction until it is
    // dropped or taken apart by value, never exchanges it, and returns that one from `as_raw_fd`. Nobody closes it
    // behind the owner's back.
    Ok(unsafe { AsyncFd::register_with_interest(source, Interest::READABLE) }?)
}

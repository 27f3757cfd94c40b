//! Makes the connection, watches over it, and makes it again.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use doorbell_shm::sys::{AsyncDoorbell, AsyncPeer};
use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
};

use super::{BackOff, Options, Replaced};
use crate::{
    connection::{Account, Connection, Sleeper, Watched, lock},
    deadline::after,
    error::{CallError, ConnectError, Disconnected},
    link::dial::dial,
};

/// Whether a client has a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectionState {
    /// Calls go out at once.
    Connected,
    /// The last connection has ended, or none has been made; the next call makes one.
    Disconnected,
    /// The client has been closed; calls fail.
    Closed,
}

/// What all clones of a client share.
pub(super) struct Dialer {
    path: PathBuf,
    pub(super) options: Options,
    current: Mutex<Option<Arc<Connection>>>,
    replaced: Replaced,
    dialing: tokio::sync::Mutex<()>,
    state: watch::Sender<ConnectionState>,
    closed: AtomicBool,
    /// Where the last connection was made, or else the client, if that was on a runtime.
    runtime: Mutex<Option<Handle>>,
    /// A task makes the connection for those who cannot wait for it.
    in_background: AtomicBool,
}

impl Dialer {
    pub(super) fn new(path: PathBuf, options: Options) -> Arc<Self> {
        Arc::new(Self {
            path,
            options,
            current: Mutex::new(None),
            replaced: Replaced::default(),
            dialing: tokio::sync::Mutex::new(()),
            state: watch::Sender::new(ConnectionState::Disconnected),
            closed: AtomicBool::new(false),
            runtime: Mutex::new(Handle::try_current().ok()),
            in_background: AtomicBool::new(false),
        })
    }

    /// Returns the connection if there is a living one.
    pub(super) fn current(&self) -> Option<Arc<Connection>> {
        let current = lock(&self.current);
        current
            .as_ref()
            .filter(|connection| connection.is_usable())
            .map(Arc::clone)
    }

    pub(super) fn watch(&self) -> watch::Receiver<ConnectionState> {
        self.state.subscribe()
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        let connection = lock(&self.current).take();
        if let Some(connection) = connection {
            connection.close(Disconnected::Closed);
        }
        self.replaced.close();
        self.state.send_replace(ConnectionState::Closed);
    }

    /// Returns the connection, making one if need be; keeps trying until `give_up` while that can help.
    pub(super) async fn connect(
        self: &Arc<Self>,
        give_up: Instant,
    ) -> Result<Arc<Connection>, ConnectError> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(ConnectError::Closed); // not after the turn of whoever is closing it, which may be the caller
        }
        let _turn = self.dialing.lock().await;
        let mut back_off = BackOff::new();
        loop {
            if let Some(connection) = self.current() {
                return Ok(connection); // somebody else has made it while we waited
            }
            if self.closed.load(Ordering::Relaxed) {
                return Err(ConnectError::Closed);
            }
            let error = match self.dial_once().await {
                Ok(connection) => return Ok(connection),
                Err(error) => error,
            };
            let pause = back_off.pause();
            if !error.is_retryable() || Instant::now() + pause >= give_up {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// As [`connect`](Self::connect), for a call.
    pub(super) async fn connect_for_call(
        self: &Arc<Self>,
        deadline: Option<Instant>,
    ) -> Result<Arc<Connection>, CallError> {
        let patience = after(self.options.reconnect_timeout);
        let give_up = deadline.map_or(patience, |deadline| deadline.min(patience));
        let connected = tokio::time::timeout_at(give_up.into(), self.connect(give_up)).await;
        match connected {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(CallError::NotConnected(Arc::new(error))),
            Err(_) if deadline == Some(give_up) => Err(CallError::DeadlineBeforeSend),
            Err(_) => Err(CallError::NotConnected(Arc::new(ConnectError::TimedOut {
                path: self.path.clone(),
                after: self.options.reconnect_timeout,
            }))),
        }
    }

    /// Makes the connection in a task of its own, unless one is at it: on this thread's runtime, or else on that of the client. Returns
    /// `false` if there is neither, or it has ended.
    pub(super) fn connect_in_background(self: &Arc<Self>) -> bool {
        struct AtIt(Arc<Dialer>);
        impl Drop for AtIt {
            fn drop(&mut self) {
                self.0.in_background.store(false, Ordering::Relaxed);
            }
        }
        let Some(runtime) = self.runtime() else {
            return false;
        };
        if self.in_background.swap(true, Ordering::Relaxed) {
            return true;
        }
        let task = AtIt(Arc::clone(self));
        let spawned = runtime.spawn(async move {
            let _ = task.0.connect_for_call(None).await; // whoever needs it next sees why, if it fails again
        });
        !spawned.is_finished() // it cannot be so soon
    }

    fn runtime(&self) -> Option<Handle> {
        let here = Handle::try_current().ok();
        here.or_else(|| lock(&self.runtime).clone())
    }

    async fn dial_once(self: &Arc<Self>) -> Result<Arc<Connection>, ConnectError> {
        let this = Arc::clone(self);
        let dialed = tokio::task::spawn_blocking(move || {
            let options = &this.options;
            dial(
                &this.path,
                &options.client_name,
                options.wishes,
                &options.trusted_users,
                options.handshake_timeout,
            )
        });
        let link = dialed.await.map_err(|error| ConnectError::System {
            path: self.path.clone(),
            source: std::io::Error::other(error),
        })??;
        let (connection, watched) = Connection::new(
            link,
            Sleeper::Task,
            self.options.spin,
            self.options.max_assembly_bytes,
            Account::none(),
        );
        self.attend(&connection, watched)
            .map_err(|source| ConnectError::System {
                path: self.path.clone(),
                source,
            })?;
        let left = lock(&self.runtime).replace(Handle::current());
        drop(left); // a whole runtime may go with it, so not under the lock
        let replaced = lock(&self.current).replace(Arc::clone(&connection));
        if let Some(replaced) = replaced {
            self.replaced.add(replaced);
        }
        self.show(ConnectionState::Connected);
        if self.closed.load(Ordering::Relaxed) {
            self.close(); // closed while we dialled
            return Err(ConnectError::Closed);
        }
        Ok(connection)
    }

    /// Starts the task that drains when the doorbell rings and sees the peer's death.
    fn attend(
        self: &Arc<Self>,
        connection: &Arc<Connection>,
        watched: Watched,
    ) -> std::io::Result<()> {
        let bell = AsyncDoorbell::new(watched.bell)?;
        let peer = AsyncPeer::new(watched.control, watched.process)?;
        let ended = Arc::new(Notify::new());
        let dialer = Arc::downgrade(self);
        connection.on_close({
            let ended = Arc::clone(&ended);
            move || {
                ended.notify_one();
                if let Some(dialer) = dialer.upgrade() {
                    dialer.connection_ended();
                }
            }
        });
        let again = Arc::new(Notify::new());
        connection.set_attendant({
            let again = Arc::clone(&again);
            move || again.notify_one()
        });
        let attended = Attended {
            connection: Arc::clone(connection),
            is_finished: false,
        };
        tokio::spawn(attend(attended, bell, peer, (again, ended)));
        Ok(())
    }

    /// A connection has ended: the present one, or one that has been replaced and went on for the calls that it had.
    fn connection_ended(&self) {
        self.replaced.forget_ended();
        self.show(ConnectionState::Disconnected);
    }

    /// Shows that a connection has come or gone, if that is how it is and the client is not closed.
    ///
    /// It looks under the lock of what is shown: against one that is being made, one that ends, and `close`. Those who watch are woken
    /// after that, without a lock: their wakers may call.
    fn show(&self, state: ConnectionState) {
        self.state.send_if_modified(|shown| {
            let current = lock(&self.current);
            let is_usable = current
                .as_ref()
                .is_some_and(|connection| connection.is_usable());
            drop(current);
            let is_so = is_usable == (state == ConnectionState::Connected);
            let shows = is_so && !self.closed.load(Ordering::Relaxed);
            if shows {
                *shown = state;
            }
            shows
        });
    }
}

impl Drop for Dialer {
    fn drop(&mut self) {
        self.close();
    }
}

/// A connection with a task that attends to it. If the task's runtime ends, so does the connection: nobody would hear its bell.
struct Attended {
    connection: Arc<Connection>,
    /// Whether the task went on until the peer was gone or the connection had ended. It may still be for a driver to end it.
    is_finished: bool,
}

impl Drop for Attended {
    fn drop(&mut self) {
        if !self.is_finished {
            let reason = std::io::Error::other("the runtime on which it was made has ended");
            self.connection
                .close(Disconnected::System(Arc::new(reason)));
        }
    }
}

async fn attend(
    mut attended: Attended,
    bell: AsyncDoorbell,
    peer: AsyncPeer,
    (again, ended): (Arc<Notify>, Arc<Notify>),
) {
    let connection = &attended.connection;
    loop {
        tokio::select! {
            rung = bell.notified() => {
                connection.bell_rang();
                // A bell whose other end is closed rings no more; the socket tells the rest.
                if rung.is_err() {
                    tokio::select! {
                        () = peer.gone() => connection.close(Disconnected::PeerGone),
                        () = ended.notified() => {}
                    }
                    break;
                }
            }
            () = again.notified() => {
                tokio::task::yield_now().await;
                connection.attend();
            }
            () = peer.gone() => break connection.close(Disconnected::PeerGone),
            () = ended.notified() => break,
        }
    }
    attended.is_finished = true;
}

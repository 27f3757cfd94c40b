//! One thread for all blocking connections of the process that sees their peers die, and drives when nobody does.
//!
//! A thread asleep on a futex hears nothing of a peer's death. This one does, closes the connection, and so wakes the sleeper. It
//! also hears the doorbell, which is announced while frames wait for room and no thread waits for anything. It starts with
//! the first connection and ends with the last. If it cannot go on, so do they, and the next one has another thread.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, Weak},
};

use doorbell_shm::sys::{Mode, Poller, ProcessHandle, Wait};

use crate::{
    connection::{Connection, Watched, lock},
    error::Disconnected,
    panics::contain_visit,
};

struct Watch {
    poller: Poller,
    watched: Mutex<HashMap<u64, (Weak<Connection>, Watched)>>,
    /// Connections that have more to do than one visit allows.
    again: Mutex<Vec<Weak<Connection>>>,
}

struct Current {
    watch: Option<Arc<Watch>>,
    next_token: u64,
}

static CURRENT: Mutex<Current> = Mutex::new(Current {
    watch: None,
    next_token: 0,
});

/// Watches over a connection until it is closed; then `ended` is called.
///
/// # Errors
///
/// The thread cannot be started, or the operating system is out of resources.
pub(super) fn watch(
    connection: &Arc<Connection>,
    watched: Watched,
    ended: impl FnOnce() + Send + 'static,
) -> io::Result<()> {
    let mut current = lock(&CURRENT);
    let watch = match &current.watch {
        Some(watch) => Arc::clone(watch),
        None => start()?,
    };
    // Before the bell can ring: it may ring for more than one visit.
    connection.set_attendant({
        let (watch, connection) = (Arc::downgrade(&watch), Arc::downgrade(connection));
        move || {
            if let Some(watch) = watch.upgrade() {
                watch.call(Weak::clone(&connection));
            }
        }
    });
    current.next_token += 2;
    let token = current.next_token;
    // Under one lock: what is seen before the connection is there would be lost, since nothing is told twice.
    let mut all = lock(&watch.watched);
    if let Err(error) = watch.add(token, &watched) {
        watch.remove(&watched);
        return Err(error);
    }
    all.insert(token, (Arc::downgrade(connection), watched));
    drop(all);
    current.watch = Some(watch);
    drop(current);
    connection.on_close(move || {
        forget(token);
        ended();
    });
    Ok(())
}

fn start() -> io::Result<Arc<Watch>> {
    let watch = Arc::new(Watch {
        poller: Poller::new()?,
        watched: Mutex::default(),
        again: Mutex::default(),
    });
    let thread = std::thread::Builder::new()
        .name("doorbell-watch".to_owned())
        .stack_size(128 * 1024);
    let of_thread = Arc::clone(&watch);
    thread.spawn(move || run(&of_thread))?;
    Ok(watch)
}

/// Takes a connection out; with the last one the thread ends.
fn forget(token: u64) {
    let mut current = lock(&CURRENT);
    let Some(watch) = current.watch.clone() else {
        return;
    };
    let removed = lock(&watch.watched).remove(&token);
    if let Some((_, watched)) = removed {
        watch.remove(&watched);
    }
    if !lock(&watch.watched).is_empty() {
        return;
    }
    current.watch = None;
    drop(current); // whoever listens to what is logged may connect or close a client
    if let Err(error) = watch.poller.wake() {
        tracing::error!(%error, "cannot end the thread that watches over connections");
    }
}

/// When the thread leaves, even by a panic, nobody is to count on it: the next client starts another one.
struct Leaving(Arc<Watch>);

impl Drop for Leaving {
    fn drop(&mut self) {
        let was_current = lock(&CURRENT)
            .watch
            .take_if(|current| Arc::ptr_eq(current, &self.0))
            .is_some();
        if was_current {
            self.0.see_off_all();
        }
    }
}

fn run(watch: &Arc<Watch>) {
    let _leaving = Leaving(Arc::clone(watch));
    let mut events = Vec::new();
    while is_current(watch) {
        events.clear();
        if let Err(error) = watch.poller.wait(&mut events, Wait::Forever) {
            tracing::error!(%error, "cannot wait for what peers do; their connections are closed");
            return;
        }
        for event in &events {
            watch.handle(event.token);
        }
        let again = std::mem::take(&mut *lock(&watch.again));
        for connection in again.iter().filter_map(Weak::upgrade) {
            visit(&connection, || connection.attend());
        }
    }
}

/// Does something for one connection. If that panics, it ends: nobody knows how far it has come.
fn visit(connection: &Connection, what: impl FnOnce()) {
    if !contain_visit("watching over a connection", what) {
        let reason = io::Error::other("whoever watches over it panicked");
        contain_visit("the end of a connection", || {
            connection.close(Disconnected::System(Arc::new(reason)));
        });
    }
}

impl Watch {
    fn add(&self, token: u64, watched: &Watched) -> io::Result<()> {
        self.poller.add(&watched.bell, token + BELL, Mode::Edge)?;
        self.poller.add(&watched.control, token, Mode::Edge)?;
        match &watched.process {
            Some(process) => self.poller.add(process, token, Mode::Edge),
            None => Ok(()),
        }
    }

    /// Closing would not do: the poller forgets a counter only when the peer has closed its handle of it too.
    fn remove(&self, watched: &Watched) {
        let _ = self.poller.remove(&watched.bell);
        let _ = self.poller.remove(&watched.control);
        if let Some(process) = &watched.process {
            let _ = self.poller.remove(process);
        }
    }

    fn call(&self, connection: Weak<Connection>) {
        lock(&self.again).push(connection);
        if let Err(error) = self.poller.wake() {
            tracing::error!(%error, "cannot wake the thread that watches over connections");
        }
    }

    /// Ends the connections over which nobody watches any more: who waits on one would not hear that its peer has died.
    fn see_off_all(&self) {
        let watched = std::mem::take(&mut *lock(&self.watched));
        for (connection, _) in watched.into_values() {
            let Some(connection) = connection.upgrade() else {
                continue;
            };
            let reason = io::Error::other("the thread that watches over it has ended");
            contain_visit("the end of a connection", || {
                connection.close(Disconnected::System(Arc::new(reason)));
            });
        }
    }

    fn handle(&self, token: u64) {
        let is_bell = token % 2 == BELL;
        let connection = {
            let watched = lock(&self.watched);
            let Some((connection, watched)) = watched.get(&(token - token % 2)) else {
                return;
            };
            if !is_bell && !is_gone(watched) {
                return; // it has sent a segment
            }
            if is_bell {
                let _ = watched.bell.make_room(); // an end that is closed is seen on the control socket too
            }
            connection.upgrade()
        };
        let Some(connection) = connection else {
            return;
        };
        visit(&connection, || match is_bell {
            true => connection.bell_rang(),
            false => connection.close(Disconnected::PeerGone),
        });
    }
}

fn is_gone(watched: &Watched) -> bool {
    let has_exited = |process: &ProcessHandle| !matches!(process.has_exited(), Ok(false));
    !matches!(watched.control.is_hung_up(), Ok(false))
        || watched.process.as_ref().is_some_and(has_exited)
}

/// Tokens come in pairs: an even one for the peer's life, the next for the bell.
const BELL: u64 = 1;

fn is_current(watch: &Arc<Watch>) -> bool {
    let current = lock(&CURRENT);
    current
        .watch
        .as_ref()
        .is_some_and(|current| Arc::ptr_eq(current, watch))
}

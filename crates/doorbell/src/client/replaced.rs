//! Connections that a client has replaced because their server leaves. They go on for what is under way on them.

use std::sync::{Arc, Mutex};

use crate::{
    connection::{Connection, lock},
    error::Disconnected,
};

/// Those of one client that have not ended.
#[derive(Default)]
pub(crate) struct Replaced(Mutex<Vec<Arc<Connection>>>);

impl Replaced {
    /// Adds a connection from which no new calls go out, and ends those on which nothing is under way any more: a server may say that it leaves,
    /// and stay, as often as the client connects.
    pub(crate) fn add(&self, connection: Arc<Connection>) {
        let over = {
            let mut all = lock(&self.0);
            all.push(connection);
            take_if(&mut all, |connection| connection.has_nothing_under_way())
        };
        end_all(&over);
    }

    /// Ends all of them.
    pub(crate) fn close(&self) {
        let all = std::mem::take(&mut *lock(&self.0));
        end_all(&all);
    }

    /// Forgets those that have ended.
    pub(crate) fn forget_ended(&self) {
        let ended = take_if(&mut lock(&self.0), |connection| connection.is_closed());
        drop(ended); // with what still waits in them, so not under the lock
    }
}

fn take_if(
    all: &mut Vec<Arc<Connection>>,
    is_wanted: impl Fn(&Connection) -> bool,
) -> Vec<Arc<Connection>> {
    all.extract_if(.., |connection| is_wanted(connection))
        .collect()
}

fn end_all(connections: &[Arc<Connection>]) {
    for connection in connections {
        connection.close(Disconnected::Closed);
    }
}

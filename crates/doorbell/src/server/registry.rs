//! Handlers by message type, replaceable while the server runs.
//!
//! A worker keeps a snapshot of the table and looks at one counter per turn to see whether it is still current, so finding a
//! handler takes no lock.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use doorbell_proto::{CallId, CallKind, MessageType, Metadata, Time};

use crate::{
    connection::{Connection, lock},
    message::Incoming,
};

/// Something that answers one type of message.
pub(crate) trait Handler: Send + Sync {
    /// Which kind of call it answers; `None` for notifications.
    fn kind(&self) -> Option<CallKind>;

    /// Answers, now or later, through the connection. Runs on an I/O worker: must not block.
    fn handle(&self, request: Request<'_>);
}

/// A message that has arrived for a handler.
pub(crate) struct Request<'a> {
    pub(crate) connection: &'a Arc<Connection>,
    /// `None` for a notification.
    pub(crate) id: Option<CallId>,
    pub(crate) message_type: MessageType,
    pub(crate) deadline: Option<Time>,
    pub(crate) metadata: Option<Metadata>,
    pub(crate) payload: Incoming<'a>,
}

pub(crate) type Table = HashMap<MessageType, Arc<dyn Handler>>;

/// The table that everybody shares.
#[derive(Default)]
pub(crate) struct Registry {
    current: Mutex<Arc<Table>>,
    version: AtomicU64,
}

/// One worker's view of it.
pub(crate) struct Snapshot {
    table: Arc<Table>,
    version: u64,
}

impl Registry {
    pub(crate) fn new(table: Table) -> Self {
        Self { current: Mutex::new(Arc::new(table)), version: AtomicU64::new(0) }
    }

    /// Adds or replaces a handler. Returns `true` if there was one.
    pub(crate) fn insert(&self, message_type: MessageType, handler: Arc<dyn Handler>) -> bool {
        self.change(|table| table.insert(message_type, handler).is_some())
    }

    /// Removes a handler. Returns `true` if there was one.
    pub(crate) fn remove(&self, message_type: MessageType) -> bool {
        self.change(|table| table.remove(&message_type).is_some())
    }

    fn change(&self, change: impl FnOnce(&mut Table) -> bool) -> bool {
        let mut current = lock(&self.current);
        let result = change(Arc::make_mut(&mut current));
        self.version.fetch_add(1, Ordering::Release); // pairs with `refresh`
        result
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let version = self.version.load(Ordering::Acquire);
        Snapshot { table: Arc::clone(&lock(&self.current)), version }
    }
}

impl Snapshot {
    /// Takes the latest table if it has changed.
    pub(crate) fn refresh(&mut self, registry: &Registry) {
        if registry.version.load(Ordering::Acquire) != self.version {
            *self = registry.snapshot();
        }
    }

    pub(crate) fn get(&self, message_type: MessageType) -> Option<&Arc<dyn Handler>> {
        self.table.get(&message_type)
    }
}

//! Handlers by message type, replaceable while the server runs.
//!
//! A worker keeps a snapshot of the table and looks at one counter per message to see whether it is still current, so finding a
//! handler takes no lock. It looks after it has seen the message: whoever changes a handler and calls it then gets the new one. It looks as
//! well when it is woken, as it is by a change: a handler that nobody can call any more goes, and what it has with it.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use doorbell_proto::{CallId, CallKind, MessageType, Metadata, Time, frame::Packed};

use crate::{
    connection::{Connection, Held, InlineReplies, lock},
    message::Incoming,
    panics::contain,
};

/// Something that answers one type of message.
pub(crate) trait Handler: Send + Sync {
    /// Which kind of call it answers; `None` for notifications.
    fn kind(&self) -> Option<CallKind>;

    /// Answers, now or later, through the connection. Runs on an I/O worker: must not block.
    fn handle(&self, request: Request<'_>);

    /// Answers a call with nothing but a small payload: as [`handle`](Self::handle), which is for anything, with less to move about.
    fn handle_small(&self, request: &SmallRequest<'_>) {
        self.handle(request.into());
    }

    /// Handles notifications, one after the other. Handlers of calls are never given any.
    fn handle_all(&self, _notifications: Notifications<'_>) {}
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
    /// The payload, if it is a loan.
    pub(crate) loan: Option<Held>,
    /// Where an answer that is given before `handle` returns may be left.
    pub(crate) inline: &'a InlineReplies,
}

/// A call of which nothing has arrived but a small payload.
pub(crate) struct SmallRequest<'a> {
    pub(crate) connection: &'a Arc<Connection>,
    pub(crate) id: CallId,
    pub(crate) message_type: MessageType,
    pub(crate) payload: &'a [u8],
    /// Where an answer that is given before `handle_small` returns may be left.
    pub(crate) inline: &'a InlineReplies,
}

impl<'a> From<&SmallRequest<'a>> for Request<'a> {
    fn from(small: &SmallRequest<'a>) -> Self {
        Self {
            connection: small.connection,
            id: Some(small.id),
            message_type: small.message_type,
            deadline: None,
            metadata: None,
            payload: Incoming::Borrowed(small.payload),
            loan: None,
            inline: small.inline,
        }
    }
}

/// Notifications of one type that have arrived together.
#[derive(Clone, Copy)]
pub(crate) struct Notifications<'a> {
    pub(crate) connection: &'a Arc<Connection>,
    pub(crate) message_type: MessageType,
    pub(crate) payloads: Packed<'a>,
    pub(crate) inline: &'a InlineReplies,
}

/// Handlers, sorted by message type: servers have tens of them, and a binary search beats hashing then.
#[derive(Clone, Default)]
pub(crate) struct Table(Vec<(MessageType, Arc<dyn Handler>)>);

impl Table {
    /// Adds or replaces a handler. Returns the one that was there.
    pub(crate) fn insert(
        &mut self,
        message_type: MessageType,
        handler: Arc<dyn Handler>,
    ) -> Option<Arc<dyn Handler>> {
        match self.place(message_type) {
            Ok(index) => Some(std::mem::replace(&mut self.0[index].1, handler)),
            Err(index) => {
                self.0.insert(index, (message_type, handler));
                None
            }
        }
    }

    fn remove(&mut self, message_type: MessageType) -> Option<Arc<dyn Handler>> {
        let index = self.place(message_type).ok()?;
        Some(self.0.remove(index).1)
    }

    fn get(&self, message_type: MessageType) -> Option<&Arc<dyn Handler>> {
        self.place(message_type).ok().map(|index| &self.0[index].1)
    }

    fn place(&self, message_type: MessageType) -> Result<usize, usize> {
        self.0.binary_search_by_key(&message_type, |entry| entry.0)
    }
}

/// The table that everybody shares.
#[derive(Default)]
pub(crate) struct Registry {
    current: Mutex<Arc<Table>>,
    version: AtomicU64,
}

/// One worker's view of it.
pub(crate) struct Snapshot {
    registry: Arc<Registry>,
    table: Arc<Table>,
    version: u64,
}

impl Registry {
    pub(crate) fn new(table: Table) -> Self {
        Self {
            current: Mutex::new(Arc::new(table)),
            version: AtomicU64::new(0),
        }
    }

    /// Adds or replaces a handler. Returns `true` if there was one.
    pub(crate) fn insert(&self, message_type: MessageType, handler: Arc<dyn Handler>) -> bool {
        self.change(|table| table.insert(message_type, handler))
    }

    /// Removes a handler. Returns `true` if there was one.
    pub(crate) fn remove(&self, message_type: MessageType) -> bool {
        self.change(|table| table.remove(message_type))
    }

    fn change(&self, change: impl FnOnce(&mut Table) -> Option<Arc<dyn Handler>>) -> bool {
        let mut current = lock(&self.current);
        let replaced = change(Arc::make_mut(&mut current));
        self.version.fetch_add(1, Ordering::Relaxed);
        drop(current); // the handler is the user's: it may change handlers when it goes
        replaced.is_some()
    }

    /// The version first: a table may be newer than it says, and never older.
    fn latest(&self) -> (Arc<Table>, u64) {
        let version = self.version.load(Ordering::Relaxed);
        (Arc::clone(&lock(&self.current)), version)
    }
}

impl Snapshot {
    pub(crate) fn new(registry: Arc<Registry>) -> Self {
        let (table, version) = registry.latest();
        Self {
            registry,
            table,
            version,
        }
    }

    /// Returns the handler that is registered now.
    pub(crate) fn get(&mut self, message_type: MessageType) -> Option<&Arc<dyn Handler>> {
        // After `change`, through the ring: the client has called after that, and we look after we have seen the call.
        self.refresh();
        self.table.get(message_type)
    }

    /// Forgets handlers that are registered no more.
    #[inline]
    pub(crate) fn refresh(&mut self) {
        if self.registry.version.load(Ordering::Relaxed) != self.version {
            self.take_latest();
        }
    }

    #[cold]
    fn take_latest(&mut self) {
        let (table, version) = self.registry.latest();
        self.version = version;
        let old = std::mem::replace(&mut self.table, table);
        contain(|| drop(old)); // with the last handle of a handler, which is the user's
    }
}

//! Blocks that arrived: who has one, and how the peer hears that nobody has it any more.

use std::{
    cell::Cell,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use doorbell_proto::frame::BlockId;
use doorbell_shm::memory::SharedBytes;

use crate::{
    connection::{Connection, lock, state::State},
    error::Breach,
};

/// Blocks of the peer that nobody has any more, and of which it has not been told.
pub(crate) struct Returns {
    blocks: Mutex<Vec<BlockId>>,
    is_any: AtomicBool,
    connection: Weak<Connection>,
}

/// A block that arrived. Dropped, it goes back to the peer with the next control frames.
#[derive(Debug)]
pub(crate) struct Held {
    bytes: SharedBytes,
    block: BlockId,
    returns: Arc<Returns>,
    /// The peer has been told.
    is_told: bool,
}

impl Held {
    pub(super) fn new(bytes: SharedBytes, block: BlockId, returns: &Arc<Returns>) -> Self {
        Self {
            bytes,
            block,
            returns: Arc::clone(returns),
            is_told: false,
        }
    }

    pub(crate) fn bytes(&self) -> &SharedBytes {
        &self.bytes
    }

    /// Drops it, and tells the peer, unless that happens soon anyway. Not under the state lock.
    pub(crate) fn give_back(mut self) {
        doorbell_shm::failpoint!("loan.dropped");
        let connection = &self.returns.connection;
        if DISPATCHING.get() == connection.as_ptr().addr() {
            return; // the worker that is about to publish tells it
        }
        let Some(connection) = connection.upgrade() else {
            return;
        };
        self.let_go();
        let state = connection.lock();
        if state.end.is_none() {
            self.is_told = true;
            connection.send_returns(state, Some(self.block));
        }
    }

    /// Does not keep the segment any more. Before the peer is told, which may give the segment up, and somebody then want what was paid for it.
    fn let_go(&mut self) {
        self.bytes = SharedBytes::Private(Vec::new());
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.is_told {
            return;
        }
        self.let_go();
        lock(&self.returns.blocks).push(self.block);
        self.returns.is_any.store(true, Ordering::Relaxed); // the lock of the list orders it: see docs/orderings.md
    }
}

impl Returns {
    pub(in crate::connection) fn new(connection: Weak<Connection>) -> Arc<Self> {
        Arc::new(Self {
            blocks: Mutex::default(),
            is_any: AtomicBool::new(false),
            connection,
        })
    }

    pub(super) fn connection(&self) -> Weak<Connection> {
        Weak::clone(&self.connection)
    }
}

impl std::fmt::Debug for Returns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Returns").finish_non_exhaustive()
    }
}

impl State {
    /// Returns `true` if blocks have been dropped of which the peer has not been told.
    #[inline]
    pub(in crate::connection) fn has_returns(&self) -> bool {
        self.pool.returns.is_any.load(Ordering::Relaxed)
    }

    /// Tells the peer of the blocks that have been dropped.
    #[inline]
    pub(in crate::connection) fn collect_returns(&mut self) -> Result<(), Breach> {
        if self.has_returns() {
            self.collect_some()
        } else {
            Ok(())
        }
    }

    #[inline(never)] // most messages are no loans
    fn collect_some(&mut self) -> Result<(), Breach> {
        let returns = Arc::clone(&self.pool.returns);
        returns.is_any.store(false, Ordering::Relaxed); // before the look: what comes later sets it again (`returns-clear-first`)
        let mut said = Ok(());
        for block in lock(&returns.blocks).drain(..) {
            said = said.and_then(|()| self.say_released(block));
        }
        self.ask_again();
        said
    }
}

impl Connection {
    /// Runs `dispatch`, which may drop blocks of this connection; the caller tells the peer with what it publishes.
    pub(in crate::connection) fn dispatching<T>(&self, dispatch: impl FnOnce() -> T) -> T {
        struct Over(usize);
        impl Drop for Over {
            fn drop(&mut self) {
                DISPATCHING.set(self.0);
            }
        }
        let _over = Over(DISPATCHING.replace(std::ptr::from_ref(self).addr()));
        dispatch()
    }
}

thread_local! {
    /// Address of the connection whose request this thread is handing to a handler.
    static DISPATCHING: Cell<usize> = const { Cell::new(0) };
}

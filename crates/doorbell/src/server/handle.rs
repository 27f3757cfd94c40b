//! Handles of the connection that an I/O worker serves, one in each context.
//!
//! To count a handle takes an atomic operation when it is made and another one when it is dropped, and each waits for everything that the
//! processor has written before: together half of what a small notification cost. A handler that is ready at once drops its handle on the
//! thread that has made it, where it is kept for the next one.
//!
//! All of it is inlined, so that a context stays in registers: one that is put together in memory and then moved as a whole waits for those
//! writes, which costs as much as what is saved here.

use std::{cell::Cell, mem::ManuallyDrop, ops::Deref, sync::Arc};

use crate::connection::Connection;

/// As good as an `Arc` of a connection.
pub(crate) struct Handle(Option<Arc<Connection>>);

thread_local! {
    /// Address of the connection that this thread serves.
    static SERVED: Cell<usize> = const { Cell::new(0) };
    /// A handle of it that nobody has. Nothing is left of it behind [`serving`], and so there is nothing to drop with the thread, for which each
    /// look would ask whether that has been arranged.
    static SPARE: ManuallyDrop<Cell<Option<Arc<Connection>>>> =
        const { ManuallyDrop::new(Cell::new(None)) };
}

impl Handle {
    #[inline(always)]
    pub(super) fn new(connection: &Arc<Connection>) -> Self {
        let spare = is_served(connection)
            .then(|| SPARE.with(|spare| spare.take()))
            .flatten();
        Self(Some(spare.unwrap_or_else(|| one_more(connection))))
    }
}

impl Clone for Handle {
    fn clone(&self) -> Self {
        Self::new(self)
    }
}

impl Deref for Handle {
    type Target = Arc<Connection>;

    #[inline(always)]
    fn deref(&self) -> &Arc<Connection> {
        self.0.as_ref().expect("it is taken when it is dropped")
    }
}

impl Drop for Handle {
    #[inline(always)]
    fn drop(&mut self) {
        let Some(connection) = self.0.take() else {
            return;
        };
        if !is_served(&connection) {
            return one_less(connection);
        }
        if let Some(other) = SPARE.with(|spare| spare.replace(Some(connection))) {
            one_less(other);
        }
    }
}

// Both are calls, so that what is done for most handles is little enough to stand where they are made and dropped.

#[inline(never)]
fn one_more(connection: &Arc<Connection>) -> Arc<Connection> {
    Arc::clone(connection)
}

#[inline(never)]
fn one_less(connection: Arc<Connection>) {
    drop(connection);
}

/// Runs `serve`, which makes handles of a connection. One that is left is kept in `spare`.
#[inline(always)]
pub(super) fn serving<T>(
    connection: &Arc<Connection>,
    spare: &mut Option<Arc<Connection>>,
    serve: impl FnOnce() -> T,
) -> T {
    struct Serving<'a>(&'a mut Option<Arc<Connection>>);
    impl Drop for Serving<'_> {
        fn drop(&mut self) {
            SERVED.set(0);
            *self.0 = SPARE.with(|spare| spare.take());
        }
    }
    SPARE.with(|place| place.set(spare.take()));
    SERVED.set(address(connection));
    let _serving = Serving(spare);
    serve()
}

#[inline(always)]
fn is_served(connection: &Arc<Connection>) -> bool {
    SERVED.get() == address(connection)
}

#[inline(always)]
fn address(connection: &Arc<Connection>) -> usize {
    Arc::as_ptr(connection).addr()
}

#[cfg(test)]
mod tests {
    use doorbell_testkit::{Place, eventually};

    use super::{
        super::{
            Engine, Options,
            registry::{Registry, Table},
        },
        *,
    };
    use crate::blocking;

    /// Calls `test` with a connection of a server that nobody else has a handle of but its worker.
    fn with_connection(test: impl FnOnce(&Arc<Connection>)) {
        let place = Place::new();
        let registry = Registry::new(Table::default());
        let engine = Engine::start(&place.name(), &Options::default(), registry).unwrap();
        let _client = blocking::Client::connect(place.name()).unwrap();
        let mut found = None;
        eventually("the connection is with its worker", || {
            found = engine.any_connection();
            found
                .as_ref()
                .is_some_and(|connection| Arc::strong_count(connection) == 2)
        });
        test(&found.unwrap());
    }

    #[test]
    fn handle_that_is_dropped_while_its_connection_is_served_is_the_next_one() {
        with_connection(|connection| {
            let count = || Arc::strong_count(connection);
            let (before, mut spare) = (count(), None);
            for _ in 0..2 {
                serving(connection, &mut spare, || {
                    for _ in 0..3 {
                        let (first, second) = (Handle::new(connection), Handle::new(connection));
                        assert_eq!(count(), before + 2);
                        drop(first.clone());
                        drop((first, second));
                        assert_eq!(count(), before + 1, "one is kept");
                    }
                });
                assert!(
                    spare
                        .as_ref()
                        .is_some_and(|spare| Arc::ptr_eq(spare, connection))
                );
            }
            drop(Handle::new(connection));
            drop(spare);
            assert_eq!(count(), before, "nothing is kept of one that is not served");
        });
    }

    #[test]
    fn handle_of_another_connection_or_on_another_thread_is_not_kept() {
        with_connection(|connection| {
            with_connection(|other| {
                let count = || Arc::strong_count(connection);
                let (before, mut spare) = (count(), None);
                let (stays, goes) = (Handle::new(connection), Handle::new(connection));
                serving(other, &mut spare, || {
                    drop(stays);
                    std::thread::scope(|scope| scope.spawn(|| drop(goes)).join().unwrap());
                    assert_eq!(count(), before);
                });
                assert!(spare.is_none());
            });
        });
    }

    #[test]
    fn panic_leaves_nothing_behind() {
        with_connection(|connection| {
            let (before, mut spare) = (Arc::strong_count(connection), None);
            let served = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                serving(connection, &mut spare, || {
                    drop(Handle::new(connection));
                    panic!("a handler's");
                });
            }));
            assert!(served.is_err() && spare.is_some());
            drop(spare);
            drop(Handle::new(connection));
            assert_eq!(Arc::strong_count(connection), before);
        });
    }
}

//! What a handler knows of the call that it answers.

use std::{sync::Arc, time::Instant};

use doorbell_proto::{CallId, Metadata};
use doorbell_shm::sys::PeerIdentity;

use super::handle::Handle;
use crate::{
    connection::Connection,
    loan::{Loan, LoanError},
};

/// One call, as its handler sees it. Cheap to clone; may outlive the call.
#[derive(Clone)]
pub struct Context {
    connection: Handle,
    id: Option<CallId>,
    deadline: Option<Instant>,
    metadata: Option<Arc<Metadata>>,
}

impl Context {
    #[inline(always)]
    pub(crate) fn new(
        connection: &Arc<Connection>,
        id: Option<CallId>,
        deadline: Option<Instant>,
        metadata: Option<Metadata>,
    ) -> Self {
        Self {
            connection: Handle::new(connection),
            id,
            deadline,
            metadata: metadata.map(Arc::new),
        }
    }

    #[cfg(test)]
    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    #[cfg(test)]
    pub(crate) fn id(&self) -> Option<CallId> {
        self.id
    }

    /// Returns who called: process, user and group, as the operating system had them when the connection was made.
    pub fn peer(&self) -> &PeerIdentity {
        self.connection.identity()
    }

    /// Returns when the caller stops waiting. Pass it on to nested calls with
    /// [`Call::inherit`](crate::blocking::Call::inherit).
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Returns the metadata that came with the request.
    pub fn metadata(&self) -> Option<&Metadata> {
        self.metadata.as_deref()
    }

    /// Returns `true` once the caller no longer waits: it dropped the call, its deadline passed, or it is gone.
    ///
    /// Looks at one word in shared memory that the caller sets, so a handler that computes without awaiting sees it at once. It stays so. Once the
    /// call has been answered it says nothing; a notification is never cancelled.
    pub fn is_cancelled(&self) -> bool {
        let expired = self
            .deadline
            .is_some_and(|deadline| deadline <= Instant::now());
        expired
            || self.id.map_or_else(
                || self.connection.is_closed(),
                |id| self.connection.is_cancelled(id),
            )
    }

    /// Takes memory for a reply or an item that is sent without a copy, if there is room or a segment can be made for it. The way for
    /// handlers that run on an I/O worker, which must not wait: the room that they would wait for comes back through that worker.
    ///
    /// # Errors
    ///
    /// [`LoanError`]; [`LoanError::NoRoom`] if all that this connection may have is taken. If segments of the caller take it which it does not use, and has
    /// not used since a handler had no room the last time, it is asked to give them up, so that there is some a little later.
    pub fn try_loan(&self, length: usize) -> Result<Loan, LoanError> {
        self.connection.try_loan(length)
    }

    /// As [`try_loan`](Self::try_loan), waiting until the caller gives back what it has, or gives up what it does not use.
    /// Ends with the handler's call, as every wait in a handler does: at its deadline, or when the caller gives up.
    ///
    /// # Errors
    ///
    /// [`LoanError`]; [`LoanError::NoRoom`] if there is none, nothing is lent that could come back, and the caller has no segment that it does not use.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    #[cfg(feature = "tokio")]
    pub async fn loan(&self, length: usize) -> Result<Loan, LoanError> {
        self.connection.loan(length).await
    }

    /// As [`try_loan`](Self::try_loan), for handlers that have a thread of their own, as streaming ones have in the blocking server:
    /// waits until the caller gives back what it has or gives up what it does not use, the call ends or its deadline passes.
    ///
    /// On an I/O worker it does not wait, since nothing that is given back would be seen meanwhile: there it is the same as `try_loan`.
    ///
    /// # Errors
    ///
    /// [`LoanError`]; [`LoanError::NoRoom`] if there is none, nothing is lent that could come back, and the caller has no segment that it does not use.
    pub fn wait_loan(&self, length: usize) -> Result<Loan, LoanError> {
        self.connection
            .wait_loan_in_handler(length, self.id, self.deadline)
            .map_err(|_| LoanError::DeadlineExceeded)?
    }

    /// Waits until the call has ended because the caller no longer waits. Rarely needed: the handler's future is dropped then
    /// at its next `await`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn cancelled(&self) {
        match self.id {
            Some(id) => self.connection.ended(id).await,
            None => std::future::pending().await,
        }
    }
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("peer", self.peer())
            .field("id", &self.id)
            .field("deadline", &self.deadline)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        sync::mpsc,
        task::{Context as TaskContext, Waker},
        time::Duration,
    };

    use doorbell_proto::Status;
    use doorbell_testkit::{Place, eventually};

    use super::*;
    use crate::{Message, MessageType, Upload, blocking};

    #[derive(serde::Serialize, serde::Deserialize)]
    struct Watched;
    impl Message for Watched {
        const TYPE: MessageType = MessageType::new(1);
        type Reply = ();
    }
    impl Upload for Watched {
        type Item = ();
    }

    /// The handler has given its items up, so nobody but who waits for the end of the call has made a ticket for it.
    #[test]
    fn ticket_of_who_only_waits_for_the_end_goes_with_a_call_that_is_not_answered() {
        let place = Place::new();
        let (started, contexts) = mpsc::channel();
        let started = std::sync::Mutex::new(started);
        let _server = blocking::Server::builder(place.name())
            .on_upload(
                move |context: Context, _: Watched, items: blocking::ItemStream<()>| {
                    drop(items);
                    let (busy, until_dropped) = mpsc::channel::<()>();
                    started.lock().unwrap().send((context, busy)).unwrap();
                    let _ = until_dropped.recv();
                    Ok::<_, Status>(())
                },
            )
            .bind()
            .unwrap();
        let client = blocking::Client::connect(place.name()).unwrap();
        for is_cancelled in [true, false] {
            let call = client.upload(Watched).timeout(Duration::from_secs(1));
            let call = call.open().unwrap();
            let (context, _busy) = contexts.recv().unwrap();
            let connection = &context.connection;
            let mut ended = pin!(context.cancelled());
            let mut has_ended = || {
                let mut cx = TaskContext::from_waker(Waker::noop());
                ended.as_mut().poll(&mut cx).is_ready()
            };
            assert!(!has_ended());
            assert_eq!(connection.open_tickets(), 1);
            if is_cancelled {
                drop(call);
                eventually("the call is cancelled", has_ended);
            } else {
                eventually("the call expires", || {
                    connection.expire();
                    has_ended()
                });
            }
            assert_eq!(connection.open_tickets(), 0, "cancelled: {is_cancelled}");
        }
    }
}

//! Many notifications in one go.

use std::iter::Fuse;

use crate::{
    connection::Connection,
    error::{CallError, NotifyError},
    message::{EncodeError, Message},
    pack::Pack,
    scratch,
};

/// Notifications that are being sent, small ones many to a frame.
pub(crate) struct Notifications<I: Iterator> {
    rest: Fuse<I>,
    /// Taken from `rest`, and not sent.
    pack: Pack,
    /// The one after those, which does not fit into a frame with others.
    alone: Option<I::Item>,
    /// Why the one after those cannot be sent.
    failed: Option<EncodeError>,
    /// The pack has been refused, and somebody has waited since.
    has_waited: bool,
}

impl<M: Message, I: Iterator<Item = M>> Notifications<I> {
    pub(crate) fn new(connection: &Connection, messages: I) -> Self {
        let mut pack = Pack::default();
        pack.begin(connection.pack_limits());
        Self {
            rest: messages.fuse(),
            pack,
            alone: None,
            failed: None,
            has_waited: false,
        }
    }

    /// Sends all of them.
    ///
    /// # Errors
    ///
    /// After [`NotifyError::Full`], wait until the connection is writable; it goes on with the next call. After any other error the message that it is about, and those that
    /// follow, are not sent.
    pub(crate) fn send(&mut self, connection: &Connection) -> Result<(), NotifyError> {
        loop {
            if self.pack.is_full() || self.alone.is_some() || self.failed.is_some() {
                self.send_pack(connection)?;
            }
            if let Some(error) = self.failed.take() {
                return Err(CallError::Encode(error).into());
            }
            if let Some(message) = &self.alone {
                let send = |payload: crate::connection::Outbound<'_>| {
                    connection.notify(M::TYPE, None, payload)
                };
                scratch::encoded(message, send).map_err(CallError::Encode)??;
                self.alone = None;
            }
            let Some(message) = self.rest.next() else {
                return self.send_pack(connection);
            };
            match self.pack.add(&message) {
                Ok(true) => {}
                Ok(false) => self.alone = Some(message),
                Err(error) => self.failed = Some(error),
            }
        }
    }

    fn send_pack(&mut self, connection: &Connection) -> Result<(), NotifyError> {
        if let Some(collected) = self.pack.collected() {
            let has_waited = std::mem::replace(&mut self.has_waited, true);
            let must_wait = connection.notify_packed(M::TYPE, collected, has_waited)?;
            self.has_waited = false;
            let queued_bytes = collected.body().len();
            self.pack.clear();
            if must_wait {
                return Err(NotifyError::Full { queued_bytes });
            }
        }
        Ok(())
    }
}

//! How a side waits: by asking again, or asleep until the other side notifies it.

use std::hint::spin_loop;

use iceoryx2::port::listener::Listener;
use iceoryx2::port::notifier::Notifier;
use iceoryx2::prelude::*;

use super::{Link, event_names};
use crate::part::Part;
use crate::peers::Mode;

/// How a side waits and what it does for the other side.
pub(super) enum Wake {
    /// Neither sleeps.
    Poll,
    /// Both sleep.
    Events(Box<Events>),
}

/// Our end of the two event services.
pub(super) struct Events {
    /// Wakes us.
    listener: Listener<Link>,
    /// Wakes the other side.
    notifier: Notifier<Link>,
}

impl Wake {
    /// Makes what the mode of the part needs.
    ///
    /// # Errors
    ///
    /// If the event services cannot be made.
    pub(super) fn new(node: &Node<Link>, part: &Part) -> anyhow::Result<Self> {
        match part.mode {
            Mode::CallWoken | Mode::TopicWoken => {}
            _ => return Ok(Self::Poll),
        }
        let (ours, theirs) = event_names(part.side);
        let event = |name: &str| {
            anyhow::Ok(
                node.service_builder(&name.try_into()?)
                    .event()
                    .open_or_create()?,
            )
        };
        Ok(Self::Events(Box::new(Events {
            listener: event(ours)?.listener_builder().create()?,
            notifier: event(theirs)?.notifier_builder().create()?,
        })))
    }

    /// Tells the other side that there is a message.
    ///
    /// # Errors
    ///
    /// If that is not possible any more.
    pub(super) fn notify(&self) -> anyhow::Result<()> {
        if let Self::Events(events) = self {
            events.notifier.notify()?;
        }
        Ok(())
    }

    /// Waits until there may be a message. A notification that came before is remembered.
    ///
    /// # Errors
    ///
    /// If the wait fails.
    pub(super) fn wait(&self) -> anyhow::Result<()> {
        match self {
            Self::Poll => spin_loop(),
            Self::Events(events) => {
                events.listener.blocking_wait(|_event| {})?;
            }
        }
        Ok(())
    }
}

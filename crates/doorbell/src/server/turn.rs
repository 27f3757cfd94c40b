//! A turn of a connection: some of its frames are read, and the requests among them dispatched.

use std::{sync::Arc, time::Duration};

use doorbell_shm::stall;

use super::{
    dispatch::{dispatch, is_notification},
    handle::serving,
    registry::Snapshot,
};
use crate::{
    connection::{Connection, Dispatch, InlineReplies},
    error::Disconnected,
};

/// What a worker has beside a connection that has its turn.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Others {
    None,
    /// Connections that ring before they are read. They are looked for now and then.
    Asleep,
    /// Connections that may wait for their turn.
    Awake,
}

impl Others {
    /// Returns how long they can be left alone.
    fn patience(self) -> Option<Duration> {
        match self {
            Self::None => None,
            Self::Asleep => Some(LONGEST_TURN_ALONE),
            Self::Awake => Some(LONGEST_TURN),
        }
    }
}

/// What turns have brought, and at what cost for others.
#[derive(Clone, Copy, Default)]
pub(super) struct Served {
    pub(super) brought: Brought,
    /// It took as long as a turn may, or somebody was given work or woken: others have waited.
    pub(super) was_long: bool,
}

/// What a turn of a connection brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Brought {
    #[default]
    Nothing,
    /// Credit, and nothing else. A handler sends items meanwhile, and may want this very CPU: the next credit is not worth a spin.
    Credit,
    Messages,
}

impl Served {
    /// Returns what this turn and another one have been together.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            brought: self.brought.max(other.brought),
            was_long: self.was_long || other.was_long,
        }
    }
}

impl From<Brought> for Served {
    fn from(brought: Brought) -> Self {
        Self {
            brought,
            was_long: false,
        }
    }
}

/// Reads a turn of what a client has sent: not for long, if there are `others`.
pub(super) fn serve(
    connection: &Arc<Connection>,
    spare: &mut Option<Arc<Connection>>,
    handlers: &mut Snapshot,
    others: Others,
) -> Result<Served, Disconnected> {
    let Some(mut receive) = connection.try_receive() else {
        return Ok(Served::default());
    };
    receive.longest = others.patience();
    let mut relieved = Served::default();
    if connection.is_congested() {
        relieved = relieve(connection);
        if connection.is_blocked() {
            return Ok(relieved); // no new requests until there is room for their answers
        }
    }
    let is_watched = stall::is_watched();
    let mut hand_over = |message: Dispatch<'_>, inline: &InlineReplies| match is_watched {
        false => dispatch(connection, handlers, message, inline),
        true => stall::leave_out(|| dispatch(connection, handlers, message, inline)),
    };
    let count = serving(connection, spare, || {
        connection.drain(&mut receive, FRAMES_PER_TURN, &mut hand_over)
    })?;
    if count == 0 {
        return Ok(relieved);
    }
    let is_credit = count == receive.credits;
    Ok(relieved.and(Served {
        brought: if is_credit {
            Brought::Credit
        } else {
            Brought::Messages
        },
        was_long: receive.was_long,
    }))
}

/// Writes the answers that have waited for room, which may be large.
fn relieve(connection: &Connection) -> Served {
    if !connection.relieve() {
        return Served::default();
    }
    Served {
        brought: Brought::Messages,
        was_long: true,
    }
}

/// Reads a turn of what a dead client has left: its notifications count, its calls have nobody to answer to.
///
/// # Errors
///
/// There is no more, or as much as there may be has been read.
pub(super) fn serve_the_dead(
    connection: &Arc<Connection>,
    handlers: &mut Snapshot,
    left: &mut usize,
) -> Result<Served, Disconnected> {
    let Some(mut receive) = connection.try_receive() else {
        return Ok(Served::default()); // it stays hot
    };
    let mut hand_over = |message: Dispatch<'_>, inline: &InlineReplies| {
        if is_notification(handlers, &message) {
            stall::leave_out(|| dispatch(connection, handlers, message, inline));
        }
    };
    receive.longest = Some(LONGEST_TURN);
    let frames = FRAMES_PER_TURN.min(*left);
    let count = connection
        .drain(&mut receive, frames, &mut hand_over)
        .inspect_err(|reason| tracing::debug!(%reason, "a dead client left nonsense"))?;
    *left = left.saturating_sub(count);
    if count == 0 || *left == 0 {
        doorbell_shm::failpoint!("peer.gone.after");
        return Err(Disconnected::PeerGone);
    }
    Ok(Served {
        brought: Brought::Messages,
        was_long: receive.was_long,
    })
}

/// What a turn may take, after its first frame, while others are awake: some small calls, a few chunks of a large message, 64 notifications.
/// Whoever calls while somebody floods waits for one such turn; and each has costs of its own, 0.1 µs. The first 32 frames may take longer,
/// because they may be the calls of one who has to be woken for the answers; but not if they give work to tasks or threads, whose answers come
/// one by one.
const LONGEST_TURN: Duration = Duration::from_micros(4);

/// The same while all others are asleep. They ring, and are looked for as often after turns of that length.
const LONGEST_TURN_ALONE: Duration = Duration::from_micros(12);

/// Frames read from one connection before the next one has its turn, however quick they are.
const FRAMES_PER_TURN: usize = 64;

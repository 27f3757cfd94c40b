//! Places at which a test ends the process, as a crash would: between any two steps.
//!
//! A step is marked by [`failpoint!`](crate::failpoint), before and after it. In an ordinary build the mark is nothing at all. Under
//! `--cfg doorbell_failpoints` the process ends itself with SIGKILL at the place, and at the visit to it, that the environment names:
//! `DOORBELL_FAILPOINT=ring.publish.before:3`. [`PLACES`] lists every name, of this crate and of those above it, so that a test can
//! walk all of them; a name that is not in it does not compile.
//!
//! `DOORBELL_BROKEN_PUBLISH` makes the ring wrong on purpose: the tail moves before the bytes. What cannot tell such a ring from a
//! sound one shows nothing by passing.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Which side of a connection passes a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// A client only.
    Client,
    /// A server only.
    Server,
    /// Each of the two.
    Both,
}

/// Every place, in the order in which a connection comes to them.
pub const PLACES: &[(&str, Side)] = &[
    // A server takes its name.
    ("bind.locked", Side::Server),
    ("bind.bound", Side::Server),
    ("bind.listening", Side::Server),
    // The two shake hands.
    ("dial.before", Side::Client),
    ("dial.connected", Side::Client),
    ("dial.hello.sent", Side::Client),
    ("accept.connected", Side::Server),
    ("accept.hello.read", Side::Server),
    ("memory.create.before", Side::Server),
    ("memory.create.unsealed", Side::Server),
    ("memory.create.after", Side::Server),
    ("accept.welcome.before", Side::Server),
    ("accept.welcome.sent", Side::Server),
    ("accept.admitted", Side::Server),
    ("worker.taken", Side::Server),
    ("dial.welcome.read", Side::Client),
    ("memory.adopt.checked", Side::Client),
    ("memory.adopt.after", Side::Client),
    ("dial.assembled", Side::Client),
    // A message is written.
    ("call.before", Side::Client),
    ("call.written", Side::Client),
    ("call.sent", Side::Client),
    ("notify.before", Side::Client),
    ("notify.written", Side::Client),
    ("large.queued", Side::Both),
    ("large.chunk.written", Side::Both),
    ("small.queued", Side::Both),
    ("control.written", Side::Both),
    ("ring.reserved", Side::Both),
    ("ring.padded", Side::Both),
    ("ring.header.written", Side::Both),
    ("ring.body.written", Side::Both),
    ("ring.committed", Side::Both),
    ("ring.publish.before", Side::Both),
    ("ring.publish.after", Side::Both),
    // The other side is woken.
    ("wake.due", Side::Both),
    ("wake.told", Side::Both),
    ("bell.before", Side::Both),
    ("bell.after", Side::Both),
    ("futex.wake.before", Side::Server),
    ("futex.wake.after", Side::Server),
    // It had gone to sleep.
    ("sleep.announce.before", Side::Both),
    ("sleep.announce.after", Side::Both),
    ("sleep.withdraw.after", Side::Both),
    ("futex.wait.before", Side::Client),
    ("futex.wait.after", Side::Client),
    ("bell.rang", Side::Client),
    ("worker.sleep.before", Side::Server),
    ("worker.sleep.after", Side::Server),
    // A message is taken.
    ("ring.header.read", Side::Both),
    ("ring.body.read", Side::Both),
    ("ring.advanced", Side::Both),
    ("ring.release.before", Side::Both),
    ("ring.release.after", Side::Both),
    ("take.before", Side::Both),
    ("take.after", Side::Both),
    ("take.small", Side::Both),
    ("take.lent", Side::Both),
    ("take.chunk", Side::Both),
    ("batch.before", Side::Both),
    ("batch.after", Side::Both),
    // A handler runs, and answers.
    ("dispatch.before", Side::Server),
    ("dispatch.after", Side::Server),
    ("handler.spawned", Side::Server),
    ("answer.before", Side::Server),
    ("answer.written", Side::Server),
    ("answer.sent", Side::Server),
    ("reply.taken", Side::Client),
    // A payload is lent: the server makes memory for it, one side fills a block, the other gives it back.
    ("segment.made", Side::Server),
    ("segment.sent", Side::Server),
    ("segment.announced", Side::Server),
    ("segment.come", Side::Client),
    ("segment.received", Side::Client),
    ("segment.mapped", Side::Client),
    ("loan.allocated", Side::Both),
    ("loan.filled", Side::Both),
    ("loan.lent", Side::Both),
    ("loan.written", Side::Both),
    ("loan.held", Side::Both),
    ("loan.dropped", Side::Both),
    ("loan.returned", Side::Both),
    ("loan.taken.back", Side::Both),
    ("segment.retired", Side::Both),
    ("segment.unmapped", Side::Both),
    // A call is given up.
    ("abandon.before", Side::Client),
    ("cancel.word.after", Side::Client),
    ("abandon.after", Side::Client),
    ("expire.before", Side::Client),
    ("expire.after", Side::Client),
    // The server drains.
    ("drain.before", Side::Server),
    ("drain.told", Side::Server),
    ("drain.quiet", Side::Server),
    ("drain.ended", Side::Server),
    // The connection ends.
    ("close.before", Side::Both),
    ("close.marked", Side::Both),
    ("close.after", Side::Both),
    ("peer.gone.before", Side::Server),
    ("peer.gone.after", Side::Server),
];

/// Ends the process here if the environment asks for it. Nothing at all without `--cfg doorbell_failpoints`.
#[doc(hidden)]
#[macro_export]
macro_rules! failpoint {
    ($name:literal) => {{
        const PLACE: usize = $crate::failpoint::place($name);
        $crate::failpoint::reach(PLACE);
    }};
}

/// Returns the index of a place.
///
/// # Panics
///
/// If there is none of that name; as it is called in constants only, that is an error of the compiler.
#[doc(hidden)]
pub const fn place(name: &str) -> usize {
    let mut place = 0;
    while !is_same(PLACES[place].0, name) {
        place += 1;
    }
    place
}

const fn is_same(one: &str, other: &str) -> bool {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    let mut index = 0;
    while index < one.len() && index < other.len() && one[index] == other[index] {
        index += 1;
    }
    index == one.len() && index == other.len()
}

/// Ends the process if it is this visit to this place.
#[doc(hidden)]
pub fn reach(place: usize) {
    if let Some(armed) = ARMED.get_or_init(Armed::from_environment)
        && armed.place == place
        && armed.visits_left.fetch_sub(1, Ordering::Relaxed) == 1
    {
        crate::sys::kill_this_process();
    }
}

/// Returns `true` if the ring is to be wrong on purpose.
pub(crate) fn breaks_publish() -> bool {
    static BREAKS: OnceLock<bool> = OnceLock::new();
    *BREAKS.get_or_init(|| std::env::var_os("DOORBELL_BROKEN_PUBLISH").is_some())
}

struct Armed {
    place: usize,
    visits_left: AtomicU64,
}

impl Armed {
    fn from_environment() -> Option<Self> {
        let told = std::env::var("DOORBELL_FAILPOINT").ok()?;
        let (name, visit) = told.split_once(':').expect("a name and a visit");
        Some(Self {
            place: place(name),
            visits_left: AtomicU64::new(visit.parse().expect("the number of a visit")),
        })
    }
}

static ARMED: OnceLock<Option<Armed>> = OnceLock::new();

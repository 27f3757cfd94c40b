//! Frames that the library itself found to be broken. A peer that is killed leaves whole ones, so there must be none.

use std::{
    fmt,
    sync::{
        Once,
        atomic::{AtomicU64, Ordering},
    },
};

use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

/// Counts, from now on, what this process closes connections for.
pub(crate) fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        tracing::subscriber::set_global_default(Watcher).expect("nobody else listens");
    });
}

/// Returns how many broken frames there were since the last time.
pub(crate) fn take() -> u64 {
    BROKEN.swap(0, Ordering::AcqRel)
}

static BROKEN: AtomicU64 = AtomicU64::new(0);

struct Watcher;

impl Subscriber for Watcher {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= Level::DEBUG
    }

    fn event(&self, event: &Event<'_>) {
        struct Says(bool);
        impl Visit for Says {
            fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
                let said = format!("{value:?}");
                self.0 |= field.name() == "message"
                    && (said == "closing the connection" || said == "a dead client left nonsense");
            }
        }
        let mut says = Says(false);
        event.record(&mut says);
        BROKEN.fetch_add(u64::from(says.0), Ordering::AcqRel);
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

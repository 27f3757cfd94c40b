//! Listening to what the library logs, as a program of the user's does.

use std::{cell::Cell, fmt};

use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

/// Has `hear` called with every message that this process logs from now on, but for what it causes to be logged itself.
pub(crate) fn listen(hear: impl Fn(&str) + Send + Sync + 'static) {
    tracing::subscriber::set_global_default(Listener(hear)).expect("nobody else listens");
}

struct Listener<F>(F);

impl<F: Fn(&str) + Send + Sync + 'static> Subscriber for Listener<F> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event()
            && *metadata.level() <= Level::DEBUG
            && metadata.target().starts_with("doorbell")
    }

    fn event(&self, event: &Event<'_>) {
        if IS_HEARING.replace(true) {
            return;
        }
        let mut message = Message(String::new());
        event.record(&mut message);
        (self.0)(&message.0);
        IS_HEARING.set(false);
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

thread_local! {
    static IS_HEARING: Cell<bool> = const { Cell::new(false) };
}

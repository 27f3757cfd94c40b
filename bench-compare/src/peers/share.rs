//! What one of many callers contributes, and all of them together.
//!
//! Messages count if they end while it is counted. Times of all round trips are kept that were under way meanwhile, however
//! long before they began or after they end: a caller that is never served must not make the others look quick.

use std::time::Duration;

use crate::clock::Limit;
use crate::histogram::Times;
use crate::host;
use crate::sample::Figures;

/// From when until when is counted, on the clock that all processes share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    counted_from: Duration,
    end: Duration,
}

impl Window {
    /// Returns the window of a measurement whose warm-up begins at `start`.
    pub(super) fn starting_at(start: Duration, limit: Limit) -> Self {
        let counted_from = start + limit.warm_up;
        Self {
            counted_from,
            end: counted_from + limit.length,
        }
    }
}

/// Round trips of one caller.
#[derive(Debug)]
pub(super) struct Share {
    window: Window,
    begun: Duration,
    messages: u64,
    times: Times,
}

impl Share {
    /// Begins the first round trip.
    pub(super) fn new(window: Window) -> Self {
        Self {
            window,
            begun: host::shared_now(),
            messages: 0,
            times: Times::new(COARSE),
        }
    }

    /// Returns `true` if there is time for one more.
    pub(super) fn goes_on(&self) -> bool {
        self.begun < self.window.end
    }

    /// Ends a round trip and begins the next.
    pub(super) fn end_call(&mut self) {
        let now = host::shared_now();
        if now >= self.window.counted_from {
            self.messages += u64::from(now < self.window.end);
            self.times.record((now - self.begun).as_nanos() as u64);
        }
        self.begun = now;
    }

    pub(super) fn messages(&self) -> u64 {
        self.messages
    }

    pub(super) fn times(&self) -> &Times {
        &self.times
    }
}

/// Round trips of all callers.
#[derive(Debug)]
pub(super) struct Crowd {
    window: Window,
    messages: u64,
    least_messages: Option<u64>,
    times: Times,
}

impl Crowd {
    pub(super) fn new(window: Window) -> Self {
        Self {
            window,
            messages: 0,
            least_messages: None,
            times: Times::new(COARSE),
        }
    }

    /// Adds what one caller has contributed.
    pub(super) fn add(&mut self, messages: u64, times: &Times) {
        self.messages += messages;
        self.least_messages = Some(self.least_messages.unwrap_or(messages).min(messages));
        self.times.add(times);
    }

    pub(super) fn figures(&self) -> Figures {
        Figures {
            messages: self.messages,
            least_messages: self.least_messages,
            ..self
                .times
                .figures(self.window.end - self.window.counted_from)
        }
    }
}

/// Significant digits of times that exist once for each of a thousand callers.
pub(super) const COARSE: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_that_is_served_once_counts_once_and_its_wait_is_kept() {
        let limit = Limit {
            warm_up: Duration::ZERO,
            length: Duration::from_millis(5),
            pause: None,
        };
        let window = Window::starting_at(host::shared_now(), limit);
        let (mut served, mut starved) = (Share::new(window), Share::new(window));
        while served.goes_on() {
            served.end_call();
        }
        starved.end_call();
        assert!(!starved.goes_on());
        let mut all = Crowd::new(window);
        for share in [&served, &starved] {
            all.add(share.messages(), share.times());
        }
        let figures = all.figures();
        assert_eq!(figures.least_messages, Some(0));
        assert_eq!(figures.messages, served.messages());
        assert_eq!(starved.times().count(), 1);
    }
}

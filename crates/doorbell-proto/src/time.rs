//! Time as the protocol sees it: a number that the caller supplies.

use std::time::Duration;

/// Monotonic nanoseconds since an arbitrary origin, supplied by the caller.
///
/// Two times are only comparable when they come from the same clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// The end of time, 584 years after the origin. As a deadline it means "none".
    pub const MAX: Self = Self(u64::MAX);

    /// Returns the time that lies `nanos` nanoseconds after the origin.
    #[inline]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Returns the nanoseconds since the origin.
    #[inline]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Returns the time `duration` later, at most [`Time::MAX`].
    #[inline]
    pub fn saturating_add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos(duration)))
    }

    /// Returns how long ago `earlier` was, zero if it lies ahead.
    #[inline]
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Returns `duration` in nanoseconds, at most `u64::MAX`.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn add_past_the_end_of_time_stays_there() {
        assert_eq!(Time::from_nanos(5).saturating_add(Duration::MAX), Time::MAX);
    }

    #[test]
    fn since_a_later_time_is_zero() {
        assert_eq!(
            Time::from_nanos(5).saturating_since(Time::from_nanos(9)),
            Duration::ZERO
        );
        assert_eq!(
            Time::from_nanos(9).saturating_since(Time::from_nanos(5)),
            Duration::from_nanos(4)
        );
    }
}

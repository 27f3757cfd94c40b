//! Where the two CPUs are from each other.

use std::fmt;

/// Where the two CPUs of the bounce were while something was measured.
///
/// On virtual machines the host moves them, which changes every figure of two processes that share memory by a factor of two
/// to five. Figures of different placements are never put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Placement {
    /// They share a core or a cache: a cache line goes back and forth in less than [`NEAR_BELOW_NS`].
    Near,
    /// They share nothing that is fast.
    Far,
    /// They were moved in between.
    Moved,
    /// Something else ran on one of them.
    Busy,
    /// There is only one CPU and nothing to bounce to.
    Unknown,
}

impl Placement {
    /// Returns the placement that the bounces before and after a row show.
    pub(crate) fn of_bounces(bounces_ns: Option<(f64, f64)>) -> Self {
        let Some((before, after)) = bounces_ns else {
            return Self::Unknown;
        };
        let (least, greatest) = (before.min(after), before.max(after));
        match greatest {
            _ if greatest > BUSY_ABOVE_NS => Self::Busy,
            _ if greatest < NEAR_BELOW_NS => Self::Near,
            _ if greatest > least * MOVED_ABOVE_RATIO => Self::Moved,
            _ => Self::Far,
        }
    }

    /// Returns `true` if rows measured meanwhile can be compared with each other.
    pub(crate) fn is_steady(self) -> bool {
        match self {
            Self::Near | Self::Far | Self::Unknown => true,
            Self::Moved | Self::Busy => false,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Near => "near",
            Self::Far => "far",
            Self::Moved => "moved",
            Self::Busy => "busy",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// A cache line that bounces faster than this stays within one core or cache. On the machines seen so far the time is either
/// 50 to 130 ns or 200 to 370 ns.
const NEAR_BELOW_NS: f64 = 170.0;

/// Bounces of one placement differ less than this.
const MOVED_ABOVE_RATIO: f64 = 1.6;

/// No two CPUs of one machine are so far from each other; one of the two threads did not run all the time.
const BUSY_ABOVE_NS: f64 = 1500.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_placement_is_that_of_both_bounces_or_moved() {
        assert_eq!(Placement::of_bounces(Some((70.0, 120.0))), Placement::Near);
        assert_eq!(Placement::of_bounces(Some((330.0, 310.0))), Placement::Far);
        assert_eq!(Placement::of_bounces(Some((70.0, 330.0))), Placement::Moved);
        assert_eq!(Placement::of_bounces(Some((70.0, 9e4))), Placement::Busy);
        assert_eq!(Placement::of_bounces(None), Placement::Unknown);
    }
}

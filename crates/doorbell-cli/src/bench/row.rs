//! Rows: the figures of all runs of one case, as they are printed.

use std::time::Duration;

use serde_json::{Value, json};

use super::case::{Case, Compared};
use super::options::Waiting;
use super::sample::{Figures, median};

/// Where the two CPUs of the bounce were while something was measured.
///
/// On virtual machines the host moves them, which changes every figure of two processes that share memory by a factor of
/// two to five. Figures of different placements are never put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Placement {
    /// They share a core or a cache: a cache line goes back and forth in less than [`NEAR_BELOW_NS`].
    Near,
    /// They share nothing that is fast.
    Far,
    /// They were moved in between: the ratio to the reference means nothing.
    Moved,
    /// Something else ran on one of them.
    Busy,
    /// There is only one CPU and nothing to bounce to.
    Unknown,
}

impl Placement {
    /// Returns the placement that bounces of so many nanoseconds show, measured one after the other.
    pub(crate) fn of_bounces(bounces_ns: &[f64]) -> Self {
        let least = bounces_ns.iter().copied().fold(f64::INFINITY, f64::min);
        let greatest = bounces_ns.iter().copied().fold(0.0, f64::max);
        match greatest {
            _ if bounces_ns.is_empty() => Self::Unknown,
            _ if greatest > BUSY_ABOVE_NS => Self::Busy,
            _ if greatest > least * MOVED_ABOVE_RATIO => Self::Moved,
            _ if greatest < NEAR_BELOW_NS => Self::Near,
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

/// One case in one run.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) figures: Figures,
    /// The bounce right before and right after, in nanoseconds.
    pub(crate) bounce_ns: Option<(f64, f64)>,
    pub(crate) placement: Placement,
    /// CPUs that other programs kept busy meanwhile, where the system tells.
    pub(crate) other_load: Option<f64>,
    /// With the reference in the same run; `None` for the reference itself.
    pub(crate) comparison: Option<Comparison>,
}

/// A subject beside the reference that was measured before and after it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Comparison {
    /// The subject in multiples of the reference: the mean of both.
    pub(crate) ratio: f64,
    /// The later reference in multiples of the earlier one, or the other way round: at least 1.
    pub(crate) drift: f64,
}

impl Comparison {
    /// Compares; `None` if the reference has nothing to compare with.
    pub(crate) fn between(
        compared: Compared,
        subject: &Figures,
        before: &Figures,
        after: &Figures,
    ) -> Option<Self> {
        let (with_before, with_after) = (
            ratio(compared, subject, before)?,
            ratio(compared, subject, after)?,
        );
        let drift = with_before / with_after;
        Some(Self {
            ratio: (with_before * with_after).sqrt(),
            drift: drift.max(1.0 / drift),
        })
    }
}

/// One line of the output: all runs of one case in one placement.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) bench: &'static str,
    pub(crate) group: &'static str,
    pub(crate) peer: &'static str,
    pub(crate) mode: &'static str,
    pub(crate) size_bytes: usize,
    pub(crate) window: usize,
    pub(crate) connections: usize,
    pub(crate) pin: &'static str,
    /// Pause between two round trips.
    pub(crate) pause: Option<Duration>,
    /// How Doorbell waits; `None` for a reference.
    pub(crate) waiting: Option<Waiting>,
    pub(crate) runs: usize,
    pub(crate) figures: Figures,
    pub(crate) placement: Placement,
    pub(crate) bounce_before_ns: Option<f64>,
    pub(crate) bounce_after_ns: Option<f64>,
    pub(crate) other_load: Option<f64>,
    /// Name of what it is compared with; `None` for a reference.
    pub(crate) reference: Option<String>,
    /// Median, least and greatest ratio to the reference.
    pub(crate) ratio: Option<[f64; 3]>,
    /// Greatest factor by which two references beside it differed.
    pub(crate) reference_drift: Option<f64>,
    /// What that is the ratio of.
    pub(crate) compared: Compared,
}

impl Row {
    /// Puts the runs of `case` together, one row for each placement that occurred.
    pub(crate) fn of_runs(
        bench: &'static str,
        group: &'static str,
        case: &Case,
        reference: Option<&Case>,
        compared: Compared,
        outcomes: &[Outcome],
    ) -> Vec<Self> {
        let mut placements: Vec<_> = outcomes.iter().map(|outcome| outcome.placement).collect();
        placements.sort_unstable();
        placements.dedup();
        let row = |placement| {
            let runs: Vec<_> = outcomes
                .iter()
                .filter(|outcome| outcome.placement == placement)
                .collect();
            let figures: Vec<_> = runs.iter().map(|outcome| outcome.figures).collect();
            let comparisons: Vec<_> = runs
                .iter()
                .filter_map(|outcome| outcome.comparison)
                .collect();
            Self {
                bench,
                group,
                peer: case.peer,
                mode: case.mode,
                size_bytes: case.size_bytes,
                window: case.window,
                connections: case.connections,
                pin: case.pin.name(),
                pause: case.pause,
                waiting: case.waiting,
                runs: runs.len(),
                figures: Figures::median_of(&figures),
                placement,
                bounce_before_ns: median(
                    runs.iter().filter_map(|outcome| Some(outcome.bounce_ns?.0)),
                ),
                bounce_after_ns: median(
                    runs.iter().filter_map(|outcome| Some(outcome.bounce_ns?.1)),
                ),
                other_load: median(runs.iter().filter_map(|outcome| outcome.other_load)),
                reference: reference
                    .map(|reference| format!("{} {}", reference.peer, reference.mode)),
                ratio: spread(comparisons.iter().map(|comparison| comparison.ratio)),
                reference_drift: spread(comparisons.iter().map(|comparison| comparison.drift))
                    .map(|[.., greatest]| greatest),
                compared,
            }
        };
        placements.into_iter().map(row).collect()
    }

    /// Returns the row as the object that `--json` prints. Times are in nanoseconds; what was not measured is null.
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "bench": self.bench,
            "group": self.group,
            "peer": self.peer,
            "mode": self.mode,
            "size_bytes": self.size_bytes,
            "window": self.window,
            "connections": self.connections,
            "spin": self.waiting.map(Waiting::name),
            "pause_ns": self.pause.map(|pause| pause.as_nanos() as u64),
            "pin": self.pin,
            "runs": self.runs,
            "p50_ns": self.figures.p50_ns,
            "p99_ns": self.figures.p99_ns,
            "p999_ns": self.figures.p999_ns,
            "per_s": self.figures.per_s,
            "paced_per_s": self.figures.paced_per_s,
            "bytes_per_s": self.figures.bytes_per_s,
            "system_calls_per_message": self.figures.system_calls_per_message,
            "cpus_used": self.figures.cpus_used,
            "server_bytes": self.figures.server_bytes,
            "near_far": self.placement.name(),
            "bounce_before_ns": self.bounce_before_ns,
            "bounce_after_ns": self.bounce_after_ns,
            "other_load": self.other_load,
            "reference": self.reference,
            "ratio": self.ratio.map(|[median, ..]| median),
            "ratio_min": self.ratio.map(|[_, least, _]| least),
            "ratio_max": self.ratio.map(|[.., greatest]| greatest),
            "reference_drift": self.reference_drift,
            "ratio_of": self.ratio.map(|_| self.ratio_of()),
        })
    }

    fn ratio_of(&self) -> &'static str {
        match self.compared {
            Compared::P99 => "p99_ns",
            Compared::Rate => "per_s",
            Compared::Typical if self.figures.p50_ns.is_some() => "p50_ns",
            Compared::Typical => "per_s",
        }
    }
}

/// Returns `subject` in multiples of `reference`: of its time where round trips were timed, else of its rate.
fn ratio(compared: Compared, subject: &Figures, reference: &Figures) -> Option<f64> {
    let time = |figures: &Figures| match compared {
        Compared::Typical => figures.p50_ns,
        Compared::P99 => figures.p99_ns,
        Compared::Rate => None,
    };
    match (time(subject), time(reference)) {
        (Some(subject), Some(reference)) if reference > 0.0 => Some(subject / reference),
        _ if reference.per_s > 0.0 => Some(subject.per_s / reference.per_s),
        _ => None,
    }
}

fn spread(ratios: impl Iterator<Item = f64>) -> Option<[f64; 3]> {
    let ratios: Vec<f64> = ratios.collect();
    let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    let greatest = ratios.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    median(ratios.into_iter()).map(|median| [median, least, greatest])
}

/// A cache line that bounces faster than this stays within one core or cache. On the machines seen so far the time is
/// either 50 to 130 ns or 300 to 370 ns, and nothing in between.
const NEAR_BELOW_NS: f64 = 200.0;

/// Bounces of one placement differ less than this.
const MOVED_ABOVE_RATIO: f64 = 1.5;

/// No two CPUs of one machine are so far from each other; one of the two processes did not run all the time.
const BUSY_ABOVE_NS: f64 = 1500.0;

#[cfg(test)]
mod tests {
    use super::super::options::Pin;
    use super::*;

    fn outcome(p50_ns: f64, placement: Placement, ratio: f64) -> Outcome {
        let figures = Figures {
            p50_ns: Some(p50_ns),
            per_s: 1.0,
            bytes_per_s: 64.0,
            ..Figures::default()
        };
        Outcome {
            figures,
            bounce_ns: Some((80.0, 81.0)),
            placement,
            other_load: None,
            comparison: Some(Comparison { ratio, drift: 1.0 }),
        }
    }

    fn case() -> Case {
        Case::new("doorbell", "async", 64, Pin::None, |_| unreachable!())
    }

    #[test]
    fn runs_of_different_placements_become_different_rows() {
        let outcomes = [
            outcome(100.0, Placement::Near, 2.0),
            outcome(900.0, Placement::Far, 3.0),
            outcome(120.0, Placement::Near, 2.5),
            outcome(110.0, Placement::Near, 2.2),
        ];
        let rows = Row::of_runs("rtt", "spin", &case(), None, Compared::Typical, &outcomes);
        let found: Vec<_> = rows
            .iter()
            .map(|row| (row.placement, row.runs, row.figures.p50_ns))
            .collect();
        assert_eq!(
            found,
            [
                (Placement::Near, 3, Some(110.0)),
                (Placement::Far, 1, Some(900.0))
            ]
        );
        assert_eq!(rows[0].ratio, Some([2.2, 2.0, 2.5]));
    }

    #[test]
    fn the_placement_is_that_of_all_bounces_or_moved() {
        assert_eq!(Placement::of_bounces(&[70.0, 90.0]), Placement::Near);
        assert_eq!(Placement::of_bounces(&[330.0, 310.0]), Placement::Far);
        assert_eq!(
            Placement::of_bounces(&[70.0, 75.0, 330.0]),
            Placement::Moved
        );
        assert_eq!(Placement::of_bounces(&[70.0, 90_000.0]), Placement::Busy);
        assert_eq!(Placement::of_bounces(&[]), Placement::Unknown);
    }

    #[test]
    fn comparison_is_with_the_mean_of_both_references() {
        let figures = |p50_ns| outcome(p50_ns, Placement::Near, 1.0).figures;
        let (subject, before, after) = (figures(400.0), figures(100.0), figures(400.0));
        let found = Comparison::between(Compared::Typical, &subject, &before, &after).unwrap();
        assert_eq!((found.ratio, found.drift), (2.0, 4.0));
    }

    #[test]
    fn ratio_is_of_times_where_both_have_one_and_else_of_rates() {
        let mut subject = outcome(300.0, Placement::Near, 1.0).figures;
        let mut reference = outcome(100.0, Placement::Near, 1.0).figures;
        assert_eq!(ratio(Compared::Typical, &subject, &reference), Some(3.0));
        (subject.p99_ns, reference.p99_ns) = (Some(800.0), Some(200.0));
        assert_eq!(ratio(Compared::P99, &subject, &reference), Some(4.0));
        (subject.p50_ns, subject.per_s, reference.per_s) = (None, 6.0, 4.0);
        assert_eq!(ratio(Compared::Typical, &subject, &reference), Some(1.5));
    }
}

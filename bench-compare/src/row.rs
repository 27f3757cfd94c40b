//! Rows: the figures of all runs of one case, as they are printed.

use serde_json::{Value, json};

use crate::placement::Placement;
use crate::plan::{Case, Group};
use crate::sample::{By, Figures, median};

/// One case in one run.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) case: Case,
    /// Or why there are none.
    pub(crate) figures: Result<Figures, String>,
    pub(crate) placement: Placement,
    pub(crate) bounce_ns: Option<(f64, f64)>,
    /// How many times faster Doorbell was in the same run and placement.
    pub(crate) doorbell_ahead: Option<f64>,
}

impl Outcome {
    /// Returns `true` if these are figures of `case` in `placement`.
    pub(crate) fn is_beside(&self, case: Case, placement: Placement) -> bool {
        self.case == case && self.placement == placement && self.figures.is_ok()
    }
}

/// Compares the outcomes of one run with the nearest one of the group's first case in the same placement, where there is one.
pub(crate) fn compare(group: &Group, outcomes: &mut [Outcome]) {
    let base = group.cases[0];
    for index in 0..outcomes.len() {
        let Outcome {
            case,
            placement,
            ref figures,
            ..
        } = outcomes[index];
        let nearest = outcomes
            .iter()
            .enumerate()
            .filter(|(_, other)| case != base && other.is_beside(base, placement))
            .min_by_key(|(at, _)| at.abs_diff(index));
        let ratio = nearest
            .and_then(|(_, other)| other.figures.as_ref().ok())
            .zip(figures.as_ref().ok())
            .and_then(|(ours, theirs)| ours.speed_ratio(theirs, group.by));
        outcomes[index].doorbell_ahead = ratio;
    }
}

/// One line of the output: all runs of one case in one placement.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) group: Group,
    pub(crate) case: Case,
    pub(crate) placement: Placement,
    pub(crate) runs: usize,
    pub(crate) per_s: f64,
    pub(crate) figures: Figures,
    /// Median, least and greatest of how many times faster Doorbell was.
    pub(crate) doorbell_ahead: Option<[f64; 3]>,
    pub(crate) bounce_ns: Option<f64>,
    /// Why there are no figures.
    pub(crate) error: Option<String>,
}

impl Row {
    /// Puts the runs of one group together: a row for each case in each placement that occurred.
    pub(crate) fn of_runs(group: &Group, outcomes: &[Outcome]) -> Vec<Self> {
        let mut rows = Vec::new();
        for &case in &group.cases {
            let of_case = outcomes.iter().filter(|outcome| outcome.case == case);
            let mut placements: Vec<_> = of_case
                .clone()
                .map(|outcome| (outcome.figures.is_err(), outcome.placement))
                .collect();
            placements.sort_unstable();
            placements.dedup();
            for (has_failed, placement) in placements {
                let alike: Vec<_> = of_case
                    .clone()
                    .filter(|outcome| {
                        (outcome.figures.is_err(), outcome.placement) == (has_failed, placement)
                    })
                    .collect();
                rows.push(Self::of_alike(group, case, placement, &alike));
            }
        }
        rows
    }

    fn of_alike(group: &Group, case: Case, placement: Placement, runs: &[&Outcome]) -> Self {
        let figures: Vec<_> = runs
            .iter()
            .filter_map(|outcome| outcome.figures.as_ref().ok())
            .collect();
        let middle = |pick: fn(&Figures) -> Option<f64>| {
            median(figures.iter().filter_map(|figures| pick(figures)))
        };
        let per_s = median(figures.iter().map(|figures| figures.per_s())).unwrap_or_default();
        let ratios = runs.iter().filter_map(|outcome| outcome.doorbell_ahead);
        Self {
            group: group.clone(),
            case,
            placement,
            runs: runs.len(),
            per_s,
            figures: Figures {
                messages: figures.iter().map(|figures| figures.messages).sum(),
                elapsed_ns: figures.iter().map(|figures| figures.elapsed_ns).sum(),
                p50_ns: middle(|figures| figures.p50_ns),
                p99_ns: middle(|figures| figures.p99_ns),
                p999_ns: middle(|figures| figures.p999_ns),
                least_messages: figures
                    .iter()
                    .filter_map(|figures| figures.least_messages)
                    .min(),
            },
            doorbell_ahead: spread(ratios.collect()),
            bounce_ns: median(runs.iter().filter_map(|outcome| Some(outcome.bounce_ns?.0))),
            error: runs
                .iter()
                .find_map(|outcome| outcome.figures.as_ref().err())
                .cloned(),
        }
    }

    /// Returns `true` if the other rows of the group are compared with this one.
    pub(crate) fn doorbell_is_base(&self) -> bool {
        self.case == self.group.cases[0]
    }

    /// Returns the row as the object that goes into the file. Times are in nanoseconds; what was not measured is null.
    pub(crate) fn to_json(&self) -> Value {
        let figure = |value: f64| self.error.is_none().then_some(value);
        json!({
            "bench": "compare",
            "group": self.group.name,
            "peer": self.case.peer.name(),
            "mode": self.case.mode.name(),
            "size_bytes": self.group.size_bytes,
            "window": self.group.work.window(),
            "pin": self.group.pin.name(),
            "pause_ns": self.group.pause.map(|pause| pause.as_nanos() as u64),
            "runs": self.runs,
            "p50_ns": self.figures.p50_ns,
            "p99_ns": self.figures.p99_ns,
            "p999_ns": self.figures.p999_ns,
            "per_s": figure(self.per_s),
            "bytes_per_s": figure(self.per_s * self.group.size_bytes as f64),
            "near_far": self.placement.name(),
            "bounce_ns": self.bounce_ns,
            "least_messages": self.figures.least_messages,
            "doorbell_ahead": self.doorbell_ahead.map(|[median, ..]| median),
            "doorbell_ahead_min": self.doorbell_ahead.map(|[_, least, _]| least),
            "doorbell_ahead_max": self.doorbell_ahead.map(|[.., greatest]| greatest),
            "compared": match self.group.by {
                By::Time => "p50_ns",
                By::Rate => "per_s",
            },
            "error": self.error,
        })
    }
}

fn spread(ratios: Vec<f64>) -> Option<[f64; 3]> {
    let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    let greatest = ratios.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    median(ratios.into_iter()).map(|median| [median, least, greatest])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_compared_with_the_nearest_one_of_doorbell_in_the_same_placement() {
        let group = &crate::plan::groups()[0];
        let outcome = |case, p50_ns, placement| Outcome {
            case,
            figures: Ok(Figures {
                messages: 1,
                elapsed_ns: p50_ns,
                p50_ns: Some(p50_ns),
                ..Figures::default()
            }),
            placement,
            bounce_ns: None,
            doorbell_ahead: None,
        };
        let (doorbell, rival) = (group.cases[0], group.cases[1]);
        let mut outcomes = [
            outcome(doorbell, 100.0, Placement::Near),
            outcome(rival, 900.0, Placement::Far),
            outcome(rival, 200.0, Placement::Near),
            outcome(doorbell, 300.0, Placement::Far),
            outcome(rival, 500.0, Placement::Moved),
        ];
        compare(group, &mut outcomes);
        let found = outcomes.map(|outcome| outcome.doorbell_ahead);
        assert_eq!(found, [None, Some(3.0), Some(2.0), None, None]);
    }

    #[test]
    fn placements_and_failures_become_rows_of_their_own() {
        let group = &crate::plan::groups()[0];
        let outcome = |p50_ns: Option<f64>, placement, doorbell_ahead| Outcome {
            case: group.cases[1],
            figures: p50_ns
                .map(|p50_ns| Figures {
                    messages: 1,
                    elapsed_ns: p50_ns,
                    p50_ns: Some(p50_ns),
                    ..Figures::default()
                })
                .ok_or_else(|| "hangs".into()),
            placement,
            bounce_ns: None,
            doorbell_ahead,
        };
        let rows = Row::of_runs(
            group,
            &[
                outcome(Some(100.0), Placement::Near, Some(2.0)),
                outcome(Some(300.0), Placement::Far, Some(3.0)),
                outcome(Some(120.0), Placement::Near, Some(2.5)),
                outcome(None, Placement::Near, None),
                outcome(Some(110.0), Placement::Near, Some(2.2)),
            ],
        );
        let found: Vec<_> = rows
            .iter()
            .map(|row| (row.placement, row.runs, row.figures.p50_ns))
            .collect();
        let expected = [
            (Placement::Near, 3, Some(110.0)),
            (Placement::Far, 1, Some(300.0)),
            (Placement::Near, 1, None),
        ];
        assert_eq!(found, expected);
        assert_eq!(rows[0].doorbell_ahead, Some([2.2, 2.0, 2.5]));
        assert_eq!(rows[2].error.as_deref(), Some("hangs"));
    }
}

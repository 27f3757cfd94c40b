//! Runs groups of cases and prints their rows.
//!
//! In each run of a group the reference is measured first, then each subject, with the reference in between and at the end (a quick run
//! leaves that out), and the bounce before and after each. A subject is compared with the references on both sides of it. If the bounce
//! has changed sides, what was measured on both sides of the change cannot be compared: the run is repeated a few times, and what is still
//! mixed after that is marked. So is a row whose two references differ.

use doorbell_shm::sys;

use super::case::{Case, Group};
use super::options::Options;
use super::output::{Output, Section};
use super::plot::Plot;
use super::process_cost::Load;
use super::progress::Progress;
use super::reference::bounce;
use super::row::{Comparison, Outcome, Placement, Row};
use super::table::Sheet;
use crate::interrupt::interrupted;

/// Measures all groups and puts out their rows: JSON lines as they come, a table at the end.
///
/// # Errors
///
/// If a case cannot be measured; what was measured before is put out.
pub(crate) fn run(
    bench: &Bench,
    groups: &[Group],
    options: &Options,
    output: &mut Output,
) -> anyhow::Result<()> {
    let measurements: usize = groups.iter().map(|group| group.measurements(options)).sum();
    let progress = Progress::start(measurements as u64 * u64::from(options.runs()));
    let mut rows = Vec::new();
    let mut result = Ok(());
    for group in groups {
        let runs = GroupRuns::measure(group, options, &progress);
        let new_rows = runs.rows(bench.name);
        progress.suspend(|| output.json(new_rows.iter().map(Row::to_json)))?;
        rows.extend(new_rows);
        result = runs.result;
        if interrupted() || result.is_err() {
            break;
        }
    }
    progress.finish();
    output.section(Section {
        bench: bench.name,
        about: bench.about,
        plots: (bench.plots)(&rows),
        sheets: vec![Sheet::of_rows(&rows)],
    })?;
    result
}

/// A benchmark that has groups of rows.
pub(crate) struct Bench {
    pub(crate) name: &'static str,
    /// What it measures, and beside what, in a sentence or two.
    pub(crate) about: &'static str,
    /// Draws its rows.
    pub(crate) plots: fn(&[Row]) -> Vec<Plot>,
}

/// All runs of one group.
struct GroupRuns<'a> {
    group: &'a Group,
    /// For the reference and then for each subject: what came out of each run.
    outcomes: Vec<Vec<Outcome>>,
    result: anyhow::Result<()>,
}

impl<'a> GroupRuns<'a> {
    fn measure(group: &'a Group, options: &Options, progress: &Progress) -> Self {
        let mut runs = Self {
            group,
            outcomes: vec![Vec::new(); 1 + group.subjects.len()],
            result: Ok(()),
        };
        for run in 1..=options.runs() {
            runs.result = runs.one_run(run, options, progress);
            if runs.result.is_err() || interrupted() {
                break;
            }
        }
        runs
    }

    /// Measures until the CPUs stay where they are, a few times at most, and keeps the last attempt.
    fn one_run(&mut self, run: u32, options: &Options, progress: &Progress) -> anyhow::Result<()> {
        let attempts = if options.common.quick {
            1
        } else {
            MAX_ATTEMPTS
        };
        let mut number = 1;
        let (attempt, result) = loop {
            let again = if number > 1 {
                ", again because the CPUs were moved"
            } else {
                ""
            };
            let announce = |case: &Case| {
                progress.next(format!(
                    "{}: {} {}, run {run}{again}",
                    self.group.name, case.peer, case.mode
                ));
            };
            let mut attempt = Attempt::default();
            let result = attempt.measure(self.group, options, announce);
            if result.is_err() || interrupted() || attempt.is_steady() || number == attempts {
                break (attempt, result);
            }
            number += 1;
        };
        self.keep(attempt);
        progress.done(self.group.measurements(options));
        result
    }

    fn keep(&mut self, attempt: Attempt) {
        for (all, outcome) in self.outcomes.iter_mut().zip(attempt.outcomes) {
            all.push(outcome);
        }
    }

    fn rows(&self, bench: &'static str) -> Vec<Row> {
        let Group {
            name,
            reference,
            subjects,
            compared,
        } = self.group;
        let cases = std::iter::once((reference, None))
            .chain(subjects.iter().map(|case| (case, Some(reference))));
        let measured = cases
            .zip(&self.outcomes)
            .filter(|(_, outcomes)| !outcomes.is_empty());
        measured
            .flat_map(|((case, reference), outcomes)| {
                Row::of_runs(bench, name, case, reference, *compared, outcomes)
            })
            .collect()
    }
}

/// One run of a group, complete or cut short.
#[derive(Default)]
struct Attempt {
    outcomes: Vec<Outcome>,
    bounces_ns: Vec<f64>,
}

impl Attempt {
    fn measure(
        &mut self,
        group: &Group,
        options: &Options,
        announce: impl Fn(&Case),
    ) -> anyhow::Result<()> {
        self.bounces_ns = Vec::from_iter(bounce_now(options)?);
        let reference = &group.reference;
        announce(reference);
        let Some(first) = self.measure_once(reference, options)? else {
            return Ok(());
        };
        let mut before = first.figures;
        self.outcomes.push(first);
        for case in &group.subjects {
            if interrupted() {
                return Ok(());
            }
            announce(case);
            let Some(mut subject) = self.measure_once(case, options)? else {
                return Ok(());
            };
            let mut after = before;
            if !options.common.quick && !interrupted() {
                announce(reference);
                if let Some(again) = self.measure_once(reference, options)? {
                    after = again.figures;
                }
            }
            subject.comparison =
                Comparison::between(group.compared, &subject.figures, &before, &after);
            self.outcomes.push(subject);
            before = after;
        }
        Ok(())
    }

    /// Measures one case and the bounce after it. `None` if that was interrupted before anything was finished.
    fn measure_once(&mut self, case: &Case, options: &Options) -> anyhow::Result<Option<Outcome>> {
        let load_before = Load::now();
        let sample = case.measure(options)?;
        let other_load = load_before
            .zip(Load::now())
            .map(|(before, after)| after.of_others_since(&before));
        if sample.messages == 0 {
            return Ok(None);
        }
        self.bounces_ns.extend(bounce_now(options)?);
        Ok(Some(Outcome {
            figures: sample.figures(),
            bounce_ns: self
                .bounces_ns
                .last_chunk()
                .map(|&[before, after]| (before, after)),
            placement: Placement::of_bounces(&self.bounces_ns),
            other_load,
            comparison: None,
        }))
    }

    fn is_steady(&self) -> bool {
        self.outcomes
            .iter()
            .all(|outcome| outcome.placement.is_steady())
    }
}

/// Bounces a cache line for a moment; `None` where there is only one CPU.
fn bounce_now(options: &Options) -> anyhow::Result<Option<f64>> {
    if sys::cpu_count() < 2 {
        return Ok(None);
    }
    bounce::round_trip_ns(options.cpus, options.common.quick).map(Some)
}

/// How often a run is measured until the CPUs stay where they are.
const MAX_ATTEMPTS: u32 = 3;

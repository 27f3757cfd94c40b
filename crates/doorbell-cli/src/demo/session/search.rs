//! The lane that searches: several at once, and while the user types each new search replaces the one before.

use std::{collections::VecDeque, time::Instant};

use futures_util::{StreamExt, stream};

use super::{
    context::{Context, Lane},
    plan::SearchJob,
    record::Timed,
};
use crate::demo::{
    engine::search::{HitDiff, search_all},
    link::{Failure, Items},
    protocol::{AwaitIdle, Hit, Search, StreamKind},
};

/// Searches at once.
const WIDTH: usize = 3;

/// Does the given searches; returns those that could not be done as the engine has gone.
pub(crate) async fn run(context: &Context, jobs: VecDeque<SearchJob>) -> VecDeque<SearchJob> {
    let attempts = stream::iter(jobs).map(|job| async move {
        match context.attempt("Search", search(context, &job)).await {
            Ok(()) => {
                context.advance(Lane::Search);
                None
            }
            Err(_) => Some(job),
        }
    });
    let left: VecDeque<_> = attempts
        .buffer_unordered(WIDTH)
        .filter_map(std::future::ready)
        .collect()
        .await;
    let _ = context.attempt("AwaitIdle", compare_counts(context)).await; // its failure is recorded; no work is left of it
    left
}

async fn search(context: &Context, job: &SearchJob) -> Result<(), Failure> {
    let mut older = None;
    for pattern in &job.typed {
        let mut stream = context
            .link
            .stream(Search {
                pattern: pattern.clone(),
            })
            .await?;
        drop(older.take()); // cancels it
        if stream.next().await.transpose()?.is_some() {
            context.record(|record| record.searches_dropped += 1);
            older = Some(stream);
        }
    }
    let started = Instant::now();
    let stream = context
        .link
        .stream(Search {
            pattern: job.pattern.clone(),
        })
        .await?;
    drop(older);
    let hits = read_all(context, stream, started).await?;
    compare(context, &job.pattern, hits);
    Ok(())
}

async fn read_all(
    context: &Context,
    mut stream: Items<Hit>,
    started: Instant,
) -> Result<Vec<Hit>, Failure> {
    let (mut hits, mut bytes) = (Vec::new(), 0);
    while let Some(hit) = stream.next().await.transpose()? {
        if hits.is_empty() {
            let time = started.elapsed();
            context.record(|record| record.add(Timed::FirstHit, time, 0));
        }
        bytes += hit.path.len() + hit.text.len();
        hits.push(hit);
    }
    let time = started.elapsed();
    context.record(|record| record.add(Timed::AllHits, time, bytes));
    Ok(hits)
}

fn compare(context: &Context, pattern: &str, mut hits: Vec<Hit>) {
    hits.sort_unstable();
    let expected = context
        .plan
        .expected_hits
        .get(pattern)
        .map_or(&[][..], Vec::as_slice);
    let diff = HitDiff::between(expected, &hits);
    let has_changed =
        !diff.is_empty() && search_all(&context.plan.root, pattern).is_ok_and(|now| now == hits);
    context.record(|record| {
        record.changed_on_disk += u64::from(has_changed);
        record.compare(diff.is_empty() || has_changed, || {
            let (missing, extra) = (diff.missing.len(), diff.extra.len());
            let first = diff
                .missing
                .iter()
                .chain(&diff.extra)
                .map(|hit| format!("{}:{}", hit.path, hit.line))
                .next();
            format!(
                "search for {pattern:?}: {missing} hits missing, {extra} too many, as {}",
                first.unwrap_or_default()
            )
        });
    });
}

/// Asks the engine to confirm that no search runs any more. A dropped one may have been at its end already.
async fn compare_counts(context: &Context) -> Result<(), Failure> {
    let counts = context
        .link
        .call(
            AwaitIdle {
                kind: StreamKind::Search,
            },
            context.plan.limit,
        )
        .await?;
    let is_equal = counts.started == counts.finished + counts.cancelled;
    context.record(|record| {
        record.compare(is_equal, || format!("searches do not add up: {counts:?}"))
    });
    Ok(())
}

//! The lane that asks for completions: waves of streams, half of which are dropped midway.

use std::{collections::VecDeque, time::Instant};

use futures_util::future::join_all;

use super::{
    context::{Context, Interrupted, Lane},
    plan::{CompletionJob, FULL_TOKENS},
    record::Timed,
};
use crate::demo::{
    link::Failure,
    protocol::{AwaitIdle, Complete, StreamCounts, StreamKind},
};

/// Asks for the given waves; returns those that could not be completed as the engine has gone.
pub(crate) async fn run(
    context: &Context,
    mut waves: VecDeque<Vec<CompletionJob>>,
) -> VecDeque<Vec<CompletionJob>> {
    let mut before = StreamCounts::default();
    if context
        .attempt("AwaitIdle", read_counts(context, &mut before))
        .await
        .is_err()
    {
        return waves;
    }
    while let Some(wave) = waves.pop_front() {
        if run_wave(context, &wave, &mut before).await.is_err() {
            waves.push_front(wave);
            break;
        }
        context.advance(Lane::Complete);
    }
    waves
}

/// What the editor knows of a wave.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    dropped: u64,
    tokens_read: u64,
    tokens_of_dropped: u64,
}

async fn run_wave(
    context: &Context,
    wave: &[CompletionJob],
    before: &mut StreamCounts,
) -> Result<(), Interrupted> {
    let streams = wave.iter().map(|job| async move {
        let mut seen = Seen::default();
        context
            .attempt("Complete", complete(context, job, &mut seen))
            .await
            .map(|()| seen)
    });
    let mut total = Seen::default();
    for seen in join_all(streams).await {
        let seen = seen?;
        total.dropped += seen.dropped;
        total.tokens_read += seen.tokens_read;
        total.tokens_of_dropped += seen.tokens_of_dropped;
    }
    let mut after = StreamCounts::default();
    context
        .attempt("AwaitIdle", read_counts(context, &mut after))
        .await?;
    compare_counts(context, wave.len() as u64, total, *before, after);
    *before = after;
    Ok(())
}

async fn complete(context: &Context, job: &CompletionJob, seen: &mut Seen) -> Result<(), Failure> {
    let request = Complete {
        path: job.path.clone(),
        offset: job.offset,
        prefix: job.prefix.clone(),
        seed: job.seed,
        max_tokens: job.drop_after.is_none().then_some(FULL_TOKENS),
    };
    let wanted = job.drop_after.unwrap_or(FULL_TOKENS as usize);
    let mut expected = context.model.complete(&job.prefix, job.seed).take(wanted);
    let started = Instant::now();
    let mut stream = context.link.stream(request).await?;
    let (mut first, mut bytes, mut is_equal) = (None, 0, true);
    for expected in expected.by_ref() {
        let token = stream.next().await.transpose()?;
        first.get_or_insert_with(|| started.elapsed());
        seen.tokens_read += 1;
        bytes += expected.len();
        is_equal &= token.is_some_and(|token| token.text == expected);
    }
    if job.drop_after.is_some() && seen.tokens_read > 0 {
        seen.dropped = 1;
        seen.tokens_of_dropped = seen.tokens_read;
        drop(stream); // cancels it
    } else {
        is_equal &= stream.next().await.transpose()?.is_none();
        let time = started.elapsed();
        context.record(|record| record.add(Timed::AllTokens, time, bytes));
    }
    context.record(|record| {
        first
            .into_iter()
            .for_each(|time| record.add(Timed::FirstToken, time, 0));
        record.compare(is_equal, || {
            format!(
                "completion at {}:{}: other tokens than the model's",
                job.path, job.offset
            )
        });
    });
    Ok(())
}

async fn read_counts(context: &Context, counts: &mut StreamCounts) -> Result<(), Failure> {
    *counts = context
        .link
        .call(
            AwaitIdle {
                kind: StreamKind::Complete,
            },
            context.plan.limit,
        )
        .await?;
    Ok(())
}

/// The engine has to have stopped each stream that the editor dropped: they have no end of their own.
fn compare_counts(
    context: &Context,
    wave_len: u64,
    seen: Seen,
    before: StreamCounts,
    after: StreamCounts,
) {
    let started = after.started - before.started;
    let finished = after.finished - before.finished;
    let stopped = after.cancelled - before.cancelled;
    let made = after.items - before.items;
    context.record(|record| {
        record.completions_dropped += seen.dropped;
        record.completions_stopped += stopped;
        record.tokens_read += seen.tokens_of_dropped;
        record.tokens_made += made - (seen.tokens_read - seen.tokens_of_dropped).min(made);
        let is_equal = (started, finished, stopped) == (wave_len, wave_len - seen.dropped, seen.dropped);
        record.compare(is_equal, || {
            let dropped = seen.dropped;
            format!("of {wave_len} completions {dropped} were dropped; the engine counts {started} begun, {stopped} stopped")
        });
    });
}

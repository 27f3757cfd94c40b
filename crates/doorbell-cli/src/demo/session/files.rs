//! The lane that opens files and compares what arrives with what is there.

use std::{collections::VecDeque, time::Instant};

use doorbell::Raw;
use futures_util::{StreamExt, stream};
use xxhash_rust::xxh3::xxh3_128;

use super::context::{Context, Lane};
use crate::demo::{engine::files, link::Failure, protocol::OpenFile};

/// Files that are opened at once.
const WIDTH: usize = 4;

/// Opens the files of the given indices; returns those that could not be opened as the engine has gone.
pub(crate) async fn run(context: &Context, indices: VecDeque<usize>) -> VecDeque<usize> {
    let attempts = stream::iter(indices).map(|index| async move {
        let path = &context.plan.files[index].path;
        match context.attempt(path, open(context, index)).await {
            Ok(()) => {
                context.advance(Lane::Files);
                None
            }
            Err(_) => Some(index),
        }
    });
    attempts
        .buffer_unordered(WIDTH)
        .filter_map(std::future::ready)
        .collect()
        .await
}

async fn open(context: &Context, index: usize) -> Result<(), Failure> {
    let file = &context.plan.files[index];
    let started = Instant::now();
    let Raw(bytes) = context
        .link
        .call(
            OpenFile {
                path: file.path.clone(),
            },
            context.plan.limit,
        )
        .await?;
    let time = started.elapsed();
    let is_equal = xxh3_128(&bytes) == file.hash;
    let has_changed =
        !is_equal && files::read(&context.plan.root, &file.path).is_ok_and(|now| now == bytes);
    context.record(|record| {
        record.add(super::record::Timed::OpenFile, time, bytes.len());
        record.changed_on_disk += u64::from(has_changed);
        record.compare(is_equal || has_changed, || {
            format!("{}: the bytes that arrived are not the file's", file.path)
        });
    });
    Ok(())
}

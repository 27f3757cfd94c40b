//! Request-response whose messages are not copied: both sides write a number at both ends of a loaned chunk, and look at those of the other.

use std::mem::MaybeUninit;

use anyhow::ensure;
use iceoryx2::prelude::*;

use super::wake::Wake;
use super::{Link, calls, client};
use crate::clock::closed_loop;
use crate::part::{Part, say_ready};
use crate::payload;
use crate::sample::Figures;

/// Answers each request with a chunk that has the same ends.
///
/// # Errors
///
/// If the service fails.
#[allow(unsafe_code)]
pub(super) fn serve(node: &Node<Link>, part: &Part, wake: &Wake) -> anyhow::Result<()> {
    let server = calls(node, part)?
        .server_builder()
        .initial_max_slice_len(part.size_bytes)
        .create()?;
    say_ready()?;
    loop {
        while let Some(request) = server.receive()? {
            let mut response = request.loan_slice_uninit(request.payload().len())?;
            stamp(response.payload_mut(), payload::ends(request.payload()));
            // SAFETY: bytes of shared memory, which the kernel has handed out as zeroes; what they are does not matter.
            unsafe { response.assume_init() }.send()?;
            wake.notify()?;
        }
        wake.wait()?;
    }
}

/// Measures requests one after the other.
///
/// # Errors
///
/// If the server fails or answers something else than was sent.
#[allow(unsafe_code)]
pub(super) fn round_trips(node: &Node<Link>, part: &Part, wake: &Wake) -> anyhow::Result<Figures> {
    let client = client(node, part)?;
    let mut number = 0;
    closed_loop(part.limit, || {
        number += 1;
        let mut request = client.loan_slice_uninit(part.size_bytes)?;
        stamp(request.payload_mut(), (number, number));
        // SAFETY: as above.
        let pending = unsafe { request.assume_init() }.send()?;
        wake.notify()?;
        loop {
            if let Some(response) = pending.receive()? {
                let answer = response.payload();
                ensure!(
                    answer.len() == part.size_bytes && payload::ends(answer) == (number, number),
                    "the echo is not what was sent"
                );
                return Ok(());
            }
            wake.wait()?;
        }
    })
}

fn stamp(chunk: &mut [MaybeUninit<u8>], (first, last): (u64, u64)) {
    if let Some(place) = chunk.first_chunk_mut::<8>() {
        place.write_copy_of_slice(&first.to_le_bytes());
    }
    if let Some(place) = chunk.last_chunk_mut::<8>() {
        place.write_copy_of_slice(&last.to_le_bytes());
    }
}

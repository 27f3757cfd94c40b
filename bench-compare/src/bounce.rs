//! One cache line, back and forth between two CPUs: how far they are from each other just now.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::host;
use crate::options::CpuPair;

/// Returns the nanoseconds of one round trip between two CPUs, or `None` if this process may not use both.
pub(crate) fn round_trip_ns(cpus: CpuPair, quick: bool) -> Option<f64> {
    if !host::may_run_on(cpus.client) || !host::may_run_on(cpus.server) {
        return None;
    }
    let length = if quick { QUICK_LENGTH } else { LENGTH };
    let ball = Ball(AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            _ = host::pin_current_thread(Some(cpus.server));
            return_until_over(&ball.0);
        });
        // A thread of its own, because the pin stays with it.
        let bounces = scope.spawn(|| {
            _ = host::pin_current_thread(Some(cpus.client));
            bounce(&ball.0, length)
        });
        bounces.join().ok()
    })
}

/// Nothing else is on the line.
#[repr(align(128))]
struct Ball(AtomicU64);

/// Plays for `length` and returns the median of short stretches, so that being interrupted once does not count.
fn bounce(ball: &AtomicU64, length: Duration) -> f64 {
    let (end, mut number) = (Instant::now() + length, 0);
    let mut stretches = Vec::new();
    while stretches.is_empty() || Instant::now() < end {
        let started = Instant::now();
        for _ in 0..BOUNCES {
            ball.store(number + 1, Ordering::Release);
            number += 2;
            wait_for(ball, |seen| seen == number);
        }
        stretches.push(started.elapsed().as_nanos() as f64 / f64::from(BOUNCES));
    }
    ball.store(OVER, Ordering::Release);
    crate::sample::median(stretches.into_iter()).unwrap_or_default()
}

fn return_until_over(ball: &AtomicU64) {
    loop {
        let number = wait_for(ball, |seen| !seen.is_multiple_of(2));
        if number == OVER {
            return;
        }
        ball.store(number + 1, Ordering::Release);
    }
}

fn wait_for(ball: &AtomicU64, wanted: impl Fn(u64) -> bool) -> u64 {
    loop {
        let seen = ball.load(Ordering::Acquire);
        if wanted(seen) {
            return seen;
        }
        std::hint::spin_loop();
    }
}

/// Odd, so that it is seen as a throw, and never reached by counting.
const OVER: u64 = u64::MAX;
/// Bounces between two looks at the clock.
const BOUNCES: u32 = 1000;
const LENGTH: Duration = Duration::from_millis(20);
const QUICK_LENGTH: Duration = Duration::from_millis(3);

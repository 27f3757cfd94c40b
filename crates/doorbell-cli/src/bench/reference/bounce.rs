//! One cache line, back and forth between two CPUs: how far they are from each other just now.

use std::path::Path;
use std::time::Duration;

use doorbell_shm::memory::BenchArea;

use super::Role;
use super::area::{self, REQUEST as BALL, WORDS, wait_for};
use crate::bench::case::{Setting, pin_current_thread};
use crate::bench::clock::{Limit, closed_loop};
use crate::bench::options::CpuPair;
use crate::bench::peer::{self, Peer};
use crate::bench::sample::Sample;

/// Times round trips of one word.
///
/// # Errors
///
/// If the second process fails.
pub(crate) fn round_trips(setting: &Setting) -> anyhow::Result<Sample> {
    let mut ball = Ball::throw(setting.start_peer(ROLE)?)?;
    setting.pin_client()?;
    closed_loop(setting.limit, setting.size_bytes, || ball.bounce(1))
}

/// Returns what a round trip between these two CPUs takes now.
///
/// # Errors
///
/// If the second process fails.
pub(crate) fn round_trip_ns(cpus: CpuPair, quick: bool) -> anyhow::Result<f64> {
    let length = if quick { QUICK_LENGTH } else { LENGTH };
    let limit = Limit {
        warm_up: length,
        length,
        pause: None,
    };
    let measure = || {
        let mut ball = Ball::throw(Peer::start(ROLE, Some(cpus.server))?)?;
        pin_current_thread(Some(cpus.client))?;
        // Many at a time, so that reading the clock is no part of it.
        let sample = closed_loop(limit, 0, || ball.bounce(BOUNCES))?;
        anyhow::Ok(sample.figures().p50_ns.unwrap_or_default() / f64::from(BOUNCES))
    };
    std::thread::scope(|scope| {
        scope
            .spawn(measure)
            .join()
            .expect("the bounce does not panic")
    })
}

/// The word, seen from the first process.
struct Ball {
    area: BenchArea,
    /// Even numbers are ours to send.
    number: u32,
    _peer: Peer,
}

impl Ball {
    fn throw(peer: Peer) -> anyhow::Result<Self> {
        Ok(Self {
            area: area::adopt(peer.path(), WORDS)?,
            number: 0,
            _peer: peer,
        })
    }

    fn bounce(&mut self, count: u32) -> anyhow::Result<()> {
        for _ in 0..count {
            self.area.store(BALL, self.number.wrapping_add(1));
            self.number = self.number.wrapping_add(2);
            wait_for(&self.area, BALL, |seen| seen == self.number)?;
        }
        Ok(())
    }
}

/// Returns every odd number as the next even one.
pub(super) fn serve(path: &Path) -> anyhow::Result<impl FnOnce() -> anyhow::Result<()> + use<>> {
    let give = area::give(path, WORDS)?;
    Ok(move || {
        let area = give()?;
        let mut number = 0_u32;
        loop {
            wait_for(&area, BALL, |seen| seen == number.wrapping_add(1))?;
            number = number.wrapping_add(2);
            area.store(BALL, number);
        }
    })
}

const ROLE: peer::Role = peer::Role::Reference(Role::Bounce);

const BOUNCES: u32 = 200;
const LENGTH: Duration = Duration::from_millis(15);
const QUICK_LENGTH: Duration = Duration::from_millis(2);

//! Rings without calls: what streams of small messages can reach.
//!
//! `raw-ring` is Doorbell's own ring with a header and a body for each message, one copy each. `raw-batch` is a ring of whole
//! batches with one copy for each batch, which is the ceiling of this machine for messages that somebody writes and reads.

use std::hint::black_box;
use std::path::Path;

use doorbell_shm::memory::{BenchShape, HEADER_BYTES, OwnRegion, PeerRegion};
use doorbell_shm::ring::{Consumer, Producer};

use super::area::{self, ANSWER, REQUEST, wait_for};
use super::{Role, regions, spin};
use crate::bench::case::Setting;
use crate::bench::clock::Counter;
use crate::bench::peer::{self, Peer};
use crate::bench::sample::Sample;

/// Counts messages that go one way through a ring.
///
/// # Errors
///
/// If the second process fails.
pub(crate) fn one_way(setting: &Setting) -> anyhow::Result<Sample> {
    let (_peer, mut ring) = Ring::connect(
        Role::RingSink {
            size_bytes: setting.size_bytes,
        },
        setting,
    )?;
    count(setting, || {
        ring.push_many(RECORDS_PER_PUBLISH)?;
        Ok(RECORDS_PER_PUBLISH as u64)
    })
}

/// Counts messages that go there and back through two rings.
///
/// # Errors
///
/// If the second process fails.
pub(crate) fn echo(setting: &Setting) -> anyhow::Result<Sample> {
    let (_peer, mut ring) = Ring::connect(
        Role::RingEcho {
            size_bytes: setting.size_bytes,
        },
        setting,
    )?;
    let (mut body, mut sum) = (Vec::new(), 0_u64);
    let mut owed = setting.window;
    owed -= ring.push_some(owed)?;
    let sample = count(setting, || {
        let finished = ring.pop_all(&mut body, |body| sum = sum.wrapping_add(first_word(body)))?;
        owed += finished;
        // What does not fit is sent later: the other side may wait for room as well, which it gets when we take something.
        owed -= ring.push_some(owed)?;
        Ok(finished as u64)
    });
    black_box(sum);
    sample
}

/// Counts messages that go one way through a ring of batches.
///
/// # Errors
///
/// If the second process fails.
pub(crate) fn batches_one_way(setting: &Setting) -> anyhow::Result<Sample> {
    let size_bytes = setting.size_bytes;
    let peer = setting.start_peer(peer::Role::Reference(Role::BatchSink { size_bytes }))?;
    setting.pin_client()?;
    let batches = Batches::of(size_bytes);
    let mut area = area::adopt(peer.path(), batches.shape())?;
    let mut batch = vec![0x5A; batches.batch_bytes];
    let (mut sent, mut taken, mut number) = (0_u32, 0_u32, 0_u64);
    count(setting, || {
        for message in batch.chunks_exact_mut(size_bytes) {
            message[..8].copy_from_slice(&number.to_le_bytes());
            number += 1;
        }
        if sent.wrapping_sub(taken) == BATCHES {
            taken = wait_for(&area, ANSWER, |taken| sent.wrapping_sub(taken) < BATCHES)?;
        }
        area.copy_in(REQUEST, batches.place(sent), &batch);
        sent = sent.wrapping_add(1);
        area.store(REQUEST, sent);
        Ok((batches.batch_bytes / size_bytes) as u64)
    })
}

/// Looks at each message.
pub(super) fn serve_sink(
    path: &Path,
    size_bytes: usize,
) -> anyhow::Result<impl FnOnce() -> anyhow::Result<()> + use<>> {
    let give = regions::give(path, ring_bytes(size_bytes))?;
    Ok(move || {
        let mut ring = Ring::new(give()?, size_bytes);
        let (mut body, mut sum) = (Vec::new(), 0_u64);
        loop {
            ring.pop_all(&mut body, |body| sum = sum.wrapping_add(first_word(body)))?;
            black_box(sum);
        }
    })
}

/// Sends each message back.
pub(super) fn serve_echo(
    path: &Path,
    size_bytes: usize,
) -> anyhow::Result<impl FnOnce() -> anyhow::Result<()> + use<>> {
    let give = regions::give(path, ring_bytes(size_bytes))?;
    Ok(move || {
        let mut ring = Ring::new(give()?, size_bytes);
        let mut body = Vec::new();
        loop {
            ring.echo_all(&mut body)?;
        }
    })
}

/// Looks at each message of each batch.
pub(super) fn serve_batches(
    path: &Path,
    size_bytes: usize,
) -> anyhow::Result<impl FnOnce() -> anyhow::Result<()> + use<>> {
    let batches = Batches::of(size_bytes);
    let give = area::give(path, batches.shape())?;
    Ok(move || {
        let area = give()?;
        let (mut batch, mut taken, mut sum) = (Vec::new(), 0_u32, 0_u64);
        loop {
            wait_for(&area, REQUEST, |sent| sent != taken)?;
            batch.clear();
            area.append_to(
                &mut batch,
                REQUEST,
                batches.place(taken),
                batches.batch_bytes,
            );
            taken = taken.wrapping_add(1);
            area.store(ANSWER, taken);
            sum = batch
                .chunks_exact(size_bytes)
                .fold(sum, |sum, message| sum.wrapping_add(first_word(message)));
            black_box(sum);
        }
    })
}

/// Calls `turn`, which says how many messages it has finished, until the time is over.
fn count(
    setting: &Setting,
    mut turn: impl FnMut() -> anyhow::Result<u64>,
) -> anyhow::Result<Sample> {
    let mut counter = Counter::start(setting.limit);
    while counter.add(turn()?) {}
    Ok(counter.finish(setting.size_bytes))
}

/// Both rings of a process, with a message to send.
struct Ring {
    producer: Producer,
    consumer: Consumer,
    header: [u8; HEADER_BYTES],
    message: Vec<u8>,
}

impl Ring {
    fn connect(role: Role, setting: &Setting) -> anyhow::Result<(Peer, Self)> {
        let peer = setting.start_peer(peer::Role::Reference(role))?;
        setting.pin_client()?;
        let regions = regions::adopt(peer.path(), ring_bytes(setting.size_bytes))?;
        Ok((peer, Self::new(regions, setting.size_bytes)))
    }

    fn new((own, peer): (OwnRegion, PeerRegion), size_bytes: usize) -> Self {
        let mut header = [0; HEADER_BYTES];
        header[..4].copy_from_slice(&(size_bytes as u32).to_le_bytes());
        header[KIND] = MESSAGE;
        Self {
            producer: Producer::new(own.clone(), peer.clone()),
            consumer: Consumer::new(own, peer),
            header,
            message: vec![0x5A; size_bytes],
        }
    }

    /// Pushes so many messages and then shows them.
    #[inline]
    fn push_many(&mut self, count: usize) -> anyhow::Result<()> {
        for _ in 0..count {
            if !self.producer.push(&self.header, &[&self.message])? {
                self.producer.publish();
                self.push_when_there_is_room()?;
            }
        }
        self.producer.publish();
        Ok(())
    }

    /// Pushes so many messages, or as many as there is room for, and then shows them. Returns how many it were.
    #[inline]
    fn push_some(&mut self, count: usize) -> anyhow::Result<usize> {
        let mut pushed = 0;
        while pushed < count && self.producer.push(&self.header, &[&self.message])? {
            pushed += 1;
        }
        self.producer.publish();
        Ok(pushed)
    }

    #[cold]
    fn push_when_there_is_room(&mut self) -> anyhow::Result<()> {
        let Self {
            producer,
            header,
            message,
            ..
        } = self;
        spin::until(|| producer.push(header, &[message]).unwrap_or(true))
    }

    /// Takes all messages that are there, at least one, and gives their room back once.
    #[inline]
    fn pop_all(
        &mut self,
        body: &mut Vec<u8>,
        mut each: impl FnMut(&[u8]),
    ) -> anyhow::Result<usize> {
        self.wait_for_a_record()?;
        let mut count = 0;
        while count < RECORDS_PER_RELEASE && self.consumer.peek()?.is_some() {
            body.clear();
            self.consumer.copy_body(body);
            self.consumer.advance();
            each(body);
            count += 1;
        }
        self.consumer.release();
        Ok(count)
    }

    /// Sends back all messages that are there, at least one, and shows them once.
    fn echo_all(&mut self, body: &mut Vec<u8>) -> anyhow::Result<()> {
        self.wait_for_a_record()?;
        let mut count = 0;
        while count < RECORDS_PER_RELEASE && self.consumer.peek()?.is_some() {
            body.clear();
            self.consumer.copy_body(body);
            self.consumer.advance();
            if !self.producer.push(&self.header, &[body])? {
                self.producer.publish();
                self.consumer.release();
                let Self {
                    producer, header, ..
                } = self;
                spin::until(|| producer.push(header, &[body]).unwrap_or(true))?;
            }
            count += 1;
        }
        self.producer.publish();
        self.consumer.release();
        Ok(())
    }

    #[inline]
    fn wait_for_a_record(&mut self) -> anyhow::Result<()> {
        let consumer = &mut self.consumer;
        // What is corrupt ends the spin, and is reported by the next look.
        spin::until(|| !matches!(consumer.peek(), Ok(None)))
    }
}

/// Batches of messages in a ring of batches.
#[derive(Clone, Copy)]
struct Batches {
    batch_bytes: usize,
}

impl Batches {
    fn of(size_bytes: usize) -> Self {
        Self {
            batch_bytes: (BATCH_BYTES / size_bytes).max(1) * size_bytes,
        }
    }

    /// Returns how far one batch is from the next.
    fn stride(self) -> usize {
        self.batch_bytes.next_multiple_of(64)
    }

    fn shape(self) -> BenchShape {
        BenchShape {
            lanes: 2,
            lane_bytes: self.stride() * BATCHES as usize,
        }
    }

    fn place(self, number: u32) -> usize {
        (number % BATCHES) as usize * self.stride()
    }
}

fn first_word(message: &[u8]) -> u64 {
    message
        .first_chunk()
        .map_or(0, |word| u64::from_le_bytes(*word))
}

/// A record may take a quarter of its ring; small ones have the ring of a connection.
fn ring_bytes(size_bytes: usize) -> usize {
    (4 * (size_bytes + HEADER_BYTES + 8)).max(USUAL_RING_BYTES)
}

const USUAL_RING_BYTES: usize = 1 << 20;
const KIND: usize = 4;
const MESSAGE: u8 = 1;

const RECORDS_PER_PUBLISH: usize = 32;
const RECORDS_PER_RELEASE: usize = 64;

/// The size at which one copy for a batch is as good as it gets, and how many of them are under way.
const BATCH_BYTES: usize = 8 << 10;
const BATCHES: u32 = 8;

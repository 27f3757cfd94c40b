//! The ring against a `VecDeque`: what goes in comes out, whole and in order.

use std::collections::VecDeque;

use doorbell_shm::memory::{HEADER_BYTES, HeapRegion};
use doorbell_shm::ring::{Consumer, Producer};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    /// Push a record with a body of that many bytes, in two pieces.
    Push {
        body_bytes: usize,
        cut: usize,
    },
    DropReservation {
        body_bytes: usize,
    },
    Publish,
    /// Consume at most that many records.
    Consume {
        records: usize,
    },
    Release,
}

fn step() -> impl Strategy<Value = Step> {
    let body_bytes = prop_oneof![4 => 0..100_usize, 1 => 0..1000_usize, 1 => 990..=1000_usize];
    prop_oneof![
        6 => (body_bytes.clone(), 0..1000_usize).prop_map(|(body_bytes, cut)| Step::Push { body_bytes, cut }),
        1 => body_bytes.prop_map(|body_bytes| Step::DropReservation { body_bytes }),
        3 => Just(Step::Publish),
        4 => (1..8_usize).prop_map(|records| Step::Consume { records }),
        3 => Just(Step::Release),
    ]
}

struct Both {
    producer: Producer<HeapRegion, HeapRegion>,
    consumer: Consumer<HeapRegion, HeapRegion>,
    /// Committed and not yet published.
    waiting: VecDeque<Vec<u8>>,
    /// Published and not yet consumed.
    visible: VecDeque<Vec<u8>>,
    serial: u64,
}

impl Both {
    fn new(capacity: u32) -> Self {
        let (s, c) = (HeapRegion::new(capacity), HeapRegion::new(capacity));
        Self {
            producer: Producer::new(s.clone(), c.clone()),
            consumer: Consumer::new(c, s),
            waiting: VecDeque::new(),
            visible: VecDeque::new(),
            serial: 0,
        }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Push { body_bytes, cut } => self.push(body_bytes, cut),
            Step::DropReservation { body_bytes } => drop(self.producer.reserve(body_bytes)),
            Step::Publish => {
                assert_eq!(self.producer.publish(), !self.waiting.is_empty());
                self.visible.append(&mut self.waiting);
            }
            Step::Consume { records } => (0..records).for_each(|_| self.consume()),
            Step::Release => {
                self.consumer.release();
                assert_eq!(self.producer.is_empty(), Ok(self.visible.is_empty()));
            }
        }
    }

    fn push(&mut self, body_bytes: usize, cut: usize) {
        let body = self.body(body_bytes);
        let (first, second) = body.split_at(cut.min(body.len()));
        if self
            .producer
            .push(&self.header(body.len()), &[first, second])
            .unwrap()
        {
            self.waiting.push_back(body);
            self.serial += 1;
        } else {
            let unread = self.waiting.len() + self.visible.len();
            assert!(
                unread > 0 || self.consumer.release(),
                "an empty ring refused a record"
            );
        }
    }

    fn consume(&mut self) {
        let header = self.consumer.peek().unwrap();
        let expected = self.visible.pop_front();
        assert_eq!(header.is_some(), expected.is_some());
        let Some(expected) = expected else { return };
        let mut body = b"before".to_vec();
        self.consumer.copy_body(&mut body);
        assert_eq!(body[6..], expected);
        assert_eq!(self.consumer.body_bytes(), expected.len());
        self.consumer.advance();
    }

    fn body(&self, bytes: usize) -> Vec<u8> {
        (0..bytes as u64)
            .map(|i| (i * 31 + self.serial * 17) as u8)
            .collect()
    }

    fn header(&self, length: usize) -> [u8; HEADER_BYTES] {
        let mut header = [1; HEADER_BYTES];
        header[..4].copy_from_slice(&u32::try_from(length).unwrap().to_le_bytes());
        header[8..16].copy_from_slice(&self.serial.to_le_bytes());
        header
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn ring_agrees_with_a_queue(steps in prop::collection::vec(step(), 1..400)) {
        let mut both = Both::new(4096);
        steps.iter().for_each(|step| both.take(step));
    }
}

#[test]
fn every_record_size_makes_laps_and_comes_out_whole() {
    for body_bytes in 0..=1000 {
        let mut both = Both::new(4096);
        for _ in 0..30 {
            both.take(&Step::Push {
                body_bytes,
                cut: body_bytes / 3,
            });
            both.take(&Step::Push {
                body_bytes: 7,
                cut: 2,
            });
            both.take(&Step::Publish);
            both.take(&Step::Consume { records: 2 });
            both.take(&Step::Release);
        }
        assert_eq!(both.serial, 60, "no record was refused");
    }
}

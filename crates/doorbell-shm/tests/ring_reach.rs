//! How far both ends of a ring say that it has been used, against what was written.

use std::cell::Cell;
use std::rc::Rc;

use doorbell_shm::memory::{HEADER_BYTES, HeapRegion, HeapWriter, OwnMemory, RingWriter};
use doorbell_shm::ring::{Consumer, Producer};
use proptest::prelude::*;

/// A region that remembers how far it has been written.
struct Recorded {
    region: HeapRegion,
    written_to: Rc<Cell<u32>>,
}

#[derive(Debug)]
struct Recorder {
    writer: HeapWriter,
    written_to: Rc<Cell<u32>>,
}

impl OwnMemory for Recorded {
    type Writer = Recorder;

    fn ring_capacity_bytes(&self) -> u32 {
        OwnMemory::ring_capacity_bytes(&self.region)
    }

    fn store_tail(&self, tail: u32) {
        self.region.store_tail(tail);
    }

    fn store_head(&self, head: u32) {
        self.region.store_head(head);
    }

    fn store_sleep(&self, word: u32) {
        self.region.store_sleep(word);
    }

    fn store_notified(&self, number: u32) {
        self.region.store_notified(number);
    }

    fn claim_writer(&self) -> Recorder {
        Recorder {
            writer: self.region.claim_writer(),
            written_to: Rc::clone(&self.written_to),
        }
    }
}

impl RingWriter for Recorder {
    fn write(&mut self, place: u32, bytes: &[u8]) {
        self.writer.write(place, bytes);
        let end = (place + bytes.len() as u32).next_multiple_of(8);
        self.written_to.set(self.written_to.get().max(end));
    }

    fn give_back(&mut self) {
        self.writer.give_back();
        self.written_to.set(0);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Push { body_bytes: usize },
    DropReservation { body_bytes: usize },
    Publish,
    Consume { records: usize },
    Release,
    GiveBack,
}

fn step() -> impl Strategy<Value = Step> {
    let body_bytes = prop_oneof![4 => 0..100_usize, 1 => 0..1000_usize, 1 => Just(40)];
    prop_oneof![
        6 => body_bytes.clone().prop_map(|body_bytes| Step::Push { body_bytes }),
        1 => body_bytes.prop_map(|body_bytes| Step::DropReservation { body_bytes }),
        3 => Just(Step::Publish),
        4 => (1..8_usize).prop_map(|records| Step::Consume { records }),
        3 => Just(Step::Release),
        1 => Just(Step::GiveBack),
    ]
}

struct Both {
    producer: Producer<Recorded, HeapRegion>,
    consumer: Consumer<HeapRegion, HeapRegion>,
    written_to: Rc<Cell<u32>>,
    /// Something may lie in the ring that the consumer has not come to,
    is_unread: bool,
    /// or never will: it says that the ring begins again, before a record that was dropped.
    is_dropped: bool,
}

impl Both {
    fn new() -> Self {
        let (s, c) = (HeapRegion::new(4096), HeapRegion::new(4096));
        let written_to = Rc::default();
        let own = Recorded {
            region: s.clone(),
            written_to: Rc::clone(&written_to),
        };
        Self {
            producer: Producer::new(own, c.clone()),
            consumer: Consumer::new(c, s),
            written_to,
            is_unread: false,
            is_dropped: false,
        }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Push { body_bytes } => {
                let mut header = [1; HEADER_BYTES];
                header[..4].copy_from_slice(&(body_bytes as u32).to_le_bytes());
                self.producer
                    .push(&header, &[&vec![1; body_bytes]])
                    .unwrap();
                self.is_unread = true;
            }
            Step::DropReservation { body_bytes } => {
                let _ = self.producer.reserve(body_bytes).unwrap(); // never committed
                self.is_dropped = true;
            }
            Step::Publish => {
                self.producer.publish();
            }
            Step::Consume { records } => (0..records).for_each(|_| self.consume()),
            Step::Release => {
                self.consumer.release();
            }
            Step::GiveBack => {
                if self.producer.give_back().unwrap() {
                    self.consumer.begin_reach();
                    (self.is_unread, self.is_dropped) = (false, false);
                }
            }
        }
    }

    fn consume(&mut self) {
        if self.consumer.peek().unwrap().is_some() {
            self.consumer.copy_body(&mut Vec::new());
            self.consumer.advance();
        } else {
            self.is_unread &= self.producer.has_unpublished();
        }
    }

    fn check(&self, bytes: u32) {
        let says = self.producer.is_beyond(bytes);
        assert_eq!(says, self.written_to.get() > bytes, "beyond {bytes}");
        let peer_says = self.consumer.is_beyond(bytes);
        assert!(says || !peer_says);
        assert!(peer_says || !says || self.is_unread || self.is_dropped);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn reach_agrees_with_what_is_written(steps in prop::collection::vec(step(), 1..400)) {
        let mut both = Both::new();
        for step in steps {
            both.take(&step);
            both.check(1024);
            both.check(2056);
        }
    }
}

//! A peer that stores anything in its region, between what we do with both rings.
//!
//! Every call returns, with bytes from inside the ring or with `Corrupt`, and a ring that is corrupt stays so. The region is on the
//! heap; the algorithm is that of mapped memory.

#![no_main]

use arbitrary::Arbitrary;
use doorbell_shm::memory::{HeapRegion, HeapWriter, OwnMemory, RingWriter};
use doorbell_shm::ring::{Consumer, Producer};
use doorbell_shm::wake::Notifier;
use libfuzzer_sys::fuzz_target;

const CAPACITY: u32 = 4096;
const MAX_BODY_BYTES: usize = CAPACITY as usize / 4 - 24;

#[derive(Arbitrary, Debug)]
enum Step {
    Tail(u32),
    /// Ahead of the last one, as a peer does that keeps to the rules.
    Advance(u16),
    Head(u32),
    Sleep(u32),
    Record {
        word: u16,
        length: u32,
        kind: u8,
    },
    Bytes {
        word: u16,
        bytes: Vec<u8>,
    },
    Consume {
        records: u8,
    },
    Produce {
        body_bytes: u16,
    },
    Publish,
}

struct Victim {
    consumer: Consumer<HeapRegion, HeapRegion>,
    producer: Producer<HeapRegion, HeapRegion>,
    notifier: Notifier<HeapRegion, HeapRegion>,
}

fuzz_target!(|steps: Vec<Step>| {
    let (ours, theirs) = (HeapRegion::new(CAPACITY), HeapRegion::new(CAPACITY));
    let mut writer = theirs.claim_writer();
    let mut victim = Victim {
        consumer: Consumer::new(ours.clone(), theirs.clone()),
        producer: Producer::new(ours.clone(), theirs.clone()),
        notifier: Notifier::new(ours, theirs.clone()),
    };
    let mut tail = 0;
    for step in &steps {
        attack(&theirs, &mut writer, &mut tail, step);
        victim.act(step);
    }
});

fn attack(region: &HeapRegion, writer: &mut HeapWriter, last_tail: &mut u32, step: &Step) {
    match step {
        Step::Tail(tail) => {
            *last_tail = *tail;
            region.store_tail(*tail);
        }
        Step::Advance(bytes) => {
            *last_tail = last_tail.wrapping_add(u32::from(*bytes) % (CAPACITY + 8));
            region.store_tail(*last_tail);
        }
        Step::Head(head) => region.store_head(*head),
        Step::Sleep(word) => region.store_sleep(*word),
        Step::Record { word, length, kind } => {
            let mut header = [0; 24];
            header[..4].copy_from_slice(&length.to_le_bytes());
            header[4] = *kind;
            write(writer, *word, &header);
        }
        Step::Bytes { word, bytes } => write(writer, *word, bytes),
        Step::Consume { .. } | Step::Produce { .. } | Step::Publish => {}
    }
}

/// Writes as much as there is room for: a peer has no more memory than its ring.
fn write(writer: &mut HeapWriter, word: u16, bytes: &[u8]) {
    let place = u32::from(word) * 8 % CAPACITY;
    let room = (CAPACITY - place) as usize;
    writer.write(place, &bytes[..bytes.len().min(room)]);
}

impl Victim {
    fn act(&mut self, step: &Step) {
        match step {
            Step::Consume { records } => self.consume(*records),
            Step::Produce { body_bytes } => {
                self.produce(usize::from(*body_bytes) % (MAX_BODY_BYTES + 1))
            }
            Step::Publish => {
                let published = self.producer.publish();
                let _ = self.notifier.after_publish_and_release(published, true);
            }
            _ => {}
        }
    }

    fn consume(&mut self, records: u8) {
        let mut scratch = Vec::new();
        let mut taken = 0;
        for _ in 0..records {
            match self.consumer.peek() {
                Ok(Some(header)) => {
                    let body_bytes = self.consumer.body_bytes();
                    assert!(body_bytes <= MAX_BODY_BYTES);
                    assert_eq!(
                        header[..4],
                        u32::try_from(body_bytes).unwrap().to_le_bytes()
                    );
                    scratch.clear();
                    self.consumer.copy_body(&mut scratch);
                    assert_eq!(scratch.len(), body_bytes);
                    self.consumer.advance();
                    taken += 24 + body_bytes;
                }
                Ok(None) => break,
                Err(corrupt) => {
                    assert_eq!(self.consumer.peek(), Err(corrupt), "poisoned for good");
                    break;
                }
            }
        }
        // What was published when we began, and what a second look at the tail added.
        assert!(
            taken <= 2 * CAPACITY as usize,
            "{taken} bytes of a ring of {CAPACITY}"
        );
        let _ = self.consumer.has_unread();
        self.consumer.release();
    }

    fn produce(&mut self, body_bytes: usize) {
        let mut header = [1; 24];
        header[..4].copy_from_slice(&u32::try_from(body_bytes).unwrap().to_le_bytes());
        let _ = self
            .producer
            .push(&header, &[&[5; MAX_BODY_BYTES][..body_bytes]]);
        if let Ok(unread_bytes) = self.producer.unread_bytes() {
            assert!(unread_bytes <= CAPACITY as usize);
        }
        let _ = self.producer.is_empty();
    }
}

//! A peer that stores anything anywhere: every call returns, inside the ring or with `Corrupt`.

use doorbell_shm::memory::{HeapRegion, HeapWriter, OwnMemory, RingWriter};
use doorbell_shm::ring::{Consumer, Producer};
use doorbell_shm::wake::Notifier;
use proptest::prelude::*;

const CAPACITY: u32 = 4096;

#[derive(Clone, Debug)]
enum Lie {
    Tail(u32),
    Head(u32),
    Sleep(u32),
    Record {
        place: u32,
        length: u32,
        kind: u8,
    },
    /// Nothing stored: the victim looks again.
    Nothing,
}

/// Positions and lengths near everything that is compared with them.
fn number() -> impl Strategy<Value = u32> {
    prop_oneof![
        any::<u32>(),
        (0..CAPACITY / 8).prop_map(|n| n * 8),
        (0..64_u32).prop_map(|n| CAPACITY / 4 - 32 + n),
        (0..64_u32).prop_map(|n| CAPACITY - 32 + n),
        (0..64_u32).prop_map(|n| u32::MAX - n),
        (0..8_u32).prop_map(|n| n * CAPACITY),
    ]
}

fn lie() -> impl Strategy<Value = Lie> {
    let place = (0..(CAPACITY - 24) / 8).prop_map(|word| word * 8);
    let record = (place, number(), 0..3_u8).prop_map(|(place, length, kind)| Lie::Record {
        place,
        length,
        kind,
    });
    prop_oneof![
        1 => number().prop_map(Lie::Tail),
        1 => number().prop_map(Lie::Head),
        1 => any::<u32>().prop_map(Lie::Sleep),
        3 => record,
        1 => Just(Lie::Nothing),
    ]
}

fn tell(region: &HeapRegion, writer: &mut HeapWriter, lie: &Lie) {
    match *lie {
        Lie::Tail(tail) => region.store_tail(tail),
        Lie::Head(head) => region.store_head(head),
        Lie::Sleep(word) => region.store_sleep(word),
        Lie::Record {
            place,
            length,
            kind,
        } => {
            let mut header = [0; 24];
            header[..4].copy_from_slice(&length.to_le_bytes());
            header[4] = kind;
            writer.write(place, &header);
        }
        Lie::Nothing => {}
    }
}

/// Everything the library would do with what it finds; all loops here are bounded by the ring.
fn look(
    consumer: &mut Consumer<HeapRegion, HeapRegion>,
    producer: &mut Producer<HeapRegion, HeapRegion>,
    notifier: &mut Notifier<HeapRegion, HeapRegion>,
) {
    let mut scratch = Vec::new();
    for _ in 0..8 {
        let Ok(Some(_)) = consumer.peek() else { break };
        consumer.copy_body(&mut scratch);
        assert!(consumer.body_bytes() <= CAPACITY as usize / 4 - 24);
        consumer.advance();
    }
    consumer.release();
    let _ = consumer.has_unread();
    let mut header = [1; 24];
    header[..4].copy_from_slice(&100_u32.to_le_bytes());
    let _ = producer.push(&header, &[&[5; 100]]);
    let published = producer.publish();
    let _ = producer.is_empty();
    let _ = notifier.after_publish_and_release(published, true);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn lies_cost_the_connection_and_nothing_else(lies in prop::collection::vec(lie(), 1..60)) {
        let (ours, theirs) = (HeapRegion::new(CAPACITY), HeapRegion::new(CAPACITY));
        let mut writer = theirs.claim_writer();
        let mut consumer = Consumer::new(ours.clone(), theirs.clone());
        let mut producer = Producer::new(ours.clone(), theirs.clone());
        let mut notifier = Notifier::new(ours, theirs.clone());
        for lie in &lies {
            tell(&theirs, &mut writer, lie);
            let before = consumer.peek().err();
            look(&mut consumer, &mut producer, &mut notifier);
            if let Some(corrupt) = before {
                prop_assert_eq!(consumer.peek(), Err(corrupt), "poisoned for good");
            }
        }
    }
}

//! The ring on heap memory, case by case. At random: `tests/ring_oracle.rs`, `tests/ring_hostile.rs`.

use std::cell::Cell;
use std::rc::Rc;

use super::*;
use crate::memory::{HeaderWords, HeapRegion, HeapWriter, OwnMemory, PeerMemory, RingWriter};

const CAPACITY: u32 = 4096;

struct Pair {
    producer: Producer<HeapRegion, HeapRegion>,
    consumer: Consumer<HeapRegion, HeapRegion>,
}

fn regions() -> (HeapRegion, HeapRegion) {
    (HeapRegion::new(CAPACITY), HeapRegion::new(CAPACITY))
}

fn pair() -> Pair {
    let (s, c) = regions();
    let producer = Producer::new(s.clone(), c.clone());
    Pair {
        producer,
        consumer: Consumer::new(c, s),
    }
}

fn header(length: usize) -> [u8; HEADER_BYTES] {
    let mut header = [9; HEADER_BYTES];
    header[..4].copy_from_slice(&u32::try_from(length).unwrap().to_le_bytes());
    header
}

impl Pair {
    fn send(&mut self, body: &[u8]) -> bool {
        self.producer.push(&header(body.len()), &[body]).unwrap()
    }

    fn receive(&mut self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        self.consumer.peek().unwrap()?;
        self.consumer.copy_body(&mut body);
        self.consumer.advance();
        Some(body)
    }

    fn bounce(&mut self, body: &[u8]) {
        assert!(self.send(body) && self.producer.publish());
        assert_eq!(self.receive().as_deref(), Some(body));
        assert!(self.consumer.release());
    }
}

#[test]
fn records_are_invisible_until_published() {
    let mut pair = pair();
    assert!(pair.send(b"one") && pair.send(b"two"));
    assert_eq!(pair.receive(), None);
    assert!(pair.producer.publish());
    assert!(!pair.producer.publish());
    assert_eq!(pair.receive().as_deref(), Some(&b"one"[..]));
    assert_eq!(pair.receive().as_deref(), Some(&b"two"[..]));
    assert_eq!(pair.receive(), None);
}

#[test]
fn memory_is_given_back_only_while_nothing_is_unread() {
    let mut pair = pair();
    assert_eq!(pair.producer.give_back(), Ok(true));
    assert!(pair.send(b"one"));
    assert_eq!(pair.producer.give_back(), Ok(false), "not published yet");
    pair.producer.publish();
    assert_eq!(pair.producer.give_back(), Ok(false), "not read yet");
    assert_eq!(pair.receive().as_deref(), Some(&b"one"[..]));
    assert_eq!(pair.producer.give_back(), Ok(false), "not released yet");
    pair.consumer.release();
    assert_eq!(pair.producer.give_back(), Ok(true));
    pair.bounce(b"two");
}

/// Bytes of which the rest of the ring is given back.
const PAGE: u32 = 1024;

impl Pair {
    fn are_beyond_a_page(&self) -> [bool; 2] {
        [self.producer.is_beyond(PAGE), self.consumer.is_beyond(PAGE)]
    }
}

#[test]
fn what_lay_far_into_the_ring_is_remembered_after_it_has_begun_again() {
    let mut pair = pair();
    pair.bounce(&[1; 400]);
    assert_eq!(pair.are_beyond_a_page(), [false; 2]);
    for _ in 0..5 {
        pair.bounce(&[1; 900]);
    }
    assert_eq!(pair.are_beyond_a_page(), [true; 2]);
    for _ in 0..30 {
        pair.bounce(b"light");
        assert_eq!(pair.are_beyond_a_page(), [true; 2]);
    }
    pair.producer.give_back().unwrap();
    pair.consumer.begin_reach();
    assert_eq!(pair.are_beyond_a_page(), [false; 2]);
}

#[test]
fn what_tells_that_a_ring_begins_again_after_it_was_given_back_counts_where_it_lies() {
    let mut pair = pair();
    for _ in 0..3 {
        pair.bounce(&[1; 700]);
    }
    pair.producer.give_back().unwrap();
    pair.consumer.begin_reach();
    assert_eq!(pair.are_beyond_a_page(), [false; 2]);
    pair.bounce(b"it lies at the start, and something at the end says so");
    assert_eq!(pair.are_beyond_a_page(), [true; 2]);
}

#[test]
fn lap_that_ends_with_a_record_that_just_fits_counts_as_far() {
    let mut pair = pair();
    let in_a_lap = CAPACITY / 64;
    let [mut unread, body] = [0, 64 - HEADER];
    for _ in 0..in_a_lap {
        assert!(pair.send(&vec![1; body as usize]) && pair.producer.publish());
        unread += 1;
        while unread > 1 {
            pair.receive().unwrap();
            pair.consumer.release();
            unread -= 1;
        }
    }
    pair.receive().unwrap();
    pair.consumer.release();
    assert_eq!(pair.producer.tail, CAPACITY);
    assert_eq!(pair.are_beyond_a_page(), [true; 2]);
}

#[test]
fn dropped_reservation_leaves_nothing_behind() {
    let mut pair = pair();
    let mut record = pair.producer.reserve(8).unwrap().unwrap();
    record.write(&header(8));
    drop(record);
    assert!(!pair.producer.publish());
    pair.bounce(b"next");
}

#[test]
#[should_panic(expected = "5 bytes were not written")]
fn commit_of_a_half_written_record_panics() {
    let mut pair = pair();
    let mut record = pair.producer.reserve(8).unwrap().unwrap();
    record.write(&header(8));
    record.write(b"abc");
    record.commit();
}

#[test]
fn record_in_odd_pieces_arrives_whole_and_padded_with_zeros() {
    let mut pair = pair();
    let pieces: [&[u8]; 5] = [b"a", b"", b"bcdefgh", b"ijklmnopqrs", b"t"];
    assert!(pair.producer.push(&header(20), &pieces).unwrap());
    pair.producer.publish();
    assert_eq!(
        pair.receive().as_deref(),
        Some(&b"abcdefghijklmnopqrst"[..])
    );
}

#[test]
fn peek_returns_the_same_record_until_advanced() {
    let mut pair = pair();
    assert!(pair.send(b"one") && pair.producer.publish());
    assert_eq!(pair.consumer.peek(), Ok(Some(header(3))));
    assert_eq!(pair.consumer.peek(), Ok(Some(header(3))));
    assert_eq!(pair.consumer.body_bytes(), 3);
    assert!(!pair.consumer.release());
    pair.consumer.advance();
    assert!(pair.consumer.release());
}

#[test]
fn full_ring_refuses_until_the_consumer_releases() {
    let mut pair = pair();
    let body = vec![1; pair.producer.max_body_bytes()];
    for _ in 0..4 {
        assert!(pair.send(&body));
    }
    assert!(!pair.send(b""));
    pair.producer.publish();
    assert!(pair.receive().is_some());
    assert!(!pair.send(&body), "consumed is not released");
    pair.consumer.release();
    assert!(pair.send(&body));
    assert!(!pair.send(b""));
}

#[test]
fn light_user_stays_in_the_first_page() {
    let mut pair = pair();
    for body_bytes in [0, 40, 100, 700, 999] {
        let body = vec![7; body_bytes];
        for _ in 0..200 {
            pair.bounce(&body);
            let last = pair.producer.tail.wrapping_sub(1) & (CAPACITY - 1);
            assert!(last < 3072, "a record ended at place {last}");
        }
    }
}

/// A peer that counts how often its head is looked at.
struct Counting {
    region: HeapRegion,
    looks: Rc<Cell<u32>>,
}

impl PeerMemory for Counting {
    fn ring_capacity_bytes(&self) -> u32 {
        PeerMemory::ring_capacity_bytes(&self.region)
    }

    fn load_tail(&self) -> u32 {
        self.region.load_tail()
    }

    fn load_head(&self) -> u32 {
        self.looks.set(self.looks.get() + 1);
        self.region.load_head()
    }

    fn load_sleep(&self) -> u32 {
        self.region.load_sleep()
    }

    fn read_header(&self, place: u32) -> HeaderWords {
        self.region.read_header(place)
    }

    fn append_to(&self, out: &mut Vec<u8>, place: u32, length: u32) {
        self.region.append_to(out, place, length);
    }
}

#[test]
fn busy_user_uses_the_whole_ring_and_looks_at_the_head_a_few_times_a_lap() {
    const LAPS: u32 = 100;
    let (s, c) = (HeapRegion::new(1 << 16), HeapRegion::new(1 << 16));
    let looks = Rc::default();
    let peer = Counting {
        region: c.clone(),
        looks: Rc::clone(&looks),
    };
    let mut producer = Producer::new(s.clone(), peer);
    let mut consumer = Consumer::new(c, s);
    let mut furthest = 0;
    // The consumer stays one record behind, so that the ring is never empty.
    assert!(producer.push(&header(40), &[&[1; 40]]).unwrap() && producer.publish());
    for _ in 0..LAPS * (1 << 16) / 64 {
        assert!(producer.push(&header(40), &[&[1; 40]]).unwrap() && producer.publish());
        assert!(consumer.peek().unwrap().is_some());
        consumer.advance();
        assert!(consumer.release());
        furthest = furthest.max(producer.tail & 0xFFFF);
    }
    assert!(furthest > 0xFF00);
    let looks_per_lap = looks.get() / LAPS;
    assert!(looks_per_lap <= 6, "{looks_per_lap} looks a lap"); // at 2, 4, 8, 16, 32 KiB, and full
}

#[test]
fn emptiness_follows_what_the_consumer_released() {
    let mut pair = pair();
    assert_eq!(pair.producer.is_empty(), Ok(true));
    assert!(pair.send(b"x") && pair.producer.publish());
    assert_eq!(pair.producer.is_empty(), Ok(false));
    assert_eq!(pair.consumer.has_unread(), Ok(true));
    assert!(pair.receive().is_some() && pair.consumer.release());
    assert_eq!(pair.producer.is_empty(), Ok(true));
    assert_eq!(pair.consumer.has_unread(), Ok(false));
}

#[test]
#[should_panic(expected = "one writer")]
fn second_producer_for_a_region_panics() {
    let (s, c) = regions();
    let _first = Producer::new(s.clone(), c.clone());
    let _second = Producer::new(s, c);
}

/// A peer that writes what it wants.
struct Liar {
    region: HeapRegion,
    writer: HeapWriter,
}

fn liar() -> (Liar, Consumer<HeapRegion, HeapRegion>) {
    let (s, c) = regions();
    let writer = s.claim_writer();
    let consumer = Consumer::new(c, s.clone());
    (Liar { region: s, writer }, consumer)
}

#[test]
fn impossible_tails_are_reported_for_good() {
    let word = PositionWord::Tail;
    let too_far = |to| Corrupt::TooFar {
        word,
        from: 0,
        to,
        limit: CAPACITY,
    };
    let back = |to| Corrupt::Backwards { word, from: 0, to };
    let cases = [
        (4104, too_far(4104)),
        (u32::MAX - 7, back(u32::MAX - 7)),
        (12, Corrupt::Misaligned { word, to: 12 }),
    ];
    for (tail, expected) in cases {
        let (liar, mut consumer) = liar();
        liar.region.store_tail(tail);
        assert_eq!(consumer.peek(), Err(expected));
        liar.region.store_tail(0);
        assert_eq!(consumer.peek(), Err(expected), "poisoned");
        assert_eq!(consumer.has_unread(), Err(expected));
    }
}

#[test]
fn head_that_goes_back_is_seen_without_a_need_for_room() {
    let (s, c) = regions();
    let mut producer = Producer::new(s, c.clone());
    assert_eq!(producer.push(&header(0), &[]), Ok(true));
    assert!(producer.publish());
    c.store_head(24);
    assert_eq!(producer.check_head(), Ok(()));
    c.store_head(0);
    let back = Corrupt::Backwards {
        word: PositionWord::Head,
        from: 24,
        to: 0,
    };
    assert_eq!(producer.check_head(), Err(back));
    c.store_head(24);
    assert_eq!(producer.check_head(), Err(back), "poisoned");
}

#[test]
fn impossible_records_are_reported() {
    let needed = |needed, published| Corrupt::Unpublished { needed, published };
    let cases = [
        (
            header(1001),
            4096,
            Corrupt::TooLarge {
                length: 1001,
                at_most: 1000,
            },
        ),
        (
            header(0x8000_0000),
            4096,
            Corrupt::TooLarge {
                length: 0x8000_0000,
                at_most: 1000,
            },
        ),
        (header(1000), 1016, needed(1024, 1016)),
        (header(0), 16, needed(24, 16)),
    ];
    for (header, tail, expected) in cases {
        let (mut liar, mut consumer) = liar();
        liar.writer.write(0, &header);
        liar.region.store_tail(tail);
        assert_eq!(consumer.peek(), Err(expected));
        assert_eq!(consumer.peek(), Err(expected), "poisoned");
    }
}

#[test]
fn padding_must_be_zero_and_reach_the_end() {
    let pad = |length: u32, byte: u8| {
        let mut header = [0; HEADER_BYTES];
        header[..4].copy_from_slice(&length.to_le_bytes());
        header[20] = byte;
        header
    };
    for (header, length) in [
        (pad(100, 0), 100),
        (pad(4072, 1), 4072),
        (pad(u32::MAX, 0), u32::MAX),
    ] {
        let (mut liar, mut consumer) = liar();
        liar.writer.write(0, &header);
        liar.region.store_tail(4096);
        assert_eq!(
            consumer.peek(),
            Err(Corrupt::Pad {
                length,
                to_end: 4096
            })
        );
    }
    let (mut liar, mut consumer) = liar();
    liar.writer.write(0, &pad(4072, 0));
    liar.region.store_tail(4096);
    assert_eq!(
        consumer.peek(),
        Ok(None),
        "a ring full of padding is allowed"
    );
    assert!(consumer.release());
}

#[test]
fn record_past_the_end_is_reported() {
    let (mut liar, mut consumer) = liar();
    for place in [0, 1024, 2048] {
        liar.writer.write(place, &header(1000));
    }
    liar.writer.write(3072, &header(800));
    liar.writer.write(3896, &header(200));
    liar.region.store_tail(4096);
    for _ in 0..4 {
        assert!(consumer.peek().unwrap().is_some());
        consumer.advance();
    }
    consumer.release();
    liar.region.store_tail(4096 + 1024);
    let expected = Corrupt::PastEnd {
        needed: 224,
        to_end: 200,
    };
    assert_eq!(consumer.peek(), Err(expected));
}

#[test]
fn impossible_heads_are_reported_for_good() {
    let word = PositionWord::Head;
    let (s, c) = regions();
    let mut producer = Producer::new(s, c.clone());
    assert!(producer.push(&header(0), &[]).unwrap() && producer.publish());
    assert!(producer.push(&header(0), &[]).unwrap());
    c.store_head(48); // not published yet
    let expected = Corrupt::TooFar {
        word,
        from: 0,
        to: 48,
        limit: 24,
    };
    assert_eq!(producer.is_empty(), Err(expected));
    c.store_head(24);
    assert_eq!(producer.push(&header(0), &[]), Err(expected), "poisoned");
}

#[test]
fn skipped_bytes_do_not_count_as_unread() {
    let mut pair = pair();
    for _ in 0..4 {
        pair.bounce(&[1; 800]);
    }
    let record = record_bytes(800) as usize;
    for count in 1..=3 {
        assert!(pair.send(&[2; 800]), "the ring begins again with the first");
        assert_eq!(pair.producer.unread_bytes(), Ok(count * record));
    }
    assert!(pair.producer.publish());
    for left in [2, 1, 0] {
        assert!(pair.receive().is_some() && pair.consumer.release());
        assert_eq!(pair.producer.unread_bytes(), Ok(left * record));
    }
    drop(pair.producer.reserve(800));
    assert_eq!(pair.producer.unread_bytes(), Ok(0), "nothing was committed");
}

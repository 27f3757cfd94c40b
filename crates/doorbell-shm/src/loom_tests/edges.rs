//! The two edges of the ring, without any sleep that could order things by the way.

use loom::thread;

use super::model;
use super::side::{FULL, sides};
use crate::wake::SleepOn;

/// Edge `filled`: whoever sees a tail sees the records before it.
#[test]
fn loom_published_records_are_read_whole_and_in_order() {
    model(|| {
        let (mut sender, mut receiver) = sides(SleepOn::Futex);
        let producer = thread::spawn(move || {
            assert!(sender.try_send(1));
            assert!(sender.try_send(2));
        });
        for value in 1..=2 {
            while receiver
                .try_receive()
                .map(|got| assert_eq!(got, value))
                .is_none()
            {
                thread::yield_now();
            }
        }
        producer.join().unwrap();
    });
}

/// Edge `consumed`: a record is copied out before its place is written again.
#[test]
fn loom_room_is_not_reused_before_it_was_read() {
    model(|| {
        let (mut sender, mut receiver) = sides(SleepOn::Futex);
        (1..=FULL).for_each(|value| assert!(sender.try_send(value)));
        let producer = thread::spawn(move || {
            while !sender.try_send(FULL + 1) {
                thread::yield_now();
            }
        });
        assert_eq!(receiver.try_receive(), Some(1));
        receiver.release();
        producer.join().unwrap();
    });
}

/// Edge `consumed`: a record is copied out before its memory goes back to the system, which is a write of zeros.
#[test]
fn loom_memory_is_not_given_back_before_it_was_read() {
    model(|| {
        let (mut sender, mut receiver) = sides(SleepOn::Futex);
        assert!(sender.try_send(1));
        let producer = thread::spawn(move || {
            while !sender.give_back() {
                thread::yield_now();
            }
        });
        assert_eq!(receiver.try_receive(), Some(1));
        receiver.release();
        producer.join().unwrap();
    });
}

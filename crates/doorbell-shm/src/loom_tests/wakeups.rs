//! No wake-up is lost, and none is given twice. A lost one shows as a deadlock.

use loom::thread;

use super::model;
use super::side::{FULL, sides};
use crate::sync::kept;
use crate::wake::SleepOn;

fn publish_racing_with_sleep(on: SleepOn) {
    model(move || {
        let (mut sender, mut sleeper) = sides(on);
        let producer = thread::spawn(move || sender.send(1));
        assert_eq!(sleeper.receive(), 1);
        producer.join().unwrap();
    });
}

#[test]
fn loom_publish_racing_with_sleep_on_a_futex_wakes() {
    publish_racing_with_sleep(SleepOn::Futex);
}

#[test]
fn loom_publish_racing_with_sleep_on_a_doorbell_wakes() {
    publish_racing_with_sleep(SleepOn::Doorbell);
}

fn release_racing_with_sleep_for_space(on: SleepOn) {
    model(move || {
        let (mut sleeper, mut receiver) = sides(on);
        (1..=FULL).for_each(|value| assert!(sleeper.try_send(value)));
        let consumer = thread::spawn(move || {
            assert_eq!(receiver.try_receive(), Some(1));
            receiver.release();
            receiver.notify(false, true);
        });
        sleeper.send_when_there_is_room(FULL + 1);
        consumer.join().unwrap();
    });
}

#[test]
fn loom_release_racing_with_sleep_for_space_on_a_futex_wakes() {
    release_racing_with_sleep_for_space(SleepOn::Futex);
}

#[test]
fn loom_release_racing_with_sleep_for_space_on_a_doorbell_wakes() {
    release_racing_with_sleep_for_space(SleepOn::Doorbell);
}

/// `wait_state` of a writer against a reader that gives room back, and looks who waits for it, once for every half of the ring
/// (`must_look_for_space_waiter`). The writer announces itself, finds room for its last record then, and must not sleep: the reader
/// has looked before, and after that record it will not.
#[test]
fn loom_writer_that_finds_room_after_the_announcement_does_not_sleep() {
    const LAST: u8 = FULL + 1;
    model(|| {
        let (mut writer, mut reader) = sides(SleepOn::Futex);
        (1..=FULL).for_each(|value| assert!(writer.try_send(value)));
        let peer = thread::spawn(move || {
            for value in 1..=LAST {
                while reader.try_receive().is_none() {
                    thread::yield_now();
                }
                if value % (FULL / 2) == 0 {
                    reader.release();
                    reader.notify(false, true);
                }
            }
        });
        let mut sent = false;
        while !sent && !writer.try_send(LAST) {
            writer.sleep_unless(true, |side| {
                sent = side.try_send(LAST); // `relieve`
                sent && kept("relieved-look-again")
            });
        }
        peer.join().unwrap();
    });
}

/// Each side sends one record and then sleeps until the other's has come.
#[test]
fn loom_two_sides_never_both_sleep_over_a_record() {
    model(|| {
        let (mut a, mut b) = sides(SleepOn::Doorbell);
        let other = thread::spawn(move || {
            b.send(2);
            assert_eq!(b.receive(), 1);
        });
        a.send(1);
        assert_eq!(a.receive(), 2);
        other.join().unwrap();
    });
}

/// A sleeper that was woken, has drained the ring and sleeps again is woken again; and a burst
/// during one sleep costs one notification.
#[test]
fn loom_each_sleep_is_notified_once() {
    each_sleep_is_notified_once(SleepOn::Doorbell);
}

/// A notification can come between announcement and sleep, for a record that was taken before: nothing has changed then that the
/// futex could compare but the number of the sleep that was notified. The record that comes next must not count on it.
#[test]
fn loom_each_sleep_on_a_futex_is_notified_once() {
    each_sleep_is_notified_once(SleepOn::Futex);
}

fn each_sleep_is_notified_once(on: SleepOn) {
    model(move || {
        let (mut sender, mut sleeper) = sides(on);
        let producer = thread::spawn(move || {
            sender.send(1);
            sender.send(2);
            sender.notifications
        });
        assert_eq!(sleeper.receive(), 1);
        assert_eq!(sleeper.receive(), 2);
        let notifications = producer.join().unwrap();
        assert!(
            notifications <= sleeper.sleeps,
            "notified more often than slept"
        );
    });
}

/// An answer and the room of its request share one fence; the client waits for either.
#[test]
fn loom_answer_and_room_under_one_fence_wake_the_client() {
    model(|| {
        let (mut client, mut server) = sides(SleepOn::Futex);
        (1..=FULL).for_each(|value| assert!(client.try_send(value)));
        let worker = thread::spawn(move || {
            assert_eq!(server.try_receive(), Some(1));
            server.release();
            assert!(server.try_send(9));
            server.notify(true, true);
        });
        client.send_when_there_is_room(FULL + 1);
        assert_eq!(client.receive(), 9);
        worker.join().unwrap();
    });
}

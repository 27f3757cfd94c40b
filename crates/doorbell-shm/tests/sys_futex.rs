//! Sleeping on a word of shared memory, between two processes.

mod sys_support;

use std::sync::atomic::Ordering;

use doorbell_shm::sys::{
    Mapping, Woken, create_region, futex_wait, futex_wait_any, futex_wake, seal_writable_by_us_only,
};
use sys_support::*;

const BYTES: usize = 4096;
const TAIL: usize = 128;
const HEAD: usize = 132;

#[test]
fn child_process() {
    let Some((role, stream)) = role() else { return };
    let region = take_over_region(&stream);
    let mapping = Mapping::map_read_only(&region, BYTES).unwrap();
    let (tail, head) = (word(&mapping, TAIL), word(&mapping, HEAD));
    let woken = match role.as_str() {
        "wait" => futex_wait(tail, 0, in_time()).unwrap(),
        "wait for either" => futex_wait_any(&[(tail, 0), (head, 0)], in_time()).unwrap(),
        "wake" => {
            until(|| futex_wake(tail, 1).unwrap() == 1);
            Woken::Notified
        }
        "watch" => {
            while tail.load(Ordering::Relaxed) < 1000 {
                let seen = tail.load(Ordering::Relaxed);
                assert_eq!(futex_wait(tail, seen, in_time()).unwrap(), Woken::Notified);
            }
            Woken::Notified
        }
        _ => panic!("no role {role}"),
    };
    assert_eq!(woken, Woken::Notified);
}

/// A region that this process writes, and a peer that can only read it.
fn peer_with_region(role: &str) -> (Peer, Mapping) {
    let region = create_region(BYTES).unwrap();
    let mapping = Mapping::map_read_write(&region, BYTES).unwrap();
    seal_writable_by_us_only(&region).unwrap();
    let peer = Peer::spawn(role);
    hand_over(&peer.stream, &region);
    (peer, mapping)
}

#[test]
fn wake_reaches_a_sleeper_on_a_read_only_mapping() {
    let (peer, mapping) = peer_with_region("wait");
    // The word stays as it is: nothing but the wake can end the peer's sleep.
    until(|| futex_wake(word(&mapping, TAIL), 1).unwrap() == 1);
    peer.finish();
}

#[test]
fn wake_of_the_second_word_reaches_a_sleeper_on_two() {
    let (peer, mapping) = peer_with_region("wait for either");
    until(|| futex_wake(word(&mapping, HEAD), 1).unwrap() == 1);
    peer.finish();
}

#[test]
fn wake_through_a_read_only_mapping_reaches_the_writer() {
    let (peer, mapping) = peer_with_region("wake");
    let woken = futex_wait(word(&mapping, TAIL), 0, in_time()).unwrap();
    assert_eq!(woken, Woken::Notified);
    peer.finish();
}

#[test]
fn changes_that_race_with_the_sleep_are_not_lost() {
    let (peer, mapping) = peer_with_region("watch");
    let tail = word(&mapping, TAIL);
    for value in 1..=1000 {
        tail.store(value, Ordering::Release);
        futex_wake(tail, 1).unwrap();
    }
    peer.finish();
}

#[test]
fn wake_reaches_a_sleeper_on_another_mapping_of_this_process() {
    let region = sized_region(BYTES);
    let writer = Mapping::map_read_write(&region, BYTES).unwrap();
    let reader = Mapping::map_read_only(&region, BYTES).unwrap();
    std::thread::scope(|scope| {
        let sleeper = scope.spawn(|| futex_wait(word(&reader, TAIL), 0, in_time()).unwrap());
        until(|| futex_wake(word(&writer, TAIL), 1).unwrap() == 1);
        assert_eq!(sleeper.join().unwrap(), Woken::Notified);
    });
}

#[test]
fn wake_counts_and_limits_the_sleepers() {
    let region = sized_region(BYTES);
    let mapping = Mapping::map_read_write(&region, BYTES).unwrap();
    let tail = word(&mapping, TAIL);
    assert_eq!(futex_wake(tail, u32::MAX).unwrap(), 0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| futex_wait(tail, 0, in_time()).unwrap());
        }
        let mut woken = 0;
        until(|| {
            let now = futex_wake(tail, 1).unwrap();
            assert!(now <= 1);
            woken += now;
            woken == 3
        });
    });
}

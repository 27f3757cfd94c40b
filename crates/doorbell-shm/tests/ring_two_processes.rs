//! Two real processes, real regions, real futexes: nothing is lost, torn, late or out of order.

mod sys_support;

use std::time::{Duration, Instant};

use doorbell_shm::memory::{HEADER_BYTES, Kick, Layout, OwnRegion, PeerRegion, adopt, create};
use doorbell_shm::ring::{Consumer, Producer};
use doorbell_shm::sys::{ControlStream, RegionHandle, Woken, cpu_count};
use doorbell_shm::wake::{Announcer, Notifier, SleepOn, Spin, SpinMode};
use sys_support::*;

const RECORDS: u64 = 1_000_000;
const LARGE_RECORDS: u64 = 20_000;
const KILLS: u64 = 300;
const ROUND_TRIPS: u64 = 20_000;

/// One side of a connection, blocking.
struct End {
    own: OwnRegion,
    peer: PeerRegion,
    producer: Producer,
    consumer: Consumer,
    announcer: Announcer,
    notifier: Notifier,
    kick: Kick,
    spin: Spin,
}

fn layout() -> Layout {
    Layout::new(1 << 16, 8).unwrap()
}

impl End {
    fn new(own: OwnRegion, peer: PeerRegion) -> Self {
        Self {
            producer: Producer::new(own.clone(), peer.clone()),
            consumer: Consumer::new(own.clone(), peer.clone()),
            announcer: Announcer::new(own.clone()),
            notifier: Notifier::new(own.clone(), peer.clone()),
            kick: Kick::new(),
            spin: Spin::new(SpinMode::Adaptive, cpu_count()),
            own,
            peer,
        }
    }

    /// Makes the regions and hands them over.
    fn server(stream: &ControlStream) -> Self {
        let made = create(layout(), layout()).unwrap();
        hand_over(stream, &made.server_handle);
        hear(stream, b'1');
        hand_over(stream, &made.client_handle);
        Self::new(made.own, made.peer)
    }

    fn client(stream: &ControlStream) -> Self {
        let server: RegionHandle = take_over_region(stream);
        say(stream, b'1');
        let client = take_over_region(stream);
        let (own, peer) = adopt(server, client, layout(), layout()).unwrap();
        Self::new(own, peer)
    }

    /// Sends a record, publishing and sleeping when there is no room.
    fn send(&mut self, serial: u64, publish: bool) {
        let body = body(serial);
        while !self
            .producer
            .push(&header(serial, body.len()), &[&body])
            .unwrap()
        {
            self.flush();
            self.sleep(true);
        }
        if publish {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let published = self.producer.publish();
        self.notify(published, false);
    }

    /// The peer gives all room back before it sleeps.
    fn give_back_when_empty(&mut self) {
        let deadline = in_time();
        while !self.producer.give_back().unwrap() {
            assert!(deadline.is_none_or(|at| Instant::now() < at), "not emptied");
            std::thread::yield_now();
        }
    }

    fn notify(&mut self, published: bool, released: bool) {
        match self.notifier.after_publish_and_release(published, released) {
            Some(SleepOn::Futex) => self.own.wake().unwrap(),
            Some(SleepOn::Doorbell) => panic!("nobody sleeps on a doorbell here"),
            None => {}
        }
    }

    /// Takes the record `serial`, if one is published, and checks every byte of it.
    fn try_receive(&mut self, serial: u64, scratch: &mut Vec<u8>) -> bool {
        let Some(found) = self.consumer.peek().unwrap() else {
            return false;
        };
        scratch.clear();
        self.consumer.copy_body(scratch);
        assert_eq!(found, header(serial, scratch.len()), "header of {serial}");
        assert!(*scratch == body(serial), "body of {serial}");
        self.consumer.advance();
        true
    }

    fn receive(&mut self, serial: u64, scratch: &mut Vec<u8>) {
        while !self.try_receive(serial, scratch) {
            let released = self.consumer.release();
            self.notify(false, released);
            self.sleep(false);
        }
    }

    fn is_ready(&mut self, space: bool) -> bool {
        self.consumer.has_unread().unwrap() || (space && self.has_room())
    }

    fn has_room(&mut self) -> bool {
        self.producer.reserve(MOST).unwrap().is_some()
    }

    /// Spins, announces, looks once more, sleeps.
    fn sleep(&mut self, space: bool) {
        let mut turn = self.spin.start();
        while turn.again() {
            if self.is_ready(space) {
                return self.spin.paid(&turn);
            }
        }
        self.spin.missed(&turn);
        let number = self.announcer.announce(SleepOn::Futex, space);
        if !self.is_ready(space) {
            let asleep = Instant::now();
            let woken = self.peer.wait(number, &self.kick, in_time()).unwrap();
            assert_eq!(woken, Woken::Notified, "a wake-up was lost");
            self.spin.slept(asleep.elapsed());
        }
        self.announcer.withdraw();
    }
}

/// A small generator: the same numbers in both processes.
fn scramble(serial: u64) -> u64 {
    let mixed = (serial + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 17
}

fn body(serial: u64) -> Vec<u8> {
    let length = match scramble(serial) % 64 {
        0 => MOST as u64,
        n => scramble(serial + 7) % (8 * n),
    };
    (0..length).map(|i| (i * 31 + serial * 7) as u8).collect()
}

fn header(serial: u64, length: usize) -> [u8; HEADER_BYTES] {
    let mut header = [0x5A; HEADER_BYTES];
    header[..4].copy_from_slice(&u32::try_from(length).unwrap().to_le_bytes());
    header[8..16].copy_from_slice(&serial.to_le_bytes());
    header
}

/// Records after which a producer that gives memory back does so at the latest.
const GIVES_BACK_EVERY: u64 = 5000;
/// Largest body of these tests.
const MOST: usize = 3000;

#[test]
fn child_process() {
    let Some((role, stream)) = role() else { return };
    let mut end = End::client(&stream);
    match role.as_str() {
        "stream" => {
            (0..RECORDS).for_each(|serial| end.send(serial, scramble(serial).is_multiple_of(4)));
            end.flush();
        }
        "stream and give back" => {
            for serial in 0..RECORDS {
                end.send(serial, scramble(serial).is_multiple_of(4));
                let was_given_back = end.producer.give_back().unwrap();
                if serial.is_multiple_of(GIVES_BACK_EVERY) && !was_given_back {
                    end.flush();
                    end.give_back_when_empty();
                }
            }
            end.flush();
        }
        "large past caches" => {
            end.producer.write_past_caches(true);
            for serial in 0..LARGE_RECORDS {
                let body = large_body(serial);
                while !end
                    .producer
                    .push(&header(serial, body.len()), &[&body])
                    .unwrap()
                {
                    end.flush();
                    end.sleep(true);
                }
                if scramble(serial).is_multiple_of(2) {
                    end.flush();
                }
            }
            end.flush();
        }
        "until killed" => {
            (0..=u64::MAX).for_each(|serial| end.send(serial, scramble(serial).is_multiple_of(4)))
        }
        "echo" => {
            let mut scratch = Vec::new();
            for serial in 0..ROUND_TRIPS {
                end.receive(serial, &mut scratch);
                end.consumer.release();
                end.send(serial, true);
            }
        }
        "kick" => hear(&stream, b'k'),
        _ => panic!("no role {role}"),
    }
    say(&stream, b'e');
    hear(&stream, b'e');
}

#[test]
fn million_records_arrive_whole_and_in_order() {
    receive_all("stream");
}

#[test]
fn no_record_goes_with_the_memory_that_is_given_back() {
    receive_all("stream and give back");
}

#[test]
fn large_records_written_past_the_caches_arrive_whole() {
    let peer = Peer::spawn("large past caches");
    let mut end = End::server(&peer.stream);
    let mut scratch = Vec::new();
    for serial in 0..LARGE_RECORDS {
        while end.consumer.peek().unwrap().is_none() {
            end.sleep(false);
        }
        scratch.clear();
        end.consumer.copy_body(&mut scratch);
        assert!(scratch == large_body(serial), "body of {serial}");
        end.consumer.advance();
        let released = end.consumer.release();
        end.notify(false, released);
    }
    hear(&peer.stream, b'e');
    say(&peer.stream, b'e');
    peer.finish();
}

/// A body that is written past the caches, of words, so that the test does not spend its time on making them.
fn large_body(serial: u64) -> Vec<u8> {
    let length = 8192 + (scramble(serial) % 8000) as usize;
    let words = (0..length.div_ceil(8) as u64).flat_map(|i| (i * 31 + serial * 7).to_le_bytes());
    words.take(length).collect()
}

/// Receives what a peer in another process sends, and gives room back now and then.
fn receive_all(role: &str) {
    let peer = Peer::spawn(role);
    let mut end = End::server(&peer.stream);
    let mut scratch = Vec::new();
    for serial in 0..RECORDS {
        end.receive(serial, &mut scratch);
        if scramble(serial).is_multiple_of(16) {
            let released = end.consumer.release();
            end.notify(false, released);
        }
    }
    end.consumer.release();
    assert_eq!(end.consumer.peek(), Ok(None));
    hear(&peer.stream, b'e');
    say(&peer.stream, b'e');
    peer.finish();
}

#[test]
fn round_trips_from_sleep_to_sleep_lose_no_wake_up() {
    for mode in [SpinMode::Never, SpinMode::Adaptive] {
        let peer = Peer::spawn("echo");
        let mut end = End::server(&peer.stream);
        end.spin = Spin::new(mode, cpu_count());
        let mut scratch = Vec::new();
        for serial in 0..ROUND_TRIPS {
            end.send(serial, true);
            end.receive(serial, &mut scratch);
            end.consumer.release();
        }
        hear(&peer.stream, b'e');
        say(&peer.stream, b'e');
        peer.finish();
    }
}

/// Everything that a killed producer had published is there, whole; nothing half-written is visible.
#[test]
fn records_of_a_killed_producer_are_whole() {
    let mut scratch = Vec::new();
    let mut received = 0;
    for round in 0..KILLS {
        let mut peer = Peer::spawn("until killed");
        let mut end = End::server(&peer.stream);
        let mut serial = 0;
        let lifetime = Duration::from_nanos(scramble(round) % 3_000_000);
        end.receive(serial, &mut scratch);
        let born = Instant::now();
        while born.elapsed() < lifetime {
            serial += 1;
            end.receive(serial, &mut scratch);
        }
        peer.kill();
        while end.try_receive(serial + 1, &mut scratch) {
            serial += 1;
        }
        received += serial;
    }
    assert!(received > KILLS);
}

#[test]
fn kick_of_another_thread_ends_a_sleep() {
    let peer = Peer::spawn("kick");
    let end = End::server(&peer.stream);
    const FIRST: u32 = 1;
    std::thread::scope(|scope| {
        let sleeper = scope.spawn(|| end.peer.wait(FIRST, &end.kick, in_time()).unwrap());
        end.kick.raise();
        assert_eq!(sleeper.join().unwrap(), Woken::Notified);
    });
    assert!(end.kick.lower());
    assert!(!end.kick.lower());
    let deadline = end.peer.wait(FIRST, &end.kick, shortly()).unwrap();
    assert_eq!(deadline, Woken::Deadline);
    say(&peer.stream, b'k');
    hear(&peer.stream, b'e');
    say(&peer.stream, b'e');
    peer.finish();
}

#[test]
fn cancel_words_reach_the_peer_and_other_slots_read_zero() {
    let made = create(layout(), layout()).unwrap();
    let (own, _peer) = adopt(made.server_handle, made.client_handle, layout(), layout()).unwrap();
    own.set_cancel(7, 41);
    assert_eq!(made.peer.cancel_generation(7), 41);
    assert_eq!(made.peer.cancel_generation(0), 0);
    assert_eq!(made.peer.cancel_generation(8), 0);
    assert_eq!(made.peer.cancel_generation(u32::MAX), 0);
}

#[test]
fn regions_that_were_not_agreed_on_are_not_adopted() {
    let small = Layout::new(4096, 8).unwrap();
    let made = create(layout(), layout()).unwrap();
    assert!(adopt(made.server_handle, made.client_handle, small, layout()).is_err());
    let made = create(layout(), layout()).unwrap();
    assert!(adopt(made.server_handle, made.client_handle, layout(), small).is_err());
    let made = create(layout(), layout()).unwrap();
    assert!(
        adopt(made.client_handle, made.server_handle, layout(), layout()).is_err(),
        "swapped"
    );
}

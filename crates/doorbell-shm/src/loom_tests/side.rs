//! One side of a connection, and the operating system as a model.

use loom::sync::{Arc, Condvar, Mutex};

use crate::memory::{HEADER_BYTES, HeapRegion, Kick};
use crate::ring::{Consumer, Producer};
use crate::sync::{Ordering, kept};
use crate::wake::{Announcer, Notifier, SleepOn};

/// Smallest ring of a model: four records with a body of eight bytes.
const CAPACITY: u32 = 128;
/// Records that fill the ring.
pub(super) const FULL: u8 = 4;

/// How the owner of a region wakes the other side.
#[derive(Debug)]
pub(super) struct Wires {
    futex: Futex,
    bell: Bell,
}

/// A futex: compares and falls asleep under a lock that waking takes too.
#[derive(Debug)]
pub(super) struct Futex {
    queue: Mutex<()>,
    sleepers: Condvar,
}

impl Futex {
    pub(super) fn wait(&self, unchanged: impl Fn() -> bool) {
        let queue = self.queue.lock().unwrap();
        if unchanged() {
            drop(self.sleepers.wait(queue).unwrap());
        }
    }

    pub(super) fn wake(&self) {
        let _queue = self.queue.lock().unwrap();
        self.sleepers.notify_all();
    }
}

/// A doorbell: remembers that it was notified.
#[derive(Debug)]
pub(super) struct Bell {
    notified: Mutex<bool>,
    sleepers: Condvar,
}

impl Bell {
    pub(super) fn new() -> Self {
        Self {
            notified: Mutex::new(false),
            sleepers: Condvar::new(),
        }
    }

    pub(super) fn wait(&self) {
        let mut notified = self.notified.lock().unwrap();
        while !*notified {
            notified = self.sleepers.wait(notified).unwrap();
        }
        *notified = false;
    }

    pub(super) fn notify(&self) {
        *self.notified.lock().unwrap() = true;
        self.sleepers.notify_all();
    }
}

/// Everything that one side of a connection has, asleep and awake.
#[derive(Debug)]
pub(super) struct Side {
    producer: Producer<HeapRegion, HeapRegion>,
    consumer: Consumer<HeapRegion, HeapRegion>,
    announcer: Announcer<HeapRegion>,
    notifier: Notifier<HeapRegion, HeapRegion>,
    peer: HeapRegion,
    on: SleepOn,
    /// Through this we wake the peer.
    own_wires: Arc<Wires>,
    /// On this we sleep.
    peer_wires: Arc<Wires>,
    pub(super) kick: Arc<Kick>,
    pub(super) sleeps: usize,
    pub(super) notifications: usize,
}

/// Returns both sides of a connection that sleep on `on`.
pub(super) fn sides(on: SleepOn) -> (Side, Side) {
    let regions = [HeapRegion::new(CAPACITY), HeapRegion::new(CAPACITY)];
    let wires = [Arc::new(Wires::new()), Arc::new(Wires::new())];
    let side = |own: usize, peer: usize| Side {
        producer: Producer::new(regions[own].clone(), regions[peer].clone()),
        consumer: Consumer::new(regions[own].clone(), regions[peer].clone()),
        announcer: Announcer::new(regions[own].clone()),
        notifier: Notifier::new(regions[own].clone(), regions[peer].clone()),
        peer: regions[peer].clone(),
        on,
        own_wires: Arc::clone(&wires[own]),
        peer_wires: Arc::clone(&wires[peer]),
        kick: Arc::new(Kick::new()),
        sleeps: 0,
        notifications: 0,
    };
    (side(0, 1), side(1, 0))
}

impl Wires {
    fn new() -> Self {
        Self {
            futex: Futex {
                queue: Mutex::new(()),
                sleepers: Condvar::new(),
            },
            bell: Bell::new(),
        }
    }
}

impl Side {
    /// Pushes and publishes a record of kind `value`, not 0, unless the ring is full.
    pub(super) fn try_send(&mut self, value: u8) -> bool {
        self.write(value) && self.publish()
    }

    /// Pushes a record of kind `value`, not 0, unless the ring is full.
    pub(super) fn write(&mut self, value: u8) -> bool {
        let mut header = [value; HEADER_BYTES];
        header[..4].copy_from_slice(&8_u32.to_le_bytes());
        self.producer.push(&header, &[&[value; 8]]).unwrap()
    }

    pub(super) fn publish(&mut self) -> bool {
        self.producer.publish()
    }

    pub(super) fn has_unpublished(&self) -> bool {
        self.producer.has_unpublished()
    }

    /// Takes a record, if there is one, and checks that it is whole.
    pub(super) fn try_receive(&mut self) -> Option<u8> {
        let header = self.consumer.peek().unwrap()?;
        let mut body = Vec::new();
        self.consumer.copy_body(&mut body);
        self.consumer.advance();
        assert_eq!(body, [header[4]; 8], "a torn record");
        Some(header[4])
    }

    pub(super) fn give_back(&mut self) -> bool {
        self.producer.give_back().unwrap()
    }

    pub(super) fn release(&mut self) {
        assert!(self.consumer.release());
    }

    pub(super) fn notify(&mut self, published: bool, released: bool) {
        let due = self.notifier.after_publish_and_release(published, released);
        let Some(on) = due else { return };
        self.notifications += 1;
        match on {
            SleepOn::Futex => self.own_wires.futex.wake(),
            SleepOn::Doorbell => self.own_wires.bell.notify(),
        }
    }

    /// Sends a record and wakes the peer if it sleeps. There must be room.
    pub(super) fn send(&mut self, value: u8) {
        assert!(self.try_send(value));
        self.notify(true, false);
    }

    /// Sleeps until there is a record, and takes it.
    pub(super) fn receive(&mut self) -> u8 {
        loop {
            if let Some(value) = self.try_receive() {
                return value;
            }
            self.sleep(false);
        }
    }

    /// Sleeps until there is room for a record, and sends it.
    pub(super) fn send_when_there_is_room(&mut self, value: u8) {
        while !self.try_send(value) {
            self.sleep(true);
        }
        self.notify(true, false);
    }

    /// Announces, looks once more, sleeps and withdraws, as every waiter does.
    pub(super) fn sleep(&mut self, space: bool) {
        self.sleep_unless(space, |side| kept("look-once-more") && side.is_ready(space));
    }

    pub(super) fn sleep_unless(&mut self, space: bool, is_ready: impl FnOnce(&mut Self) -> bool) {
        let number = self.announce(space);
        if !is_ready(self) {
            self.block(number);
        }
        self.announcer.withdraw();
    }

    pub(super) fn announce(&mut self, space: bool) -> u32 {
        self.sleeps += 1;
        self.announcer.announce(self.on, space)
    }

    fn is_ready(&mut self, space: bool) -> bool {
        self.consumer.has_unread().unwrap() || (space && self.has_room())
    }

    fn has_room(&mut self) -> bool {
        self.producer.reserve(8).unwrap().is_some()
    }

    pub(super) fn block(&self, number: u32) {
        match self.on {
            SleepOn::Doorbell => self.peer_wires.bell.wait(),
            SleepOn::Futex => self.wait(number),
        }
    }

    /// As `PeerRegion::wait`.
    fn wait(&self, number: u32) {
        let before = self.peer.load_notified();
        if before == number {
            return;
        }
        // What the kernel compares.
        let is_unchanged =
            || self.peer.load_notified() == before && (!kept("kick-covered") || !self.is_kicked());
        self.peer_wires.futex.wait(is_unchanged);
    }

    fn is_kicked(&self) -> bool {
        self.kick.word().load(Ordering::Relaxed) != Kick::LOWERED
    }

    /// What another thread of this process does to end our futex sleep.
    pub(super) fn kicker(&self) -> impl FnOnce() + use<> {
        let (kick, wires) = (Arc::clone(&self.kick), Arc::clone(&self.peer_wires));
        move || {
            if kick.raise_word() {
                wires.futex.wake();
            }
        }
    }
}

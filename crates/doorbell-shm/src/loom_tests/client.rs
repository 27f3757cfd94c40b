//! Steps of a client: the state that it shows while connections come and go, its cancel words, and the death of its peer. As in
//! [`locks`](super::locks), the steps are written down once more.

use loom::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use loom::sync::{Arc, Mutex};
use loom::thread;

use super::model;
use super::side::sides;
use crate::sync::{fence_at, kept, ordering};
use crate::wake::SleepOn;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    Connected,
    Disconnected,
    Closed,
}

/// What clones of a client share.
struct Dialer {
    closed: AtomicBool,
    /// Whether there is a connection, and a usable one.
    current: Mutex<Option<Arc<AtomicBool>>>,
    shown: Mutex<Shown>,
}

impl Dialer {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            closed: AtomicBool::new(false),
            current: Mutex::new(None),
            shown: Mutex::new(Shown::Disconnected),
        })
    }

    /// The channel runs what decides under its lock.
    fn show(&self, state: Shown) {
        let mut shown = kept("show-under-lock").then(|| self.shown.lock().unwrap());
        let current = self.current.lock().unwrap();
        let is_usable = current
            .as_ref()
            .is_some_and(|usable| usable.load(Ordering::Relaxed));
        drop(current);
        let is_so = is_usable == (state == Shown::Connected);
        if is_so && !self.closed.load(Ordering::Relaxed) {
            **shown.get_or_insert_with(|| self.shown.lock().unwrap()) = state;
        }
    }

    /// The end of `dial_once`.
    fn dialled(&self, usable: &Arc<AtomicBool>) {
        *self.current.lock().unwrap() = Some(Arc::clone(usable));
        self.show(Shown::Connected);
        if self.closed.load(Ordering::Relaxed) {
            self.close();
        }
    }

    fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        let connection = self.current.lock().unwrap().take();
        if let Some(usable) = connection {
            usable.store(false, Ordering::Relaxed);
        }
        *self.shown.lock().unwrap() = Shown::Closed;
    }

    fn connection_ended(&self) {
        self.show(Shown::Disconnected);
    }

    fn shown(&self) -> Shown {
        *self.shown.lock().unwrap()
    }
}

/// `close` against `dial_once`, and against the end of a connection.
#[test]
fn loom_client_that_is_closed_shows_it() {
    let others = [
        |dialer: &Dialer| dialer.dialled(&Arc::new(AtomicBool::new(true))),
        |dialer: &Dialer| dialer.connection_ended(),
    ];
    for step in others {
        model(move || {
            let dialer = Dialer::new();
            let other = thread::spawn({
                let dialer = Arc::clone(&dialer);
                move || step(&dialer)
            });
            dialer.close();
            other.join().unwrap();
            assert_eq!(dialer.shown(), Shown::Closed, "shown for ever");
        });
    }
}

/// A connection ends while it becomes the present one.
#[test]
fn loom_client_whose_connection_ends_at_once_shows_it() {
    model(|| {
        let (dialer, usable) = (Dialer::new(), Arc::new(AtomicBool::new(true)));
        let ending = thread::spawn({
            let (dialer, usable) = (Arc::clone(&dialer), Arc::clone(&usable));
            move || {
                usable.store(false, Ordering::Relaxed);
                dialer.connection_ended();
            }
        });
        dialer.dialled(&usable);
        ending.join().unwrap();
        assert_eq!(dialer.shown(), Shown::Disconnected, "shown for ever");
    });
}

/// `abandon`: the word is stored before the frame is published, so whoever has read the frame sees it; and the next call of the slot does not
/// take it for its own.
#[test]
fn loom_cancel_word_is_seen_with_its_frame_and_means_one_call() {
    model(|| {
        let (mut client, mut server) = sides(SleepOn::Futex);
        let word = Arc::new(AtomicU32::new(0));
        let cancelling = thread::spawn({
            let word = Arc::clone(&word);
            move || {
                let cancel = || word.store(1, Ordering::Relaxed);
                kept("cancel-word-first").then(cancel);
                assert!(client.try_send(1));
                (!kept("cancel-word-first")).then(cancel);
            }
        });
        assert_ne!(word.load(Ordering::Relaxed), 2, "another call is cancelled");
        while server.try_receive().is_none() {
            thread::yield_now();
        }
        assert_eq!(word.load(Ordering::Relaxed), 1, "the word is missing");
        assert_ne!(word.load(Ordering::Relaxed), 2, "another call is cancelled");
        cancelling.join().unwrap();
    });
}

/// `take_cancel`, `is_cancelled`: a call was given up and has ended, and the client gives up the next one of the slot. Whoever finds the word of
/// that one finds what is noted of the first.
#[test]
fn loom_call_whose_cancel_word_is_overwritten_stays_cancelled() {
    model(|| {
        let (word, noted) = (Arc::new(AtomicU32::new(1)), Arc::new(AtomicU32::new(0)));
        let (mut client, mut server) = sides(SleepOn::Futex);
        let cancelling = thread::spawn({
            let word = Arc::clone(&word);
            move || {
                if client.try_receive().is_some() {
                    word.store(2, ordering("cancel-release", Ordering::Release));
                }
            }
        });
        let ending = thread::spawn({
            let noted = Arc::clone(&noted);
            move || {
                noted.store(1, Ordering::Release);
                assert!(server.try_send(1));
            }
        });
        let found = word.load(Ordering::Relaxed);
        fence_at("cancel-acquire", Ordering::Acquire);
        let was_noted = noted.load(Ordering::Acquire) == 1;
        assert!(found == 1 || was_noted, "what was noted is missing");
        cancelling.join().unwrap();
        ending.join().unwrap();
    });
}

/// Calls of one slot: the machine's part, the table of tickets, and what has come for the first call.
#[derive(Default)]
struct Slot {
    is_free: bool,
    /// The call whose ticket is found there.
    ticket_of: u32,
    has_reply: bool,
}

/// `continuation` and `take_event` against `write_request`: the last frame of a reply frees the slot, and its ticket is found before another
/// thread starts a call there.
#[test]
fn loom_reply_that_frees_its_slot_finds_its_caller() {
    model(|| {
        let state = Arc::new(Mutex::new(Slot::default()));
        let starting = thread::spawn({
            let state = Arc::clone(&state);
            move || {
                let mut slot = state.lock().unwrap();
                if std::mem::take(&mut slot.is_free) {
                    slot.ticket_of = 1;
                }
            }
        });
        let mut slot = state.lock().unwrap();
        slot.is_free = true;
        if !kept("complete-in-one") {
            drop(slot);
            slot = state.lock().unwrap();
        }
        if slot.ticket_of == 0 {
            slot.has_reply = true;
        }
        drop(slot);
        starting.join().unwrap();
        let slot = state.lock().unwrap();
        assert!(slot.has_reply, "the reply is missing");
    });
}

/// `Connection::read_the_rest` against a driver that leaves, without the state lock (`leave`) or with it (`leave_holding`).
fn peer_goes_while_somebody_drives(leaves: fn(&AtomicBool, &Mutex<bool>) -> bool) {
    model(move || {
        let receive_is_taken = Arc::new(AtomicBool::new(true)); // by the driver
        let gone = Arc::new(Mutex::new(false));
        let driver = thread::spawn({
            let (receive, gone) = (Arc::clone(&receive_is_taken), Arc::clone(&gone));
            move || leaves(&receive, &gone)
        });
        *gone.lock().unwrap() = true;
        let (taken, failed) = (Ordering::Acquire, Ordering::Relaxed);
        let tried = receive_is_taken.compare_exchange(false, true, taken, failed);
        let ended = driver.join().unwrap() || tried.is_ok();
        assert!(ended, "everybody waits for ever for a peer that is gone");
    });
}

#[test]
fn loom_peer_that_goes_while_a_driver_leaves_ends_the_connection() {
    peer_goes_while_somebody_drives(|receive, gone| {
        let release = || receive.store(false, Ordering::Release);
        kept("leave-release-first").then(release);
        let must_end = *gone.lock().unwrap();
        (!kept("leave-release-first")).then(release);
        must_end
    });
}

#[test]
fn loom_peer_that_goes_while_a_driver_leaves_with_the_state_ends_the_connection() {
    peer_goes_while_somebody_drives(|receive, gone| {
        let release = || receive.store(false, Ordering::Release);
        let state = gone.lock().unwrap();
        let must_end = *state;
        kept("leave-inside").then(release);
        drop(state);
        (!kept("leave-inside")).then(release);
        must_end
    });
}

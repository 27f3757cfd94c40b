//! The poller: edges, levels, and being woken.

mod sys_support;

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use doorbell_shm::sys::{
    ControlStream, Doorbell, DoorbellKind, Event, Listener, Mode, Poller, Wait,
};
use sys_support::*;

fn poll(poller: &Poller) -> Vec<Event> {
    let mut events = Vec::new();
    poller.wait(&mut events, Wait::Poll).unwrap();
    events
}

fn readable(token: u64) -> Event {
    Event {
        token,
        readable: true,
        hung_up: false,
    }
}

#[test]
fn each_notify_is_a_new_edge_without_reading() {
    for kind in BOTH_KINDS {
        let poller = Poller::new().unwrap();
        let (listening, ringing) = Doorbell::pair(kind).unwrap();
        poller.add(&listening, 7, Mode::Edge).unwrap();
        assert_eq!(poll(&poller), []);
        for _ in 0..100 {
            ringing.notify().unwrap();
            assert_eq!(poll(&poller), [readable(7)]);
            assert_eq!(poll(&poller), []);
        }
    }
}

#[test]
fn full_doorbell_gives_edges_again_when_it_has_room() {
    for kind in BOTH_KINDS {
        let poller = Poller::new().unwrap();
        let (listening, ringing) = Doorbell::pair(kind).unwrap();
        poller.add(&listening, 7, Mode::Edge).unwrap();
        for _ in 0..10_000 {
            ringing.notify().unwrap();
        }
        assert_eq!(poll(&poller), [readable(7)]);
        for _ in 0..100 {
            assert!(listening.make_room().unwrap());
            assert_eq!(poll(&poller), []);
            ringing.notify().unwrap();
            assert_eq!(poll(&poller), [readable(7)]);
        }
    }
}

#[test]
fn room_is_made_by_taking_little() {
    let (listening, ringing) = Doorbell::pair(DoorbellKind::Socket).unwrap();
    assert!(!listening.make_room().unwrap());
    for _ in 0..100 {
        ringing.notify().unwrap();
    }
    let mut times = 0;
    while listening.make_room().unwrap() {
        times += 1;
    }
    assert!((10..=100).contains(&times), "{times}");
    drop(ringing);
    let error = listening.make_room().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
}

#[test]
fn level_is_reported_until_drained() {
    for kind in BOTH_KINDS {
        let poller = Poller::new().unwrap();
        let (listening, ringing) = Doorbell::pair(kind).unwrap();
        poller.add(&listening, 7, Mode::Level).unwrap();
        ringing.notify().unwrap();
        assert_eq!(poll(&poller), [readable(7)]);
        assert_eq!(poll(&poller), [readable(7)]);
        listening.drain().unwrap();
        assert_eq!(poll(&poller), []);
    }
}

#[test]
fn source_that_is_ready_when_added_is_reported() {
    for kind in BOTH_KINDS {
        for mode in [Mode::Edge, Mode::Level] {
            let poller = Poller::new().unwrap();
            let (listening, ringing) = Doorbell::pair(kind).unwrap();
            ringing.notify().unwrap();
            poller.add(&listening, 7, mode).unwrap();
            assert_eq!(poll(&poller), [readable(7)]);
        }
    }
}

#[test]
fn removed_source_is_silent_and_can_come_back() {
    let poller = Poller::new().unwrap();
    let (listening, ringing) = Doorbell::pair(DoorbellKind::default_kind()).unwrap();
    poller.add(&listening, 7, Mode::Edge).unwrap();
    let twice = poller.add(&listening, 8, Mode::Edge);
    assert_eq!(kind_of(twice), ErrorKind::AlreadyExists);
    poller.remove(&listening).unwrap();
    assert_eq!(kind_of(poller.remove(&listening)), ErrorKind::NotFound);
    ringing.notify().unwrap();
    assert_eq!(poll(&poller), []);
    poller.add(&listening, 8, Mode::Edge).unwrap();
    assert_eq!(poll(&poller), [readable(8)]);
}

#[test]
fn events_replace_what_was_in_the_vector() {
    let poller = Poller::new().unwrap();
    let mut events = vec![readable(1), readable(2)];
    poller.wait(&mut events, Wait::Poll).unwrap();
    assert_eq!(events, []);
}

#[test]
fn more_sources_than_one_wait_returns_are_all_reported() {
    let poller = Poller::new().unwrap();
    let doorbells: Vec<_> = (0..300)
        .map(|_| Doorbell::pair(DoorbellKind::Event).unwrap())
        .collect();
    for (token, (listening, ringing)) in doorbells.iter().enumerate() {
        poller.add(listening, token as u64, Mode::Edge).unwrap();
        ringing.notify().unwrap();
    }
    let mut tokens: Vec<_> = [poll(&poller), poll(&poller)]
        .iter()
        .flatten()
        .map(|event| event.token)
        .collect();
    tokens.sort_unstable();
    assert_eq!(tokens, Vec::from_iter(0..300));
    assert_eq!(poll(&poller), []);
}

#[test]
fn wake_ends_a_wait_of_another_thread() {
    let poller = Poller::new().unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let mut events = Vec::new();
            poller.wait(&mut events, Wait::Forever).unwrap();
            events
        });
        poller.wake().unwrap();
        assert_eq!(waiting.join().unwrap(), []);
    });
}

#[test]
fn wake_is_remembered_once() {
    let poller = Poller::new().unwrap();
    for _ in 0..100 {
        poller.wake().unwrap();
        poller.wake().unwrap();
        let mut events = Vec::new();
        poller.wait(&mut events, Wait::Forever).unwrap();
        assert_eq!(events, []);
    }
    let start = Instant::now();
    let mut events = Vec::new();
    poller
        .wait(&mut events, Wait::Until(start + SHORT))
        .unwrap();
    assert!(start.elapsed() >= SHORT, "an old wake has ended this wait");
}

#[test]
fn deadline_is_kept_to_the_microsecond_and_never_early() {
    let poller = Poller::new().unwrap();
    let mut events = Vec::new();
    let shortest = (0..50)
        .map(|_| {
            let start = Instant::now();
            let deadline = start + Duration::from_micros(100);
            poller.wait(&mut events, Wait::Until(deadline)).unwrap();
            start.elapsed()
        })
        .min()
        .unwrap();
    assert!(shortest >= Duration::from_micros(100));
    assert!(shortest < Duration::from_millis(1), "{shortest:?}");
    poller
        .wait(&mut events, Wait::Until(Instant::now()))
        .unwrap();
}

#[test]
fn token_of_the_poller_is_refused() {
    let poller = Poller::new().unwrap();
    let (listening, _ringing) = Doorbell::pair(DoorbellKind::Event).unwrap();
    let added = poller.add(&listening, u64::MAX, Mode::Edge);
    assert_eq!(kind_of(added), ErrorKind::InvalidInput);
    poller.add(&listening, u64::MAX - 1, Mode::Edge).unwrap();
}

#[test]
fn listener_with_a_client_is_readable() {
    let directory = tempfile::tempdir().unwrap();
    let listener = Listener::bind(&directory.path().join("socket")).unwrap();
    let poller = Poller::new().unwrap();
    poller.add(&listener, 3, Mode::Level).unwrap();
    assert_eq!(poll(&poller), []);
    let _client = ControlStream::connect(listener.path(), in_time()).unwrap();
    assert_eq!(poll(&poller), [readable(3)]);
    listener.accept().unwrap().unwrap();
    assert_eq!(poll(&poller), []);
}

#[test]
fn hang_up_is_told_from_bytes() {
    let poller = Poller::new().unwrap();
    let (one, other) = ControlStream::pair().unwrap();
    poller.add(&one, 4, Mode::Edge).unwrap();
    say(&other, b'x');
    assert_eq!(poll(&poller), [readable(4)]);
    drop(other);
    let hung_up = Event {
        hung_up: true,
        ..readable(4)
    };
    assert_eq!(poll(&poller), [hung_up]);
}

#[test]
fn ringer_that_is_gone_hangs_up() {
    let poller = Poller::new().unwrap();
    let (listening, ringing) = Doorbell::pair(DoorbellKind::Socket).unwrap();
    poller.add(&listening, 5, Mode::Edge).unwrap();
    drop(ringing);
    let hung_up = Event {
        hung_up: true,
        ..readable(5)
    };
    assert_eq!(poll(&poller), [hung_up]);
}

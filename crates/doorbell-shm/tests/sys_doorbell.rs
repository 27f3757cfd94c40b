//! Doorbells of both kinds.

mod sys_support;

use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};

use doorbell_shm::sys::{Doorbell, DoorbellKind, Woken};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::OFlags;
use sys_support::*;

#[test]
fn child_process() {
    let Some((role, stream)) = role() else { return };
    let (task, kind) = role.split_once(' ').unwrap();
    let kind = BOTH_KINDS
        .into_iter()
        .find(|known| format!("{known:?}") == kind)
        .unwrap();
    let doorbell = take_over_doorbell(&stream, kind);
    match task {
        "ring" => doorbell.notify().unwrap(),
        "listen" => {
            say(&stream, b'l');
            assert_eq!(doorbell.wait(in_time()).unwrap(), Woken::Notified);
        }
        _ => panic!("no role {role}"),
    }
    say(&stream, b'd');
    hear(&stream, b'e');
}

#[test]
fn notify_from_another_process_wakes() {
    for kind in BOTH_KINDS {
        let (listening, ringing) = Doorbell::pair(kind).unwrap();
        let peer = Peer::spawn(&format!("ring {kind:?}"));
        hand_over(&peer.stream, &ringing);
        assert_eq!(listening.wait(in_time()).unwrap(), Woken::Notified);
        hear(&peer.stream, b'd');
        assert_eq!(listening.wait(shortly()).unwrap(), Woken::Deadline);
        say(&peer.stream, b'e');
        peer.finish();
    }
}

#[test]
fn notify_wakes_another_process() {
    for kind in BOTH_KINDS {
        let (listening, ringing) = Doorbell::pair(kind).unwrap();
        let peer = Peer::spawn(&format!("listen {kind:?}"));
        hand_over(&peer.stream, &listening);
        hear(&peer.stream, b'l');
        ringing.notify().unwrap();
        hear(&peer.stream, b'd');
        say(&peer.stream, b'e');
        peer.finish();
    }
}

#[test]
fn notify_with_nobody_waiting_is_remembered_once() {
    for kind in BOTH_KINDS {
        let (listening, ringing) = Doorbell::pair(kind).unwrap();
        for _ in 0..3 {
            ringing.notify().unwrap();
        }
        assert_eq!(listening.wait(in_time()).unwrap(), Woken::Notified);
        assert_eq!(listening.wait(shortly()).unwrap(), Woken::Deadline);
    }
}

#[test]
fn drained_doorbell_does_not_wake() {
    for kind in BOTH_KINDS {
        let (listening, ringing) = Doorbell::pair(kind).unwrap();
        listening.drain().unwrap();
        ringing.notify().unwrap();
        listening.drain().unwrap();
        assert_eq!(listening.wait(shortly()).unwrap(), Woken::Deadline);
    }
}

#[test]
fn notify_of_a_full_doorbell_returns_and_wakes() {
    for kind in BOTH_KINDS {
        let (listening, ringing) = Doorbell::pair(kind).unwrap();
        if kind == DoorbellKind::Event {
            // The largest value that the counter takes.
            rustix::io::write(&ringing, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        }
        for _ in 0..10_000 {
            ringing.notify().unwrap();
        }
        assert_eq!(listening.wait(in_time()).unwrap(), Woken::Notified);
        assert_eq!(listening.wait(shortly()).unwrap(), Woken::Deadline);
    }
}

#[test]
fn calls_do_not_block_although_the_peer_has_cleared_the_flag() {
    for kind in BOTH_KINDS {
        let (listening, ringing) = Doorbell::pair(kind).unwrap();
        for end in [&listening, &ringing] {
            let flags = rustix::fs::fcntl_getfl(end).unwrap();
            rustix::fs::fcntl_setfl(end, flags - OFlags::NONBLOCK).unwrap();
        }
        listening.drain().unwrap();
        let notifies = match kind {
            DoorbellKind::Event => 10, // a full counter blocks: the reason for the other kind
            DoorbellKind::Socket => 10_000,
        };
        for _ in 0..notifies {
            ringing.notify().unwrap();
        }
        listening.drain().unwrap();
        assert_eq!(listening.wait(shortly()).unwrap(), Woken::Deadline);
    }
}

#[test]
fn socket_tells_the_listener_that_the_ringer_is_gone() {
    let (listening, ringing) = Doorbell::pair(DoorbellKind::Socket).unwrap();
    ringing.notify().unwrap();
    drop(ringing);
    assert_eq!(listening.wait(in_time()).unwrap(), Woken::Notified);
    assert_eq!(kind_of(listening.wait(in_time())), ErrorKind::UnexpectedEof);
    assert_eq!(kind_of(listening.drain()), ErrorKind::UnexpectedEof);
}

#[test]
fn socket_tells_the_ringer_that_the_listener_is_gone() {
    let (listening, ringing) = Doorbell::pair(DoorbellKind::Socket).unwrap();
    drop(listening);
    assert_eq!(kind_of(ringing.notify()), ErrorKind::BrokenPipe);
}

#[test]
fn ringer_that_sends_without_end_does_not_hold_up_the_listener() {
    let (listening, ringing) = Doorbell::pair(DoorbellKind::Socket).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = rustix::io::write(&ringing, &[1; 4096]);
            }
        });
        for _ in 0..100 {
            listening.drain().unwrap();
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn handle_of_another_object_is_refused() {
    let event = || eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).unwrap();
    let socket = || {
        Doorbell::pair(DoorbellKind::Socket)
            .unwrap()
            .0
            .into_handle()
    };
    let blocking_event = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    let pipe = OwnedFd::from(std::io::pipe().unwrap().0);
    let null = OwnedFd::from(File::open("/dev/null").unwrap());
    let poller = rustix::event::epoll::create(rustix::event::epoll::CreateFlags::CLOEXEC).unwrap();
    let datagram = OwnedFd::from(std::os::unix::net::UnixDatagram::unbound().unwrap());
    let internet = OwnedFd::from(std::net::TcpListener::bind("127.0.0.1:0").unwrap());

    for fd in [socket(), pipe, null, poller, blocking_event] {
        let taken = Doorbell::from_handle(fd, DoorbellKind::Event);
        assert_eq!(kind_of(taken), ErrorKind::InvalidData);
    }
    for fd in [event(), datagram, internet] {
        let taken = Doorbell::from_handle(fd, DoorbellKind::Socket);
        assert_eq!(kind_of(taken), ErrorKind::InvalidData);
    }
    Doorbell::from_handle(event(), DoorbellKind::Event).unwrap();
    Doorbell::from_handle(socket(), DoorbellKind::Socket).unwrap();
}

#[test]
fn ends_are_closed_on_exec() {
    for kind in BOTH_KINDS {
        let (listening, ringing) = Doorbell::pair(kind).unwrap();
        for end in [listening, ringing] {
            let flags = rustix::io::fcntl_getfd(end.as_fd()).unwrap();
            assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        }
    }
}

#[test]
fn kind_is_that_of_the_build() {
    let expected = if cfg!(doorbell_socket_bell) {
        DoorbellKind::Socket
    } else {
        DoorbellKind::Event
    };
    assert_eq!(DoorbellKind::default_kind(), expected);
}

//! The peer's death, seen twice: by its process and by its end of the control stream.

mod sys_support;

use std::process::{Command, Stdio};

use doorbell_shm::sys::{ControlStream, Event, Mode, Poller, Wait, Woken};
use rustix::io::FdFlags;
use rustix::process::{Pid, Signal, kill_process};
use sys_support::*;

#[test]
fn child_process() {
    let Some((role, stream)) = role() else { return };
    match role.as_str() {
        "wait" => say(&stream, b'd'),
        "leave the stream to a child" => leave_to_child(&stream),
        _ => panic!("no role {role}"),
    }
    let _ = stream.wait_readable(in_time());
}

/// Starts a program that keeps our end of the stream open, and tells its number.
fn leave_to_child(stream: &ControlStream) {
    rustix::io::fcntl_setfd(stream, FdFlags::empty()).unwrap();
    let mut child = Command::new("sleep")
        .arg(LIMIT.as_secs().to_string())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    stream.send(&child.id().to_le_bytes()).unwrap();
    let _ = stream.wait_readable(in_time());
    let _ = child.kill();
    let _ = child.wait();
}

#[test]
fn killed_peer_is_seen_by_process_and_stream() {
    let mut peer = Peer::spawn("wait");
    hear(&peer.stream, b'd');
    let process = peer.stream.peer_process().unwrap();
    assert!(!process.has_exited().unwrap());
    assert!(!peer.stream.is_hung_up().unwrap());
    assert_eq!(process.wait(shortly()).unwrap(), Woken::Deadline);

    peer.child.kill().unwrap();
    wait_for_exit(&process);
    assert!(process.has_exited().unwrap()); // nobody has waited for it yet
    assert_eq!(
        peer.stream.wait_readable(in_time()).unwrap(),
        Woken::Notified
    );
    assert_eq!(peer.stream.receive(&mut [0; 8]).unwrap(), 0);
    assert!(peer.stream.is_hung_up().unwrap());

    peer.child.wait().unwrap();
    assert!(process.has_exited().unwrap());
}

#[test]
fn killed_peer_is_seen_by_the_poller() {
    for mode in [Mode::Edge, Mode::Level] {
        let mut peer = Peer::spawn("wait");
        hear(&peer.stream, b'd');
        let process = peer.stream.peer_process().unwrap();
        let poller = Poller::new().unwrap();
        poller.add(&process, 1, mode).unwrap();
        poller.add(&peer.stream, 2, mode).unwrap();
        let mut events = Vec::new();
        poller.wait(&mut events, Wait::Poll).unwrap();
        assert_eq!(events, []);
        peer.kill();
        let mut seen = Vec::new();
        until(|| {
            poller
                .wait(&mut events, Wait::Until(in_time().unwrap()))
                .unwrap();
            seen.append(&mut events);
            let has_seen = |token| seen.iter().any(|event: &Event| event.token == token);
            has_seen(1) && has_seen(2)
        });
        assert!(seen.iter().all(|event| event.readable));
        assert!(seen.iter().any(|event| event.token == 2 && event.hung_up));
    }
}

#[test]
fn death_is_seen_although_a_child_keeps_the_stream() {
    let mut peer = Peer::spawn("leave the stream to a child");
    let mut number = [0; 4];
    assert_eq!(
        peer.stream.wait_readable(in_time()).unwrap(),
        Woken::Notified
    );
    assert_eq!(peer.stream.receive(&mut number).unwrap(), 4);
    let process = peer.stream.peer_process().unwrap();
    peer.kill();
    wait_for_exit(&process);
    assert!(!peer.stream.is_hung_up().unwrap());

    let heir = Pid::from_raw(i32::from_le_bytes(number)).unwrap();
    kill_process(heir, Signal::KILL).unwrap();
    assert_eq!(
        peer.stream.wait_readable(in_time()).unwrap(),
        Woken::Notified
    );
    assert!(peer.stream.is_hung_up().unwrap());
}

#[test]
fn peer_in_this_process_lives() {
    let (one, _other) = ControlStream::pair().unwrap();
    assert_eq!(one.peer().unwrap().pid, std::process::id());
    assert!(!one.peer_process().unwrap().has_exited().unwrap());
}

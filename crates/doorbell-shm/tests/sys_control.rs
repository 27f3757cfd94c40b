//! The control stream: bytes, handles, identity, and how a connection comes to be.

mod sys_support;

use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use doorbell_shm::sys::{ControlStream, Listener, Woken};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sys_support::*;

#[test]
fn child_process() {
    let Some((role, stream)) = role() else { return };
    match role.as_str() {
        "receive four" => {
            let mut bytes = [0; 16];
            assert_eq!(stream.wait_readable(in_time()).unwrap(), Woken::Notified);
            let (length, handles) = stream.receive_with_handles(&mut bytes, 4).unwrap();
            assert_eq!(&bytes[..length], b"four");
            assert_eq!(handles.len(), 4);
            for handle in &handles {
                assert_closed_on_exec(handle);
            }
            assert_eq!(
                std::io::read_to_string(File::from(last(handles))).unwrap(),
                "fourth"
            );
        }
        "refuse" => assert_refused(&stream, |bytes| {
            stream.receive(bytes).map(|length| (length, Vec::new()))
        }),
        "one too many" => assert_refused(&stream, |bytes| stream.receive_with_handles(bytes, 1)),
        "none expected" => assert_refused(&stream, |bytes| stream.receive_with_handles(bytes, 0)),
        "no descriptor left" => {
            let open = open_descriptors();
            let before = getrlimit(Resource::Nofile);
            // The descriptor that reads the directory was counted, so this leaves room for exactly one.
            lower_descriptor_limit(open as u64);
            assert_eq!(stream.wait_readable(in_time()).unwrap(), Woken::Notified);
            let received = stream.receive_with_handles(&mut [0; 16], 4);
            let error = received.map(drop).unwrap_err();
            assert_eq!(
                error.raw_os_error(),
                Some(rustix::io::Errno::MFILE.raw_os_error())
            );
            setrlimit(Resource::Nofile, before).unwrap();
            assert_eq!(open_descriptors(), open);
        }
        "idle" => {}
        _ => panic!("no role {role}"),
    }
    say(&stream, b'd');
    hear(&stream, b'e');
}

fn last(handles: Vec<OwnedFd>) -> OwnedFd {
    handles.into_iter().next_back().unwrap()
}

fn lower_descriptor_limit(count: u64) {
    let limit = Rlimit {
        current: Some(count),
        ..getrlimit(Resource::Nofile)
    };
    setrlimit(Resource::Nofile, limit).unwrap();
}

/// Runs in a process of one test, where nobody else opens descriptors.
fn assert_refused(
    stream: &ControlStream,
    receive: impl Fn(&mut [u8]) -> std::io::Result<(usize, Vec<OwnedFd>)>,
) {
    let before = open_descriptors();
    assert_eq!(stream.wait_readable(in_time()).unwrap(), Woken::Notified);
    assert_eq!(kind_of(receive(&mut [0; 16])), ErrorKind::InvalidData);
    assert_eq!(open_descriptors(), before);
}

fn assert_closed_on_exec(fd: &impl AsFd) {
    let flags = rustix::io::fcntl_getfd(fd).unwrap();
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
}

fn send_to_role(role: &str, count: usize) {
    let peer = Peer::spawn(role);
    let file = null();
    let handles = vec![file.as_fd(); count];
    peer.stream.send_with_handles(b"four", &handles).unwrap();
    hear(&peer.stream, b'd');
    say(&peer.stream, b'e');
    peer.finish();
}

fn null() -> OwnedFd {
    File::open("/dev/null").unwrap().into()
}

#[test]
fn four_handles_arrive_in_one_message_and_in_order() {
    let peer = Peer::spawn("receive four");
    let (reader, mut writer) = std::io::pipe().unwrap();
    std::io::Write::write_all(&mut writer, b"fourth").unwrap();
    drop(writer);
    let file = null();
    let handles = [file.as_fd(), file.as_fd(), file.as_fd(), reader.as_fd()];
    assert_eq!(peer.stream.send_with_handles(b"four", &handles).unwrap(), 4);
    hear(&peer.stream, b'd');
    say(&peer.stream, b'e');
    peer.finish();
}

#[test]
fn handles_where_none_belong_are_refused_and_closed() {
    send_to_role("refuse", 1);
    send_to_role("refuse", 253);
    send_to_role("none expected", 1);
}

#[test]
fn handle_that_fits_into_the_padding_is_refused_and_closed() {
    send_to_role("one too many", 2);
}

#[test]
fn truncated_handles_are_refused_and_closed() {
    send_to_role("one too many", 3);
    send_to_role("one too many", 253);
}

#[test]
fn handles_lost_at_the_descriptor_limit_are_an_error() {
    send_to_role("no descriptor left", 4);
}

#[test]
fn listening_side_takes_no_handles() {
    let peer = Peer::spawn("idle"); // `stream` is the accepted end
    hear(&peer.stream, b'd');
    let (accepted, connected) = accepted_pair();
    match connected.send_with_handles(b"x", &[null().as_fd()]) {
        // Linux 6.16 and newer turn them away at the sender.
        Err(error) => assert_eq!(error.kind(), ErrorKind::PermissionDenied),
        Ok(_) => {
            assert!(!turns_handles_away(), "the kernel was not asked to");
            assert_eq!(
                kind_of(accepted.receive(&mut [0; 8])),
                ErrorKind::InvalidData
            );
        }
    }
    say(&peer.stream, b'e');
    peer.finish();
}

/// Whether the kernel is Linux 6.16 or newer.
fn turns_handles_away() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split('.').map(|part| part.parse().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(6), Some(16))
}

fn accepted_pair() -> (ControlStream, ControlStream) {
    let directory = tempfile::tempdir().unwrap();
    let listener = Listener::bind(&directory.path().join("socket")).unwrap();
    let connected = ControlStream::connect(listener.path(), in_time()).unwrap();
    let accepted = accept(&listener).unwrap();
    (accepted, connected)
}

#[test]
fn message_without_bytes_or_with_too_many_handles_is_not_sent() {
    let (one, other) = ControlStream::pair().unwrap();
    let file = null();
    let empty = one.send_with_handles(b"", &[file.as_fd()]);
    assert_eq!(kind_of(empty), ErrorKind::InvalidInput);
    let many = one.send_with_handles(b"x", &vec![file.as_fd(); 254]);
    assert_eq!(kind_of(many), ErrorKind::InvalidInput);
    assert_eq!(kind_of(other.receive(&mut [0; 8])), ErrorKind::WouldBlock);
}

#[test]
fn streams_are_closed_on_exec_and_do_not_block() {
    let (one, other) = ControlStream::pair().unwrap();
    let (accepted, connected) = accepted_pair();
    for stream in [one, other, accepted, connected] {
        assert_closed_on_exec(&stream);
        let flags = rustix::fs::fcntl_getfl(&stream).unwrap();
        assert!(flags.contains(rustix::fs::OFlags::NONBLOCK));
    }
}

#[test]
fn full_stream_does_not_block_and_becomes_writable_again() {
    let (one, other) = ControlStream::pair().unwrap();
    let chunk = [7; 65536];
    let mut sent = 0;
    let full = loop {
        match one.send(&chunk) {
            Ok(length) => sent += length,
            Err(error) => break error,
        }
    };
    assert_eq!(full.kind(), ErrorKind::WouldBlock);
    assert_eq!(one.wait_writable(shortly()).unwrap(), Woken::Deadline);
    let mut received = 0;
    while received < sent {
        received += other.receive(&mut [0; 65536]).unwrap();
    }
    assert_eq!(one.wait_writable(in_time()).unwrap(), Woken::Notified);
}

#[test]
fn silent_stream_would_block() {
    let (one, _other) = ControlStream::pair().unwrap();
    assert_eq!(kind_of(one.receive(&mut [0; 8])), ErrorKind::WouldBlock);
    let with_handles = one.receive_with_handles(&mut [0; 8], 4);
    assert_eq!(kind_of(with_handles), ErrorKind::WouldBlock);
    assert_eq!(one.wait_readable(shortly()).unwrap(), Woken::Deadline);
    assert!(!one.is_hung_up().unwrap());
}

#[test]
fn end_is_seen_behind_unread_bytes() {
    let (one, other) = ControlStream::pair().unwrap();
    say(&other, b'x');
    assert!(!one.is_hung_up().unwrap());
    drop(other);
    assert!(one.is_hung_up().unwrap());
    hear(&one, b'x');
    assert_eq!(one.receive(&mut [0; 8]).unwrap(), 0);
    assert_eq!(kind_of(one.send(b"x")), ErrorKind::BrokenPipe);
}

#[test]
fn peer_that_leaves_bytes_unread_resets_the_stream() {
    let (one, other) = ControlStream::pair().unwrap();
    say(&one, b'x');
    drop(other);
    assert_eq!(
        kind_of(one.receive(&mut [0; 8])),
        ErrorKind::ConnectionReset
    );
}

#[test]
fn connect_tells_why_nobody_answers() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let connect = |path: &Path| kind_of(ControlStream::connect(path, in_time()));
    assert_eq!(connect(&path), ErrorKind::NotFound);
    std::fs::write(&path, "").unwrap();
    assert_eq!(connect(&path), ErrorKind::ConnectionRefused);
    std::fs::remove_file(&path).unwrap();
    drop(raw_listener(&path, 1));
    assert_eq!(connect(&path), ErrorKind::ConnectionRefused);
    assert_eq!(connect(Path::new("")), ErrorKind::InvalidInput);
    assert_eq!(
        connect(Path::new(&"x".repeat(108))),
        ErrorKind::InvalidInput
    );
}

#[test]
fn longest_path_is_taken() {
    let directory = tempfile::tempdir().unwrap();
    let room = 107 - directory.path().as_os_str().as_bytes().len() - 1;
    let path = directory.path().join("x".repeat(room));
    let listener = Listener::bind(&path).unwrap();
    ControlStream::connect(&path, in_time()).unwrap();
    assert_eq!(listener.path(), path);
}

/// A listener whose backlog is full after `backlog` + 1 connections.
fn raw_listener(path: &Path, backlog: i32) -> OwnedFd {
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
    rustix::net::listen(&socket, backlog).unwrap();
    socket
}

#[test]
fn connect_to_a_full_backlog_gives_up_at_the_deadline() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let _listener = raw_listener(&path, 0);
    let _first = ControlStream::connect(&path, in_time()).unwrap();
    let start = Instant::now();
    let second = ControlStream::connect(&path, Some(start + Duration::from_millis(50)));
    assert_eq!(kind_of(second), ErrorKind::TimedOut);
    assert!(start.elapsed() >= Duration::from_millis(50));
    let late = ControlStream::connect(&path, Some(start));
    assert_eq!(kind_of(late), ErrorKind::TimedOut);
}

#[test]
fn connect_to_a_full_backlog_succeeds_when_the_server_accepts() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener = raw_listener(&path, 0);
    let _first = ControlStream::connect(&path, in_time()).unwrap();
    std::thread::scope(|scope| {
        let second = scope.spawn(|| ControlStream::connect(&path, in_time()));
        let _accepted = rustix::net::accept(&listener).unwrap();
        second.join().unwrap().unwrap();
    });
}

#[test]
fn peer_is_known_by_process_user_and_program() {
    let peer = Peer::spawn("idle");
    let identity = peer.stream.peer().unwrap();
    assert_eq!(identity.pid, peer.child.id());
    assert_eq!(identity.uid, rustix::process::geteuid().as_raw());
    assert_eq!(identity.gid, rustix::process::getegid().as_raw());
    assert!(identity.is_same_user());
    let program = std::env::current_exe().unwrap().canonicalize().unwrap();
    assert_eq!(identity.executable(), Some(program));
    hear(&peer.stream, b'd');
    say(&peer.stream, b'e');
    peer.finish();
}

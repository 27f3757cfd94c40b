//! Two real processes for the tests of `sys`: a test runs its own program again as its peer.

#![allow(dead_code, unreachable_pub)] // each test program includes this, and uses a part

use std::env;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use doorbell_shm::sys::{
    ControlStream, Doorbell, DoorbellKind, Listener, Mapping, Mode, OwnedHandle, Poller,
    ProcessHandle, RegionHandle, Wait, Woken, create_region, seal_size,
};

/// No test waits longer than this for anything.
pub const LIMIT: Duration = Duration::from_secs(20);

/// For waits that are to end at their deadline.
pub const SHORT: Duration = Duration::from_millis(30);

pub const BOTH_KINDS: [DoorbellKind; 2] = [DoorbellKind::Event, DoorbellKind::Socket];

pub fn in_time() -> Option<Instant> {
    Some(Instant::now() + LIMIT)
}

pub fn shortly() -> Option<Instant> {
    Some(Instant::now() + SHORT)
}

/// Tries until `done` says so, without sleeping.
pub fn until(mut done: impl FnMut() -> bool) {
    let limit = Instant::now() + LIMIT;
    while !done() {
        assert!(Instant::now() < limit, "not done within {LIMIT:?}");
        std::thread::yield_now();
    }
}

/// The test program again, in the named role, and a stream to it. Killed when dropped.
pub struct Peer {
    pub stream: ControlStream,
    pub child: std::process::Child,
    _directory: tempfile::TempDir,
}

impl Peer {
    pub fn spawn(role: &str) -> Self {
        Self::spawn_with(role, |_| {})
    }

    pub fn spawn_with(role: &str, configure: impl FnOnce(&mut Command)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = Listener::bind(&directory.path().join("socket")).unwrap();
        let mut command = Command::new(env::current_exe().unwrap());
        command
            .args(["--exact", "child_process", "--nocapture"])
            .env(ROLE, role)
            .env(SOCKET, listener.path())
            .stdout(Stdio::null());
        configure(&mut command);
        let mut child = command.spawn().unwrap();
        let Some(stream) = accept(&listener) else {
            let _ = child.kill();
            panic!("the peer does not connect: {:?}", child.wait());
        };
        Self {
            stream,
            child,
            _directory: directory,
        }
    }

    /// Waits for the peer to end of its own accord, and insists that it was content.
    pub fn finish(mut self) {
        let process = self.stream.peer_process().unwrap();
        assert_eq!(process.wait(in_time()).unwrap(), Woken::Notified);
        let status = self.child.wait().unwrap();
        assert!(status.success(), "the peer has failed: {status}");
    }

    pub fn kill(&mut self) -> ExitStatus {
        self.child.kill().unwrap();
        self.child.wait().unwrap()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Accepts one connection within the limit.
pub fn accept(listener: &Listener) -> Option<ControlStream> {
    let poller = Poller::new().unwrap();
    poller.add(listener, 0, Mode::Level).unwrap();
    let mut events = Vec::new();
    let limit = Instant::now() + LIMIT;
    poller.wait(&mut events, Wait::Until(limit)).unwrap();
    listener.accept().unwrap()
}

/// In the peer: its role and its stream. `None` in the test itself.
pub fn role() -> Option<(String, ControlStream)> {
    let role = env::var(ROLE).ok()?;
    let path = PathBuf::from(env::var_os(SOCKET).unwrap());
    let stream = ControlStream::connect(&path, in_time()).unwrap();
    Some((role, stream))
}

pub fn say(stream: &ControlStream, byte: u8) {
    assert_eq!(stream.send(&[byte]).unwrap(), 1);
}

pub fn hear(stream: &ControlStream, byte: u8) {
    let mut heard = [0];
    assert_eq!(stream.wait_readable(in_time()).unwrap(), Woken::Notified);
    assert_eq!(stream.receive(&mut heard).unwrap(), 1, "peer has gone");
    assert_eq!(heard, [byte]);
}

pub fn hand_over<T: AsFd>(stream: &ControlStream, handle: &T) {
    let sent = stream.send_with_handles(b"h", &[handle.as_fd()]).unwrap();
    assert_eq!(sent, 1);
}

pub fn take_over(stream: &ControlStream) -> OwnedHandle {
    let mut byte = [0];
    assert_eq!(stream.wait_readable(in_time()).unwrap(), Woken::Notified);
    let (length, mut handles) = stream.receive_with_handles(&mut byte, 1).unwrap();
    assert_eq!((length, byte, handles.len()), (1, *b"h", 1));
    handles.remove(0)
}

pub fn take_over_region(stream: &ControlStream) -> RegionHandle {
    RegionHandle::from_handle(take_over(stream))
}

pub fn take_over_doorbell(stream: &ControlStream, kind: DoorbellKind) -> Doorbell {
    Doorbell::from_handle(take_over(stream), kind).unwrap()
}

pub fn sized_region(bytes: usize) -> RegionHandle {
    let region = create_region(bytes).unwrap();
    seal_size(&region).unwrap();
    region
}

/// The 32-bit word at `offset`.
pub fn word(mapping: &Mapping, offset: usize) -> &AtomicU32 {
    assert!(offset.is_multiple_of(4) && offset + 4 <= mapping.len());
    // SAFETY: The word lies inside the mapping.
    let word = unsafe { mapping.as_ptr().add(offset) }.cast::<AtomicU32>();
    // SAFETY: It is mapped as long as `mapping` lives and aligned, because mappings begin on a page. All of these
    // tests access it as an atomic word of this size.
    unsafe { word.as_ref() }
}

pub fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

pub fn kind_of<T>(result: io::Result<T>) -> io::ErrorKind {
    match result {
        Ok(_) => panic!("expected an error"),
        Err(error) => error.kind(),
    }
}

pub fn wait_for_exit(process: &ProcessHandle) {
    assert_eq!(process.wait(in_time()).unwrap(), Woken::Notified);
}

const ROLE: &str = "DOORBELL_TEST_ROLE";
const SOCKET: &str = "DOORBELL_TEST_SOCKET";

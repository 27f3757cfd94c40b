//! Every system call of `sys`, failing with every error that it could have: the outcome is success or an error that says what
//! failed, and nothing is left behind. Needs `--cfg doorbell_faults`; see `ci/crash.sh`.
//!
//! Faults hold for a whole process, so the deeds run one after the other in a process of their own.
#![cfg(doorbell_faults)]

use std::any::Any;
use std::collections::BTreeMap;
use std::error::Error;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use doorbell_shm::sys::faults::{self, Call, Fault};
use doorbell_shm::sys::{
    self, ControlStream, Doorbell, DoorbellKind, Listener, Mode, Poller, SocketAccess, Wait,
};
use doorbell_shm::{Layout, adopt, create};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What the kernel may say to a call, whether or not today's kernel says it to this one.
const ERRORS: [Errno; 8] = [
    Errno::INTR,
    Errno::AGAIN,
    Errno::MFILE,
    Errno::NFILE,
    Errno::NOMEM,
    Errno::NOSPC,
    Errno::PERM,
    Errno::CONNRESET,
];

type Outcome = Result<Box<dyn Any>, Box<dyn Error>>;

/// Something that a program does with `sys`. What comes before the closure, and the end of what it returns, is not disturbed.
struct Deed {
    name: &'static str,
    prepare: fn(&Path) -> Box<dyn FnOnce() -> Outcome>,
    /// Calls that may fail without harm: what they are for can be done without.
    harmless: &'static [Call],
    /// Calls that fail in any case, as they do with an older kernel.
    always: &'static [(Call, Errno)],
    /// The only call to disturb, and only the first time: its answer is remembered for ever.
    once: Option<Call>,
}

const DEEDS: &[Deed] = &[
    Deed {
        once: Some(Call::SchedGetaffinity),
        ..deed("count the processors", pin_thread, &[])
    },
    deed("pin a thread", pin_thread, &[]),
    deed("listen", listen, &[Call::Setsockopt, Call::Flock]),
    deed("stop listening", stop_listening, NAME_STAYS),
    deed("talk", talk, &[]),
    deed("know the peer", know_the_peer, &[Call::Readlink]),
    Deed {
        always: &[(Call::Getsockopt, Errno::NOPROTOOPT)],
        ..deed("know the peer's process", know_the_process, &[])
    },
    deed("make and take memory", share_memory, &[]),
    Deed {
        always: &[(Call::MemfdCreate, Errno::INVAL)],
        ..deed("make memory as before Linux 6.3", share_memory, &[])
    },
    deed("ring a counter", ring_a_counter, &[Call::Readlink]),
    deed("ring a socket", ring_a_socket, &[Call::Setsockopt]),
    deed("wait for many", wait_for_many, &[]),
    deed("sleep on a word", sleep_on_a_word, &[]),
    deed("find the directory", find_directory, &[]),
    deed("raise the limit", raise_limit, &[]),
];

/// A name that cannot be removed is replaced by the next server.
const NAME_STAYS: &[Call] = &[Call::Openat, Call::Flock, Call::Lstat, Call::Unlink];

const fn deed(
    name: &'static str,
    prepare: fn(&Path) -> Box<dyn FnOnce() -> Outcome>,
    harmless: &'static [Call],
) -> Deed {
    Deed {
        name,
        prepare,
        harmless,
        always: &[],
        once: None,
    }
}

#[test]
fn every_system_call_fails_with_every_error_and_says_so() {
    let (place, names) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["all_deeds", "--exact", "--ignored", "--nocapture"])
        .env("DOORBELL_RUNTIME_DIR", names.path().join("run"))
        .env(PLACE, place.path())
        .status();
    assert!(status.unwrap().success());
}

#[test]
#[ignore = "the body of the process of its own"]
fn all_deeds() {
    let Some(place) = std::env::var_os(PLACE).map(PathBuf::from) else {
        return;
    };
    let mut reached = BTreeMap::new();
    for deed in DEEDS {
        for errno in ERRORS.into_iter().rev() {
            // The last of them is the signal, after which the call succeeds.
            disturb(deed, errno, &place, &mut reached);
        }
    }
    let never = |call: &&Call| !reached.contains_key(&format!("{call:?}"));
    let never: Vec<_> = Call::ALL.iter().filter(never).collect();
    assert!(never.is_empty(), "these calls were never made: {never:?}");
    println!("{} faults: {reached:?}", reached.values().sum::<u64>());
}

/// Makes each call of the deed fail, at each time that it is made.
fn disturb(deed: &Deed, errno: Errno, place: &Path, reached: &mut BTreeMap<String, u64>) {
    let calls = Call::ALL.iter().copied();
    for call in calls.filter(|call| deed.once.is_none_or(|once| once == *call)) {
        let times = if deed.once.is_some() { 1 } else { u64::MAX };
        for hit in 1..=times {
            if !disturb_once(deed, call, errno, hit, place) {
                break;
            }
            *reached.entry(format!("{call:?}")).or_default() += 1;
        }
    }
}

/// Returns `false` if the call is not made as often as that.
fn disturb_once(deed: &Deed, call: Call, errno: Errno, hit: u64, place: &Path) -> bool {
    let what = format!("{}: {call:?} number {hit} with {errno:?}", deed.name);
    let always = deed.always.iter().map(|&(call, errno)| (call, errno, 1));
    let faults: Vec<_> = always
        .filter(|always| (always.0, always.2) != (call, hit))
        .chain([(call, errno, hit)])
        .map(|(call, errno, hit)| Fault {
            call,
            errno: errno.raw_os_error(),
            hit,
        })
        .collect();
    let run = (deed.prepare)(place);
    let begun = Instant::now();
    faults::arm(&faults);
    let outcome = run();
    let report = faults::disarm();
    assert!(begun.elapsed() < PATIENCE, "{what}: {:?}", begun.elapsed());
    let happened = report.fired == faults.len();
    match outcome {
        Err(error) if happened => {
            assert!(errno != Errno::INTR, "{what}: {error}");
            assert!(says(error.as_ref(), errno), "{what}: {error:?}");
        }
        Err(error) => panic!("{what} did not happen: {error:?}"),
        Ok(kept) => {
            drop(kept);
            let allowed = matches!(errno, Errno::INTR | Errno::AGAIN);
            let harmless = deed.harmless.contains(&call);
            assert!(!happened || allowed || harmless, "{what}: unnoticed");
        }
    }
    remove_name(place, deed, &what);
    let mut now = held(place);
    let first = HELD.with(|first| *first.get_or_init(|| now));
    // A thread that has been joined is in the list for a moment longer.
    while now != first && begun.elapsed() < PATIENCE {
        now = held(place);
    }
    assert_eq!(now, first, "{what}");
    happened
}

/// What a dead server has left may be there still; of ours, which has another mode, only what could not be removed.
fn remove_name(place: &Path, deed: &Deed, what: &str) {
    let Ok(found) = std::fs::metadata(socket(place)) else {
        return;
    };
    let ours = found.permissions().mode() & 0o111 == 0;
    // Who cannot look at a name does not know whose it is by then.
    let may_stay = deed.harmless == NAME_STAYS || what.contains("Lstat");
    assert!(!ours || may_stay, "{what}: its name is left");
    std::fs::remove_file(socket(place)).unwrap();
}

/// Does the error, or what has caused it, give the number? A full queue of a server is a matter of time and no error of the system's.
fn says(error: &(dyn Error + 'static), errno: Errno) -> bool {
    let number = format!("(os error {})", errno.raw_os_error());
    let mut causes = std::iter::successors(Some(error), |error| (*error).source());
    causes.any(|cause| cause.to_string().contains(&number)) || errno == Errno::AGAIN
}

/// Descriptors, mappings of shared memory, threads; files in the directory.
fn held(place: &Path) -> [usize; 4] {
    let count = |path: &Path| std::fs::read_dir(path).unwrap().count();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    [
        count(Path::new("/proc/self/fd")),
        maps.lines().filter(|line| line.contains("/memfd:")).count(),
        count(Path::new("/proc/self/task")),
        count(place),
    ]
}

thread_local!(static HELD: std::cell::OnceCell<[usize; 4]> = const { std::cell::OnceCell::new() });

const PLACE: &str = "DOORBELL_TEST_PLACE";
const PATIENCE: Duration = Duration::from_secs(20);

fn in_time() -> Option<Instant> {
    Some(Instant::now() + PATIENCE)
}

fn socket(place: &Path) -> PathBuf {
    place.join("socket")
}

fn kept(value: impl Any) -> Outcome {
    Ok(Box::new(value))
}

fn pin_thread(_: &Path) -> Box<dyn FnOnce() -> Outcome> {
    Box::new(|| {
        let pinned = std::thread::spawn(|| sys::pin_current_thread(0)).join();
        pinned.expect("it does not panic")?;
        kept(())
    })
}

fn listen(place: &Path) -> Box<dyn FnOnce() -> Outcome> {
    let path = socket(place);
    drop(UnixListener::bind(&path).unwrap()); // its name stays, as that of a dead server
    Box::new(move || kept(Listener::bind_for(&path, SocketAccess::Everyone)?))
}

fn stop_listening(place: &Path) -> Box<dyn FnOnce() -> Outcome> {
    let listener = Listener::bind(&socket(place)).unwrap();
    Box::new(move || kept(drop(listener)))
}

fn talk(place: &Path) -> Box<dyn FnOnce() -> Outcome> {
    let listener = Listener::bind(&socket(place)).unwrap();
    Box::new(move || {
        let spare = listener.spare_handle()?;
        let client = ControlStream::connect(listener.path(), in_time())?;
        let Some(server) = listener.accept()? else {
            return Err("nobody has connected".into());
        };
        client.wait_writable(in_time())?;
        client.send(b"hello")?;
        server.wait_readable(in_time())?;
        let mut buffer = [0; 16];
        server.receive(&mut buffer)?;
        let region = sys::create_region(4096)?;
        server.send_with_handles(b"welcome", &[region.as_handle()])?;
        client.wait_readable(in_time())?;
        let (_, handles) = client.receive_with_handles(&mut buffer, 1)?;
        assert!(!client.is_hung_up()?);
        kept((spare, client, server, handles, listener))
    })
}

fn know_the_peer(_: &Path) -> Box<dyn FnOnce() -> Outcome> {
    let (one, other) = ControlStream::pair().unwrap();
    Box::new(move || {
        let identity = one.peer()?;
        assert!(identity.is_same_user());
        let _ = identity.executable();
        kept((one.peer_process()?, one, other))
    })
}

fn know_the_process(_: &Path) -> Box<dyn FnOnce() -> Outcome> {
    let (one, other) = ControlStream::pair().unwrap();
    Box::new(move || {
        let process = one.peer_process()?;
        assert!(!process.has_exited()?);
        kept((process, one, other))
    })
}

fn share_memory(_: &Path) -> Box<dyn FnOnce() -> Outcome> {
    Box::new(|| {
        let layout = Layout::new(4096, 4)?;
        let memory = create(layout, layout)?;
        let (server, client) = (
            memory.server_handle.try_clone()?,
            memory.client_handle.try_clone()?,
        );
        let adopted = adopt(server, client, layout, layout)?;
        kept((memory, adopted))
    })
}

fn ring_a_counter(_: &Path) -> Box<dyn FnOnce() -> Outcome> {
    Box::new(|| ring(DoorbellKind::Event))
}

fn ring_a_socket(_: &Path) -> Box<dyn FnOnce() -> Outcome> {
    Box::new(|| ring(DoorbellKind::Socket))
}

fn ring(kind: DoorbellKind) -> Outcome {
    let (listening, ringing) = Doorbell::pair(kind)?;
    let ringing = Doorbell::from_handle(ringing.into_handle(), kind)?;
    ringing.notify()?;
    // A counter that claims to be full has been rung by somebody else; here there is nobody else.
    listening.wait(Some(Instant::now() + Duration::from_millis(20)))?;
    listening.drain()?;
    kept((listening, ringing))
}

fn wait_for_many(_: &Path) -> Box<dyn FnOnce() -> Outcome> {
    let (bell, ringing) = Doorbell::pair(DoorbellKind::Event).unwrap();
    Box::new(move || {
        let poller = Poller::new()?;
        poller.add(&bell, 1, Mode::Edge)?;
        ringing.notify()?;
        let mut events = Vec::new();
        poller.wait(&mut events, Wait::Poll)?;
        poller.wake()?;
        poller.wait(&mut events, Wait::Poll)?;
        poller.remove(&bell)?;
        kept((poller, bell, ringing))
    })
}

fn sleep_on_a_word(_: &Path) -> Box<dyn FnOnce() -> Outcome> {
    Box::new(|| {
        let word = AtomicU32::new(1);
        sys::futex_wait(&word, 0, in_time())?;
        sys::futex_wait_any(&[(&word, 0)], in_time())?;
        sys::futex_wake(&word, 1)?;
        kept(())
    })
}

fn find_directory(_: &Path) -> Box<dyn FnOnce() -> Outcome> {
    Box::new(|| kept(sys::runtime_directory()?))
}

fn raise_limit(_: &Path) -> Box<dyn FnOnce() -> Outcome> {
    let limit = getrlimit(Resource::Nofile);
    let lower = Rlimit {
        current: limit.maximum.map(|most| most.min(1000) - 1),
        ..limit
    };
    setrlimit(Resource::Nofile, lower).unwrap();
    Box::new(|| kept(sys::raise_descriptor_limit()?))
}

//! The one name that exists: who may take it, who may remove it, who may use it.

mod sys_support;

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Barrier;

use doorbell_shm::sys::{BindError, ControlStream, Listener};
use rustix::fs::{FlockOperation, Mode, OFlags};
use sys_support::*;

#[test]
fn child_process() {
    let Some((role, stream)) = role() else { return };
    let path = PathBuf::from(std::env::var_os(BIND_AT).unwrap());
    let _listener = match role.as_str() {
        "serve" => Listener::bind(&path).unwrap(),
        "serve under umask 0" => {
            rustix::process::umask(Mode::empty());
            Listener::bind(&path).unwrap()
        }
        _ => panic!("no role {role}"),
    };
    say(&stream, b'd');
    hear(&stream, b'e');
}

/// Name of the variable that tells the peer where to bind.
const BIND_AT: &str = "DOORBELL_TEST_BIND_AT";

fn server(role: &str, path: &Path) -> Peer {
    let peer = Peer::spawn_with(role, |command| {
        command.env(BIND_AT, path);
    });
    hear(&peer.stream, b'd');
    peer
}

struct Place {
    directory: tempfile::TempDir,
    path: PathBuf,
}

fn place() -> Place {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("engine");
    Place { directory, path }
}

fn names_in(directory: &Path) -> Vec<String> {
    fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn socket_is_for_its_user_only_whatever_the_umask() {
    let place = place();
    let server = server("serve under umask 0", &place.path);
    let metadata = fs::symlink_metadata(&place.path).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    say(&server.stream, b'e');
    server.finish();
}

#[test]
fn only_one_name_exists_and_none_after_the_server() {
    let place = place();
    let server = server("serve", &place.path);
    assert_eq!(names_in(place.directory.path()), ["engine"]);
    say(&server.stream, b'e');
    server.finish();
    assert!(names_in(place.directory.path()).is_empty());
}

#[test]
fn socket_of_a_killed_server_is_replaced() {
    let place = place();
    let mut server = server("serve", &place.path);
    server.kill();
    assert!(place.path.exists());
    let listener = Listener::bind(&place.path).unwrap();
    ControlStream::connect(&place.path, in_time()).unwrap();
    accept(&listener).unwrap();
}

#[test]
fn socket_of_a_living_server_is_never_stolen() {
    let place = place();
    let server = server("serve", &place.path);
    for _ in 0..3 {
        let error = Listener::bind(&place.path).unwrap_err();
        assert!(matches!(error, BindError::AlreadyRunning { .. }), "{error}");
        assert!(error.is_retryable());
    }
    let stream = ControlStream::connect(&place.path, in_time()).unwrap();
    assert_eq!(stream.peer().unwrap().pid, server.child.id());
}

#[test]
fn server_with_a_full_backlog_is_alive() {
    let place = place();
    let socket = std::os::unix::net::UnixListener::bind(&place.path).unwrap();
    rustix::net::listen(socket.as_fd(), 0).unwrap();
    let _waiting = ControlStream::connect(&place.path, in_time()).unwrap();
    let error = Listener::bind(&place.path).unwrap_err();
    assert!(matches!(error, BindError::AlreadyRunning { .. }), "{error}");
}

#[test]
fn socket_of_another_type_is_alive() {
    let place = place();
    let _socket = std::os::unix::net::UnixDatagram::bind(&place.path).unwrap();
    let error = Listener::bind(&place.path).unwrap_err();
    assert!(matches!(error, BindError::AlreadyRunning { .. }), "{error}");
}

#[test]
fn of_servers_that_race_for_a_stale_name_one_wins() {
    const SERVERS: usize = 8;
    for _ in 0..20 {
        let place = place();
        drop(std::os::unix::net::UnixListener::bind(&place.path).unwrap());
        let start = Barrier::new(SERVERS);
        let bound: Vec<_> = std::thread::scope(|scope| {
            let race = || {
                start.wait();
                Listener::bind(&place.path)
            };
            let servers: Vec<_> = (0..SERVERS).map(|_| scope.spawn(race)).collect();
            servers
                .into_iter()
                .map(|server| server.join().unwrap())
                .collect()
        });
        let winners: Vec<_> = bound.iter().flatten().collect();
        assert_eq!(winners.len(), 1);
        for loser in bound.iter().filter_map(|bound| bound.as_ref().err()) {
            assert!(matches!(loser, BindError::AlreadyRunning { .. }), "{loser}");
        }
        ControlStream::connect(&place.path, in_time()).unwrap();
        let mut accepted = 0;
        while winners[0].accept().unwrap().is_some() {
            accepted += 1;
        }
        assert!(accepted >= 1); // ours, and the losers' questions
    }
}

#[test]
fn what_is_no_socket_is_left_alone() {
    let place = place();
    fs::write(&place.path, "precious").unwrap();
    let error = Listener::bind(&place.path).unwrap_err();
    assert!(matches!(error, BindError::NotASocket { .. }), "{error}");
    assert_eq!(fs::read_to_string(&place.path).unwrap(), "precious");

    let directory = place.directory.path().join("directory");
    fs::create_dir(&directory).unwrap();
    let error = Listener::bind(&directory).unwrap_err();
    assert!(matches!(error, BindError::NotASocket { .. }), "{error}");

    let link = place.directory.path().join("link");
    symlink("nowhere", &link).unwrap();
    let error = Listener::bind(&link).unwrap_err();
    assert!(matches!(error, BindError::NotASocket { .. }), "{error}");
    assert!(link.is_symlink());
}

#[test]
fn drop_removes_only_our_own_socket() {
    let place = place();
    let first = Listener::bind(&place.path).unwrap();
    fs::remove_file(&place.path).unwrap();
    let second = Listener::bind(&place.path).unwrap();
    drop(first);
    ControlStream::connect(&place.path, in_time()).unwrap();
    drop(second);
    assert!(!place.path.exists());
}

#[test]
fn drop_leaves_a_file_that_took_the_name() {
    let place = place();
    let listener = Listener::bind(&place.path).unwrap();
    fs::remove_file(&place.path).unwrap();
    fs::write(&place.path, "precious").unwrap();
    drop(listener);
    assert_eq!(fs::read_to_string(&place.path).unwrap(), "precious");
}

#[test]
fn foreign_lock_on_the_directory_does_not_hang_us() {
    let place = place();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(place.directory.path(), flags, Mode::empty()).unwrap();
    let listener = Listener::bind(&place.path).unwrap();
    rustix::fs::flock(&directory, FlockOperation::LockExclusive).unwrap();
    let error = Listener::bind(&place.directory.path().join("other")).unwrap_err();
    assert!(matches!(error, BindError::Locked { .. }), "{error}");
    drop(listener);
    assert!(place.path.exists()); // could not be removed safely
    rustix::fs::flock(&directory, FlockOperation::Unlock).unwrap();
    Listener::bind(&place.path).unwrap();
}

#[test]
fn impossible_address_is_named() {
    let place = place();
    let missing = place.directory.path().join("missing").join("engine");
    let error = Listener::bind(&missing).unwrap_err();
    assert!(matches!(error, BindError::NoDirectory { .. }), "{error}");

    let through_a_file = Path::new("/proc/self/status/engine");
    let error = Listener::bind(through_a_file).unwrap_err();
    assert!(matches!(error, BindError::NoDirectory { .. }), "{error}");

    let long = place.directory.path().join("x".repeat(108));
    let error = Listener::bind(&long).unwrap_err();
    assert!(
        matches!(error, BindError::PathTooLong { max_bytes: 107, .. }),
        "{error}"
    );
    assert!(!error.is_retryable());
}

#[test]
fn directory_that_we_may_not_write_is_named() {
    if rustix::process::geteuid().is_root() {
        return; // root may write everywhere
    }
    let place = place();
    let read_only = fs::Permissions::from_mode(0o500);
    fs::set_permissions(place.directory.path(), read_only).unwrap();
    let error = Listener::bind(&place.path).unwrap_err();
    assert!(
        matches!(error, BindError::PermissionDenied { .. }),
        "{error}"
    );
}

#[test]
fn accept_without_a_client_returns_none() {
    let place = place();
    let listener = Listener::bind(&place.path).unwrap();
    assert!(listener.accept().unwrap().is_none());
    assert_eq!(listener.path(), place.path);
    let flags = rustix::io::fcntl_getfd(listener.as_fd()).unwrap();
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
}

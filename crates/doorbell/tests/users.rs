//! Who is let in, and how: policies, and a real second user at the other end.

mod support;

use std::{
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use doorbell::{
    BindError, ConnectError, RefuseReason, Status, blocking,
    server::{Admission, Peer, Resource, SocketAccess},
};
use doorbell_proto::handshake::{BellKind, BellKinds, Features};
use doorbell_shm::sys::Listener;
use doorbell_testkit::by_hand::{HandClient, HandHello};
use doorbell_testkit::{
    Child, Place, RawControl, RawServer, role, say, second_user, setting, wait_for_parent,
};
use support::{messages::*, service};

#[test]
#[ignore = "the body of the child processes"]
fn child_process() {
    match role().as_deref() {
        Some("call") => call(),
        Some("raw") => connect_by_hand(),
        Some("ask for two memories") => ask_for_two_memories(),
        Some("serve all") => serve_all(),
        Some("listen") => listen_by_hand(),
        Some("connect and keep silent") => {
            let program = std::env::current_exe().unwrap();
            let control = RawControl::connect(&PathBuf::from(setting("path")));
            say(&format!("PROGRAM {}", program.display()));
            say(&format!("REFUSED {}", control.refusal().text));
        }
        _ => support::roles::run(),
    }
}

/// Makes a client of every kind of call use its connection, and keeps it until the parent has seen it.
fn call() {
    let client = match blocking::Client::connect(setting("path")) {
        Ok(client) => client,
        Err(error) => return say(&format!("RESULT {error:?}")),
    };
    assert_eq!(client.call(Add(1, 2)).wait().unwrap(), 3);
    let items = client.stream(Count(1000)).open().unwrap();
    assert_eq!(items.map(Result::unwrap).count(), 1000);
    let large = Bytes::from(vec![7; 1 << 20]);
    assert_eq!(client.call(Echo(large.clone())).wait().unwrap().0, large);
    say("RESULT called");
    // The worker sleeps by now, or soon: the next call wakes it by its doorbell.
    while wait_for_parent().is_some() {
        assert_eq!(client.call(Add(2, 2)).wait().unwrap(), 4);
        say("CALLED");
    }
}

fn connect_by_hand() {
    let client = RawControl::connect(&PathBuf::from(setting("path"))).finish();
    say(&format!("BELL {}", client.welcome.bell));
    let _ = wait_for_parent();
}

/// Asks for a ring in two memories, and tells what was agreed on.
fn ask_for_two_memories() {
    let hello = HandHello {
        features: HandHello::GIVE_BACK,
        ..HandHello::proper()
    };
    let client = HandClient::connect_with(&PathBuf::from(setting("path")), &hello);
    say(&format!("FEATURES {}", client.welcome.features));
}

fn serve_all() {
    let place = setting("path");
    let builder = service::of_threads(&place).socket_access(SocketAccess::Everyone);
    let _server = builder.admit(|_: &Peer| true).bind().unwrap();
    say("READY");
    let _ = wait_for_parent();
}

/// Tells what doorbells the first client says it has, and leaves.
fn listen_by_hand() {
    let path = PathBuf::from(setting("path"));
    let listener = Listener::bind_for(&path, SocketAccess::Everyone).unwrap();
    say("READY");
    let (_control, hello) = RawServer::greet(&listener);
    say(&format!("BELLS {}", hello.bells.bits()));
    say(&format!("FEATURES {}", hello.features.bits()));
}

fn start_as(user: u32, place: &Place, role: &str) -> Child {
    Child::start_as(
        user,
        place,
        "child_process",
        role,
        &[("path", &place.name())],
    )
}

fn server_for_all(place: &Place) -> blocking::ServerBuilder {
    service::of_threads(&place.name()).socket_access(SocketAccess::Everyone)
}

#[test]
fn second_user_does_not_even_reach_the_socket_by_default() {
    let Some(user) = second_user() else { return };
    let place = Place::new();
    let server = service::of_threads(&place.name()).bind().unwrap();
    let result = start_as(user, &place, "call").hear("RESULT");
    assert!(result.starts_with("PermissionDenied"), "{result}");
    assert_eq!(server.stats().refused, 0);
}

#[test]
fn second_user_who_reaches_the_socket_is_refused_by_default() {
    let Some(user) = second_user() else { return };
    let place = Place::new();
    let server = server_for_all(&place).bind().unwrap();
    let result = start_as(user, &place, "call").hear("RESULT");
    assert!(result.contains("Refused { reason: Permission"), "{result}");
    assert!(result.contains(&format!("user {user}")), "{result}");
    assert_eq!(server.stats().refused, 1);
    let own = blocking::Client::connect(place.name()).unwrap();
    assert_eq!(own.call(Add(1, 2)).wait().unwrap(), 3);
}

#[test]
fn second_user_that_the_policy_admits_calls_and_is_told_apart() {
    let Some(user) = second_user() else { return };
    let place = Place::new();
    let callers = Arc::new(Mutex::new(Vec::new()));
    let server = server_for_all(&place)
        .admit(move |peer: &Peer| peer.uid() == user)
        .bind()
        .unwrap();
    server.on({
        let callers = Arc::clone(&callers);
        move |context, add: Add| {
            callers.lock().unwrap().push(context.peer().uid);
            Ok::<_, Status>(add.0 + add.1)
        }
    });
    let mut child = start_as(user, &place, "call");
    assert_eq!(child.hear("RESULT"), "called");
    for _ in 0..3 {
        child.tell("again");
        child.hear("CALLED");
    }
    child.finish();
    assert_eq!(*callers.lock().unwrap(), [user; 4]);

    let error = blocking::Client::connect(place.name()).unwrap_err();
    let is_refused = matches!(
        error,
        ConnectError::Refused {
            reason: RefuseReason::Permission,
            ..
        }
    );
    assert!(is_refused, "a policy is asked about everybody: {error:?}");
}

#[test]
fn doorbell_between_users_is_never_an_event_counter() {
    let Some(user) = second_user() else { return };
    let place = Place::new();
    let _server = server_for_all(&place)
        .admit(|_: &Peer| true)
        .bind()
        .unwrap();
    let stranger = start_as(user, &place, "raw");
    assert_eq!(stranger.hear("BELL"), BellKind::Socket.to_string());
    let own = Child::start("child_process", "raw", &[("path", &place.name())]);
    let own_bell = own.hear("BELL");
    if !cfg!(doorbell_socket_bell) {
        assert_eq!(own_bell, BellKind::EventFd.to_string());
    }
}

/// Whoever has a descriptor of the memory can make that system call wait.
#[test]
fn memory_between_users_is_not_given_back() {
    let Some(user) = second_user() else { return };
    let place = Place::new();
    let _server = server_for_all(&place)
        .admit(|_: &Peer| true)
        .bind()
        .unwrap();
    let stranger = start_as(user, &place, "ask for two memories");
    assert_eq!(stranger.hear("FEATURES"), "0");
    let own = Child::start(
        "child_process",
        "ask for two memories",
        &[("path", &place.name())],
    );
    let own_features = own.hear("FEATURES");
    assert_eq!(own_features, HandHello::GIVE_BACK.to_string());
}

#[test]
fn policy_knows_the_process_before_it_has_said_anything() {
    let place = Place::new();
    let asked = Arc::new(Mutex::new(None));
    let server = service::of_threads(&place.name())
        .admit({
            let asked = Arc::clone(&asked);
            move |peer: &Peer| {
                let seen = (peer.uid(), peer.gid(), peer.pid(), peer.is_same_user());
                *asked.lock().unwrap() = Some((seen, peer.executable(), peer.is_pinned()));
                Admission::Refuse("not on a Sunday".to_owned())
            }
        })
        .bind()
        .unwrap();
    let child = Child::start(
        "child_process",
        "connect and keep silent",
        &[("path", &place.name())],
    );
    let program = child.hear("PROGRAM");
    assert_eq!(child.hear("REFUSED"), "not on a Sunday");
    let (seen, executable, is_pinned) = asked.lock().unwrap().take().unwrap();
    let own = std::fs::metadata("/proc/self").unwrap();
    assert_eq!(seen, (own.uid(), own.gid(), child.id(), true));
    assert_eq!(executable.unwrap().display().to_string(), program);
    assert!(is_pinned || !has_pinning_kernel());
    let stats = server.stats();
    assert_eq!((stats.refused, stats.accepted), (1, 0));
    assert_eq!(stats.resource(Resource::RingBytes).used, 0);
}

/// Whether the kernel says which process has connected.
fn has_pinning_kernel() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split('.').map(|part| part.parse().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(6), Some(5))
}

#[test]
fn policy_that_panics_lets_nobody_in_and_is_asked_again() {
    let place = Place::new();
    let asked = AtomicBool::new(false);
    let _server = service::of_threads(&place.name())
        .admit(move |_: &Peer| {
            assert!(
                asked.swap(true, Ordering::Relaxed),
                "a mistake in the policy"
            );
            true
        })
        .bind()
        .unwrap();
    let error = blocking::Client::connect(place.name()).unwrap_err();
    assert!(error.to_string().contains("policy failed"), "{error}");
    let client = blocking::Client::connect(place.name()).unwrap();
    assert_eq!(client.call(Add(1, 2)).wait().unwrap(), 3);
}

#[test]
fn name_in_the_private_directory_is_not_for_others() {
    let error = blocking::Server::builder("private")
        .socket_access(SocketAccess::Group)
        .bind()
        .err()
        .unwrap();
    assert!(matches!(error, BindError::PrivateName { .. }), "{error:?}");
    assert!(error.to_string().contains("slash"), "{error}");
}

#[test]
fn socket_is_as_open_as_was_asked_for_whatever_the_umask() {
    for (access, mode) in [
        (SocketAccess::Owner, 0o600),
        (SocketAccess::Group, 0o660),
        (SocketAccess::Everyone, 0o666),
    ] {
        let place = Place::new();
        let _server = service::of_threads(&place.name())
            .socket_access(access)
            .bind()
            .unwrap();
        let metadata = std::fs::symlink_metadata(place.socket()).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, mode);
    }
}

/// A place that belongs to `user`, as if that user had put a socket where another one was expected.
fn place_of(user: u32) -> Place {
    let place = Place::new();
    std::os::unix::fs::chown(place.directory(), Some(user), Some(user)).unwrap();
    place
}

#[test]
fn server_of_a_second_user_is_a_stranger_unless_it_is_trusted() {
    let Some(user) = second_user() else { return };
    let place = place_of(user);
    let child = start_as(user, &place, "serve all");
    child.hear("READY");
    let trusting = |uid| {
        let client = blocking::Client::builder(place.name()).trust_server_user(uid);
        client.connect()
    };
    for error in [
        blocking::Client::connect(place.name()).unwrap_err(),
        trusting(user + 1).unwrap_err(),
    ] {
        let is_stranger = matches!(error, ConnectError::Stranger { uid, .. } if uid == user);
        assert!(is_stranger && !error.is_retryable(), "{error:?}");
        assert!(error.to_string().contains("trust_server_user"), "{error}");
    }
    let client = trusting(user).unwrap();
    assert_eq!(client.call(Who).wait().unwrap(), child.id());
}

#[test]
fn client_takes_no_event_counter_and_no_second_memory_from_a_server_of_a_second_user() {
    let Some(user) = second_user() else { return };
    let place = place_of(user);
    let child = start_as(user, &place, "listen");
    child.hear("READY");
    let client = blocking::Client::builder(place.name())
        .trust_server_user(user)
        .connect();
    assert_eq!(child.hear("BELLS"), BellKinds::SOCKET.bits().to_string());
    let features = Features::BODY_CRC.with(Features::LOANS);
    assert_eq!(child.hear("FEATURES"), features.bits().to_string());
    let error = client.unwrap_err();
    assert!(
        matches!(error, ConnectError::NotListening { .. }),
        "it has left: {error:?}"
    );
}

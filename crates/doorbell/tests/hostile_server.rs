//! Servers that lie to honest clients, and strangers where a server should be.

mod hostile;
mod support;

use std::{
    fs::File,
    os::unix::{fs::PermissionsExt, net::UnixListener},
    path::Path,
};

use doorbell::{BindError, Client, Server, blocking};
use doorbell_testkit::{Child, Place, limit_descriptors, role, say, second_user, wait_for_parent};
use hostile::{
    lies::LIES,
    trap::{account, walk_into},
};

#[test]
#[ignore = "the body of the child processes"]
fn child_process() {
    match role().as_deref() {
        Some("victim of a server") => walk_into(LIES),
        Some("trap") => hostile::trap::serve(LIES),
        Some("stranger") => stay(&hostile::path()),
        Some("starved") => connect_without_descriptors(&hostile::path()),
        _ => hostile::child(&[]),
    }
}

#[test]
fn every_lie_of_a_server_is_an_error_that_names_it() {
    hostile::trap::walk();
}

/// Another user's process sits where our server should be.
#[test]
fn client_does_not_talk_to_the_server_of_another_user() {
    let Some(user) = second_user() else { return };
    let place = Place::new();
    let public = place.directory().join("public");
    std::fs::create_dir(&public).unwrap();
    std::fs::set_permissions(&public, PermissionsExt::from_mode(0o777)).unwrap();
    let (squatted, link) = (public.join("server.sock"), public.join("link.sock"));
    let settings = [("path", squatted.to_str().unwrap())];
    let stranger = Child::start_as(user, &place, "child_process", "stranger", &settings);
    stranger.hear("READY");
    std::os::unix::fs::symlink(&squatted, &link).unwrap();

    let runtime = tokio::runtime::Runtime::new().unwrap();
    for path in [&squatted, &link].map(|path| path.display().to_string()) {
        let of_task = runtime.block_on(Client::connect(&path)).map(drop);
        let of_thread = blocking::Client::connect(&path).map(drop);
        for account in [account(&of_task), account(&of_thread)] {
            let named = format!("runs as user {user}");
            assert!(
                account.starts_with("Stranger") && account.contains(&named),
                "{account}"
            );
        }
        // Nor does a server of ours take the name from somebody who is there.
        let bound = support::service::awaiting(&path).bind();
        let bound = runtime.block_on(bound).map(drop);
        assert!(matches!(bound, Err(BindError::Socket(_))), "{bound:?}");
    }
    stranger.finish();
}

/// In the child: listens as whoever it is, for everybody.
fn stay(path: &Path) {
    let listener = UnixListener::bind(path).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o777)).unwrap();
    say("READY");
    while wait_for_parent().is_some() {}
    drop(listener);
}

#[test]
fn server_leaves_alone_what_a_squatted_name_leads_to() {
    let place = Place::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let precious = place.directory().join("precious");
    std::fs::write(&precious, "precious").unwrap();
    let nowhere = place.directory().join("nowhere");
    for target in [&precious, &nowhere] {
        std::os::unix::fs::symlink(target, place.socket()).unwrap();
        let server = Server::builder(place.name());
        let error = runtime.block_on(server.bind()).map(drop).unwrap_err();
        assert!(error.to_string().contains("is not a socket"), "{error}");
        std::fs::remove_file(place.socket()).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&precious).unwrap(), "precious");
    assert!(!nowhere.exists(), "no socket was made behind the link");
}

/// The client's own limit is not the server's fault, and the error says which of the two it was.
#[test]
fn client_without_room_for_descriptors_says_so_and_keeps_none() {
    let scene = hostile::Scene::start(&[]);
    let starved = Child::start("child_process", "starved", &[("path", &scene.place.name())]);
    for left in 0..5 {
        let account = starved.hear("GOT");
        println!("{left} descriptors left: {account}");
        assert!(
            account.starts_with("System") && account.contains("Too many open files"),
            "{left} left: {account}"
        );
    }
    let account = starved.hear("GOT");
    assert_eq!(account, "Connected", "with enough of them");
    scene.witness.goes_on("a starved client");
    starved.finish();
    scene.end();
}

/// In the child: connects with so many descriptors left and no more, from 0 on.
fn connect_without_descriptors(path: &Path) {
    let name = path.display().to_string();
    blocking::Client::connect(&name).map(drop).unwrap(); // the thread that watches has what it needs
    limit_descriptors(100);
    let mut filling = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        filling.push(file);
    }
    for _ in 0..5 {
        let got = blocking::Client::connect(&name).map(drop);
        say(&format!("GOT {}", account(&got).replace('\n', " ")));
        filling.pop();
    }
    filling.truncate(10);
    let got = blocking::Client::connect(&name).map(drop);
    say(&format!("GOT {}", account(&got)));
    while wait_for_parent().is_some() {}
}

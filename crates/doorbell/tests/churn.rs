//! Clients that come and go: those of a user who overdoes it wait, nobody else does, and nobody is refused.

mod support;

use doorbell::{
    blocking::{Client, Server, ServerBuilder},
    server::{Peer, Resource, SocketAccess},
};
use doorbell_proto::handshake::{Message, RefuseReason};
use doorbell_testkit::{Child, Place, RawControl, eventually, role, say, second_user, setting};
use support::{messages::*, service};

#[test]
#[ignore = "the body of the child processes"]
fn child_process() {
    match role().as_deref() {
        Some("come and go") => {
            come_and_go(&setting("path"));
            say("GONE");
        }
        _ => support::roles::run(),
    }
}

/// More than may end before others wait.
const MANY: usize = 140;

fn come_and_go(name: &str) {
    let clients: Vec<_> = (0..MANY).map(|_| connect(name)).collect();
    for client in clients {
        assert_eq!(client.call(Add(1, 2)).wait().unwrap(), 3);
    }
}

fn connect(name: &str) -> Client {
    Client::connect(name).unwrap()
}

/// Starts a server where who has overdone it pays for a long time.
fn serve(place: &Place, choose: impl FnOnce(ServerBuilder) -> ServerBuilder) -> Server {
    let builder = service::of_threads(&place.name()).max_churn_per_user(1);
    choose(builder).bind().unwrap()
}

fn all_have_left(server: &Server) {
    eventually("they have left", || {
        let used = server.stats().resource(Resource::Connections).used;
        used == 0 // the last thing that is given back
    });
}

/// Starts one on which the next connection of this user waits.
fn serve_who_has_overdone_it(place: &Place) -> Server {
    let server = serve(place, |builder| builder);
    come_and_go(&place.name());
    all_have_left(&server);
    server
}

/// Says hello, and returns when the server lets it wait.
fn wait_by_hand(place: &Place, server: &Server) -> RawControl {
    let control = RawControl::connect(&place.socket());
    control.send(&Message::Hello(RawControl::hello()).encode());
    eventually("it waits", || server.stats().delayed == 1);
    control
}

#[test]
fn who_comes_and_goes_waits_and_is_served() {
    let place = Place::new();
    let server = serve_who_has_overdone_it(&place);
    assert_eq!(server.stats().delayed, 0, "however many come at once");
    let client = connect(&place.name());
    assert_eq!(client.call(Add(1, 2)).wait().unwrap(), 3);
    let stats = server.stats();
    assert_eq!((stats.delayed, stats.refused), (1, 0));
}

#[test]
fn who_leaves_while_it_waits_takes_up_nothing() {
    let place = Place::new();
    let server = serve_who_has_overdone_it(&place);
    let control = wait_by_hand(&place, &server);
    drop(control);
    all_have_left(&server);
    let stats = server.stats();
    assert_eq!(stats.resource(Resource::Handshakes).used, 0);
    assert_eq!((stats.accepted, stats.refused), (MANY as u64, 1));
}

/// A machine that stops for a second lets it in before.
#[test]
fn who_waits_when_the_server_ends_is_told() {
    let place = Place::new();
    let server = serve_who_has_overdone_it(&place);
    let control = wait_by_hand(&place, &server);
    drop(server);
    match control.answer() {
        (Message::Refused(refused), _) => assert_eq!(refused.reason, RefuseReason::ShuttingDown),
        (Message::Welcome(_), _) => control.wait_for_end(),
        (other, _) => panic!("the server answered {other:?}"),
    }
}

/// The server knows it although it has no connection any more.
#[test]
fn churn_of_one_user_is_not_that_of_another() {
    let Some(user) = second_user() else { return };
    let place = Place::new();
    let server = serve(&place, |builder| {
        let builder = builder.socket_access(SocketAccess::Everyone);
        builder.admit(|_: &Peer| true)
    });
    let settings = [("path", &*place.name())];
    let start = |role| Child::start_as(user, &place, "child_process", role, &settings);
    start("come and go").hear("GONE");
    all_have_left(&server);
    assert_eq!(
        connect(&place.name()).call(Add(1, 2)).wait().unwrap(),
        3,
        "the server's own user"
    );
    assert_eq!(server.stats().delayed, 0);
    assert_eq!(start("connect").hear("RESULT"), "connected");
    assert_eq!(server.stats().delayed, 1);
}

#[test]
fn rate_of_nothing_is_a_mistake() {
    let place = Place::new();
    let server = service::of_threads(&place.name()).max_churn_per_user(0);
    let error = server.bind().err().unwrap();
    assert!(error.to_string().contains("max_churn_per_user"), "{error}");
}

//! What a server gives out in all and to each user, and what the others notice when somebody has their share: nothing.

mod support;

use bytes::Bytes;
use doorbell::{
    CallError, Client, Code, ConnectError, LoanError, Outcome, RefuseReason, Server,
    server::{Builder, Peer, Resource, SocketAccess},
};
use doorbell_testkit::{
    Child, PATIENCE, Place, RawControl, eventually, limit_descriptors, role, say, second_user,
    setting, wait_for_parent,
};
use support::{in_time, messages::*, service};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the body of the child processes"]
async fn child_process() {
    match role().as_deref() {
        Some("greedy") => take_all().await,
        Some("few descriptors") => {
            limit_descriptors(200);
            let _server = serve(&setting("path"), |builder| builder).await;
            say("READY");
            tokio::task::spawn_blocking(wait_for_parent).await.unwrap();
        }
        _ => support::roles::run(),
    }
}

/// Takes connections and calls until both are refused, says how many it has, and keeps them.
async fn take_all() {
    let mut clients = Vec::new();
    let refused = loop {
        match Client::connect(setting("path")).await {
            Ok(client) => clients.push(client),
            Err(error) => break reason(&error),
        }
    };
    let mut calls = Vec::new();
    let error = loop {
        let client = &clients[calls.len() % clients.len()];
        calls.push(client.call(Stuck).send().await.unwrap());
        let started = calls.len() as u32;
        let look = WaitFor(Seen {
            started,
            ..Seen::default()
        });
        // On the same connection, so that the server sees it after the other one.
        if let Err(error) = client.call(look).await {
            break error; // there is none left to look with
        }
    };
    say(&format!(
        "TAKEN {} {refused:?} {} {:?}",
        clients.len(),
        calls.len(),
        error.code()
    ));
    tokio::task::spawn_blocking(wait_for_parent).await.unwrap();
}

async fn serve(name: &str, limit: impl FnOnce(Builder) -> Builder) -> Server {
    limit(service::awaiting(name)).bind().await.unwrap()
}

async fn connect(place: &Place) -> Result<Client, ConnectError> {
    Client::connect(place.name()).await
}

fn reason(error: &ConnectError) -> RefuseReason {
    match error {
        ConnectError::Refused { reason, .. } => *reason,
        other => panic!("not refused: {other:?}"),
    }
}

/// Expects a call to have been refused by a limit: nothing has run, and it may be repeated.
fn exhausted(error: &CallError, names: &str) {
    assert_eq!(error.code(), Code::ResourceExhausted, "{error}");
    assert_eq!(error.outcome(), Outcome::NotExecuted, "{error}");
    assert!(error.is_retryable(), "{error}");
    assert!(error.to_string().contains(names), "{error}");
}

fn refusals(server: &Server, resource: Resource) -> (u64, u64) {
    let stats = server.stats().resource(resource);
    (stats.refused, stats.refused_per_user)
}

fn given_back(server: &Server) {
    eventually("everything is given back", || {
        let stats = server.stats();
        Resource::ALL
            .iter()
            .all(|&resource| stats.resource(resource).used == 0)
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn second_user_has_a_quarter_and_the_first_notices_nothing() {
    let Some(user) = second_user() else { return };
    let place = Place::new();
    let server = serve(&place.name(), |builder| {
        builder
            .socket_access(SocketAccess::Everyone)
            .admit(|_: &Peer| true)
            .limit(Resource::Connections, 8)
            .limit(Resource::Calls, 16)
    })
    .await;
    in_time(async {
        let own = connect(&place).await.unwrap();
        let settings = [("path", &*place.name())];
        let greedy = Child::start_as(user, &place, "child_process", "greedy", &settings);
        assert_eq!(greedy.hear("TAKEN"), "2 PerUserLimit 4 ResourceExhausted");
        assert_eq!(refusals(&server, Resource::Connections), (0, 1));
        let (total, per_user) = refusals(&server, Resource::Calls);
        assert!(total == 0 && per_user >= 1, "{total} {per_user}");
        assert_eq!(own.call(Add(1, 2)).await.unwrap(), 3);

        let mut more = Vec::new();
        for _ in 0..5 {
            more.push(connect(&place).await.unwrap());
        }
        let error = connect(&place).await.unwrap_err();
        assert_eq!(reason(&error), RefuseReason::Full);
        assert!(
            error.is_retryable() && error.to_string().contains("limit(Connections"),
            "{error}"
        );
        assert_eq!(refusals(&server, Resource::Connections), (1, 1));
        drop((own, more, greedy));
        given_back(&server);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_who_say_nothing_take_handshakes_and_not_the_server() {
    let place = Place::new();
    let server = serve(&place.name(), |builder| {
        builder
            .limit(Resource::Handshakes, 2)
            .handshake_timeout(support::SHORT * 4)
    })
    .await;
    in_time(async {
        let path = place.socket();
        let silent = [RawControl::connect(&path), RawControl::connect(&path)];
        eventually("both are seen", || {
            server.stats().resource(Resource::Handshakes).used == 2
        });
        assert_eq!(
            reason(&connect(&place).await.unwrap_err()),
            RefuseReason::Full
        );
        assert_eq!(refusals(&server, Resource::Handshakes), (1, 0));
        silent.iter().for_each(RawControl::wait_for_end);
        let client = connect(&place).await.unwrap();
        assert_eq!(client.call(Add(1, 2)).await.unwrap(), 3);
        drop(client);
        given_back(&server);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_of_connections_is_counted_before_it_is_given() {
    for (total, per_user, resource, expected) in [
        (
            None,
            Some(900_000),
            Resource::RingBytes,
            RefuseReason::PerUserLimit,
        ),
        (
            Some(900_000),
            None,
            Resource::RingBytes,
            RefuseReason::Resources,
        ),
        (
            Some(900_000),
            None,
            Resource::MemoryBytes,
            RefuseReason::Resources,
        ),
    ] {
        let place = Place::new();
        let server = serve(&place.name(), |mut builder| {
            if let Some(bytes) = total {
                builder = builder.limit(resource, bytes);
            }
            if let Some(bytes) = per_user {
                builder = builder.limit_per_user(resource, bytes);
            }
            builder
        })
        .await;
        in_time(async {
            let first = connect(&place).await.unwrap();
            let used = server.stats().resource(resource).used;
            assert!((512 << 10..900_000).contains(&used), "two rings: {used}");
            let error = connect(&place).await.unwrap_err();
            assert_eq!(reason(&error), expected, "{error}");
            let (in_all, of_user) = refusals(&server, resource);
            assert_eq!((in_all + of_user, of_user == 1), (1, per_user.is_some()));
            assert_eq!(first.call(Add(1, 2)).await.unwrap(), 3);
            drop(first);
            given_back(&server);
            connect(&place).await.unwrap();
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_of_all_connections_together_have_a_limit() {
    let place = Place::new();
    let server = serve(&place.name(), |builder| builder.limit(Resource::Calls, 2)).await;
    in_time(async {
        let (one, two) = (
            connect(&place).await.unwrap(),
            connect(&place).await.unwrap(),
        );
        let pending = (
            one.call(Stuck).send().await.unwrap(),
            one.call(Stuck).send().await.unwrap(),
        );
        eventually("both are under way", || {
            server.stats().resource(Resource::Calls).used == 2
        });
        exhausted(&two.call(Add(1, 2)).await.unwrap_err(), "limit(Calls");
        exhausted(&one.call(Add(1, 2)).await.unwrap_err(), "2 calls in flight");
        assert_eq!(refusals(&server, Resource::Calls), (2, 0));
        drop(pending.0);
        eventually("the cancelled call has ended", || {
            server.stats().resource(Resource::Calls).used == 1
        });
        for number in 0..100 {
            assert_eq!(two.call(Add(number, 2)).await.unwrap(), number + 2);
        }
        drop((one, two, pending.1));
        given_back(&server);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_of_all_connections_together_have_a_limit() {
    let place = Place::new();
    let window = 256 << 10;
    let server = serve(&place.name(), |builder| {
        builder.limit(Resource::StreamBytes, 2 * window)
    })
    .await;
    in_time(async {
        let (one, two) = (
            connect(&place).await.unwrap(),
            connect(&place).await.unwrap(),
        );
        let mut stuck = one.stream(StuckStream).await.unwrap();
        assert_eq!(stuck.next().await.unwrap().unwrap(), 1);
        let mut other = two.stream(StuckStream).await.unwrap();
        assert_eq!(other.next().await.unwrap().unwrap(), 1);
        let mut third = two.stream(Count(3)).await.unwrap();
        exhausted(&third.next().await.unwrap().unwrap_err(), "StreamBytes");
        assert_eq!(two.call(Add(1, 2)).await.unwrap(), 3);
        assert_eq!(refusals(&server, Resource::StreamBytes), (1, 0));
        drop(stuck);
        eventually("its window is given back", || {
            server.stats().resource(Resource::StreamBytes).used == window
        });
        let mut third = two.stream(Count(3)).await.unwrap();
        assert_eq!(third.next().await.unwrap().unwrap(), 0);
        drop((one, two, other, third));
        given_back(&server);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn segments_for_loans_count_for_their_user_and_for_all_together() {
    let mib = 1 << 20;
    for (total, per_user, expected) in [(4 * mib, 2 * mib, (0, 1)), (2 * mib, 2 * mib, (1, 0))] {
        let place = Place::new();
        let server = serve(&place.name(), |builder| {
            let builder = builder.limit(Resource::LoanBytes, total);
            builder.limit_per_user(Resource::LoanBytes, per_user)
        })
        .await;
        in_time(async {
            let (one, two) = (
                connect(&place).await.unwrap(),
                connect(&place).await.unwrap(),
            );
            // A segment has room for two such blocks where that fits.
            let loan = one.loan(mib as usize).await.unwrap();
            let used = |resource| server.stats().resource(resource).used;
            assert_eq!(used(Resource::LoanBytes), 2 * mib);
            assert!(used(Resource::MemoryBytes) > 2 * mib, "it is memory too");
            let error = two.loan(mib as usize).await.unwrap_err();
            assert!(matches!(error, LoanError::NoRoom { .. }), "{error}");
            assert_eq!(refusals(&server, Resource::LoanBytes), expected);
            assert_eq!(server.stats().loans_refused, 1);
            assert_eq!(two.call(Add(1, 2)).await.unwrap(), 3);
            drop((one, loan));
            eventually("the first connection has ended", || {
                used(Resource::LoanBytes) == 0
            });
            two.loan(mib as usize).await.unwrap();
            drop(two);
            given_back(&server);
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_under_assembly_of_all_connections_together_have_a_limit() {
    let place = Place::new();
    let server = serve(&place.name(), |builder| {
        builder
            .limit(Resource::AssemblyBytes, 1 << 20)
            .max_metadata_bytes(100)
    })
    .await;
    in_time(async {
        let client = connect(&place).await.unwrap();
        let echo = |bytes: usize| Echo(Bytes::from(vec![7; bytes]));
        let error = client.call(echo((1 << 20) + 1)).await.unwrap_err();
        exhausted(&error, "limit(AssemblyBytes");
        assert_eq!(refusals(&server, Resource::AssemblyBytes), (1, 0));
        assert_eq!(client.call(echo(1 << 20)).await.unwrap().0.len(), 1 << 20);
        assert_eq!(server.stats().resource(Resource::AssemblyBytes).used, 0);

        let call = client.call(Add(1, 2)).metadata("token", [7; 100]);
        let error = call.await.unwrap_err();
        exhausted(&error, "max_metadata_bytes");
        assert_eq!(server.stats().refused_metadata, 1);
        drop(client);
        given_back(&server);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_out_of_descriptors_says_what_to_raise_and_serves_those_it_has() {
    let place = Place::new();
    let path = [("path", &*place.name())];
    let host = Child::start("child_process", "few descriptors", &path);
    host.hear("READY");
    in_time(async {
        let mut clients = Vec::new();
        let mut refused = 0;
        for _ in 0..300 {
            match connect(&place).await {
                Ok(client) => clients.push(client),
                Err(error) => {
                    assert_eq!(reason(&error), RefuseReason::Resources, "{error}");
                    assert!(error.is_retryable(), "{error}");
                    assert!(error.to_string().contains("limit on open files"), "{error}");
                    refused += 1;
                }
            }
        }
        println!("{} connected, {refused} refused", clients.len());
        assert!(refused > 100 && clients.len() > 10);
        for client in &clients {
            assert_eq!(client.call(Add(1, 2)).await.unwrap(), 3);
        }
        drop(clients);
        let client = Client::builder(place.name()).wait_for_server(PATIENCE);
        let client = client.connect().await.expect("there are descriptors again");
        assert_eq!(client.call(Add(1, 2)).await.unwrap(), 3);
    })
    .await;
}

#[test]
fn limit_of_nothing_is_a_mistake() {
    let place = Place::new();
    for builder in [
        service::of_threads(&place.name()).limit(Resource::Calls, 0),
        service::of_threads(&place.name()).limit_per_user(Resource::Calls, 0),
    ] {
        let error = builder.bind().err().unwrap();
        assert!(error.to_string().contains("limit"), "{error}");
    }
}

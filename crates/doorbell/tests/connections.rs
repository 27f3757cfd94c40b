//! Many connections, full servers, idle ones, and servers that die and come again.

mod support;

use std::{
    future::IntoFuture,
    time::{Duration, Instant},
};

use doorbell::{
    BindError, Client, ConnectError, NotifyError, Outcome, RefuseReason, blocking,
    client::ConnectionState,
};
use doorbell_testkit::{Child, PATIENCE, Place, descriptors, eventually, mappings};
use support::{Host, in_time, messages::*, service};

#[test]
#[ignore = "the body of the child processes"]
fn child_process() {
    support::roles::run();
}

/// Asks a host for its numbers: connections now, accepted, refused.
fn stats(host: &mut Host) -> [u64; 3] {
    host.child.tell("stats");
    let numbers: Vec<u64> = host
        .child
        .hear("STATS")
        .split(' ')
        .map(|number| number.parse().unwrap())
        .collect();
    numbers.try_into().unwrap()
}

fn start_clients(host: &Host, count: usize) -> Child {
    Child::start(
        "child_process",
        "clients",
        &[("path", &host.name()), ("count", &count.to_string())],
    )
}

fn many_connect_at_once(processes: usize, clients: usize) {
    let mut host = Host::start("server", &[("handshake_timeout", "30000")]);
    let before = (descriptors(host.child.id()), mappings(host.child.id()));
    let mut others: Vec<Child> = (0..processes)
        .map(|_| start_clients(&host, clients))
        .collect();
    for other in &others {
        other.hear("READY");
    }
    assert_eq!(
        stats(&mut host),
        [
            (processes * clients) as u64,
            (processes * clients) as u64,
            0
        ]
    );
    for other in &mut others {
        other.tell("call");
    }
    for other in &others {
        other.hear("CALLED");
    }
    others.into_iter().for_each(Child::finish);
    eventually("all connections end", || stats(&mut host)[0] == 0);
    eventually("the server gives everything back", || {
        let now = (descriptors(host.child.id()), mappings(host.child.id()));
        now.0 <= before.0 && now.1 <= before.1
    });
    host.child.finish();
}

#[test]
fn two_hundred_connections_from_another_process_all_work() {
    many_connect_at_once(1, 200);
}

#[test]
fn thousand_connections_at_once_from_four_processes_all_work() {
    let limit = doorbell_shm::sys::raise_descriptor_limit().unwrap();
    if limit < 8000 {
        eprintln!("skipped: {limit} descriptors are too few for 1000 connections");
        return;
    }
    many_connect_at_once(4, 250);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_server_refuses_and_takes_the_next_client_when_one_has_left() {
    let host = Host::start("server", &[("max_connections", "3")]);
    in_time(async {
        let (one, two, three) = (
            host.client().await,
            host.client().await,
            host.client().await,
        );
        let error = Client::connect(host.name()).await.unwrap_err();
        assert!(
            matches!(
                error,
                ConnectError::Refused {
                    reason: RefuseReason::Full,
                    ..
                }
            ),
            "{error:?}"
        );
        assert!(error.is_retryable());
        for client in [&one, &two, &three] {
            assert_eq!(client.call(Add(1, 2)).await.unwrap(), 3);
        }
        let waiting = Client::builder(host.name())
            .wait_for_server(PATIENCE)
            .connect();
        let waiting = tokio::spawn(waiting);
        drop(two);
        let four = waiting.await.unwrap().expect("there is room now");
        assert_eq!(four.call(Add(1, 2)).await.unwrap(), 3);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_timeout_ends_idle_connections_only() {
    let host = Host::start("server", &[("idle_timeout", "300")]);
    in_time(async {
        let (idle, waiting, lively) = (
            host.client().await,
            host.client().await,
            host.client().await,
        );
        for client in [&idle, &waiting, &lively] {
            assert_eq!(client.call(Add(1, 2)).await.unwrap(), 3);
        }
        let mut ends = idle.state();
        let pending = waiting.call(Gate).send().await.unwrap();
        let stop = tokio::spawn({
            let lively = lively.clone();
            async move {
                for number in 0.. {
                    assert_eq!(lively.call(Add(number, 1)).await.unwrap(), number + 1);
                    tokio::task::yield_now().await;
                }
            }
        });
        ends.wait_for(|state| *state == ConnectionState::Disconnected)
            .await
            .unwrap();
        assert_eq!(*lively.state().borrow(), ConnectionState::Connected);
        assert_eq!(
            *waiting.state().borrow(),
            ConnectionState::Connected,
            "a call under way is not idleness"
        );
        assert!(!stop.is_finished(), "the lively connection has not failed");
        stop.abort();
        lively.call(Open).await.unwrap();
        assert_eq!(pending.await.unwrap(), 1);
        assert_eq!(
            idle.call(Add(1, 2)).await.unwrap(),
            3,
            "the next call connects again"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_connects_again_after_its_server_was_killed_and_started_again() {
    let mut host = Host::start("server", &[]);
    in_time(async {
        let client = host.client().await;
        let first = client.call(Who).await.unwrap();
        let mut state = client.state();
        assert_eq!(*state.borrow_and_update(), ConnectionState::Connected);
        let pending = client.call(Stuck).send().await.unwrap();

        host.child.kill();
        let error = pending.await.unwrap_err();
        assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
        state
            .wait_for(|state| *state == ConnectionState::Disconnected)
            .await
            .unwrap();
        assert!(
            host.place.socket().exists(),
            "a killed server leaves its socket"
        );

        host.restart("server");
        let second = client.call(Who).await.unwrap();
        assert_ne!(first, second, "another process answers");
        assert_eq!(*client.state().borrow(), ConnectionState::Connected);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn call_made_while_the_server_restarts_waits_for_it() {
    let mut host = Host::start("server", &[]);
    in_time(async {
        let client = Client::builder(host.name())
            .reconnect_timeout(PATIENCE)
            .connect()
            .await
            .unwrap();
        host.child.kill();
        client
            .state()
            .wait_for(|state| *state == ConnectionState::Disconnected)
            .await
            .unwrap();
        let caller = client.clone();
        let call = tokio::spawn(async move { caller.call(Add(1, 2)).await });
        host.restart("server");
        assert_eq!(call.await.unwrap().unwrap(), 3);
    })
    .await;
}

#[test]
fn client_of_a_thread_connects_again_after_its_server_was_killed() {
    let mut host = Host::start("server", &[]);
    let client = blocking::Client::connect(host.name()).unwrap();
    let first = client.call(Who).wait().unwrap();
    let pending = client.call(Stuck).send().unwrap();
    host.child.kill();
    assert_eq!(pending.wait().unwrap_err().outcome(), Outcome::Unknown);
    host.restart("server-of-threads");
    assert_ne!(client.call(Who).wait().unwrap(), first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn call_without_a_server_is_not_executed() {
    let mut host = Host::start("server", &[]);
    in_time(async {
        let limit = Duration::from_millis(200);
        let client = Client::builder(host.name())
            .reconnect_timeout(limit)
            .connect()
            .await
            .unwrap();
        host.child.kill();
        client
            .state()
            .wait_for(|state| *state == ConnectionState::Disconnected)
            .await
            .unwrap();
        let error = client.call(Add(1, 2)).await.unwrap_err();
        assert_eq!(error.outcome(), Outcome::NotExecuted, "{error}");
        assert!(error.is_retryable(), "{error}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_that_starts_first_waits_for_the_server() {
    let place = Place::new();
    in_time(async {
        let name = place.name();
        let waiting = tokio::spawn(Client::builder(&name).wait_for_server(PATIENCE).connect());
        let child = Child::start("child_process", "server", &[("path", &name)]);
        let client = waiting.await.unwrap().unwrap();
        assert_eq!(client.call(Who).await.unwrap(), child.id());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn living_server_is_never_replaced() {
    let host = Host::start("server", &[]);
    in_time(async {
        let client = host.client().await;
        for _ in 0..20 {
            let error = service::awaiting(&host.name())
                .bind()
                .await
                .err()
                .expect("somebody listens there");
            let running = matches!(
                error,
                BindError::Socket(doorbell_shm::sys::BindError::AlreadyRunning { .. })
            );
            assert!(running, "{error:?}");
        }
        assert_eq!(client.call(Who).await.unwrap(), host.child.id());
        assert_eq!(
            host.client().await.call(Who).await.unwrap(),
            host.child.id(),
            "the name still leads to the first"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn socket_of_a_dead_server_is_replaced_by_one_of_many_that_try() {
    let mut host = Host::start("server", &[]);
    host.child.kill();
    assert!(host.place.socket().exists());
    in_time(async {
        let binding: Vec<_> = (0..8)
            .map(|_| {
                let name = host.name();
                tokio::spawn(async move { service::awaiting(&name).bind().await })
            })
            .collect();
        let mut servers = Vec::new();
        for server in binding {
            match server.await.unwrap() {
                Ok(server) => servers.push(server),
                Err(BindError::Socket(error)) => assert!(error.is_retryable(), "{error:?}"),
                Err(error) => panic!("{error:?}"),
            }
        }
        assert_eq!(servers.len(), 1, "one server has the name");
        assert_eq!(
            host.client().await.call(Who).await.unwrap(),
            std::process::id()
        );
        assert!(servers[0].shutdown(PATIENCE).await);
        assert!(
            !host.place.socket().exists(),
            "a server that ends removes its socket"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn death_of_the_server_ends_calls_at_once() {
    let mut host = Host::start("server", &[]);
    in_time(async {
        let client = host.client().await;
        let (one, two) = (
            client.call(Stuck).send().await.unwrap(),
            client.call(Gate).send().await.unwrap(),
        );
        let mut items = client.stream(StuckStream).await.unwrap();
        assert_eq!(items.next().await.unwrap().unwrap(), 1);
        let killed = Instant::now();
        host.child.kill();
        let one = one.await.unwrap_err();
        let two = two.await.unwrap_err();
        let stream = items.next().await.unwrap().unwrap_err();
        assert!(
            killed.elapsed() < Duration::from_secs(5),
            "death is an event, not a timeout"
        );
        for error in [one, two, stream] {
            assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
        }
    })
    .await;
}

/// A notification does not wait for a connection. However many are sent meanwhile, one task makes it, and then they arrive.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notifications_without_a_connection_start_one_attempt_together() {
    let place = Place::new();
    in_time(async {
        let client = Client::builder(place.name()).lazy().unwrap();
        let tasks = || {
            tokio::runtime::Handle::current()
                .metrics()
                .num_alive_tasks()
        };
        let before = tasks();
        for number in 0..1_000 {
            let error = client.notify(Remember(number)).unwrap_err();
            assert!(matches!(error, NotifyError::Call(_)), "{error}");
        }
        assert!(tasks() <= before + 1, "{} tasks", tasks());

        let _server = service::awaiting(&place.name()).bind().await.unwrap();
        while client.notify(Remember(7)).is_err() {
            client.ping().await.unwrap();
        }
        assert_eq!(client.call(Recall).await.unwrap(), [7]);
    })
    .await;
}

/// All on one thread: none may keep it from the one for whom they wait, and none may stop looking.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn tasks_that_wait_on_many_connections_are_answered_by_what_one_of_them_does() {
    let host = Host::start("server", &[]);
    in_time(async {
        let (mut waiting, mut callers) = (Vec::new(), Vec::new());
        for _ in 0..CROWD {
            let (one, other) = (host.client().await, host.client().await);
            waiting.push(tokio::spawn(async move { one.call(Gate).await }));
            callers.push(tokio::spawn(call_often(other)));
        }
        for caller in callers {
            caller.await.unwrap();
        }
        host.client().await.call(Open).await.unwrap();
        for waiting in waiting {
            assert_eq!(waiting.await.unwrap().unwrap(), 1);
        }
    })
    .await;
}

async fn call_often(client: Client) {
    for number in 0..CALLS_IN_A_CROWD {
        let (one, other) = tokio::join!(
            client.call(Add(number, 1)).into_future(),
            client.call(Add(number, 2)).send()
        );
        let sums = (one.unwrap(), other.unwrap().await.unwrap());
        assert_eq!(sums, (number + 1, number + 2));
    }
}

const CROWD: usize = 16;
const CALLS_IN_A_CROWD: u32 = 200;

//! Every kind of call between two processes, both kinds of client with both kinds of server.

mod support;

use std::time::Duration;

use doorbell::{Client, Code, Outcome, blocking};
use doorbell_testkit::{PATIENCE, descriptors, mappings, threads};
use support::{Host, in_time, messages::*};

/// From a part of a frame to several hundred frames; both sides of every limit between.
const SIZES: [usize; 9] = [
    0,
    64,
    4096,
    4097,
    16 << 10,
    (16 << 10) + 1,
    256 << 10,
    5_000_000,
    20 << 20,
];

#[test]
#[ignore = "the body of the child processes"]
fn child_process() {
    support::roles::run();
}

async fn every_kind_of_call(client: &Client, server: u32) {
    assert_eq!(
        client.call(Who).await.unwrap(),
        server,
        "the other process answers"
    );
    assert_eq!(client.call(Add(1, 2)).await.unwrap(), 3);
    let error = client.call(Add(u32::MAX, 2)).await.unwrap_err();
    assert_eq!(
        (error.code(), error.outcome()),
        (Code::OutOfRange, Outcome::Application)
    );

    let mut numbers = client.stream(Count(20_000)).await.unwrap();
    for expected in 0..20_000 {
        assert_eq!(numbers.next().await.unwrap().unwrap(), expected);
    }
    assert!(numbers.next().await.is_none());

    let mut upload = client.upload(Sum).await.unwrap();
    for number in 0..20_000 {
        upload.send(number).await.unwrap();
    }
    assert_eq!(upload.finish().await.unwrap(), (0..20_000_u64).sum::<u64>());

    let (mut out, mut doubled) = client.bidi(Double).await.unwrap();
    for number in 0..1000 {
        out.send(number).await.unwrap();
        assert_eq!(doubled.next().await.unwrap().unwrap(), number * 2);
    }
    out.finish();
    assert!(doubled.next().await.is_none());

    for number in 0..1000 {
        client.notify(Remember(number)).unwrap();
    }
    assert_eq!(
        client.call(Recall).await.unwrap(),
        (0..1000).collect::<Vec<_>>()
    );

    let described = client
        .call(Describe)
        .metadata("trace-id", [0, 255])
        .metadata("user", "me")
        .await
        .unwrap();
    assert_eq!(
        described,
        [
            ("trace-id".to_owned(), vec![0, 255]),
            ("user".to_owned(), b"me".to_vec())
        ]
    );
    assert_eq!(client.call(TimeLeft).await.unwrap(), None);
    let left = client
        .call(TimeLeft)
        .timeout(Duration::from_secs(60))
        .await
        .unwrap()
        .unwrap();
    assert!(
        (1..=60_000).contains(&left),
        "{left} ms are left of a minute"
    );

    for size in SIZES {
        let sent = pattern(size);
        assert!(
            client.call(Echo(sent.clone())).await.unwrap().0 == sent,
            "{size} bytes came back changed"
        );
    }
    client.ping().await.unwrap();
}

fn every_kind_of_call_of_threads(client: &blocking::Client, server: u32) {
    assert_eq!(
        client.call(Who).wait().unwrap(),
        server,
        "the other process answers"
    );
    assert_eq!(client.call(Add(1, 2)).wait().unwrap(), 3);
    let error = client.call(Add(u32::MAX, 2)).wait().unwrap_err();
    assert_eq!(
        (error.code(), error.outcome()),
        (Code::OutOfRange, Outcome::Application)
    );

    let numbers: Result<Vec<u32>, _> = client.stream(Count(20_000)).open().unwrap().collect();
    assert!(numbers.unwrap().into_iter().eq(0..20_000));

    let mut upload = client.upload(Sum).open().unwrap();
    for number in 0..20_000 {
        upload.send(number).unwrap();
    }
    assert_eq!(upload.finish().unwrap(), (0..20_000_u64).sum::<u64>());

    let (mut out, mut doubled) = client.bidi(Double).open().unwrap();
    for number in 0..1000 {
        out.send(number).unwrap();
        assert_eq!(doubled.next().unwrap().unwrap(), number * 2);
    }
    out.finish();
    assert!(doubled.next().is_none());

    for number in 0..1000 {
        client.notify(Remember(number)).unwrap();
    }
    assert_eq!(
        client.call(Recall).wait().unwrap(),
        (0..1000).collect::<Vec<_>>()
    );

    let described = client
        .call(Describe)
        .metadata("trace-id", [0, 255])
        .wait()
        .unwrap();
    assert_eq!(described, [("trace-id".to_owned(), vec![0, 255])]);
    assert_eq!(client.call(TimeLeft).wait().unwrap(), None);
    let left = client
        .call(TimeLeft)
        .timeout(Duration::from_secs(60))
        .wait()
        .unwrap()
        .unwrap();
    assert!(
        (1..=60_000).contains(&left),
        "{left} ms are left of a minute"
    );

    for size in SIZES {
        let sent = pattern(size);
        assert!(
            client.call(Echo(sent.clone())).wait().unwrap().0 == sent,
            "{size} bytes came back changed"
        );
    }
    client.ping(PATIENCE).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_call_reaches_a_server_of_tasks() {
    let host = Host::start("server", &[]);
    in_time(async { every_kind_of_call(&host.client().await, host.child.id()).await }).await;
    host.child.finish();
}

#[tokio::test(flavor = "current_thread")]
async fn every_kind_of_call_reaches_a_server_of_tasks_from_a_current_thread_runtime() {
    let host = Host::start("server", &[]);
    in_time(async { every_kind_of_call(&host.client().await, host.child.id()).await }).await;
    host.child.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_call_reaches_a_server_of_threads() {
    let host = Host::start("server-of-threads", &[]);
    in_time(async { every_kind_of_call(&host.client().await, host.child.id()).await }).await;
    host.child.finish();
}

#[test]
fn every_kind_of_call_of_a_thread_reaches_a_server_of_tasks() {
    let host = Host::start("server", &[]);
    every_kind_of_call_of_threads(
        &blocking::Client::connect(host.name()).unwrap(),
        host.child.id(),
    );
    host.child.finish();
}

#[test]
fn every_kind_of_call_of_a_thread_reaches_a_server_of_threads() {
    let host = Host::start("server-of-threads", &[]);
    every_kind_of_call_of_threads(
        &blocking::Client::connect(host.name()).unwrap(),
        host.child.id(),
    );
    host.child.finish();
}

/// A reply that does not fit into one frame frees its call's place with its last frame. A call that another thread starts there just
/// then must not come between the reply and its caller.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn divided_replies_reach_their_callers_while_others_start_calls() {
    let host = Host::start("server", &[]);
    let client = host.client().await;
    let payload = pattern((16 << 10) + 100);
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (client, payload) = (client.clone(), payload.clone());
        callers.spawn(async move {
            for number in 0..2000 {
                let echoed = client.call(Echo(payload.clone())).await.unwrap();
                assert_eq!(echoed.0, payload);
                assert_eq!(client.call(Add(number, 1)).await.unwrap(), number + 1);
            }
        });
    }
    in_time(callers.join_all()).await;
    host.child.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_have_ended_leave_nothing_in_the_server() {
    let host = Host::start("server", &[]);
    in_time(async {
        let witness = host.client().await;
        witness.call(Add(1, 1)).await.unwrap();
        let held = || {
            (
                descriptors(host.child.id()),
                mappings(host.child.id()),
                threads(host.child.id()),
            )
        };
        let before = held();
        for _ in 0..20 {
            let client = host.client().await;
            assert_eq!(client.call(Add(1, 1)).await.unwrap(), 2);
            let mut numbers = client.stream(Count(1000)).await.unwrap();
            numbers.next().await.unwrap().unwrap();
        }
        doorbell_testkit::eventually("the server gives everything back", || held() == before);
        assert_eq!(witness.call(Add(1, 1)).await.unwrap(), 2);
    })
    .await;
}

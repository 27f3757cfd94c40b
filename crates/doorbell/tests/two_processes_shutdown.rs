//! A server that ends in good order: what is under way ends first, nothing new begins.

mod support;

use doorbell::{CallError, Client, Code, Outcome};
use doorbell_testkit::PATIENCE;
use support::{Host, SHORT, in_time, messages::*, server_has_seen};

#[test]
#[ignore = "the body of the child processes"]
fn child_process() {
    support::roles::run();
}

/// A client that does not wait for another server when this one has gone.
async fn impatient(host: &Host) -> Client {
    Client::builder(host.name())
        .reconnect_timeout(SHORT)
        .connect()
        .await
        .unwrap()
}

fn shut_down(host: &mut Host, limit: std::time::Duration) {
    host.child.tell(&format!("shutdown {}", limit.as_millis()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn call_under_way_ends_with_its_answer_while_new_ones_are_not_executed() {
    let mut host = Host::start("server", &[]);
    in_time(async {
        let (client, opener) = (impatient(&host).await, impatient(&host).await);
        let pending = client.call(Gate).send().await.unwrap();
        // A stream lives on through the drain, so that the test has something to open the gate with.
        let (mut out, mut doubled) = opener.bidi(Double).await.unwrap();
        out.send(1).await.unwrap();
        assert_eq!(doubled.next().await.unwrap().unwrap(), 2, "it has begun");
        server_has_seen(
            &client,
            Seen {
                started: 1,
                ..Seen::default()
            },
        )
        .await;
        shut_down(&mut host, PATIENCE);

        let refused = loop {
            match client.call(Add(1, 2)).await {
                Ok(sum) => assert_eq!(sum, 3, "the shutdown has not begun yet"),
                Err(error) => break error,
            }
        };
        assert_eq!(
            (refused.outcome(), refused.code()),
            (Outcome::NotExecuted, Code::Unavailable),
            "{refused:?}"
        );
        assert!(refused.is_retryable(), "{refused:?}");

        out.send(21).await.unwrap();
        assert_eq!(
            doubled.next().await.unwrap().unwrap(),
            42,
            "a stream under way goes on"
        );
        drop((out, pending)); // the last calls end
        assert!(doubled.next().await.is_none());
        assert_eq!(host.child.hear("DRAINED"), "true");
        assert!(!host.place.socket().exists(), "its socket is gone");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_come_within_the_limit_arrive() {
    let mut host = Host::start("server", &[]);
    in_time(async {
        let client = impatient(&host).await;
        let sent = pattern(20 << 20);
        let large = tokio::spawn(client.call(Echo(sent.clone())).send().await.unwrap());
        let mut numbers = client.stream(Count(50_000)).await.unwrap();
        assert_eq!(
            numbers.next().await.unwrap().unwrap(),
            0,
            "the handler has begun"
        );
        shut_down(&mut host, PATIENCE);
        for expected in 1..50_000 {
            assert_eq!(numbers.next().await.unwrap().unwrap(), expected);
        }
        assert!(numbers.next().await.is_none());
        // Its first frame came before the other call, so it was under way, though perhaps not complete.
        assert!(large.await.unwrap().unwrap().0 == sent);
        assert_eq!(host.child.hear("DRAINED"), "true");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handler_that_never_ends_is_cut_off_at_the_limit() {
    let mut host = Host::start("server", &[]);
    in_time(async {
        let client = impatient(&host).await;
        let pending = client.call(Stuck).send().await.unwrap();
        server_has_seen(
            &client,
            Seen {
                started: 1,
                ..Seen::default()
            },
        )
        .await;
        shut_down(&mut host, SHORT);
        let error = pending.await.unwrap_err();
        assert!(matches!(error, CallError::Disconnected(_)), "{error:?}");
        assert_eq!(error.outcome(), Outcome::Unknown);
        assert_eq!(host.child.hear("DRAINED"), "false");
        let error = client.call(Add(1, 2)).await.unwrap_err();
        assert_eq!(error.outcome(), Outcome::NotExecuted, "{error:?}");
        assert!(error.is_retryable(), "{error:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_without_calls_ends_at_once() {
    let mut host = Host::start("server", &[]);
    in_time(async {
        let client = impatient(&host).await;
        assert_eq!(client.call(Add(1, 2)).await.unwrap(), 3);
        shut_down(&mut host, PATIENCE * 10);
        assert_eq!(host.child.hear("DRAINED"), "true");
        assert!(doorbell::Client::connect(host.name()).await.is_err());
    })
    .await;
}

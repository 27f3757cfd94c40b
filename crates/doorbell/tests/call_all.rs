//! Many calls in one go: each is answered as if it had been made alone, in the order of the messages.

mod support;

use bytes::Bytes;
use doorbell::{
    CallError, Client, Code, Context, DecodeError, EncodeError, Incoming, Message, MessageType,
    Outcome, Payload, Server, Status, blocking,
};
use doorbell_testkit::{PATIENCE, Place};
use support::{Host, SHORT, in_time, messages::*, server_has_seen};

#[test]
#[ignore = "the body of the child processes"]
fn child_process() {
    support::roles::run();
}

const MANY: u32 = 20_000;

/// Every seventh sum is out of range.
fn sums() -> impl Iterator<Item = Add> + Send {
    (0..MANY).map(|n| Add(n, if n % 7 == 6 { u32::MAX } else { 1 }))
}

#[track_caller]
fn check(n: u32, sum: Result<u32, CallError>) {
    match sum {
        Ok(sum) => assert_eq!((sum, n % 7 == 6), (n + 1, false)),
        Err(error) => assert_eq!((error.code(), n % 7), (Code::OutOfRange, 6), "{n}: {error}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_come_in_the_order_of_the_messages_errors_among_them() {
    for role in ["server", "server-of-threads"] {
        let host = Host::start(role, &[]);
        in_time(async {
            let client = host.client().await;
            let mut replies = client.call_all(sums()).await.unwrap();
            for n in 0..MANY {
                check(n, replies.next().await.unwrap());
            }
            assert!(replies.next().await.is_none());
            assert!(replies.next().await.is_none());
        })
        .await;
    }
}

#[test]
fn replies_to_a_thread_come_in_order_too_with_any_window() {
    let host = Host::start("server", &[]);
    let client = blocking::Client::connect(host.name()).unwrap();
    for window in [0, 1, 2, 15, 16, 17, 100_000] {
        let mut replies = client.call_all(sums()).window(window).open().unwrap();
        for n in 0..MANY {
            check(n, replies.next().unwrap());
        }
        assert!(replies.next().is_none());
    }
    assert!(
        client
            .call_all([Add(0, 0); 0])
            .open()
            .unwrap()
            .next()
            .is_none()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_messages_may_be_among_them() {
    let host = Host::start("server", &[]);
    in_time(async {
        let client = host.client().await;
        let sizes = || (0..300).map(|n| [0, 1, 64, 600, 5_000, 40_000, 1 << 20][n % 7]);
        let echoes = sizes().map(|size| Echo(pattern(size)));
        let mut replies = client.call_all(echoes).await.unwrap();
        for size in sizes() {
            let reply = replies.next().await.unwrap().unwrap();
            assert!(reply.0 == pattern(size), "{size} bytes");
        }
        assert!(replies.next().await.is_none());
    })
    .await;
}

/// Encoded as it is; some sizes cannot be, some are answered with many bytes, and some replies cannot be encoded.
#[derive(Debug)]
struct Odd(Vec<u8>);
impl Message for Odd {
    const TYPE: MessageType = MessageType::new(70);
    type Reply = OddReply;
}

struct OddReply(Vec<u8>);

const UNENCODABLE: u8 = 1;
const UNENCODABLE_REPLY: u8 = 2;
const PANICS: u8 = 3;
const TOO_LARGE: u8 = 4;
const LARGE_REPLY: u8 = 5;
/// A reply that gives its buffer away.
const LARGE_BYTES: usize = 100_000;
const MAX_BYTES: u64 = 200_000;

impl Payload for Odd {
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.extend_from_slice(&self.0);
        match self.0[0] {
            UNENCODABLE => Err(EncodeError::new("a number that cannot be said")),
            TOO_LARGE => {
                out.extend(std::iter::repeat_n(0, MAX_BYTES as usize));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn decode(bytes: Incoming<'_>) -> Result<Self, DecodeError> {
        Ok(Self(bytes.as_slice().to_vec()))
    }
}

impl Payload for OddReply {
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.extend_from_slice(&self.0);
        match self.0[0] {
            UNENCODABLE_REPLY => Err(EncodeError::new("an answer that cannot be said")),
            PANICS => panic!("an answer that panics"),
            _ => Ok(()),
        }
    }

    fn decode(bytes: Incoming<'_>) -> Result<Self, DecodeError> {
        Ok(Self(bytes.as_slice().to_vec()))
    }
}

async fn odd_server(place: &Place) -> Server {
    Server::builder(place.name())
        .max_message_bytes(MAX_BYTES)
        .on(|_: Context, mut odd: Odd| async move {
            if odd.0[0] == LARGE_REPLY {
                odd.0.resize(LARGE_BYTES, LARGE_REPLY);
            }
            Ok::<_, Status>(OddReply(odd.0))
        })
        .bind()
        .await
        .unwrap()
}

/// What goes wrong with one of them, on either side, while others lie in the same buffers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_goes_wrong_costs_no_other_its_answer() {
    let place = Place::new();
    in_time(async {
        let _server = odd_server(&place).await;
        let client = Client::connect(place.name()).await.unwrap();
        let odd = |n: u32| {
            let [.., low, kind] = (n * 0x0101).to_be_bytes();
            Odd(vec![
                if n.is_multiple_of(3) { kind % 6 } else { 0 },
                low,
                kind,
            ])
        };
        let mut replies = client.call_all((0..5_000).map(odd)).await.unwrap();
        for n in 0..5_000 {
            let sent = odd(n).0;
            let reply = replies.next().await.unwrap();
            let what = match &reply {
                Ok(reply) => Ok((&reply.0[..3], reply.0.len())),
                Err(error) => Err((error.code(), error.outcome())),
            };
            match sent[0] {
                UNENCODABLE => assert_eq!(what, Err((Code::Internal, Outcome::NotExecuted))),
                UNENCODABLE_REPLY | PANICS => {
                    assert_eq!(what, Err((Code::Internal, Outcome::Application)));
                }
                TOO_LARGE => {
                    assert_eq!(what, Err((Code::ResourceExhausted, Outcome::NotExecuted)));
                }
                LARGE_REPLY => {
                    assert_eq!(what, Ok((&sent[..], LARGE_BYTES)));
                }
                _ => assert_eq!(what, Ok((&sent[..], 3))),
            }
        }
        assert!(replies.next().await.is_none());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn window_beyond_what_the_server_takes_is_made_do_with() {
    let place = Place::new();
    in_time(async {
        let server = Server::builder(place.name()).max_calls(8);
        let handler = |_: Context, echo: Echo| async move {
            tokio::task::yield_now().await; // on the runtime, so that the worker reads on
            Ok::<_, Status>(doorbell::Raw(echo.0))
        };
        let _server = server.on(handler).bind().await.unwrap();
        let client = Client::connect(place.name()).await.unwrap();
        let number = |n: u32| Bytes::copy_from_slice(&n.to_le_bytes());
        let echoes = (0..2_000).map(|n| Echo(number(n)));
        let mut replies = client.call_all(echoes).window(1_000).await.unwrap();
        for n in 0..2_000 {
            assert_eq!(replies.next().await.unwrap().unwrap().0, number(n));
        }
        assert!(replies.next().await.is_none());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_the_replies_cancels_what_is_under_way() {
    let host = Host::start("server", &[]);
    in_time(async {
        let client = host.client().await;
        let mut replies = client.call_all([Stuck; 40]).window(30).await.unwrap();
        let waited = tokio::time::timeout(SHORT, replies.next()).await;
        assert!(waited.is_err(), "it is never answered");
        let started = Seen {
            started: 30,
            ..Seen::default()
        };
        server_has_seen(&client, started).await;
        drop(replies);
        let dropped = Seen {
            dropped: 30,
            ..started
        };
        server_has_seen(&client, dropped).await;
        assert_eq!(client.call(Look).await.unwrap().started, 30, "and no more");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deadline_ends_what_is_under_way_and_keeps_the_rest_from_being_sent() {
    let host = Host::start("server", &[]);
    let expired = |reply: Option<Result<(), CallError>>| {
        matches!(reply, Some(Err(CallError::DeadlineExceeded)))
    };
    let too_late = |reply: Option<Result<(), CallError>>| {
        matches!(reply, Some(Err(CallError::DeadlineBeforeSend)))
    };
    in_time(async {
        let client = host.client().await;
        let calls = client.call_all([Stuck; 40]).window(20).timeout(SHORT);
        let mut replies = calls.await.unwrap();
        for _ in 0..20 {
            assert!(expired(replies.next().await));
        }
        assert!(too_late(replies.next().await));
        assert!(replies.next().await.is_none());
    })
    .await;
    let client = blocking::Client::connect(host.name()).unwrap();
    let calls = client.call_all([Stuck; 40]).window(20).timeout(SHORT);
    let mut replies = calls.open().unwrap();
    for _ in 0..20 {
        assert!(expired(replies.next()));
    }
    assert!(too_late(replies.next()));
    assert!(replies.next().is_none());
}

/// Each call has an outcome, and there is an end, although the messages have none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn death_of_the_server_ends_all_of_them() {
    let mut host = Host::start("server", &[]);
    in_time(async {
        let client = host.client().await;
        let mut replies = client.call_all((0..).map(|n| Add(n, 1))).await.unwrap();
        for n in 0..1_000 {
            assert_eq!(replies.next().await.unwrap().unwrap(), n + 1);
        }
        host.child.kill();
        let mut expected = 1_000;
        let mut failures = 0;
        while let Some(reply) = replies.next().await {
            match reply {
                Ok(sum) => {
                    expected += 1;
                    assert_eq!(
                        (sum, failures),
                        (expected, 0),
                        "answers come before failures"
                    );
                }
                Err(error) => {
                    failures += 1;
                    assert_eq!(error.code(), Code::Unavailable, "{error}");
                }
            }
        }
        assert!(failures > 0);
        drop(replies);
        host.restart("server");
        assert_eq!(client.call(Add(1, 2)).timeout(PATIENCE).await.unwrap(), 3);
    })
    .await;
}

//! Peers that break the protocol: it costs them their connection, and nobody else anything.

mod support;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use doorbell::{
    CallError, Client, ConnectError, Disconnected, Message as _, Outcome, RefuseReason, Violation,
    blocking,
};
use doorbell_proto::{
    frame::{CallId, Flags, FrameHeader, FrameKind},
    handshake::{Message, VersionRange},
};
use doorbell_shm::{memory::OwnMemory as _, sys::Doorbell};
use doorbell_testkit::{
    PATIENCE, Place, RawClient, RawControl, RawServer, descriptors, eventually, mappings,
};
use support::{Host, in_time, messages::*};

#[test]
#[ignore = "the body of the child processes"]
fn child_process() {
    support::roles::run();
}

/// Runs a test with a server and a client that has nothing to do with it, and must not be disturbed. Afterwards the server
/// holds what it held before.
async fn with_witness(settings: &[(&str, &str)], test: impl AsyncFnOnce(&Host)) {
    let host = Host::start("server", settings);
    in_time(async {
        let witness = host.client().await;
        let gate = witness.call(Gate).send().await.unwrap();
        witness.ping().await.unwrap();
        let held = || (descriptors(host.child.id()), mappings(host.child.id()));
        let before = held();
        test(&host).await;
        assert_eq!(
            witness.call(Who).await.unwrap(),
            host.child.id(),
            "the same server answers"
        );
        witness.call(Open).await.unwrap();
        assert_eq!(
            gate.await.unwrap(),
            1,
            "the call that was under way all the time is answered"
        );
        eventually("the server gives everything back", || held() == before);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_of_another_version_is_refused_with_the_versions_of_both() {
    with_witness(&[], async |host| {
        let control = RawControl::connect(&host.place.socket());
        let hello = doorbell_proto::handshake::Hello {
            versions: VersionRange { min: 99, max: 99 },
            ..RawControl::hello()
        };
        control.send(&Message::Hello(hello).encode());
        let refused = control.refusal();
        assert_eq!(refused.reason, RefuseReason::Version);
        assert_eq!(refused.versions, VersionRange { min: 1, max: 1 });
        assert!(!refused.reason.is_retryable());
        assert!(refused.text.contains("99"), "{refused}");
        control.wait_for_end();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_of_another_version_is_an_error_that_names_it() {
    let place = Place::new();
    in_time(async {
        let listener = RawServer::listen(&place.socket());
        let name = place.name();
        let connecting = tokio::spawn(Client::connect(name.clone()));
        let (control, hello) = RawServer::greet(&listener);
        let mut welcome = RawServer::welcome(&hello);
        welcome.version = 99;
        control.send(&Message::Welcome(welcome).encode()).unwrap();
        let error = connecting.await.unwrap().unwrap_err();
        assert!(matches!(error, ConnectError::Handshake { .. }), "{error:?}");
        assert!(!error.is_retryable());
        assert!(error.to_string().contains("99"), "{error}");

        let connecting = tokio::spawn(Client::connect(name));
        let (control, _) = RawServer::greet(&listener);
        let refused = doorbell_proto::handshake::Refused {
            reason: RefuseReason::Version,
            versions: VersionRange { min: 7, max: 9 },
            text: "the client speaks 1".to_owned(),
        };
        control.send(&Message::Refused(refused).encode()).unwrap();
        let error = connecting.await.unwrap().unwrap_err();
        assert!(
            matches!(
                error,
                ConnectError::Refused {
                    reason: RefuseReason::Version,
                    ..
                }
            ),
            "{error:?}"
        );
        assert!(!error.is_retryable());
        assert!(
            error.to_string().contains("7 to 9"),
            "it does not say what the server speaks: {error}"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_on_the_control_socket_is_malformed() {
    with_witness(&[], async |host| {
        let truncated = &Message::Hello(RawControl::hello()).encode()[..12];
        let after = [Message::Hello(RawControl::hello()).encode(), vec![0]].concat();
        let too_long = [b"DRBLCTL1".as_slice(), &u32::MAX.to_le_bytes(), &[1]].concat();
        for garbage in [
            b"GET / HTTP/1.1\r\n\r\n".as_slice(),
            &[0; 64],
            &after,
            &too_long,
        ] {
            let control = RawControl::connect(&host.place.socket());
            control.send(garbage);
            let refused = control.refusal();
            assert_eq!(refused.reason, RefuseReason::Malformed, "{refused}");
            assert!(!refused.text.is_empty(), "it says what was wrong");
            control.wait_for_end();
        }
        // Half a hello and a hang-up: nobody is there to be told.
        let control = RawControl::connect(&host.place.socket());
        control.send(truncated);
        drop(control);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_that_says_nothing_is_sent_away_and_holds_nobody_up() {
    with_witness(&[("handshake_timeout", "200")], async |host| {
        let silent: Vec<RawControl> = (0..20)
            .map(|_| RawControl::connect(&host.place.socket()))
            .collect();
        for number in 0..20 {
            let client = host.client().await; // while twenty others say nothing
            assert_eq!(client.call(Add(number, 1)).await.unwrap(), number + 1);
        }
        for control in silent {
            let refused = control.refusal();
            assert_eq!(refused.reason, RefuseReason::Malformed);
            assert!(
                refused.text.contains("no complete hello in time"),
                "{refused}"
            );
            control.wait_for_end();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn descriptors_sent_with_a_hello_are_not_taken() {
    with_witness(&[], async |host| {
        for _ in 0..50 {
            let control = RawControl::connect(&host.place.socket());
            let (one, two) = Doorbell::pair(doorbell_shm::sys::DoorbellKind::Event).unwrap();
            let handles = [
                one.as_handle(),
                two.as_handle(),
                one.as_handle(),
                two.as_handle(),
            ];
            let hello = Message::Hello(RawControl::hello()).encode();
            // A kernel that can refuse them does so at once.
            if control.0.send_with_handles(&hello, &handles).is_ok() {
                let _ = control.answer();
            }
        }
    })
    .await;
}

/// Lets a client do something wrong and waits for its connection to be closed.
async fn is_thrown_out(wrong: impl Fn(&mut RawClient)) {
    with_witness(&[], async |host| {
        let mut client = RawClient::connect(&host.place.socket());
        client.ping(1);
        wrong(&mut client);
        client.wait_for_end();
        let fresh = host.client().await;
        assert_eq!(
            fresh.call(Add(1, 2)).await.unwrap(),
            3,
            "the server takes new clients"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tail_beyond_the_ring_costs_the_connection() {
    is_thrown_out(|client| client.publish(client.welcome.client_ring_capacity_bytes * 3)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tail_that_goes_back_costs_the_connection() {
    is_thrown_out(|client| client.publish(0)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn misaligned_tail_costs_the_connection() {
    is_thrown_out(|client| client.publish(24 + 3)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_checksum_costs_the_connection() {
    is_thrown_out(|client| {
        let header = FrameHeader {
            length: 8,
            flags: Flags::BODY_CRC,
            ..FrameHeader::new(FrameKind::Notify, 0, 5)
        };
        client.push(&RawClient::seal(header, &[1; 8]), &[2; 8]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_kind_of_frame_costs_the_connection() {
    is_thrown_out(|client| {
        let mut header = FrameHeader::new(FrameKind::Ping, 2, 0).encode();
        header[4] = 200;
        client.push(&RawClient::seal_bytes(header, &[]), &[]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reserved_flag_costs_the_connection() {
    is_thrown_out(|client| {
        let header = FrameHeader {
            flags: Flags::from_bits(0x80),
            ..FrameHeader::new(FrameKind::Ping, 2, 0)
        };
        client.push(&RawClient::seal(header, &[]), &[]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frame_longer_than_what_is_published_costs_the_connection() {
    is_thrown_out(|client| {
        let header = FrameHeader {
            length: 60_000,
            ..FrameHeader::new(FrameKind::Notify, 0, 5)
        };
        client.push(&RawClient::seal(header, &[]), &[]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frame_of_a_server_costs_a_client_its_connection() {
    is_thrown_out(|client| {
        let header = FrameHeader::new(
            FrameKind::Response,
            doorbell_proto::CallId::new(0, 1).raw(),
            1,
        );
        client.push(&RawClient::seal(header, &[]), &[]);
    })
    .await;
}

/// Lets a server do something wrong while a task and a thread wait for replies; returns what the two get.
async fn answer_wrongly(wrong: impl Fn(&mut RawServer)) -> [CallError; 2] {
    let place = Place::new();
    in_time(async {
        let listener = RawServer::listen(&place.socket());
        let name = place.name();
        let of_task =
            tokio::spawn(async move { Client::connect(name).await.unwrap().call(Add(1, 2)).await });
        let mut server = RawServer::accept(&listener);
        server.wait_for_frame();
        wrong(&mut server);
        server.wait_for_end();
        let of_task = of_task.await.unwrap().unwrap_err();

        let name = place.name();
        let of_thread = std::thread::spawn(move || {
            blocking::Client::connect(name)
                .unwrap()
                .call(Add(1, 2))
                .wait()
        });
        let mut server = RawServer::accept(&listener);
        server.wait_for_frame();
        wrong(&mut server);
        server.wait_for_end();
        [of_task, of_thread.join().unwrap().unwrap_err()]
    })
    .await
}

fn violation(error: &CallError) -> &Violation {
    assert_eq!(error.outcome(), Outcome::Unknown, "{error:?}");
    assert!(!error.is_retryable());
    match error {
        CallError::Disconnected(Disconnected::Protocol(violation)) => violation,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_names_the_position_that_its_server_corrupted() {
    for error in answer_wrongly(|server| server.publish(1 << 30)).await {
        assert!(matches!(violation(&error), Violation::Ring(_)), "{error:?}");
        assert!(
            error.to_string().contains("the peer moved its tail from 0"),
            "{error}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_names_the_frame_that_its_server_corrupted() {
    let wrong = |server: &mut RawServer| {
        let mut header = RawClient::seal(FrameHeader::new(FrameKind::Pong, 1, 0), &[]);
        header[23] ^= 1;
        server.push(&header, &[]);
    };
    for error in answer_wrongly(wrong).await {
        assert!(
            matches!(violation(&error), Violation::Checksum { .. }),
            "{error:?}"
        );
        assert!(error.to_string().contains("checksum"), "{error}");
    }
    let wrong = |server: &mut RawServer| {
        let header = FrameHeader::new(FrameKind::Pong, 1, 0).encode();
        server.push(
            &RawClient::seal_bytes(
                [&header[..4], &[99], &header[5..]]
                    .concat()
                    .try_into()
                    .unwrap(),
                &[],
            ),
            &[],
        );
    };
    for error in answer_wrongly(wrong).await {
        assert!(
            matches!(violation(&error), Violation::Frame(_)),
            "{error:?}"
        );
        assert!(error.to_string().contains("99"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_that_hangs_up_and_goes_on_writing_holds_nobody_up() {
    let host = Host::start("server", &[]);
    in_time(async {
        let witness = host.client().await;
        witness.ping().await.unwrap();
        // A large ring, so that there is always something left to read.
        let hello = doorbell_proto::handshake::Hello {
            ring_capacity_bytes: 4 << 20,
            ..RawControl::hello()
        };
        let mut flood = RawControl::connect(&host.place.socket()).finish_with(hello);
        // A request that is too large: the server ends the call, and ignores the rest of the request as it comes.
        let id = CallId::new(0, 1).raw();
        let mut first = FrameHeader::new(FrameKind::Call, id, Echo::TYPE.get());
        first.flags.insert(Flags::MORE);
        // Like the frames that follow, it takes a multiple of 32 bytes: each lap of the ring lies where the last one lay.
        flood.send(
            first,
            &[u64::MAX.to_le_bytes().as_slice(), &[0; 32]].concat(),
        );
        let mut rest = FrameHeader::new(FrameKind::Call, id, Echo::TYPE.get());
        rest.flags.insert(Flags::CONTINUE);
        rest.flags.insert(Flags::MORE);
        rest.length = 8;
        let rest = RawClient::seal(rest, &[0; 8]);

        let over = Arc::new(AtomicBool::new(false));
        let (hung_up, has_hung_up) = tokio::sync::oneshot::channel();
        let flooding = std::thread::spawn({
            let over = Arc::clone(&over);
            move || {
                let in_two_laps = flood.welcome.client_ring_capacity_bytes / 32 * 2;
                for _ in 0..in_two_laps {
                    while !flood.write(&rest, &[0; 8]) {
                        flood.publish_quietly();
                        flood.ring();
                    }
                }
                flood.publish_again();
                flood.hang_up();
                hung_up.send(()).unwrap();
                while !over.load(Ordering::Relaxed) {
                    flood.publish_again();
                }
            }
        });
        has_hung_up.await.unwrap();
        for _ in 0..10 {
            let answered = witness.call(Who).timeout(PATIENCE / 6);
            assert_eq!(answered.await.unwrap(), host.child.id());
        }
        eventually("the server lets go of it", || {
            mappings(host.child.id()) == 3
        });
        over.store(true, Ordering::Relaxed);
        flooding.join().unwrap();
    })
    .await;
}

/// A reply comes together with an impossible position. It counts, and the connection ends.
#[test]
fn reply_beside_a_corrupt_position_reaches_its_caller() {
    let place = Place::new();
    let listener = RawServer::listen(&place.socket());
    let name = place.name();
    let connecting = std::thread::spawn(move || blocking::Client::connect(name).unwrap());
    let mut server = RawServer::accept(&listener);
    let client = connecting.join().unwrap();
    client.notify(Echo(pattern(1 << 20))).unwrap(); // more than there is room for: taking the reply means looking for room
    client.notify(Remember(1)).unwrap();
    let mut reply = FrameHeader::new(FrameKind::Response, CallId::new(1, 1).raw(), 0);
    reply.length = 1;
    server.write(&RawClient::seal(reply, &[7]), &[7]);
    server.own.store_head(0xF000_0000);
    assert_eq!(client.call(Who).timeout(PATIENCE).wait().unwrap(), 7);
    server.wait_for_end();
}

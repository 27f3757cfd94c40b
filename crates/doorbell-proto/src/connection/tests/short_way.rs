//! The short way of small requests and replies: open where the general one would take them, closed otherwise.

use super::*;

/// A server that has answered one call of slot 0.
fn used_server() -> Connection {
    let mut server = machine(Role::Server);
    open_call(&mut server, id(0, 1), CallKind::Unary);
    assert!(server.finish(id(0, 1)));
    server
}

#[test]
fn request_for_the_next_call_of_a_used_slot_takes_the_short_way() {
    let mut server = used_server();
    assert!(server.take_request(id(0, 2), 100));
    assert!(server.is_active(id(0, 2)) && server.finish(id(0, 2)));
    assert!(server.take_request(id(0, 3), 0));
}

#[test]
fn request_that_needs_a_second_look_does_not_take_the_short_way() {
    let mut server = used_server();
    assert!(
        !server.take_request(id(1, 1), 1),
        "a slot is used for the first time"
    );
    assert!(!server.take_request(id(4, 1), 1), "there is no such slot");
    for generation in [0, 1, 3, u32::MAX] {
        assert!(!server.take_request(id(0, generation), 1), "{generation}");
    }
    assert!(!server.take_request(id(0, 2), 101), "it is too large");
    assert!(!server.is_active(id(0, 2)));

    assert!(server.take_request(id(0, 2), 1));
    assert!(
        !server.take_request(id(0, 3), 1),
        "the call before is under way"
    );
    assert!(server.finish_and_hold(id(0, 2)));
    assert!(!server.take_request(id(0, 3), 1), "its answer waits");
    server.release(id(0, 2));
    assert!(server.take_request(id(0, 3), 1));
    assert!(server.fail(id(0, 3), Status::internal("no")));
    assert!(!server.take_request(id(0, 4), 1), "its error waits");
    assert_eq!(only_control(&mut server).0, FrameKind::Error);
    assert!(server.take_request(id(0, 4), 1));
    assert!(server.finish(id(0, 4)));

    server.go_away(GoAwayReason::ShuttingDown, "");
    assert!(server.take_request(id(0, 5), 1), "the server leaves");
    assert!(server.finish(id(0, 5)));
    server.refuse_new();
    assert!(!server.take_request(id(0, 6), 1), "it comes too late");
    server.handle_closed();
    assert!(
        !server.take_request(id(0, 6), 1),
        "the connection has ended"
    );
}

#[test]
fn reply_to_a_call_under_way_takes_the_short_way_once() {
    let mut client = machine(Role::Client);
    let call = client.start_call(CallKind::Unary, None).unwrap();
    assert!(!client.take_reply(call, 101), "it is too large");
    assert!(!client.take_reply(id(call.slot(), call.generation() + 1), 1));
    assert!(!client.take_reply(id(call.slot() + 1, call.generation()), 1));
    assert!(client.take_reply(call, 100));
    assert!(!client.is_active(call) && !client.take_reply(call, 1));
}

#[test]
fn reply_that_needs_a_second_look_does_not_take_the_short_way() {
    let mut client = machine(Role::Client);
    let streaming = client.start_call(CallKind::ServerStream, None).unwrap();
    assert!(!client.take_reply(streaming, 1), "it is answered by items");
    let given_up = client.start_call(CallKind::Unary, None).unwrap();
    assert!(client.cancel(given_up));
    assert!(!client.take_reply(given_up, 1), "nobody wants it any more");
    let divided = client.start_call(CallKind::Unary, None).unwrap();
    let first = (20, &b"0123456789"[..]);
    feed_first(
        &mut client,
        FrameKind::Response,
        Flags::NONE,
        (divided, 7),
        first,
    )
    .unwrap();
    assert!(!client.take_reply(divided, 1), "half of another has come");
}

#[test]
fn nobody_answers_their_own_calls_or_calls_backwards() {
    let mut server = used_server();
    assert!(server.take_request(id(0, 2), 1));
    assert!(!server.take_reply(id(0, 2), 1));
    let mut client = machine(Role::Client);
    let call = client.start_call(CallKind::Unary, None).unwrap();
    assert!(client.take_reply(call, 1));
    assert!(!client.take_request(id(call.slot(), call.generation() + 1), 1));
}

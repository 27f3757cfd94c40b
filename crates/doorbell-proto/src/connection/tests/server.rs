//! Calls at a server.

use super::*;

#[test]
fn call_is_handed_out_as_a_request_with_its_deadline() {
    let mut server = machine(Role::Server);
    let prefix = Prefix {
        remaining: Some(Duration::from_nanos(50)),
        ..Prefix::default()
    };
    let mut header = FrameHeader::new(FrameKind::Call, id(0, 1).raw(), 7);
    assert!(prefix.set_header(&mut header, 2));
    let mut body = Vec::new();
    prefix.encode(&mut body);
    body.extend_from_slice(b"hi");
    let deadline = NOW.saturating_add(Duration::from_nanos(50));
    let expected = Event::Request {
        id: id(0, 1),
        kind: CallKind::Unary,
        message_type: MessageType::new(7),
        deadline: Some(deadline),
        metadata: None,
        payload: Payload::Borrowed(b"hi"),
    };
    assert_eq!(server.handle_frame(NOW, &header, &body), Ok(expected));
    assert_eq!(server.poll_timeout(), Some(deadline));
    assert_eq!(
        server.handle_timeout(deadline),
        Some(Expired { id: id(0, 1) })
    );
    let status = only_error(&mut server);
    assert_eq!(
        (status.code(), status.was_executed()),
        (Code::DeadlineExceeded, true)
    );
    assert!(!server.finish(id(0, 1)));
}

#[test]
fn call_outside_the_table_is_rejected() {
    let mut server = machine(Role::Server);
    for kind in [FrameKind::Call, FrameKind::Cancel] {
        let result = feed(&mut server, kind, Flags::NONE, (id(4, 1), 0), b"");
        assert_eq!(
            result,
            Err(ProtocolError::SlotOutOfRange {
                kind,
                slot: 4,
                max_calls: 4
            })
        );
    }
}

#[test]
fn call_with_another_than_the_next_generation_is_rejected() {
    let mut server = machine(Role::Server);
    for generation in [0, 2, u32::MAX] {
        let result = feed(
            &mut server,
            FrameKind::Call,
            Flags::NONE,
            (id(1, generation), 7),
            b"",
        );
        assert_eq!(
            result,
            Err(ProtocolError::WrongGeneration {
                id: id(1, generation),
                expected: 1
            })
        );
    }
    open_call(&mut server, id(1, 1), CallKind::Unary);
    let result = feed(
        &mut server,
        FrameKind::Call,
        Flags::NONE,
        (id(1, 1), 7),
        b"",
    );
    assert_eq!(
        result,
        Err(ProtocolError::WrongGeneration {
            id: id(1, 1),
            expected: 2
        })
    );
}

#[test]
fn call_in_a_slot_that_is_in_use_is_rejected() {
    let next = |server: &mut Connection| {
        feed(server, FrameKind::Call, Flags::NONE, (id(0, 2), 7), b"").map(drop)
    };
    let in_use = Err(ProtocolError::SlotInUse { id: id(0, 2) });
    let mut server = machine(Role::Server);
    open_call(&mut server, id(0, 1), CallKind::Unary);
    assert_eq!(next(&mut server), in_use);
    assert!(server.fail(id(0, 1), Status::internal("")));
    assert_eq!(
        next(&mut server),
        in_use,
        "the client cannot know of the error yet"
    );
    server.poll_transmit();
    assert_eq!(next(&mut server), Ok(()));
}

#[test]
fn slot_that_is_held_is_in_use_until_released() {
    let mut server = machine(Role::Server);
    open_call(&mut server, id(0, 1), CallKind::Unary);
    assert!(server.finish_and_hold(id(0, 1)));
    assert!(!server.finish(id(0, 1)) && !server.is_active(id(0, 1)));
    let result = feed(
        &mut server,
        FrameKind::Call,
        Flags::NONE,
        (id(0, 2), 7),
        b"",
    );
    assert_eq!(result, Err(ProtocolError::SlotInUse { id: id(0, 2) }));
    server.release(id(0, 9));
    server.release(id(0, 1));
    open_call(&mut server, id(0, 2), CallKind::Unary);
    server.release(id(0, 2));
    assert!(server.is_active(id(0, 2)));
}

#[test]
fn frame_for_a_call_that_was_never_opened_is_rejected() {
    let mut server = machine(Role::Server);
    open_call(&mut server, id(2, 1), CallKind::Unary);
    for wrong in [id(0, 1), id(2, 2), id(3, 1)] {
        let result = feed(&mut server, FrameKind::Cancel, Flags::NONE, (wrong, 0), b"");
        assert_eq!(
            result,
            Err(ProtocolError::NeverOpened {
                kind: FrameKind::Cancel,
                id: wrong
            })
        );
    }
}

#[test]
fn frame_for_a_call_that_has_ended_is_ignored() {
    let mut server = machine(Role::Server);
    open_call(&mut server, id(0, 1), CallKind::Bidirectional);
    assert!(server.finish(id(0, 1)));
    let call = (id(0, 1), 0);
    assert_eq!(
        feed(&mut server, FrameKind::Cancel, Flags::NONE, call, b""),
        Ok(Event::None)
    );
    assert_eq!(
        feed(&mut server, FrameKind::Data, Flags::NONE, call, b"x"),
        Ok(Event::None)
    );
    assert_eq!(
        feed(&mut server, FrameKind::Data, Flags::CONTINUE, call, b"x"),
        Ok(Event::None)
    );
    assert_eq!(
        feed(&mut server, FrameKind::Call, Flags::CONTINUE, call, b"x"),
        Ok(Event::None)
    );
    assert_eq!(
        feed(&mut server, FrameKind::End, Flags::NONE, call, b""),
        Ok(Event::None)
    );
    assert_eq!(
        feed(
            &mut server,
            FrameKind::Credit,
            Flags::NONE,
            (id(0, 1), u32::MAX),
            b""
        ),
        Ok(Event::None)
    );
    assert!(!server.has_control());
}

#[test]
fn cancel_of_a_request_handed_out_ends_the_call() {
    let mut server = machine(Role::Server);
    open_call(&mut server, id(0, 1), CallKind::Unary);
    let event = feed(
        &mut server,
        FrameKind::Cancel,
        Flags::NONE,
        (id(0, 1), 0),
        b"",
    );
    assert_eq!(event, Ok(Event::Cancelled { id: id(0, 1) }));
    assert!(!server.finish(id(0, 1)) && !server.fail(id(0, 1), Status::internal("")));
    let status = only_error(&mut server);
    assert_eq!(
        (status.code(), status.was_executed()),
        (Code::Cancelled, true)
    );
}

#[test]
fn notify_is_handed_out_unless_too_large_or_leaving() {
    let mut server = machine(Role::Server);
    let none = (id(0, 0), 9);
    let event = feed(&mut server, FrameKind::Notify, Flags::NONE, none, b"news").unwrap();
    assert_eq!(
        event,
        Event::Notify {
            message_type: MessageType::new(9),
            metadata: None,
            payload: b"news"
        }
    );
    assert_eq!(
        feed(&mut server, FrameKind::Notify, Flags::NONE, none, &[0; 101]),
        Ok(Event::None)
    );
    let body = packed(&[b"old", b"news"]);
    let event = feed(&mut server, FrameKind::Notify, Flags::PACKED, none, &body).unwrap();
    let Event::Notifies {
        message_type,
        payloads,
    } = event
    else {
        panic!("{event:?}")
    };
    assert_eq!(message_type, MessageType::new(9));
    assert_eq!(payloads.collect::<Vec<_>>(), [&b"old"[..], b"news"]);
    server.go_away(GoAwayReason::ShuttingDown, "");
    let event = feed(&mut server, FrameKind::Notify, Flags::NONE, none, b"news");
    assert!(matches!(event, Ok(Event::Notify { .. })), "{event:?}");
    server.refuse_new();
    for (flags, body) in [(Flags::NONE, &b"news"[..]), (Flags::PACKED, &body)] {
        assert_eq!(
            feed(&mut server, FrameKind::Notify, flags, none, body),
            Ok(Event::None)
        );
    }
}

#[test]
fn ping_follows_a_go_away_that_waits() {
    let mut server = machine(Role::Server);
    server.ping(7);
    server.go_away(GoAwayReason::ShuttingDown, "");
    let kinds = [(); 2].map(|()| server.poll_transmit().unwrap().header.kind);
    assert_eq!(kinds, [FrameKind::GoAway, FrameKind::Ping]);
}

#[test]
fn call_that_comes_too_late_is_answered_as_unavailable_and_not_executed() {
    let mut server = machine(Role::Server);
    open_call(&mut server, id(0, 1), CallKind::Unary);
    server.go_away(GoAwayReason::ShuttingDown, "bye");
    assert_eq!(only_control(&mut server), (FrameKind::GoAway, 0, 0));
    open_call(&mut server, id(2, 1), CallKind::Unary);
    assert!(server.finish(id(2, 1)), "the client may not have read it");
    server.refuse_new();
    feed_first(
        &mut server,
        FrameKind::Call,
        Flags::NONE,
        (id(1, 1), 7),
        (6, b"abc"),
    )
    .unwrap();
    let status = only_error(&mut server);
    assert_eq!(
        (status.code(), status.was_executed()),
        (Code::Unavailable, false)
    );
    assert_eq!(
        feed(
            &mut server,
            FrameKind::Call,
            Flags::CONTINUE,
            (id(1, 1), 7),
            b"def"
        ),
        Ok(Event::None)
    );
    assert!(server.finish(id(0, 1)), "calls under way go on");
}

#[test]
fn close_does_not_report_incomplete_requests() {
    let mut server = machine(Role::Server);
    open_call(&mut server, id(0, 1), CallKind::Unary);
    feed_first(
        &mut server,
        FrameKind::Call,
        Flags::NONE,
        (id(1, 1), 7),
        (6, b"abc"),
    )
    .unwrap();
    assert_eq!(server.handle_closed(), [id(0, 1)]);
}

#[test]
fn many_calls_that_expire_at_once_are_all_reported() {
    let mut server = machine(Role::Server);
    for slot in 0..4 {
        let mut header = FrameHeader::new(FrameKind::Call, id(slot, 1).raw(), 7);
        let prefix = Prefix {
            remaining: Some(Duration::ZERO),
            ..Prefix::default()
        };
        assert!(prefix.set_header(&mut header, 0));
        server.handle_frame(NOW, &header, &[0; 8]).unwrap();
    }
    let expired = std::iter::from_fn(|| server.handle_timeout(NOW)).count();
    assert_eq!(
        (expired, server.active_calls(), server.table_sizes()),
        (4, 0, (4, 4))
    );
}

//! Items and credit, on both sides.

use super::*;

#[test]
fn item_is_handed_out_with_its_cost() {
    let mut server = machine(Role::Server);
    open_call(&mut server, id(0, 1), CallKind::ClientStream);
    let event = feed(
        &mut server,
        FrameKind::Data,
        Flags::NONE,
        (id(0, 1), 0),
        b"item",
    )
    .unwrap();
    assert_eq!(
        event,
        Event::Item {
            id: id(0, 1),
            payload: Payload::Borrowed(b"item"),
            cost_bytes: 28
        }
    );
    let more = Flags::CONTINUE.with(Flags::MORE);
    feed_first(
        &mut server,
        FrameKind::Data,
        Flags::NONE,
        (id(0, 1), 0),
        (6, b"ab"),
    )
    .unwrap();
    assert_eq!(
        feed(&mut server, FrameKind::Data, more, (id(0, 1), 0), b"cd"),
        Ok(Event::None)
    );
    let event = feed(
        &mut server,
        FrameKind::Data,
        Flags::CONTINUE,
        (id(0, 1), 0),
        b"ef",
    )
    .unwrap();
    let payload = Payload::Assembled(b"abcdef".to_vec());
    assert_eq!(
        event,
        Event::Item {
            id: id(0, 1),
            payload,
            cost_bytes: 3 * 24 + 8 + 6
        }
    );
}

#[test]
fn packed_items_are_handed_out_together_and_cost_one_header() {
    let mut server = machine(Role::Server);
    let call = (id(0, 1), 0);
    open_call(&mut server, call.0, CallKind::ClientStream);
    let body = packed(&[b"one", b"three"]);
    let event = feed(&mut server, FrameKind::Data, Flags::PACKED, call, &body).unwrap();
    let Event::Items {
        id,
        payloads,
        cost_bytes,
    } = event
    else {
        panic!("{event:?}")
    };
    assert_eq!((id, cost_bytes), (call.0, 24 + 4 + 3 + 4 + 5));
    assert_eq!(payloads.collect::<Vec<_>>(), [&b"one"[..], b"three"]);

    let result = feed(
        &mut server,
        FrameKind::Data,
        Flags::PACKED,
        call,
        &body[..9],
    );
    let kind = FrameKind::Data;
    let expected = ProtocolError::Frame(FrameError::Packed { kind, at: 7 });
    assert_eq!(result, Err(expected));
}

#[test]
fn packed_item_that_is_too_large_fails_the_call() {
    let mut server = machine(Role::Server);
    let call = (id(0, 1), 0);
    open_call(&mut server, call.0, CallKind::ClientStream);
    let body = packed(&[b"small", &[0; 101]]);
    let event = feed(&mut server, FrameKind::Data, Flags::PACKED, call, &body).unwrap();
    assert!(matches!(event, Event::Failed { .. }), "{event:?}");
}

#[test]
fn end_of_an_upload_is_handed_out_and_nothing_may_follow() {
    let mut server = machine(Role::Server);
    let call = (id(0, 1), 0);
    open_call(&mut server, call.0, CallKind::Bidirectional);
    assert_eq!(
        feed(&mut server, FrameKind::End, Flags::NONE, call, b""),
        Ok(Event::ItemsEnded { id: call.0 })
    );
    for kind in [FrameKind::Data, FrameKind::End] {
        let result = feed(&mut server, kind, Flags::NONE, call, b"");
        assert_eq!(result, Err(ProtocolError::NotAllowed { kind, id: call.0 }));
    }
    assert!(server.is_active(call.0));
}

#[test]
fn items_for_a_call_without_them_are_rejected() {
    let mut server = machine(Role::Server);
    open_call(&mut server, id(0, 1), CallKind::ServerStream);
    for kind in [FrameKind::Data, FrameKind::End] {
        let result = feed(&mut server, kind, Flags::NONE, (id(0, 1), 0), b"");
        assert_eq!(
            result,
            Err(ProtocolError::NotAllowed { kind, id: id(0, 1) })
        );
    }
    let mut client = machine(Role::Client);
    let call = client.start_call(CallKind::ServerStream, None).unwrap();
    let result = feed(&mut client, FrameKind::Credit, Flags::NONE, (call, 1), b"");
    assert_eq!(
        result,
        Err(ProtocolError::NotAllowed {
            kind: FrameKind::Credit,
            id: call
        })
    );
}

#[test]
fn frame_that_interrupts_a_divided_item_or_request_is_rejected() {
    for (kind, body) in [(FrameKind::Data, &b"x"[..]), (FrameKind::End, b"")] {
        let interrupted = Err(ProtocolError::Interrupted { kind, id: id(0, 1) });
        let mut server = machine(Role::Server);
        open_call(&mut server, id(0, 1), CallKind::ClientStream);
        feed_first(
            &mut server,
            FrameKind::Data,
            Flags::NONE,
            (id(0, 1), 0),
            (6, b"abc"),
        )
        .unwrap();
        assert_eq!(
            feed(&mut server, kind, Flags::NONE, (id(0, 1), 0), body),
            interrupted
        );
        let mut server = machine(Role::Server);
        feed_first(
            &mut server,
            FrameKind::Call,
            CallKind::ClientStream.flags(),
            (id(0, 1), 7),
            (6, b"abc"),
        )
        .unwrap();
        assert_eq!(
            feed(&mut server, kind, Flags::NONE, (id(0, 1), 0), body),
            interrupted
        );
    }
}

#[test]
fn item_begun_without_credit_is_rejected() {
    let mut server = machine(Role::Server);
    open_call(&mut server, id(0, 1), CallKind::ClientStream);
    let item = |server: &mut Connection| {
        feed(
            server,
            FrameKind::Data,
            Flags::NONE,
            (id(0, 1), 0),
            &[0; 100],
        )
        .map(drop)
    };
    for _ in 0..9 {
        assert_eq!(item(&mut server), Ok(())); // 9 * 124 bytes overdraw 1024 with the last
    }
    assert_eq!(
        item(&mut server),
        Err(ProtocolError::ItemWithoutCredit {
            id: id(0, 1),
            credit_bytes: -92
        })
    );
}

#[test]
fn every_frame_of_a_divided_item_costs_credit() {
    let mut server = machine(Role::Server);
    let call = (id(0, 1), 0);
    open_call(&mut server, call.0, CallKind::ClientStream);
    feed_first(&mut server, FrameKind::Data, Flags::NONE, call, (100, b"a")).unwrap();
    for _ in 1..99 {
        let more = Flags::CONTINUE.with(Flags::MORE);
        assert_eq!(
            feed(&mut server, FrameKind::Data, more, call, b"a"),
            Ok(Event::None)
        );
    }
    feed(&mut server, FrameKind::Data, Flags::CONTINUE, call, b"a").unwrap();
    let result = feed(&mut server, FrameKind::Data, Flags::NONE, call, b"a");
    let credit_bytes = 1024 - 33 - 99 * 25;
    assert_eq!(
        result,
        Err(ProtocolError::ItemWithoutCredit {
            id: call.0,
            credit_bytes
        })
    );
}

#[test]
fn credit_is_granted_once_for_many_items_and_may_be_spent_again() {
    let mut server = machine(Role::Server);
    open_call(&mut server, id(0, 1), CallKind::ClientStream);
    for _ in 0..9 {
        feed(
            &mut server,
            FrameKind::Data,
            Flags::NONE,
            (id(0, 1), 0),
            &[0; 100],
        )
        .unwrap();
    }
    for _ in 0..9 {
        server.consumed(id(0, 1), 124);
    }
    assert_eq!(
        only_control(&mut server),
        (FrameKind::Credit, id(0, 1).raw(), 9 * 124)
    );
    assert!(
        feed(
            &mut server,
            FrameKind::Data,
            Flags::NONE,
            (id(0, 1), 0),
            &[0; 100]
        )
        .is_ok()
    );
}

#[test]
fn credit_that_waits_is_forgotten_when_the_call_or_the_items_end() {
    for end_items in [true, false] {
        let mut server = machine(Role::Server);
        open_call(&mut server, id(0, 1), CallKind::ClientStream);
        for _ in 0..9 {
            feed(
                &mut server,
                FrameKind::Data,
                Flags::NONE,
                (id(0, 1), 0),
                &[0; 100],
            )
            .unwrap();
        }
        server.consumed(id(0, 1), 9 * 124);
        assert!(server.has_control());
        if end_items {
            feed(&mut server, FrameKind::End, Flags::NONE, (id(0, 1), 0), b"").unwrap();
        } else {
            server.finish(id(0, 1));
        }
        assert!(!server.has_control());
        assert_eq!(server.poll_transmit(), None);
    }
}

#[test]
fn reserve_item_waits_for_credit_and_is_told_when_there_is_some() {
    let mut client = machine(Role::Client);
    let call = client.start_call(CallKind::ClientStream, None).unwrap();
    assert_eq!(client.reserve_item(call, 2000), Ok(()));
    assert_eq!(client.reserve_item(call, 1), Err(ItemError::NoCredit));
    assert!(!client.may_begin_item(call));
    let credit = |client: &mut Connection, bytes| {
        feed(client, FrameKind::Credit, Flags::NONE, (call, bytes), b"")
    };
    assert_eq!(credit(&mut client, 976), Ok(Event::None));
    assert_eq!(client.reserve_item(call, 1), Err(ItemError::NoCredit));
    assert_eq!(
        credit(&mut client, 1),
        Ok(Event::CreditAvailable { id: call })
    );
    assert_eq!(credit(&mut client, 1), Ok(Event::None));
    assert_eq!(client.reserve_item(call, 1), Ok(()));
}

#[test]
fn reserve_item_is_over_without_items_after_their_end_and_after_the_call() {
    let mut client = machine(Role::Client);
    let unary = client.start_call(CallKind::Unary, None).unwrap();
    let upload = client.start_call(CallKind::ClientStream, None).unwrap();
    assert_eq!(client.reserve_item(unary, 1), Err(ItemError::Over));
    assert!(!client.end_items(unary));
    assert!(client.end_items(upload) && !client.end_items(upload));
    assert_eq!(client.reserve_item(upload, 1), Err(ItemError::Over));
    let late = feed(
        &mut client,
        FrameKind::Credit,
        Flags::NONE,
        (upload, 1),
        b"",
    );
    assert_eq!(late, Ok(Event::None), "credit may cross the end");
    client.cancel(upload);
    assert_eq!(client.reserve_item(upload, 1), Err(ItemError::Over));
}

#[test]
fn credit_above_the_highest_is_rejected() {
    let mut client = machine(Role::Client);
    let call = client.start_call(CallKind::ClientStream, None).unwrap();
    let granted_bytes = 0x7FFF_FFFF - WINDOW_BYTES + 1;
    let result = feed(
        &mut client,
        FrameKind::Credit,
        Flags::NONE,
        (call, granted_bytes),
        b"",
    );
    assert_eq!(
        result,
        Err(ProtocolError::CreditOverflow {
            id: call,
            credit_bytes: 1024,
            granted_bytes
        })
    );
}

#[test]
fn item_larger_than_the_limit_fails_the_call() {
    let mut server = machine(Role::Server);
    open_call(&mut server, id(0, 1), CallKind::ClientStream);
    let event = feed(
        &mut server,
        FrameKind::Data,
        Flags::NONE,
        (id(0, 1), 0),
        &[0; 101],
    )
    .unwrap();
    assert!(matches!(event, Event::Failed { id: call, .. } if call == id(0, 1)));
    let status = only_error(&mut server);
    assert_eq!(
        (status.code(), status.was_executed()),
        (Code::ResourceExhausted, true)
    );

    let mut client = machine(Role::Client);
    let call = client.start_call(CallKind::ServerStream, None).unwrap();
    let event = feed_first(
        &mut client,
        FrameKind::Data,
        Flags::NONE,
        (call, 0),
        (101, &[0; 100]),
    )
    .unwrap();
    assert!(matches!(event, Event::Failed { id, .. } if id == call));
    assert_eq!(
        only_control(&mut client),
        (FrameKind::Cancel, call.raw(), 0)
    );
    assert_eq!(
        feed(
            &mut client,
            FrameKind::Data,
            Flags::CONTINUE,
            (call, 0),
            b"x"
        ),
        Ok(Event::None)
    );
    assert_eq!(
        feed(&mut client, FrameKind::End, Flags::NONE, (call, 0), b""),
        Ok(Event::None)
    );
}

#[test]
fn end_from_the_server_ends_a_stream_at_the_client() {
    let mut client = machine(Role::Client);
    let call = client.start_call(CallKind::Bidirectional, None).unwrap();
    assert_eq!(
        feed(&mut client, FrameKind::End, Flags::NONE, (call, 0), b""),
        Ok(Event::ItemsEnded { id: call })
    );
    assert!(!client.is_active(call) && !client.end_items(call));
}

//! Calls of a client.

use super::*;

#[test]
fn start_call_uses_the_last_slot_freed_with_the_next_generation() {
    let mut client = machine(Role::Client);
    let first = client.start_call(CallKind::Unary, None).unwrap();
    assert_eq!((first.slot(), first.generation()), (0, 1));
    let event = feed(
        &mut client,
        FrameKind::Response,
        Flags::NONE,
        (first, 7),
        b"answer",
    )
    .unwrap();
    assert_eq!(
        event,
        Event::Response {
            id: first,
            metadata: None,
            payload: Payload::Borrowed(b"answer")
        }
    );
    assert_eq!(client.start_call(CallKind::Unary, None), Ok(id(0, 2)));
}

#[test]
fn start_call_beyond_the_limit_is_refused() {
    let mut client = machine(Role::Client);
    for _ in 0..4 {
        client.start_call(CallKind::Unary, None).unwrap();
    }
    assert_eq!(
        client.start_call(CallKind::Unary, None),
        Err(StartError::TooManyCalls { limit: 4 })
    );
}

#[test]
fn start_call_after_the_last_generation_wraps_around_on_both_sides() {
    let (mut client, mut server) = (machine(Role::Client), machine(Role::Server));
    let call = client.start_call(CallKind::Unary, None).unwrap();
    open_call(&mut server, call, CallKind::Unary);
    client.abort_start(call);
    assert!(server.finish(call));
    client.calls.slot(0).unwrap().generation = u32::MAX;
    server.calls.slot(0).unwrap().generation = u32::MAX;
    let call = client.start_call(CallKind::Unary, None).unwrap();
    assert_eq!(call, id(0, 0));
    open_call(&mut server, call, CallKind::Unary);
    assert_eq!(
        feed(
            &mut server,
            FrameKind::Cancel,
            Flags::NONE,
            (id(0, u32::MAX), 0),
            b""
        ),
        Ok(Event::None)
    );
}

#[test]
fn abort_start_gives_slot_and_id_back_and_withdraws_the_cancel() {
    let mut client = machine(Role::Client);
    let call = client.start_call(CallKind::Unary, None).unwrap();
    assert!(client.cancel(call));
    client.abort_start(call);
    assert!(!client.has_control());
    client.abort_start(call);
    assert_eq!(client.start_call(CallKind::Unary, None), Ok(call));
    assert_eq!(client.start_call(CallKind::Unary, None), Ok(id(1, 1)));
}

#[test]
fn cancelled_call_swallows_everything_and_frees_its_slot_at_the_end() {
    let mut client = machine(Role::Client);
    let call = client.start_call(CallKind::ServerStream, None).unwrap();
    assert!(client.cancel(call) && !client.cancel(call) && !client.is_active(call));
    assert_eq!(
        only_control(&mut client),
        (FrameKind::Cancel, call.raw(), 0)
    );
    assert_eq!(
        feed(
            &mut client,
            FrameKind::Data,
            Flags::NONE,
            (call, 0),
            b"item"
        ),
        Ok(Event::None)
    );
    assert_eq!(
        feed_first(
            &mut client,
            FrameKind::Data,
            Flags::NONE,
            (call, 0),
            (6, b"abc")
        ),
        Ok(Event::None)
    );
    assert_eq!(
        feed(
            &mut client,
            FrameKind::Data,
            Flags::CONTINUE,
            (call, 0),
            b"def"
        ),
        Ok(Event::None)
    );
    assert_eq!(
        client.start_call(CallKind::Unary, None),
        Ok(id(1, 1)),
        "the slot is not free yet"
    );
    assert_eq!(
        feed(&mut client, FrameKind::End, Flags::NONE, (call, 0), b""),
        Ok(Event::None)
    );
    assert_eq!(client.start_call(CallKind::Unary, None), Ok(id(0, 2)));
}

#[test]
fn call_that_ends_before_its_cancel_is_sent_sends_none() {
    let mut client = machine(Role::Client);
    let call = client.start_call(CallKind::Unary, None).unwrap();
    client.cancel(call);
    assert_eq!(
        feed(
            &mut client,
            FrameKind::Response,
            Flags::NONE,
            (call, 7),
            b""
        ),
        Ok(Event::None)
    );
    assert!(!client.has_control());
    assert_eq!(client.poll_transmit(), None);
}

#[test]
fn cancel_between_destination_and_continuation_drops_the_body() {
    let mut client = machine(Role::Client);
    let call = client.start_call(CallKind::Unary, None).unwrap();
    feed_first(
        &mut client,
        FrameKind::Response,
        Flags::NONE,
        (call, 7),
        (6, b"abc"),
    )
    .unwrap();
    let header = FrameHeader {
        length: 3,
        flags: Flags::CONTINUE,
        ..FrameHeader::new(FrameKind::Response, call.raw(), 7)
    };
    let Destination::Buffer(mut buffer) = client.take_destination(&header).unwrap() else {
        panic!("discarded")
    };
    assert!(buffer.capacity() >= 6);
    buffer.extend_from_slice(b"def");
    client.cancel(call);
    assert_eq!(client.budget.used_bytes(), 0);
    assert_eq!(
        client.handle_continuation(NOW, &header, Destination::Buffer(buffer)),
        Ok(Event::None)
    );
    assert_eq!(client.start_call(CallKind::Unary, None), Ok(id(0, 2)));
}

#[test]
fn divided_response_is_put_together() {
    let mut client = machine(Role::Client);
    let call = client.start_call(CallKind::Unary, None).unwrap();
    let more = Flags::CONTINUE.with(Flags::MORE);
    feed_first(
        &mut client,
        FrameKind::Response,
        Flags::NONE,
        (call, 7),
        (9, b"abc"),
    )
    .unwrap();
    assert_eq!(client.budget.used_bytes(), 9);
    assert_eq!(
        feed(&mut client, FrameKind::Response, more, (call, 7), b"def"),
        Ok(Event::None)
    );
    let event = feed(
        &mut client,
        FrameKind::Response,
        Flags::CONTINUE,
        (call, 7),
        b"ghi",
    )
    .unwrap();
    assert_eq!(
        event,
        Event::Response {
            id: call,
            metadata: None,
            payload: Payload::Assembled(b"abcdefghi".to_vec())
        }
    );
    assert_eq!(client.budget.used_bytes(), 0);
}

#[test]
fn frame_for_a_call_that_is_not_under_way_is_rejected() {
    let mut client = machine(Role::Client);
    let call = client.start_call(CallKind::Unary, None).unwrap();
    for wrong in [id(1, 1), id(0, 0), id(0, 2), id(u32::MAX, 1)] {
        let result = feed(
            &mut client,
            FrameKind::Response,
            Flags::NONE,
            (wrong, 7),
            b"",
        );
        assert_eq!(
            result,
            Err(ProtocolError::NotUnderWay {
                kind: FrameKind::Response,
                id: wrong
            })
        );
    }
    feed(
        &mut client,
        FrameKind::Response,
        Flags::NONE,
        (call, 7),
        b"",
    )
    .unwrap();
    let result = feed(
        &mut client,
        FrameKind::Response,
        Flags::NONE,
        (call, 7),
        b"",
    );
    assert_eq!(
        result,
        Err(ProtocolError::NotUnderWay {
            kind: FrameKind::Response,
            id: call
        })
    );
}

#[test]
fn answer_of_the_wrong_kind_is_rejected() {
    let mut client = machine(Role::Client);
    let unary = client.start_call(CallKind::Unary, None).unwrap();
    let stream = client.start_call(CallKind::ServerStream, None).unwrap();
    for (kind, call) in [
        (FrameKind::End, unary),
        (FrameKind::Data, unary),
        (FrameKind::Response, stream),
    ] {
        let result = feed(&mut client, kind, Flags::NONE, (call, 0), b"");
        assert_eq!(result, Err(ProtocolError::NotAllowed { kind, id: call }));
    }
}

#[test]
fn frame_that_interrupts_a_divided_answer_is_rejected_unless_it_is_an_error() {
    for kind in [FrameKind::Response, FrameKind::Error] {
        let mut client = machine(Role::Client);
        let call = client.start_call(CallKind::Unary, None).unwrap();
        feed_first(
            &mut client,
            FrameKind::Response,
            Flags::NONE,
            (call, 7),
            (6, b"abc"),
        )
        .unwrap();
        let result = feed(&mut client, kind, Flags::NONE, (call, 7), b"\0\0\0\0");
        match kind {
            FrameKind::Error => assert!(matches!(result, Ok(Event::Failed { .. }))),
            _ => assert_eq!(result, Err(ProtocolError::Interrupted { kind, id: call })),
        }
    }
}

#[test]
fn response_larger_than_the_limit_fails_the_call() {
    let mut client = machine(Role::Client);
    let call = client.start_call(CallKind::Unary, None).unwrap();
    let event = feed(
        &mut client,
        FrameKind::Response,
        Flags::NONE,
        (call, 7),
        &[0; 101],
    )
    .unwrap();
    assert!(
        matches!(event, Event::Failed { id, status } if id == call && status.code() == Code::ResourceExhausted)
    );
    assert!(!client.has_control(), "the call has ended");
    assert_eq!(client.start_call(CallKind::Unary, None), Ok(id(0, 2)));
}

#[test]
fn divided_response_larger_than_the_limit_fails_the_call_and_is_swallowed() {
    let mut client = machine(Role::Client);
    let call = client.start_call(CallKind::Unary, None).unwrap();
    let event = feed_first(
        &mut client,
        FrameKind::Response,
        Flags::NONE,
        (call, 7),
        (101, &[0; 100]),
    )
    .unwrap();
    assert!(
        matches!(event, Event::Failed { id, status } if id == call && status.code() == Code::ResourceExhausted)
    );
    assert_eq!(
        only_control(&mut client),
        (FrameKind::Cancel, call.raw(), 0)
    );
    assert_eq!(
        feed(
            &mut client,
            FrameKind::Response,
            Flags::CONTINUE,
            (call, 7),
            b"x"
        ),
        Ok(Event::None)
    );
    assert_eq!(client.start_call(CallKind::Unary, None), Ok(id(0, 2)));
}

#[test]
fn deadline_on_the_client_cancels_the_call_once() {
    let mut client = machine(Role::Client);
    let deadline = NOW.saturating_add(Duration::from_nanos(10));
    let call = client.start_call(CallKind::Unary, Some(deadline)).unwrap();
    client
        .start_call(
            CallKind::Unary,
            Some(deadline.saturating_add(Duration::from_nanos(1))),
        )
        .unwrap();
    assert_eq!(client.poll_timeout(), Some(deadline));
    assert_eq!(client.handle_timeout(NOW), None);
    assert_eq!(client.handle_timeout(deadline), Some(Expired { id: call }));
    assert_eq!(client.handle_timeout(deadline), None);
    assert_eq!(
        only_control(&mut client),
        (FrameKind::Cancel, call.raw(), 0)
    );
    assert_eq!(
        client.poll_timeout(),
        Some(deadline.saturating_add(Duration::from_nanos(1)))
    );
}

#[test]
fn close_reports_each_open_call_once_and_ends_everything() {
    let mut client = machine(Role::Client);
    let open = client.start_call(CallKind::Unary, None).unwrap();
    let cancelled = client.start_call(CallKind::Unary, Some(NOW)).unwrap();
    client.cancel(cancelled);
    assert_eq!(client.handle_closed(), [open]);
    assert_eq!(client.handle_closed(), []);
    assert_eq!(
        client.start_call(CallKind::Unary, None),
        Err(StartError::Closed)
    );
    assert_eq!(
        (
            client.active_calls(),
            client.has_control(),
            client.poll_timeout()
        ),
        (0, false, None)
    );
}

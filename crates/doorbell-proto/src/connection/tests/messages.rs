//! Divided and oversized requests.

use super::*;

#[test]
fn cancel_or_deadline_of_an_incomplete_request_is_not_handed_out() {
    let mut server = machine(Role::Server);
    feed_first(
        &mut server,
        FrameKind::Call,
        Flags::NONE,
        (id(0, 1), 7),
        (6, b"abc"),
    )
    .unwrap();
    assert_eq!((server.active_calls(), server.budget.used_bytes()), (0, 6));
    assert!(server.has_open_calls(), "a shutdown waits for the rest");
    assert_eq!(
        feed(
            &mut server,
            FrameKind::Cancel,
            Flags::NONE,
            (id(0, 1), 0),
            b""
        ),
        Ok(Event::None)
    );
    assert_eq!(server.budget.used_bytes(), 0);
    assert!(!server.has_open_calls());
    let status = only_error(&mut server);
    assert_eq!(
        (status.code(), status.was_executed()),
        (Code::Cancelled, false)
    );
    assert_eq!(
        feed(
            &mut server,
            FrameKind::Call,
            Flags::CONTINUE,
            (id(0, 1), 7),
            b"def"
        ),
        Ok(Event::None)
    );
}

#[test]
fn divided_request_is_handed_out_when_it_is_complete() {
    let mut server = machine(Role::Server);
    feed_first(
        &mut server,
        FrameKind::Call,
        CallKind::ClientStream.flags(),
        (id(0, 1), 7),
        (6, b"abc"),
    )
    .unwrap();
    let event = feed(
        &mut server,
        FrameKind::Call,
        Flags::CONTINUE,
        (id(0, 1), 7),
        b"def",
    )
    .unwrap();
    let expected = Event::Request {
        id: id(0, 1),
        kind: CallKind::ClientStream,
        message_type: MessageType::new(7),
        deadline: None,
        metadata: None,
        payload: Payload::Assembled(b"abcdef".to_vec()),
    };
    assert_eq!(event, expected);
    assert!(server.is_active(id(0, 1)));
}

#[test]
fn continuation_that_does_not_fit_its_message_is_rejected() {
    let call = (id(0, 1), 7);
    let begin = || {
        let mut server = machine(Role::Server);
        feed_first(&mut server, FrameKind::Call, Flags::NONE, call, (6, b"abc")).unwrap();
        server
    };
    let more = Flags::CONTINUE.with(Flags::MORE);
    let mismatch = |received_bytes| {
        Err(ProtocolError::TotalMismatch {
            id: id(0, 1),
            total_bytes: 6,
            received_bytes,
        })
    };
    assert_eq!(
        feed(&mut begin(), FrameKind::Call, Flags::CONTINUE, call, b"de"),
        mismatch(5)
    );
    assert_eq!(
        feed(
            &mut begin(),
            FrameKind::Call,
            Flags::CONTINUE,
            call,
            b"defg"
        ),
        mismatch(7)
    );
    assert_eq!(
        feed(&mut begin(), FrameKind::Call, more, call, b"def"),
        mismatch(6)
    );
    let (expected, found) = (MessageType::new(7), MessageType::new(8));
    let changed = Err(FrameError::MessageTypeChanged { expected, found }.into());
    assert_eq!(
        feed(
            &mut begin(),
            FrameKind::Call,
            Flags::CONTINUE,
            (id(0, 1), 8),
            b"def"
        ),
        changed
    );
    let nothing = Err(ProtocolError::NothingToContinue {
        kind: FrameKind::Data,
        id: id(0, 1),
    });
    assert_eq!(
        feed(
            &mut begin(),
            FrameKind::Data,
            Flags::CONTINUE,
            (id(0, 1), 0),
            b"def"
        ),
        nothing
    );
}

#[test]
fn continuation_of_nothing_is_rejected() {
    let mut server = machine(Role::Server);
    open_call(&mut server, id(0, 1), CallKind::Unary);
    let result = feed(
        &mut server,
        FrameKind::Call,
        Flags::CONTINUE,
        (id(0, 1), 7),
        b"x",
    );
    assert_eq!(
        result,
        Err(ProtocolError::NothingToContinue {
            kind: FrameKind::Call,
            id: id(0, 1)
        })
    );
}

#[test]
fn first_frame_that_already_has_the_total_is_rejected() {
    let mut server = machine(Role::Server);
    let result = feed_first(
        &mut server,
        FrameKind::Call,
        Flags::NONE,
        (id(0, 1), 7),
        (3, b"abc"),
    );
    assert_eq!(
        result,
        Err(ProtocolError::TotalMismatch {
            id: id(0, 1),
            total_bytes: 3,
            received_bytes: 3
        })
    );
}

#[test]
fn request_larger_than_a_limit_fails_without_being_executed() {
    let exhausted = |server: &mut Connection| {
        let status = only_error(server);
        assert_eq!(
            (status.code(), status.was_executed()),
            (Code::ResourceExhausted, false)
        );
    };
    let mut server = machine(Role::Server);
    assert_eq!(
        feed(
            &mut server,
            FrameKind::Call,
            Flags::NONE,
            (id(0, 1), 7),
            &[0; 101]
        ),
        Ok(Event::None)
    );
    exhausted(&mut server);
    feed_first(
        &mut server,
        FrameKind::Call,
        Flags::NONE,
        (id(1, 1), 7),
        (101, b"a"),
    )
    .unwrap();
    exhausted(&mut server);
    feed_first(
        &mut server,
        FrameKind::Call,
        Flags::NONE,
        (id(2, 1), 7),
        (u64::MAX, b"a"),
    )
    .unwrap();
    exhausted(&mut server);
    feed_first(
        &mut server,
        FrameKind::Call,
        Flags::NONE,
        (id(3, 1), 7),
        (100, b"a"),
    )
    .unwrap();
    assert!(!server.has_control());
    feed_first(
        &mut server,
        FrameKind::Call,
        Flags::NONE,
        (id(0, 2), 7),
        (51, b"a"),
    )
    .unwrap();
    exhausted(&mut server); // 100 + 51 are more than may be under assembly
    assert_eq!(
        feed(
            &mut server,
            FrameKind::Call,
            Flags::CONTINUE,
            (id(0, 2), 7),
            &[0; 50]
        ),
        Ok(Event::None)
    );
}

//! Tests of one machine alone, fed by hand.

mod allowance;
mod client;
mod loans;
mod messages;
mod server;
mod short_way;
mod streams;

use super::*;
use crate::frame::{Flags, MessageType, Prefix};
use crate::metadata::Metadata;
use crate::status::{Code, Status};
use std::time::Duration;

const NOW: Time = Time::from_nanos(1_000_000);
const WINDOW_BYTES: u32 = 1024;

fn machine(role: Role) -> Connection {
    Connection::new(Config {
        role,
        max_calls: 4,
        max_message_bytes: 100,
        max_assembly_bytes: 150,
        max_chunk_bytes: 1000,
        receive_window_bytes: WINDOW_BYTES,
        send_window_bytes: WINDOW_BYTES,
        loans: true,
        gives_back: true,
    })
}

fn id(slot: u32, generation: u32) -> CallId {
    CallId::new(slot, generation)
}

/// Feeds a frame without prefix; the header is checked by the codec first, as on the wire.
fn feed<'a>(
    machine: &mut Connection,
    kind: FrameKind,
    flags: Flags,
    (id, value): (CallId, u32),
    body: &'a [u8],
) -> Result<Event<'a>, ProtocolError> {
    let length = u32::try_from(body.len()).unwrap();
    let header = FrameHeader {
        length,
        flags,
        ..FrameHeader::new(kind, id.raw(), value)
    };
    assert_eq!(FrameHeader::decode(&header.encode()), Ok(header));
    machine.handle_frame(NOW, &header, body)
}

/// Returns the body of a packed frame.
fn packed(messages: &[&[u8]]) -> Vec<u8> {
    let mut body = Vec::new();
    for message in messages {
        crate::frame::pack(&mut body, |out| {
            out.extend_from_slice(message);
            Ok::<_, std::convert::Infallible>(())
        })
        .unwrap();
    }
    body
}

/// Feeds the first frame of a divided message.
fn feed_first(
    machine: &mut Connection,
    kind: FrameKind,
    flags: Flags,
    (id, value): (CallId, u32),
    (total_bytes, payload): (u64, &[u8]),
) -> Result<Event<'static>, ProtocolError> {
    let prefix = Prefix {
        total_bytes: Some(total_bytes),
        ..Prefix::default()
    };
    let mut header = FrameHeader {
        flags,
        ..FrameHeader::new(kind, id.raw(), value)
    };
    assert!(prefix.set_header(&mut header, payload.len()));
    let mut body = Vec::new();
    prefix.encode(&mut body);
    body.extend_from_slice(payload);
    match machine.handle_frame(NOW, &header, &body)? {
        Event::None => Ok(Event::None),
        Event::Failed { id, status } => Ok(Event::Failed { id, status }),
        event => panic!("{event:?} from the first of several frames"),
    }
}

fn open_call(machine: &mut Connection, id: CallId, kind: CallKind) {
    let event = feed(machine, FrameKind::Call, kind.flags(), (id, 7), b"request").unwrap();
    assert!(matches!(event, Event::Request { .. }));
}

/// Takes the only control frame and returns its kind, call and value.
fn only_control(machine: &mut Connection) -> (FrameKind, u64, u32) {
    assert!(machine.has_control());
    let ControlFrame { header, body } = machine.poll_transmit().unwrap();
    assert_eq!(FrameHeader::decode(&header.encode()), Ok(header));
    assert_eq!(usize::try_from(header.length), Ok(body.len()));
    assert!(!machine.has_control());
    assert_eq!(machine.poll_transmit(), None);
    (header.kind, header.id, header.value)
}

/// Takes the only control frame, which is an `ERROR`, and returns its status.
fn only_error(machine: &mut Connection) -> Status {
    let ControlFrame { header, body } = machine.poll_transmit().unwrap();
    assert!(!machine.has_control());
    assert_eq!(header.kind, FrameKind::Error);
    Status::from_frame(&header, &body).unwrap()
}

#[test]
fn slot_takes_no_more_than_32_bytes() {
    assert!(size_of::<calls::Slot>() <= 32);
}

#[test]
fn frame_in_the_wrong_direction_is_rejected() {
    let mut server = machine(Role::Server);
    for (kind, body) in [
        (FrameKind::Response, &b""[..]),
        (FrameKind::Error, b"\0\0\0\0"),
    ] {
        let result = feed(&mut server, kind, Flags::NONE, (id(0, 1), 1), body);
        assert_eq!(
            result,
            Err(ProtocolError::WrongDirection {
                kind,
                role: Role::Server
            })
        );
    }
    let mut client = machine(Role::Client);
    let call = client.start_call(CallKind::Unary, None).unwrap();
    for kind in [FrameKind::Call, FrameKind::Cancel] {
        let result = feed(&mut client, kind, Flags::NONE, (call, 0), b"");
        assert_eq!(
            result,
            Err(ProtocolError::WrongDirection {
                kind,
                role: Role::Client
            })
        );
    }
    let result = feed(
        &mut client,
        FrameKind::Notify,
        Flags::NONE,
        (id(0, 0), 0),
        b"",
    );
    assert_eq!(
        result,
        Err(ProtocolError::WrongDirection {
            kind: FrameKind::Notify,
            role: Role::Client
        })
    );
    let result = feed(
        &mut client,
        FrameKind::Call,
        Flags::CONTINUE,
        (call, 0),
        b"x",
    );
    assert_eq!(
        result,
        Err(ProtocolError::WrongDirection {
            kind: FrameKind::Call,
            role: Role::Client
        })
    );
}

#[test]
fn frame_after_close_is_rejected() {
    let mut server = machine(Role::Server);
    assert_eq!(server.handle_closed(), []);
    let result = feed(
        &mut server,
        FrameKind::Ping,
        Flags::NONE,
        (id(0, 1), 0),
        b"",
    );
    assert_eq!(
        result,
        Err(ProtocolError::Closed {
            kind: FrameKind::Ping
        })
    );
}

#[test]
fn body_of_another_length_than_its_header_says_is_rejected() {
    let mut server = machine(Role::Server);
    let header = FrameHeader {
        length: 3,
        ..FrameHeader::new(FrameKind::Call, id(0, 1).raw(), 7)
    };
    let result = server.handle_frame(NOW, &header, b"four");
    assert_eq!(
        result,
        Err(FrameError::BodyMismatch {
            length: 3,
            actual: 4
        }
        .into())
    );
}

#[test]
fn pings_before_a_pong_is_sent_are_answered_once_with_the_last_number() {
    let mut server = machine(Role::Server);
    for number in 1..=3 {
        let event = feed(
            &mut server,
            FrameKind::Ping,
            Flags::NONE,
            (CallId::from_raw(number), 0),
            b"",
        );
        assert_eq!(event, Ok(Event::None));
    }
    assert_eq!(only_control(&mut server), (FrameKind::Pong, 3, 0));
    let event = feed(
        &mut server,
        FrameKind::Pong,
        Flags::NONE,
        (CallId::from_raw(9), 0),
        b"",
    );
    assert_eq!(event, Ok(Event::Pong { id: 9 }));
}

#[test]
fn ping_is_queued_once_with_the_last_number() {
    let mut client = machine(Role::Client);
    client.ping(1);
    client.ping(2);
    assert_eq!(only_control(&mut client), (FrameKind::Ping, 2, 0));
}

#[test]
fn go_away_with_a_long_text_is_cut_at_a_character() {
    let mut server = machine(Role::Server);
    server.go_away(GoAwayReason::Idle, &"é".repeat(2000));
    let frame = server.poll_transmit().unwrap();
    assert_eq!((frame.header.value, frame.body.len()), (2, 1000)); // max_chunk_bytes
    let mut client = machine(Role::Client);
    let event = client
        .handle_frame(NOW, &frame.header, &frame.body)
        .unwrap();
    assert_eq!(
        event,
        Event::GoAway {
            reason: GoAwayReason::Idle,
            text: "é".repeat(500)
        }
    );
    assert_eq!(
        client.start_call(CallKind::Unary, None),
        Err(StartError::GoingAway)
    );
}

#[test]
fn go_away_with_text_that_is_not_utf_8_is_rejected() {
    let mut client = machine(Role::Client);
    let result = feed(
        &mut client,
        FrameKind::GoAway,
        Flags::NONE,
        (id(0, 0), 0),
        b"\xFF",
    );
    assert_eq!(
        result,
        Err(FrameError::Text {
            kind: FrameKind::GoAway,
            text_bytes: 1
        }
        .into())
    );
}

//! Loans, their ledgers and what a hostile peer does with them.

use super::*;
use crate::connection::error::LoanViolation;
use crate::frame::{BlockId, Descriptor};
use crate::limits::{MAX_LOANS, MAX_SEGMENT_PAGES, MAX_SEGMENTS};

fn feed_header(
    machine: &mut Connection,
    kind: FrameKind,
    id: u64,
    value: u32,
) -> Result<Event<'static>, ProtocolError> {
    let header = FrameHeader::new(kind, id, value);
    assert_eq!(FrameHeader::decode(&header.encode()), Ok(header));
    match machine.handle_frame(NOW, &header, &[])? {
        Event::Released { block } => Ok(Event::Released { block }),
        Event::Retired { number } => Ok(Event::Retired { number }),
        Event::RetireAsked { number } => Ok(Event::RetireAsked { number }),
        Event::None => Ok(Event::None),
        Event::SegmentWanted { pages } => Ok(Event::SegmentWanted { pages }),
        Event::SegmentRefused => Ok(Event::SegmentRefused),
        Event::Quiet => Ok(Event::Quiet),
        Event::Segment {
            number,
            pages,
            writer,
        } => Ok(Event::Segment {
            number,
            pages,
            writer,
        }),
        event => panic!("{event:?}"),
    }
}

fn loan(segment: u32, offset: u32, length: u32) -> Descriptor {
    Descriptor {
        block: BlockId::new(segment, offset),
        length,
    }
}

fn feed_loan(
    machine: &mut Connection,
    kind: FrameKind,
    (id, value): (CallId, u32),
    loan: Descriptor,
) -> Result<Option<Descriptor>, ProtocolError> {
    let body = loan.encode();
    let event = feed(machine, kind, Flags::LOANED, (id, value), &body)?;
    match event {
        Event::Request { payload, .. }
        | Event::Response { payload, .. }
        | Event::Item { payload, .. } => match payload {
            Payload::Loaned(loan) => Ok(Some(loan)),
            payload => panic!("{payload:?}"),
        },
        Event::None => Ok(None),
        event => panic!("{event:?}"),
    }
}

fn refused<T: std::fmt::Debug>(result: Result<T, ProtocolError>) -> LoanViolation {
    match result {
        Err(ProtocolError::Loan(violation)) => violation,
        other => panic!("{other:?}"),
    }
}

/// A server with one segment of a page in each direction, about which the client knows.
fn server() -> Connection {
    let mut server = machine(Role::Server);
    for (writer, number) in [(Role::Server, 0), (Role::Client, 1)] {
        assert_eq!(server.next_segment(writer), Some(number));
        server.announce_segment(number, 1);
        assert_eq!(
            only_control(&mut server),
            (FrameKind::Segment, u64::from(number), 1)
        );
    }
    server
}

/// Lets a client ask for a segment.
fn want(client: &mut Connection) {
    assert!(client.want_segment(1));
    assert_eq!(only_control(client), (FrameKind::WantSegment, 0, 1));
}

/// A client that has been told of the same.
fn client() -> Connection {
    let mut client = machine(Role::Client);
    want(&mut client);
    for (writer, number) in [(Role::Server, 0), (Role::Client, 1)] {
        let event = feed_header(&mut client, FrameKind::Segment, number.into(), 1);
        let pages = 1;
        assert_eq!(
            event,
            Ok(Event::Segment {
                number,
                pages,
                writer
            })
        );
    }
    client
}

#[test]
fn loaned_request_is_with_the_server_until_it_is_given_back() {
    let mut server = server();
    let lent = loan(1, 64, 100);
    assert_eq!(
        feed_loan(&mut server, FrameKind::Call, (id(0, 1), 7), lent),
        Ok(Some(lent))
    );
    assert_eq!(server.loans(), (0, 1));
    server.give_back(lent.block);
    assert_eq!(server.loans(), (0, 1), "until the client is told");
    assert_eq!(
        only_control(&mut server),
        (FrameKind::Release, lent.block.raw(), 0)
    );
    assert_eq!(server.loans(), (0, 0));
    server.give_back(lent.block);
    assert!(!server.has_control(), "it is given back once");
}

#[test]
fn loan_that_nobody_will_be_told_of_is_given_back_at_once() {
    let mut server = server();
    open_call(&mut server, id(0, 1), CallKind::ClientStream);
    let item = loan(1, 0, 10);
    assert_eq!(
        feed_loan(&mut server, FrameKind::Data, (id(0, 1), 0), item),
        Ok(Some(item))
    );
    assert!(server.finish(id(0, 1)));
    let late = loan(1, 128, 10);
    assert_eq!(
        feed_loan(&mut server, FrameKind::Data, (id(0, 1), 0), late),
        Ok(None)
    );
    assert_eq!(
        only_control(&mut server),
        (FrameKind::Release, late.block.raw(), 0)
    );
    server.refuse_new();
    let refused = loan(1, 192, 10);
    assert_eq!(
        feed_loan(&mut server, FrameKind::Call, (id(1, 1), 7), refused),
        Ok(None)
    );
    assert_eq!(server.loans(), (0, 2));
    while server.poll_transmit().is_some() {}
    assert_eq!(server.loans(), (0, 1), "the item is still with us");

    let mut client = client();
    let call = client.start_call(CallKind::Unary, None).unwrap();
    assert!(client.cancel(call));
    assert_eq!(
        only_control(&mut client),
        (FrameKind::Cancel, call.raw(), 0)
    );
    let reply = loan(0, 0, 10);
    assert_eq!(
        feed_loan(&mut client, FrameKind::Response, (call, 7), reply),
        Ok(None)
    );
    assert_eq!(
        only_control(&mut client),
        (FrameKind::Release, reply.block.raw(), 0)
    );
}

#[test]
fn descriptor_outside_its_segment_or_of_no_segment_of_the_peer_is_rejected() {
    let mut server = server();
    let kind = FrameKind::Call;
    for number in [0, 2, 3, u32::MAX] {
        let result = feed_loan(&mut server, kind, (id(0, 1), 7), loan(number, 0, 1));
        let violation = LoanViolation::UnknownSegment { kind, number };
        assert_eq!(refused(result), violation);
    }
    let wild = [
        (4096, 0),
        (4096, 1),
        (64 * 63, 65),
        (63, 1),
        (32, 8),
        (u32::MAX - 63, 100),
        (u32::MAX, 0),
    ];
    for (offset, length) in wild {
        let loan = loan(1, offset, length);
        let result = feed_loan(&mut server, kind, (id(0, 1), 7), loan);
        let block = loan.block;
        assert_eq!(refused(result), LoanViolation::Outside { block, length });
    }
    let last = loan(1, 64 * 63, 64);
    assert_eq!(
        feed_loan(&mut server, kind, (id(0, 1), 7), last),
        Ok(Some(last))
    );
}

#[test]
fn loan_beyond_the_size_of_messages_is_rejected() {
    let result = feed_loan(
        &mut server(),
        FrameKind::Call,
        (id(0, 1), 7),
        loan(1, 0, 101),
    );
    let (length, limit_bytes) = (101, 100);
    let violation = LoanViolation::TooLarge {
        length,
        limit_bytes,
    };
    assert_eq!(refused(result), violation);
}

#[test]
fn block_lent_twice_is_rejected_until_the_peer_knows_that_it_is_back() {
    let mut server = server();
    let lent = loan(1, 64, 10);
    feed_loan(&mut server, FrameKind::Call, (id(0, 1), 7), lent).unwrap();
    let block = lent.block;
    for gives_back in [true, false] {
        let again = feed_loan(&mut server, FrameKind::Call, (id(1, 1), 7), lent);
        assert_eq!(refused(again), LoanViolation::LentTwice { block });
        if gives_back {
            server.give_back(block); // the frame waits
        }
    }
    while server.poll_transmit().is_some() {}
    assert_eq!(
        feed_loan(&mut server, FrameKind::Call, (id(1, 1), 7), lent),
        Ok(Some(lent))
    );
}

#[test]
fn release_of_what_was_not_lent_or_twice_is_rejected() {
    let mut server = server();
    let block = BlockId::new(0, 64);
    let release = |server: &mut Connection| feed_header(server, FrameKind::Release, block.raw(), 0);
    assert_eq!(
        refused(release(&mut server)),
        LoanViolation::NotLent { block }
    );
    assert!(server.lend(block));
    assert!(!server.lend(block), "it is with the peer");
    assert_eq!(release(&mut server), Ok(Event::Released { block }));
    assert_eq!(
        refused(release(&mut server)),
        LoanViolation::NotLent { block }
    );
    assert!(
        !server.lend(BlockId::new(1, 0)),
        "the client writes that one"
    );
}

#[test]
fn segment_in_use_is_not_retired_by_us_nor_by_the_peer() {
    let mut server = server();
    let block = BlockId::new(0, 64);
    assert!(server.lend(block));
    assert!(!server.retire_segment(0));
    assert!(server.take_back(block));
    assert!(server.retire_segment(0));
    assert_eq!(only_control(&mut server), (FrameKind::Retire, 0, 0));
    assert!(!server.retire_segment(0) && !server.retire_segment(1));

    let kind = FrameKind::Retire;
    feed_loan(&mut server, FrameKind::Call, (id(0, 1), 7), loan(1, 0, 1)).unwrap();
    let number = 1;
    assert_eq!(
        refused(feed_header(&mut server, kind, 1, 0)),
        LoanViolation::SegmentInUse { number }
    );
    server.give_back(BlockId::new(1, 0));
    while server.poll_transmit().is_some() {}
    assert_eq!(
        feed_header(&mut server, kind, 1, 0),
        Ok(Event::Retired { number })
    );
    assert_eq!(
        refused(feed_header(&mut server, kind, 1, 0)),
        LoanViolation::UnknownSegment { kind, number }
    );
    assert_eq!(server.segments(), (0, 0));
}

#[test]
fn reader_asks_for_the_end_of_a_segment_that_may_have_ended_already() {
    let mut server = server();
    feed_loan(&mut server, FrameKind::Call, (id(0, 1), 7), loan(1, 0, 1)).unwrap();
    assert!(!server.ask_to_retire(1), "we hold a block of it");
    server.give_back(BlockId::new(1, 0));
    while server.poll_transmit().is_some() {}
    assert!(!server.ask_to_retire(0), "we write that one");
    assert!(server.ask_to_retire(1));
    assert_eq!(only_control(&mut server), (FrameKind::Retire, 1, 0));

    let mut client = client();
    let (kind, number) = (FrameKind::Retire, 1);
    let ask = |client: &mut Connection| feed_header(client, kind, 1, 0);
    assert_eq!(ask(&mut client), Ok(Event::RetireAsked { number }));
    assert!(client.retire_segment(1));
    assert_eq!(ask(&mut client), Ok(Event::None), "both at once");
    let number = 3;
    assert_eq!(
        refused(feed_header(&mut client, kind, 3, 0)),
        LoanViolation::UnknownSegment { kind, number }
    );
}

#[test]
fn number_of_a_segment_is_never_used_again() {
    let mut client = client();
    want(&mut client);
    for number in [0, 1] {
        let result = feed_header(&mut client, FrameKind::Segment, u64::from(number), 1);
        let last = number;
        assert_eq!(refused(result), LoanViolation::NumberUsed { number, last });
    }
    assert!(client.retire_segment(1));
    client.poll_transmit();
    want(&mut client);
    let result = feed_header(&mut client, FrameKind::Segment, 1, 1);
    let (number, last) = (1, 1);
    assert_eq!(refused(result), LoanViolation::NumberUsed { number, last });
    want(&mut client);
    assert!(feed_header(&mut client, FrameKind::Segment, 3, 1).is_ok());

    let mut server = server();
    assert!(server.retire_segment(0));
    assert_eq!(server.next_segment(Role::Server), Some(2));
}

#[test]
fn segments_are_bounded_in_size_and_number() {
    let mut client = client();
    let pages = MAX_SEGMENT_PAGES + 1;
    let result = feed_header(&mut client, FrameKind::Segment, 2, pages);
    let number = 2;
    assert_eq!(
        refused(result),
        LoanViolation::SegmentSize { number, pages }
    );
    let mut number = 2;
    for _ in 1..MAX_SEGMENTS {
        feed_header(&mut client, FrameKind::Segment, number.into(), 1).unwrap();
        number += 2;
    }
    let result = feed_header(&mut client, FrameKind::Segment, number.into(), 1);
    assert_eq!(refused(result), LoanViolation::TooManySegments { number });

    let mut server = server();
    for _ in 1..MAX_SEGMENTS {
        let number = server.next_segment(Role::Client).unwrap();
        server.announce_segment(number, 1);
    }
    assert_eq!(server.next_segment(Role::Client), None);
    assert_eq!(server.next_segment(Role::Server), Some(2));
}

#[test]
fn loans_are_bounded_on_both_sides() {
    let mut server = machine(Role::Server);
    let pages = u32::try_from(MAX_LOANS).unwrap().div_ceil(64) + 1;
    for writer in [Role::Server, Role::Client] {
        let number = server.next_segment(writer).unwrap();
        server.announce_segment(number, pages);
    }
    open_call(&mut server, id(0, 1), CallKind::ClientStream);
    for index in 0..u32::try_from(MAX_LOANS).unwrap() {
        assert!(server.lend(BlockId::new(0, 64 * index)));
        let item = loan(1, 64 * index, 1);
        feed_loan(&mut server, FrameKind::Data, (id(0, 1), 0), item).unwrap();
        server.consumed(id(0, 1), 36);
        while server.poll_transmit().is_some() {} // the credit
    }
    let beyond = 64 * u32::try_from(MAX_LOANS).unwrap();
    assert!(!server.lend(BlockId::new(0, beyond)));
    let result = feed_loan(
        &mut server,
        FrameKind::Data,
        (id(0, 1), 0),
        loan(1, beyond, 1),
    );
    let block = BlockId::new(1, beyond);
    assert_eq!(refused(result), LoanViolation::TooManyLoans { block });
}

#[test]
fn wish_for_a_segment_is_answered_once() {
    let (mut client, mut server) = (machine(Role::Client), machine(Role::Server));
    assert!(client.want_segment(3));
    assert!(!client.want_segment(9), "the first wish has no answer yet");
    assert_eq!(only_control(&mut client), (FrameKind::WantSegment, 0, 3));
    let wish = |server: &mut Connection| feed_header(server, FrameKind::WantSegment, 0, 3);
    assert_eq!(wish(&mut server), Ok(Event::SegmentWanted { pages: 3 }));
    assert_eq!(refused(wish(&mut server)), LoanViolation::WantedTwice);
    server.refuse_segment();
    assert_eq!(
        refused(wish(&mut server)),
        LoanViolation::WantedTwice,
        "the answer has not been taken out"
    );
    assert_eq!(only_control(&mut server), (FrameKind::Segment, 0, 0));
    assert!(wish(&mut server).is_ok());
    assert_eq!(
        feed_header(&mut client, FrameKind::Segment, 0, 0),
        Ok(Event::SegmentRefused)
    );
    assert!(client.want_segment(1));
}

#[test]
fn answer_to_no_wish_is_refused() {
    let mut client = client();
    for (number, pages) in [(0, 0), (3, 1)] {
        let result = feed_header(&mut client, FrameKind::Segment, number.into(), pages);
        assert_eq!(refused(result), LoanViolation::NotWanted { number, pages });
    }
    want(&mut client);
    assert!(
        feed_header(&mut client, FrameKind::Segment, 2, 1).is_ok(),
        "one that the server writes is no answer"
    );
    assert!(feed_header(&mut client, FrameKind::Segment, 3, 1).is_ok());
    let result = feed_header(&mut client, FrameKind::Segment, 0, 0);
    let (number, pages) = (0, 0);
    assert_eq!(
        refused(result),
        LoanViolation::NotWanted { number, pages },
        "it has had its answer"
    );
}

#[test]
fn nothing_about_loans_is_accepted_without_agreement() {
    for role in [Role::Client, Role::Server] {
        let mut machine = machine(role);
        machine.loans = Loans::new(role, false);
        let (open, kind) = match role {
            Role::Client => {
                assert!(!machine.want_segment(1));
                let call = machine.start_call(CallKind::Unary, None).unwrap();
                (call, FrameKind::Response)
            }
            Role::Server => {
                assert_eq!(machine.next_segment(Role::Client), None);
                (id(0, 1), FrameKind::Call)
            }
        };
        let result = feed_loan(&mut machine, kind, (open, 7), loan(0, 0, 1));
        assert_eq!(refused(result), LoanViolation::NotAgreed { kind });
        let asking = match role {
            Role::Client => FrameKind::Segment,
            Role::Server => FrameKind::WantSegment,
        };
        for kind in [asking, FrameKind::Retire, FrameKind::Release] {
            let value = u32::from(kind == asking);
            let result = feed_header(&mut machine, kind, 0, value);
            assert_eq!(refused(result), LoanViolation::NotAgreed { kind });
        }
        assert!(!machine.lend(BlockId::new(0, 0)) && !machine.has_control());
    }
}

#[test]
fn frames_about_segments_travel_one_way() {
    for (role, kind) in [
        (Role::Server, FrameKind::Segment),
        (Role::Client, FrameKind::WantSegment),
        (Role::Server, FrameKind::Quiet),
    ] {
        let value = u32::from(kind != FrameKind::Quiet);
        let result = feed_header(&mut machine(role), kind, 0, value);
        assert_eq!(result, Err(ProtocolError::WrongDirection { kind, role }));
    }
}

#[test]
fn quiet_is_said_once_and_heard_by_the_client() {
    let mut server = server();
    server.say_quiet();
    server.say_quiet();
    assert_eq!(only_control(&mut server), (FrameKind::Quiet, 0, 0));
    let heard = feed_header(&mut machine(Role::Client), FrameKind::Quiet, 0, 0);
    assert_eq!(heard, Ok(Event::Quiet));
    server.handle_closed();
    server.say_quiet();
    assert!(!server.has_control());
}

#[test]
fn nothing_is_lent_any_more_after_the_end() {
    let mut server = server();
    assert!(server.lend(BlockId::new(0, 0)));
    feed_loan(&mut server, FrameKind::Call, (id(0, 1), 7), loan(1, 0, 1)).unwrap();
    server.handle_closed();
    assert_eq!((server.loans(), server.segments()), ((0, 0), (0, 0)));
    server.give_back(BlockId::new(1, 0));
    server.refuse_segment();
    assert!(!server.has_control() && !server.lend(BlockId::new(0, 0)));
}

#[test]
fn lent_request_takes_the_short_way_where_one_of_the_general_way_would_be_with_us() {
    let mut server = server();
    let lent = loan(1, 64, 100);
    assert!(
        !server.take_lent_request(id(0, 1), lent),
        "a slot is used for the first time"
    );
    open_call(&mut server, id(0, 1), CallKind::Unary);
    assert!(server.finish(id(0, 1)));
    for refused in [
        loan(1, 64, 101),   // larger than a message may be
        loan(1, 4096, 1),   // behind the end
        loan(1, 4032, 100), // beyond it
        loan(1, 1, 1),
        loan(0, 0, 1), // ours
        loan(3, 0, 1),
    ] {
        assert!(!server.take_lent_request(id(0, 2), refused), "{refused:?}");
    }
    assert!(!server.take_lent_request(id(0, 3), lent));
    assert_eq!((server.loans(), server.active_calls()), ((0, 0), 0));
    assert!(server.take_lent_request(id(0, 2), lent));
    assert_eq!((server.loans(), server.active_calls()), ((0, 1), 1));
    assert!(server.finish(id(0, 2)));
    assert!(
        !server.take_lent_request(id(0, 3), lent),
        "it is lent twice"
    );
    server.handle_closed();
    assert!(!server.take_lent_request(id(0, 3), loan(1, 0, 1)));
}

#[test]
fn lent_reply_takes_the_short_way_where_one_of_the_general_way_would_be_with_us() {
    let mut client = client();
    let lent = loan(0, 64, 100);
    let call = client.start_call(CallKind::Unary, None).unwrap();
    assert!(!client.take_lent_reply(call, loan(0, 64, 101)));
    assert!(!client.take_lent_reply(call, loan(0, 4096, 1)));
    assert!(!client.take_lent_reply(call, loan(1, 0, 1)), "it is ours");
    assert!(!client.take_lent_reply(id(call.slot(), call.generation() + 1), lent));
    assert_eq!(client.loans(), (0, 0));
    assert!(client.take_lent_reply(call, lent) && !client.is_active(call));
    let streaming = client.start_call(CallKind::ServerStream, None).unwrap();
    assert!(!client.take_lent_reply(streaming, loan(0, 0, 1)));
    let given_up = client.start_call(CallKind::Unary, None).unwrap();
    assert!(client.cancel(given_up));
    assert!(!client.take_lent_reply(given_up, loan(0, 0, 1)));
    assert_eq!(client.loans(), (0, 1));
}

#[test]
fn block_goes_back_at_once_if_nothing_waits_to_be_told_before() {
    let mut client = client();
    let call = client.start_call(CallKind::Unary, None).unwrap();
    let lent = loan(0, 64, 100);
    assert!(!client.may_give_back(lent.block), "we do not have it");
    assert!(client.take_lent_reply(call, lent));
    client.ping(1);
    assert!(!client.may_give_back(lent.block), "a ping waits");
    assert_eq!(only_control(&mut client).0, FrameKind::Ping);
    assert!(client.may_give_back(lent.block));
    client.gave_back(lent.block);
    assert!(client.loans() == (0, 0) && !client.has_control());
    client.give_back(lent.block);
    assert!(!client.has_control(), "it is given back once");
    let call = client.start_call(CallKind::Unary, None).unwrap();
    assert!(client.take_lent_reply(call, lent), "it may come again");
}

#[test]
fn what_is_lent_may_be_as_small_as_messages_must_be() {
    let of = |role| {
        Connection::new(Config {
            max_message_bytes: 8, // less than a descriptor
            ..machine(role).config
        })
    };
    let lent = loan(1, 64, 8);
    let mut server = of(Role::Server);
    server.announce_segment(1, 1);
    let taken = feed_loan(&mut server, FrameKind::Call, (id(0, 1), 7), lent);
    assert_eq!(taken, Ok(Some(lent)));
    assert!(server.finish(id(0, 1)));
    let next = loan(1, 0, 8);
    assert!(server.take_lent_request(id(0, 2), next), "nor shortly");
    let mut client = of(Role::Client);
    feed_header(&mut client, FrameKind::Segment, 0, 1).unwrap();
    let call = client.start_call(CallKind::Unary, None).unwrap();
    let lent = loan(0, 64, 8);
    let taken = feed_loan(&mut client, FrameKind::Response, (call, 7), lent);
    assert_eq!(taken, Ok(Some(lent)));
}

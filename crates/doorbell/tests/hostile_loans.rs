//! Peers that break the rules of loans: it costs them their connection, and nobody else anything.

mod support;

use doorbell::{CallError, Client, Disconnected, SegmentError, Violation, blocking};
use doorbell_proto::{
    LoanViolation, ProtocolError,
    frame::{BlockId, CallId, Descriptor, Flags, FrameHeader, FrameKind},
};
use doorbell_shm::{
    memory::{OwnSegment, adopt_own_segment, create_own_segment},
    sys::{RegionHandle, create_region, seal_size},
};
use doorbell_testkit::{
    Place, RawClient, RawControl, RawServer, descriptors, eventually, mappings,
};
use std::sync::Arc;
use support::{Host, in_time, messages::*};

const PAGES: u32 = 64;
const BYTES: u32 = PAGES * 4096;

#[test]
#[ignore = "the body of the child processes"]
fn child_process() {
    support::roles::run();
}

/// Lets clients of both kinds call a server that answers with something wrong, and returns what they say about it.
async fn answer_wrongly(wrong: impl Fn(&mut RawServer)) -> [Violation; 2] {
    in_time(async {
        let place = Place::new();
        let listener = RawServer::listen(&place.socket());
        let name = place.name();
        let calling = tokio::spawn(async move {
            let client = Client::connect(name).await.unwrap();
            client.call(Add(1, 2)).await
        });
        let mut server = RawServer::accept(&listener);
        server.wait_for_frame();
        wrong(&mut server);
        server.wait_for_end();
        let of_task = calling.await.unwrap().unwrap_err();
        let name = place.name();
        let calling = std::thread::spawn(move || {
            let client = blocking::Client::connect(name).unwrap();
            client.call(Add(1, 2)).wait()
        });
        let mut server = RawServer::accept(&listener);
        server.wait_for_frame();
        wrong(&mut server);
        server.wait_for_end();
        let of_thread = calling.join().unwrap().unwrap_err();
        [of_task, of_thread].map(|error| match error {
            CallError::Disconnected(Disconnected::Protocol(violation)) => {
                Arc::into_inner(violation).expect("nobody else keeps it")
            }
            other => panic!("{other:?}"),
        })
    })
    .await
}

async fn segment_is_refused(
    wrong: impl Fn(&mut RawServer),
    is_expected: impl Fn(&SegmentError) -> bool,
) {
    for violation in answer_wrongly(wrong).await {
        match &violation {
            Violation::Segment(error) if is_expected(error) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn segment_that_is_announced_and_not_sent_costs_the_connection() {
    segment_is_refused(
        |server| server.say_segment(0, PAGES),
        |error| matches!(error, SegmentError::Io(error) if error.kind() == std::io::ErrorKind::WouldBlock),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn segment_without_a_descriptor_or_with_two_costs_the_connection() {
    let without = |server: &mut RawServer| {
        server.send_control(&RawServer::segment_message(0, PAGES), &[]);
        server.say_segment(0, PAGES);
    };
    segment_is_refused(without, |error| {
        matches!(error, SegmentError::Missing { number: 0 })
    })
    .await;
    let with_two = |server: &mut RawServer| {
        let (_, handle) = create_own_segment(BYTES).unwrap();
        let handles = [handle.as_handle(), handle.as_handle()];
        server.send_control(&RawServer::segment_message(0, PAGES), &handles);
        server.say_segment(0, PAGES);
    };
    segment_is_refused(with_two, |error| {
        matches!(error, SegmentError::Io(error) if error.kind() == std::io::ErrorKind::InvalidData)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn segment_that_says_something_else_than_its_frame_costs_the_connection() {
    let wrong = |server: &mut RawServer| {
        let (_, handle) = create_own_segment(BYTES).unwrap();
        server.send_control(&RawServer::segment_message(2, PAGES), &[handle.as_handle()]);
        server.say_segment(0, PAGES);
    };
    segment_is_refused(wrong, |error| {
        matches!(error, SegmentError::Another { number: 0 })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn segment_of_another_size_or_without_seals_costs_the_connection() {
    let memories: [fn() -> RegionHandle; 3] = [
        || create_own_segment(BYTES / 2).unwrap().1,
        || create_region(BYTES as usize).unwrap(),
        || {
            let region = create_region(BYTES as usize).unwrap();
            seal_size(&region).unwrap(); // the server could have mapped what it says is ours to write by nobody but it
            region
        },
    ];
    for memory in memories {
        let wrong = move |server: &mut RawServer| {
            server.send_control(
                &RawServer::segment_message(0, PAGES),
                &[memory().as_handle()],
            );
            server.say_segment(0, PAGES);
        };
        segment_is_refused(wrong, |error| matches!(error, SegmentError::Region { .. })).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn number_of_a_segment_that_is_used_again_costs_the_connection() {
    let wrong = |server: &mut RawServer| {
        server.send_segment(2, PAGES);
        server.send_segment(2, PAGES);
    };
    for violation in answer_wrongly(wrong).await {
        let expected = LoanViolation::NumberUsed { number: 2, last: 2 };
        assert!(
            matches!(violation, Violation::State(ProtocolError::Loan(found)) if found == expected),
            "{violation:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reply_beyond_its_segment_costs_the_connection() {
    let loan = Descriptor {
        block: BlockId::new(0, BYTES - 64),
        length: 65,
    };
    let wrong = move |server: &mut RawServer| {
        server.send_segment(0, PAGES);
        let body = loan.encode();
        let header = FrameHeader {
            length: body.len() as u32,
            flags: Flags::LOANED,
            ..FrameHeader::new(FrameKind::Response, CallId::new(0, 1).raw(), 1)
        };
        server.push(&RawClient::seal(header, &body), &body);
    };
    for violation in answer_wrongly(wrong).await {
        let Descriptor { block, length } = loan;
        let expected = LoanViolation::Outside { block, length };
        assert!(
            matches!(violation, Violation::State(ProtocolError::Loan(found)) if found == expected),
            "{violation:?}"
        );
    }
}

/// A client made by hand, with a segment of its own from a server that does not know what it will do with it.
struct Lender {
    client: RawClient,
    segment: OwnSegment,
}

impl Lender {
    fn connect(host: &Host) -> Self {
        let mut client = RawControl::connect(&host.place.socket()).finish();
        client.send(FrameHeader::new(FrameKind::WantSegment, 0, 1), &[]);
        let (bytes, handle) = client.receive_control();
        assert_eq!(bytes, RawServer::segment_message(1, PAGES));
        let segment = adopt_own_segment(&RegionHandle::from_handle(handle), BYTES).unwrap();
        eventually("the segment is announced", || client.read().is_some());
        client.ping(1); // answered when the server has read all that came before: what comes next is read in one go
        Self { client, segment }
    }

    fn lend(&mut self, slot: u32, loan: Descriptor) {
        let (header, body) = lending(slot, loan);
        self.client.send(header, &body);
    }
}

/// A call of `Stuck`, which is never answered.
fn lending(slot: u32, loan: Descriptor) -> (FrameHeader, [u8; 12]) {
    let body = loan.encode();
    let header = FrameHeader {
        length: body.len() as u32,
        flags: Flags::LOANED,
        ..FrameHeader::new(FrameKind::Call, CallId::new(slot, 1).raw(), 11)
    };
    (header, body)
}

/// Runs a test with a client that lends and one that has nothing to do with it, and must not be disturbed. Afterwards the server
/// holds what it held before.
async fn is_thrown_out(wrong: impl Fn(&mut Lender)) {
    let host = Host::start("server", &[]);
    in_time(async {
        let witness = host.client().await;
        assert_eq!(witness.call(Add(1, 2)).await.unwrap(), 3);
        let held = || (descriptors(host.child.id()), mappings(host.child.id()));
        let before = held();
        let mut lender = Lender::connect(&host);
        assert!(lender.segment.size_bytes() == BYTES as usize);
        wrong(&mut lender);
        lender.client.wait_for_end();
        assert_eq!(witness.call(Add(1, 2)).await.unwrap(), 3);
        eventually("the server gives everything back", || held() == before);
    })
    .await;
}

fn loan(segment: u32, offset: u32, length: u32) -> Descriptor {
    let block = BlockId::new(segment, offset);
    Descriptor { block, length }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wild_descriptor_costs_the_connection() {
    let wild = [
        loan(0, 0, 1),
        loan(3, 0, 1),
        loan(1, BYTES, 1),
        loan(1, BYTES - 64, 65),
        loan(1, 8, 8),
        loan(1, u32::MAX, u32::MAX),
    ];
    for loan in wild {
        is_thrown_out(|lender| lender.lend(0, loan)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn block_that_is_lent_twice_costs_the_connection() {
    is_thrown_out(|lender| {
        // The server gives the first back when it has read the second, which has come with it.
        let lent = loan(1, 0, 0);
        for slot in [0, 1] {
            let (header, body) = lending(slot, lent);
            assert!(lender.client.write(&RawClient::seal(header, &body), &body));
        }
        lender.client.publish_quietly();
        lender.client.ring();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn release_of_what_was_not_lent_costs_the_connection() {
    for id in [BlockId::new(0, 0), BlockId::new(1, 0), BlockId::new(9, 1)] {
        let header = FrameHeader::new(FrameKind::Release, id.raw(), 0);
        is_thrown_out(|lender| lender.client.send(header, &[])).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn segment_that_is_retired_twice_or_announced_by_a_client_costs_the_connection() {
    let retire = FrameHeader::new(FrameKind::Retire, 1, 0);
    is_thrown_out(|lender| {
        lender.client.send(retire, &[]);
        lender.client.send(retire, &[]);
    })
    .await;
    is_thrown_out(|lender| {
        lender
            .client
            .send(FrameHeader::new(FrameKind::Segment, 3, 1), &[]);
    })
    .await;
}

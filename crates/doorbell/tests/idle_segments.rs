//! Room for a loan where the limit is used up by segments that nobody uses.

use std::{sync::mpsc, thread};

use doorbell::{Context, Loan, LoanError, Loaned, Message, MessageType, Spin, Status, blocking};
use doorbell_testkit::{PATIENCE, Place};
use serde::{Deserialize, Serialize};

/// Answered with a loan of so many bytes.
#[derive(Serialize, Deserialize)]
struct Lend(u32);

impl Message for Lend {
    const TYPE: MessageType = MessageType::new(1);
    type Reply = Loaned;
}

/// A stream of one such loan.
#[derive(Serialize, Deserialize)]
struct Items(u32);

impl Message for Items {
    const TYPE: MessageType = MessageType::new(2);
    type Reply = Loaned;
}

const MIB: u32 = 1 << 20;

fn filled(loan: Result<Loan, LoanError>) -> Result<Loaned, Status> {
    let mut loan = loan?;
    let bytes = vec![7; loan.len()];
    loan.copy_from_slice(&bytes);
    Ok(loan.into())
}

/// A server whose worker never sleeps, and so gives nothing up by itself.
fn busy_server(place: &Place) -> blocking::Server {
    blocking::Server::builder(place.name())
        .max_loan_bytes(MIB.into())
        .spin(Spin::Always)
        .on(|context: Context, Lend(length): Lend| filled(context.try_loan(length as usize)))
        .on_stream(
            |context: Context, Items(length): Items, mut out: blocking::ItemSender<Loaned>| {
                out.send(filled(context.wait_loan(length as usize))?)?;
                Ok::<_, Status>(())
            },
        )
        .bind()
        .unwrap()
}

#[test]
fn room_of_segments_that_are_too_small_and_not_used_is_had_by_a_larger_loan() {
    let place = Place::new();
    let _server = busy_server(&place);
    let client = blocking::Client::connect(place.name()).unwrap();
    let lend = |length| {
        let reply = client.call(Lend(length)).timeout(PATIENCE).wait();
        reply.unwrap_or_else(|error| panic!("{length} bytes: {error}"))
    };
    for length in [1000, MIB / 2, MIB] {
        assert!(lend(length).is_in_place());
    }
    let loan = client.loan(MIB as usize, PATIENCE);
    assert_eq!(loan.unwrap().len(), MIB as usize, "the client's own");
}

#[test]
fn handler_does_not_wait_for_the_room_of_a_segment_that_is_not_used() {
    let place = Place::new();
    let _server = busy_server(&place);
    let client = blocking::Client::connect(place.name()).unwrap();
    let lend = |length| client.call(Lend(length)).timeout(PATIENCE).wait().unwrap();
    let kept = lend(1000);
    drop(lend(700 << 10));
    let (say, hear) = mpsc::channel();
    thread::spawn(move || {
        let mut items = client.stream(Items(720 << 10)).open().unwrap();
        say.send(items.next().unwrap().is_ok_and(|item| item.is_in_place()))
    });
    assert_eq!(hear.recv_timeout(PATIENCE), Ok(true));
    drop(kept);
}

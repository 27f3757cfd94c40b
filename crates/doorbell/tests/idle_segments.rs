//! Room for a loan where the limit is used up by segments that nobody uses.

use std::{
    iter,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
};

use doorbell::{
    Code, Context, Loan, LoanError, Loaned, Message, MessageType, Payload, Server, Spin, Status,
    blocking,
};
use doorbell_testkit::{PATIENCE, Place, eventually};
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

/// Answered when the loan has been dropped.
#[derive(Payload)]
#[payload(loaned)]
struct Take(Loaned);

impl Message for Take {
    const TYPE: MessageType = MessageType::new(3);
    type Reply = ();
}

/// Answered at once.
#[derive(Serialize, Deserialize)]
struct Ping;

impl Message for Ping {
    const TYPE: MessageType = MessageType::new(4);
    type Reply = ();
}

/// Answered with a loan of the same size, when this one has been dropped.
#[derive(Payload)]
#[payload(loaned)]
struct Exchange(Loaned);

impl Message for Exchange {
    const TYPE: MessageType = MessageType::new(5);
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
        .on(|_: Context, _: Ping| Ok::<_, Status>(()))
        .on(|_: Context, Take(loan): Take| {
            drop(loan);
            Ok::<_, Status>(())
        })
        .bind()
        .unwrap()
}

fn take(client: &blocking::Client, loan: Loan) {
    let loaned = filled(Ok(loan)).unwrap();
    client.call(Take(loaned)).timeout(PATIENCE).wait().unwrap();
}

fn lend_to(client: &blocking::Client, length: u32) {
    take(client, client.loan(length as usize, PATIENCE).unwrap());
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

#[test]
fn handler_that_waits_has_the_room_of_a_segment_that_the_client_does_not_use() {
    let place = Place::new();
    let _server = busy_server(&place);
    let client = blocking::Client::connect(place.name()).unwrap();
    for _ in 0..3 {
        lend_to(&client, MIB);
        let items = client.stream(Items(MIB)).timeout(PATIENCE);
        let mut items = items.open().unwrap();
        assert!(items.next().unwrap().unwrap().is_in_place());
    }
}

/// What the limit of all connections leaves is no more than a loan that another handler has not sent. It drops it as late as it can: the one that waits is
/// woken by that alone.
#[test]
fn handler_that_waits_has_the_room_of_a_loan_that_another_one_drops() {
    let place = Place::new();
    let (say_taken, hear_taken) = mpsc::channel();
    let (say_drop, hear_drop) = mpsc::channel::<()>();
    let hear_drop = Mutex::new(hear_drop);
    let server = blocking::Server::builder(place.name())
        .max_total_loan_bytes(MIB.into())
        .on_stream(
            move |context: Context, Lend(length): Lend, _: blocking::ItemSender<Loaned>| {
                let loan = context.wait_loan(length as usize)?;
                say_taken.send(()).unwrap();
                let told = hear_drop.lock().unwrap().recv_timeout(PATIENCE);
                drop(loan);
                told.map_err(|error| Status::internal(error.to_string()))
            },
        )
        .on_stream(
            |context: Context, Items(length): Items, mut out: blocking::ItemSender<Loaned>| {
                out.send(filled(context.wait_loan(length as usize))?)?;
                Ok::<_, Status>(())
            },
        )
        .bind()
        .unwrap();
    let client = blocking::Client::connect(place.name()).unwrap();
    for _ in 0..100 {
        let taken = client.stream(Lend(600 << 10)).timeout(PATIENCE);
        let taken = taken.open().unwrap();
        hear_taken.recv_timeout(PATIENCE).unwrap();
        let refused = server.stats().loans_refused;
        let items = client.stream(Items(MIB)).timeout(PATIENCE);
        let mut items = items.open().unwrap();
        eventually("the other one waits", || {
            server.stats().loans_refused > refused
        });
        say_drop.send(()).unwrap();
        let item = items.next().unwrap();
        assert!(item.unwrap().is_in_place());
        drop(taken);
    }
}

async fn server_of_tasks(place: &Place) -> Server {
    Server::builder(place.name())
        .max_loan_bytes(MIB.into())
        .on(|context: Context, Lend(length): Lend| async move {
            filled(context.loan(length as usize).await)
        })
        .on(|_: Context, Take(loan): Take| async move {
            drop(loan);
            Ok::<_, Status>(())
        })
        .on(|context: Context, Exchange(loan): Exchange| async move {
            let length = loan.len();
            drop(loan);
            filled(context.loan(length).await)
        })
        .bind()
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn task_that_has_dropped_its_request_has_the_room_of_its_segment() {
    let place = Place::new();
    let _server = server_of_tasks(&place).await;
    let client = doorbell::Client::connect(place.name()).await.unwrap();
    for _ in 0..3 {
        let loaned = filled(client.loan(MIB as usize).await).unwrap();
        let reply = client.call(Exchange(loaned)).timeout(PATIENCE).await;
        assert!(reply.unwrap().is_in_place());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn task_that_waits_has_the_room_of_a_segment_that_the_client_does_not_use() {
    let place = Place::new();
    let _server = server_of_tasks(&place).await;
    let client = doorbell::Client::connect(place.name()).await.unwrap();
    for _ in 0..3 {
        let loaned = filled(client.loan(MIB as usize).await).unwrap();
        client.call(Take(loaned)).timeout(PATIENCE).await.unwrap();
        let reply = client.call(Lend(MIB)).timeout(PATIENCE).await;
        assert!(reply.unwrap().is_in_place());
    }
}

#[test]
fn handler_that_only_tries_has_that_room_after_a_while() {
    let place = Place::new();
    let _server = busy_server(&place);
    let client = blocking::Client::connect(place.name()).unwrap();
    lend_to(&client, MIB);
    let is_had = (0..3).any(|_| match client.call(Lend(MIB)).timeout(PATIENCE).wait() {
        Ok(reply) => reply.is_in_place(),
        Err(error) => {
            assert_eq!(error.code(), Code::ResourceExhausted, "{error}");
            false
        }
    });
    assert!(is_had);
}

#[test]
fn handler_waits_for_a_segment_of_which_the_client_has_a_block_yet() {
    let place = Place::new();
    let server = busy_server(&place);
    let client = blocking::Client::connect(place.name()).unwrap();
    let length = 300 << 10;
    let kept = client.loan(length as usize, PATIENCE).unwrap();
    lend_to(&client, length);
    assert_eq!(
        server.stats().loan_bytes,
        u64::from(2 * length),
        "one segment"
    );
    let other = client.clone();
    let waiting = thread::spawn(move || {
        let mut items = other.stream(Items(900 << 10)).timeout(PATIENCE).open();
        let item = items.as_mut().unwrap().next().unwrap();
        item.map(|item| item.is_in_place())
    });
    eventually("the handler has found no room", || {
        server.stats().loans_refused > 0
    });
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| keep_busy(&client, &is_over));
        for _ in 0..3 {
            lend_to(&client, 1000); // the question has been read by then
        }
        assert!(!waiting.is_finished());
        client.notify(Take(filled(Ok(kept)).unwrap())).unwrap();
        let waited = waiting.join();
        is_over.store(true, Ordering::Relaxed);
        assert!(waited.unwrap().unwrap());
    });
}

/// Calls all the time, so that the connection does not go to sleep: the client would be asked for what it does not use.
fn keep_busy(client: &blocking::Client, is_over: &AtomicBool) {
    let calls = iter::repeat_with(|| Ping).take_while(|_| !is_over.load(Ordering::Relaxed));
    for reply in client.call_all(calls).open().unwrap() {
        reply.unwrap();
    }
}

use std::{
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    task::{Wake, Waker},
};

use doorbell_proto::{
    CallId,
    frame::{Flags, FrameHeader, FrameKind},
};
use doorbell_testkit::{
    PATIENCE, Place, RawClient,
    by_hand::{Frame, HandClient, HandHello, Memory, kind},
    eventually,
};

use crate::{
    Context, Disconnected, Message, MessageType, Status, blocking,
    connection::{Connection, Dispatch, InlineReplies, Receive, waiters::Waiting},
};

/// Answered with a few pages.
#[derive(serde::Serialize, serde::Deserialize)]
struct Fill;
impl Message for Fill {
    const TYPE: MessageType = MessageType::new(1);
    type Reply = Vec<u8>;
}

/// Holds the worker until the test is over.
#[derive(serde::Serialize, serde::Deserialize)]
struct Hold;
impl Message for Hold {
    const TYPE: MessageType = MessageType::new(2);
    type Reply = ();
}

#[derive(Default)]
struct Woken(AtomicBool);
impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The client makes room while the worker is on its way to sleep, where it writes what waits, because there is a segment to give up.
#[test]
fn who_waits_for_quiet_hears_of_it_from_a_worker_that_falls_asleep() {
    let place = Place::new();
    let ((started, contexts), (held, is_held), (open, gate)) =
        (mpsc::channel(), mpsc::channel(), mpsc::channel::<()>());
    let (started, gate) = (Mutex::new((started, held)), Mutex::new(gate));
    let started = Arc::new(started);
    let holds = Arc::clone(&started);
    let _server = blocking::Server::builder(place.name())
        .workers(1)
        .on(move |context: Context, _: Fill| {
            started.lock().unwrap().0.send(context).unwrap();
            Ok::<_, Status>(vec![1; 5000])
        })
        .on(move |_: Context, _: Hold| {
            holds.lock().unwrap().1.send(()).unwrap();
            let _ = gate.lock().unwrap().recv_timeout(PATIENCE);
            Ok::<_, Status>(())
        })
        .bind()
        .unwrap();
    let hello = HandHello {
        features: 1 | HandHello::LOANS,
        ..HandHello::proper()
    };
    let mut client = HandClient::connect_with(&place.socket(), &hello);
    let mut call = |slot: u32| {
        let number = 1 << 32 | u64::from(slot);
        client.send(&Frame::new(kind::CALL, number, Fill::TYPE.get()));
        contexts.recv_timeout(PATIENCE).unwrap()
    };
    let context = call(0);
    let connection = context.connection();
    let loan = context.try_loan(1 << 20).unwrap();
    for slot in 1.. {
        eventually("it is answered", || {
            connection.is_congested() || !connection.lock().machine.has_open_calls()
        });
        if connection.is_congested() {
            break;
        }
        call(slot);
    }

    let holder = blocking::Client::connect(place.name()).unwrap();
    let holding = holder.call(Hold).send().unwrap();
    is_held.recv_timeout(PATIENCE).unwrap();
    connection.take_leave();
    assert!(!connection.forgo_answer());
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut waiting = Waiting::new(connection, None);
    let polled = connection.poll_quiet(&waker, &mut waiting.registration);
    assert!(polled.is_pending());

    client
        .ours
        .store(Memory::HEAD, client.theirs.load(Memory::TAIL));
    drop(loan);
    assert!(!woken.0.load(Ordering::Relaxed));
    connection.fall_asleep().unwrap();
    assert!(!connection.lock().has_backlog());
    assert!(woken.0.load(Ordering::Relaxed));

    open.send(()).unwrap();
    holding.wait().unwrap();
}

/// A worker has read what the client has left. Whoever ends the connection would go on for as long as a client does that has hung up and goes on
/// writing.
#[test]
fn connection_of_a_dead_client_ends_without_being_read() {
    let (_server, _client, context) = filled();
    let connection = context.connection();
    let receive = receive_half(connection);
    assert!(connection.close_as_driver(Disconnected::PeerGone));
    assert!(connection.is_closed());
    drop(receive);
}

/// A chunk is copied, which takes its time, and another follows while that lasts.
#[test]
fn answers_before_a_chunk_are_published_before_it_is_read() {
    let (_server, mut client, context) = filled();
    let connection = context.connection();
    let mut receive = receive_half(connection);
    receive.longest = None;
    let mut write = |slot, generation, flags, body: &[u8]| {
        let id = CallId::new(slot, generation).raw();
        let mut header = FrameHeader::new(FrameKind::Call, id, Fill::TYPE.get());
        (header.flags, header.length) = (flags, u32::try_from(body.len()).unwrap());
        assert!(client.write(&RawClient::seal(header, body), body));
    };
    let first = [&3000_u64.to_le_bytes()[..], &[0; 1000]].concat();
    write(0, 2, Flags::MORE, &first);
    write(1, 1, Flags::default(), &[]);
    write(0, 2, Flags::CONTINUE, &[0; 2000]);
    client.publish_quietly();
    let mut answer = |request: Dispatch<'_>, inline: &InlineReplies| {
        let id = match request {
            Dispatch::Small { id, .. } | Dispatch::Request { id, .. } => id,
            _ => unreachable!("calls alone have been sent"),
        };
        let encode = |out: &mut Vec<u8>| {
            out.push(7);
            Ok::<_, ()>(())
        };
        inline.leave(id, Fill::TYPE, encode).unwrap();
    };
    let mut drain = || connection.drain(&mut receive, 64, &mut answer).unwrap();
    assert_eq!(drain(), 2);
    assert!(client.read().is_some(), "the answer");
    assert_eq!(drain(), 1);
}

/// A client of a server with one worker, that has had the answer to a call, and what the handler has been given.
fn filled() -> (blocking::Server, RawClient, Context) {
    let place = Place::new();
    let (tell, contexts) = mpsc::channel();
    let tell = Mutex::new(tell);
    let server = blocking::Server::builder(place.name())
        .workers(1)
        .on(move |context: Context, _: Fill| {
            tell.lock().unwrap().send(context).unwrap();
            Ok::<_, Status>(vec![1])
        })
        .bind()
        .unwrap();
    let mut client = RawClient::connect(&place.socket());
    let call = FrameHeader::new(FrameKind::Call, CallId::new(0, 1).raw(), Fill::TYPE.get());
    client.send(call, &[]);
    let context = contexts.recv_timeout(PATIENCE).unwrap();
    eventually("the answer", || client.read().is_some());
    (server, client, context)
}

fn receive_half(connection: &Connection) -> MutexGuard<'_, Receive> {
    let mut taken = None;
    eventually("the receive half is free", || {
        taken = connection.try_receive();
        taken.is_some()
    });
    taken.unwrap()
}

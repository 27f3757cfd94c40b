//! Rings of the bell that come late, and room that comes early: nobody sleeps over either, and no frame overtakes another of its
//! call.
//!
//! The other side is made by hand, so that what is a matter of microseconds elsewhere happens in a given order here.

mod support;

use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    task::{Wake, Waker},
};

use bytes::Bytes;
use doorbell::{
    Client, Context, ItemStream, Loaned, Message, MessageType, NotifyError, Payload, Raw, Server,
    Spin, Status, Upload, blocking,
};
use doorbell_proto::frame::{
    BlockId, CallId, Descriptor, Flags, FrameHeader, FrameKind, HEADER_BYTES, Packed,
};
use doorbell_shm::SleepOn;
use doorbell_testkit::{PATIENCE, Place, RawClient, RawServer, eventually};
use serde::{Deserialize, Serialize};
use support::{SHORT, in_time, messages::*};

/// A thread sleeps on the futex. A ring that was meant for an earlier sleep comes, and then another thread has more to send than
/// the ring takes: the sleeper has to learn that it waits for room as well.
#[test]
fn late_ring_leaves_the_sleep_of_a_thread_as_it_is() {
    let place = Place::new();
    let listener = RawServer::listen(&place.socket());
    let name = place.name();
    let connecting = std::thread::spawn(move || {
        blocking::Client::builder(name)
            .spin(Spin::Never)
            .connect()
            .unwrap()
    });
    let mut server = RawServer::accept(&listener);
    let client = connecting.join().unwrap();
    let sleeper = {
        let client = client.clone();
        std::thread::spawn(move || client.call(Stuck).wait().unwrap_err())
    };
    eventually("the call arrives", || server.read().is_some());
    eventually("the thread sleeps", || {
        server.client_sleeps_on() == Some(SleepOn::Futex)
    });
    let sleeps = client.stats().sleeps;
    server.ring();
    eventually("the ring is heard", || client.stats().sleeps > sleeps);

    let large = client.call(Echo(pattern(1_000_000))).send().unwrap();
    let mut received = 0;
    eventually("the whole of a large request arrives", || {
        while let Some((_, body)) = server.read() {
            received += body.len();
        }
        server.wake_for_room();
        received > 1_000_000
    });
    drop(server);
    sleeper.join().unwrap();
    large.wait().unwrap_err();
}

/// Somebody waits for room. It comes, and somebody else uses it to send everything that waits before the bell is heard.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn room_that_another_task_uses_wakes_who_waits_for_it() {
    in_time(async {
        let place = Place::new();
        let listener = RawServer::listen(&place.socket());
        let connecting = Client::builder(place.name()).ring_capacity_bytes(4096);
        let connecting = tokio::spawn(connecting.connect());
        let mut server = RawServer::accept(&listener);
        let client = connecting.await.unwrap().unwrap();
        let mut sent = 0;
        let full = loop {
            match client.notify(Remember(sent)) {
                Ok(()) => sent += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(full, NotifyError::Full { .. }), "{full:?}");
        let (pending, is_pending) = tokio::sync::oneshot::channel();
        let waiter = client.clone();
        let waiting = tokio::spawn(async move {
            let (mut writable, mut pending) = (pin!(waiter.writable()), Some(pending));
            let polled = std::future::poll_fn(|cx| {
                let polled = writable.as_mut().poll(cx);
                if let Some(pending) = pending.take_if(|_| polled.is_pending()) {
                    pending.send(()).unwrap();
                }
                polled
            });
            polled.await
        });
        is_pending.await.expect("there is no room");

        let mut received = 0;
        while received < sent {
            while let Some((header, body)) = server.read() {
                received += match header.kind {
                    FrameKind::Notify if header.is_packed() => {
                        Packed::parse(&header, &body).unwrap().count() as u32
                    }
                    FrameKind::Notify => 1,
                    _ => 0,
                };
            }
            drop(client.call(Stuck).send().await.unwrap()); // its end is told, and whatever else waits
        }
        server.ring();
        tokio::time::timeout(PATIENCE, waiting)
            .await
            .expect("whoever waits for room is woken")
            .unwrap()
            .unwrap();
    })
    .await;
}

/// What the server has read long ago is no news to a thread that waits for something else: it does not spin until that comes.
#[test]
fn thread_that_waits_for_a_busy_server_sleeps() {
    let place = Place::new();
    let (sender, until_then) = mpsc::channel::<()>();
    let until_then = Mutex::new(until_then);
    let _server = blocking::Server::builder(place.name())
        .workers(1)
        .on_notify(move |_: Context, _: Remember| {
            let _ = until_then.lock().unwrap().recv();
        })
        .bind()
        .unwrap();
    let go_on = sender; // dropped before the server, which waits for its handler
    let client = blocking::Client::connect(place.name()).unwrap();
    client.ping(PATIENCE).unwrap();
    client.notify(Remember(1)).unwrap(); // the worker is in its handler now, or soon
    let pinging = {
        let client = client.clone();
        std::thread::spawn(move || client.ping(PATIENCE))
    };
    let sleeps = client.stats().sleeps;
    eventually("it sleeps", || client.stats().sleeps > sleeps);
    drop(go_on);
    pinging.join().unwrap().unwrap();
}

/// Small messages go before the chunks of a large one, which may take as long as the server likes, and be followed by others: whoever waits to
/// send more notifications does not wait for their end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn room_for_notifications_does_not_wait_for_a_large_message() {
    in_time(async {
        const LARGE_BYTES: usize = 10_000_000;
        let place = Place::new();
        let listener = RawServer::listen(&place.socket());
        let connecting = tokio::spawn(Client::connect(place.name()));
        let mut server = RawServer::accept(&listener);
        let client = connecting.await.unwrap().unwrap();
        let _large = client
            .call(Echo(pattern(LARGE_BYTES)))
            .send()
            .await
            .unwrap();
        let mut sent = 0;
        while client.notify(Remember(sent)).is_ok() {
            sent += 1;
        }
        let waiting = tokio::spawn(async move { client.writable().await });
        let mut received = 0;
        eventually("more can be notified", || {
            for _ in 0..100 {
                received += server.read().map_or(0, |(_, body)| body.len());
            }
            server.wake_for_room();
            waiting.is_finished()
        });
        waiting.await.unwrap().unwrap();
        assert!(received < LARGE_BYTES, "it was under way all the time");
    })
    .await;
}

/// Items that cost more than half the window together, so that credit is given for them at once.
const ITEMS: u32 = 14;
const ITEM_BYTES: usize = 10_000;

/// Credit that finds the ring full waits. The answer of the same call must not be written before it when there is room again: a
/// client takes a frame for a call that has been answered for a broken protocol.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answer_does_not_overtake_credit_of_its_call() {
    in_time(async {
        let place = Place::new();
        let (stage, takes, answers) = {
            let stage = tokio::sync::watch::Sender::new(0);
            (stage.clone(), stage.subscribe(), stage.subscribe())
        };
        let (taken, mut all_taken) = tokio::sync::watch::channel(false);
        let _server = Server::builder(place.name())
            .on(|_, echo: Echo| async move { Ok::<_, Status>(Raw(echo.0)) })
            .on_upload(move |_, _: StuckUpload, mut items: ItemStream<Vec<u8>>| {
                let (mut takes, mut answers, taken) =
                    (takes.clone(), answers.clone(), taken.clone());
                async move {
                    takes.wait_for(|stage| *stage >= 1).await.unwrap();
                    for _ in 0..ITEMS {
                        items.next().await.unwrap()?;
                    }
                    taken.send_replace(true);
                    answers.wait_for(|stage| *stage >= 2).await.unwrap();
                    Ok::<_, Status>(ITEMS)
                }
            })
            .bind()
            .await
            .unwrap();

        let mut client = RawClient::connect(&place.socket());
        let upload = CallId::new(0, 1).raw();
        let mut header = FrameHeader::new(FrameKind::Call, upload, StuckUpload::TYPE.get());
        header.flags.insert(Flags::UPLOAD);
        client.send(header, &[]);
        // The length in the encoding of the item, and the bytes.
        let mut item = vec![0x90, 0x4E];
        item.resize(2 + ITEM_BYTES, 0);
        for _ in 0..ITEMS {
            client.send(FrameHeader::new(FrameKind::Data, upload, 0), &item);
        }
        let capacity = client.welcome.server_ring_capacity_bytes;
        for slot in 1..=capacity / 1024 {
            let id = CallId::new(slot, 1).raw();
            let header = FrameHeader::new(FrameKind::Call, id, Echo::TYPE.get());
            client.send(header, &[0; 1000]);
        }
        eventually("the server's ring is full", || {
            client.published_bytes() == capacity
        });
        stage.send_replace(1);
        all_taken.wait_for(|taken| *taken).await.unwrap();
        for _ in 0..capacity / 1024 {
            assert_eq!(client.read().unwrap().0.kind, FrameKind::Response);
        }
        stage.send_replace(2);

        let mut kinds = Vec::new();
        eventually("credit and answer", || {
            client.ring();
            kinds.extend(client.read().map(|(header, _)| header.kind));
            kinds.len() == 2
        });
        assert_eq!(kinds, [FrameKind::Credit, FrameKind::Response]);
    })
    .await;
}

/// A server goes to sleep while its ring is full to the byte, and has something to say: that its client should give up a large segment. It
/// says so as soon as there is room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_that_sleeps_over_a_full_ring_says_later_what_it_had_to_say() {
    in_time(async {
        let place = Place::new();
        let _server = Server::builder(place.name())
            .on(|_, echo: Echo| async move { Ok::<_, Status>(Raw(echo.0)) })
            .bind()
            .await
            .unwrap();
        let mut client = RawClient::connect(&place.socket());
        let capacity = client.welcome.server_ring_capacity_bytes;
        let mut write = |mut header: FrameHeader, body: &[u8]| {
            header.length = body.len() as u32;
            assert!(client.write(&RawClient::seal(header, body), body));
        };
        // All in one go, so that the server cannot sleep in between. Its first frame has a header's length.
        write(FrameHeader::new(FrameKind::WantSegment, 0, 128), &[]);
        for slot in 0..capacity / 1024 {
            let id = CallId::new(slot, 1).raw();
            let header = FrameHeader::new(FrameKind::Call, id, Echo::TYPE.get());
            write(header, &[0; 1000][if slot == 0 { 24 } else { 0 }..]);
        }
        client.publish_quietly();
        client.ring();
        eventually("the server's ring is full, and it sleeps", || {
            client.published_bytes() == capacity
                && client.server_sleeps_on() == Some(SleepOn::Doorbell)
        });
        let mut next = || client.read().unwrap().0.kind;
        assert_eq!(next(), FrameKind::Segment);
        assert!((0..capacity / 1024).all(|_| next() == FrameKind::Response));
        let mut late = None;
        eventually("the server says more", || {
            client.ring();
            late = client.read();
            late.is_some()
        });
        assert_eq!(late.unwrap().0.kind, FrameKind::Retire);
    })
    .await;
}

#[derive(Payload)]
#[payload(loaned)]
struct Keep(Loaned);

impl Message for Keep {
    const TYPE: MessageType = MessageType::new(1001);
    type Reply = ();
}

#[derive(Serialize, Deserialize)]
struct Forget;

impl Message for Forget {
    const TYPE: MessageType = MessageType::new(1002);
    type Reply = ();
}

/// A worker has written an answer and not published it yet, when the handler of a notification drops a loan. To give that back wakes nobody;
/// the answer must.
#[test]
fn answer_that_is_published_with_a_loan_that_goes_back_wakes_its_caller() {
    let place = Place::new();
    let kept = Arc::new(Mutex::new(None));
    let (arrived, arrival) = mpsc::channel();
    let (go, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let _server = blocking::Server::builder(place.name())
        .on({
            let kept = Arc::clone(&kept);
            move |_: Context, keep: Keep| {
                *kept.lock().unwrap() = Some(keep.0);
                Ok::<_, Status>(())
            }
        })
        .on(move |_: Context, echo: Echo| {
            arrived.send(()).unwrap();
            gate.lock().unwrap().recv().unwrap();
            Ok::<_, Status>(Raw(echo.0)) // bytes are written at once, and published with what else the worker has for this client
        })
        .on_notify(move |_: Context, _: Forget| drop(kept.lock().unwrap().take()))
        .bind()
        .unwrap();
    let client = blocking::Client::builder(place.name())
        .spin(Spin::Never)
        .connect()
        .unwrap();
    let mut loan = client.loan(1000, PATIENCE).unwrap();
    loan.copy_from_slice(&[7; 1000]);
    client.call(Keep(loan.into())).wait().unwrap();

    let sleeps = client.stats().sleeps;
    let calling = {
        let client = client.clone();
        std::thread::spawn(move || client.call(Echo(pattern(8))).wait())
    };
    arrival.recv_timeout(PATIENCE).unwrap();
    eventually("the caller sleeps", || client.stats().sleeps > sleeps);
    client.notify(Forget).unwrap();
    go.send(()).unwrap();
    eventually("the answer arrives", || calling.is_finished());
    assert_eq!(calling.join().unwrap().unwrap().0, pattern(8));
}

/// A server answers and dies before it has rung. Its client's thread sleeps as the driver, so another one sees the death: the answer
/// counts all the same.
#[test]
fn answer_that_was_published_before_death_reaches_a_thread_that_sleeps() {
    let place = Place::new();
    let listener = RawServer::listen(&place.socket());
    let name = place.name();
    let connecting = std::thread::spawn(move || {
        blocking::Client::builder(name)
            .spin(Spin::Never)
            .connect()
            .unwrap()
    });
    let mut server = RawServer::accept(&listener);
    let client = connecting.join().unwrap();
    let calling = std::thread::spawn(move || client.call(Echo(pattern(8))).wait());
    let mut request = None;
    eventually("the call arrives", || {
        request = server.read();
        request.is_some()
    });
    let (header, body) = request.unwrap();
    eventually("the thread sleeps", || {
        server.client_sleeps_on() == Some(SleepOn::Futex)
    });
    let mut answer = FrameHeader::new(FrameKind::Response, header.id, header.value);
    answer.length = 8;
    server.write(&RawClient::seal(answer, &body), &body);
    drop((server, listener));
    assert_eq!(calling.join().unwrap().unwrap().0, pattern(8));
}

/// A thread gives up its wait for a pong while another one drives. When that one leaves, it is a third one that has to drive, not the
/// one that is no longer there.
#[test]
fn thread_that_has_given_up_is_not_chosen_to_drive() {
    let place = Place::new();
    let listener = RawServer::listen(&place.socket());
    let name = place.name();
    let connecting = std::thread::spawn(move || blocking::Client::connect(name).unwrap());
    let mut server = RawServer::accept(&listener);
    let client = connecting.join().unwrap();
    let ping = |limit| {
        let client = client.clone();
        std::thread::spawn(move || client.ping(limit))
    };
    let driver = ping(8 * SHORT);
    eventually("the driver sleeps", || {
        server.client_sleeps_on() == Some(SleepOn::Futex)
    });
    ping(SHORT).join().unwrap().unwrap_err();
    let patient = ping(PATIENCE); // at its deadline it would look for itself, and find the answer
    let mut pings = 0;
    eventually("all have sent a ping", || {
        pings += u64::from(server.read().is_some());
        pings == 3
    });
    driver.join().unwrap().unwrap_err();
    let pong = FrameHeader::new(FrameKind::Pong, pings, 0);
    server.write(&RawClient::seal(pong, &[]), &[]);
    server.wake(); // the bell stays silent: whoever hears it would drain for everybody
    let took = patient.join().unwrap().unwrap();
    assert!(took < PATIENCE / 2, "nobody drove before the deadline");
}

/// The reply is a loan, which goes back when it is dropped.
#[derive(Serialize, Deserialize)]
struct Borrow;

impl Message for Borrow {
    const TYPE: MessageType = MessageType::new(1003);
    type Reply = Loaned;
}

#[derive(Payload)]
#[payload(bytes)]
struct Tell(Bytes);

impl Message for Tell {
    const TYPE: MessageType = MessageType::new(1004);
    type Reply = ();
}

/// A block that goes back wakes nobody. But the frame that says so is the first behind the beginning of the ring, to which the client has gone
/// back with it, so that all between is not free before a server has read it which sleeps over it. Whoever finds no room then has to wake it.
#[test]
fn server_that_sleeps_over_a_block_that_came_back_is_woken_by_who_needs_the_room() {
    let place = Place::new();
    let listener = RawServer::listen(&place.socket());
    let name = place.name();
    let connecting = std::thread::spawn(move || {
        blocking::Client::builder(name)
            .ring_capacity_bytes(RING_BYTES)
            .connect()
            .unwrap()
    });
    let mut server = RawServer::accept(&listener);
    let client = connecting.join().unwrap();
    let calling = {
        let client = client.clone();
        std::thread::spawn(move || client.call(Borrow).wait())
    };
    let next = |server: &mut RawServer| {
        let mut frame = None;
        eventually("the client sends", || {
            frame = server.read();
            frame.is_some()
        });
        frame.unwrap()
    };
    let (call, _) = next(&mut server);
    server.send_segment(0, 1);
    let loan = Descriptor {
        block: BlockId::new(0, 0),
        length: 64,
    };
    let body = loan.encode();
    let answer = FrameHeader {
        length: body.len() as u32,
        flags: Flags::LOANED,
        ..FrameHeader::new(FrameKind::Response, call.id, call.value)
    };
    server.push(&RawClient::seal(answer, &body), &body);
    let reply = calling.join().unwrap().unwrap();
    assert!(reply.is_in_place());

    // So far that the ring is begun again as soon as it is empty.
    let tell = |bytes: usize| client.notify(Tell(pattern(bytes))).unwrap();
    tell(2048);
    assert_eq!(next(&mut server).0.kind, FrameKind::Notify);
    server.fall_asleep();
    drop(reply);
    assert!(!server.is_rung(), "a block is nothing to wake a server for");
    tell(MOST_BYTES);
    assert!(server.is_rung(), "whoever needs room sleeps for ever");
    assert_eq!(next(&mut server).0.kind, FrameKind::Release);
    server.wake_for_room();
    assert_eq!(next(&mut server).1.len(), MOST_BYTES);
}

impl Upload for Keep {
    type Item = Loaned;
}

/// A worker sleeps when a handler drops the last block of a segment, with an item that it has not read: it has to wake up to ask for the end of
/// that segment.
#[test]
fn segment_whose_last_block_was_an_unread_item_is_asked_for_though_the_worker_sleeps() {
    const PAGES: u32 = 128;
    let place = Place::new();
    let (go, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let _server = blocking::Server::builder(place.name())
        .spin(Spin::Never)
        .on_upload(
            move |_: Context, _: Keep, items: blocking::ItemStream<Loaned>| {
                gate.lock().unwrap().recv().unwrap();
                drop(items);
                Ok::<_, Status>(())
            },
        )
        .bind()
        .unwrap();
    let mut client = RawClient::connect(&place.socket());
    client.send(FrameHeader::new(FrameKind::WantSegment, 0, PAGES), &[]);
    let _segment = client.receive_control(); // nobody looks into it
    let next = |client: &mut RawClient| {
        let mut frame = None;
        eventually("the server says something", || {
            frame = client.read();
            frame.is_some()
        });
        frame.unwrap().0
    };
    let segment = next(&mut client);
    assert_eq!(segment.kind, FrameKind::Segment);
    let number = segment.id as u32;
    let lend = |kind, offset, flags: Flags, value| {
        let loan = Descriptor {
            block: BlockId::new(number, offset),
            length: 64,
        };
        let header = FrameHeader {
            flags: flags.with(Flags::LOANED),
            ..FrameHeader::new(kind, CallId::new(0, 1).raw(), value)
        };
        (header, loan.encode())
    };
    let (call, request) = lend(FrameKind::Call, 0, Flags::UPLOAD, Keep::TYPE.get());
    client.send(call, &request);
    let (item, body) = lend(FrameKind::Data, 64, Flags::default(), 0);
    client.send(item, &body);
    eventually("the worker sleeps over nothing", || {
        client.unread_bytes() == 0 && client.server_sleeps_on() == Some(SleepOn::Doorbell)
    });
    go.send(()).unwrap();
    let mut released = 0;
    loop {
        // It may have asked before anything was lent, too.
        match next(&mut client).kind {
            FrameKind::Release => released += 1,
            FrameKind::Retire if released == 2 => break,
            _ => {}
        }
    }
}

/// A handler gives up its items, which nobody has but it, while somebody waits for the end of its call.
#[test]
fn end_of_a_call_wakes_who_waits_for_it_though_the_handler_has_dropped_its_items() {
    struct Woken(AtomicBool);
    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let place = Place::new();
    let woken = Arc::new(Woken(AtomicBool::new(false)));
    let (dropped, is_dropped) = mpsc::channel();
    let (go, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let _server = blocking::Server::builder(place.name())
        .on_upload({
            let woken = Arc::clone(&woken);
            move |context: Context, _: Keep, items: blocking::ItemStream<Loaned>| {
                let waker = Waker::from(Arc::clone(&woken));
                let mut cancelled = pin!(context.cancelled());
                let polled = cancelled
                    .as_mut()
                    .poll(&mut std::task::Context::from_waker(&waker));
                assert!(polled.is_pending());
                drop(items);
                dropped.send(()).unwrap();
                let _ = gate.lock().unwrap().recv();
                Ok::<_, Status>(())
            }
        })
        .bind()
        .unwrap();
    let _go = go;
    let client = blocking::Client::connect(place.name()).unwrap();
    let loan = client.loan(64, PATIENCE).unwrap();
    let upload = client.upload(Keep(loan.into())).open().unwrap();
    is_dropped.recv_timeout(PATIENCE).unwrap();
    assert!(!woken.0.load(Ordering::SeqCst));
    drop(upload);
    eventually("it is woken", || woken.0.load(Ordering::SeqCst));
}

/// The smallest ring in which the largest record is larger than what lies before the place from which a ring is begun again.
const RING_BYTES: u32 = 16 * 1024;

/// Largest body in it.
const MOST_BYTES: usize = RING_BYTES as usize / 4 - HEADER_BYTES;

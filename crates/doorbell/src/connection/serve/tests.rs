use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    task::{Wake, Waker},
};

use doorbell_testkit::{
    PATIENCE, Place,
    by_hand::{Frame, HandClient, HandHello, Memory, kind},
    eventually,
};

use crate::{Context, Message, MessageType, Status, blocking, connection::waiters::Waiting};

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

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::{Wake, Waker},
    thread,
};

use bytes::Bytes;
use doorbell_proto::{
    CallKind, MessageType,
    frame::{Flags, FrameHeader, FrameKind},
};
use doorbell_shm::wake::SpinMode;
use doorbell_testkit::{PATIENCE, Place, RawClient, RawServer};

use super::{
    super::{Account, NewCall, Outbound, Watched, take_outcome},
    *,
};
use crate::{
    Client, Server,
    link::{Wishes, dial::dial},
};

/// Whoever attends has seen that the server has gone, and left the rest to the driver.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn driver_that_steps_aside_ends_the_connection_of_a_server_that_has_gone() {
    let place = Place::new();
    let _server = Server::builder(place.name()).bind().await.unwrap();
    let client = Client::connect(place.name()).await.unwrap();
    let connection = client.live().unwrap();
    let receive = connection.try_receive().unwrap();
    connection.close(Disconnected::PeerGone);
    assert!(!connection.is_closed(), "the driver has yet to read");
    connection.step_aside(receive);
    assert!(connection.is_closed());
}

/// One that came before would go again, and nobody would read what comes.
#[test]
fn attendant_that_is_called_beside_a_large_message_finds_the_receive_half_free() {
    let (mut server, connection, _watched) = connected();
    let found_it_free = Arc::new(AtomicBool::new(false));
    let (weak, found) = (Arc::downgrade(&connection), Arc::clone(&found_it_free));
    connection.set_attendant(move || {
        let connection = weak.upgrade().unwrap();
        found.store(connection.try_receive().is_some(), Ordering::Relaxed);
    });
    let receive = beside_a_large_message(&mut server, &connection, Waker::noop());
    connection.leave(receive);
    assert!(found_it_free.load(Ordering::Relaxed));
}

/// Whoever attends sees that while the driver settles, and attends no more.
#[test]
fn driver_that_settles_beside_a_large_message_ends_the_connection_of_a_server_that_has_gone() {
    let (mut server, connection, _watched) = connected();
    let ends = Arc::new(Ends {
        connection: Arc::downgrade(&connection),
        was_driven: AtomicBool::new(false),
    });
    let waker = Waker::from(Arc::clone(&ends));
    let receive = beside_a_large_message(&mut server, &connection, &waker);
    connection.leave(receive);
    assert!(ends.was_driven.load(Ordering::Relaxed));
    assert!(connection.is_closed());
}

/// Ends the connection when it is woken, as if the server had gone just then.
struct Ends {
    connection: Weak<Connection>,
    was_driven: AtomicBool,
}

impl Wake for Ends {
    fn wake(self: Arc<Self>) {
        let connection = self.connection.upgrade().unwrap();
        connection.close(Disconnected::PeerGone);
        self.was_driven
            .store(!connection.is_closed(), Ordering::Relaxed);
    }
}

/// A connection of tasks that nobody watches.
fn connected() -> (RawServer, Arc<Connection>, Watched) {
    let place = Place::new();
    let path = place.socket();
    let listener = RawServer::listen(&path);
    let dialling =
        thread::spawn(move || dial(&path, "", Wishes::default(), &[], PATIENCE).unwrap());
    let server = RawServer::accept(&listener);
    let (connection, watched) = Connection::new(
        dialling.join().unwrap(),
        Sleeper::Task,
        SpinMode::Never,
        64 << 20,
        Account::none(),
    );
    (server, connection, watched)
}

/// Two calls wait: a large one that has not been sent to its end, and a small one, whose waker is given and whose answer lies unread. Returns the
/// receive half.
fn beside_a_large_message<'a>(
    server: &mut RawServer,
    connection: &'a Connection,
    waker: &Waker,
) -> MutexGuard<'a, Receive> {
    let call = |payload| NewCall {
        kind: CallKind::Unary,
        message_type: MessageType::new(1),
        deadline: None,
        metadata: None,
        payload,
    };
    let receive = connection.try_receive().unwrap();
    let small = connection.start(call(Outbound::Copy(&[1]))).unwrap();
    let (header, _) = server.read().unwrap();
    let bytes = Bytes::from(vec![0; 1 << 20]);
    let large = connection.start(call(Outbound::Share(&bytes))).unwrap();
    for (key, waker) in [(small, waker), (large, Waker::noop())] {
        let mut outcome = None;
        let mut cx = Context::from_waker(waker);
        let polled = connection.poll_until(&mut cx, key, Awaited::Arrival, &mut |state| {
            take_outcome(state, key, &mut outcome)
        });
        assert!(polled.is_pending());
    }
    let mut answer = FrameHeader::new(FrameKind::Response, header.id, 0);
    (answer.flags, answer.length) = (Flags::default(), 1);
    server.write(&RawClient::seal(answer, &[7]), &[7]);
    receive
}

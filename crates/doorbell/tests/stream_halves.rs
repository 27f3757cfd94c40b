//! The two halves of a stream: with a thread of its own for each, and made into a stream of bytes.

mod support;

use std::{
    io::{Read as _, Write as _},
    sync::mpsc,
    thread,
};

use doorbell::{
    CallError, Code, Context, Message, MessageType, Raw, Spin, Status, Upload, blocking,
};
use doorbell_shm::SleepOn;
use doorbell_testkit::{PATIENCE, Place, RawServer, eventually};
use serde::{Deserialize, Serialize};

/// Opens a stream each way.
#[derive(Serialize, Deserialize)]
struct Open;

impl Message for Open {
    const TYPE: MessageType = MessageType::new(1);
    type Reply = Raw;
}

impl Upload for Open {
    type Item = Raw;
}

/// A server that has read nothing but the beginning, and says nothing. Its client never spins: a thread that waits sleeps at once.
fn silent_server() -> (RawServer, blocking::Client) {
    let place = Place::new();
    let listener = RawServer::listen(&place.socket());
    let connecting = thread::spawn(move || {
        blocking::Client::builder(place.name())
            .spin(Spin::Never)
            .connect()
            .unwrap()
    });
    let server = RawServer::accept(&listener);
    (server, connecting.join().unwrap())
}

/// Runs what waits on a thread of its own until that sleeps with nothing left to write, then does something else, and returns what the wait came
/// to.
fn woken<T: Send + 'static>(
    server: &mut RawServer,
    wait: impl FnOnce() -> T + Send + 'static,
    then: impl FnOnce(),
) -> T {
    let (ended, end) = mpsc::channel();
    thread::spawn(move || ended.send(wait()));
    server.wait_for_frame();
    eventually("the thread sleeps", || {
        let has_read = std::iter::from_fn(|| server.read()).count() > 0;
        server.wake_for_room();
        !has_read && server.client_sleeps_on() == Some(SleepOn::Futex)
    });
    then();
    end.recv_timeout(PATIENCE)
        .expect("it is woken, though the server says nothing")
}

#[test]
fn thread_that_waits_to_send_is_woken_when_the_other_half_is_dropped() {
    let (mut server, client) = silent_server();
    let (mut sender, items) = client.bidi(Open).open().unwrap();
    let send = move || {
        let item = || Raw::from(vec![0; 16_000]);
        (0..1000).find_map(|_| sender.send(item()).err())
    };
    let error = woken(&mut server, send, || drop(items));
    assert!(
        matches!(error, Some(doorbell::ItemError::Over)),
        "{error:?}"
    );
}

#[test]
fn thread_that_waits_for_an_item_is_woken_when_the_writing_half_is_given_up() {
    let (mut server, client) = silent_server();
    let (sender, items) = client.bidi(Open).open().unwrap();
    let (mut reader, writer) = blocking::ByteStream::new(sender, items).into_split();
    let read = move || reader.read(&mut [0; 10]).unwrap_err();
    let error = woken(&mut server, read, || drop(writer));
    let call = error.get_ref().and_then(|error| error.downcast_ref());
    let is_cancelled =
        matches!(call, Some(CallError::Status(status)) if status.code() == Code::Cancelled);
    assert!(is_cancelled, "{error:?}");
}

#[test]
fn items_that_were_fed_go_before_the_bytes_that_are_written() {
    let place = Place::new();
    let (read, all) = mpsc::channel();
    let _server = blocking::Server::builder(place.name())
        .on_bidi(
            move |_: Context, _: Open, items: blocking::ItemStream<Raw>, _| {
                let items = items.map(|item| item.unwrap().0.to_vec());
                read.send(items.collect::<Vec<_>>().concat()).unwrap();
                Ok::<_, Status>(())
            },
        )
        .bind()
        .unwrap();
    let client = blocking::Client::connect(place.name()).unwrap();
    let (mut sender, items) = client.bidi(Open).open().unwrap();
    sender.feed(Raw::from(b"one".to_vec())).unwrap();
    let mut stream = blocking::ByteStream::new(sender, items);
    stream.write_all(b"two").unwrap();
    stream.shutdown().unwrap();
    assert_eq!(all.recv_timeout(PATIENCE).unwrap(), b"onetwo");
}

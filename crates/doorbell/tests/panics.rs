//! Code of the user's that panics while an answer is made, or a notification is handled, costs that one message and nothing else.

use std::{
    sync::{Arc, Condvar, Mutex},
    time::Duration,
};

use doorbell::{
    Client, Code, Context, DecodeError, EncodeError, Incoming, ItemSender, Message, MessageType,
    Payload, Server, Status, blocking,
};
use doorbell_testkit::{PATIENCE, Place, eventually};
use serde::{Deserialize, Serialize, Serializer};

#[derive(Serialize, Deserialize)]
struct Add(u32, u32);
impl Message for Add {
    const TYPE: MessageType = MessageType::new(1);
    type Reply = u32;
}

/// Answered at once, with something that panics when it is encoded.
#[derive(Serialize, Deserialize)]
struct AtOnce;
impl Message for AtOnce {
    const TYPE: MessageType = MessageType::new(2);
    type Reply = Unspeakable;
}

/// Answered later, with the same.
#[derive(Serialize, Deserialize)]
struct Later;
impl Message for Later {
    const TYPE: MessageType = MessageType::new(3);
    type Reply = Unspeakable;
}

/// A stream that ends with an error that panics when it becomes a status.
#[derive(Serialize, Deserialize)]
struct Stream;
impl Message for Stream {
    const TYPE: MessageType = MessageType::new(4);
    type Reply = u32;
}

/// A notification. Some numbers cannot be decoded or make the decoder panic.
struct Number(u8);
impl Message for Number {
    const TYPE: MessageType = MessageType::new(5);
    type Reply = ();
}

impl Payload for Number {
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.push(self.0);
        Ok(())
    }

    fn decode(bytes: Incoming<'_>) -> Result<Self, DecodeError> {
        match bytes.as_slice() {
            [UNREADABLE] => Err(DecodeError::new("a number of the tests that is none")),
            [FATAL] => panic!("a decoder of the tests panics, as it should"),
            &[number] => Ok(Self(number)),
            _ => Err(DecodeError::new("it is not one byte")),
        }
    }
}

const UNREADABLE: u8 = 3;
const FATAL: u8 = 5;
const UNBEARABLE: u8 = 8;

/// What a handler of numbers has been given.
#[derive(Clone, Default)]
struct Handled(Arc<Mutex<Vec<u8>>>);

impl Handled {
    fn handle(&self, number: &Number) {
        assert_ne!(
            number.0, UNBEARABLE,
            "a handler of the tests panics, as it should"
        );
        self.0.lock().unwrap().push(number.0);
    }

    /// A call that was sent after them has been answered.
    fn assert_only_the_bad_ones_are_missing(&self) {
        assert_eq!(*self.0.lock().unwrap(), [0, 1, 2, 4, 6, 7, 9]);
    }
}

#[derive(Debug, Deserialize)]
struct Unspeakable;

impl Serialize for Unspeakable {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        panic!("a serializer of the tests panics, as it should")
    }
}

struct Indescribable;

impl From<Indescribable> for Status {
    fn from(_: Indescribable) -> Self {
        panic!("an error of the tests panics, as it should")
    }
}

const SOON: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answer_of_a_task_that_cannot_be_encoded_fails_its_call() {
    let place = Place::new();
    let _server = Server::builder(place.name())
        .on(|_: Context, add: Add| async move { Ok::<_, Status>(add.0 + add.1) })
        .on(|_: Context, _: AtOnce| async { Ok::<_, Status>(Unspeakable) })
        .on(|_: Context, _: Later| async {
            tokio::task::yield_now().await;
            Ok::<_, Status>(Unspeakable)
        })
        .on_stream(|_: Context, _: Stream, _: ItemSender<u32>| async { Err(Indescribable) })
        .bind()
        .await
        .unwrap();
    let client = Client::connect(place.name()).await.unwrap();
    let error = client.call(AtOnce).timeout(SOON).await.unwrap_err();
    assert_eq!(error.code(), Code::Internal, "{error:?}");
    let error = client.call(Later).timeout(SOON).await.unwrap_err();
    assert_eq!(error.code(), Code::Internal, "{error:?}");
    let mut items = client.stream(Stream).timeout(SOON).await.unwrap();
    let error = items.next().await.unwrap().unwrap_err();
    assert_eq!(error.code(), Code::Internal, "{error:?}");
    let sum = client.call(Add(1, 2)).timeout(PATIENCE).await;
    assert_eq!(sum.unwrap(), 3, "the server goes on");
}

#[test]
fn answer_of_a_thread_that_cannot_be_encoded_fails_its_call() {
    let place = Place::new();
    let _server = blocking::Server::builder(place.name())
        .handler_threads(1)
        .on(|_: Context, add: Add| Ok::<_, Status>(add.0 + add.1))
        .on(|_: Context, _: AtOnce| Ok::<_, Status>(Unspeakable))
        .on_stream(|_: Context, _: Stream, _: blocking::ItemSender<u32>| Err(Indescribable))
        .bind()
        .unwrap();
    let client = blocking::Client::connect(place.name()).unwrap();
    let error = client.call(AtOnce).timeout(SOON).wait().unwrap_err();
    assert_eq!(error.code(), Code::Internal, "{error:?}");
    // The one thread that there may be is free again each time.
    doorbell_testkit::eventually("three streams fail one after the other", {
        let mut failed = 0;
        move || {
            let mut items = client.stream(Stream).timeout(SOON).open().unwrap();
            let error = items.next().unwrap().unwrap_err();
            assert!(
                matches!(error.code(), Code::Internal | Code::ResourceExhausted),
                "{error:?}"
            );
            failed += u32::from(error.code() == Code::Internal);
            failed == 3 && client.call(Add(1, 2)).timeout(SOON).wait().unwrap() == 3
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn panic_over_one_of_many_notifications_costs_a_server_of_tasks_that_one() {
    let (place, handled) = (Place::new(), Handled::default());
    let numbers = handled.clone();
    let _server = Server::builder(place.name())
        .on(|_: Context, add: Add| async move { Ok::<_, Status>(add.0 + add.1) })
        .on_notify(move |_: Context, number: Number| {
            let numbers = numbers.clone();
            async move { numbers.handle(&number) }
        })
        .bind()
        .await
        .unwrap();
    let client = Client::connect(place.name()).await.unwrap();
    client.notify_all((0..10).map(Number)).await.unwrap();
    let sum = client.call(Add(1, 2)).timeout(PATIENCE).await;
    assert_eq!(sum.unwrap(), 3, "the server goes on");
    handled.assert_only_the_bad_ones_are_missing();
}

#[test]
fn panic_over_one_of_many_notifications_costs_a_server_of_threads_that_one() {
    let (place, handled) = (Place::new(), Handled::default());
    let numbers = handled.clone();
    let _server = blocking::Server::builder(place.name())
        .on(|_: Context, add: Add| Ok::<_, Status>(add.0 + add.1))
        .on_notify(move |_: Context, number: Number| numbers.handle(&number))
        .bind()
        .unwrap();
    let client = blocking::Client::connect(place.name()).unwrap();
    client.notify_all((0..10).map(Number)).unwrap();
    let sum = client.call(Add(1, 2)).timeout(PATIENCE).wait();
    assert_eq!(sum.unwrap(), 3, "the server goes on");
    handled.assert_only_the_bad_ones_are_missing();
}

/// A reply whose encoding takes its time: as long as nobody lets it go on.
struct Slow(Arc<Turnstile>);

/// Counts who is in it, and lets them out when it is told.
#[derive(Default)]
struct Turnstile {
    /// How many, and whether they may leave.
    state: Mutex<(usize, bool)>,
    changed: Condvar,
}

impl Turnstile {
    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.0 += 1;
        let is_shut = |state: &mut (usize, bool)| !state.1;
        let waited = self.changed.wait_timeout_while(state, PATIENCE, is_shut);
        waited.unwrap().0.0 -= 1;
    }

    fn open(&self) {
        self.state.lock().unwrap().1 = true;
        self.changed.notify_all();
    }
}

impl Payload for Slow {
    fn encode(&self, _: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.0.pass();
        Ok(())
    }

    fn decode(_: Incoming<'_>) -> Result<Self, DecodeError> {
        Ok(Self(Arc::default()))
    }
}

/// Answered with it.
#[derive(Serialize, Deserialize)]
struct Hurry;
impl Message for Hurry {
    const TYPE: MessageType = MessageType::new(10);
    type Reply = Slow;
}
impl doorbell::Upload for Hurry {
    type Item = u32;
}

#[test]
fn threads_of_handlers_encode_their_replies_within_their_limit() {
    let (place, turnstile) = (Place::new(), Arc::new(Turnstile::default()));
    let replies = Arc::clone(&turnstile);
    let _server = blocking::Server::builder(place.name())
        .handler_threads(2)
        .on_upload(move |_: Context, _: Hurry, _: blocking::ItemStream<u32>| {
            Ok::<_, Status>(Slow(Arc::clone(&replies)))
        })
        .bind()
        .unwrap();
    let client = blocking::Client::connect(place.name()).unwrap();
    let encoding = || turnstile.state.lock().unwrap().0;
    let calls: Vec<_> = (1..=2)
        .map(|count| {
            let call = client.upload(Hurry).timeout(PATIENCE).open().unwrap();
            eventually("its reply is encoded", || encoding() == count);
            call
        })
        .collect();
    let refused = client.upload(Hurry).timeout(PATIENCE).open().unwrap();
    let error = refused.finish().err().expect("there is no thread for it");
    assert_eq!(error.code(), Code::ResourceExhausted, "{error}");
    turnstile.open();
    for call in calls {
        assert!(call.finish().is_ok());
    }
}

/// What a panic is raised with that panics when it is dropped.
struct Touchy;

impl Drop for Touchy {
    fn drop(&mut self) {
        std::panic::resume_unwind(Box::new("on purpose"));
    }
}

/// It must not end the thread that serves everybody.
#[test]
fn panic_with_a_value_that_panics_costs_its_message_and_nothing_else() {
    let place = Place::new();
    let _server = blocking::Server::builder(place.name())
        .workers(1)
        .on(|_: Context, add: Add| match add.0 {
            0 => std::panic::resume_unwind(Box::new(Touchy)),
            _ => Ok::<_, Status>(add.0 + add.1),
        })
        .on_notify(|_: Context, _: Number| std::panic::resume_unwind(Box::new(Touchy)))
        .bind()
        .unwrap();
    let client = blocking::Client::connect(place.name()).unwrap();
    client.notify(Number(1)).unwrap();
    client.notify_all((0..10).map(Number)).unwrap();
    let error = client.call(Add(0, 1)).timeout(PATIENCE).wait().unwrap_err();
    assert_eq!(error.code(), Code::Internal, "{error}");
    assert_eq!(client.call(Add(1, 2)).timeout(PATIENCE).wait().unwrap(), 3);
    let another = blocking::Client::connect(place.name()).unwrap();
    assert_eq!(another.call(Add(1, 2)).timeout(PATIENCE).wait().unwrap(), 3);
}

/// A large reply that panics when its handler's thread drops it. Where it arrives it does not.
struct Fragile {
    bytes: Vec<u8>,
    panics: bool,
}

impl Payload for Fragile {
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.extend_from_slice(&self.bytes);
        Ok(())
    }

    fn decode(bytes: Incoming<'_>) -> Result<Self, DecodeError> {
        let bytes = bytes.as_slice().to_vec();
        Ok(Self {
            bytes,
            panics: false,
        })
    }
}

impl Drop for Fragile {
    fn drop(&mut self) {
        if self.panics {
            // Without a message, which would take longer than to send the reply.
            std::panic::resume_unwind(Box::new("on purpose"));
        }
    }
}

/// Takes items, and is answered with something fragile.
#[derive(Serialize, Deserialize)]
struct Break;
impl Message for Break {
    const TYPE: MessageType = MessageType::new(9);
    type Reply = Fragile;
}
impl doorbell::Upload for Break {
    type Item = u32;
}

/// It lies in the queue when its handler's thread panics: it has been given.
#[test]
fn reply_that_panics_when_it_is_dropped_arrives() {
    const BYTES: usize = 16 << 20;
    let place = Place::new();
    let _server = blocking::Server::builder(place.name())
        .on_upload(|_: Context, _: Break, _: blocking::ItemStream<u32>| {
            let bytes = vec![7; BYTES];
            Ok::<_, Status>(Fragile {
                bytes,
                panics: true,
            })
        })
        .bind()
        .unwrap();
    let client = blocking::Client::connect(place.name()).unwrap();
    let call = client.upload(Break).timeout(PATIENCE).open().unwrap();
    let reply = call.finish().unwrap();
    assert!(reply.bytes == vec![7; BYTES]);
}

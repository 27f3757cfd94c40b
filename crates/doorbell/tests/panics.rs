//! Code of the user's that panics while an answer is made costs its call and nothing else.

use std::time::Duration;

use doorbell::{Client, Code, Context, ItemSender, Message, MessageType, Server, Status, blocking};
use doorbell_testkit::{PATIENCE, Place};
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

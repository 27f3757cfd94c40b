//! Derived messages and payloads, as they are and on their way through a server.

use bytes::Bytes;
use doorbell::{
    Client, Context, DecodeError, Incoming, Message, MessageType, Payload, Server, Status, Upload,
};

const STORE: u32 = 40;

#[derive(serde::Serialize, serde::Deserialize, Message)]
#[message(type = 7, reply = Completion)]
struct Complete {
    prefix: String,
}

#[derive(Debug, PartialEq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize, Payload)]
#[payload(rkyv)]
struct Completion {
    text: String,
    scores: Vec<f32>,
}

#[derive(serde::Serialize, serde::Deserialize, Message)]
#[message(type = 8)]
struct Saved;

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize, Payload, Message)]
#[payload(rkyv)]
#[message(type = STORE + 2, reply = u64, item = Page)]
struct Store {
    path: String,
}

#[derive(Clone, Debug, PartialEq, Payload)]
#[payload(bytes)]
struct Page(Bytes);

#[derive(Debug, PartialEq, Payload)]
#[payload(bytes)]
struct Named {
    content: Bytes,
}

#[derive(Debug, PartialEq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize, Payload)]
#[payload(rkyv)]
struct Versioned<T> {
    version: u64,
    value: T,
}

fn encoded<T: Payload>(value: &T) -> Vec<u8> {
    let mut out = Vec::new();
    value.encode(&mut out).unwrap();
    out
}

fn decoded<T: Payload>(bytes: &[u8]) -> Result<T, DecodeError> {
    T::decode(Incoming::Borrowed(bytes))
}

#[test]
fn message_has_its_number_and_reply() {
    fn reply_of<M: Message<Reply = R>, R>() {}
    assert_eq!(Complete::TYPE, MessageType::new(7));
    assert_eq!(Store::TYPE, MessageType::new(42));
    reply_of::<Complete, Completion>();
    reply_of::<Saved, ()>();
}

#[test]
fn upload_has_its_item() {
    fn item_of<M: Upload<Item = I>, I>() {}
    item_of::<Store, Page>();
}

#[test]
fn rkyv_payload_comes_back() {
    let value = Completion {
        text: "println!".into(),
        scores: vec![0.5, 0.25],
    };
    assert_eq!(decoded::<Completion>(&encoded(&value)).unwrap(), value);
    assert!(value.as_bytes().is_none());
}

#[test]
fn generic_rkyv_payload_comes_back() {
    let value = Versioned {
        version: 1 << 40,
        value: vec!["one".to_owned(), "two".to_owned()],
    };
    assert_eq!(
        decoded::<Versioned<Vec<String>>>(&encoded(&value)).unwrap(),
        value
    );
}

#[test]
fn damaged_rkyv_payload_is_an_error() {
    let mut bytes = encoded(&Completion {
        text: "longer than what fits in place".into(),
        scores: vec![0.5],
    });
    let end = bytes.len();
    bytes[end - 4..].fill(0xFF);
    let error = decoded::<Completion>(&bytes).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("the payload is not a valid message: "),
        "{error}"
    );
}

#[test]
fn bytes_payload_is_its_own_encoding() {
    let page = Page(Bytes::from_static(b"content"));
    assert_eq!(encoded(&page), b"content");
    assert_eq!(page.as_bytes(), Some(&page.0));
    assert_eq!(decoded::<Page>(b"content").unwrap(), page);
    assert_eq!(
        decoded::<Named>(b"content").unwrap(),
        Named { content: page.0 }
    );
}

#[test]
fn owned_bytes_are_not_copied() {
    let buffer = vec![7; 100];
    let place = buffer.as_ptr();
    assert_eq!(
        Page::decode(Incoming::Owned(buffer)).unwrap().0.as_ptr(),
        place
    );
}

#[tokio::test]
async fn derived_messages_travel() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("server.sock").display().to_string();
    let server = Server::builder(&path)
        .on(|_: Context, request: Complete| async move {
            Ok::<_, Status>(Completion {
                text: request.prefix + "ln!",
                scores: vec![1.0],
            })
        })
        .on_upload(
            |_: Context, store: Store, mut pages: doorbell::ItemStream<Page>| async move {
                let mut bytes = store.path.len() as u64;
                while let Some(page) = pages.next().await {
                    bytes += page?.0.len() as u64;
                }
                Ok::<_, Status>(bytes)
            },
        )
        .bind()
        .await
        .unwrap();
    let client = Client::connect(&path).await.unwrap();

    let completion = client
        .call(Complete {
            prefix: "print".into(),
        })
        .await
        .unwrap();
    assert_eq!(
        completion,
        Completion {
            text: "println!".into(),
            scores: vec![1.0]
        }
    );

    let mut upload = client
        .upload(Store {
            path: "a.txt".into(),
        })
        .await
        .unwrap();
    for _ in 0..10 {
        upload
            .send(Page(Bytes::from_static(&[0; 1000])))
            .await
            .unwrap();
    }
    assert_eq!(upload.finish().await.unwrap(), 10_005);

    drop(client);
    assert!(server.shutdown(std::time::Duration::from_secs(5)).await);
}

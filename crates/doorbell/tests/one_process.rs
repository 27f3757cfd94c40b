//! Every kind of call, client and server in one process, on both runtimes.

use std::time::Duration;

use doorbell::{
    Client, Code, Context, ItemSender, ItemStream, Message, MessageType, Outcome, Raw, Server,
    Status, Upload,
};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Debug, PartialEq)]
struct Add {
    left: u32,
    right: u32,
}
impl Message for Add {
    const TYPE: MessageType = MessageType::new(1);
    type Reply = u32;
}

#[derive(Serialize, Deserialize)]
struct Count {
    to: u32,
}
impl Message for Count {
    const TYPE: MessageType = MessageType::new(2);
    type Reply = u32;
}

#[derive(Serialize, Deserialize)]
struct Sum;
impl Message for Sum {
    const TYPE: MessageType = MessageType::new(3);
    type Reply = u64;
}
impl Upload for Sum {
    type Item = u32;
}

#[derive(Serialize, Deserialize)]
struct Double;
impl Message for Double {
    const TYPE: MessageType = MessageType::new(4);
    type Reply = u32;
}
impl Upload for Double {
    type Item = u32;
}

#[derive(Serialize, Deserialize)]
struct Remember(u32);
impl Message for Remember {
    const TYPE: MessageType = MessageType::new(5);
    type Reply = ();
}

#[derive(Serialize, Deserialize)]
struct Recall;
impl Message for Recall {
    const TYPE: MessageType = MessageType::new(6);
    type Reply = Vec<u32>;
}

#[derive(Serialize, Deserialize)]
struct Echo(Vec<u8>);
impl Message for Echo {
    const TYPE: MessageType = MessageType::new(7);
    type Reply = Raw;
}

#[derive(Serialize, Deserialize)]
struct Sleepy;
impl Message for Sleepy {
    const TYPE: MessageType = MessageType::new(8);
    type Reply = ();
}

fn path() -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("server.sock").display().to_string();
    (directory, path)
}

async fn serve(path: &str) -> Server {
    let remembered = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let recalled = remembered.clone();
    Server::builder(path)
        .on(|_: Context, add: Add| async move {
            add.left.checked_add(add.right).ok_or_else(|| Status::out_of_range("the sum is too large"))
        })
        .on_stream(|_: Context, count: Count, mut out: ItemSender<u32>| async move {
            for number in 0..count.to {
                out.send(number).await?;
            }
            Ok::<_, Status>(())
        })
        .on_upload(|_: Context, _: Sum, mut items: ItemStream<u32>| async move {
            let mut sum = 0;
            while let Some(item) = items.next().await {
                sum += u64::from(item?);
            }
            Ok::<_, Status>(sum)
        })
        .on_bidi(|_: Context, _: Double, mut items: ItemStream<u32>, mut out: ItemSender<u32>| async move {
            while let Some(item) = items.next().await {
                out.send(item? * 2).await?;
            }
            Ok::<_, Status>(())
        })
        .on_notify(move |_: Context, number: Remember| {
            remembered.lock().unwrap().push(number.0);
            async {}
        })
        .on(move |_: Context, _: Recall| {
            let recalled = recalled.lock().unwrap().clone();
            async move { Ok::<_, Status>(recalled) }
        })
        .on(|_: Context, echo: Echo| async move { Ok::<_, Status>(Raw::from(echo.0)) })
        .on(|_: Context, _: Sleepy| async move {
            tokio::time::sleep(Duration::from_secs(60)).await;
            Ok::<_, Status>(())
        })
        .bind()
        .await
        .unwrap()
}

async fn every_kind_of_call() {
    let (_directory, path) = path();
    let server = serve(&path).await;
    let client = Client::connect(&path).await.unwrap();

    assert_eq!(client.call(Add { left: 1, right: 2 }).await.unwrap(), 3);
    let error = client
        .call(Add {
            left: u32::MAX,
            right: 2,
        })
        .await
        .unwrap_err();
    assert_eq!(
        (error.code(), error.outcome()),
        (Code::OutOfRange, Outcome::Application)
    );

    let mut numbers = client.stream(Count { to: 100_000 }).await.unwrap();
    for expected in 0..100_000 {
        assert_eq!(numbers.next().await.unwrap().unwrap(), expected);
    }
    assert!(numbers.next().await.is_none());

    let mut upload = client.upload(Sum).await.unwrap();
    for number in 0..50_000 {
        upload.send(number).await.unwrap();
    }
    assert_eq!(upload.finish().await.unwrap(), (0..50_000u64).sum::<u64>());

    let (mut out, mut doubled) = client.bidi(Double).await.unwrap();
    for number in 0..1000 {
        out.send(number).await.unwrap();
        assert_eq!(doubled.next().await.unwrap().unwrap(), number * 2);
    }
    out.finish();
    assert!(doubled.next().await.is_none());

    for number in 0..1000 {
        client.notify(Remember(number)).unwrap();
    }
    assert_eq!(
        client.call(Recall).await.unwrap(),
        (0..1000).collect::<Vec<_>>()
    );

    let large: Vec<u8> = (0..10_000_000u32).map(|byte| byte as u8).collect();
    let back = client.call(Echo(large.clone())).await.unwrap();
    assert!(back.0 == large);

    let error = client
        .call(Sleepy)
        .timeout(Duration::from_millis(20))
        .await
        .unwrap_err();
    assert_eq!(
        (error.code(), error.outcome()),
        (Code::DeadlineExceeded, Outcome::Unknown)
    );
    client.ping().await.unwrap();
    assert!(server.shutdown(Duration::from_secs(5)).await);
}

async fn within_a_minute(test: impl Future<Output = ()>) {
    tokio::time::timeout(Duration::from_secs(60), test)
        .await
        .expect("the test hangs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_call_works_on_a_multi_thread_runtime() {
    within_a_minute(every_kind_of_call()).await;
}

#[tokio::test(flavor = "current_thread")]
async fn every_kind_of_call_works_on_a_current_thread_runtime() {
    within_a_minute(every_kind_of_call()).await;
}

/// More notifications than handlers may run at once, each waiting for the same signal: all are handled, none is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notifications_whose_handlers_wait_are_held_back_and_not_lost() {
    let (_directory, path) = path();
    let (open, gate) = tokio::sync::watch::channel(false);
    let count = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let (done, mut all_done) = tokio::sync::mpsc::unbounded_channel();
    let server = Server::builder(&path)
        .on_notify({
            let count = count.clone();
            move |_: Context, _: Remember| {
                let (mut gate, done) = (gate.clone(), done.clone());
                count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                async move {
                    gate.wait_for(|open| *open).await.unwrap();
                    done.send(()).unwrap();
                }
            }
        })
        .on(|_: Context, add: Add| async move { Ok::<_, Status>(add.left + add.right) })
        .bind()
        .await
        .unwrap();
    within_a_minute(async {
        let client = Client::connect(&path).await.unwrap();
        for number in 0..5000 {
            client.notify(Remember(number)).unwrap();
        }
        let other = Client::connect(&path).await.unwrap();
        assert_eq!(other.call(Add { left: 1, right: 2 }).await.unwrap(), 3);
        assert!(
            count.load(std::sync::atomic::Ordering::SeqCst) <= 1024 + 64,
            "more handlers run than the limit allows"
        );
        open.send_replace(true);
        for _ in 0..5000 {
            all_done.recv().await.unwrap();
        }
        server.shutdown(Duration::from_secs(5)).await;
    })
    .await;
}

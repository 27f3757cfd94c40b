//! Every kind of call without a runtime.

use std::{sync::mpsc, time::Duration};

use doorbell::{Code, Context, Message, MessageType, Outcome, Raw, Status, Upload, blocking};
use doorbell_testkit::cpus_of_this_thread;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Add(u32, u32);
impl Message for Add {
    const TYPE: MessageType = MessageType::new(1);
    type Reply = u32;
}

#[derive(Serialize, Deserialize)]
struct Count(u32);
impl Message for Count {
    const TYPE: MessageType = MessageType::new(2);
    type Reply = u32;
}

#[derive(Serialize, Deserialize)]
struct Double;
impl Message for Double {
    const TYPE: MessageType = MessageType::new(3);
    type Reply = u32;
}
impl Upload for Double {
    type Item = u32;
}

#[derive(Serialize, Deserialize)]
struct Sum;
impl Message for Sum {
    const TYPE: MessageType = MessageType::new(4);
    type Reply = u64;
}
impl Upload for Sum {
    type Item = u32;
}

#[derive(Serialize, Deserialize)]
struct Tell(u32);
impl Message for Tell {
    const TYPE: MessageType = MessageType::new(5);
    type Reply = ();
}

#[derive(Serialize, Deserialize)]
struct Echo(Vec<u8>);
impl Message for Echo {
    const TYPE: MessageType = MessageType::new(6);
    type Reply = Raw;
}

/// Never ends by itself: waits for items that the test does not send.
#[derive(Serialize, Deserialize)]
struct Stuck;
impl Message for Stuck {
    const TYPE: MessageType = MessageType::new(7);
    type Reply = u32;
}
impl Upload for Stuck {
    type Item = u32;
}

fn serve(told: mpsc::Sender<u32>) -> (tempfile::TempDir, blocking::Server) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("server.sock").display().to_string();
    let told = std::sync::Mutex::new(told);
    let server = blocking::Server::builder(path)
        .on(|_: Context, add: Add| {
            add.0
                .checked_add(add.1)
                .ok_or_else(|| Status::out_of_range("too large"))
        })
        .on(|_: Context, echo: Echo| Ok::<_, Status>(Raw::from(echo.0)))
        .on_stream(
            |_: Context, count: Count, mut out: blocking::ItemSender<u32>| {
                for number in 0..count.0 {
                    out.send(number)?;
                }
                Ok::<_, Status>(())
            },
        )
        .on_bidi(
            |_: Context,
             _: Double,
             items: blocking::ItemStream<u32>,
             mut out: blocking::ItemSender<u32>| {
                for item in items {
                    out.send(item? * 2)?;
                }
                Ok::<_, Status>(())
            },
        )
        .on_upload(|_: Context, _: Sum, items: blocking::ItemStream<u32>| {
            let mut sum = 0;
            for item in items {
                sum += u64::from(item?);
            }
            Ok::<_, Status>(sum)
        })
        .on_upload(|_: Context, _: Stuck, items: blocking::ItemStream<u32>| {
            Ok::<_, Status>(items.count() as u32)
        })
        .on_notify(move |_: Context, tell: Tell| told.lock().unwrap().send(tell.0).unwrap())
        .bind()
        .unwrap();
    (directory, server)
}

fn every_kind_of_call(client: &blocking::Client) {
    assert_eq!(client.call(Add(1, 2)).wait().unwrap(), 3);
    let error = client.call(Add(u32::MAX, 1)).wait().unwrap_err();
    assert_eq!(
        (error.code(), error.outcome()),
        (Code::OutOfRange, Outcome::Application)
    );

    let numbers: Result<Vec<u32>, _> = client.stream(Count(100_000)).open().unwrap().collect();
    assert!(numbers.unwrap().into_iter().eq(0..100_000));

    let mut upload = client.upload(Sum).open().unwrap();
    for number in 0..50_000 {
        upload.send(number).unwrap();
    }
    assert_eq!(upload.finish().unwrap(), (0..50_000u64).sum::<u64>());

    let (mut out, mut doubled) = client.bidi(Double).open().unwrap();
    for number in 0..1000 {
        out.send(number).unwrap();
        assert_eq!(doubled.next().unwrap().unwrap(), number * 2);
    }
    out.finish();
    assert!(doubled.next().is_none());

    let large: Vec<u8> = (0..10_000_000u32).map(|byte| byte as u8).collect();
    assert!(client.call(Echo(large.clone())).wait().unwrap().0 == large);
    client.ping(Duration::from_secs(10)).unwrap();
}

#[test]
fn every_kind_of_call_works_without_a_runtime() {
    let (sender, told) = mpsc::channel();
    let (_directory, server) = serve(sender);
    let client = blocking::Client::connect(server.path().display().to_string()).unwrap();
    every_kind_of_call(&client);
    for number in 0..100_000 {
        client.notify(Tell(number)).unwrap();
    }
    for number in 0..100_000 {
        assert_eq!(told.recv_timeout(Duration::from_secs(10)).unwrap(), number);
    }
    assert!(server.shutdown(Duration::from_secs(5)));
}

#[test]
fn threads_share_one_connection() {
    let (sender, _told) = mpsc::channel();
    let (_directory, server) = serve(sender);
    let client = blocking::Client::connect(server.path().display().to_string()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let client = client.clone();
            scope.spawn(move || {
                for number in 0..20_000 {
                    assert_eq!(
                        client.call(Add(thread, number)).wait().unwrap(),
                        thread + number
                    );
                }
            });
        }
    });
    assert_eq!(server.stats().accepted, 1);
}

#[test]
fn deadline_ends_a_call_that_is_never_answered() {
    let (sender, _told) = mpsc::channel();
    let (_directory, server) = serve(sender);
    let client = blocking::Client::connect(server.path().display().to_string()).unwrap();
    let (_out, mut items) = client
        .bidi(Double)
        .timeout(Duration::from_millis(20))
        .open()
        .unwrap();
    let error = items.next().unwrap().unwrap_err();
    assert_eq!(
        (error.code(), error.outcome()),
        (Code::DeadlineExceeded, Outcome::Unknown)
    );
    assert!(items.next().is_none());
    let upload = client
        .upload(Stuck)
        .timeout(Duration::from_millis(20))
        .open()
        .unwrap();
    drop(upload);
    assert_eq!(client.call(Add(1, 2)).wait().unwrap(), 3);
}

#[test]
fn handlers_with_threads_of_their_own_are_not_pinned_with_the_worker() {
    let path = doorbell_testkit::Place::new();
    let _server = blocking::Server::builder(path.name())
        .pin_workers([0])
        .on(|_: Context, _: Add| Ok::<_, Status>(cpus_of_this_thread()))
        .on_stream(|_: Context, _: Count, mut out: blocking::ItemSender<u32>| {
            out.send(cpus_of_this_thread())?;
            Ok::<_, Status>(())
        })
        .bind()
        .unwrap();
    let client = blocking::Client::connect(path.name()).unwrap();
    assert_eq!(client.call(Add(0, 0)).wait().unwrap(), 1);
    let mut stream = client.stream(Count(0)).open().unwrap();
    assert_eq!(stream.next().unwrap().unwrap(), cpus_of_this_thread());
}

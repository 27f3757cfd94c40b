//! Small items and notifications that share frames: they arrive as if they had come alone.

mod support;

use std::{
    pin::pin,
    task::{Context, Waker},
};

use doorbell::{Client, ItemError, Message, blocking, client::UploadStream};
use doorbell_proto::frame::{Flags, FrameHeader, FrameKind, Packed};
use doorbell_testkit::{Place, RawServer, eventually};
use support::{Host, in_time, messages::*};
use tokio::task::unconstrained;

#[test]
#[ignore = "the body of the child processes"]
fn child_process() {
    support::roles::run();
}

/// Enough for hundreds of frames and several windows of credit.
const MANY: u32 = 200_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fed_items_arrive_in_order_and_complete() {
    for role in ["server", "server-of-threads"] {
        let host = Host::start(role, &[]);
        in_time(async {
            let client = host.client().await;
            let mut items = client.stream(CountFed(MANY)).await.unwrap();
            for expected in 0..MANY {
                assert_eq!(items.next().await.unwrap().unwrap(), expected);
            }
            assert!(items.next().await.is_none());

            let mut upload = client.upload(Sum).await.unwrap();
            for number in 0..MANY {
                upload.feed(number).await.unwrap();
            }
            let sum = (0..u64::from(MANY)).sum::<u64>();
            assert_eq!(upload.finish().await.unwrap(), sum);
        })
        .await;
    }
}

#[test]
fn fed_items_of_threads_arrive_in_order_and_complete() {
    for role in ["server", "server-of-threads"] {
        let host = Host::start(role, &[]);
        let client = blocking::Client::connect(host.name()).unwrap();
        let items = client.stream(CountFed(MANY)).open().unwrap();
        assert!(items.map(Result::unwrap).eq(0..MANY));

        let mut upload = client.upload(Sum).open().unwrap();
        for number in 0..MANY {
            upload.feed(number).unwrap();
        }
        let sum = (0..u64::from(MANY)).sum::<u64>();
        assert_eq!(upload.finish().unwrap(), sum);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn items_that_were_fed_and_sent_in_turn_keep_their_order() {
    let host = Host::start("server", &[]);
    in_time(async {
        let client = host.client().await;
        let (mut upload, mut doubled) = client.bidi(Double).await.unwrap();
        for number in 0..1000 {
            if number % 7 == 0 {
                upload.send(number).await.unwrap();
            } else {
                upload.feed(number).await.unwrap();
            }
        }
        upload.finish();
        for number in 0..1000 {
            assert_eq!(doubled.next().await.unwrap().unwrap(), number * 2);
        }
        assert!(doubled.next().await.is_none());
    })
    .await;
}

/// Returns the next frame of a client.
fn next_frame(server: &mut RawServer) -> (FrameHeader, Vec<u8>) {
    let mut frame = None;
    eventually("the client sends a frame", || {
        frame = server.read();
        frame.is_some()
    });
    frame.unwrap()
}

fn numbers(header: &FrameHeader, body: &[u8]) -> Vec<u8> {
    let packed = Packed::parse(header, body).unwrap();
    let number = |item: &[u8]| <[u8; 1]>::try_from(item).unwrap()[0]; // postcard writes a small u32 in one byte
    packed.map(number).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fed_items_share_a_frame_and_leave_with_flush_send_and_drop() {
    let place = Place::new();
    in_time(async {
        let listener = RawServer::listen(&place.socket());
        let connecting = tokio::spawn(Client::connect(place.name()));
        let mut server = RawServer::accept(&listener);
        let client = connecting.await.unwrap().unwrap();
        let (mut upload, _doubled) = client.bidi(Double).await.unwrap();
        assert_eq!(next_frame(&mut server).0.kind, FrameKind::Call);

        for number in 1..=3 {
            upload.feed(number).await.unwrap();
        }
        upload.flush().unwrap();
        upload.flush().unwrap();
        let (header, body) = next_frame(&mut server);
        assert!(header.flags.contains(Flags::PACKED));
        assert_eq!(numbers(&header, &body), [1, 2, 3]);

        upload.feed(4).await.unwrap();
        upload.flush().unwrap();
        let (header, body) = next_frame(&mut server);
        assert!(!header.flags.contains(Flags::PACKED), "it is alone");
        assert_eq!(body, [4]);

        upload.feed(5).await.unwrap();
        upload.feed(6).await.unwrap();
        upload.send(7).await.unwrap();
        let (header, body) = next_frame(&mut server);
        assert_eq!(numbers(&header, &body), [5, 6]);
        assert_eq!(next_frame(&mut server).1, [7]);

        upload.feed(8).await.unwrap();
        upload.feed(9).await.unwrap();
        drop(upload);
        let (header, body) = next_frame(&mut server);
        assert_eq!(numbers(&header, &body), [8, 9]);
        assert_eq!(next_frame(&mut server).0.kind, FrameKind::End);
    })
    .await;
}

/// Feeds items until the receiver has no room. Returns how many.
fn feed_until_full(upload: &mut UploadStream<StuckUpload>) -> usize {
    let mut count = 0;
    loop {
        // Without tokio's budget, which would end the loop as well.
        let feeding = pin!(unconstrained(upload.feed(vec![7; 100])));
        match feeding.poll(&mut Context::from_waker(Waker::noop())) {
            std::task::Poll::Ready(fed) => fed.unwrap(),
            std::task::Poll::Pending => return count,
        }
        count += 1;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receiver_that_does_not_read_stops_the_feeder_and_what_was_fed_still_leaves() {
    let host = Host::start("server", &[]);
    in_time(async {
        let client = host.client().await;
        for _ in 0..3 {
            let mut upload = client.upload(StuckUpload).await.unwrap();
            let count = feed_until_full(&mut upload);
            let bytes = count * 105; // length of the vector, length of the item
            assert!(bytes > WINDOW_BYTES - 4096 && bytes < WINDOW_BYTES + 4096);
            upload.flush().unwrap();
            assert_eq!(feed_until_full(&mut upload), 0);
            drop(upload);
            client.ping().await.unwrap(); // the server has no complaint
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn feeding_a_call_that_is_over_says_so() {
    let host = Host::start("server", &[]);
    in_time(async {
        let client = host.client().await;
        let (mut upload, doubled) = client.bidi(Double).await.unwrap();
        upload.feed(1).await.unwrap();
        drop(doubled);
        assert!(matches!(upload.flush(), Err(ItemError::Over)));
        assert!(matches!(upload.feed(2).await, Err(ItemError::Over)));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notifications_sent_together_arrive_in_order_and_complete() {
    let host = Host::start("server", &[]);
    in_time(async {
        let client = host.client().await;
        client.notify_all((0..MANY).map(Remember)).await.unwrap();
        client.notify(Remember(MANY)).unwrap();
        let threads = blocking::Client::connect(host.name()).unwrap();
        tokio::task::spawn_blocking(move || {
            threads
                .notify_all((MANY + 1..2 * MANY).map(Remember))
                .unwrap();
            threads.call(Add(1, 1)).wait().unwrap(); // everything before it has been handled
        })
        .await
        .unwrap();
        let recalled = client.call(Recall).await.unwrap();
        assert_eq!(recalled.len() as u32, 2 * MANY);
        let (ours, theirs): (Vec<_>, Vec<_>) = recalled.into_iter().partition(|n| *n <= MANY);
        assert!(ours.into_iter().eq(0..=MANY) && theirs.into_iter().eq(MANY + 1..2 * MANY));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notifications_of_all_sizes_keep_their_order() {
    let place = Place::new();
    in_time(async {
        let listener = RawServer::listen(&place.socket());
        let connecting = tokio::spawn(Client::connect(place.name()));
        let mut server = RawServer::accept(&listener);
        let client = connecting.await.unwrap().unwrap();
        // The second one has a frame for itself, and the last one, of which there is only one of its size, as well.
        let sizes = [3_usize, 5000, 4, 5, 100];
        let echo = |size: &usize| Echo(vec![*size as u8; *size].into());
        client.notify_all(sizes.iter().map(echo)).await.unwrap();
        let mut arrived = Vec::new();
        while arrived.len() < sizes.len() {
            let (header, body) = next_frame(&mut server);
            assert_eq!(
                (header.kind, header.value),
                (FrameKind::Notify, Echo::TYPE.get())
            );
            if header.flags.contains(Flags::PACKED) {
                arrived.extend(Packed::parse(&header, &body).unwrap().map(<[u8]>::len));
            } else {
                arrived.push(body.len());
            }
        }
        assert_eq!(arrived, sizes);
    })
    .await;
}

/// Credit that a server gives by default for one stream.
const WINDOW_BYTES: usize = 256 << 10;

/// A ring that a few hundred small frames fill, while the server's window of credit has room for a multiple of that.
const SMALL_RING_BYTES: u32 = 16 << 10;

/// Returns a client with a small ring, and its server.
async fn client_of_raw_server(place: &Place) -> (Client, RawServer) {
    let listener = RawServer::listen(&place.socket());
    let builder = Client::builder(place.name()).ring_capacity_bytes(SMALL_RING_BYTES);
    let connecting = tokio::spawn(builder.connect());
    let server = RawServer::accept(&listener);
    (connecting.await.unwrap().unwrap(), server)
}

/// Reads frames of a kind until so many one-byte messages have come, and returns those and the number of frames.
fn read_messages(server: &mut RawServer, kind: FrameKind, count: usize) -> (Vec<u8>, usize) {
    let (mut messages, mut frames) = (Vec::new(), 0);
    while messages.len() < count {
        let (header, body) = next_frame(server);
        server.wake_for_room();
        assert_eq!(header.kind, kind);
        frames += 1;
        if header.flags.contains(Flags::PACKED) {
            messages.extend(numbers(&header, &body));
        } else {
            messages.extend(body);
        }
    }
    (messages, frames)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notifications_that_wait_for_room_share_frames() {
    let place = Place::new();
    in_time(async {
        let (client, mut server) = client_of_raw_server(&place).await;
        for number in 0..5000_u32 {
            client.notify(Remember(number % 100)).unwrap();
        }
        let (messages, frames) = read_messages(&mut server, FrameKind::Notify, 5000);
        assert!(messages.into_iter().eq((0..5000).map(|n| (n % 100) as u8)));
        let most_alone = SMALL_RING_BYTES as usize / 32; // a header and a byte
        assert!(frames < most_alone + 20, "{frames} frames");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn items_that_wait_for_room_share_frames_and_cost_what_is_sent() {
    let place = Place::new();
    in_time(async {
        let (client, mut server) = client_of_raw_server(&place).await;
        let (mut upload, _doubled) = client.bidi(Double).await.unwrap();
        let (call, _) = next_frame(&mut server);
        assert_eq!(call.kind, FrameKind::Call);
        // More than the window would hold if each had a header: they do not when they wait.
        let count = WINDOW_BYTES / 25 + 1000;
        for number in 0..count {
            upload.send(number as u32 % 100).await.unwrap();
        }
        let (messages, frames) = read_messages(&mut server, FrameKind::Data, count);
        assert!(messages.into_iter().eq((0..count).map(|n| (n % 100) as u8)));
        assert!(
            frames < SMALL_RING_BYTES as usize / 32 + 50,
            "{frames} frames"
        );
        client.notify(Remember(1)).unwrap();
        assert_eq!(next_frame(&mut server).0.kind, FrameKind::Notify);
    })
    .await;
}

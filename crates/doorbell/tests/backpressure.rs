//! A receiver that is slow stops its own sender and nobody else.

mod support;

use std::{
    future::Future as _,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
};

use bytes::Bytes;
use doorbell::{
    Client, Context, ItemSender, ItemStream, Message, NotifyError, Server, Status, blocking,
};
use doorbell_proto::frame::{CallId, Flags, FrameHeader, FrameKind};
use doorbell_testkit::{
    PATIENCE, Place, RawClient, RawServer, descriptors, eventually, is_asleep, mappings,
};
use support::{Host, in_time, messages::*, server_has_seen};

/// Credit that a client gives the server for one stream.
const WINDOW_BYTES: u32 = 64 << 10;
const ITEM_BYTES: u32 = 10_000;

/// Items that fit into the window, each with its header, and one that may be begun with the last byte of credit.
const MOST_ITEMS: u32 = WINDOW_BYTES / (ITEM_BYTES + 24) + 1;

#[test]
#[ignore = "the body of the child processes"]
fn child_process() {
    support::roles::run();
}

async fn client_with_a_small_window(host: &Host) -> Client {
    Client::builder(host.name())
        .stream_window_bytes(WINDOW_BYTES)
        .connect()
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reader_that_does_not_read_stops_its_sender() {
    let host = Host::start("server", &[]);
    in_time(async {
        let client = client_with_a_small_window(&host).await;
        let mut items = client.stream(Pour(100, ITEM_BYTES)).await.unwrap();
        server_has_seen(
            &client,
            Seen {
                poured: MOST_ITEMS,
                ..Seen::default()
            },
        )
        .await;
        // Other calls flow, each of which gives the sender an opportunity to send more than it may.
        for number in 0..1000 {
            assert_eq!(client.call(Add(number, 1)).await.unwrap(), number + 1);
        }
        assert_eq!(
            client.call(Look).await.unwrap().poured,
            MOST_ITEMS,
            "window and one item"
        );

        // Each item that is taken makes room for one more, and all arrive whole.
        let mut received = 0;
        while let Some(item) = items.next().await {
            assert!(item.unwrap().0 == pattern(ITEM_BYTES as usize));
            received += 1;
            let poured = client.call(Look).await.unwrap().poured;
            assert!(
                poured <= received + MOST_ITEMS,
                "{poured} items sent, {received} taken"
            );
        }
        assert_eq!(received, 100);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_reader_of_one_stream_leaves_other_streams_alone() {
    let host = Host::start("server", &[]);
    in_time(async {
        let client = client_with_a_small_window(&host).await;
        let mut slow = client.stream(Pour(50, ITEM_BYTES)).await.unwrap();
        server_has_seen(
            &client,
            Seen {
                poured: MOST_ITEMS,
                ..Seen::default()
            },
        )
        .await;
        let mut quick = client.stream(Count(50_000)).await.unwrap();
        for expected in 0..50_000 {
            assert_eq!(quick.next().await.unwrap().unwrap(), expected);
        }
        assert!(quick.next().await.is_none());
        let mut upload = client.upload(Sum).await.unwrap();
        for number in 0..50_000 {
            upload.send(number).await.unwrap();
        }
        assert_eq!(upload.finish().await.unwrap(), (0..50_000_u64).sum::<u64>());
        assert_eq!(
            client.call(Look).await.unwrap().poured,
            MOST_ITEMS,
            "the slow stream has not moved"
        );
        let mut count = 0;
        while let Some(item) = slow.next().await {
            item.unwrap();
            count += 1;
        }
        assert_eq!(count, 50);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handler_that_does_not_read_stops_the_upload() {
    let host = Host::start("server", &[]);
    in_time(async {
        let client = host.client().await;
        let mut upload = client.upload(StuckUpload).await.unwrap();
        let sent = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&sent);
        let sender = tokio::spawn(async move {
            while upload.send(vec![0; ITEM_BYTES as usize]).await.is_ok() {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        });
        // The default window of a server is 256 KiB.
        let most = (256 << 10) / ITEM_BYTES + 1;
        doorbell_testkit::eventually("the window fills", || {
            sent.load(Ordering::Relaxed) + 1 >= most
        });
        for number in 0..1000 {
            assert_eq!(client.call(Add(number, 1)).await.unwrap(), number + 1);
        }
        assert!(sent.load(Ordering::Relaxed) <= most, "window and one item");
        sender.abort();
        server_has_seen(
            &client,
            Seen {
                started: 1,
                dropped: 1,
                ..Seen::default()
            },
        )
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_calls_pass_a_large_message() {
    let host = Host::start("server", &[]);
    in_time(async {
        let client = host.client().await;
        let large = pattern(30_000_000);
        let transfer = client.call(Echo(large.clone())).send().await.unwrap();
        let mut transfer = tokio::spawn(transfer);
        for number in 0..20 {
            tokio::select! {
                biased;
                sum = client.call(Add(number, 1)) => assert_eq!(sum.unwrap(), number + 1),
                _ = &mut transfer => panic!("30 MB were there and back before small call {number}"),
            }
        }
        assert!(
            !transfer.is_finished(),
            "the small calls were answered while the large one was under way"
        );
        assert!(transfer.await.unwrap().unwrap().0 == large);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_messages_of_many_callers_share_one_connection() {
    let host = Host::start("server", &[]);
    in_time(async {
        let client = host.client().await;
        let callers: Vec<_> = (0..8_usize)
            .map(|number| {
                let client = client.clone();
                tokio::spawn(async move {
                    let bytes: Bytes = pattern(1_000_000 + number);
                    for _ in 0..3 {
                        assert!(client.call(Echo(bytes.clone())).await.unwrap().0 == bytes);
                    }
                })
            })
            .collect();
        for caller in callers {
            caller.await.unwrap();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notifications_are_refused_when_the_server_does_not_keep_up_and_none_is_lost() {
    let host = Host::start("server", &[]);
    in_time(async {
        let client = host.client().await;
        let mut refused = 0;
        for number in 0..200_000 {
            while let Err(error) = client.notify(Remember(number)) {
                assert!(matches!(error, NotifyError::Full { .. }), "{error:?}");
                refused += 1;
                client.writable().await.unwrap();
            }
        }
        let recalled = client.call(Recall).await.unwrap();
        assert!(
            recalled.into_iter().eq(0..200_000),
            "in order and complete, {refused} refused in between"
        );
    })
    .await;
}

/// Larger than the chunks that may lie in the ring, so that it travels as a call and keeps waiting; two of them fill the queue.
const LARGE_NOTIFICATION_BYTES: usize = 120_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_notifications_are_refused_when_the_server_does_not_keep_up() {
    in_time(async {
        let place = Place::new();
        let listener = RawServer::listen(&place.socket());
        let connecting = tokio::spawn(Client::connect(place.name()));
        let mut server = RawServer::accept(&listener);
        let client = connecting.await.unwrap().unwrap();
        let mut sent = 0;
        let full = loop {
            match client.notify(Echo(pattern(LARGE_NOTIFICATION_BYTES))) {
                Ok(()) => sent += 1,
                Err(error) => break error,
            }
        };
        let queued = sent * LARGE_NOTIFICATION_BYTES;
        assert!(
            matches!(full, NotifyError::Full { queued_bytes } if queued_bytes == queued),
            "{full:?} after {sent}"
        );
        assert_eq!(sent, 2);
        client
            .notify(Remember(1))
            .expect("a small one passes the large ones");

        let (mut received, bytes) = (0, queued + size_of::<u64>() * sent + 1);
        eventually("everything arrives", || {
            while let Some((_, body)) = server.read() {
                received += body.len();
            }
            server.wake_for_room();
            received == bytes
        });
        client.writable().await.unwrap();
        client
            .notify(Echo(pattern(LARGE_NOTIFICATION_BYTES)))
            .expect("there is room again");
    })
    .await;
}

#[test]
fn reader_thread_that_does_not_read_stops_its_sender() {
    let host = Host::start("server", &[]);
    let client = blocking::Client::builder(host.name())
        .stream_window_bytes(WINDOW_BYTES)
        .connect()
        .unwrap();
    let items = client.stream(Pour(100, ITEM_BYTES)).open().unwrap();
    let full = Seen {
        poured: MOST_ITEMS,
        ..Seen::default()
    };
    client
        .call(WaitFor(full))
        .timeout(doorbell_testkit::PATIENCE)
        .wait()
        .unwrap();
    for number in 0..1000 {
        assert_eq!(client.call(Add(number, 1)).wait().unwrap(), number + 1);
    }
    assert_eq!(
        client.call(Look).wait().unwrap().poured,
        MOST_ITEMS,
        "window and one item"
    );
    assert_eq!(items.map(Result::unwrap).count(), 100);
}

/// Echo calls that just fill a ring, each with its header a sixteenth of a chunk.
const BYTES_OF_ECHO: usize = 1000;

fn send_echoes(client: &mut RawClient, slots: std::ops::Range<u32>) {
    for slot in slots {
        let id = CallId::new(slot, 1).raw();
        let header = FrameHeader::new(FrameKind::Call, id, Echo::TYPE.get());
        client.send(header, &[0; BYTES_OF_ECHO]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_that_reads_no_answers_lets_the_server_sleep_and_is_seen_to_leave() {
    let host = Host::start("server", &[]);
    in_time(async {
        let server = host.child.id();
        let witness = host.client().await;
        witness.ping().await.unwrap();
        let held = || (descriptors(server), mappings(server));
        let before = held();

        let mut silent = RawClient::connect(&host.place.socket());
        let fills_a_ring = silent.welcome.server_ring_capacity_bytes / (24 + BYTES_OF_ECHO as u32);
        send_echoes(&mut silent, 0..fills_a_ring);
        eventually("the server answers", || silent.unread_bytes() == 0);
        // Of these the server reads a turn's worth; the answers wait, and so do the other requests.
        send_echoes(&mut silent, fills_a_ring..2 * fills_a_ring);
        eventually("the server finds its ring full", || {
            silent.unread_bytes() < fills_a_ring * (24 + BYTES_OF_ECHO as u32)
        });
        eventually("the server falls asleep", || is_asleep(server));
        assert!(silent.unread_bytes() > 0, "requests lie unread");

        for number in 0..100 {
            assert_eq!(witness.call(Add(number, 1)).await.unwrap(), number + 1);
        }
        eventually("the server falls asleep again", || is_asleep(server));
        drop(silent);
        eventually("the server gives everything back", || held() == before);
        assert_eq!(witness.call(Add(1, 1)).await.unwrap(), 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_that_reads_its_answers_late_gets_all_of_them() {
    let host = Host::start("server", &[]);
    in_time(async {
        let mut late = RawClient::connect(&host.place.socket());
        let fills_a_ring = late.welcome.server_ring_capacity_bytes / (24 + BYTES_OF_ECHO as u32);
        send_echoes(&mut late, 0..fills_a_ring);
        eventually("the server answers", || late.unread_bytes() == 0);
        send_echoes(&mut late, fills_a_ring..2 * fills_a_ring);
        eventually("the server falls asleep", || is_asleep(host.child.id()));
        for slot in 0..2 * fills_a_ring {
            let mut answer = None;
            eventually("the next answer", || {
                late.ring(); // a proper client rings once for a chunk of room
                answer = late.read();
                answer.is_some()
            });
            let (header, body) = answer.unwrap();
            assert_eq!(
                (header.kind, header.id, body.len()),
                (
                    FrameKind::Response,
                    CallId::new(slot, 1).raw(),
                    BYTES_OF_ECHO
                )
            );
        }
        assert_eq!(late.unread_bytes(), 0, "every request was read");
    })
    .await;
}

/// Numbers to remember. All together they are larger than what may lie in the ring.
const MANY: u32 = 40_000;

async fn host_with_much_to_recall() -> Host {
    let host = Host::start("server", &[]);
    let client = host.client().await;
    let numbers = (0..MANY).map(|number| Remember(u32::MAX - number));
    client.notify_all(numbers).await.unwrap();
    let recalled = client.call(Recall).await.unwrap();
    assert_eq!(recalled.len(), MANY as usize);
    host
}

fn recall(client: &mut RawClient, slot: u32) {
    let id = CallId::new(slot, 1).raw();
    client.send(
        FrameHeader::new(FrameKind::Call, id, Recall::TYPE.get()),
        &[],
    );
}

/// Reads until `count` answers are complete, and returns the slots in the order of their ends.
fn read_answers(client: &mut RawClient, count: usize) -> Vec<u32> {
    let mut ended = Vec::new();
    eventually("the answers", || {
        client.ring();
        while let Some((header, _)) = client.read() {
            assert_eq!(header.kind, FrameKind::Response);
            if !header.flags.contains(Flags::MORE) {
                ended.push(CallId::from_raw(header.id).slot());
            }
        }
        ended.len() >= count
    });
    ended
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_call_is_answered_while_a_large_answer_waits() {
    in_time(async {
        let host = host_with_much_to_recall().await;
        let mut client = RawClient::connect(&host.place.socket());
        recall(&mut client, 0);
        eventually("the large call is read", || client.unread_bytes() == 0);
        let id = CallId::new(1, 1).raw();
        client.send(
            FrameHeader::new(FrameKind::Call, id, Add::TYPE.get()),
            &[1, 2],
        );
        eventually("the small call is read", || client.unread_bytes() == 0);
        assert_eq!(read_answers(&mut client, 2), [1, 0]);
    })
    .await;
}

/// Each keeps its memory until it has been read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_are_not_read_while_many_large_answers_wait() {
    in_time(async {
        let host = host_with_much_to_recall().await;
        let mut client = RawClient::connect(&host.place.socket());
        for slot in 0..5 {
            recall(&mut client, slot);
            eventually("the call is read", || client.unread_bytes() == 0);
        }
        recall(&mut client, 5);
        let witness = host.client().await;
        for number in 0..100 {
            assert_eq!(witness.call(Add(number, 1)).await.unwrap(), number + 1);
        }
        eventually("the server falls asleep", || is_asleep(host.child.id()));
        assert!(client.unread_bytes() > 0, "the sixth call lies unread");
        let mut ended = read_answers(&mut client, 6);
        ended.sort_unstable();
        assert_eq!(ended, [0, 1, 2, 3, 4, 5]);
    })
    .await;
}

/// Items larger than a chunk wait as large answers do, but nothing bounds their number except the credit for them: a client that gives more
/// than it has read items must not have them all wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credit_is_not_read_while_large_items_wait() {
    in_time(async {
        let host = Host::start("server", &[]);
        let mut client = RawClient::connect(&host.place.socket());
        let id = CallId::new(0, 1).raw();
        let mut call = FrameHeader::new(FrameKind::Call, id, Pour::TYPE.get());
        call.flags.insert(Flags::STREAMING);
        client.send(call, &[0xE8, 0x07, 0xA0, 0x9C, 0x01]); // 1000 items of 20,000 bytes
        eventually("the call is read", || client.unread_bytes() == 0);
        client.send(FrameHeader::new(FrameKind::Credit, id, 1 << 20), &[]);
        let witness = host.client().await;
        eventually("items wait", || client.published_bytes() > 100_000);
        for _ in 0..20 {
            client.send(FrameHeader::new(FrameKind::Credit, id, 1 << 16), &[]);
        }
        for number in 0..100 {
            assert_eq!(witness.call(Add(number, 1)).await.unwrap(), number + 1);
        }
        eventually("the server falls asleep", || is_asleep(host.child.id()));
        assert!(client.unread_bytes() > 0, "the credit lies unread");
    })
    .await;
}

/// A handler gives up the items of a call and goes on sending its own. Whoever sends those items must not wait for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handler_that_reads_no_more_does_not_stop_the_sender() {
    let place = Place::new();
    let _server = Server::builder(place.name())
        .stream_window_bytes(WINDOW_BYTES)
        .on_bidi(
            |_: Context, _: Double, mut items: ItemStream<u32>, mut out: ItemSender<u32>| async move {
                let first = items.next().await.unwrap().unwrap();
                out.send(first).await?;
                drop(items);
                out.send(first).await?;
                std::future::pending::<Result<(), Status>>().await
            },
        )
        .bind()
        .await
        .unwrap();
    in_time(async {
        let client = Client::connect(place.name()).await.unwrap();
        let (mut sender, mut items) = client.bidi(Double).await.unwrap();
        // The first window lies unread when the stream is dropped; what follows comes after that.
        for number in 0..4 * WINDOW_BYTES / 24 {
            sender.send(number).await.unwrap();
        }
        assert_eq!(items.next().await.unwrap().unwrap(), 0);
        assert_eq!(items.next().await.unwrap().unwrap(), 0);
    })
    .await;
}

/// As many items as four windows take, each of them in a frame of its own.
const MANY_ITEMS: usize = 4 * WINDOW_BYTES as usize / 1024;

/// A handler gives up the items of a call before it waits for something else. Whoever sends those items does not wait for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handler_that_reads_nothing_does_not_stop_the_sender() {
    let place = Place::new();
    let _server = Server::builder(place.name())
        .stream_window_bytes(WINDOW_BYTES)
        .on_upload(
            |_: Context, _: StuckUpload, items: ItemStream<Vec<u8>>| async move {
                drop(items);
                std::future::pending::<Result<u32, Status>>().await
            },
        )
        .bind()
        .await
        .unwrap();
    in_time(async {
        let client = Client::connect(place.name()).await.unwrap();
        let mut upload = client.upload(StuckUpload).await.unwrap();
        for _ in 0..MANY_ITEMS {
            upload.send(vec![1; 1000]).await.unwrap();
        }
    })
    .await;
}

/// The same for one that asks afterwards whether its call is over.
#[test]
fn handler_that_reads_nothing_and_looks_for_the_end_does_not_stop_the_sender() {
    let place = Place::new();
    let (go, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let _server = blocking::Server::builder(place.name())
        .stream_window_bytes(WINDOW_BYTES)
        .on_upload(
            move |context: Context, _: StuckUpload, items: blocking::ItemStream<Vec<u8>>| {
                drop(items);
                let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
                let is_over = pin!(context.cancelled()).poll(&mut cx).is_ready();
                assert!(!is_over);
                let _ = gate.lock().unwrap().recv();
                Ok::<_, Status>(0)
            },
        )
        .bind()
        .unwrap();
    let client = blocking::Client::connect(place.name()).unwrap();
    let upload = client.upload(StuckUpload).timeout(PATIENCE);
    let mut upload = upload.open().unwrap();
    for _ in 0..MANY_ITEMS {
        upload.send(vec![1; 1000]).unwrap();
    }
    drop(go);
    assert_eq!(upload.finish().unwrap(), 0);
}

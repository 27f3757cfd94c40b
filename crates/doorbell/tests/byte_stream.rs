//! Ordinary reading and writing between two processes, on top of a call.

mod support;

use std::{
    io::{self, ErrorKind, Read, Write},
    pin::Pin,
    task::Poll,
    thread,
};

use doorbell::{ByteStream, CallError, Client, Disconnected, blocking};
use doorbell_testkit::{Child, PATIENCE, eventually};
use support::{Host, SHORT, in_time, messages::*, server_has_seen};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};

const MUCH: usize = 8 << 20;

/// Bytes of one write with the default rings.
const CHUNK_BYTES: u64 = 16 << 10;

#[test]
#[ignore = "the body of the child processes"]
fn child_process() {
    support::roles::run();
}

async fn open(client: &Client, through: Through) -> ByteStream {
    client.bidi(Tunnel(through)).await.unwrap().into()
}

fn open_of_thread(client: &blocking::Client, through: Through) -> blocking::ByteStream {
    let opened = client.bidi(Tunnel(through)).timeout(PATIENCE).open();
    opened.unwrap().into()
}

fn call_error(error: &io::Error) -> &CallError {
    error
        .get_ref()
        .and_then(|source| source.downcast_ref())
        .expect("the source is kept")
}

fn is_dead_peer(error: &io::Error) -> bool {
    error.kind() == ErrorKind::ConnectionReset
        && matches!(
            call_error(error),
            CallError::Disconnected(Disconnected::PeerGone)
        )
}

/// Writes once if that is possible now.
async fn write_now(stream: &mut ByteStream, bytes: &[u8]) -> Option<io::Result<usize>> {
    std::future::poll_fn(|cx| {
        Poll::Ready(match Pin::new(&mut *stream).poll_write(cx, bytes) {
            Poll::Ready(written) => Some(written),
            Poll::Pending => None,
        })
    })
    .await
}

async fn write_until_error(stream: &mut (impl AsyncWriteExt + Unpin)) -> io::Error {
    loop {
        if let Err(error) = stream.write(&[0; 1000]).await {
            return error;
        }
    }
}

async fn copy_both_ways(client: &Client) {
    let sent = pattern(MUCH);
    let (mut reader, mut writer) = open(client, Through::Echo).await.into_split();
    let bytes = sent.clone();
    let writing = tokio::spawn(async move {
        let copied = tokio::io::copy(&mut &bytes[..], &mut writer).await.unwrap();
        writer.shutdown().await.unwrap();
        copied
    });
    let mut received = Vec::new();
    let count = tokio::io::copy(&mut reader, &mut received).await.unwrap();
    assert_eq!((count, writing.await.unwrap()), (MUCH as u64, MUCH as u64));
    assert!(sent == received, "the bytes came back changed");
    assert_eq!(reader.read(&mut [0]).await.unwrap(), 0, "the end stays");
}

fn copy_both_ways_of_threads(client: &blocking::Client) {
    let sent = pattern(MUCH);
    let (mut reader, mut writer) = open_of_thread(client, Through::Echo).into_split();
    let bytes = sent.clone();
    let writing = thread::spawn(move || {
        let copied = io::copy(&mut &bytes[..], &mut writer).unwrap();
        writer.shutdown().unwrap();
        copied
    });
    let mut received = Vec::new();
    let count = io::copy(&mut reader, &mut received).unwrap();
    assert_eq!((count, writing.join().unwrap()), (MUCH as u64, MUCH as u64));
    assert!(sent == received, "the bytes came back changed");
    assert_eq!(reader.read(&mut [0]).unwrap(), 0, "the end stays");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copy_through_a_server_of_tasks_brings_all_bytes_back() {
    let host = Host::start("server", &[]);
    in_time(async { copy_both_ways(&host.client().await).await }).await;
    host.child.finish();
}

#[tokio::test(flavor = "current_thread")]
async fn copy_through_a_server_of_threads_brings_all_bytes_back() {
    let host = Host::start("server-of-threads", &[]);
    in_time(async { copy_both_ways(&host.client().await).await }).await;
    host.child.finish();
}

#[test]
fn copy_of_threads_through_a_server_of_tasks_brings_all_bytes_back() {
    let host = Host::start("server", &[]);
    copy_both_ways_of_threads(&blocking::Client::connect(host.name()).unwrap());
    host.child.finish();
}

#[test]
fn copy_of_threads_through_a_server_of_threads_brings_all_bytes_back() {
    let host = Host::start("server-of-threads", &[]);
    copy_both_ways_of_threads(&blocking::Client::connect(host.name()).unwrap());
    host.child.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_streams_split_by_tokio_share_a_connection() {
    let host = Host::start("server", &[]);
    in_time(async {
        let client = host.client().await;
        let copies = (1..=8).map(|number| {
            let client = client.clone();
            tokio::spawn(async move {
                let sent = pattern(number * 100_001);
                let stream = open(&client, Through::Echo).await;
                let (mut reader, mut writer) = tokio::io::split(stream);
                let (mut received, mut bytes) = (Vec::new(), &sent[..]);
                let (read, written) = tokio::join!(reader.read_to_end(&mut received), async {
                    tokio::io::copy(&mut bytes, &mut writer).await?;
                    writer.shutdown().await
                });
                written.unwrap();
                assert_eq!(read.unwrap(), sent.len());
                assert!(sent == received, "the bytes of stream {number} changed");
            })
        });
        for copy in copies.collect::<Vec<_>>() {
            copy.await.unwrap();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_are_answered_one_by_one() {
    let host = Host::start("server", &[]);
    in_time(async {
        let client = host.client().await;
        let (reader, mut writer) = open(&client, Through::Echo).await.into_split();
        let mut lines = BufReader::new(reader).lines();
        for number in 0..500 {
            let line = format!("{number} {}", "x".repeat(number * 7));
            writer.write_all(line.as_bytes()).await.unwrap();
            writer.write_all(b"\n").await.unwrap();
            assert_eq!(lines.next_line().await.unwrap(), Some(line));
        }
        writer.shutdown().await.unwrap();
        assert_eq!(lines.next_line().await.unwrap(), None);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn futures_that_are_dropped_lose_and_repeat_nothing() {
    let host = Host::start("server", &[]);
    in_time(async {
        let client = host.client().await;
        let sent = pattern(1 << 20);
        let (mut reader, mut writer) = open(&client, Through::Echo).await.into_split();
        let bytes = sent.clone();
        let writing = tokio::spawn(async move {
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                tokio::select! {
                    biased;
                    count = writer.write(rest) => rest = &rest[count.unwrap()..],
                    () = tokio::task::yield_now() => {}
                }
            }
            writer.shutdown().await.unwrap();
        });
        let mut received = Vec::new();
        loop {
            tokio::select! {
                biased;
                count = reader.read_buf(&mut received) => if count.unwrap() == 0 { break },
                () = tokio::task::yield_now() => {}
            }
        }
        writing.await.unwrap();
        assert!(sent == received, "bytes were lost, repeated or changed");
    })
    .await;
}

async fn end_of_one_direction(host: &Host) {
    let client = host.client().await;
    let mut stream = open(&client, Through::Greet).await;
    let mut greeting = Vec::new();
    stream.read_to_end(&mut greeting).await.unwrap();
    assert_eq!(greeting, WELCOME, "the server has shut down");

    let sent = pattern(1 << 20);
    stream.write_all(&sent).await.unwrap();
    stream.shutdown().await.unwrap();
    stream.shutdown().await.unwrap();
    let error = stream.write(b"more").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    drop(stream); // both directions have ended, so nothing is cancelled

    let _ = client.call(Open).await; // the handler of a server of threads does not wait for it
    eventually_seen(&client, |seen| seen.read_to_end == 1).await;
    let seen = client.call(Look).await.unwrap();
    assert_eq!((seen.piped, seen.dropped), (1 << 20, 0));
}

/// As [`server_has_seen`], for both kinds of server.
async fn eventually_seen(client: &Client, wanted: impl Fn(&Seen) -> bool) {
    let give_up = std::time::Instant::now() + PATIENCE;
    loop {
        let seen = client.call(Look).await.unwrap();
        if wanted(&seen) {
            return;
        }
        assert!(std::time::Instant::now() < give_up, "not in time: {seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn direction_that_has_ended_leaves_the_other_open_with_a_server_of_tasks() {
    let host = Host::start("server", &[]);
    in_time(end_of_one_direction(&host)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn direction_that_has_ended_leaves_the_other_open_with_a_server_of_threads() {
    let host = Host::start("server-of-threads", &[]);
    in_time(end_of_one_direction(&host)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_that_does_not_read_stops_the_writer_and_nobody_else() {
    let host = Host::start("server", &[]);
    in_time(async {
        let client = host.client().await;
        let mut stuck = open(&client, Through::Ignore).await;
        let (much, mut written) = (vec![0; 100_000], 0);
        while let Some(count) = write_now(&mut stuck, &much).await {
            written += count.unwrap() as u64;
        }
        // The default window of a server, and one item that may be begun with the last byte of credit.
        let most = (256 << 10) + CHUNK_BYTES;
        assert!(written <= most, "{written} bytes without a reader");
        assert!(written >= most - 2 * CHUNK_BYTES, "{written} bytes only");

        for number in 0..1000 {
            assert_eq!(client.call(Add(number, 1)).await.unwrap(), number + 1);
        }
        copy_both_ways(&client).await;
        assert!(
            write_now(&mut stuck, b"x").await.is_none(),
            "still no credit"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_that_does_not_read_stops_the_handler_and_its_drop_cancels_it() {
    const WINDOW_BYTES: u32 = 64 << 10;
    let host = Host::start("server", &[]);
    in_time(async {
        let client = Client::builder(host.name())
            .stream_window_bytes(WINDOW_BYTES)
            .connect()
            .await
            .unwrap();
        let mut stream = open(&client, Through::Pour).await;
        // The headers of four chunks do not fit into the window as well, but a chunk may be begun with the last byte of credit.
        let most = u64::from(WINDOW_BYTES);
        let full = Seen {
            piped: most,
            ..Seen::default()
        };
        server_has_seen(&client, full).await;
        copy_both_ways(&client).await;
        assert_eq!(client.call(Look).await.unwrap().piped, most);

        let mut read = vec![0xFF; 1 << 20];
        stream.read_exact(&mut read).await.unwrap();
        assert!(read.iter().all(|byte| *byte == 0));

        drop(stream);
        let cancelled = Seen {
            dropped: 1,
            ..Seen::default()
        };
        server_has_seen(&client, cancelled).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_that_is_dropped_before_its_end_cancels_the_call_for_the_other() {
    let host = Host::start("server", &[]);
    in_time(async {
        let client = host.client().await;
        let (mut reader, writer) = open(&client, Through::Ignore).await.into_split();
        let reading = tokio::spawn(async move { reader.read(&mut [0]).await });
        drop(writer);
        let error = reading.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");

        let (reader, mut writer) = open(&client, Through::Ignore).await.into_split();
        let writing = tokio::spawn(async move { write_until_error(&mut writer).await });
        let started = Seen {
            started: 2,
            ..Seen::default()
        };
        server_has_seen(&client, started).await;
        drop(reader);
        let error = writing.await.unwrap();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe, "{error}");

        let cancelled = Seen {
            dropped: 2,
            ..Seen::default()
        };
        server_has_seen(&client, cancelled).await;
    })
    .await;
}

#[test]
fn half_of_a_thread_that_is_dropped_before_its_end_cancels_the_call_for_the_other() {
    let host = Host::start("server-of-threads", &[]);
    let client = blocking::Client::connect(host.name()).unwrap();
    let (reader, mut writer) = open_of_thread(&client, Through::Ignore).into_split();
    let writing = thread::spawn(move || {
        loop {
            if let Err(error) = writer.write(&[0; 1000]) {
                return error;
            }
        }
    });
    drop(reader);
    let error = writing.join().unwrap();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe, "{error}");

    let (_reader, mut writer) = open_of_thread(&client, Through::Greet).into_split();
    writer.write_all(&[0; 1000]).unwrap();
    let look = || client.call(Look).wait().unwrap();
    eventually("the handler has read everything", || look().piped == 1000);
    drop(writer);
    eventually("the handler has an error, not an end", || {
        look().cut_short == 1
    });
    assert_eq!(look().read_to_end, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_killed_in_the_middle_is_an_error_and_no_end() {
    let mut host = Host::start("server", &[]);
    in_time(async {
        let client = host.client().await;
        let mut pouring = open(&client, Through::Pour).await;
        let (mut reader, mut writer) = open(&client, Through::Echo).await.into_split();
        writer.write_all(b"x").await.unwrap();
        reader.read_exact(&mut [0]).await.unwrap();
        pouring.read_exact(&mut [0; 100_000]).await.unwrap();
        let reading = tokio::spawn(async move { reader.read(&mut [0]).await });
        host.child.kill();

        let error = pouring.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert!(is_dead_peer(&error), "{error:?}");
        let again = pouring.read(&mut [0]).await.unwrap_err();
        assert_eq!(
            again.kind(),
            ErrorKind::ConnectionReset,
            "no end later either"
        );
        let error = reading.await.unwrap().unwrap_err();
        assert!(is_dead_peer(&error), "{error:?}");
        let error = writer.write(b"x").await.unwrap_err();
        assert!(is_dead_peer(&error), "{error:?}");
    })
    .await;
}

#[test]
fn server_killed_in_the_middle_is_an_error_for_threads() {
    let mut host = Host::start("server-of-threads", &[]);
    let client = blocking::Client::connect(host.name()).unwrap();
    let mut pouring = open_of_thread(&client, Through::Pour);
    pouring.read_exact(&mut [0; 100_000]).unwrap();
    host.child.kill();
    let error = pouring.read_to_end(&mut Vec::new()).unwrap_err();
    assert!(is_dead_peer(&error), "{error:?}");
    let error = pouring.write(b"x").unwrap_err();
    assert!(is_dead_peer(&error), "{error:?}");
}

#[test]
fn client_killed_in_the_middle_is_an_error_for_a_handler_of_threads() {
    const BYTES: u64 = 100_000;
    let host = Host::start("server-of-threads", &[]);
    let witness = blocking::Client::connect(host.name()).unwrap();
    let settings = [("path", host.name()), ("bytes", BYTES.to_string())];
    let settings: Vec<_> = settings
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let mut client = Child::start("child_process", "tunnel", &settings);
    client.hear("READY");
    let look = || witness.call(Look).wait().unwrap();
    eventually("the handler has read everything", || look().piped == BYTES);
    client.kill();
    eventually("the handler has an error, not an end", || {
        look().cut_short == 1
    });
    assert_eq!(look().read_to_end, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deadline_ends_reading_and_writing() {
    let host = Host::start("server", &[]);
    in_time(async {
        let client = host.client().await;
        let opened = client.bidi(Tunnel(Through::Ignore)).timeout(SHORT).await;
        let (mut reader, mut writer) = ByteStream::from(opened.unwrap()).into_split();
        let writing = tokio::spawn(async move { write_until_error(&mut writer).await });
        let error = reader.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(matches!(call_error(&error), CallError::DeadlineExceeded));
        let kind = writing.await.unwrap().kind();
        // Whoever asks second learns only that the call is over.
        assert!(matches!(kind, ErrorKind::TimedOut | ErrorKind::BrokenPipe));

        let opened = client.bidi(Tunnel(Through::Ignore)).timeout(SHORT).await;
        let error = write_until_error(&mut ByteStream::from(opened.unwrap())).await;
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    })
    .await;
}

#[test]
fn deadline_ends_reading_and_writing_of_threads() {
    let host = Host::start("server-of-threads", &[]);
    let client = blocking::Client::connect(host.name()).unwrap();
    let open = || -> blocking::ByteStream {
        let opened = client.bidi(Tunnel(Through::Ignore)).timeout(SHORT).open();
        opened.unwrap().into()
    };
    let error = open().read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    let error = open().write_all(&[0; 1 << 20]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_of_the_handler_is_the_error_of_both_directions() {
    let host = Host::start("server", &[]);
    in_time(async {
        let client = host.client().await;
        let error = open(&client, Through::Refuse)
            .await
            .read(&mut [0])
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(matches!(call_error(&error), CallError::Status(_)));
        let error = write_until_error(&mut open(&client, Through::Refuse).await).await;
        assert_eq!(error.kind(), ErrorKind::NotFound);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn empty_reads_and_writes_mean_nothing() {
    let host = Host::start("server", &[]);
    in_time(async {
        let client = host.client().await;
        let mut stream = open(&client, Through::Echo).await;
        assert_eq!(stream.write(&[]).await.unwrap(), 0);
        assert_eq!(stream.read(&mut []).await.unwrap(), 0);
        stream.write_all(b"still open").await.unwrap();
        stream.flush().await.unwrap();
        let mut back = [0; 10];
        stream.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"still open");
    })
    .await;
}

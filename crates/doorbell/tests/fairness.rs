//! A task that never has to wait shares its executor with the others all the same.

mod support;

use std::{
    future::poll_fn,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use doorbell::{Client, Context, ItemSender, Message, MessageType, Raw, Server, Spin, Status};
use serde::{Deserialize, Serialize};
use support::messages::Echo;

#[derive(Serialize, Deserialize)]
struct Next(u32);
impl Message for Next {
    const TYPE: MessageType = MessageType::new(1);
    type Reply = u32;
}

#[derive(Serialize, Deserialize)]
struct Pour;
impl Message for Pour {
    const TYPE: MessageType = MessageType::new(2);
    type Reply = u32;
}

/// Answered when the items of [`Pour`] are on their way.
#[derive(Serialize, Deserialize)]
struct Poured;
impl Message for Poured {
    const TYPE: MessageType = MessageType::new(3);
    type Reply = ();
}

/// Calls one after the other, each answered while the task spins.
#[tokio::test(flavor = "current_thread")]
async fn task_whose_calls_are_answered_at_once_lets_others_go_ahead() {
    let (_directory, _server, client) = connected().await;
    let turn = other_task();
    for number in 0..MOST {
        within(async { client.call(Next(number)).await.unwrap() }).await;
        if turn.load(Ordering::Relaxed) {
            return;
        }
    }
    panic!("{MOST} calls, and the other task has not had its turn");
}

/// The same with items that are all there before anybody asks for them.
#[tokio::test(flavor = "current_thread")]
async fn task_whose_items_are_there_lets_others_go_ahead() {
    let (_directory, _server, client) = connected().await;
    let mut items = client.stream(Pour).await.unwrap();
    within(async { client.call(Poured).await.unwrap() }).await;
    let turn = other_task();
    for _ in 0..ITEMS {
        within(items.next()).await.unwrap().unwrap();
        if turn.load(Ordering::Relaxed) {
            return;
        }
    }
    panic!("{ITEMS} items, and the other task has not had its turn");
}

/// Polls of a task that waits for a large message, as the other task of its thread sees them.
#[derive(Default)]
struct Polls {
    since_our_turn: AtomicU32,
    most: AtomicU32,
    /// Most frames that were read in one.
    most_frames: AtomicU64,
    is_over: AtomicBool,
}

impl Polls {
    /// Starts a task that sends a large message and has it back.
    fn start(client: &Client) -> Arc<Self> {
        let (polls, client) = (Arc::new(Self::default()), client.clone());
        tokio::spawn({
            let seen = Arc::clone(&polls);
            async move {
                let calling = client.call(Echo(vec![7; LARGE_BYTES].into()));
                let mut calling = pin!(calling.into_future());
                let answer = poll_fn(|cx| {
                    let before = client.stats().frames_received;
                    let polled = calling.as_mut().poll(cx);
                    seen.note(client.stats().frames_received - before);
                    polled
                });
                assert_eq!(answer.await.unwrap().0.len(), LARGE_BYTES);
                seen.is_over.store(true, Ordering::Relaxed);
            }
        });
        polls
    }

    fn note(&self, frames: u64) {
        let polls = self.since_our_turn.fetch_add(1, Ordering::Relaxed) + 1;
        self.most.fetch_max(polls, Ordering::Relaxed);
        self.most_frames.fetch_max(frames, Ordering::Relaxed);
    }
}

/// One that has spent its budget is called when tokio has looked for events, which it does seldom while others call for their next turn at once.
#[tokio::test(flavor = "current_thread")]
async fn task_that_waits_for_a_large_message_takes_turns_with_the_others() {
    let (_directory, _server, client) = connected().await;
    let polls = Polls::start(&client);
    within(async {
        while !polls.is_over.load(Ordering::Relaxed) {
            polls.since_our_turn.store(0, Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
    })
    .await;
    let most = polls.most.load(Ordering::Relaxed);
    assert!(most <= 4, "{most} turns, one after the other");
}

#[tokio::test(flavor = "current_thread")]
async fn task_that_waits_for_a_large_message_reads_a_batch_in_a_turn_beside_callers() {
    let (_directory, _server, client) = connected().await;
    let polls = Polls::start(&client);
    within(async {
        let mut number = 0;
        while !polls.is_over.load(Ordering::Relaxed) {
            number += 1;
            assert_eq!(client.call(Next(number)).await.unwrap(), number + 1);
        }
    })
    .await;
    let most = polls.most_frames.load(Ordering::Relaxed);
    assert!(most <= BATCH, "{most} frames in one turn");
}

async fn connected() -> (tempfile::TempDir, Server, Client) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("server.sock").display().to_string();
    let poured = Arc::new(tokio::sync::Notify::new());
    let wait = Arc::clone(&poured);
    let server = Server::builder(&path)
        .spin(Spin::Always)
        .on(|_: Context, next: Next| async move { Ok::<_, Status>(next.0 + 1) })
        .on(|_: Context, echo: Echo| async move { Ok::<_, Status>(Raw(echo.0)) })
        .on_stream(move |_: Context, _: Pour, mut out: ItemSender<u32>| {
            let poured = Arc::clone(&poured);
            async move {
                for number in 0..ITEMS {
                    out.feed(number).await?;
                }
                out.flush()?;
                poured.notify_one();
                Ok::<_, Status>(())
            }
        })
        .on(move |_: Context, _: Poured| {
            let wait = Arc::clone(&wait);
            async move {
                wait.notified().await;
                Ok::<_, Status>(())
            }
        })
        .bind()
        .await
        .unwrap();
    let client = Client::builder(&path).spin(Spin::Always).connect().await;
    (directory, server, client.unwrap())
}

/// Starts a task that only tells that it had its turn.
fn other_task() -> Arc<AtomicBool> {
    let turn = Arc::new(AtomicBool::new(false));
    tokio::spawn({
        let turn = Arc::clone(&turn);
        async move { turn.store(true, Ordering::Relaxed) }
    });
    turn
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future)
        .await
        .expect("the server does not answer")
}

/// Well above what tokio lets one task do before others have their turn.
const MOST: u32 = 1000;

/// Thousands of chunks each way.
const LARGE_BYTES: usize = 48 << 20;

/// Frames that are read in one go.
const BATCH: u64 = 64;

/// Well above what we do, and less than a window of credit.
const ITEMS: u32 = 20_000;

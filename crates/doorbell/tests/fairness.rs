//! A task that never has to wait shares its executor with the others all the same.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use doorbell::{Client, Context, ItemSender, Message, MessageType, Server, Spin, Status};
use serde::{Deserialize, Serialize};

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

async fn connected() -> (tempfile::TempDir, Server, Client) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("server.sock").display().to_string();
    let poured = Arc::new(tokio::sync::Notify::new());
    let wait = Arc::clone(&poured);
    let server = Server::builder(&path)
        .spin(Spin::Always)
        .on(|_: Context, next: Next| async move { Ok::<_, Status>(next.0 + 1) })
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

/// Well above what we do, and less than a window of credit.
const ITEMS: u32 = 20_000;

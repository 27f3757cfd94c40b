//! Handlers come, change and go while calls run.

mod support;

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use doorbell::{Client, Code, Context, ItemSender, Outcome, Server, Status, blocking};
use doorbell_testkit::{PATIENCE, Place, eventually};
use support::{in_time, messages::*};
use tokio::sync::watch;

const CALLERS: usize = 4;
const CHANGES: u32 = 300;

async fn serve(place: &Place) -> Server {
    Server::builder(place.name())
        .workers(2)
        .on(|_: Context, add: Add| async move { Ok::<_, Status>(add.0 + add.1) })
        .bind()
        .await
        .unwrap()
}

/// Calls until told to stop; returns how many calls were answered and how many found no handler.
async fn call_until(stop: Arc<AtomicBool>, client: Client, answers: Arc<AtomicU32>) -> (u32, u32) {
    let (mut answered, mut unimplemented) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        match client.call(Add(1, 1)).await {
            Ok(sum) => {
                assert!((2..2 + CHANGES).contains(&sum), "{sum}");
                answered += 1;
            }
            Err(error) => {
                assert_eq!(
                    (error.code(), error.outcome()),
                    (Code::Unimplemented, Outcome::NotExecuted),
                    "{error}"
                );
                unimplemented += 1;
            }
        }
        answers.fetch_add(1, Ordering::Relaxed);
    }
    (answered, unimplemented)
}

/// Waits until more calls have been answered than before.
async fn more_answers(answers: &AtomicU32) {
    let before = answers.load(Ordering::Relaxed);
    while answers.load(Ordering::Relaxed) <= before {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn replacing_a_handler_under_load_fails_no_call() {
    let place = Place::new();
    in_time(async {
        let server = serve(&place).await;
        let stop = Arc::new(AtomicBool::new(false));
        let answers: [_; CALLERS] = std::array::from_fn(|_| Arc::new(AtomicU32::new(0)));
        let mut callers = Vec::new();
        for answers in &answers {
            let client = Client::connect(place.name()).await.unwrap();
            callers.push(tokio::spawn(call_until(
                Arc::clone(&stop),
                client,
                Arc::clone(answers),
            )));
        }
        // So often, and until every caller has been there.
        let count = |answers: &Arc<AtomicU32>| answers.load(Ordering::Relaxed);
        let (mut changes, mut before) = (0, 0);
        while changes < CHANGES || answers.iter().any(|answers| count(answers) == 0) {
            let offset = changes % CHANGES;
            let handler =
                move |_: Context, add: Add| async move { Ok::<_, Status>(add.0 + add.1 + offset) };
            assert!(server.on(handler), "there was one before");
            changes += 1;
            while answers.iter().map(count).sum::<u32>() <= before {
                tokio::task::yield_now().await;
            }
            before = answers.iter().map(count).sum();
        }
        stop.store(true, Ordering::Relaxed);
        for caller in callers {
            let (answered, unimplemented) = caller.await.unwrap();
            assert!(answered > 0);
            assert_eq!(unimplemented, 0, "there was a handler all the time");
        }
        assert!(server.shutdown(PATIENCE).await);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn removing_a_handler_under_load_gives_unimplemented_and_nothing_else() {
    let place = Place::new();
    in_time(async {
        let server = serve(&place).await;
        let (stop, answers) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU32::new(0)),
        );
        let mut callers = Vec::new();
        for _ in 0..CALLERS {
            let client = Client::connect(place.name()).await.unwrap();
            callers.push(tokio::spawn(call_until(
                Arc::clone(&stop),
                client,
                Arc::clone(&answers),
            )));
        }
        for offset in 0..CHANGES {
            assert!(server.remove::<Add>());
            assert!(!server.remove::<Add>(), "it is gone");
            more_answers(&answers).await;
            let handler =
                move |_: Context, add: Add| async move { Ok::<_, Status>(add.0 + add.1 + offset) };
            assert!(!server.on(handler), "there was none");
            more_answers(&answers).await;
        }
        stop.store(true, Ordering::Relaxed);
        let (mut answered, mut unimplemented) = (0, 0);
        for caller in callers {
            let counts = caller.await.unwrap();
            answered += counts.0;
            unimplemented += counts.1;
        }
        assert!(
            answered > 0 && unimplemented > 0,
            "{answered} answered, {unimplemented} without a handler"
        );
        assert!(server.shutdown(PATIENCE).await);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handlers_changed_by_several_tasks_at_once_stay_one_of_theirs() {
    let place = Place::new();
    in_time(async {
        let server = serve(&place).await;
        let client = Client::connect(place.name()).await.unwrap();
        let changing: Vec<_> = (0..4_u32)
            .map(|task| {
                let server = server.clone();
                tokio::spawn(async move {
                    for _ in 0..100 {
                        server.on(move |_: Context, _: Add| async move { Ok::<_, Status>(task) });
                        tokio::task::yield_now().await;
                    }
                })
            })
            .collect();
        for task in changing {
            task.await.unwrap();
            assert!(client.call(Add(0, 0)).await.unwrap() < 4);
        }
        assert!(server.shutdown(PATIENCE).await);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn call_under_way_ends_with_the_handler_that_it_began_with() {
    let place = Place::new();
    in_time(async {
        let server = serve(&place).await;
        let client = Client::connect(place.name()).await.unwrap();
        let (gate, started) = (watch::Sender::new(false), watch::Sender::new(0));
        let (opens, starts) = (gate.clone(), started.clone());
        server.on(move |_: Context, _: Gate| {
            let mut gate = opens.subscribe();
            starts.send_modify(|count| *count += 1);
            async move {
                gate.wait_for(|open| *open)
                    .await
                    .map_err(|error| Status::internal(error.to_string()))?;
                Ok::<_, Status>(1)
            }
        });
        let (opens, starts) = (gate.clone(), started.clone());
        server.on_stream(move |_: Context, _: Count, mut out: ItemSender<u32>| {
            let mut gate = opens.subscribe();
            starts.send_modify(|count| *count += 1);
            async move {
                gate.wait_for(|open| *open)
                    .await
                    .map_err(|error| Status::internal(error.to_string()))?;
                out.send(1).await?;
                Ok::<_, Status>(())
            }
        });
        let unary = client.call(Gate).send().await.unwrap();
        let mut stream = client.stream(Count(9)).await.unwrap();
        started
            .subscribe()
            .wait_for(|count| *count == 2)
            .await
            .unwrap();

        assert!(server.on(|_: Context, _: Gate| async { Ok::<_, Status>(2) }));
        assert!(server.remove::<Count>());
        assert_eq!(
            client.call(Gate).await.unwrap(),
            2,
            "a new call gets the new handler"
        );
        let error = client
            .stream(Count(9))
            .await
            .unwrap()
            .next()
            .await
            .unwrap()
            .unwrap_err();
        assert_eq!(
            (error.code(), error.outcome()),
            (Code::Unimplemented, Outcome::NotExecuted),
            "{error}"
        );

        gate.send_replace(true);
        assert_eq!(unary.await.unwrap(), 1, "an old call keeps the old one");
        assert_eq!(stream.next().await.unwrap().unwrap(), 1);
        assert!(stream.next().await.is_none());
        assert!(server.shutdown(PATIENCE).await);
    })
    .await;
}

#[test]
fn handlers_of_a_server_of_threads_change_under_load() {
    let place = Place::new();
    let server = blocking::Server::builder(place.name())
        .on(|_: Context, add: Add| Ok::<_, Status>(add.0 + add.1))
        .bind()
        .unwrap();
    let stop = AtomicBool::new(false);
    let answers = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..CALLERS {
            let client = blocking::Client::connect(place.name()).unwrap();
            let (stop, answers) = (&stop, &answers);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    if let Err(error) = client.call(Add(1, 1)).wait() {
                        assert_eq!(error.code(), Code::Unimplemented, "{error}");
                        assert_eq!(error.outcome(), Outcome::NotExecuted);
                    }
                    answers.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for offset in 0..CHANGES {
            assert!(server.remove::<Add>());
            let handler = move |_: Context, add: Add| Ok::<_, Status>(add.0 + add.1 + offset);
            assert!(!server.on(handler));
            let before = answers.load(Ordering::Relaxed);
            doorbell_testkit::eventually("calls go on", || {
                answers.load(Ordering::Relaxed) > before
            });
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(server.shutdown(PATIENCE));
}

/// Workers that sleep have it no longer than others.
#[test]
fn handler_that_was_removed_or_replaced_goes_with_what_it_has() {
    let place = Place::new();
    let kept = Arc::new(());
    let handler = || {
        let kept = Arc::clone(&kept);
        move |_: Context, add: Add| {
            let _ = &kept;
            Ok::<_, Status>(add.0 + add.1)
        }
    };
    let server = blocking::Server::builder(place.name())
        .workers(2)
        .on(handler())
        .bind()
        .unwrap();
    let clients = [(); 2].map(|()| blocking::Client::connect(place.name()).unwrap());
    for client in &clients {
        assert_eq!(client.call(Add(1, 2)).wait().unwrap(), 3);
    }
    assert!(server.on(handler()));
    eventually("the first one has gone", || Arc::strong_count(&kept) == 2);
    assert!(server.remove::<Add>());
    eventually("the second one has gone", || Arc::strong_count(&kept) == 1);
}

/// Removes another handler when it goes, and says whether it was there.
struct Meddler(std::sync::Weak<Server>, std::sync::mpsc::Sender<bool>);

impl Drop for Meddler {
    fn drop(&mut self) {
        if let Some(server) = self.0.upgrade() {
            let _ = self.1.send(server.remove::<Look>());
        }
    }
}

#[test]
fn handler_may_change_handlers_when_it_is_dropped() {
    let (done, ended) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        let _done = done; // one that has locked itself up never drops it
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let place = Place::new();
        let server = Arc::new(runtime.block_on(serve(&place)));
        let look = |_: Context, _: Look| async move { Ok::<_, Status>(Seen::default()) };
        assert!(!server.on(look));
        let (tell, told) = std::sync::mpsc::channel();
        let meddler = Meddler(Arc::downgrade(&server), tell);
        server.on(move |_: Context, add: Add| {
            let _ = &meddler;
            async move { Ok::<_, Status>(add.0) }
        });
        assert!(server.on(|_: Context, add: Add| async move { Ok::<_, Status>(add.1) }));
        // A worker may be the last to have it.
        assert_eq!(told.recv_timeout(PATIENCE), Ok(true));
        assert!(!server.remove::<Look>(), "it was removed meanwhile");
    });
    let waited = ended.recv_timeout(PATIENCE);
    let hung_up = Err(std::sync::mpsc::RecvTimeoutError::Disconnected);
    assert_eq!(waited, hung_up, "stuck");
    thread.join().unwrap();
}

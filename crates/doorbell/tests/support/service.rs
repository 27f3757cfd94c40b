//! The test service, for both kinds of server.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use doorbell::{Client, Context, ItemSender, ItemStream, Raw, Server, Status, blocking, server};
use tokio::sync::watch;

use super::{messages::*, tunnel};

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct Shared {
    seen: watch::Sender<Seen>,
    open: watch::Sender<bool>,
    remembered: Arc<Mutex<Vec<u32>>>,
}

/// Counts the end of a handler's future that was not ready.
pub(crate) struct Unfinished(Option<Shared>);

impl Shared {
    pub(crate) fn new() -> Self {
        let (seen, open) = (
            watch::Sender::new(Seen::default()),
            watch::Sender::new(false),
        );
        Self {
            seen,
            open,
            remembered: Arc::default(),
        }
    }

    pub(crate) fn count(&self, change: impl FnOnce(&mut Seen)) {
        self.seen.send_modify(change);
    }

    /// Waits until `Open` has been called.
    pub(crate) async fn opened(&self) {
        let waited = self.open.subscribe().wait_for(|open| *open).await.is_ok();
        assert!(waited, "the sender lives as long as the service");
    }

    pub(crate) fn begin(&self) -> Unfinished {
        self.count(|seen| seen.started += 1);
        Unfinished(Some(self.clone()))
    }

    fn remember(&self, number: u32) {
        self.remembered.lock().unwrap().push(number);
    }

    fn recall(&self) -> Vec<u32> {
        self.remembered.lock().unwrap().clone()
    }
}

impl Unfinished {
    /// The future has come to its end.
    pub(crate) fn finish(mut self) {
        self.0 = None;
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(shared) = &self.0 {
            shared.count(|seen| seen.dropped += 1);
        }
    }
}

fn add(add: &Add) -> Result<u32, Status> {
    add.0
        .checked_add(add.1)
        .ok_or_else(|| Status::out_of_range("the sum is too large"))
}

fn describe(context: &Context) -> Vec<(String, Vec<u8>)> {
    let entries = context
        .metadata()
        .into_iter()
        .flat_map(|metadata| metadata.iter());
    entries
        .map(|(key, value)| (key.to_owned(), value.to_vec()))
        .collect()
}

fn time_left(context: &Context) -> Option<u64> {
    let left = context
        .deadline()?
        .saturating_duration_since(std::time::Instant::now());
    Some(left.as_millis() as u64)
}

/// Everything that both kinds of server have, for tasks.
pub(crate) fn awaiting(name: &str) -> server::Builder {
    let shared = Shared::new();
    let builder = basics(Server::builder(name), &shared);
    let builder = stuck(builder, &shared);
    let builder = tunnel::awaiting(builder, &shared);
    observers(builder, &shared, name)
}

fn basics(builder: server::Builder, shared: &Shared) -> server::Builder {
    let (remembers, recalls) = (shared.clone(), shared.clone());
    builder
        .on(|_: Context, message: Add| async move { add(&message) })
        .on(|_: Context, echo: Echo| async move { Ok::<_, Status>(Raw(echo.0)) })
        .on(|context: Context, _: Describe| async move { Ok::<_, Status>(describe(&context)) })
        .on(|context: Context, _: TimeLeft| async move { Ok::<_, Status>(time_left(&context)) })
        .on(|_: Context, _: Who| async move { Ok::<_, Status>(std::process::id()) })
        .on_stream(|_: Context, count: Count, mut out: ItemSender<u32>| async move {
            for number in 0..count.0 {
                out.send(number).await?;
            }
            Ok::<_, Status>(())
        })
        .on_stream(|_: Context, count: CountFed, mut out: ItemSender<u32>| async move {
            for number in 0..count.0 {
                out.feed(number).await?;
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
            remembers.remember(number.0);
            async {}
        })
        .on(move |_: Context, _: Recall| std::future::ready(Ok::<_, Status>(recalls.recall())))
}

fn stuck(builder: server::Builder, shared: &Shared) -> server::Builder {
    let [unary, stream, upload, busy, watching, gate, opens] =
        std::array::from_fn(|_| shared.clone());
    builder
        .on(move |_: Context, _: Stuck| {
            let unfinished = unary.begin();
            async move {
                let _unfinished = unfinished;
                std::future::pending::<Result<(), Status>>().await
            }
        })
        .on_stream(
            move |_: Context, _: StuckStream, mut out: ItemSender<u32>| {
                let unfinished = stream.begin();
                async move {
                    let _unfinished = unfinished;
                    out.send(1).await?;
                    std::future::pending::<Result<(), Status>>().await
                }
            },
        )
        .on_upload(
            move |_: Context, _: StuckUpload, items: ItemStream<Vec<u8>>| {
                let unfinished = upload.begin();
                async move {
                    let _kept = (unfinished, items);
                    std::future::pending::<Result<u32, Status>>().await
                }
            },
        )
        .on(|context: Context, LookLate(millis): LookLate| async move {
            tokio::time::sleep(Duration::from_millis(millis)).await;
            Ok::<_, Status>(context.is_cancelled())
        })
        .on(move |context: Context, _: Busy| {
            let shared = busy.clone();
            async move {
                let computed = tokio::task::spawn_blocking(move || {
                    shared.count(|seen| seen.busy += 1);
                    while !context.is_cancelled() {
                        std::hint::spin_loop(); // stands for a computation
                    }
                    shared.count(|seen| seen.cancelled_while_busy += 1);
                });
                computed
                    .await
                    .map_err(|error| Status::internal(error.to_string()))
            }
        })
        .on_stream(
            move |context: Context, _: Watching, mut out: ItemSender<u32>| {
                let shared = watching.clone();
                async move {
                    out.send(1).await?;
                    tokio::spawn(async move {
                        context.cancelled().await;
                        shared.count(|seen| seen.told += 1);
                    });
                    std::future::pending::<Result<(), Status>>().await
                }
            },
        )
        .on(move |_: Context, _: Gate| {
            let (unfinished, mut open) = (gate.begin(), gate.open.subscribe());
            async move {
                let _unfinished = unfinished;
                open.wait_for(|open| *open)
                    .await
                    .map_err(|error| Status::internal(error.to_string()))?;
                Ok::<_, Status>(1)
            }
        })
        .on(move |_: Context, _: Open| {
            opens.open.send_replace(true);
            async { Ok::<_, Status>(()) }
        })
        .on(|_: Context, _: Panic| async move {
            panic!("a handler of the tests panics, as it should") as Result<(), Status>
        })
}

fn observers(builder: server::Builder, shared: &Shared, name: &str) -> server::Builder {
    let [pour, waits, looks] = std::array::from_fn(|_| shared.clone());
    let name = name.to_owned();
    builder
        .on_stream(
            move |_: Context, Pour(count, bytes): Pour, mut out: ItemSender<Raw>| {
                let shared = pour.clone();
                async move {
                    for _ in 0..count {
                        out.send(Raw(pattern(bytes as usize))).await?;
                        shared.count(|seen| seen.poured += 1);
                    }
                    Ok::<_, Status>(())
                }
            },
        )
        .on(move |_: Context, WaitFor(least): WaitFor| {
            let mut seen = waits.seen.subscribe();
            async move {
                let waited = seen.wait_for(|seen| seen.covers(&least)).await;
                waited
                    .map(drop)
                    .map_err(|error| Status::internal(error.to_string()))
            }
        })
        .on(move |_: Context, _: Look| {
            let seen = *looks.seen.borrow();
            async move { Ok::<_, Status>(seen) }
        })
        .on(move |context: Context, _: Nested| {
            let name = name.clone();
            async move {
                let client = Client::connect(&name)
                    .await
                    .map_err(|error| Status::unavailable(error.to_string()))?;
                Ok::<_, Status>(client.call(Stuck).inherit(&context).await?)
            }
        })
}

/// What a server of threads has.
pub(crate) fn of_threads(name: &str) -> blocking::ServerBuilder {
    of_threads_that(name, || ())
}

/// The same, whose handlers with a thread of their own begin with something.
pub(crate) fn of_threads_that(name: &str, begin: fn()) -> blocking::ServerBuilder {
    let shared = Shared::new();
    let (recalls, looks) = (shared.clone(), shared.clone());
    tunnel::of_threads(blocking::Server::builder(name), &shared)
        .on(|_: Context, message: Add| add(&message))
        .on(|_: Context, echo: Echo| Ok::<_, Status>(Raw(echo.0)))
        .on(|context: Context, _: Describe| Ok::<_, Status>(describe(&context)))
        .on(|context: Context, _: TimeLeft| Ok::<_, Status>(time_left(&context)))
        .on(|_: Context, _: Who| Ok::<_, Status>(std::process::id()))
        .on_stream(
            move |_: Context, count: Count, mut out: blocking::ItemSender<u32>| {
                begin();
                for number in 0..count.0 {
                    out.send(number)?;
                }
                Ok::<_, Status>(())
            },
        )
        .on_stream(
            move |_: Context, count: CountFed, mut out: blocking::ItemSender<u32>| {
                begin();
                for number in 0..count.0 {
                    out.feed(number)?;
                }
                Ok::<_, Status>(())
            },
        )
        .on_upload(
            move |_: Context, _: Sum, items: blocking::ItemStream<u32>| {
                begin();
                let mut sum = 0;
                for item in items {
                    sum += u64::from(item?);
                }
                Ok::<_, Status>(sum)
            },
        )
        .on_bidi(
            move |_: Context,
                  _: Double,
                  items: blocking::ItemStream<u32>,
                  mut out: blocking::ItemSender<u32>| {
                begin();
                for item in items {
                    out.send(item? * 2)?;
                }
                Ok::<_, Status>(())
            },
        )
        .on_notify(move |_: Context, number: Remember| shared.remember(number.0))
        .on(move |_: Context, _: Recall| Ok::<_, Status>(recalls.recall()))
        .on(move |_: Context, _: Look| Ok::<_, Status>(*looks.seen.borrow()))
}

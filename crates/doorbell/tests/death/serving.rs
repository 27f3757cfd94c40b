//! The server, for tasks and for threads, and what it writes down.

use std::{
    collections::HashMap,
    fs::File,
    io::Write,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use doorbell::{BindError, Context, ItemSender, ItemStream, Server, Status, blocking};

use super::messages::{Borrow, Collect, Echo, ITEMS, Later, Mirror, Repeat, Sealed, Tell};

/// Every request that a handler has seen, written down before it is answered.
#[derive(Default)]
pub(crate) struct Log {
    /// A file outlives its writer: what was written before a kill is there after it.
    file: Option<File>,
    seen: Mutex<HashMap<u64, u32>>,
    count: AtomicU64,
}

/// Marks a number in a file as that of a message whose seal was broken.
pub(crate) const TORN: u64 = 1 << 63;

/// Marks the number of a call whose caller was told that it was not executed.
pub(crate) const DENIED: u64 = 1 << 62;

/// Marks the number of a call whose caller was told that nobody knows.
pub(crate) const CUT_OFF: u64 = 1 << 61;

/// The caller that nobody kills, and that looks after its calls by itself.
pub(crate) const WITNESS: u64 = 0xff;

fn is_of(entry: u64, caller: u64) -> bool {
    entry >> 24 & 0xff == caller
}

impl Log {
    pub(crate) fn in_memory() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn in_file(file: File) -> Arc<Self> {
        Arc::new(Self {
            file: Some(file),
            ..Self::default()
        })
    }

    fn executed(&self, message: &Sealed) {
        self.write(if message.is_whole() {
            message.id
        } else {
            message.id | TORN
        });
    }

    fn item(&self, item: &Sealed) {
        if !item.is_whole() {
            self.write(item.id | TORN);
        }
    }

    /// Forgets what it has of one call, and returns how often it was executed.
    pub(crate) fn take_one(&self, id: u64) -> Option<u32> {
        self.seen.lock().unwrap().remove(&id)
    }

    fn write(&self, entry: u64) {
        match &self.file {
            Some(file) => (&*file)
                .write_all(&entry.to_le_bytes())
                .expect("the log can be written"),
            None => *self.seen.lock().unwrap().entry(entry).or_default() += 1,
        }
        let is_other = !is_of(entry, WITNESS);
        self.count.fetch_add(u64::from(is_other), Ordering::Release);
    }

    /// Requests seen so far, of all callers but the witness.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// Returns what was executed since the last time, of all callers but the witness.
    pub(crate) fn take(&self) -> HashMap<u64, u32> {
        let mut seen = self.seen.lock().unwrap();
        seen.extract_if(|&entry, _| !is_of(entry, WITNESS))
            .collect()
    }
}

/// Reads what a process has written down before it was killed.
pub(crate) fn read(path: &std::path::Path) -> HashMap<u64, u32> {
    let mut entries = HashMap::new();
    let bytes = std::fs::read(path).unwrap_or_default(); // killed before it could make the file
    for entry in bytes.chunks_exact(8) {
        *entries
            .entry(u64::from_le_bytes(entry.try_into().unwrap()))
            .or_default() += 1;
    }
    entries
}

pub(crate) async fn bind(path: &str, log: &Arc<Log>) -> Result<Server, BindError> {
    let [echo, later, repeat, collect, mirror, tell, borrow] =
        std::array::from_fn(|_| Arc::clone(log));
    Server::builder(path)
        .on(move |_: Context, Echo(message)| {
            echo.executed(&message);
            async move { Ok::<_, Status>(message) }
        })
        .on(move |_: Context, Later(message)| {
            later.executed(&message);
            async move {
                tokio::task::yield_now().await;
                Ok::<_, Status>(message)
            }
        })
        .on_stream(
            move |_: Context, Repeat(message), mut out: ItemSender<Sealed>| {
                repeat.executed(&message);
                async move {
                    for _ in 0..ITEMS {
                        out.send(message.clone()).await?;
                    }
                    Ok::<_, Status>(())
                }
            },
        )
        .on_upload(
            move |_: Context, Collect(message), mut items: ItemStream<Sealed>| {
                let log = Arc::clone(&collect);
                log.executed(&message);
                async move {
                    let mut bytes = 0;
                    while let Some(item) = items.next().await {
                        let item = item?;
                        log.item(&item);
                        bytes += item.len() as u64;
                    }
                    Ok::<_, Status>(bytes)
                }
            },
        )
        .on_bidi(
            move |_: Context,
                  Mirror(message),
                  mut items: ItemStream<Sealed>,
                  mut out: ItemSender<Sealed>| {
                let log = Arc::clone(&mirror);
                log.executed(&message);
                async move {
                    while let Some(item) = items.next().await {
                        let item = item?;
                        log.item(&item);
                        out.send(item).await?;
                    }
                    Ok::<_, Status>(())
                }
            },
        )
        .on_notify(move |_: Context, Tell(message)| {
            tell.executed(&message);
            async {}
        })
        .on(move |context: Context, Borrow(loan)| {
            let message = Sealed::of_bytes(&loan.to_bytes());
            borrow.executed(&message);
            async move {
                let bytes = message.to_bytes();
                let mut reply = context.loan(bytes.len()).await?;
                reply.copy_from_slice(&bytes);
                Ok::<_, Status>(reply.into())
            }
        })
        .bind()
        .await
}

pub(crate) fn bind_blocking(path: &str, log: &Arc<Log>) -> Result<blocking::Server, BindError> {
    let [echo, later, repeat, collect, mirror, tell, borrow] =
        std::array::from_fn(|_| Arc::clone(log));
    blocking::Server::builder(path)
        .on(move |_: Context, Echo(message)| {
            echo.executed(&message);
            Ok::<_, Status>(message)
        })
        .on(move |_: Context, Later(message)| {
            later.executed(&message);
            Ok::<_, Status>(message)
        })
        .on_stream(
            move |_: Context, Repeat(message), mut out: blocking::ItemSender<Sealed>| {
                repeat.executed(&message);
                for _ in 0..ITEMS {
                    out.send(message.clone())?;
                }
                Ok::<_, Status>(())
            },
        )
        .on_upload(
            move |_: Context, Collect(message), items: blocking::ItemStream<Sealed>| {
                collect.executed(&message);
                let mut bytes = 0;
                for item in items {
                    let item = item?;
                    collect.item(&item);
                    bytes += item.len() as u64;
                }
                Ok::<_, Status>(bytes)
            },
        )
        .on_bidi(
            move |_: Context,
                  Mirror(message),
                  items: blocking::ItemStream<Sealed>,
                  mut out: blocking::ItemSender<Sealed>| {
                mirror.executed(&message);
                for item in items {
                    let item = item?;
                    mirror.item(&item);
                    out.send(item)?;
                }
                Ok::<_, Status>(())
            },
        )
        .on_notify(move |_: Context, Tell(message)| tell.executed(&message))
        .on(move |context: Context, Borrow(loan)| {
            let message = Sealed::of_bytes(&loan.to_bytes());
            borrow.executed(&message);
            let bytes = message.to_bytes();
            let mut reply = context.try_loan(bytes.len())?;
            reply.copy_from_slice(&bytes);
            Ok::<_, Status>(reply.into())
        })
        .bind()
}

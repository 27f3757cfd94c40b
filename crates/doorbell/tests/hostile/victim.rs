//! The server that is attacked, in a process of its own.

use std::{
    fs::File,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use doorbell::{Context, Message, MessageType, Raw, Status, blocking, server};
use doorbell_testkit::{
    Child, PATIENCE, Place, descriptors, handler_threads, limit_descriptors, mappings,
    memory_bytes, say, setting, threads, wait_for_parent,
};

use serde::{Deserialize, Serialize};

use super::calm;
use crate::support::{
    messages::{Panic, Pour, pattern},
    service,
};

/// What a process holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) descriptors: usize,
    pub(crate) mappings: usize,
    pub(crate) threads: usize,
    pub(crate) tasks: usize,
    pub(crate) connections: usize,
}

/// The server's process, seen from outside.
pub(crate) struct Victim {
    pub(crate) child: Child,
}

impl Victim {
    pub(crate) fn start(place: &Place, settings: &[(&str, &str)]) -> Self {
        let name = place.name();
        let settings = [&[("path", name.as_str())], settings].concat();
        let is_of_threads = settings.contains(&("server", "of threads"));
        let role = if is_of_threads {
            "victim of threads"
        } else {
            "victim"
        };
        let child = Child::start("child_process", role, &settings);
        child.hear("READY");
        calm::prefer_server(child.id());
        Self { child }
    }

    /// What it holds at this moment. It must not have panicked.
    pub(crate) fn held(&mut self) -> Held {
        self.child.tell("held?");
        let counts = self.child.hear("HELD");
        let counts: Vec<usize> = counts
            .split(' ')
            .map(|count| count.parse().expect("a number"))
            .collect();
        let [connections, tasks, panics] = counts[..] else {
            panic!("three numbers, not {counts:?}")
        };
        assert_eq!(panics, 0, "the server panicked");
        let id = self.child.id();
        Held {
            descriptors: descriptors(id),
            mappings: mappings(id),
            threads: threads(id),
            tasks,
            connections,
        }
    }

    /// What it holds once that has stopped changing and only the witness is connected.
    pub(crate) fn settle(&mut self) -> Held {
        let give_up = Instant::now() + PATIENCE;
        let (mut last, mut same) = (self.held(), 0);
        let of_handlers = |victim: &Self| handler_threads(victim.child.id());
        while same < 20 || last.connections != 1 || of_handlers(self) > 0 {
            assert!(Instant::now() < give_up, "it does not settle: {last:?}");
            let now = self.held();
            same = if now == last { same + 1 } else { 0 };
            last = now;
        }
        last
    }

    /// It holds what it held before, at the latest when it has cleaned up.
    pub(crate) fn gives_back(&mut self, before: Held, what: &str) {
        let give_up = Instant::now() + PATIENCE;
        let mut now = self.held();
        while now != before && Instant::now() < give_up {
            now = self.held();
        }
        assert_eq!(now, before, "{what}: it holds something else than before");
    }

    /// What it has in memory, in words.
    pub(crate) fn memory(&self) -> String {
        let mebibytes = memory_bytes(self.child.id()) >> 20;
        format!("the server has {mebibytes} MiB in memory at the end")
    }
}

/// In the child: serves until the parent has no more to say.
pub(crate) fn serve(more: fn(server::Builder) -> server::Builder) {
    count_panics();
    if let Some(count) = optional("descriptors") {
        limit_descriptors(count);
    }
    // No thread comes or goes by itself.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(1)
        .thread_keep_alive(Duration::from_secs(3600))
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(runtime.spawn_blocking(|| ())).unwrap(); // the one thread for that is there from now on
    let mut builder = service::awaiting(&setting("path")).pin_workers(calm::cpus_of_workers());
    if let Some(milliseconds) = optional("handshake_timeout") {
        builder = builder.handshake_timeout(Duration::from_millis(milliseconds));
    }
    if let Some(count) = optional("workers") {
        builder = builder.workers(count as usize);
    }
    let builder = more(builder.on(fill).on(block).on(count));
    let server = runtime.block_on(builder.bind()).unwrap();
    let tasks = || runtime.metrics().num_alive_tasks();
    obey(
        || (server.stats().connections, tasks()),
        || {
            runtime.block_on(server.shutdown(PATIENCE / 10));
        },
    );
}

/// In the child: the same by a server that needs no runtime, and has a thread for each stream.
pub(crate) fn serve_of_threads() {
    count_panics();
    let server = service::of_threads_that(&setting("path"), calm::stay_away)
        .pin_workers(calm::cpus_of_workers())
        .on(|_: Context, tree: Tree| Ok::<_, Status>(tree.0.len() as u32))
        .on(|_: Context, _: Panic| -> Result<(), Status> {
            panic!("a handler of the tests panics, as it should")
        })
        .on_stream(
            |_: Context, Pour(count, bytes): Pour, mut out: blocking::ItemSender<Raw>| {
                calm::stay_away();
                for _ in 0..count {
                    out.send(Raw(pattern(bytes as usize)))?;
                }
                Ok::<_, Status>(())
            },
        )
        .bind()
        .unwrap();
    obey(
        || (server.stats().connections, 0),
        || {
            server.shutdown(PATIENCE / 10);
        },
    );
}

/// Does what the parent says: tells what is held, or ends.
fn obey(held: impl Fn() -> (usize, usize), end: impl Fn()) {
    say("READY");
    while let Some(order) = wait_for_parent() {
        if order == "end" {
            end();
            say("ENDED");
            continue;
        }
        let (connections, tasks) = held();
        let panics = PANICS.load(Ordering::Relaxed);
        say(&format!("HELD {connections} {tasks} {panics}"));
    }
}

/// A handler of an application that takes every descriptor there is, until its caller has gone. Not at the expense of the worker.
async fn fill(_: Context, _: Fill) -> Result<(), Status> {
    tokio::task::yield_now().await;
    let mut taken = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        taken.push(file);
    }
    std::future::pending::<()>().await;
    drop(taken);
    Ok(())
}

/// A handler that does what none should: it keeps the thread that polls it.
async fn block(_: Context, block: Block) -> Result<(), Status> {
    std::thread::sleep(Duration::from_millis(block.0)); // stands for anything that blocks
    Ok(())
}

/// Keeps a worker for so many milliseconds.
#[derive(Serialize, Deserialize)]
pub(crate) struct Block(pub(crate) u64);

impl Message for Block {
    const TYPE: MessageType = MessageType::new(201);
    type Reply = ();
}

async fn count(_: Context, tree: Tree) -> Result<u32, Status> {
    Ok(tree.0.len() as u32)
}

/// A value with values of its own type in it. Answered with how many.
#[derive(Serialize, Deserialize)]
pub(crate) struct Tree(Vec<Tree>);

impl Message for Tree {
    const TYPE: MessageType = MessageType::new(202);
    type Reply = u32;
}

/// Never answered, and leaves the server no descriptor meanwhile.
#[derive(Serialize, Deserialize)]
pub(crate) struct Fill;

impl Message for Fill {
    const TYPE: MessageType = MessageType::new(200);
    type Reply = ();
}

fn optional(name: &str) -> Option<u64> {
    let value = std::env::var(format!("DOORBELL_TEST_{}", name.to_uppercase()));
    value.ok().map(|value| value.parse().expect("a number"))
}

/// Counts the panics of all threads, those that somebody catches included, but those of handlers that are meant to.
fn count_panics() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let meant = panic
            .payload()
            .downcast_ref::<&str>()
            .is_some_and(|text| text.contains("as it should"));
        if !meant {
            PANICS.fetch_add(1, Ordering::Relaxed);
            tell(panic);
        }
    }));
}

static PANICS: AtomicUsize = AtomicUsize::new(0);

//! The process that is killed: this program again, told by its environment what to be.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use doorbell::{Client, Outcome, blocking};

use doorbell_testkit::PATIENCE;

use super::{
    Random, asking,
    blocking::ask,
    messages::{Answer, Sealed, Shape},
    serving::{self, CUT_OFF, DENIED, Log, TORN},
};

/// A process that is killed at the latest when this is dropped.
pub(crate) struct Victim(Child);

/// What the process is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part {
    Server,
    BlockingServer,
    Client,
    BlockingClient,
    /// One server of each kind.
    #[cfg(doorbell_failpoints)]
    Servers,
    /// Clients of each kind.
    #[cfg(doorbell_failpoints)]
    Clients,
}

impl Victim {
    /// Starts it. It writes what it has executed, or what was answered to it, into `log`.
    pub(crate) fn start(part: Part, socket: &str, log: &Path, seed: u64) -> Self {
        Self::spawn(part, socket, log, seed, &mut no_more)
    }

    /// As [`start`](Self::start), for a process that ends itself at that visit to that place.
    #[cfg(doorbell_failpoints)]
    pub(crate) fn start_doomed(
        part: Part,
        socket: &str,
        log: &Path,
        seed: u64,
        (place, visit): (&str, u64),
    ) -> Self {
        Self::spawn(part, socket, log, seed, &mut |command| {
            command.env("DOORBELL_FAILPOINT", format!("{place}:{visit}"));
        })
    }

    fn spawn(
        part: Part,
        socket: &str,
        log: &Path,
        seed: u64,
        prepare: &mut dyn FnMut(&mut Command),
    ) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "victim", "--nocapture", "--test-threads=1"])
            .env("DOORBELL_DEATH_PART", format!("{part:?}"))
            .env("DOORBELL_DEATH_SOCKET", socket)
            .env("DOORBELL_DEATH_LOG", log)
            .env("DOORBELL_DEATH_SEED", seed.to_string())
            .stdin(Stdio::piped()) // its end tells the child that the parent is gone
            .stdout(Stdio::null());
        prepare(&mut command);
        Self(command.spawn().unwrap())
    }

    /// SIGKILL, without waiting for the end.
    pub(crate) fn send_kill(&mut self) {
        self.0.kill().unwrap();
    }

    /// SIGKILL, and waits until the process is gone.
    ///
    /// # Panics
    ///
    /// If it has ended by itself.
    pub(crate) fn kill(&mut self) {
        self.0.kill().unwrap();
        let status = self.0.wait().unwrap();
        assert_eq!(status.signal(), Some(9), "a process ended by itself");
    }

    /// Waits until it has ended by itself. Returns `true` if that was by SIGKILL.
    #[cfg(doorbell_failpoints)]
    pub(crate) fn has_killed_itself(&mut self, why: &str) -> bool {
        doorbell_testkit::eventually(why, || self.has_ended());
        self.0.wait().unwrap().signal() == Some(9)
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Is what the environment says, until killed. Returns at once in the process that runs the tests.
pub(crate) fn be_the_victim() {
    let Ok(part) = std::env::var("DOORBELL_DEATH_PART") else {
        return;
    };
    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    let variable = |name: &str| std::env::var(name).unwrap();
    let socket = variable("DOORBELL_DEATH_SOCKET");
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(variable("DOORBELL_DEATH_LOG"))
        .unwrap();
    let seed = variable("DOORBELL_DEATH_SEED").parse().unwrap();
    match part.as_str() {
        "Server" => runtime().block_on(serve(&socket, log)),
        "BlockingServer" => {
            let _server = serving::bind_blocking(&socket, &Log::in_file(log)).unwrap();
            forever();
        }
        "Client" => runtime().block_on(call_forever(&socket, log, seed)),
        "BlockingClient" => call_forever_from_threads(&socket, &log, seed),
        #[cfg(doorbell_failpoints)]
        "Servers" => super::walk::serve_both(&socket, log),
        #[cfg(doorbell_failpoints)]
        "Clients" => super::walk::call_both(&socket, log, seed),
        other => panic!("no part {other}"),
    }
}

/// A runtime whose number of threads stays the same once it has connected.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(1)
        .thread_keep_alive(Duration::from_secs(3600))
        .enable_all()
        .build()
        .unwrap()
}

pub(super) fn forever() -> ! {
    loop {
        std::thread::park();
    }
}

async fn serve(socket: &str, log: File) {
    let _server = serving::bind(socket, &Log::in_file(log)).await.unwrap();
    std::future::pending::<()>().await;
}

fn no_more(_: &mut Command) {}

/// Threads or tasks that call at once.
const CALLERS: u64 = 3;

async fn call_forever(socket: &str, log: File, seed: u64) {
    let client = loop {
        // Its server may die before it has one.
        let builder = Client::builder(socket).wait_for_server(PATIENCE);
        if let Ok(client) = builder.connect().await {
            break client;
        }
    };
    let log = Arc::new(log);
    let callers = (0..CALLERS).map(|caller| {
        let (client, log) = (client.clone(), Arc::clone(&log));
        tokio::spawn(async move {
            for (id, mut random) in calls(seed, caller) {
                let shape = Shape::pick(&mut random);
                let message = Sealed::new(id, shape.length(&mut random));
                write_down(&log, id, &asking::ask(&client, shape, message).await);
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
}

fn call_forever_from_threads(socket: &str, log: &File, seed: u64) {
    let client = loop {
        let builder = blocking::Client::builder(socket).wait_for_server(PATIENCE);
        if let Ok(client) = builder.connect() {
            break client;
        }
    };
    std::thread::scope(|scope| {
        for caller in 0..CALLERS {
            let client = &client;
            scope.spawn(move || {
                for (id, mut random) in calls(seed, caller) {
                    let shape = Shape::pick(&mut random);
                    let message = Sealed::new(id, shape.length(&mut random));
                    write_down(log, id, &ask(client, shape, message));
                }
            });
        }
    });
}

/// Numbers of calls, each used once, and each the seed of its call.
fn calls(seed: u64, caller: u64) -> impl Iterator<Item = (u64, Random)> {
    (0..).map(move |call| {
        let id = number(seed, caller, call);
        (id, Random(id))
    })
}

/// The number of a call, unlike that of any other in any process.
pub(crate) fn number(seed: u64, caller: u64, call: u64) -> u64 {
    (seed << 32 | caller << 24 | call) & !TORN
}

fn write_down(mut log: &File, id: u64, answer: &Answer) {
    let entry = match answer {
        Answer::Whole => id,
        Answer::Torn => id | TORN,
        Answer::Failed(error) if error.outcome() == Outcome::NotExecuted => id | DENIED,
        Answer::Failed(_) => id | CUT_OFF,
        Answer::GivenUp => return,
    };
    log.write_all(&entry.to_le_bytes()).unwrap();
}

/// Spins for that long: far shorter than what a sleeping thread could do.
pub(crate) fn spin(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        std::hint::spin_loop();
    }
}

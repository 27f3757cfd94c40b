//! Death at every step: each place of `doorbell_shm::failpoint` in turn, in a process with servers and in one with clients.

use std::{
    fs::File,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};

use doorbell::{Client, Server, blocking};
use doorbell_shm::failpoint::{PLACES, Side};
use doorbell_testkit::eventually;

use super::{
    Random, asking,
    blocking::ask,
    messages::{Answer, Sealed, Shape},
    process::{Part, Victim, forever, number},
    resources::Resources,
    serving::{self, Log},
    told::{Faults, Judged, Told},
};

/// Dies at every place of one side.
pub(crate) struct Walk<'a> {
    pub(crate) runtime: &'a tokio::runtime::Runtime,
    pub(crate) directory: &'a Path,
    pub(crate) seed: u64,
    /// Visits to each place: the first, and others at random.
    pub(crate) visits: u64,
    pub(crate) judged: Judged,
    pub(crate) deaths: u64,
}

impl Walk<'_> {
    /// Kills clients, while the servers live on here.
    pub(crate) fn clients(&mut self) {
        let log = Log::in_memory();
        let servers = Servers::bind(self.runtime, self.directory, &log);
        self.meet(); // what starts with the first use
        eventually("no client is left", || servers.connections() == 0);
        let start = Resources::settle_at_rest(self.directory);
        log.take();
        for (place, visit) in self.deaths_of(Side::Client) {
            self.deaths += 1;
            let told = tempfile::NamedTempFile::new().unwrap();
            let mut victim = self.start(Part::Clients, told.path(), (place, visit));
            let why = format!("a client comes to {place} for the {visit}. time");
            assert!(victim.has_killed_itself(&why), "{why}: it ended otherwise");
            eventually("its death is seen", || servers.connections() == 0);
            self.compare(&log.take(), told.path(), place);
            self.meet();
            eventually("the next client has left", || servers.connections() == 0);
            log.take();
            drop(told);
            self.check_rest(start, place);
        }
    }

    /// Kills servers, while the clients live on here.
    pub(crate) fn servers(&mut self) {
        let log = Log::in_memory();
        drop(Servers::bind(self.runtime, self.directory, &log));
        let start = Resources::settle_at_rest(self.directory);
        for (place, visit) in self.deaths_of(Side::Server) {
            self.deaths += 1;
            let executed = tempfile::NamedTempFile::new().unwrap();
            let told = tempfile::NamedTempFile::new().unwrap();
            let mut victim = self.start(Part::Servers, executed.path(), (place, visit));
            let file = told.reopen().unwrap();
            let callers = Callers::start(
                self.runtime,
                self.directory,
                Told::in_file(file),
                self.deaths,
            );
            let why = format!("a server comes to {place} for the {visit}. time");
            assert!(victim.has_killed_itself(&why), "{why}: it ended otherwise");
            let clients = callers.stop(place);
            self.compare(&serving::read(executed.path()), told.path(), place);
            let servers = Servers::bind(self.runtime, self.directory, &log);
            for client in &clients {
                client.must_answer(
                    self.runtime.handle(),
                    &format!("a new server after {place}"),
                );
            }
            drop((clients, servers, executed, told));
            log.take();
            self.check_rest(start, place);
        }
    }

    /// Returns every place of one side with the visits to die at.
    fn deaths_of(&self, side: Side) -> Vec<(&'static str, u64)> {
        let mut random = Random(self.seed);
        let mut deaths = Vec::new();
        for &(place, of) in PLACES {
            if of != side && of != Side::Both {
                continue;
            }
            // A process takes two names, and has done so then.
            let is_rare = ["bind.", "drain.", "segment."]
                .iter()
                .any(|rare| place.starts_with(rare));
            let most = if is_rare { 2 } else { 12 };
            deaths.push((place, 1));
            deaths.extend((1..self.visits).map(|_| (place, 1 + random.below(most))));
        }
        deaths
    }

    fn start(&self, part: Part, log: &Path, death: (&str, u64)) -> Victim {
        let directory = self.directory.to_str().unwrap();
        Victim::start_doomed(part, directory, log, self.deaths, death)
    }

    /// A client of each kind makes a call of each server.
    fn meet(&self) {
        for caller in 0..CALLERS {
            client(self.directory, caller).must_answer(self.runtime.handle(), "a new client");
        }
    }

    fn compare(
        &mut self,
        executed: &std::collections::HashMap<u64, u32>,
        told: &Path,
        place: &str,
    ) {
        self.judged.add(executed, told);
        assert_eq!(self.judged.faults, Faults::default(), "death at {place}");
    }

    fn check_rest(&self, start: Resources, place: &str) {
        let held = Resources::settle(self.directory, start);
        assert_eq!(held, start, "left over by a death at {place}");
    }
}

/// A server of each kind.
struct Servers(Server, blocking::Server);

impl Servers {
    fn bind(runtime: &tokio::runtime::Runtime, directory: &Path, log: &Arc<Log>) -> Self {
        let tasks = runtime.block_on(serving::bind(&socket(directory, "tasks"), log));
        let threads = serving::bind_blocking(&socket(directory, "threads"), log);
        Self(tasks.unwrap(), threads.unwrap())
    }

    fn connections(&self) -> usize {
        self.0.stats().connections + self.1.stats().connections
    }
}

/// A client of one kind of one server.
enum Caller {
    Task(Client),
    Thread(blocking::Client),
}

impl Caller {
    /// Makes calls of each shape, until it is to stop, and writes down what came of them.
    fn go_round(&self, calling: &Calling, ids: &mut Ids) {
        for shape in Shape::ALL {
            let in_a_row = if matches!(shape, Shape::Tell) {
                TOLD_IN_A_ROW
            } else {
                1
            };
            for _ in 0..in_a_row {
                if calling.stop.load(Ordering::Acquire) {
                    return;
                }
                let id = ids.next();
                let message = Sealed::new(id, shape.length(&mut Random(id)));
                calling
                    .told
                    .write_down(id, &self.ask(&calling.runtime, shape, message));
            }
        }
    }

    fn ask(&self, runtime: &tokio::runtime::Handle, shape: Shape, message: Sealed) -> Answer {
        match self {
            Self::Task(client) => runtime.block_on(asking::ask(client, shape, message)),
            Self::Thread(client) => ask(client, shape, message),
        }
    }

    /// Makes a call of a server that has just started, and may need more than the time that these clients have.
    fn must_answer(&self, runtime: &tokio::runtime::Handle, when: &str) {
        eventually(when, || {
            match self.ask(runtime, Shape::Small, Sealed::new(0, 100)) {
                Answer::Whole => true,
                Answer::Failed(error) if error.is_retryable() => false,
                Answer::Failed(error) => panic!("{when}: {error}"),
                Answer::Torn | Answer::GivenUp => panic!("{when}: a wrong answer"),
            }
        });
    }
}

/// Returns one of the four: a task's or a thread's client, of a server of tasks or of threads. Their rings are so small that messages
/// have to wait for room, and the threads' never spin, so that they sleep.
fn client(directory: &Path, caller: u64) -> Caller {
    let patience = Duration::from_millis(20);
    let path = socket(directory, if caller < 2 { "tasks" } else { "threads" });
    if caller.is_multiple_of(2) {
        let builder = Client::builder(path)
            .ring_capacity_bytes(SMALL_RING_BYTES)
            .reconnect_timeout(patience);
        Caller::Task(builder.lazy().unwrap())
    } else {
        let builder = blocking::Client::builder(path)
            .ring_capacity_bytes(SMALL_RING_BYTES)
            .reconnect_timeout(patience)
            .spin(doorbell::Spin::Never);
        Caller::Thread(builder.lazy().unwrap())
    }
}

/// Threads that call again and again, with new clients each time.
struct Callers {
    calling: Arc<Calling>,
    ended: mpsc::Receiver<Caller>,
    threads: Vec<JoinHandle<()>>,
}

/// What they share.
struct Calling {
    stop: AtomicBool,
    told: Told,
    runtime: tokio::runtime::Handle,
}

impl Callers {
    fn start(runtime: &tokio::runtime::Runtime, directory: &Path, told: Told, seed: u64) -> Self {
        let calling = Arc::new(Calling {
            stop: AtomicBool::new(false),
            told,
            runtime: runtime.handle().clone(),
        });
        let (sender, ended) = mpsc::channel();
        let call = |caller| {
            let (calling, sender) = (Arc::clone(&calling), sender.clone());
            let directory = directory.to_owned();
            move || {
                let mut ids = Ids {
                    seed,
                    caller,
                    call: 0,
                };
                loop {
                    let client = client(&directory, caller);
                    client.go_round(&calling, &mut ids);
                    if calling.stop.load(Ordering::Acquire) {
                        let _ = sender.send(client);
                        return;
                    }
                }
            }
        };
        let threads = (0..CALLERS)
            .map(|caller| std::thread::spawn(call(caller)))
            .collect();
        Self {
            calling,
            ended,
            threads,
        }
    }

    /// Waits until every call has come to an end. Returns the clients that have just lost their server.
    fn stop(self, place: &str) -> Vec<Caller> {
        self.calling.stop.store(true, Ordering::Release);
        let clients = self
            .threads
            .iter()
            .map(|_| {
                self.ended
                    .recv_timeout(doorbell_testkit::PATIENCE)
                    .unwrap_or_else(|error| panic!("death at {place}: a call hangs: {error}"))
            })
            .collect();
        for thread in self.threads {
            thread.join().unwrap();
        }
        clients
    }
}

/// Numbers of calls, each used once.
struct Ids {
    seed: u64,
    caller: u64,
    call: u64,
}

impl Ids {
    fn next(&mut self) -> u64 {
        self.call += 1;
        number(self.seed, self.caller, self.call)
    }
}

fn socket(directory: &Path, server: &str) -> String {
    directory
        .join(server)
        .with_extension("sock")
        .display()
        .to_string()
}

/// In the process that dies: serves.
pub(crate) fn serve_both(directory: &str, log: File) {
    let runtime = super::process::runtime();
    let (directory, log) = (Path::new(directory), Log::in_file(log));
    let place = std::env::var("DOORBELL_FAILPOINT").expect("it is to die");
    while place.starts_with("drain.") {
        let servers = Servers::bind(&runtime, directory, &log);
        let enough = log.count() + CALLS_BEFORE_A_DRAIN;
        eventually("clients call", || log.count() >= enough);
        runtime.block_on(servers.0.shutdown(DRAIN_LIMIT));
        servers.1.shutdown(DRAIN_LIMIT);
    }
    let _servers = Servers::bind(&runtime, directory, &log);
    forever();
}

/// In the process that dies: calls.
pub(crate) fn call_both(directory: &str, told: File, seed: u64) {
    let runtime = super::process::runtime();
    let _callers = Callers::start(&runtime, Path::new(directory), Told::in_file(told), seed);
    forever();
}

/// Calls that a server has answered when it begins to drain.
const CALLS_BEFORE_A_DRAIN: u64 = 20;

/// Calls under way have so much time then.
const DRAIN_LIMIT: Duration = Duration::from_millis(200);

/// One of each kind for each server.
const CALLERS: u64 = 4;

/// Notifications that are sent one after the other: more than a small ring takes at once.
const TOLD_IN_A_ROW: u64 = 40;

const SMALL_RING_BYTES: u32 = 16 << 10;

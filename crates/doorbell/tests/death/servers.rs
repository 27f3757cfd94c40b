//! Servers that are killed one after the other on the same path, under clients that call all the time.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use doorbell::{CallError, Client, Outcome, blocking};

use super::{
    Random, asking,
    blocking::ask,
    counts::Counts,
    messages::{Answer, Sealed, Shape},
    process::{Part, Victim, number, spin},
    serving::{self, CUT_OFF, DENIED, TORN},
};

/// The clients, which outlive all servers, and what became of their calls.
pub(crate) struct Servers<'a> {
    runtime: &'a tokio::runtime::Runtime,
    socket: &'a str,
    clients: (Client, blocking::Client),
    pub(crate) counts: Counts,
}

/// What the callers of one life of the server share.
struct Calling {
    cycle: u64,
    killed: AtomicBool,
    begun: AtomicU64,
    /// Calls that did not fail, of tasks and of threads.
    done: [AtomicU64; 2],
}

impl<'a> Servers<'a> {
    pub(crate) fn new(runtime: &'a tokio::runtime::Runtime, socket: &'a str) -> Self {
        Self {
            runtime,
            socket,
            clients: connect_later(socket),
            counts: Counts::default(),
        }
    }

    /// Starts a server, lets it answer some calls of each kind, and kills it. Afterwards either client holds what one holds that has lost
    /// its server.
    pub(crate) fn run_once(&mut self, random: &mut Random, cycle: u64) {
        let clients = self.clients.clone();
        self.live(random, cycle, clients, &mut |_, calling| {
            await_calls(calling, 10, |[tasks, threads]| tasks.min(threads));
        });
    }

    /// Starts a server and kills it: one in four some time after its start, the others while they work. Half of them meet clients
    /// that knew their predecessors.
    pub(crate) fn die(&mut self, random: &mut Random, cycle: u64) {
        let known = random.below(2) == 0;
        let clients = if known {
            self.clients.clone()
        } else {
            connect_later(self.socket)
        };
        self.live(random, cycle, clients, &mut |random, calling| {
            if random.below(4) == 0 {
                spin(Duration::from_micros(random.below(15_000)));
            } else {
                await_calls(calling, random.below(40), |[tasks, threads]| {
                    tasks + threads
                });
                spin(Duration::from_micros(random.below(200)));
            }
        });
    }

    fn live(
        &mut self,
        random: &mut Random,
        cycle: u64,
        clients: (Client, blocking::Client),
        until: &mut dyn FnMut(&mut Random, &Calling),
    ) {
        let part = if random.below(2) == 0 {
            Part::Server
        } else {
            Part::BlockingServer
        };
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut victim = Victim::start(part, self.socket, log.path(), cycle);
        let calling = Arc::new(Calling {
            cycle,
            killed: AtomicBool::new(false),
            begun: AtomicU64::new(0),
            done: Default::default(),
        });
        let answers = self.start_callers(&calling, clients);
        until(random, &calling);
        let killed = Instant::now();
        victim.kill();
        calling.killed.store(true, Ordering::Release);
        let answered = self.collect(&answers, killed);
        self.counts.kills += 1;
        self.counts
            .compare(&serving::read(log.path()), &answered, false);
    }

    fn start_callers(
        &self,
        calling: &Arc<Calling>,
        clients: (Client, blocking::Client),
    ) -> mpsc::Receiver<Ended> {
        let (sender, receiver) = mpsc::channel();
        for caller in 0..TASKS {
            let (client, calling, sender) =
                (clients.0.clone(), Arc::clone(calling), sender.clone());
            self.runtime.spawn(async move {
                while let Some((shape, message)) = calling.next(caller) {
                    let id = message.id;
                    let answer = asking::ask(&client, shape, message).await;
                    let _ = sender.send(calling.ended(&calling.done[0], id, answer));
                }
            });
        }
        for caller in TASKS..TASKS + THREADS {
            let (client, calling, sender) =
                (clients.1.clone(), Arc::clone(calling), sender.clone());
            std::thread::spawn(move || {
                while let Some((shape, message)) = calling.next(caller) {
                    let id = message.id;
                    let answer = ask(&client, shape, message);
                    let _ = sender.send(calling.ended(&calling.done[1], id, answer));
                }
            });
        }
        receiver
    }

    /// Takes the outcome of every call, until the last caller has ended. Returns what the callers were told.
    fn collect(&mut self, answers: &mpsc::Receiver<Ended>, killed: Instant) -> HashMap<u64, u32> {
        let mut told = HashMap::new();
        let mut seen = None;
        loop {
            match answers.recv_timeout(Duration::from_secs(10)) {
                Ok(ended) => {
                    if let Answer::Failed(CallError::Disconnected(_)) = ended.answer {
                        let after = ended.at.checked_duration_since(killed);
                        self.counts.faults.indefinite += u64::from(after.is_none()); // it lived
                        seen = seen.max(after);
                    }
                    if let Some(entry) = self.entry(&ended) {
                        *told.entry(entry).or_default() += 1;
                    }
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    self.counts.faults.indefinite += 1;
                    break;
                }
            }
        }
        if let Some(after) = seen {
            self.counts.saw(after);
        }
        told
    }

    fn entry(&mut self, Ended { id, answer, .. }: &Ended) -> Option<u64> {
        match answer {
            Answer::Whole => Some(*id),
            Answer::Torn => Some(id | TORN),
            Answer::GivenUp => None,
            Answer::Failed(error) => match error.outcome() {
                Outcome::Unknown => Some(id | CUT_OFF),
                Outcome::NotExecuted => Some(id | DENIED),
                Outcome::Application => {
                    println!("call {id:#x} ended with {error}");
                    self.counts.faults.indefinite += 1;
                    None
                }
            },
        }
    }
}

/// A call that has come to an end.
struct Ended {
    id: u64,
    answer: Answer,
    at: Instant,
}

impl Calling {
    fn next(&self, caller: u64) -> Option<(Shape, Sealed)> {
        if self.killed.load(Ordering::Acquire) {
            return None;
        }
        let call = self.begun.fetch_add(1, Ordering::Relaxed);
        let mut random = Random(number(self.cycle, caller, call));
        let shape = Shape::pick(&mut random);
        let length = shape.length(&mut random);
        Some((shape, Sealed::new(number(self.cycle, caller, call), length)))
    }

    fn ended(&self, done: &AtomicU64, id: u64, answer: Answer) -> Ended {
        let at = Instant::now();
        if !matches!(answer, Answer::Failed(_)) {
            done.fetch_add(1, Ordering::AcqRel);
        }
        Ended { id, answer, at }
    }

    fn done(&self) -> [u64; 2] {
        self.done
            .each_ref()
            .map(|done| done.load(Ordering::Acquire))
    }
}

fn connect_later(socket: &str) -> (Client, blocking::Client) {
    let patience = Duration::from_millis(20);
    let tasks = Client::builder(socket)
        .reconnect_timeout(patience)
        .lazy()
        .unwrap();
    let threads = blocking::Client::builder(socket)
        .reconnect_timeout(patience)
        .lazy()
        .unwrap();
    (tasks, threads)
}

/// Waits until so many calls have not failed, as `count` counts those of tasks and of threads.
fn await_calls(calling: &Calling, calls: u64, count: impl Fn([u64; 2]) -> u64) {
    let began = Instant::now();
    while count(calling.done()) < calls {
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "no call can be made"
        );
        std::thread::yield_now();
    }
}

/// Callers of each kind at once.
const TASKS: u64 = 4;
const THREADS: u64 = 2;

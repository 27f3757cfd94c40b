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
    serving,
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
    /// Calls that did not fail.
    done: AtomicU64,
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

    /// Starts a server, lets it answer some calls, and kills it.
    pub(crate) fn run_once(&mut self, random: &mut Random, cycle: u64) {
        let clients = self.clients.clone();
        self.live(random, cycle, clients, &mut |_, calling| {
            await_calls(calling, 20)
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
                await_calls(calling, random.below(40));
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
            done: AtomicU64::new(0),
        });
        let answers = self.start_callers(&calling, clients);
        until(random, &calling);
        let killed = Instant::now();
        victim.kill();
        calling.killed.store(true, Ordering::Release);
        let (answered, denied) = self.collect(&answers);
        self.counts.slowest = self.counts.slowest.max(killed.elapsed());
        let executed = serving::read(log.path());
        self.counts.compare(&executed, &answered);
        self.counts.denied += denied.iter().filter(|id| executed.contains_key(id)).count() as u64;
    }

    fn start_callers(
        &self,
        calling: &Arc<Calling>,
        clients: (Client, blocking::Client),
    ) -> mpsc::Receiver<(u64, Answer)> {
        let (sender, receiver) = mpsc::channel();
        for caller in 0..TASKS {
            let (client, calling, sender) =
                (clients.0.clone(), Arc::clone(calling), sender.clone());
            self.runtime.spawn(async move {
                while let Some((shape, message)) = calling.next(caller) {
                    let id = message.id;
                    let _ = sender.send((
                        id,
                        calling.count(asking::ask(&client, shape, message).await),
                    ));
                }
            });
        }
        for caller in TASKS..TASKS + THREADS {
            let (client, calling, sender) =
                (clients.1.clone(), Arc::clone(calling), sender.clone());
            std::thread::spawn(move || {
                while let Some((shape, message)) = calling.next(caller) {
                    let id = message.id;
                    let _ = sender.send((id, calling.count(ask(&client, shape, message))));
                }
            });
        }
        receiver
    }

    /// Takes the outcome of every call, until the last caller has ended. Returns which were answered and which were said to be not
    /// executed.
    fn collect(
        &mut self,
        answers: &mpsc::Receiver<(u64, Answer)>,
    ) -> (HashMap<u64, u32>, Vec<u64>) {
        let (mut answered, mut denied) = (HashMap::new(), Vec::new());
        loop {
            match answers.recv_timeout(Duration::from_secs(5)) {
                Ok((id, Answer::Whole)) => *answered.entry(id).or_default() += 1,
                Ok((id, Answer::Torn)) => *answered.entry(id | serving::TORN).or_default() += 1,
                Ok((_, Answer::GivenUp)) => {}
                Ok((id, Answer::Failed(error))) => self.judge(id, &error, &mut denied),
                Err(mpsc::RecvTimeoutError::Disconnected) => return (answered, denied),
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    self.counts.indefinite += 1;
                    return (answered, denied);
                }
            }
        }
    }

    fn judge(&mut self, id: u64, error: &CallError, denied: &mut Vec<u64>) {
        match error.outcome() {
            Outcome::Unknown => self.counts.unknown += 1,
            Outcome::NotExecuted => {
                self.counts.not_executed += 1;
                denied.push(id);
            }
            Outcome::Application => {
                println!("call {id:#x} ended with {error}");
                self.counts.indefinite += 1;
            }
        }
    }
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

    fn count(&self, answer: Answer) -> Answer {
        if !matches!(answer, Answer::Failed(_)) {
            self.done.fetch_add(1, Ordering::AcqRel);
        }
        answer
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

fn await_calls(calling: &Calling, calls: u64) {
    let began = Instant::now();
    while calling.done.load(Ordering::Acquire) < calls {
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

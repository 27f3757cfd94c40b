//! The running server: its threads, and how they end. Knows no runtime.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Poll, Waker, ready},
    thread::JoinHandle,
    time::Instant,
};

use doorbell_proto::{
    MessageType,
    handshake::{Features, ServerOffer},
};
use doorbell_shm::{
    SpinMode,
    sys::{self, Listener, SocketAccess},
};

use super::{
    acceptor::{Acceptor, Reception},
    door::Door,
    ledger::Ledger,
    mailbox::Mailbox,
    options::Options,
    quarantine::Quarantine,
    registry::{Handler, Registry},
    resource::{PerResource, Resource, ResourceStats},
    worker::{Duties, Post, Worker},
};
use crate::{
    connection::{Connection, Registration, lock, park_until, thread_waker},
    error::BindError,
    name,
    stats::Stats,
};

/// Threads and tables of one server.
pub(crate) struct Engine {
    registry: Arc<Registry>,
    door: Arc<Door>,
    ledger: Arc<Ledger>,
    workers: Vec<Arc<Mailbox>>,
    quarantine: Arc<Quarantine>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// A shutdown has ended calls that were under way; written before they end.
    has_cut_off: AtomicBool,
    path: std::path::PathBuf,
}

/// What a server has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerStats {
    /// Connections now.
    pub connections: usize,
    /// Connections made since the start.
    pub accepted: u64,
    /// Attempts to connect that were refused.
    pub refused: u64,
    /// Clients that had to wait before they were let in, because connections of their user come and go too fast; see
    /// [`max_churn_per_user`](crate::blocking::ServerBuilder::max_churn_per_user).
    pub delayed: u64,
    /// Counters of all connections together, those that have ended included.
    pub messages: Stats,
    /// Bytes of the segments for loans that there are now.
    pub loan_bytes: u64,
    /// Times there was no room for another segment within the limits.
    pub loans_refused: u64,
    /// Times an I/O worker asked the operating system for news: one system call each.
    pub polls: u64,
    /// Requests and notifications whose metadata was larger than the server accepts.
    pub refused_metadata: u64,
    /// Times a connection was moved to a thread apart, because memory of its process was not there and an I/O worker had to sleep for it several
    /// times: the process had thrown the memory away, or the system had moved it to disk.
    pub quarantined: u64,
    /// Connections that are on that thread now, those included that have come in there because their process, or several of their user, was
    /// found before. They go back to their workers when none of that process has caused a sleep for a while, a second at first.
    pub in_quarantine: usize,
    resources: PerResource<ResourceStats>,
}

impl ServerStats {
    /// Returns how much of `resource` is given out, and how often it was refused.
    pub fn resource(&self, resource: Resource) -> ResourceStats {
        self.resources[resource as usize]
    }
}

impl Engine {
    /// Binds the name and starts the threads.
    pub(crate) fn start(
        name: &str,
        options: &Options,
        registry: Registry,
    ) -> Result<Arc<Self>, BindError> {
        options.check()?;
        let _ = sys::raise_descriptor_limit(); // best effort: a server that runs out says so
        if options.socket_access != SocketAccess::Owner && !name.contains('/') {
            return Err(BindError::PrivateName {
                name: name.to_owned(),
            });
        }
        let path = name::resolve(name)?;
        let listener = Listener::bind_for(&path, options.socket_access)?;
        let count = options
            .workers
            .unwrap_or_else(|| (sys::cpu_count() / 4).max(1));
        let door = Door::new()?;
        let workers = (0..count)
            .map(|_| Mailbox::new(Arc::clone(&door)))
            .collect::<Result<Vec<_>, _>>()?;
        let engine = Arc::new(Self {
            registry: Arc::new(registry),
            ledger: Ledger::new(options.limits.clone()),
            quarantine: Quarantine::new(workers.clone(), Arc::clone(&door))?,
            door,
            workers,
            threads: Mutex::default(),
            has_cut_off: AtomicBool::new(false),
            path,
        });
        match engine.start_threads(options, listener) {
            Ok(()) => Ok(engine),
            Err(error) => {
                engine.stop();
                Err(error)
            }
        }
    }

    fn start_threads(&self, options: &Options, listener: Listener) -> Result<(), BindError> {
        for (index, mailbox) in self.workers.iter().enumerate() {
            let cpu = options.pins.get(index).copied();
            let name = format!("doorbell-io-{index}");
            let duties = self.duties(Post::Home(index), options);
            let pinned = self.start_worker(name, Arc::clone(mailbox), duties, options, cpu)?;
            pinned.map_err(|source| BindError::Pin {
                worker: index,
                cpu: cpu.unwrap_or_default(),
                source,
            })?;
        }
        let duties = self.duties(Post::Quarantine, options);
        let mailbox = Arc::clone(&self.quarantine.mailbox);
        let name = "doorbell-apart".to_owned();
        let _ = self.start_worker(name, mailbox, duties, options, None)?;
        let acceptor = Acceptor::new(Reception {
            listener,
            policy: options.policy.clone(),
            offer: offer(options),
            spin: options.spin,
            ledger: Arc::clone(&self.ledger),
            max_assembly_bytes: options.max_assembly_bytes,
            max_loan_bytes: options.max_loan_bytes,
            handshake_timeout: options.handshake_timeout,
            workers: self.workers.clone(),
            quarantine: Arc::clone(&self.quarantine),
            door: Arc::clone(&self.door),
        })?;
        #[cfg(feature = "tokio")]
        let runtime = options.runtime.clone();
        self.spawn("doorbell-accept".to_owned(), move || {
            #[cfg(feature = "tokio")]
            let _entered = runtime.as_ref().map(tokio::runtime::Handle::enter);
            acceptor.run();
        })
    }

    fn duties(&self, post: Post, options: &Options) -> Duties {
        Duties {
            registry: Arc::clone(&self.registry),
            spin: match post {
                Post::Home(_) => options.spin,
                Post::Quarantine => SpinMode::Never,
            },
            idle_timeout: options.idle_timeout,
            trims_heap: options.trims_heap,
            quarantine: Arc::clone(&self.quarantine),
            post,
        }
    }

    /// Starts a worker, and returns whether it could be pinned.
    fn start_worker(
        &self,
        name: String,
        mailbox: Arc<Mailbox>,
        duties: Duties,
        options: &Options,
        cpu: Option<usize>,
    ) -> Result<std::io::Result<()>, BindError> {
        let (report, pinned) = std::sync::mpsc::sync_channel(1);
        #[cfg(feature = "tokio")]
        let runtime = options.runtime.clone();
        #[cfg(not(feature = "tokio"))]
        let _ = options;
        self.spawn(name, move || {
            let result = cpu.map_or(Ok(()), sys::pin_current_thread);
            let failed = result.is_err();
            let _ = report.send(result);
            if failed {
                return;
            }
            #[cfg(feature = "tokio")]
            let _entered = runtime.as_ref().map(tokio::runtime::Handle::enter);
            Worker::new(mailbox, duties).run();
        })?;
        Ok(pinned.recv().unwrap_or(Ok(())))
    }

    fn spawn(&self, name: String, run: impl FnOnce() + Send + 'static) -> Result<(), BindError> {
        let thread = std::thread::Builder::new()
            .name(name)
            .stack_size(STACK_BYTES)
            .spawn(run)?;
        lock(&self.threads).push(thread);
        Ok(())
    }

    /// Adds or replaces a handler. Returns `true` if there was one.
    pub(crate) fn insert(&self, message_type: MessageType, handler: Arc<dyn Handler>) -> bool {
        let was_there = self.registry.insert(message_type, handler);
        if was_there {
            self.mailboxes().for_each(Mailbox::wake); // those who sleep have it still
        }
        was_there
    }

    /// Removes a handler. Returns `true` if there was one.
    pub(crate) fn remove(&self, message_type: MessageType) -> bool {
        let was_there = self.registry.remove(message_type);
        if was_there {
            self.mailboxes().for_each(Mailbox::wake);
        }
        was_there
    }

    pub(crate) fn path(&self) -> &std::path::Path {
        &self.path
    }

    pub(crate) fn stats(&self) -> ServerStats {
        let mut messages = *lock(&self.door.ended);
        for connection in self.connections() {
            messages.add(&connection.stats());
        }
        ServerStats {
            connections: self.door.open.load(Ordering::Relaxed),
            accepted: self.door.accepted.load(Ordering::Relaxed),
            refused: self.door.refused.load(Ordering::Relaxed),
            delayed: self.door.delayed.load(Ordering::Relaxed),
            messages,
            loan_bytes: self.ledger.stats()[Resource::LoanBytes as usize].used,
            loans_refused: self.ledger.refused_loans(),
            polls: self
                .mailboxes()
                .map(|worker| worker.polls.load(Ordering::Relaxed))
                .sum(),
            refused_metadata: self.ledger.refused_metadata(),
            quarantined: self.quarantine.sent.load(Ordering::Relaxed),
            in_quarantine: self.quarantine.held.load(Ordering::Relaxed),
            resources: self.ledger.stats(),
        }
    }

    fn mailboxes(&self) -> impl Iterator<Item = &Mailbox> {
        let all = self.workers.iter().chain([&self.quarantine.mailbox]);
        all.map(Arc::as_ref)
    }

    fn connections(&self) -> Vec<Arc<Connection>> {
        let upgrade = std::sync::Weak::upgrade;
        let mut connections: Vec<_> = lock(&self.door.connections)
            .iter()
            .filter_map(upgrade)
            .collect();
        connections.retain(|connection| !connection.is_closed()); // ours may be the last handle: what is dropped with it is the user's
        connections
    }

    #[cfg(test)]
    pub(super) fn any_connection(&self) -> Option<Arc<Connection>> {
        self.connections().pop()
    }

    /// Takes no more connections, and tells every client that no more calls are taken. Those under way go on.
    pub(crate) fn begin_drain(&self) {
        doorbell_shm::failpoint!("drain.before");
        self.door.close();
        for connection in self.connections() {
            connection.take_leave();
        }
        doorbell_shm::failpoint!("drain.told");
    }

    /// Waits as a task until everything has been read that clients had sent before they knew, and no call is under way.
    #[cfg(feature = "tokio")]
    pub(crate) async fn quiet(&self) {
        let mut waiting = WaitingForQuiet::new(self);
        std::future::poll_fn(|cx| waiting.poll(cx.waker())).await;
    }

    fn poll_quiet(&self, waker: &Waker, who: &mut Registration) -> Poll<()> {
        ready!(self.door.poll_shut(waker, who));
        for connection in self.connections() {
            ready!(connection.poll_quiet(waker, who)); // the next ones are looked at when this one is quiet
        }
        doorbell_shm::failpoint!("drain.quiet");
        Poll::Ready(())
    }

    /// As [`quiet`](Self::quiet), for a thread, at most until `deadline`. Returns whether it came to that.
    pub(crate) fn wait_quiet(&self, deadline: Instant) -> bool {
        let mut waiting = WaitingForQuiet::new(self);
        while waiting.poll(&thread_waker()).is_pending() {
            if park_until(Some(deadline)).is_err() {
                return false;
            }
        }
        true
    }

    /// Waits no longer for clients of which everything has been read, and that give no sign of having been told. Returns `true` if others may have
    /// given one, behind what has not been read yet because their worker is busy.
    pub(super) fn forgo_answers(&self) -> bool {
        let mut may_come = false;
        for connection in self.connections() {
            may_come |= connection.forgo_answer();
        }
        may_come
    }

    /// Ends what a shutdown has left, after it has `drained` or not. Returns `true` if every call could end: another shutdown, whose limit was shorter, may
    /// have ended those for which this one has waited.
    pub(crate) fn end(&self, drained: bool) -> bool {
        let has_cut_off = self.has_cut_off.fetch_or(!drained, Ordering::Relaxed);
        self.stop();
        drained && !has_cut_off
    }

    /// Ends every connection and every thread, and removes the socket.
    pub(super) fn stop(&self) {
        self.door.dismiss();
        self.mailboxes().for_each(Mailbox::stop);
        let threads = std::mem::take(&mut *lock(&self.threads));
        for thread in threads {
            // A handler may drop the last handle of the server on a worker: that thread cannot wait for itself.
            if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
                tracing::error!("a thread of the server panicked");
            }
        }
        // The acceptor may have handed connections to workers that had left by then, and so may they each other.
        self.mailboxes().for_each(Mailbox::turn_away);
        doorbell_shm::failpoint!("drain.ended");
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Whoever waits for all connections. It is taken back everywhere when it is dropped.
struct WaitingForQuiet<'a> {
    engine: &'a Engine,
    registration: Registration,
}

impl<'a> WaitingForQuiet<'a> {
    fn new(engine: &'a Engine) -> Self {
        Self {
            engine,
            registration: Registration::default(),
        }
    }

    fn poll(&mut self, waker: &Waker) -> Poll<()> {
        self.engine.poll_quiet(waker, &mut self.registration)
    }
}

impl Drop for WaitingForQuiet<'_> {
    fn drop(&mut self) {
        self.engine.door.stop_waiting(&self.registration);
        for connection in self.engine.connections() {
            connection.stop_waiting(&self.registration, None);
        }
    }
}

fn offer(options: &Options) -> ServerOffer {
    let default = ServerOffer::default();
    let ring_capacity_bytes = options.wishes.ring_capacity_bytes;
    let mut features = Features::BODY_CRC.with(Features::GIVE_BACK);
    if options.max_loan_bytes > 0 {
        features = features.with(Features::LOANS);
    }
    ServerOffer {
        features,
        ring_capacity_bytes,
        // What the server itself chooses is not beyond what it grants.
        max_ring_capacity_bytes: default.max_ring_capacity_bytes.max(ring_capacity_bytes),
        receive_window_bytes: options.wishes.receive_window_bytes,
        max_message_bytes: options.wishes.max_message_bytes,
        max_calls: options.max_calls,
        ..default
    }
}

/// Handlers are polled on workers and may want some stack; untouched pages cost nothing.
const STACK_BYTES: usize = 2 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use doorbell_proto::{CallKind, Code};
    use doorbell_testkit::{PATIENCE, Place, eventually};

    use super::*;
    use crate::{
        blocking,
        error::CallError,
        server::registry::{Request, Table},
    };

    #[test]
    fn server_keeps_nothing_of_a_connection_that_has_ended() {
        let place = Place::new();
        let registry = Registry::new(Table::default());
        let engine = Engine::start(&place.name(), &Options::default(), registry).unwrap();
        let known = || lock(&engine.door.connections).len(); // a weak reference keeps the memory, too
        let stays = blocking::Client::connect(place.name()).unwrap();
        for _ in 0..3 {
            let leaves = blocking::Client::connect(place.name()).unwrap();
            eventually("it is known", || known() == 2);
            drop(leaves);
            eventually("it is forgotten", || known() == 1);
        }
        assert_eq!(engine.connections().len(), 1);
        drop(stays);
        eventually("the last one is forgotten", || known() == 0);
    }

    /// It takes as long as hundreds of calls, and a drain may last.
    #[test]
    fn workers_of_a_server_that_drains_do_not_take_apart_what_others_leave() {
        let place = Place::new();
        let registry = Registry::new(Table::default());
        let engine = Engine::start(&place.name(), &Options::default(), registry).unwrap();
        let clients = [(); 2].map(|()| blocking::Client::connect(place.name()).unwrap());
        engine.begin_drain();
        eventually("the door is closed", || !engine.path().exists());
        assert!(engine.door.has_acceptor());
        drop(clients);
        eventually("they are seen off", || engine.stats().connections == 0);
        engine.stop();
        assert!(!engine.door.has_acceptor());
    }

    /// A fault of the library's own.
    struct Broken;

    impl Handler for Broken {
        fn kind(&self) -> Option<CallKind> {
            Some(CallKind::Unary)
        }

        fn handle(&self, _: Request<'_>) {
            std::panic::resume_unwind(Box::new("on purpose"));
        }
    }

    #[derive(serde::Serialize, serde::Deserialize)]
    struct Ask(u8);

    impl crate::Message for Ask {
        const TYPE: MessageType = MessageType::new(1);
        type Reply = u8;
    }

    #[test]
    fn worker_that_panics_ends_its_connections_and_gets_no_more() {
        let place = Place::new();
        let mut table = Table::default();
        table.insert(MessageType::new(1), Arc::new(Broken));
        let options = Options {
            workers: Some(2),
            ..Options::default()
        };
        let engine = Engine::start(&place.name(), &options, Registry::new(table)).unwrap();
        let client = blocking::Client::connect(place.name()).unwrap();
        let error = client.call(Ask(1)).timeout(PATIENCE).wait().unwrap_err();
        assert!(matches!(error, CallError::Disconnected(_)), "{error}");
        eventually("it is counted as ended", || engine.stats().connections == 0);
        engine.remove(MessageType::new(1));
        for _ in 0..4 {
            let client = blocking::Client::connect(place.name()).unwrap();
            let error = client.call(Ask(1)).timeout(PATIENCE).wait().unwrap_err();
            assert_eq!(error.code(), Code::Unimplemented, "{error}");
        }
    }

    #[test]
    fn connection_that_comes_to_a_worker_that_has_left_is_counted_as_ended() {
        let place = Place::new();
        let registry = Registry::new(Table::default());
        let engine = Engine::start(&place.name(), &Options::default(), registry).unwrap();
        for worker in &engine.workers {
            worker.stop.store(true, Ordering::Relaxed); // and it sleeps on
        }
        let client = blocking::Client::connect(place.name()).unwrap();
        let stats = || engine.stats();
        eventually("it was turned away", || {
            (stats().accepted, stats().connections) == (1, 0)
        });
        assert!(lock(&engine.door.connections).is_empty());
        drop(client);
    }
}

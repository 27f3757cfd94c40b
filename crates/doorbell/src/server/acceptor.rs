//! The thread that takes connections in: accepts, checks who it is, and finishes handshakes, so that no I/O worker waits for a
//! stranger. It takes apart, too, what connections leave when they end.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use doorbell_proto::handshake::{RefuseReason, ServerOffer};
use doorbell_shm::{
    SpinMode,
    sys::{ControlStream, Event, Listener, Mode, OwnedHandle, PeerIdentity, Wait},
};

use super::{
    Admission, Policy,
    churn::Turn,
    door::Door,
    ledger::{Charge, Ledger, Shortage, Stay, User, Users, UsersShare},
    mailbox::{Mailbox, Traveller, staffed_from},
    quarantine::Quarantine,
    resource::Resource,
};
use crate::{
    connection::{Account, Connection, Sleeper, Spending, lock},
    deadline::after,
    link::{
        Link,
        accept::{Greeting, NO_DESCRIPTOR, refuse},
    },
    panics::contain_visit,
};

/// What the acceptor needs to know.
pub(super) struct Reception {
    pub(super) listener: Listener,
    pub(super) policy: Policy,
    pub(super) offer: ServerOffer,
    pub(super) spin: SpinMode,
    pub(super) ledger: Arc<Ledger>,
    pub(super) max_assembly_bytes: u64,
    pub(super) max_loan_bytes: u64,
    pub(super) handshake_timeout: Duration,
    pub(super) workers: Vec<Arc<Mailbox>>,
    pub(super) quarantine: Arc<Quarantine>,
    pub(super) door: Arc<Door>,
}

/// When the acceptor leaves, even by a panic, nobody is to wait for it.
struct Leaving(Arc<Door>);

impl Drop for Leaving {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(
                "the acceptor leaves before the end of the server; no more connections are taken"
            );
        }
        self.0.shut();
        self.0.forget_for_good();
    }
}

/// A client in the middle of its handshake, with what it takes up.
struct Guest {
    greeting: Box<Greeting>,
    user: Arc<User>,
    seat: Charge,
    /// Given back when it has said hello: who waits for its turn keeps nobody from that.
    handshake: Option<Charge>,
    /// It has said hello and is let in then.
    turn: Option<Turn>,
}

pub(super) struct Acceptor {
    reception: Reception,
    guests: HashMap<u64, Guest>,
    users: Users,
    next_token: u64,
    next_worker: usize,
    /// A descriptor to spare: without any left a client could not even be told so.
    spare: Option<OwnedHandle>,
    /// Accepting failed: nothing is tried until a connection has ended.
    starved: bool,
}

impl Acceptor {
    /// # Errors
    ///
    /// The listener cannot be watched.
    pub(super) fn new(reception: Reception) -> std::io::Result<Self> {
        reception
            .door
            .poller
            .add(&reception.listener, LISTENER, Mode::Edge)?;
        let spare = Some(reception.listener.spare_handle()?);
        Ok(Self {
            reception,
            guests: HashMap::new(),
            users: Users::default(),
            next_token: LISTENER + 1,
            next_worker: 0,
            spare,
            starved: false,
        })
    }

    pub(super) fn run(mut self) {
        let _leaving = Leaving(Arc::clone(&self.reception.door));
        let mut events: Vec<Event> = Vec::new();
        loop {
            self.reception.door.forget_departed(); // before others come: there is room for them then
            let wait = match self.accept_some() {
                Queue::Empty => self.next_deadline().map_or(Wait::Forever, Wait::Until),
                Queue::MayHaveMore => Wait::Poll,
            };
            events.clear();
            if let Err(error) = self.reception.door.poller.wait(&mut events, wait) {
                tracing::error!(%error, "the acceptor cannot wait; no more connections are taken");
                return;
            }
            if self.reception.door.is_closed.load(Ordering::Relaxed) {
                let door = Arc::clone(&self.reception.door);
                self.turn_away();
                door.shut();
                return door.see_off_the_last();
            }
            for event in events.drain(..) {
                self.step(event.token);
            }
            self.expire();
        }
    }

    /// Takes in some of those who wait. However many there are, and however fast they come back, those who are in have their turn.
    fn accept_some(&mut self) -> Queue {
        for _ in 0..CLIENTS_PER_TURN {
            match self.reception.listener.accept() {
                Ok(Some(control)) => {
                    self.starved = false;
                    self.greet(control);
                }
                Ok(None) => return Queue::Empty,
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    if !self.starved {
                        tracing::error!(%error, "cannot accept a connection; raise the limit on open files");
                    }
                    self.starved = true;
                    if !self.turn_one_away() {
                        return Queue::Empty; // a connection that ends wakes us, and so does the next client
                    }
                }
            }
        }
        Queue::MayHaveMore
    }

    /// Tells the next client that there is no descriptor for it, with the one that was kept for that. Returns whether it could.
    fn turn_one_away(&mut self) -> bool {
        drop(self.spare.take());
        let accepted = self.reception.listener.accept();
        let told = matches!(accepted, Ok(Some(_)));
        if let Ok(Some(control)) = accepted {
            self.reception.door.refused.fetch_add(1, Ordering::Relaxed);
            refuse(&control, RefuseReason::Resources, NO_DESCRIPTOR);
        }
        self.spare = self.reception.listener.spare_handle().ok();
        told
    }

    fn greet(&mut self, control: ControlStream) {
        let (identity, user, [seat, handshake]) = match self.seat(&control) {
            Ok(seated) => seated,
            Err((reason, text)) => {
                self.reception.door.refused.fetch_add(1, Ordering::Relaxed);
                return refuse(&control, reason, &text);
            }
        };
        let token = self.next_token;
        self.next_token += 1;
        if let Err(error) = self.reception.door.poller.add(&control, token, Mode::Edge) {
            return refuse(&control, RefuseReason::Resources, &error.to_string());
        }
        let deadline = after(self.reception.handshake_timeout);
        let guest = Guest {
            greeting: Box::new(Greeting::new(control, identity, deadline)),
            user,
            seat,
            handshake: Some(handshake),
            turn: None,
        };
        self.guests.insert(token, guest);
        self.step(token); // the hello is often there already
    }

    /// Says who this client is and takes a seat for it, or says why it is not let in at all.
    fn seat(&mut self, control: &ControlStream) -> Result<Seated, (RefuseReason, String)> {
        let failed = |error: std::io::Error| (RefuseReason::Resources, error.to_string());
        let identity = control.peer().map_err(failed)?;
        let admission = self.reception.policy.ask(control, identity);
        if let Admission::Refuse(text) = admission.map_err(failed)? {
            return Err((RefuseReason::Permission, text));
        }
        let user = self.users.find(&self.reception.ledger, identity);
        let seat = user.charge(Resource::Connections, 1).map_err(refusal)?;
        let handshake = user.charge(Resource::Handshakes, 1).map_err(refusal)?;
        Ok((identity, user, [seat, handshake]))
    }

    fn step(&mut self, token: u64) {
        contain_visit("a handshake", || self.listen_to(token));
    }

    fn listen_to(&mut self, token: u64) {
        let Some(mut guest) = self.guests.remove(&token) else {
            return;
        };
        let poller = &self.reception.door.poller;
        let _ = poller.remove(&guest.greeting.control);
        match guest.greeting.listen() {
            Err(why) => self.reception.lost(&why),
            Ok(true) if self.reception.is_turn_of(&mut guest) => self.welcome(guest),
            Ok(_) => match poller.add(&guest.greeting.control, token, Mode::Edge) {
                Ok(()) => drop(self.guests.insert(token, guest)),
                Err(error) => guest
                    .greeting
                    .refuse(RefuseReason::Resources, &error.to_string()),
            },
        }
    }

    fn welcome(&mut self, mut guest: Guest) {
        guest.turn.take().into_iter().for_each(Turn::spend);
        let stay = |bytes| guest.user.stay(bytes).map_err(refusal);
        match guest.greeting.answer(&self.reception.offer, stay) {
            Ok((link, stay)) => self.admit(link, guest.user, (guest.seat, stay)),
            Err(why) => self.reception.lost(&why),
        }
    }

    fn admit(&mut self, link: Link, user: Arc<User>, charges: (Charge, Stay)) {
        let door = &self.reception.door;
        let purse = Arc::new(UsersShare(Arc::clone(&user)));
        let account = Account {
            allowance: Some(Box::new(UsersShare(user))),
            spending: Spending::new(purse, self.reception.max_loan_bytes),
            rent: Some(Box::new(charges)),
        };
        let (connection, watched) = Connection::new(
            link,
            Sleeper::Worker,
            self.reception.spin,
            self.reception.max_assembly_bytes,
            account,
        );
        door.accepted.fetch_add(1, Ordering::Relaxed);
        door.open.fetch_add(1, Ordering::Relaxed);
        lock(&door.connections).push(Arc::downgrade(&connection));
        if door.is_closed.load(Ordering::Relaxed) {
            // The drain has begun while we shook hands, and may have looked at the list before we came.
            connection.take_leave();
        }
        let home = self.next_home();
        let quarantine = &self.reception.quarantine;
        let worker = match quarantine.is_suspected(connection.identity()) {
            true if quarantine.mailbox.is_staffed() => &quarantine.mailbox,
            _ => &self.reception.workers[home],
        };
        worker.deliver(Traveller {
            connection,
            watched,
            home,
            legacy: None,
        });
        doorbell_shm::failpoint!("accept.admitted");
    }

    /// Returns the number of the worker whose turn it is to take somebody in. One that has left is passed over.
    fn next_home(&mut self) -> usize {
        let workers = &self.reception.workers;
        let home = staffed_from(workers, self.next_worker);
        self.next_worker = (home + 1) % workers.len();
        home
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.guests.values().map(Guest::due).min()
    }

    /// Lets in those whose turn it is, and sends away those whose time is over.
    fn expire(&mut self) {
        let now = Instant::now();
        let is_due = |(token, guest): (&u64, &Guest)| (guest.due() <= now).then_some(*token);
        let due: Vec<_> = self.guests.iter().filter_map(is_due).collect();
        for token in due {
            if self.guests[&token].turn.is_some() {
                self.step(token);
            } else if let Some(Guest { greeting, .. }) = self.guests.remove(&token) {
                greeting.refuse(RefuseReason::Malformed, "no complete hello in time");
                let _ = self.reception.door.poller.remove(&greeting.control);
                self.reception.door.refused.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn turn_away(self) {
        for guest in self.guests.values() {
            guest
                .greeting
                .refuse(RefuseReason::ShuttingDown, "the server is shutting down");
        }
        for _ in 0..CLIENTS_TURNED_AWAY {
            let Ok(Some(control)) = self.reception.listener.accept() else {
                return;
            };
            refuse(
                &control,
                RefuseReason::ShuttingDown,
                "the server is shutting down",
            );
        }
    }
}

impl Guest {
    /// Returns when there is something to do about it at the latest.
    fn due(&self) -> Instant {
        self.turn.as_ref().map_or(self.greeting.deadline, Turn::at)
    }
}

impl Reception {
    /// Returns whether a guest that has said hello may come in.
    fn is_turn_of(&self, guest: &mut Guest) -> bool {
        let now = Instant::now();
        guest.handshake = None;
        let turn = guest.turn.get_or_insert_with(|| {
            let turn = Turn::take(&guest.user, now);
            let delayed = u64::from(turn.is_delayed());
            self.door.delayed.fetch_add(delayed, Ordering::Relaxed);
            turn
        });
        turn.at() <= now
    }

    fn lost(&self, why: &str) {
        self.door.refused.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(%why, "no connection was made");
    }
}

/// Whether somebody waits to be accepted.
enum Queue {
    Empty,
    MayHaveMore,
}

type Seated = (PeerIdentity, Arc<User>, [Charge; 2]);

fn refusal(shortage: Shortage) -> (RefuseReason, String) {
    (shortage.reason(), shortage.to_string())
}

const LISTENER: u64 = 0;

/// Clients that are accepted before those who say hello, those whose time is over, and the order to stop are looked at.
const CLIENTS_PER_TURN: usize = 64;

/// As many as can wait to be accepted. Who comes later finds nobody.
const CLIENTS_TURNED_AWAY: usize = 4096;

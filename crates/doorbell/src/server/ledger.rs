//! Who has how much of the server: one account for the server and one for each user with connections.
//!
//! An account is a row of atomic numbers. Connections of a user share the user's, so that taking and giving back needs no lock. What is
//! taken has a place in one account and in the total: if the second says no, the first is given back. Orderings are relaxed, because
//! no memory is published through these numbers; each sum alone never exceeds its limit.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use doorbell_proto::{
    connection::{Allowance, Share},
    handshake::RefuseReason,
};
use doorbell_shm::sys::PeerIdentity;

use super::{
    churn::Churn,
    resource::{Limits, PerResource, Resource, ResourceStats},
};
use crate::connection::Purse;

/// The account of a server, with what it has refused.
#[derive(Debug)]
pub(super) struct Ledger {
    limits: Limits,
    total: Account,
    refused: PerResource<AtomicU64>,
    refused_per_user: PerResource<AtomicU64>,
    refused_metadata: AtomicU64,
    refused_loans: AtomicU64,
}

/// The account of one user.
#[derive(Debug)]
pub(super) struct User {
    uid: u32,
    account: Account,
    pub(super) churn: Churn,
    ledger: Arc<Ledger>,
}

/// The users that have connections, or had many a moment ago; known to the acceptor only.
#[derive(Debug, Default)]
pub(super) struct Users(HashMap<u32, Arc<User>>);

#[derive(Debug)]
struct Account {
    used: PerResource<AtomicU64>,
    limits: PerResource<u64>,
}

/// Something that was taken; given back when dropped.
#[derive(Debug)]
pub(super) struct Charge {
    user: Arc<User>,
    resource: Resource,
    amount: u64,
}

/// The memory of a connection. When it is given back, a connection of the user is over.
#[derive(Debug)]
pub(super) struct Stay(Charge);

/// Why something was not given.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Shortage {
    resource: Resource,
    limit: u64,
    /// The user whose share is used up; `None` if it is the server that has no more.
    uid: Option<u32>,
}

impl Account {
    fn new(limits: PerResource<u64>) -> Self {
        Self {
            used: Default::default(),
            limits,
        }
    }

    fn take(&self, resource: Resource, amount: u64) -> bool {
        let limit = self.limits[resource as usize];
        let taken = self.used[resource as usize].fetch_update(Relaxed, Relaxed, |used| {
            used.checked_add(amount).filter(|sum| *sum <= limit)
        });
        taken.is_ok()
    }

    fn give_back(&self, resource: Resource, amount: u64) {
        self.used[resource as usize].fetch_sub(amount, Relaxed);
    }

    fn left(&self, resource: Resource) -> u64 {
        let used = self.used[resource as usize].load(Relaxed);
        self.limits[resource as usize].saturating_sub(used)
    }

    /// Returns how much is left of a resource, and of the memory if it is that.
    fn left_of_all(&self, resource: Resource) -> u64 {
        let left = self.left(resource);
        match resource.is_memory() {
            true => left.min(self.left(Resource::MemoryBytes)),
            false => left,
        }
    }

    /// Takes `amount` of a resource, and of the memory if it is that. Names what there is too little of.
    fn take_all(&self, resource: Resource, amount: u64) -> Result<(), Resource> {
        if !self.take(resource, amount) {
            return Err(resource);
        }
        if resource.is_memory() && !self.take(Resource::MemoryBytes, amount) {
            self.give_back(resource, amount);
            return Err(Resource::MemoryBytes);
        }
        Ok(())
    }

    fn give_all_back(&self, resource: Resource, amount: u64) {
        self.give_back(resource, amount);
        if resource.is_memory() {
            self.give_back(Resource::MemoryBytes, amount);
        }
    }
}

impl Ledger {
    pub(super) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            total: Account::new(limits.total()),
            limits,
            refused: Default::default(),
            refused_per_user: Default::default(),
            refused_metadata: AtomicU64::new(0),
            refused_loans: AtomicU64::new(0),
        })
    }

    pub(super) fn stats(&self) -> PerResource<ResourceStats> {
        Resource::ALL.map(|resource| {
            let index = resource as usize;
            ResourceStats {
                used: self.total.used[index].load(Relaxed),
                limit: self.total.limits[index],
                refused: self.refused[index].load(Relaxed),
                refused_per_user: self.refused_per_user[index].load(Relaxed),
            }
        })
    }

    pub(super) fn refused_metadata(&self) -> u64 {
        self.refused_metadata.load(Relaxed)
    }

    /// Returns how often there was no room for a segment, for whatever reason.
    pub(super) fn refused_loans(&self) -> u64 {
        self.refused_loans.load(Relaxed)
    }

    #[cold]
    fn shortage(&self, resource: Resource, of: Option<&User>) -> Shortage {
        let index = resource as usize;
        // Whoever may have everything has no share that could be raised.
        let of = of.filter(|user| user.account.limits[index] < self.total.limits[index]);
        let (account, refused) = of.map_or((&self.total, &self.refused), |user| {
            (&user.account, &self.refused_per_user)
        });
        refused[index].fetch_add(1, Relaxed);
        Shortage {
            resource,
            limit: account.limits[index],
            uid: of.map(|user| user.uid),
        }
    }
}

impl Users {
    /// Returns the account of the user who has connected.
    pub(super) fn find(&mut self, ledger: &Arc<Ledger>, peer: PeerIdentity) -> Arc<User> {
        if let Some(user) = self.0.get(&peer.uid) {
            return Arc::clone(user);
        }
        if self.0.len() == self.0.capacity() {
            let now = Instant::now();
            let is_known =
                |user: &Arc<User>| Arc::strong_count(user) > 1 || !user.churn.is_over(now);
            self.0.retain(|_, user| is_known(user));
        }
        let user = Arc::new(User {
            uid: peer.uid,
            account: Account::new(ledger.limits.of_user(peer.is_same_user())),
            churn: Churn::new(ledger.limits.churn_per_user),
            ledger: Arc::clone(ledger),
        });
        self.0.insert(peer.uid, Arc::clone(&user));
        user
    }
}

impl User {
    fn take(&self, resource: Resource, amount: u64) -> Result<(), Shortage> {
        let taken = self.try_take(resource, amount);
        taken.map_err(|(short, of)| self.ledger.shortage(short, of))
    }

    /// Takes something, or says of what there is too little, and whether it is this user who has too much; that is not counted.
    fn try_take(&self, resource: Resource, amount: u64) -> Result<(), (Resource, Option<&Self>)> {
        let taken = self.account.take_all(resource, amount);
        taken.map_err(|short| (short, Some(self)))?;
        let taken = self.ledger.total.take_all(resource, amount);
        taken.map_err(|short| {
            self.account.give_all_back(resource, amount);
            (short, None)
        })
    }

    fn give_back(&self, resource: Resource, amount: u64) {
        self.account.give_all_back(resource, amount);
        self.ledger.total.give_all_back(resource, amount);
    }

    /// Takes something for as long as the charge lives.
    pub(super) fn charge(
        self: &Arc<Self>,
        resource: Resource,
        amount: u64,
    ) -> Result<Charge, Shortage> {
        self.take(resource, amount)?;
        Ok(Charge {
            user: Arc::clone(self),
            resource,
            amount,
        })
    }

    /// Takes the memory of a connection.
    pub(super) fn stay(self: &Arc<Self>, bytes: u64) -> Result<Stay, Shortage> {
        self.charge(Resource::RingBytes, bytes).map(Stay)
    }

    /// Returns how many calls a connection takes at once: few where there are few, so that none lie idle while others are refused.
    fn step(&self) -> u32 {
        let calls = Resource::Calls as usize;
        let limit = self.account.limits[calls].min(self.ledger.total.limits[calls]);
        u32::try_from(limit / STEPS).map_or(MAX_STEP, |step| step.clamp(1, MAX_STEP))
    }
}

/// What the connections of a user ask while they run.
#[derive(Debug)]
pub(super) struct UsersShare(pub(super) Arc<User>);

impl Allowance for UsersShare {
    fn take_calls(&self) -> Result<u32, String> {
        let step = self.0.step();
        // Not a refusal yet: there may be one left.
        let many = step > 1 && self.0.account.take(Resource::Calls, step.into());
        if many {
            if self.0.ledger.total.take(Resource::Calls, step.into()) {
                return Ok(step);
            }
            self.0.account.give_back(Resource::Calls, step.into());
        }
        let one = self.0.take(Resource::Calls, 1);
        one.map(|()| 1).map_err(|shortage| shortage.to_string())
    }

    fn take(&self, share: Share, bytes: u64) -> Result<(), String> {
        let taken = self.0.take(resource(share), bytes);
        taken.map_err(|shortage| shortage.to_string())
    }

    fn give_back(&self, share: Share, amount: u64) {
        self.0.give_back(resource(share), amount);
    }

    fn check_metadata(&self, bytes: u64) -> Result<(), String> {
        let limit = self.0.ledger.limits.metadata_bytes;
        if bytes <= limit {
            return Ok(());
        }
        self.0.ledger.refused_metadata.fetch_add(1, Relaxed);
        Err(format!(
            "the metadata has {bytes} bytes and the server accepts {limit}; see `max_metadata_bytes` of its builder"
        ))
    }
}

impl Purse for UsersShare {
    fn take_first(&self, sizes: &[u64]) -> Option<u64> {
        let (last, before) = sizes.split_last()?;
        let fits = |bytes: &u64| self.0.try_take(Resource::LoanBytes, *bytes).is_ok();
        if let Some(bytes) = before.iter().copied().find(fits) {
            return Some(bytes);
        }
        let taken = self.0.take(Resource::LoanBytes, *last);
        taken.is_ok().then_some(*last)
    }

    fn left_bytes(&self) -> u64 {
        let User {
            account, ledger, ..
        } = &*self.0;
        let [own, total] =
            [account, &ledger.total].map(|account| account.left_of_all(Resource::LoanBytes));
        own.min(total)
    }

    fn give_back(&self, bytes: u64) {
        self.0.give_back(Resource::LoanBytes, bytes);
    }

    fn was_refused(&self) {
        self.0.ledger.refused_loans.fetch_add(1, Relaxed);
    }
}

fn resource(share: Share) -> Resource {
    match share {
        Share::Calls => Resource::Calls,
        Share::AssemblyBytes => Resource::AssemblyBytes,
        Share::StreamBytes => Resource::StreamBytes,
    }
}

impl Shortage {
    /// Returns the reason with which a client is refused.
    pub(super) fn reason(&self) -> RefuseReason {
        match (self.uid, self.resource) {
            (Some(_), _) => RefuseReason::PerUserLimit,
            (None, Resource::Connections | Resource::Handshakes) => RefuseReason::Full,
            (None, _) => RefuseReason::Resources,
        }
    }
}

impl std::fmt::Display for Shortage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            resource, limit, ..
        } = self;
        match self.uid {
            Some(uid) => write!(
                f,
                "user {uid} has its share of {limit} {resource}; raise `limit_per_user({resource:?}, ..)` there or use less"
            ),
            None => write!(
                f,
                "the server has given out its {limit} {resource}; raise `limit({resource:?}, ..)` there or use less"
            ),
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.user.give_back(self.resource, self.amount);
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        self.0.user.churn.one_is_over(Instant::now());
    }
}

/// Calls that a connection takes at once where there are many.
const MAX_STEP: u32 = 16;

/// A step is at most so small a part of what there is.
const STEPS: u64 = 256;

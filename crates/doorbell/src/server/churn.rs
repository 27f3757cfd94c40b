//! How fast the connections of a user come and go, and how long the next one is to wait.
//!
//! To make and take apart the memory of a connection interrupts every thread of the process, and its worker has to look at it, too. So a user
//! whose connections end faster than a rate waits for the next ones. What stays costs that once, and is bounded by the number of connections:
//! however many come at once, none of them waits. Those who do wait come in one after the other, at that rate; if all came in together, a
//! user with many at once would hardly be slowed down.
//!
//! This is the virtual scheduling form of the generic cell rate algorithm (ITU-T I.371, annex A), which is a leaky bucket in one number: what
//! is kept is when the bucket will be empty.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use super::ledger::User;
use crate::connection::lock;

/// The churn of one user.
#[derive(Debug)]
pub(super) struct Churn {
    /// What one connection adds.
    step: Duration,
    account: Mutex<Account>,
}

#[derive(Debug, Default)]
struct Account {
    /// When everything that has ended would have ended at the rate; in the past if it has.
    paid_off: Option<Instant>,
    /// When the next one may come in, if there is something to pay off: one step after the last who waits.
    next_turn: Option<Instant>,
}

/// When a client may come in. Given up when it is dropped, unless it has been used.
#[derive(Debug)]
pub(super) struct Turn {
    at: Instant,
    /// Whose it is, if others wait behind it.
    user: Option<Arc<User>>,
}

impl Turn {
    /// Returns when somebody who comes now may come in.
    pub(super) fn take(user: &Arc<User>, now: Instant) -> Self {
        let at = user.churn.next_turn(now);
        let user = (at > now).then(|| Arc::clone(user));
        Self { at, user }
    }

    pub(super) fn at(&self) -> Instant {
        self.at
    }

    /// Returns `true` if it is not there yet.
    pub(super) fn is_delayed(&self) -> bool {
        self.user.is_some()
    }

    /// Whoever had it has come in.
    pub(super) fn spend(mut self) {
        self.user = None;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(user) = &self.user {
            user.churn.one_was_given_up();
        }
    }
}

impl Churn {
    /// `per_second` connections may end.
    pub(super) fn new(per_second: u32) -> Self {
        Self {
            step: Duration::from_secs(1) / per_second.max(1),
            account: Mutex::default(),
        }
    }

    /// Counts a connection that is over. What makes nobody wait any longer is not remembered, or the user would wait for it another time.
    pub(super) fn one_is_over(&self, now: Instant) {
        let mut account = lock(&self.account);
        let from = account.paid_off.map_or(now, |then| then.max(now));
        let latest = now + self.step * AT_ONCE + LONGEST_DEBT;
        account.paid_off = Some(latest.min(from + self.step));
    }

    /// Returns when somebody who comes now may come in, and notes the turn if that is not now.
    fn next_turn(&self, now: Instant) -> Instant {
        let mut account = lock(&self.account);
        let owed = account
            .paid_off
            .map_or(Duration::ZERO, |then| then.saturating_duration_since(now));
        let wait = owed.saturating_sub(self.step * AT_ONCE);
        if wait.is_zero() {
            return now;
        }
        let turn = (now + wait).max(account.next_turn.unwrap_or(now));
        account.next_turn = Some(turn + self.step);
        turn
    }

    /// Somebody who has waited does so no more. Who comes next has the last turn.
    fn one_was_given_up(&self) {
        let mut account = lock(&self.account);
        account.next_turn = account
            .next_turn
            .and_then(|turn| turn.checked_sub(self.step));
    }

    /// Returns `true` if what has ended has no effect any more.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        let account = lock(&self.account);
        let is_past = |then: Option<Instant>| then.is_none_or(|then| then <= now);
        is_past(account.paid_off) && is_past(account.next_turn)
    }
}

/// So many may end at once before anybody waits.
const AT_ONCE: u32 = 128;

/// Whoever has many connections may lose them all at once, and is to come back soon.
const LONGEST_DEBT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn ended(churn: &Churn, count: u32, now: Instant) {
        (0..count).for_each(|_| churn.one_is_over(now));
    }

    fn wait(churn: &Churn, now: Instant) -> Duration {
        churn.next_turn(now) - now
    }

    #[test]
    fn nobody_waits_whose_connections_end_slowly_or_a_few_at_once() {
        let churn = Churn::new(1000);
        let start = Instant::now();
        assert!(churn.is_over(start));
        for n in 0..10_000 {
            assert_eq!(wait(&churn, start + n * MS), Duration::ZERO);
            churn.one_is_over(start + n * MS);
        }
        let later = start + 20_000 * MS;
        assert!(churn.is_over(later));
        ended(&churn, AT_ONCE, later);
        for _ in 0..5000 {
            assert_eq!(wait(&churn, later), Duration::ZERO, "however many come");
        }
        assert!(!churn.is_over(later));
    }

    /// So many at a time come as soon as they may, and go at once.
    fn most_in_a_second(at_once: u32) -> u32 {
        let churn = Churn::new(1000);
        let start = Instant::now();
        let mut turns = vec![start; at_once as usize];
        let mut count = 0;
        while let Some(now) = turns.iter().copied().min()
            && now < start + 1000 * MS
        {
            let turn = turns.iter_mut().find(|turn| **turn == now).unwrap();
            churn.one_is_over(now);
            count += 1;
            *turn = churn.next_turn(now);
        }
        count
    }

    #[test]
    fn who_comes_and_goes_without_end_does_so_at_the_rate() {
        for at_once in [1, 17, 300, 1200] {
            let count = most_in_a_second(at_once);
            // They are all in when the first of them end.
            let most = 1000 + AT_ONCE + at_once + 1;
            assert!(count <= most, "{count} of {at_once} at once");
            assert!(count >= 1000.min(AT_ONCE + at_once), "{count} of {at_once}");
        }
    }

    #[test]
    fn who_loses_all_at_once_comes_back_soon_and_is_forgiven() {
        let churn = Churn::new(1000);
        let start = Instant::now();
        ended(&churn, 4096, start);
        assert_eq!(wait(&churn, start), LONGEST_DEBT);
        assert_eq!(
            wait(&churn, start),
            LONGEST_DEBT + MS,
            "one after the other"
        );
        assert_eq!(wait(&churn, start + 900 * MS), 102 * MS);
        assert_eq!(wait(&churn, start + 1000 * MS), Duration::ZERO);
        assert!(churn.is_over(start + 1128 * MS));
    }

    #[test]
    fn turn_that_is_given_up_is_the_next_ones() {
        let churn = Churn::new(1000);
        let start = Instant::now();
        ended(&churn, 4096, start);
        for _ in 0..5000 {
            churn.next_turn(start);
            churn.one_was_given_up();
        }
        assert_eq!(wait(&churn, start), LONGEST_DEBT);
    }
}

//! Connections that have memory to give back, and when: each once, a while after it has become quiet.
//!
//! The deadlines of a worker, not a timer: with none it sleeps until something happens.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Whose turn comes when. Each connection has one place at most, and has none when it has ended.
#[derive(Debug, Default)]
pub(super) struct Quiet {
    /// Those that became quiet, the earliest first.
    waiting: VecDeque<(Instant, usize)>,
    /// Those whose clients have something to read before, the earliest first.
    told: VecDeque<(Instant, usize)>,
    /// When what the connections have left that have ended goes.
    ended: Option<Instant>,
}

/// What is due.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) connections: Vec<usize>,
    pub(super) have_some_ended: bool,
}

impl Quiet {
    /// Adds a connection that has been quiet since `since`, which is no earlier than at the last call.
    pub(super) fn push(&mut self, since: Instant, index: usize) {
        self.waiting.push_back((since + TIME_QUIET, index));
    }

    /// Adds a connection anew that has been visited just now, and has not given back everything.
    pub(super) fn push_again(&mut self, now: Instant, index: usize) {
        self.told.push_back((now + TIME_TO_READ, index));
    }

    /// Takes out a connection that has ended, and notes that it has left something.
    pub(super) fn end(&mut self, now: Instant, index: usize) {
        for queue in [&mut self.waiting, &mut self.told] {
            queue.retain(|(_, waiting)| *waiting != index);
        }
        self.ended.get_or_insert(now + TIME_QUIET);
    }

    /// Returns when something is due.
    pub(super) fn next(&self) -> Option<Instant> {
        let first = |queue: &VecDeque<(Instant, usize)>| queue.front().map(|(at, _)| *at);
        let all = [first(&self.waiting), first(&self.told), self.ended];
        all.into_iter().flatten().min()
    }

    /// Takes everything if something is due, and what will be soon: many connections that have become quiet together are one piece of work.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Due> {
        self.next().filter(|at| *at <= now)?;
        let soon = now + SLACK;
        let mut connections = Vec::new();
        for queue in [&mut self.waiting, &mut self.told] {
            let count = queue.partition_point(|(at, _)| *at <= soon);
            connections.extend(queue.drain(..count).map(|(_, index)| index));
            if queue.is_empty() {
                *queue = VecDeque::new(); // many at once are rare
            }
        }
        Some(Due {
            connections,
            have_some_ended: self.ended.take_if(|at| *at <= soon).is_some(),
        })
    }
}

/// Long enough that a program which sends something large now and then does not touch new memory for each, short enough for whoever looks at
/// the memory after a burst.
pub(super) const TIME_QUIET: Duration = Duration::from_secs(1);

/// An idle client has read a frame long before, a busy one within some of these.
const TIME_TO_READ: Duration = Duration::from_millis(250);

const SLACK: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_soon_goes_with_what_is_due() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let due = |connections: &[usize], have_some_ended| {
            Some(Due {
                connections: connections.to_vec(),
                have_some_ended,
            })
        };
        let mut quiet = Quiet::default();
        assert_eq!(quiet.next(), None);
        for (millis, index) in [(0, 1), (300, 2), (400, 3), (700, 4)] {
            quiet.push(at(millis), index);
        }
        quiet.end(at(400), 2);
        quiet.end(at(600), 7);
        assert_eq!(quiet.take_due(at(999)), None);
        assert_eq!(quiet.take_due(at(1000)), due(&[1, 3], true));
        assert_eq!(quiet.next(), Some(at(1700)));
        quiet.end(at(1100), 5);
        assert_eq!(quiet.take_due(at(1700)), due(&[4], true));
        assert_eq!(quiet.next(), None);
    }

    #[test]
    fn those_that_are_visited_again_are_not_waited_for_as_long() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut quiet = Quiet::default();
        quiet.push(at(0), 1);
        quiet.push_again(at(200), 2);
        quiet.push_again(at(300), 3);
        quiet.push(at(400), 4);
        assert_eq!(quiet.next(), Some(at(450)));
        let due = quiet.take_due(at(500)).unwrap();
        assert_eq!(due.connections, [1, 2, 3]);
        quiet.push_again(at(700), 5);
        quiet.end(at(700), 5);
        assert_eq!(quiet.take_due(at(1400)).unwrap().connections, [4]);
    }
}

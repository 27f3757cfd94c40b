//! What is measured beside what.
//!
//! A group is one kind of work; its first row is Doorbell's, and all others are compared with it. A rival appears in a group in
//! the modes that suit it: pinned where it keeps its CPU busy or has one thread, unpinned where it sleeps or has several.

use std::time::Duration;

use crate::part::Work;
use crate::peers::Mode::{self, *};
use crate::peers::Peer::{self, *};
use crate::sample::By;

/// Rows that do the same work.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    /// Name for `--only`.
    pub(crate) name: String,
    /// What is done, in words.
    pub(crate) title: String,
    pub(crate) work: Work,
    pub(crate) size_bytes: usize,
    pub(crate) pause: Option<Duration>,
    pub(crate) pin: Pin,
    /// What is compared.
    pub(crate) by: By,
    /// Doorbell first.
    pub(crate) cases: Vec<Case>,
}

/// One row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Case {
    pub(crate) peer: Peer,
    pub(crate) mode: Mode,
}

/// Where the two processes run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pin {
    /// Each on a CPU of its own.
    Cross,
    /// Where the system puts them.
    None,
}

impl Pin {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cross => "cross",
            Self::None => "none",
        }
    }
}

/// Returns all groups.
pub(crate) fn groups() -> Vec<Group> {
    let mut groups = Vec::new();
    for size in [SMALL, LARGE] {
        groups.push(round_trips("spinning", size, Pin::Cross, None, SPINNING));
        groups.push(round_trips("threads", size, Pin::None, None, THREADS));
        groups.push(round_trips("tasks", size, Pin::None, None, TASKS));
    }
    for size in [SMALL, LARGE, LARGEST] {
        groups.push(loaned("spinning", size, Pin::Cross, LOANED_SPINNING));
        groups.push(loaned("threads", size, Pin::None, LOANED_THREADS));
    }
    let pause = Some(PAUSE);
    groups.push(round_trips("threads", SMALL, Pin::None, pause, THREADS));
    groups.push(round_trips("tasks", SMALL, Pin::None, pause, TASKS));
    groups.extend(pipelined());
    groups.extend(one_way());
    groups.extend([32, 128, 512, 1000].map(connections));
    groups.extend([32, 1000].map(processes));
    for pause in [None, pause] {
        groups.extend([SMALL, 4 << 10, 64 << 10, LARGE].map(|size| completion(size, pause)));
    }
    groups
}

/// Keeps what the user wants: groups whose name contains `only`, or else the rows of the peer of that name, beside Doorbell.
pub(crate) fn chosen(only: Option<&str>) -> Vec<Group> {
    let mut all = groups();
    let Some(text) = only else { return all };
    if all.iter().any(|group| group.name.contains(text)) {
        all.retain(|group| group.name.contains(text));
        return all;
    }
    for group in &mut all {
        group
            .cases
            .retain(|case| case.peer == Doorbell || case.peer.name().contains(text));
    }
    let has_rival = |group: &Group| group.cases.iter().any(|case| case.peer != Doorbell);
    all.retain(has_rival);
    all
}

fn round_trips(
    who: &str,
    size_bytes: usize,
    pin: Pin,
    pause: Option<Duration>,
    cases: &[(Peer, Mode)],
) -> Group {
    let (name, how) = match pause {
        None => (
            format!("round-trip-{who}-{}", size(size_bytes)),
            String::new(),
        ),
        Some(pause) => (
            format!("round-trip-asleep-{who}-{}", size(size_bytes)),
            format!(", {pause:?} of pause before each, so that both sides sleep"),
        ),
    };
    let where_ = match pin {
        Pin::Cross => "each on a CPU of its own, always awake",
        Pin::None => "not pinned, as they wait by default",
    };
    Group {
        title: format!("Round trip of {}, {who}, {where_}{how}", words(size_bytes)),
        name,
        work: Work::RoundTrip,
        size_bytes,
        pause,
        pin,
        by: By::Time,
        cases: listed(cases),
    }
}

/// Round trips of messages that are written and read where they are, and not copied.
fn loaned(who: &str, size_bytes: usize, pin: Pin, cases: &[(Peer, Mode)]) -> Group {
    let how = match pin {
        Pin::Cross => "each on a CPU of its own, always awake",
        Pin::None => "not pinned, as they wait by default",
    };
    Group {
        name: format!("loaned-{who}-{}", size(size_bytes)),
        title: format!(
            "Round trip of {}, loaned both ways, {who}, {how}",
            words(size_bytes)
        ),
        work: Work::Loaned,
        size_bytes,
        pause: None,
        pin,
        by: By::Time,
        cases: listed(cases),
    }
}

fn pipelined() -> [Group; 2] {
    let group = |name: &str, pin, how, cases| Group {
        name: name.into(),
        title: format!("Calls of 64 B, {WINDOW} under way, {how}"),
        work: Work::Pipelined { window: WINDOW },
        size_bytes: SMALL,
        pause: None,
        pin,
        by: By::Rate,
        cases: listed(cases),
    };
    [
        group(
            "pipelined-pinned",
            Pin::Cross,
            "each process on a CPU of its own",
            &[
                (Doorbell, MultiThread),
                (Doorbell, CurrentThread),
                (Doorbell, Blocking),
                (TokioSocket, CurrentThread),
                (Tonic, CurrentThread),
                (Shmipc, CurrentThread),
                (Iceoryx2, CallPolled),
            ],
        ),
        group(
            "pipelined-unpinned",
            Pin::None,
            "not pinned",
            &[
                (Doorbell, MultiThread),
                (TokioSocket, CurrentThread),
                (TokioSocket, MultiThread),
                (Tonic, MultiThread),
                (Shmipc, MultiThread),
                (ZeroMq, Blocking),
            ],
        ),
    ]
}

fn one_way() -> [Group; 2] {
    let group = |name: &str, pin, how, cases| Group {
        name: name.into(),
        title: format!("Items of 64 B one way, each decoded and looked at, {how}"),
        work: Work::OneWay,
        size_bytes: SMALL,
        pause: None,
        pin,
        by: By::Rate,
        cases: listed(cases),
    };
    [
        group(
            "one-way-pinned",
            Pin::Cross,
            "each process on a CPU of its own",
            &[
                (Doorbell, MultiThread),
                (Doorbell, MultiThreadNotify),
                (Doorbell, Blocking),
                (Doorbell, BlockingNotify),
                (TokioSocket, CurrentThread),
                (Tonic, CurrentThread),
                (Iceoryx2, TopicPolled),
                (Shmipc, CurrentThread),
                (IpcChannel, Blocking),
            ],
        ),
        group(
            "one-way-unpinned",
            Pin::None,
            "not pinned",
            &[
                (Doorbell, MultiThread),
                (TokioSocket, CurrentThread),
                (TokioSocket, MultiThread),
                (Tonic, MultiThread),
                (ZeroMq, Blocking),
            ],
        ),
    ]
}

fn connections(count: usize) -> Group {
    Group {
        name: format!("connections-{count}"),
        title: format!(
            "{count} connections of one process, a round trip of 64 B under way on each"
        ),
        work: Work::Connections { count },
        size_bytes: SMALL,
        pause: None,
        pin: Pin::None,
        by: By::Rate,
        cases: listed(&[
            (Doorbell, MultiThread),
            (Doorbell, CurrentThread),
            (TokioSocket, CurrentThread),
            (TokioSocket, MultiThread),
        ]),
    }
}

fn processes(count: usize) -> Group {
    Group {
        name: format!("processes-{count}"),
        title: format!("{count} client processes, a round trip of 64 B under way in each"),
        work: Work::Processes { count },
        size_bytes: SMALL,
        pause: None,
        pin: Pin::None,
        by: By::Rate,
        cases: listed(&[
            (Doorbell, Blocking),
            (TokioSocket, CurrentThread),
            (TokioSocket, MultiThread),
            (UnixSocket, Blocking),
        ]),
    }
}

fn completion(size_bytes: usize, pause: Option<Duration>) -> Group {
    let (asleep, how) = match pause {
        None => ("", String::new()),
        Some(pause) => (
            "-asleep",
            format!(", {pause:?} of pause before each, so that both sides sleep"),
        ),
    };
    Group {
        name: format!("completion{asleep}-{}", size(size_bytes)),
        title: format!(
            "Completion request and reply with a prompt of {}, serialization included{how}",
            words(size_bytes)
        ),
        work: Work::Completion,
        size_bytes,
        pause,
        pin: Pin::None,
        by: By::Time,
        cases: listed(&[
            (Doorbell, MultiThread),
            (Node, ForkJson),
            (Node, ForkAdvanced),
            (Node, SocketJson),
        ]),
    }
}

fn listed(cases: &[(Peer, Mode)]) -> Vec<Case> {
    let case = |&(peer, mode): &(Peer, Mode)| Case { peer, mode };
    cases.iter().map(case).collect()
}

fn size(bytes: usize) -> String {
    words(bytes).replace(' ', "")
}

/// Returns a size in the largest binary unit that divides it.
pub(crate) fn words(bytes: usize) -> String {
    match bytes {
        _ if bytes.is_multiple_of(1 << 20) => format!("{} MiB", bytes >> 20),
        _ if bytes.is_multiple_of(1 << 10) => format!("{} KiB", bytes >> 10),
        _ => format!("{bytes} B"),
    }
}

/// Nobody sleeps.
const SPINNING: &[(Peer, Mode)] = &[
    (Doorbell, Spinning),
    (Iceoryx2, CallPolled),
    (Iceoryx2, TopicPolled),
];

/// Interfaces that block a thread.
const THREADS: &[(Peer, Mode)] = &[
    (Doorbell, Blocking),
    (UnixSocket, Blocking),
    (Iceoryx2, CallWoken),
    (Iceoryx2, TopicWoken),
    (IpcChannel, Blocking),
    (ZeroMq, Blocking),
];

/// Interfaces that await.
const TASKS: &[(Peer, Mode)] = &[
    (Doorbell, MultiThread),
    (TokioSocket, CurrentThread),
    (TokioSocket, MultiThread),
    (Tonic, CurrentThread),
    (Tonic, MultiThread),
    (Shmipc, CurrentThread),
    (Shmipc, MultiThread),
];

/// Loans, and nobody sleeps.
const LOANED_SPINNING: &[(Peer, Mode)] = &[(Doorbell, Spinning), (Iceoryx2, CallPolled)];

/// Loans by interfaces that block a thread.
const LOANED_THREADS: &[(Peer, Mode)] = &[(Doorbell, Blocking), (Iceoryx2, CallWoken)];

const SMALL: usize = 64;
const LARGE: usize = 1 << 20;
const LARGEST: usize = 10 << 20;

/// Calls under way in pipelined rows.
const WINDOW: usize = 256;

/// Longer than anybody waits awake.
const PAUSE: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_row_of_every_group_is_doorbell_and_names_are_unique() {
        let groups = groups();
        assert!(groups.iter().all(|group| group.cases[0].peer == Doorbell));
        let mut names: Vec<_> = groups.iter().map(|group| &group.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), groups.len());
    }

    #[test]
    fn only_chooses_groups_by_name_or_rows_by_peer() {
        assert_eq!(chosen(Some("connections-32")).len(), 1);
        let rows = chosen(Some("zeromq"));
        let is_wanted = |case: &Case| matches!(case.peer, Doorbell | ZeroMq);
        assert!(!rows.is_empty());
        assert!(rows.iter().all(|group| group.cases.iter().all(is_wanted)));
        assert!(chosen(Some("nobody")).is_empty());
    }
}

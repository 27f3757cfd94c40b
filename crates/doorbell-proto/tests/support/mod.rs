//! An application on each side, and the link between them.
//!
//! The server half keeps no promises but the machine's; everything a machine says is checked against what the application on the
//! same side remembers.

mod lending;
mod receiving;
mod sender;
mod side;

use doorbell_proto::{
    CallId, CallKind, FrameHeader, FrameKind, GoAwayReason, Prefix, Role, Status, Time,
};
use side::{Side, packs, picked};
use std::collections::BTreeSet;
use std::time::Duration;

pub(crate) const MAX_CALLS: u32 = 6;
const MAX_MESSAGE_BYTES: u64 = 15_000;
const WINDOW_BYTES: u32 = 4096;
pub(crate) const CHUNK_BYTES: usize = 700;

/// One thing that an application, the clock or the link does. `pick` chooses among the calls that are open.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    Start {
        kind: u8,
        size: usize,
        deadline: Option<u64>,
    },
    Respond {
        pick: u16,
        size: usize,
    },
    Fail {
        pick: u16,
    },
    ClientItem {
        pick: u16,
        size: usize,
    },
    ServerItem {
        pick: u16,
        size: usize,
    },
    EndItems {
        pick: u16,
    },
    Cancel {
        pick: u16,
    },
    Notify {
        size: usize,
    },
    Ping {
        id: u64,
    },
    Wait {
        nanos: u64,
    },
    DeliverToServer {
        frames: usize,
    },
    DeliverToClient {
        frames: usize,
    },
    Consume {
        bytes: u64,
    },
    /// The client gives a loan back, and so does the server.
    GiveBack {
        picks: (u16, u16),
    },
    Retire {
        picks: (u16, u16),
    },
    AskToRetire {
        picks: (u16, u16),
    },
}

pub(crate) struct World {
    now: Time,
    client: Side,
    server: Side,
    /// The sender goes on with frames of calls that are over, as a peer may.
    stale_frames: bool,
    answered: bool,
    closed: bool,
    /// Names of the events so far, with the side that saw them.
    seen: BTreeSet<String>,
}

impl World {
    pub(crate) fn new(stale_frames: bool) -> Self {
        let (client, server) = (Side::new(Role::Client), Side::new(Role::Server));
        Self {
            now: Time::from_nanos(1_000),
            client,
            server,
            stale_frames,
            answered: false,
            closed: false,
            seen: BTreeSet::new(),
        }
    }

    pub(crate) fn apply(&mut self, operation: Operation) {
        match operation {
            Operation::Start {
                kind,
                size,
                deadline,
            } => self.start(kind, size, deadline),
            Operation::Respond { pick, size } => self.respond(pick, size),
            Operation::Fail { pick } => self.fail(pick),
            Operation::ClientItem { pick, size } => self.client.send_item(pick, size),
            Operation::ServerItem { pick, size } => self.server.send_item(pick, size),
            Operation::EndItems { pick } => self.end_items(pick),
            Operation::Cancel { pick } => self.cancel(pick),
            Operation::Notify { size } => self.notify(size.min(CHUNK_BYTES)),
            Operation::Ping { id } => self.client.machine.ping(id),
            Operation::Wait { nanos } => self.wait(nanos),
            Operation::DeliverToServer { frames } => self.deliver_to_server(frames),
            Operation::DeliverToClient { frames } => self.deliver_to_client(frames),
            Operation::Consume { bytes } => {
                self.client.consume(bytes);
                self.server.consume(bytes);
            }
            Operation::GiveBack { picks } => self.each(picks, Side::give_back),
            Operation::Retire { picks } => self.each(picks, Side::retire),
            Operation::AskToRetire { picks } => self.each(picks, Side::ask_to_retire),
        }
    }

    fn each(&mut self, (client, server): (u16, u16), act: fn(&mut Side, u16)) {
        act(&mut self.client, client);
        act(&mut self.server, server);
    }

    pub(crate) fn server_goes_away(&mut self) {
        self.server
            .machine
            .go_away(GoAwayReason::ShuttingDown, "enough for today");
    }

    /// No table or queue may exceed the number of slots.
    pub(crate) fn check_bounds(&self) {
        let limit = usize::try_from(MAX_CALLS).unwrap();
        for side in [&self.client, &self.server] {
            let (slots, queued) = side.machine.table_sizes();
            assert!(slots <= limit && queued <= limit);
            assert_eq!(side.machine.active_calls(), side.open.len());
            assert!(side.open.keys().all(|id| side.machine.is_active(*id)));
        }
        self.client.check_loans(&self.server);
        self.server.check_loans(&self.client);
    }

    /// Lets every call come to its end.
    pub(crate) fn drain(&mut self) {
        for _ in 0..10_000 {
            self.deliver_to_server(usize::MAX);
            self.deliver_to_client(usize::MAX);
            self.client.consume(u64::MAX);
            self.server.consume(u64::MAX);
            self.client.give_everything_back();
            self.server.give_everything_back();
            self.check_bounds();
            if let Some((id, kind)) = self
                .server
                .open
                .first_key_value()
                .map(|(id, kind)| (*id, *kind))
            {
                self.answer(id, kind, 10);
            } else if self.is_quiet() {
                return;
            }
        }
        panic!("the machines do not come to rest");
    }

    /// After [`World::drain`]: nothing is lent, so that every segment can go, and does on both sides.
    pub(crate) fn check_every_loan_ended(&mut self) {
        self.client.retire_everything();
        self.server.retire_everything();
        self.deliver_to_server(usize::MAX);
        self.deliver_to_client(usize::MAX);
        for side in [&self.client, &self.server] {
            assert_eq!(side.machine.loans(), (0, 0));
            assert_eq!(side.machine.segments(), (0, 0));
        }
        self.check_bounds();
    }

    /// After [`World::drain`] or [`World::close`]: no call is open, and every slot can be used again.
    pub(crate) fn check_everything_ended(&mut self) {
        assert!(
            self.client.open.is_empty(),
            "open at the client: {:?}",
            self.client.open
        );
        assert!(
            self.server.open.is_empty(),
            "open at the server: {:?}",
            self.server.open
        );
        for side in [&mut self.client, &mut self.server] {
            assert_eq!(side.machine.active_calls(), 0);
            assert_eq!(side.machine.poll_timeout(), None);
            assert!(!side.machine.has_control() && side.machine.poll_transmit().is_none());
        }
        if self.client.machine.is_going_away() || self.closed {
            return;
        }
        for _ in 0..MAX_CALLS {
            self.client
                .machine
                .start_call(CallKind::Unary, None)
                .expect("every slot is free");
        }
    }

    /// Returns the names of the events so far, such as `server Item`.
    pub(crate) fn seen(&self) -> &BTreeSet<String> {
        &self.seen
    }

    /// Ends the connection at this moment.
    pub(crate) fn close(&mut self) {
        self.closed = true;
        for side in [&mut self.client, &mut self.server] {
            for id in side.machine.handle_closed() {
                side.end(id);
            }
            assert!(side.machine.handle_closed().is_empty());
        }
    }

    fn is_quiet(&self) -> bool {
        [&self.client, &self.server].iter().all(|side| {
            side.sender.is_empty() && side.written.is_empty() && !side.machine.has_control()
        })
    }

    fn start(&mut self, kind: u8, size: usize, deadline: Option<u64>) {
        let kind = kind_of(kind);
        let remaining = deadline.map(Duration::from_nanos);
        let deadline = remaining.map(|remaining| self.now.saturating_add(remaining));
        let Ok(id) = self.client.machine.start_call(kind, deadline) else {
            return;
        };
        assert!(!self.client.ended.contains(&id), "{id} is used twice");
        self.client.open.insert(id, kind);
        let header = FrameHeader {
            flags: kind.flags(),
            ..FrameHeader::new(FrameKind::Call, id.raw(), 7)
        };
        self.client.send(
            header,
            Prefix {
                remaining,
                ..Prefix::default()
            },
            size,
        );
    }

    fn respond(&mut self, pick: u16, size: usize) {
        let open = self.server.open.iter();
        let Some((id, kind)) = picked(open, pick).map(|(id, kind)| (*id, *kind)) else {
            return;
        };
        self.answer(id, kind, size);
    }

    /// Answers in one of the two ways that the machine offers, in turn.
    fn answer(&mut self, id: CallId, kind: CallKind, size: usize) {
        self.answered = !self.answered;
        let machine = &mut self.server.machine;
        let agreed = if self.answered {
            machine.finish(id)
        } else {
            machine.finish_and_hold(id)
        };
        assert!(agreed, "{id} is open, yet over");
        self.server.end(id);
        if kind.is_streaming() {
            self.server.sender.send(
                FrameHeader::new(FrameKind::End, id.raw(), 0),
                Prefix::default(),
                0,
            );
        } else {
            self.server.send(
                FrameHeader::new(FrameKind::Response, id.raw(), 7),
                Prefix::default(),
                size,
            );
        }
    }

    fn fail(&mut self, pick: u16) {
        let Some(id) = picked(self.server.open.keys(), pick).copied() else {
            return;
        };
        assert!(self.server.machine.fail(
            id,
            Status::internal("as the test wants").with_details(vec![1; 900])
        ));
        self.server.end(id);
        self.server.drop_call(id);
    }

    fn end_items(&mut self, pick: u16) {
        let Some(id) = picked(self.client.open.keys(), pick).copied() else {
            return;
        };
        if self.client.machine.end_items(id) {
            self.client.sender.send(
                FrameHeader::new(FrameKind::End, id.raw(), 0),
                Prefix::default(),
                0,
            );
        }
    }

    fn cancel(&mut self, pick: u16) {
        let Some(id) = picked(self.client.open.keys(), pick).copied() else {
            return;
        };
        assert!(self.client.machine.cancel(id));
        assert!(!self.client.machine.cancel(id));
        self.client_gave_up(id);
    }

    fn notify(&mut self, size: usize) {
        let header = FrameHeader::new(FrameKind::Notify, 0, 9);
        match packs(size) {
            0 => self.client.sender.send(header, Prefix::default(), size),
            count => self.client.sender.send_packed(header, size, count),
        }
    }

    fn wait(&mut self, nanos: u64) {
        self.now = self.now.saturating_add(Duration::from_nanos(nanos));
        while let Some(expired) = self.client.machine.handle_timeout(self.now) {
            self.client_gave_up(expired.id);
        }
        while let Some(expired) = self.server.machine.handle_timeout(self.now) {
            self.server.end(expired.id);
            self.server.drop_call(expired.id);
        }
        for side in [&self.client, &self.server] {
            assert!(
                side.machine
                    .poll_timeout()
                    .is_none_or(|deadline| deadline > self.now)
            );
        }
    }

    fn client_gave_up(&mut self, id: CallId) {
        self.client.end(id);
        if self.client.sender.call_not_begun(id) {
            self.client.machine.abort_start(id);
            self.client.ended.remove(&id); // the id will be used again
            self.client.drop_call(id);
        } else if !self.stale_frames {
            self.client.drop_call(id);
        }
    }

    fn deliver_to_server(&mut self, frames: usize) {
        for _ in 0..frames {
            let Some((header, body)) = self.client.next_frame() else {
                return;
            };
            self.server_takes(&header, &body);
        }
    }

    fn deliver_to_client(&mut self, frames: usize) {
        for _ in 0..frames {
            let Some((header, body)) = self.server.next_frame() else {
                return;
            };
            self.client_takes(&header, &body);
        }
    }
}

fn kind_of(number: u8) -> CallKind {
    match number % 4 {
        0 => CallKind::Unary,
        1 => CallKind::ServerStream,
        2 => CallKind::ClientStream,
        _ => CallKind::Bidirectional,
    }
}

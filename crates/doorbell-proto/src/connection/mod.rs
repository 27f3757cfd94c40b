//! One connection: calls, credit, deadlines, cancellation and reassembly, for both roles.
//!
//! The machine is told what arrived ([`Connection::handle_frame`]), what time it is and what the application wants, and says what that
//! means ([`Event`]) and what it wants to have sent itself ([`Connection::poll_transmit`]). The application's own frames (`CALL`,
//! `RESPONSE`, `DATA`, `END` and `NOTIFY`) are written by the caller after the machine has agreed.
//!
//! # Order of writing
//!
//! Frames from [`Connection::poll_transmit`] may be written before frames of the caller that wait, with one condition: a `CALL` has been
//! written at least in part before anything else is written for it. A caller whose `CALL` still waits when the call is cancelled or
//! expires takes it back with [`Connection::abort_start`], which also withdraws the `CANCEL`. When a call is over, the frames that the
//! caller still holds for it are pointless; it should drop them, except an answer for which [`Connection::finish`] returned `true`.
//!
//! # Trust
//!
//! Every frame comes from the peer and every field is checked against what the peer may send at this moment. A hostile client can
//! make a server hold the slot table, one `ERROR` per slot, and [`Config::max_assembly_bytes`].

mod allowance;
mod assembly;
mod calls;
mod client;
mod control;
mod credit;
mod error;
mod event;
mod loans;
mod messages;
mod server;
mod streams;

pub use allowance::{Allowance, Share};
pub use error::{ItemError, LoanViolation, ProtocolError, StartError};
pub use event::{ControlFrame, Destination, Event, Expired, Payload};

pub use crate::frame::GoAwayReason;

use crate::frame::{CallId, CallKind, FrameError, FrameHeader, FrameKind};
use crate::limits::{MAX_CALLS_HIGHEST, MAX_GOAWAY_TEXT_BYTES};
use crate::status::cut;
use crate::time::Time;
use allowance::Purse;
use assembly::Budget;
use calls::{Calls, Phase, Unsent};
use control::Control;
use credit::Credit;
use loans::Loans;
use std::fmt;

/// Which side of the connection we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Opens calls.
    Client,
    /// Answers them.
    Server,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "client",
            Self::Server => "server",
        })
    }
}

/// The limits of one connection, as the handshake settled them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Which side we are.
    pub role: Role,
    /// Calls in flight at once; at most [`MAX_CALLS_HIGHEST`] count.
    pub max_calls: u32,
    /// Largest message we accept.
    pub max_message_bytes: u64,
    /// Most bytes of divided messages under assembly at once.
    pub max_assembly_bytes: u64,
    /// Largest body of a frame that may be sent; `ERROR` and `GOAWAY` frames are cut to fit.
    pub max_chunk_bytes: u32,
    /// Bytes of items per stream that we let the peer send ahead.
    pub receive_window_bytes: u32,
    /// Bytes of items per stream that the peer lets us send ahead.
    pub send_window_bytes: u32,
    /// Payloads may be lent instead of copied.
    pub loans: bool,
    /// The server says when it is quiet.
    pub gives_back: bool,
}

/// The state of one connection.
#[derive(Debug)]
pub struct Connection {
    config: Config,
    calls: Calls,
    /// Free slots of a client; the last one used is the first to be used again.
    free: Vec<u32>,
    control: Control,
    budget: Budget,
    purse: Purse,
    loans: Loans,
    /// We have announced that we leave.
    leaving: bool,
    /// What the peer begins from now on is too late.
    refuses: bool,
    /// The peer has announced that it leaves.
    peer_leaving: bool,
    closed: bool,
}

impl Connection {
    /// Returns a machine without calls.
    pub fn new(config: Config) -> Self {
        let max_calls = config.max_calls.min(MAX_CALLS_HIGHEST);
        Self {
            config: Config {
                max_calls,
                ..config
            },
            calls: Calls::default(),
            free: Vec::new(),
            control: Control::default(),
            budget: Budget::new(config.max_assembly_bytes),
            purse: Purse::unlimited(),
            loans: Loans::new(config.role, config.loans),
            leaving: false,
            refuses: false,
            peer_leaving: false,
            closed: false,
        }
    }

    /// As [`new`](Self::new), with a share of what many connections have together. Only a server's machine asks.
    pub fn with_allowance(config: Config, allowance: Box<dyn Allowance>) -> Self {
        Self {
            purse: Purse::new(allowance),
            ..Self::new(config)
        }
    }

    /// Gives back what was taken from the allowance for calls that have ended. For a moment in which nothing is under way.
    pub fn give_back_unused(&mut self) {
        self.purse.keep_calls(self.open_calls());
    }

    /// Takes in one frame and returns what it means.
    ///
    /// `now` only matters for a `CALL` with a deadline. A `CONTINUE` frame should take the way through
    /// [`take_destination`](Self::take_destination), which saves a copy; here its body is copied.
    ///
    /// # Errors
    ///
    /// [`ProtocolError`] if the peer may not send this frame now; close the connection.
    #[inline]
    pub fn handle_frame<'a>(
        &mut self,
        now: Time,
        header: &FrameHeader,
        body: &'a [u8],
    ) -> Result<Event<'a>, ProtocolError> {
        self.check_open(header)?;
        if header.is_continuation() {
            return self.copy_continuation(now, header, body);
        }
        if header.is_loaned() {
            return self.handle_loaned(now, header, body);
        }
        self.handle_whole(now, header, body)
    }

    /// Takes in a frame that continues nothing, and whose payload, if it has one, is in its body.
    #[inline(always)] // saves moving the event once more
    fn handle_whole<'a>(
        &mut self,
        now: Time,
        header: &FrameHeader,
        body: &'a [u8],
    ) -> Result<Event<'a>, ProtocolError> {
        match (self.config.role, header.kind) {
            (Role::Server, FrameKind::Call) => self.handle_call(now, header, body),
            (Role::Client, FrameKind::Response) => self.handle_response(header, body),
            (_, FrameKind::Data) => self.handle_data(header, body),
            (_, FrameKind::Credit) => self.handle_credit(header, body),
            (Role::Client, FrameKind::Error) => self.handle_error(header, body),
            (Role::Client, FrameKind::End) => self.handle_end_of_answer(header, body),
            (Role::Server, FrameKind::End) => self.handle_end_of_upload(header, body),
            (Role::Server, FrameKind::Cancel) => self.handle_cancel(header, body),
            (Role::Server, FrameKind::Notify) => self.handle_notify(header, body),
            (_, FrameKind::Ping) => self.handle_ping(header, body),
            (_, FrameKind::Pong) => Ok(Event::Pong { id: header.id }),
            (_, FrameKind::GoAway) => self.handle_go_away(header, body),
            (Role::Client, FrameKind::Segment)
            | (Role::Server, FrameKind::WantSegment)
            | (_, FrameKind::Retire | FrameKind::Release) => self.handle_about_loans(header, body),
            (Role::Client, FrameKind::Quiet) => {
                check_empty(header, body)?;
                if !self.config.gives_back {
                    return Err(ProtocolError::NotAgreed { kind: header.kind });
                }
                Ok(Event::Quiet)
            }
            (role, kind) => Err(ProtocolError::WrongDirection { kind, role }),
        }
    }

    /// Ends one call whose deadline has passed, and returns it; `None` when there are no more.
    ///
    /// On a client a `CANCEL` is queued and the rest of the answer will be swallowed; if the `CALL` has not been written at all, call
    /// [`abort_start`](Self::abort_start). On a server an `ERROR` with `DEADLINE_EXCEEDED` is queued. Cheap while nothing is due.
    pub fn handle_timeout(&mut self, now: Time) -> Option<Expired> {
        loop {
            let id = self.calls.next_expired(now)?;
            let was_active = self.calls.is_active(id);
            match self.config.role {
                Role::Client => self.drain(id.slot()),
                Role::Server => self.expire_on_server(id, was_active),
            }
            if was_active {
                return Some(Expired { id });
            }
        }
    }

    /// Returns when [`handle_timeout`](Self::handle_timeout) is due: the earliest deadline.
    ///
    /// Looks at every slot if any call has a deadline, at none otherwise.
    #[inline]
    pub fn poll_timeout(&self) -> Option<Time> {
        self.calls.earliest_deadline()
    }

    /// Forgets everything because the connection has ended.
    ///
    /// Returns the calls whose outcome the application has not been told, each once. Calls whose request was not complete do not
    /// count: the application has never seen them.
    pub fn handle_closed(&mut self) -> Vec<CallId> {
        let open = self.calls.active_ids();
        self.closed = true;
        self.calls = Calls::default();
        self.free = Vec::new();
        self.control.clear();
        self.loans = Loans::new(self.config.role, false);
        self.budget = Budget::new(self.config.max_assembly_bytes);
        self.purse = Purse::unlimited();
        open
    }

    /// Announces that we leave. Calls under way go on.
    ///
    /// A client then starts no more calls. A server takes in what its client sends before it has read that, until it
    /// [refuses](Self::refuse_new) what comes. Of several announcements that wait, the last one is sent.
    pub fn go_away(&mut self, reason: GoAwayReason, text: &str) {
        self.leaving = true;
        if !self.closed {
            self.control.go_away = Some((reason, cut(text, MAX_GOAWAY_TEXT_BYTES).to_owned()));
        }
    }

    /// As a server: answers every new `CALL` with `UNAVAILABLE` and `NOT_EXECUTED` from now on, and drops every `NOTIFY`.
    pub fn refuse_new(&mut self) {
        self.refuses = true;
    }

    /// Asks the peer for an [`Event::Pong`] with the same number. Of several pings that wait, the last one is sent, behind a `GOAWAY` that waits.
    pub fn ping(&mut self, id: u64) {
        if !self.closed {
            self.control.ping = Some(id);
        }
    }

    /// Returns `true` if [`poll_transmit`](Self::poll_transmit) has a frame.
    #[inline]
    pub fn has_control(&self) -> bool {
        self.control.is_waiting() || self.loans.is_waiting()
    }

    /// Takes the next frame that the machine wants to have sent, until `None`.
    pub fn poll_transmit(&mut self) -> Option<ControlFrame> {
        if !self.has_control() {
            return None;
        }
        let max_body_bytes = usize::try_from(self.config.max_chunk_bytes).unwrap_or(usize::MAX);
        let frame = self.control.poll(&mut self.calls, max_body_bytes);
        frame.or_else(|| self.loans.poll())
    }

    /// Returns `true` if the outcome of the call is still open.
    #[inline]
    pub fn is_active(&self, id: CallId) -> bool {
        self.calls.is_active(id)
    }

    /// Returns the number of calls whose outcome is still open.
    #[inline]
    pub fn active_calls(&self) -> usize {
        self.calls.active_calls()
    }

    /// Returns `true` if calls are under way, those included of which a server has received only a part.
    pub fn has_open_calls(&self) -> bool {
        self.open_calls() > 0
    }

    #[inline]
    fn open_calls(&self) -> usize {
        let (active, receiving) = (self.calls.active_calls(), self.calls.receiving_calls());
        active.saturating_add(receiving)
    }

    /// Returns `true` if a divided message has arrived in part.
    #[inline]
    pub fn is_assembling(&self) -> bool {
        self.budget.is_used()
    }

    /// Returns `true` if either side has announced that it leaves.
    #[inline]
    pub fn is_going_away(&self) -> bool {
        self.leaving || self.peer_leaving
    }

    /// Returns how many slots have been used and how many stand in the control queue; neither exceeds
    /// [`Config::max_calls`].
    pub fn table_sizes(&self) -> (usize, usize) {
        (self.calls.len(), self.control.queued_slots())
    }

    fn handle_ping(
        &mut self,
        header: &FrameHeader,
        body: &[u8],
    ) -> Result<Event<'static>, ProtocolError> {
        check_empty(header, body)?;
        self.control.pong = Some(header.id);
        Ok(Event::None)
    }

    fn handle_go_away(
        &mut self,
        header: &FrameHeader,
        body: &[u8],
    ) -> Result<Event<'static>, ProtocolError> {
        let kind = header.kind;
        let reason = GoAwayReason::from_u32(header.value).ok_or(FrameError::Value {
            kind,
            value: header.value,
        })?;
        let invalid = FrameError::Text {
            kind,
            text_bytes: body.len(),
        };
        if body.len() > MAX_GOAWAY_TEXT_BYTES {
            return Err(invalid.into());
        }
        let text = std::str::from_utf8(body).map_err(|_| invalid)?.to_owned();
        self.peer_leaving = true;
        Ok(Event::GoAway { reason, text })
    }

    #[inline]
    fn check_open(&self, header: &FrameHeader) -> Result<(), ProtocolError> {
        if self.closed {
            Err(ProtocolError::Closed { kind: header.kind })
        } else {
            Ok(())
        }
    }

    /// Returns the slot of the call that a frame is about, or `None` if the frame is to be ignored because we ended the call.
    #[inline]
    fn locate(&self, header: &FrameHeader) -> Result<Option<u32>, ProtocolError> {
        match self.config.role {
            Role::Client => self.locate_on_client(header).map(Some),
            Role::Server => self.locate_on_server(header),
        }
    }

    /// Replaces the control frame that waits for a call.
    #[inline]
    fn set_unsent(&mut self, slot_index: u32, unsent: Unsent) {
        if let Some(slot) = self.calls.slot(slot_index) {
            self.control.set(slot_index, slot, unsent);
        }
    }

    /// Ends a call: `phase` follows, everything held for it is given back.
    #[inline]
    fn end(&mut self, slot_index: u32, phase: Phase) {
        let Some(slot) = self.calls.slot(slot_index) else {
            return;
        };
        let extra = slot.extra.take();
        self.control.set(slot_index, slot, Unsent::Nothing);
        self.calls.set_phase(slot_index, phase);
        if let Some(extra) = extra {
            self.give_up(slot_index, *extra, phase);
        }
        self.purse.trim(self.open_calls());
    }

    /// Gives back what was held for a call that has ended.
    #[inline(never)] // most calls have nothing
    fn give_up(&mut self, slot_index: u32, extra: calls::Extra, phase: Phase) {
        if let Some(assembly) = &extra.assembly {
            self.budget.release(assembly, &mut self.purse);
        }
        if phase != Phase::Held {
            self.purse
                .give_back(Share::StreamBytes, extra.charged_bytes);
        } else if let Some(slot) = self.calls.slot(slot_index) {
            slot.hold_charge(extra.charged_bytes); // its items may wait before the answer
        }
    }

    /// Returns the credit that a new call begins with.
    fn new_credit(&self, kind: CallKind) -> Option<Box<calls::Extra>> {
        let (sends, receives) = match self.config.role {
            Role::Client => (kind.has_upload(), kind.is_streaming()),
            Role::Server => (kind.is_streaming(), kind.has_upload()),
        };
        if !sends && !receives {
            return None;
        }
        let sending = Some(self.config.send_window_bytes).filter(|_| sends);
        let receiving = Some(self.config.receive_window_bytes).filter(|_| receives);
        let credit = Some(Credit::new(sending, receiving));
        Some(Box::new(calls::Extra {
            credit,
            ..calls::Extra::default()
        }))
    }

    /// Returns the windows of a call together, from the server's point of view.
    fn window_bytes(&self, kind: CallKind) -> u64 {
        let of = |has: bool, bytes: u32| if has { u64::from(bytes) } else { 0 };
        of(kind.is_streaming(), self.config.send_window_bytes)
            .saturating_add(of(kind.has_upload(), self.config.receive_window_bytes))
    }
}

/// Checks the body of a frame that has none.
#[inline]
fn check_empty(header: &FrameHeader, body: &[u8]) -> Result<(), FrameError> {
    if body.is_empty() && header.length == 0 {
        return Ok(());
    }
    Err(FrameError::Length {
        kind: header.kind,
        length: header.length,
    })
}

#[cfg(test)]
mod tests;

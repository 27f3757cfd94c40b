//! Hostile frames into the connection machine, in both roles, between what an application does meanwhile.
//!
//! The machine must not panic, and its tables must stay within the limits of its configuration. The memory of messages under
//! assembly is watched by libFuzzer's own limit (`-malloc_limit_mb`).

#![no_main]

use arbitrary::Arbitrary;
use doorbell_proto::{
    BlockId, CallId, CallKind, Config, Connection, Descriptor, Event, Flags, FrameHeader,
    FrameKind, GoAwayReason, Role, Status, Time,
};
use doorbell_proto::{
    Payload,
    limits::{MAX_LOANS, MAX_SEGMENTS},
};
use libfuzzer_sys::fuzz_target;

const MAX_CALLS: u32 = 8;
/// `PING`, `PONG` and `GOAWAY`, of each of which at most one waits; and what is said of loans: a frame for each block that is with us, one
/// for each segment that comes or goes, and as many for questions as there were deeds.
const OTHER_CONTROL: usize = 3 + MAX_LOANS + 2 * MAX_SEGMENTS;

#[derive(Arbitrary, Debug)]
struct Attack {
    is_server: bool,
    steps: Vec<Step>,
}

#[derive(Arbitrary, Debug)]
enum Step {
    /// A frame with a plausible call.
    Frame {
        kind: u8,
        flags: u8,
        slot: u8,
        generation: u8,
        value: u32,
        body: Body,
    },
    /// Whatever a header can be.
    Raw {
        header: [u8; 24],
        body: Vec<u8>,
    },
    Start {
        kind: u8,
        has_deadline: bool,
    },
    Application {
        deed: Deed,
        slot: u8,
        generation: u8,
    },
    Time {
        nanos: u16,
    },
    Transmit,
    GoAway,
    Close,
}

#[derive(Arbitrary, Debug)]
struct Body {
    total_bytes: Option<u16>,
    metadata_words: u8,
    payload: Vec<u8>,
}

#[derive(Arbitrary, Debug)]
enum Deed {
    Finish,
    Hold,
    Release,
    Fail,
    Cancel,
    Abort,
    Consume(u16),
    Item(u16),
    EndItems,
    Segment { is_clients: bool },
    Want,
    Retire,
    AskToRetire,
    Lend { offset: u8 },
    TakeBack { offset: u8 },
}

fuzz_target!(|attack: Attack| {
    let role = if attack.is_server {
        Role::Server
    } else {
        Role::Client
    };
    let mut machine = Connection::new(Config {
        role,
        max_calls: MAX_CALLS,
        max_message_bytes: 4096,
        max_assembly_bytes: 8192,
        max_chunk_bytes: 1000,
        receive_window_bytes: 2048,
        send_window_bytes: 2048,
        loans: true,
        gives_back: true,
    });
    let mut now = 0;
    let deeds = attack.steps.len();
    for step in attack.steps {
        take(&mut machine, role, &mut now, step);
        check(&machine);
    }
    let sent = std::iter::from_fn(|| machine.poll_transmit()).count();
    assert!(
        sent <= MAX_CALLS as usize + OTHER_CONTROL + deeds,
        "{sent} control frames"
    );
    assert!(!machine.has_control());
});

fn check(machine: &Connection) {
    let (slots, queued) = machine.table_sizes();
    let limit = MAX_CALLS as usize;
    assert!(
        slots <= limit && queued <= limit,
        "{slots} slots, {queued} queued"
    );
    assert!(machine.active_calls() <= slots);
    let ((lent, held), (own, peers)) = (machine.loans(), machine.segments());
    assert!(lent <= MAX_LOANS && held <= MAX_LOANS);
    assert!(own <= MAX_SEGMENTS && peers <= MAX_SEGMENTS);
}

/// Going on after an error is more than a peer gets; it must not hurt either.
fn take(machine: &mut Connection, role: Role, now: &mut u64, step: Step) {
    match step {
        Step::Frame {
            kind,
            flags,
            slot,
            generation,
            value,
            body,
        } => {
            let id = CallId::new(u32::from(slot), u32::from(generation));
            let (header, body) = frame(kind, flags, id, value, &body);
            handle(machine, *now, &header, &body);
        }
        Step::Raw { header, body } => {
            if let Ok(header) = FrameHeader::decode(&header) {
                handle(machine, *now, &header, &body);
            }
        }
        Step::Start { kind, has_deadline } if role == Role::Client => {
            let deadline = has_deadline.then(|| Time::from_nanos(*now + 1000));
            let _ = machine.start_call(KINDS[usize::from(kind % 4)], deadline);
        }
        Step::Start { .. } => {}
        Step::Application {
            deed,
            slot,
            generation,
        } => {
            let id = CallId::new(u32::from(slot), u32::from(generation));
            act(machine, role, id, &deed);
        }
        Step::Time { nanos } => {
            *now += u64::from(nanos);
            while machine.handle_timeout(Time::from_nanos(*now)).is_some() {}
        }
        Step::Transmit => drop(machine.poll_transmit()),
        Step::GoAway => machine.go_away(GoAwayReason::Idle, "idle"),
        Step::Close => drop(machine.handle_closed()),
    }
}

const KINDS: [CallKind; 4] = [
    CallKind::Unary,
    CallKind::ServerStream,
    CallKind::ClientStream,
    CallKind::Bidirectional,
];

/// Returns a frame that is well formed but for what it means.
fn frame(kind: u8, flags: u8, id: CallId, value: u32, body: &Body) -> (FrameHeader, Vec<u8>) {
    let kind = FrameKind::from_u8(kind % 16 + 1).expect("kinds are 1 to 16");
    let mut header = FrameHeader::new(kind, id.raw(), value);
    header.flags = Flags::from_bits(flags);
    let mut bytes = Vec::new();
    if header.flags.contains(Flags::DEADLINE) {
        bytes.extend_from_slice(&1000_u64.to_le_bytes());
    }
    if let Some(total_bytes) = body.total_bytes {
        bytes.extend_from_slice(&u64::from(total_bytes).to_le_bytes());
    }
    header.metadata_bytes = u16::from(body.metadata_words % 4) * 8;
    bytes.extend_from_slice(&body.payload);
    header.length = u32::try_from(bytes.len()).expect("inputs are small");
    (header, bytes)
}

fn handle(machine: &mut Connection, now: u64, header: &FrameHeader, body: &[u8]) {
    if takes_shortly(machine, header, body) {
        return;
    }
    let event = machine.handle_frame(Time::from_nanos(now), header, body);
    match &event {
        Ok(
            Event::Request { payload, .. }
            | Event::Response { payload, .. }
            | Event::Item { payload, .. },
        ) if header.value % 3 == 0 => {
            if let Payload::Loaned(loan) = payload {
                give_back(machine, loan.block);
            }
        }
        Ok(Event::SegmentWanted { .. }) => machine.refuse_segment(),
        _ => {}
    }
    if let Ok(Event::Item { id, cost_bytes, .. } | Event::Items { id, cost_bytes, .. }) = event
        && header.value % 2 == 0
    {
        machine.consumed(id, cost_bytes);
    }
}

/// Takes the commonest frames the short way, where there is one; those about loans every other time.
fn takes_shortly(machine: &mut Connection, header: &FrameHeader, body: &[u8]) -> bool {
    let words = header.to_words(0);
    let reply = FrameHeader::bare_response(&words);
    if reply.is_some_and(|id| machine.take_reply(id, body.len())) {
        return true;
    }
    let call = FrameHeader::bare_call(&words);
    if call.is_some_and(|(id, _)| machine.take_request(id, body.len())) {
        return true;
    }
    let release = FrameHeader::bare_release(&words).filter(|block| block.offset() % 128 == 0);
    if release.is_some_and(|block| machine.take_back(block)) {
        return true;
    }
    let Some(loan) = Descriptor::decode(body).filter(|_| header.value % 2 == 0) else {
        return false;
    };
    let reply = FrameHeader::bare_lent_response(&words);
    let call = FrameHeader::bare_lent_call(&words);
    let takes = reply.is_some_and(|id| machine.take_lent_reply(id, loan))
        || call.is_some_and(|(id, _)| machine.take_lent_request(id, loan));
    if takes && header.value % 3 == 0 {
        give_back(machine, loan.block);
    }
    takes
}

/// Gives a block back as whoever drops it does.
fn give_back(machine: &mut Connection, block: BlockId) {
    if machine.may_give_back(block) {
        machine.gave_back(block);
    } else {
        machine.give_back(block);
    }
}

fn act(machine: &mut Connection, role: Role, id: CallId, deed: &Deed) {
    match (role, deed) {
        (Role::Server, Deed::Finish) => drop(machine.finish(id)),
        (Role::Server, Deed::Hold) => drop(machine.finish_and_hold(id)),
        (Role::Server, Deed::Release) => machine.release(id),
        (Role::Server, Deed::Fail) => drop(machine.fail(id, Status::internal("no"))),
        (Role::Client, Deed::Cancel) => drop(machine.cancel(id)),
        (Role::Client, Deed::Abort) => machine.abort_start(id),
        (_, Deed::Consume(bytes)) => machine.consumed(id, u64::from(*bytes)),
        (_, Deed::Item(bytes)) => drop(machine.reserve_item(id, u64::from(*bytes))),
        (_, Deed::EndItems) => drop(machine.end_items(id)),
        (Role::Server, Deed::Segment { is_clients }) => {
            let writer = if *is_clients {
                Role::Client
            } else {
                Role::Server
            };
            if let Some(number) = machine.next_segment(writer) {
                machine.announce_segment(number, 1);
            }
        }
        (Role::Client, Deed::Want) => drop(machine.want_segment(1)),
        (_, Deed::Retire) => drop(machine.retire_segment(id.slot())),
        (_, Deed::AskToRetire) => drop(machine.ask_to_retire(id.slot())),
        (_, Deed::Lend { offset }) => {
            let _ = machine.lend(BlockId::new(id.slot(), u32::from(*offset) * 64));
        }
        (_, Deed::TakeBack { offset }) => {
            let _ = machine.take_back(BlockId::new(id.slot(), u32::from(*offset) * 64));
        }
        _ => {}
    }
}

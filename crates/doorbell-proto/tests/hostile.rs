//! A peer that sends anything: the machine never panics and never holds more than its limits.

use doorbell_proto::{
    CallId, CallKind, Config, Connection, Event, Flags, FrameHeader, FrameKind, Role, Status, Time,
};
use proptest::prelude::*;

const MAX_CALLS: u32 = 8;

fn machine(role: Role) -> Connection {
    Connection::new(Config {
        role,
        max_calls: MAX_CALLS,
        max_message_bytes: 4096,
        max_assembly_bytes: 8192,
        max_chunk_bytes: 1000,
        receive_window_bytes: 2048,
        send_window_bytes: 2048,
        loans: true,
        gives_back: true,
    })
}

/// Headers that are mostly plausible: small slots, low generations, existing kinds.
fn header() -> impl Strategy<Value = FrameHeader> {
    let id = prop_oneof![
        20 => (0..MAX_CALLS, 0..6u32).prop_map(|(slot, generation)| CallId::new(slot, generation).raw()),
        1 => any::<u64>(),
    ];
    let value = prop_oneof![4 => 0..20u32, 1 => any::<u32>()];
    let flags = prop_oneof![2 => Just(0u8), 2 => 0..16u8, 2 => any::<u8>()];
    let kind = (1..=16u8).prop_map(|kind| FrameKind::from_u8(kind).unwrap());
    let metadata_bytes = prop_oneof![8 => Just(0u16), 1 => Just(8u16), 1 => any::<u16>()];
    (0..64u32, kind, flags, metadata_bytes, id, value).prop_map(
        |(length, kind, flags, metadata_bytes, id, value)| FrameHeader {
            length,
            kind,
            flags: Flags::from_bits(flags),
            metadata_bytes,
            id,
            value,
        },
    )
}

/// Bodies whose numbers are mostly small, so that totals are plausible.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let small = (0..200u64).prop_map(|total| {
        let mut body = total.to_le_bytes().to_vec();
        body.resize(64, 0);
        body
    });
    prop_oneof![small, proptest::collection::vec(any::<u8>(), 64)]
}

fn frames() -> impl Strategy<Value = Vec<(FrameHeader, Vec<u8>, u8)>> {
    proptest::collection::vec((header(), body(), any::<u8>()), 1..300)
}

/// Does to the call of an event what an application might.
fn react(machine: &mut Connection, event: &Event<'_>, choice: u8) {
    match (event, choice % 4) {
        (Event::Request { id, .. }, 0) => drop(machine.finish(*id)),
        (Event::Request { id, .. }, 1) => drop(machine.fail(*id, Status::internal("no"))),
        (Event::Item { id, cost_bytes, .. } | Event::Items { id, cost_bytes, .. }, _) => {
            machine.consumed(*id, *cost_bytes);
        }
        _ => {}
    }
}

fn attack(machine: &mut Connection, frames: &[(FrameHeader, Vec<u8>, u8)]) {
    for (step, (header, body, choice)) in (0..).zip(frames) {
        let body = body
            .get(..usize::try_from(header.length).unwrap())
            .unwrap_or_default();
        // Going on after an error is more than a peer gets; it must not hurt either.
        if let Ok(event) = machine.handle_frame(Time::from_nanos(step), header, body) {
            react(machine, &event, *choice);
        }
        if choice % 5 == 0 {
            while machine.handle_timeout(Time::from_nanos(step)).is_some() {}
        }
        if choice % 7 == 0 {
            machine.poll_transmit();
        }
        let (slots, queued) = machine.table_sizes();
        assert!(slots <= 8 && queued <= 8, "{slots} slots, {queued} queued");
        assert!(machine.active_calls() <= slots);
    }
    let sent = std::iter::from_fn(|| machine.poll_transmit()).count();
    assert!(sent <= 8 + 3, "{sent} control frames");
    assert!(!machine.has_control());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn server_under_arbitrary_frames_stays_within_its_limits(frames in frames()) {
        let mut machine = machine(Role::Server);
        attack(&mut machine, &frames);
    }

    #[test]
    fn client_under_arbitrary_frames_stays_within_its_limits(frames in frames(), kinds in proptest::collection::vec(0..4u8, 0..8)) {
        let mut machine = machine(Role::Client);
        let mut started = Vec::new();
        for kind in kinds {
            let kind = [CallKind::Unary, CallKind::ServerStream, CallKind::ClientStream, CallKind::Bidirectional][usize::from(kind)];
            started.push(machine.start_call(kind, Some(Time::from_nanos(200))).unwrap());
        }
        if let Some(first) = started.first() {
            machine.cancel(*first);
        }
        attack(&mut machine, &frames);
    }

    #[test]
    fn arbitrary_bytes_never_panic(headers in proptest::collection::vec((any::<[u8; 24]>(), proptest::collection::vec(any::<u8>(), 0..80)), 1..20)) {
        let (mut server, mut client) = (machine(Role::Server), machine(Role::Client));
        for (bytes, body) in headers {
            let Ok(header) = FrameHeader::decode(&bytes) else { continue };
            let _ = server.handle_frame(Time::default(), &header, &body);
            let _ = client.handle_frame(Time::default(), &header, &body);
        }
    }
}

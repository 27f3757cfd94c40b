//! What a server's machine takes from its allowance, and gives back.

use super::*;
use std::sync::{Arc, Mutex};

/// What is left, seen by the tests while a machine has it.
#[derive(Clone, Debug)]
struct Shared(Arc<Mutex<Left>>);

#[derive(Debug)]
struct Left {
    calls: u64,
    step: u32,
    asked: u32,
    assembly_bytes: u64,
    stream_bytes: u64,
    metadata_bytes: u64,
}

impl Shared {
    fn left(&self) -> (u64, u64, u64) {
        let left = self.0.lock().unwrap();
        (left.calls, left.assembly_bytes, left.stream_bytes)
    }

    fn asked(&self) -> u32 {
        self.0.lock().unwrap().asked
    }
}

impl Allowance for Shared {
    fn take_calls(&self) -> Result<u32, String> {
        let mut left = self.0.lock().unwrap();
        left.asked += 1;
        let taken = u64::from(left.step).min(left.calls);
        left.calls -= taken;
        match u32::try_from(taken).unwrap() {
            0 => Err("no more calls".to_owned()),
            taken => Ok(taken),
        }
    }

    fn take(&self, share: Share, bytes: u64) -> Result<(), String> {
        let mut left = self.0.lock().unwrap();
        let of = match share {
            Share::Calls => panic!("calls are taken apart"),
            Share::AssemblyBytes => &mut left.assembly_bytes,
            Share::StreamBytes => &mut left.stream_bytes,
        };
        *of = of
            .checked_sub(bytes)
            .ok_or_else(|| format!("no more {share:?}"))?;
        Ok(())
    }

    fn give_back(&self, share: Share, amount: u64) {
        let mut left = self.0.lock().unwrap();
        match share {
            Share::Calls => left.calls += amount,
            Share::AssemblyBytes => left.assembly_bytes += amount,
            Share::StreamBytes => left.stream_bytes += amount,
        }
    }

    fn check_metadata(&self, bytes: u64) -> Result<(), String> {
        let limit = self.0.lock().unwrap().metadata_bytes;
        if bytes > limit {
            return Err("too much metadata".to_owned());
        }
        Ok(())
    }
}

const CALLS: u64 = 2;
const ASSEMBLY_BYTES: u64 = 120;
const STREAM_BYTES: u64 = 2 * WINDOW_BYTES as u64;
const ALL: (u64, u64, u64) = (CALLS, ASSEMBLY_BYTES, STREAM_BYTES);

fn server(step: u32) -> (Connection, Shared) {
    let shared = Shared(Arc::new(Mutex::new(Left {
        calls: CALLS,
        step,
        asked: 0,
        assembly_bytes: ASSEMBLY_BYTES,
        stream_bytes: STREAM_BYTES,
        metadata_bytes: 16,
    })));
    let config = machine(Role::Server).config;
    let server = Connection::with_allowance(config, Box::new(shared.clone()));
    (server, shared)
}

fn call(server: &mut Connection, slot: u32, generation: u32, kind: CallKind) -> bool {
    let id = id(slot, generation);
    let event = feed(server, FrameKind::Call, kind.flags(), (id, 7), b"request").unwrap();
    matches!(event, Event::Request { .. })
}

/// Expects the last call to have been refused before any handler has seen it.
fn refused(server: &mut Connection, why: &str) {
    let status = only_error(server);
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(!status.was_executed());
    assert!(status.message().contains(why), "{status}");
}

#[test]
fn call_beyond_the_allowance_is_refused_until_another_one_ends() {
    let (mut server, shared) = server(1);
    assert!(call(&mut server, 0, 1, CallKind::Unary));
    assert!(call(&mut server, 1, 1, CallKind::Unary));
    assert!(!call(&mut server, 2, 1, CallKind::Unary));
    refused(&mut server, "no more calls");
    assert!(server.finish(id(0, 1)));
    assert_eq!(shared.left().0, 1, "given back at once, others may wait");
    assert!(call(&mut server, 2, 2, CallKind::Unary));
}

#[test]
fn call_for_which_the_allowance_must_be_asked_does_not_take_the_short_way() {
    let (mut server, shared) = server(1);
    assert!(call(&mut server, 0, 1, CallKind::Unary) && server.finish(id(0, 1)));
    assert!(!server.take_request(id(0, 2), 1));
    assert_eq!((shared.asked(), shared.left()), (1, ALL));
}

#[test]
fn allowance_is_not_asked_for_each_call_and_gets_back_what_is_unused() {
    let (mut server, shared) = server(2);
    for generation in 1..100 {
        assert!(call(&mut server, 0, generation, CallKind::Unary));
        assert!(server.finish(id(0, generation)));
    }
    assert_eq!(shared.asked(), 1);
    assert_eq!(shared.left().0, 0);
    assert!(call(&mut server, 0, 100, CallKind::Unary));
    server.give_back_unused();
    assert_eq!(shared.left().0, 1, "one is under way");
    assert!(server.finish(id(0, 100)));
    server.give_back_unused();
    assert_eq!(shared.left(), ALL);
}

#[test]
fn stream_takes_its_windows_until_its_last_item_is_written() {
    let (mut server, shared) = server(1);
    assert!(call(&mut server, 0, 1, CallKind::Bidirectional));
    assert_eq!(shared.left().2, 0);
    assert!(!call(&mut server, 1, 1, CallKind::ClientStream));
    refused(&mut server, "no more StreamBytes");
    assert!(
        call(&mut server, 2, 1, CallKind::Unary),
        "it needs no window"
    );
    assert!(server.finish(id(2, 1)));
    assert!(server.finish_and_hold(id(0, 1)));
    assert_eq!(shared.left().2, 0, "its items may wait before its answer");
    server.release(id(0, 1));
    assert_eq!(shared.left(), ALL);
    assert!(call(&mut server, 0, 2, CallKind::ServerStream));
    assert_eq!(shared.left().2, u64::from(WINDOW_BYTES));
    feed(
        &mut server,
        FrameKind::Cancel,
        Flags::NONE,
        (id(0, 2), 0),
        b"",
    )
    .unwrap();
    assert_eq!(shared.left(), ALL);
}

#[test]
fn window_that_the_client_raises_is_taken_too() {
    let (mut server, shared) = server(1);
    let credit = |server: &mut Connection, bytes| {
        let event = feed(
            server,
            FrameKind::Credit,
            Flags::NONE,
            (id(0, 1), bytes),
            b"",
        );
        matches!(event, Ok(Event::Failed { .. }))
    };
    assert!(call(&mut server, 0, 1, CallKind::ServerStream));
    server.reserve_item(id(0, 1), 100).unwrap();
    assert!(!credit(&mut server, 100));
    assert_eq!(
        shared.left().2,
        u64::from(WINDOW_BYTES),
        "it was granted again"
    );
    assert!(!credit(&mut server, 24));
    assert_eq!(shared.left().2, u64::from(WINDOW_BYTES) - 24);
    assert!(credit(&mut server, WINDOW_BYTES));
    let status = only_error(&mut server);
    assert_eq!(
        (status.code(), status.was_executed()),
        (Code::ResourceExhausted, true)
    );
    assert_eq!(shared.left(), ALL);
}

#[test]
fn message_under_assembly_takes_its_announced_size() {
    let (mut server, shared) = server(1);
    let first = |server: &mut Connection, slot, total_bytes| {
        let call = (id(slot, 1), 7);
        feed_first(
            server,
            FrameKind::Call,
            Flags::NONE,
            call,
            (total_bytes, b"ab"),
        )
        .unwrap();
    };
    first(&mut server, 0, 90);
    assert_eq!(shared.left().1, ASSEMBLY_BYTES - 90);
    first(&mut server, 1, 50);
    refused(&mut server, "no more AssemblyBytes");
    first(&mut server, 2, 30);
    assert_eq!(shared.left().1, 0);
    feed(
        &mut server,
        FrameKind::Cancel,
        Flags::NONE,
        (id(0, 1), 0),
        b"",
    )
    .unwrap();
    assert_eq!(shared.left().1, 90);
    let rest = feed(
        &mut server,
        FrameKind::Call,
        Flags::CONTINUE,
        (id(2, 1), 7),
        &[0; 28],
    );
    assert!(matches!(rest, Ok(Event::Request { .. })), "{rest:?}");
    assert_eq!(shared.left().1, ASSEMBLY_BYTES, "it is the handler's now");
}

#[test]
fn too_much_metadata_is_refused_with_its_call_and_dropped_with_its_notification() {
    let (mut server, shared) = server(1);
    let mut metadata = Metadata::new();
    metadata.insert("key", b"twenty bytes of value").unwrap();
    let prefix = Prefix {
        metadata: Some(&metadata),
        ..Prefix::default()
    };
    let mut header = FrameHeader::new(FrameKind::Call, id(0, 1).raw(), 7);
    assert!(prefix.set_header(&mut header, 0));
    let mut body = Vec::new();
    prefix.encode(&mut body);
    assert_eq!(server.handle_frame(NOW, &header, &body), Ok(Event::None));
    refused(&mut server, "too much metadata");
    header.kind = FrameKind::Notify;
    header.id = 0;
    assert_eq!(server.handle_frame(NOW, &header, &body), Ok(Event::None));
    shared.0.lock().unwrap().metadata_bytes = 1000;
    let event = server.handle_frame(NOW, &header, &body);
    assert!(matches!(event, Ok(Event::Notify { .. })), "{event:?}");
}

#[test]
fn everything_is_given_back_at_the_end() {
    for is_closed in [true, false] {
        let (mut server, shared) = server(2);
        assert!(call(&mut server, 0, 1, CallKind::Bidirectional));
        let request = (id(1, 1), 7);
        feed_first(
            &mut server,
            FrameKind::Call,
            Flags::NONE,
            request,
            (90, b"ab"),
        )
        .unwrap();
        assert_eq!(shared.left(), (0, ASSEMBLY_BYTES - 90, 0));
        if is_closed {
            server.handle_closed();
        } else {
            drop(server);
        }
        assert_eq!(shared.left(), ALL);
    }
}

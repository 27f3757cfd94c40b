//! Messages on the control socket with handles in them, in any pieces, from a hostile server and from a hostile client: real sockets
//! and real handles. Whatever comes, no handle is left open, and a client maps only what it was promised.
//!
//! An input says how long the pieces are, which piece carries handles, which handles those are, and then what bytes are sent.

#![no_main]

use std::{
    fs::File,
    os::fd::{AsFd, BorrowedFd},
    sync::LazyLock,
};

use doorbell_proto::{
    handshake::{BellKind, BellKinds, Features, Hello, Message, VERSIONS, Welcome},
    limits::MAX_HANDSHAKE_BYTES,
};
use doorbell_shm::{
    Layout, ServerMemory, adopt, create,
    sys::{ControlStream, Doorbell, DoorbellKind, OwnedHandle, RegionHandle, create_region},
};
use libfuzzer_sys::fuzz_target;

/// What a client takes.
const HANDLES: usize = 4;
const MAX_SENT_HANDLES: usize = 6;

fuzz_target!(|input: &[u8]| {
    let Some((plan, bytes)) = input.split_first_chunk() else {
        return;
    };
    let bytes = &bytes[..bytes.len().min(MAX_HANDSHAKE_BYTES + 8)];
    let attack = Attack::new(*plan, bytes);
    let (attacker, victim) = ControlStream::pair().expect("two descriptors");
    attack.run(&attacker, &victim);
    drop((attacker, victim, attack));
    count_now_and_then();
});

struct Attack<'a> {
    bytes: &'a [u8],
    piece_bytes: usize,
    piece_with_handles: usize,
    kinds: [u8; MAX_SENT_HANDLES],
    on_client: bool,
    promised: Option<(Welcome, ServerMemory)>,
}

impl<'a> Attack<'a> {
    fn new([piece, place, kinds @ ..]: [u8; 8], bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            piece_bytes: usize::from(piece) * 4 + 1,
            piece_with_handles: usize::from(place % 4),
            kinds,
            on_client: place < 192,
            promised: promised(bytes),
        }
    }

    fn run(&self, attacker: &ControlStream, victim: &ControlStream) {
        let mut arrived = Vec::new();
        let mut handles = Vec::new();
        for (number, piece) in self.bytes.chunks(self.piece_bytes).enumerate() {
            let with = if number == self.piece_with_handles {
                self.handles()
            } else {
                Vec::new()
            };
            attacker
                .send_with_handles(piece, &with)
                .expect("there is room");
            let goes_on = if self.on_client {
                self.receive_as_client(victim, &mut arrived, &mut handles)
            } else {
                receive_as_server(victim, &mut arrived, with.is_empty())
            };
            if !goes_on {
                return;
            }
        }
    }

    /// Returns `true` if more has to come.
    fn receive_as_client(
        &self,
        stream: &ControlStream,
        arrived: &mut Vec<u8>,
        handles: &mut Vec<OwnedHandle>,
    ) -> bool {
        let mut buffer = [0; 1024];
        let room = HANDLES - handles.len();
        let Ok((count, more)) = stream.receive_with_handles(&mut buffer, room) else {
            return false;
        };
        assert!(more.len() <= room);
        arrived.extend_from_slice(&buffer[..count]);
        handles.extend(more);
        match Message::decode(arrived) {
            Ok(None) => true,
            Ok(Some((Message::Welcome(welcome), _))) => {
                self.assemble(&welcome, std::mem::take(handles));
                false
            }
            Ok(Some(_)) | Err(_) => false,
        }
    }

    fn assemble(&self, welcome: &Welcome, handles: Vec<OwnedHandle>) {
        let Ok([server, client, peer_bell, bell]) = <[OwnedHandle; HANDLES]>::try_from(handles)
        else {
            return;
        };
        if welcome.check(&hello()).is_err() {
            return;
        }
        let layout = |capacity| Layout::new(capacity, welcome.max_calls).expect("it was checked");
        let adopted = adopt(
            RegionHandle::from_handle(server),
            RegionHandle::from_handle(client),
            layout(welcome.server_ring_capacity_bytes),
            layout(welcome.client_ring_capacity_bytes),
        );
        // Only these two, in this order, are what a server may send.
        assert_eq!(
            adopted.is_ok(),
            self.kinds[..2] == [SERVER_REGION, CLIENT_REGION]
        );
        let (kind, expected) = match welcome.bell {
            BellKind::EventFd => (DoorbellKind::Event, EVENT),
            BellKind::Socket => (DoorbellKind::Socket, SOCKET),
        };
        for (handle, sent) in [peer_bell, bell].into_iter().zip(&self.kinds[2..]) {
            let taken = Doorbell::from_handle(handle, kind);
            assert_eq!(taken.is_ok(), is_like(*sent, expected));
        }
    }

    /// Up to the first kind that is none.
    fn handles(&self) -> Vec<BorrowedFd<'_>> {
        self.kinds
            .iter()
            .map_while(|kind| self.handle(*kind))
            .collect()
    }

    fn handle(&self, kind: u8) -> Option<BorrowedFd<'_>> {
        let stock: &'static Stock = &STOCK;
        Some(match kind {
            EVENT => stock.event.as_handle(),
            SOCKET => stock.socket.as_handle(),
            SERVER_REGION => self.promised.as_ref()?.1.server_handle.as_handle(),
            CLIENT_REGION => self.promised.as_ref()?.1.client_handle.as_handle(),
            FILE => stock.file.as_fd(),
            UNSEALED => stock.unsealed.as_handle(),
            CONTROL => stock.control.as_fd(),
            _ => return None,
        })
    }
}

const SERVER_REGION: u8 = 1;
const CLIENT_REGION: u8 = 2;
const EVENT: u8 = 3;
const SOCKET: u8 = 4;
const FILE: u8 = 5;
const UNSEALED: u8 = 6;
/// A stream socket as good as that of a doorbell.
const CONTROL: u8 = 7;

fn is_like(sent: u8, expected: u8) -> bool {
    sent == expected || (sent, expected) == (CONTROL, SOCKET)
}

/// Handles that are the same in every run.
struct Stock {
    event: Doorbell,
    socket: Doorbell,
    file: File,
    unsealed: RegionHandle,
    control: ControlStream,
    _others: (Doorbell, Doorbell, ControlStream),
}

static STOCK: LazyLock<Stock> = LazyLock::new(|| {
    let (event, event_end) = Doorbell::pair(DoorbellKind::Event).expect("two descriptors");
    let (socket, socket_end) = Doorbell::pair(DoorbellKind::Socket).expect("two descriptors");
    let (control, control_end) = ControlStream::pair().expect("two descriptors");
    Stock {
        event,
        socket,
        file: File::open("/dev/null").expect("it is always there"),
        unsealed: create_region(1 << 16).expect("a page of memory"),
        control,
        _others: (event_end, socket_end, control_end),
    }
});

/// Makes what the bytes promise, if they are what a client accepts.
fn promised(bytes: &[u8]) -> Option<(Welcome, ServerMemory)> {
    let Ok(Some((Message::Welcome(welcome), _))) = Message::decode(bytes) else {
        return None;
    };
    welcome.check(&hello()).ok()?;
    let layout = |capacity| Layout::new(capacity, welcome.max_calls).expect("it was checked");
    let memory = create(
        layout(welcome.server_ring_capacity_bytes),
        layout(welcome.client_ring_capacity_bytes),
    );
    Some((welcome, memory.expect("two pages of memory")))
}

fn hello() -> Hello {
    Hello {
        versions: VERSIONS,
        features: Features::BODY_CRC,
        ring_capacity_bytes: 0,
        receive_window_bytes: 1 << 18,
        max_message_bytes: 1 << 26,
        bells: BellKinds::EVENT_FD.with(BellKinds::SOCKET),
        name: String::new(),
    }
}

/// Returns `true` if more has to come. A server takes no handle.
fn receive_as_server(stream: &ControlStream, arrived: &mut Vec<u8>, without_handles: bool) -> bool {
    let mut buffer = [0; 1024];
    let received = stream.receive(&mut buffer);
    assert_eq!(received.is_ok(), without_handles);
    let Ok(count) = received else { return false };
    arrived.extend_from_slice(&buffer[..count]);
    matches!(Message::decode(arrived), Ok(None))
}

/// Looks for descriptors left open, at most once in so many runs, because looking takes longer than a run.
fn count_now_and_then() {
    use std::cell::Cell;
    const RUNS: u32 = 4096;
    thread_local!(static SEEN: Cell<(u32, Option<usize>)> = const { Cell::new((0, None)) });
    let (run, before) = SEEN.get();
    if run % RUNS != RUNS - 1 {
        return SEEN.set((run + 1, before));
    }
    let open = std::fs::read_dir("/proc/self/fd")
        .expect("proc is there")
        .count();
    // libFuzzer itself opens a file now and then.
    assert!(
        open <= before.unwrap_or(open) + 8,
        "{open} descriptors, at first {before:?}"
    );
    SEEN.set((0, before.or(Some(open))));
}

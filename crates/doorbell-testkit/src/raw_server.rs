//! A server made by hand, to say what no proper server would.

use std::{path::Path, time::Instant};

use doorbell_proto::{
    frame::{FrameHeader, FrameKind, HEADER_BYTES},
    handshake::{Features, Hello, Message, ServerOffer, Welcome, negotiate},
    limits::SEGMENT_PAGE_BYTES,
};
use doorbell_shm::{
    Announcer, Consumer, Layout, Notifier, OwnRegion, SleepOn,
    memory::{
        OwnMemory, PeerMemory, RegionWriter, RingWriter, create, create_in_two, create_own_segment,
    },
    sys::{BorrowedHandle, ControlStream, Doorbell, DoorbellKind, Listener, RegionHandle, Woken},
};

use crate::{PATIENCE, RawClient, bell};

/// One connection of a server whose ring can be filled with anything.
#[derive(Debug)]
pub struct RawServer {
    /// Memory that the client reads: its positions can be set to anything.
    pub own: OwnRegion,
    control: ControlStream,
    peer: doorbell_shm::PeerRegion,
    consumer: Consumer,
    announcer: Announcer,
    notifier: Notifier,
    writer: RegionWriter,
    tail: u32,
    client_bell: Doorbell,
    own_bell: Doorbell,
}

impl RawServer {
    /// Listens at `path`.
    ///
    /// # Panics
    ///
    /// If somebody else does.
    pub fn listen(path: &Path) -> Listener {
        Listener::bind(path).expect("nobody else listens")
    }

    /// Waits for a client and for its hello.
    ///
    /// # Panics
    ///
    /// If none comes.
    pub fn greet(listener: &Listener) -> (ControlStream, Hello) {
        let mut accepted = None;
        crate::eventually("a client comes", || {
            accepted = listener.accept().expect("a listener");
            accepted.is_some()
        });
        let control = accepted.expect("just seen");
        let (mut bytes, mut buffer) = (Vec::new(), [0; 1024]);
        loop {
            if let Some((Message::Hello(hello), _)) =
                Message::decode(&bytes).expect("a proper client")
            {
                return (control, hello);
            }
            let woken = control
                .wait_readable(Some(Instant::now() + PATIENCE))
                .expect("a socket");
            assert_eq!(woken, Woken::Notified, "the client says nothing");
            let count = control.receive(&mut buffer).expect("a socket");
            assert!(count > 0, "the client left");
            bytes.extend_from_slice(&buffer[..count]);
        }
    }

    /// Returns what a proper server would answer.
    ///
    /// # Panics
    ///
    /// If it would refuse.
    pub fn welcome(hello: &Hello) -> Welcome {
        Self::welcome_with(hello, Features::BODY_CRC.with(Features::LOANS))
    }

    fn welcome_with(hello: &Hello, features: Features) -> Welcome {
        let offer = ServerOffer {
            features,
            ..ServerOffer::default()
        };
        negotiate(hello, &offer).expect("a proper client")
    }

    /// Waits for a client and finishes a handshake in order.
    ///
    /// # Panics
    ///
    /// If none comes.
    pub fn accept(listener: &Listener) -> Self {
        let (control, hello) = Self::greet(listener);
        Self::serve(control, Self::welcome(&hello))
    }

    /// As [`accept`](Self::accept), with a ring in two memories.
    ///
    /// # Panics
    ///
    /// If no client comes, or one that does not want that.
    pub fn accept_giving_back(listener: &Listener) -> Self {
        let (control, hello) = Self::greet(listener);
        let welcome = Self::welcome_with(&hello, Features::GIVE_BACK);
        assert_eq!(welcome.features, Features::GIVE_BACK);
        Self::serve(control, welcome)
    }

    fn serve(control: ControlStream, welcome: Welcome) -> Self {
        let layout = |capacity| Layout::new(capacity, welcome.max_calls).expect("an agreed size");
        let server = layout(welcome.server_ring_capacity_bytes);
        let client = layout(welcome.client_ring_capacity_bytes);
        let memory = match welcome.features.contains(Features::GIVE_BACK) {
            true => create_in_two(server, client),
            false => create(server, client),
        };
        let memory = memory.expect("memory");
        let kind = DoorbellKind::default_kind();
        let (own_bell, rung_by_client) = Doorbell::pair(kind).expect("a doorbell");
        let (heard_by_client, client_bell) = Doorbell::pair(kind).expect("a doorbell");
        let mut handles = vec![
            memory.server_handle.as_handle(),
            memory.client_handle.as_handle(),
            rung_by_client.as_handle(),
            heard_by_client.as_handle(),
        ];
        handles.extend(memory.pages_handle.iter().map(RegionHandle::as_handle));
        control
            .send_with_handles(&Message::Welcome(welcome).encode(), &handles)
            .expect("the client reads");
        Self {
            control,
            consumer: Consumer::new(memory.own.clone(), memory.peer.clone()),
            announcer: Announcer::new(memory.own.clone()),
            notifier: Notifier::new(memory.own.clone(), memory.peer.clone()),
            peer: memory.peer,
            writer: memory.own.claim_writer(),
            own: memory.own,
            tail: 0,
            client_bell,
            own_bell,
        }
    }

    /// Sends a message over the control socket, as a segment is, with what rides with it.
    ///
    /// # Panics
    ///
    /// If the client does not take it.
    pub fn send_control(&self, message: &[u8], handles: &[BorrowedHandle<'_>]) {
        let sent = self.control.send_with_handles(message, handles);
        assert_eq!(sent.expect("the client takes it"), message.len());
    }

    /// Returns what the message on the control socket says of a segment.
    pub fn segment_message(number: u32, pages: u32) -> [u8; 8] {
        (u64::from(number) | u64::from(pages) << 32).to_le_bytes()
    }

    /// Announces a segment, whether it has been sent or not.
    pub fn say_segment(&mut self, number: u32, pages: u32) {
        let header = FrameHeader::new(FrameKind::Segment, number.into(), pages);
        self.push(&RawClient::seal(header, &[]), &[]);
    }

    /// Sends a segment for us to write, and announces it, as a proper server does.
    ///
    /// # Panics
    ///
    /// If there is no memory, or the client does not take it.
    pub fn send_segment(&mut self, number: u32, pages: u32) {
        let (_, handle) = create_own_segment(pages * SEGMENT_PAGE_BYTES).expect("memory");
        self.send_control(&Self::segment_message(number, pages), &[handle.as_handle()]);
        self.say_segment(number, pages);
    }

    /// Announces that we sleep until the client sends something; to wait for room is not our business.
    pub fn fall_asleep(&mut self) {
        self.announcer.announce(SleepOn::Doorbell, false);
    }

    /// Returns `true` if the client has rung since this was last asked.
    ///
    /// # Panics
    ///
    /// If the bell cannot be read.
    pub fn is_rung(&self) -> bool {
        let woken = self.own_bell.wait(Some(Instant::now()));
        woken.expect("our own bell") == Woken::Notified
    }

    /// Waits until the client has sent something.
    ///
    /// # Panics
    ///
    /// If it does not in time.
    pub fn wait_for_frame(&self) {
        crate::eventually("the client sends", || self.peer.load_tail() != 0);
    }

    /// Returns the client's next frame if there is one, and gives its room back without waking anybody.
    ///
    /// # Panics
    ///
    /// If the client writes nonsense.
    pub fn read(&mut self) -> Option<(FrameHeader, Vec<u8>)> {
        let bytes = self.consumer.peek().expect("a proper client")?;
        let header = FrameHeader::decode(&bytes).expect("a proper frame");
        let mut body = Vec::new();
        self.consumer.copy_body(&mut body);
        self.consumer.advance();
        self.consumer.release();
        Some((header, body))
    }

    /// Wakes the client if it sleeps and waits for the room that has been given back, as a proper server does.
    ///
    /// # Panics
    ///
    /// If that is not possible.
    pub fn wake_for_room(&mut self) {
        match self.notifier.after_release() {
            None => {}
            Some(SleepOn::Futex) => self.own.wake().expect("a futex"),
            Some(SleepOn::Doorbell) => self.ring(),
        }
    }

    /// Rings the client's bell, whether it sleeps or not. One that has left already does not mind.
    ///
    /// # Panics
    ///
    /// If that is not possible.
    pub fn ring(&self) {
        bell::ring(&self.client_bell);
    }

    /// Returns what the client has announced to sleep on.
    pub fn client_sleeps_on(&self) -> Option<SleepOn> {
        bell::sleeps_on(self.peer.load_sleep())
    }

    /// Returns the generation of the call that the client shows as the last cancelled one of a slot.
    pub fn cancel_generation(&self, slot: u32) -> u32 {
        self.peer.cancel_generation(slot)
    }

    /// Writes a frame without looking at it, publishes it and wakes the client however it sleeps.
    pub fn push(&mut self, header: &[u8; HEADER_BYTES], body: &[u8]) {
        self.write(header, body);
        self.publish(self.tail);
    }

    /// Writes a frame without looking at it and publishes it, but wakes nobody.
    pub fn write(&mut self, header: &[u8; HEADER_BYTES], body: &[u8]) {
        self.writer.write(self.tail, header);
        self.writer.write(self.tail + HEADER_BYTES as u32, body);
        let bytes = u32::try_from(HEADER_BYTES + body.len()).expect("a small frame");
        self.tail += bytes.next_multiple_of(8);
        self.own.store_tail(self.tail);
    }

    /// Fills the ring with one header, of a frame without a body, and returns what says at any time that a whole ring is unread: as
    /// often as it is called, and faster than anybody reads.
    pub fn flood(&mut self, header: &[u8; HEADER_BYTES]) -> impl Fn() + Send + 'static + use<> {
        const RECORD: u32 = HEADER_BYTES as u32;
        let capacity = self.own.ring_capacity_bytes();
        // What remains at the end is too small even for padding, and is skipped.
        for place in (0..=capacity - RECORD).step_by(RECORD as usize) {
            self.writer.write(place, header);
        }
        let (own, peer) = (self.own.clone(), self.peer.clone());
        move || own.store_tail(peer.load_head().wrapping_add(capacity))
    }

    /// Says that so much has been written, and wakes the client however it sleeps.
    ///
    /// # Panics
    ///
    /// If the bell cannot be rung.
    pub fn publish(&mut self, tail: u32) {
        self.tail = tail;
        self.own.store_tail(tail);
        self.wake();
        self.ring();
    }

    /// Wakes the client if it sleeps on a futex.
    ///
    /// # Panics
    ///
    /// If that is not possible.
    pub fn wake(&mut self) {
        if self.notifier.after_publish() == Some(SleepOn::Futex) {
            self.own.wake().expect("a futex");
        }
    }

    /// Returns `true` if the client has closed the connection.
    pub fn has_ended(&self) -> bool {
        self.control.is_hung_up().unwrap_or(true)
    }

    /// Waits until the client has closed the connection.
    ///
    /// # Panics
    ///
    /// If it does not in time.
    pub fn wait_for_end(&self) {
        crate::eventually("the client leaves", || self.has_ended());
    }
}

//! A client made by hand, to say what no proper client would.

use std::{path::Path, time::Instant};

use doorbell_proto::{
    frame::{FrameHeader, FrameKind, HEADER_BYTES},
    handshake::{BellKind, BellKinds, Features, Hello, Message, Refused, VERSIONS, Welcome},
};
use doorbell_shm::{
    Consumer, Layout, OwnRegion, PeerRegion, SleepOn, adopt, crc32c,
    memory::{OwnMemory, PeerMemory, RegionWriter, RingWriter},
    sys::{ControlStream, Doorbell, DoorbellKind, OwnedHandle, RegionHandle, Woken},
};

use crate::{PATIENCE, bell};

/// A control socket before any handshake.
#[derive(Debug)]
pub struct RawControl(pub ControlStream);

/// A client after its handshake, whose ring can be filled with anything.
#[derive(Debug)]
pub struct RawClient {
    /// What the server agreed to.
    pub welcome: Welcome,
    /// Memory that the server reads: its positions can be set to anything.
    pub own: OwnRegion,
    control: Option<RawControl>,
    consumer: Consumer,
    peer: PeerRegion,
    writer: RegionWriter,
    tail: u32,
    server_bell: Doorbell,
    _own_bell: Doorbell,
}

impl RawControl {
    /// Connects and says nothing.
    ///
    /// # Panics
    ///
    /// If nobody listens.
    pub fn connect(path: &Path) -> Self {
        let deadline = Instant::now() + PATIENCE;
        Self(ControlStream::connect(path, Some(deadline)).expect("a server listens"))
    }

    /// Returns a hello that is in order.
    pub fn hello() -> Hello {
        Hello {
            versions: VERSIONS,
            features: Features::BODY_CRC.with(Features::LOANS),
            ring_capacity_bytes: 0,
            receive_window_bytes: 256 << 10,
            max_message_bytes: 64 << 20,
            bells: BellKinds::EVENT_FD.with(BellKinds::SOCKET),
            name: "raw".to_owned(),
        }
    }

    /// Sends bytes, all of which must fit into the socket.
    ///
    /// # Panics
    ///
    /// If they do not.
    pub fn send(&self, bytes: &[u8]) {
        assert_eq!(self.0.send(bytes).expect("the server reads"), bytes.len());
    }

    /// Waits for the server's answer, with what rides with it.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn answer(&self) -> (Message, Vec<OwnedHandle>) {
        let (mut bytes, mut handles) = (Vec::new(), Vec::new());
        loop {
            if let Some((message, _)) = Message::decode(&bytes).expect("the answer is a message") {
                return (message, handles);
            }
            let (more, with_it) = self.receive();
            assert!(
                !more.is_empty(),
                "the server closed the socket without an answer"
            );
            bytes.extend(more);
            handles.extend(with_it);
        }
    }

    /// Waits for the server's refusal.
    ///
    /// # Panics
    ///
    /// If it is something else.
    pub fn refusal(&self) -> Refused {
        match self.answer() {
            (Message::Refused(refused), _) => refused,
            (other, _) => panic!("the server answered {other:?}"),
        }
    }

    /// Waits until the server closes the socket.
    ///
    /// # Panics
    ///
    /// If it does not in time.
    pub fn wait_for_end(&self) {
        while !self.receive().0.is_empty() {}
    }

    fn receive(&self) -> (Vec<u8>, Vec<OwnedHandle>) {
        let mut buffer = [0; 1024];
        loop {
            match self.0.receive_with_handles(&mut buffer, 4) {
                Ok((count, handles)) => return (buffer[..count].to_vec(), handles),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    let woken = self
                        .0
                        .wait_readable(Some(Instant::now() + PATIENCE))
                        .expect("a socket");
                    assert_eq!(woken, Woken::Notified, "the server says nothing");
                }
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {
                    return (Vec::new(), Vec::new());
                }
                Err(error) => panic!("cannot read the control socket: {error}"),
            }
        }
    }

    /// Finishes a handshake in order.
    ///
    /// # Panics
    ///
    /// If the server does not let us in.
    pub fn finish(self) -> RawClient {
        self.finish_with(Self::hello())
    }

    /// As [`finish`](Self::finish), with another hello.
    ///
    /// # Panics
    ///
    /// If the server does not let us in.
    pub fn finish_with(self, hello: Hello) -> RawClient {
        self.send(&Message::Hello(hello).encode());
        let (message, handles) = self.answer();
        let Message::Welcome(welcome) = message else {
            panic!("the server answered {message:?}")
        };
        RawClient::new(self, welcome, handles)
    }
}

impl RawClient {
    /// Connects, with a proper handshake.
    ///
    /// # Panics
    ///
    /// If the server does not let us in.
    pub fn connect(path: &Path) -> Self {
        RawControl::connect(path).finish()
    }

    fn new(control: RawControl, welcome: Welcome, handles: Vec<OwnedHandle>) -> Self {
        let [server, client, server_bell, own_bell] =
            <[_; 4]>::try_from(handles).expect("four descriptors");
        let layout = |capacity| Layout::new(capacity, welcome.max_calls).expect("an agreed size");
        let (own, peer): (OwnRegion, PeerRegion) = adopt(
            RegionHandle::from_handle(server),
            RegionHandle::from_handle(client),
            layout(welcome.server_ring_capacity_bytes),
            layout(welcome.client_ring_capacity_bytes),
        )
        .expect("proper memory");
        let kind = match welcome.bell {
            BellKind::EventFd => DoorbellKind::Event,
            BellKind::Socket => DoorbellKind::Socket,
        };
        let bell = |handle| Doorbell::from_handle(handle, kind).expect("a doorbell");
        Self {
            welcome,
            control: Some(control),
            consumer: Consumer::new(own.clone(), peer.clone()),
            peer,
            writer: own.claim_writer(),
            own,
            tail: 0,
            server_bell: bell(server_bell),
            _own_bell: bell(own_bell),
        }
    }

    /// Returns a frame with its checksum, over header and body, as bytes.
    pub fn seal(header: FrameHeader, body: &[u8]) -> [u8; HEADER_BYTES] {
        Self::seal_bytes(header.encode(), body)
    }

    /// As [`seal`](Self::seal), for a header that need not be a valid one.
    pub fn seal_bytes(mut bytes: [u8; HEADER_BYTES], body: &[u8]) -> [u8; HEADER_BYTES] {
        let mut crc = crc32c(0, &bytes[..HEADER_BYTES - 4]);
        if bytes[5] & doorbell_proto::Flags::BODY_CRC.bits() != 0 {
            crc = crc32c(crc, body);
        }
        FrameHeader::set_crc(&mut bytes, crc);
        bytes
    }

    /// Writes a frame without looking at it, publishes it and rings.
    pub fn push(&mut self, header: &[u8; HEADER_BYTES], body: &[u8]) {
        let capacity = self.welcome.client_ring_capacity_bytes;
        let place = self.tail & (capacity - 1);
        self.writer.write(place, header);
        self.writer.write(place + HEADER_BYTES as u32, body);
        let bytes = u32::try_from(HEADER_BYTES + body.len()).expect("a small frame");
        self.publish(self.tail.wrapping_add(bytes.next_multiple_of(8)));
    }

    /// Says that so much has been written, and rings.
    ///
    /// # Panics
    ///
    /// If the bell cannot be rung.
    pub fn publish(&mut self, tail: u32) {
        self.tail = tail;
        self.own.store_tail(tail);
        self.ring();
    }

    /// Rings the server's bell. One that has left already does not mind.
    ///
    /// # Panics
    ///
    /// If that is not possible.
    pub fn ring(&self) {
        bell::ring(&self.server_bell);
    }

    /// Sends a ping and waits for the pong: the server is awake and has read everything so far.
    ///
    /// # Panics
    ///
    /// If something else comes, or nothing.
    pub fn ping(&mut self, number: u64) {
        let header = Self::seal(FrameHeader::new(FrameKind::Ping, number, 0), &[]);
        self.push(&header, &[]);
        let mut answer = None;
        crate::eventually("a pong", || {
            answer = self.consumer.peek().expect("a proper server");
            answer.is_some()
        });
        let answer = FrameHeader::decode(&answer.expect("just seen")).expect("a proper frame");
        assert_eq!((answer.kind, answer.id), (FrameKind::Pong, number));
        self.consumer.advance();
        self.consumer.release();
    }

    /// Writes a frame with its length and checksum, once there is room for it, and rings.
    ///
    /// # Panics
    ///
    /// If the server makes no room in time.
    pub fn send(&mut self, mut header: FrameHeader, body: &[u8]) {
        header.length = u32::try_from(body.len()).expect("a small frame");
        let mut written = false;
        crate::eventually("the server makes room", || {
            written = self.write(&Self::seal(header, body), body);
            written
        });
        self.publish(self.tail);
    }

    /// Writes a frame without looking at it, if there is room. Neither publishes nor rings.
    pub fn write(&mut self, header: &[u8; HEADER_BYTES], body: &[u8]) -> bool {
        let bytes = u32::try_from(HEADER_BYTES + body.len()).expect("a small frame");
        let bytes = bytes.next_multiple_of(8);
        let capacity = self.welcome.client_ring_capacity_bytes;
        let place = self.tail & (capacity - 1);
        let to_end = capacity - place;
        let skip = if bytes > to_end { to_end } else { 0 };
        if self.unread_bytes() > capacity - bytes - skip {
            return false;
        }
        if skip >= HEADER_BYTES as u32 {
            let mut padding = [0; HEADER_BYTES];
            padding[..4].copy_from_slice(&(skip - HEADER_BYTES as u32).to_le_bytes());
            self.writer.write(place, &padding);
        }
        let start = self.tail.wrapping_add(skip);
        let place = start & (capacity - 1);
        self.writer.write(place, header);
        self.writer.write(place + HEADER_BYTES as u32, body);
        self.tail = start.wrapping_add(bytes);
        true
    }

    /// Publishes what was written and does not ring.
    pub fn publish_quietly(&self) {
        self.own.store_tail(self.tail);
    }

    /// Publishes what the server has read once more, as far as it has given room back, and does not ring.
    pub fn publish_again(&mut self) {
        let capacity = self.welcome.client_ring_capacity_bytes;
        self.tail = self.peer.load_head().wrapping_add(capacity);
        self.publish_quietly();
    }

    /// Returns how much of what was written the server has not read.
    pub fn unread_bytes(&self) -> u32 {
        self.tail.wrapping_sub(self.peer.load_head())
    }

    /// Returns what the server has announced to sleep on.
    pub fn server_sleeps_on(&self) -> Option<SleepOn> {
        bell::sleeps_on(self.peer.load_sleep())
    }

    /// Returns how much the server has published so far, modulo 2^32.
    pub fn published_bytes(&self) -> u32 {
        self.peer.load_tail()
    }

    /// Returns the next frame of the server if there is one, and gives its room back without ringing.
    ///
    /// # Panics
    ///
    /// If the server writes nonsense.
    pub fn read(&mut self) -> Option<(FrameHeader, Vec<u8>)> {
        let bytes = self.consumer.peek().expect("a proper server")?;
        let header = FrameHeader::decode(&bytes).expect("a proper frame");
        let mut body = Vec::new();
        self.consumer.copy_body(&mut body);
        self.consumer.advance();
        self.consumer.release();
        Some((header, body))
    }

    /// Waits for what the server sends over the control socket, with the one descriptor that rides with it.
    ///
    /// # Panics
    ///
    /// If it is something else, or nothing comes.
    pub fn receive_control(&self) -> (Vec<u8>, OwnedHandle) {
        let control = self.control.as_ref().expect("it has not been hung up");
        let (bytes, mut handles) = control.receive();
        assert_eq!(handles.len(), 1, "one descriptor");
        (bytes, handles.remove(0))
    }

    /// Closes the control socket, as a process that ends does, and keeps the memory.
    pub fn hang_up(&mut self) {
        self.control = None;
    }

    /// Waits until the server has closed the connection.
    ///
    /// # Panics
    ///
    /// If it does not in time, or we have hung up.
    pub fn wait_for_end(&self) {
        let control = self.control.as_ref();
        control.expect("we have not hung up").wait_for_end();
    }
}

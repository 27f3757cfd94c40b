//! A client.

use std::{
    io::ErrorKind,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    time::{Duration, Instant},
};

use super::{
    memory::Memory,
    socket::{Answer, HandSocket},
    wire::{Frame, HandHello, HandWelcome, kind},
};
use crate::eventually;

/// A client after its handshake.
#[derive(Debug)]
pub struct HandClient {
    /// The control socket.
    pub socket: HandSocket,
    /// What was agreed on.
    pub welcome: HandWelcome,
    /// Region S: the server's. If it is in two memories, only its first page.
    pub theirs: Memory,
    /// The second memory of S, if there is one.
    pub pages: Option<Memory>,
    /// Region C: ours.
    pub ours: Memory,
    /// The bell that the server listens on.
    pub bell: OwnedFd,
    /// The bell that the server rings.
    pub own_bell: OwnedFd,
    /// Bytes that we have written.
    pub tail: u32,
    head: u32,
}

impl HandClient {
    /// Connects, with a hello that is in order.
    ///
    /// # Panics
    ///
    /// If the server does not let us in.
    pub fn connect(path: &Path) -> Self {
        Self::connect_with(path, &HandHello::proper())
    }

    /// Connects.
    ///
    /// # Panics
    ///
    /// If the server does not let us in.
    pub fn connect_with(path: &Path, hello: &HandHello) -> Self {
        let socket = HandSocket::connect(path);
        match socket.greet(hello) {
            Answer::Welcome(welcome, handles) => Self::new(socket, welcome, handles),
            other => panic!("the server said {other:?}"),
        }
    }

    /// Takes over what came with a welcome.
    ///
    /// # Panics
    ///
    /// If it is not four descriptors, or five if the server's ring is in two memories; then it is read no further than the first page.
    pub fn new(socket: HandSocket, welcome: HandWelcome, mut handles: Vec<OwnedFd>) -> Self {
        let in_two = welcome.features & HandHello::GIVE_BACK != 0;
        let pages = in_two.then(|| handles.pop().expect("five descriptors"));
        let [theirs, ours, bell, own_bell] = <[_; 4]>::try_from(handles).expect("four descriptors");
        let client = Self {
            socket,
            welcome,
            theirs: Memory::new(theirs),
            pages: pages.map(Memory::new),
            ours: Memory::new(ours),
            bell,
            own_bell,
            tail: 0,
            head: 0,
        };
        client.ours.write(0, b"DRBLRGN1");
        client
    }

    /// Size of the ring that we write.
    pub fn capacity(&self) -> u32 {
        self.welcome.client_ring_capacity_bytes
    }

    /// Returns how many bytes can be written.
    pub fn room(&self) -> u32 {
        let unread = self.tail.wrapping_sub(self.theirs.load(Memory::HEAD));
        self.capacity() - unread
    }

    /// Writes a record if there is room, with padding before it where the ring ends. Does not publish.
    pub fn put(&mut self, record: &[u8]) -> bool {
        let bytes = u32::try_from(record.len())
            .expect("a record")
            .next_multiple_of(8);
        let place = self.tail & (self.capacity() - 1);
        let to_end = self.capacity() - place;
        let skip = if bytes > to_end { to_end } else { 0 };
        if self.room() < skip + bytes {
            return false;
        }
        if skip >= 24 {
            let mut padding = [0; 24];
            padding[..4].copy_from_slice(&(skip - 24).to_le_bytes());
            self.ours.write(Memory::RING + u64::from(place), &padding);
        }
        self.tail = self.tail.wrapping_add(skip);
        let place = self.tail & (self.capacity() - 1);
        self.ours.write(Memory::RING + u64::from(place), record);
        self.tail = self.tail.wrapping_add(bytes);
        true
    }

    /// Stores what we have written as our tail, and rings.
    pub fn publish(&self) {
        self.ours.store(Memory::TAIL, self.tail);
        self.ring();
    }

    /// Rings. A bell that is full, or whose listener is gone, does not matter.
    ///
    /// # Panics
    ///
    /// If it fails in another way.
    pub fn ring(&self) {
        let rung = if self.welcome.bell == 1 {
            rustix::io::write(&self.bell, &1_u64.to_ne_bytes())
        } else {
            let flags = rustix::net::SendFlags::DONTWAIT | rustix::net::SendFlags::NOSIGNAL;
            rustix::net::send(&self.bell, &[1], flags)
        };
        if let Err(error) = rung {
            let kind = std::io::Error::from(error).kind();
            let expected = [
                ErrorKind::WouldBlock,
                ErrorKind::BrokenPipe,
                ErrorKind::ConnectionReset,
            ];
            assert!(expected.contains(&kind), "the bell: {error}");
        }
    }

    /// Takes away what we have rung on an event counter, as only the server should. Returns `true` if there was something.
    pub fn take_from_the_servers_bell(&self) -> bool {
        let mut counter = [0; 8];
        rustix::io::read(&self.bell, &mut counter).is_ok()
    }

    /// Fills the event counter that the server rings.
    ///
    /// # Panics
    ///
    /// If it is none.
    pub fn fill_our_bell(&self) {
        let most = (u64::MAX - 1).to_ne_bytes();
        rustix::io::write(&self.own_bell, &most).expect("an event counter");
    }

    /// Makes our ends of both bells block.
    ///
    /// # Panics
    ///
    /// If that is not possible.
    pub fn make_bells_block(&self) {
        for bell in [&self.bell, &self.own_bell] {
            rustix::io::ioctl_fionbio(bell, false).expect("a descriptor");
        }
    }

    /// Writes a frame once there is room, publishes it and rings.
    ///
    /// # Panics
    ///
    /// If the server makes no room.
    pub fn send(&mut self, frame: &Frame) {
        self.send_record(&frame.bytes());
    }

    /// As [`send`](Self::send), for any bytes. A server that has closed the connection makes no room any more: they are not sent then.
    ///
    /// # Panics
    ///
    /// If the server makes no room.
    pub fn send_record(&mut self, record: &[u8]) {
        eventually("the server makes room", || {
            self.put(record) || self.is_over()
        });
        self.publish();
    }

    /// Returns the server's next frame if there is one, and gives its room back.
    pub fn read(&mut self) -> Option<Frame> {
        loop {
            if self.theirs.load(Memory::TAIL) == self.head {
                return None;
            }
            let capacity = self.welcome.server_ring_capacity_bytes;
            let place = self.head & (capacity - 1);
            if capacity - place < 24 {
                self.release(capacity - place);
                continue;
            }
            let mut header = [0; 24];
            self.theirs
                .read(Memory::RING + u64::from(place), &mut header);
            let length = u32::from_le_bytes(header[..4].try_into().expect("four"));
            let mut body = vec![
                0;
                if header[4] == kind::PAD {
                    0
                } else {
                    length as usize
                }
            ];
            self.theirs
                .read(Memory::RING + u64::from(place) + 24, &mut body);
            self.release((24 + length).next_multiple_of(8));
            if header[4] != kind::PAD {
                return Some(Frame::read(&header, body));
            }
        }
    }

    /// Gives room back, and rings: the server may be waiting for it.
    fn release(&mut self, bytes: u32) {
        self.head = self.head.wrapping_add(bytes);
        self.ours.store(Memory::HEAD, self.head);
        self.ring();
    }

    /// Waits for the server's next frame.
    ///
    /// # Panics
    ///
    /// If none comes.
    pub fn wait_for_frame(&mut self) -> Frame {
        let mut frame = None;
        eventually("the server sends a frame", || {
            frame = self.read();
            frame.is_some()
        });
        frame.expect("just seen")
    }

    /// Sends a ping and waits for its pong, whatever comes before it.
    ///
    /// # Panics
    ///
    /// If none comes.
    pub fn ping(&mut self) {
        self.ping_and(|_| {});
    }

    /// As [`ping`](Self::ping), and looks at what comes before the pong.
    ///
    /// # Panics
    ///
    /// If none comes.
    pub fn ping_and(&mut self, mut look: impl FnMut(&Frame)) {
        self.send(&Frame::new(kind::PING, 0x7069_6E67, 0));
        loop {
            let frame = self.wait_for_frame();
            if frame == Frame::new(kind::PONG, 0x7069_6E67, 0) {
                return;
            }
            look(&frame);
        }
    }

    /// Asks for a segment with room for a block of so many pages, and returns its number with its memory.
    ///
    /// # Panics
    ///
    /// If the server does not give us one.
    pub fn segment(&mut self, pages: u32) -> (u32, Memory) {
        self.send(&Frame::new(kind::WANT_SEGMENT, 0, pages));
        let frame = self.wait_for_frame();
        assert_eq!(frame.kind, kind::SEGMENT, "{frame:?}");
        let mut handles = Vec::new();
        let message = self.socket.receive(8, &mut handles);
        let number = u32::try_from(frame.id).expect("a number of a segment");
        let announced = u64::from(number) | u64::from(frame.value) << 32;
        assert_eq!(message, Some(announced.to_le_bytes().to_vec()));
        let [memory] = <[_; 1]>::try_from(handles).expect("one descriptor");
        (number, Memory::new(memory))
    }

    /// Reads nothing of what the server has written, and gives all its room back.
    pub fn skip_everything(&mut self) {
        let unread = self.theirs.load(Memory::TAIL).wrapping_sub(self.head);
        self.release(unread);
    }

    /// Waits until the server has published nothing new for so long, and returns how much it has in all. Reads nothing.
    pub fn bytes_when_quiet(&self, quiet: Duration) -> u32 {
        let (mut bytes, mut since) = (0, Instant::now());
        while bytes == 0 || since.elapsed() < quiet {
            let now = self.theirs.load(Memory::TAIL);
            if now != bytes {
                (bytes, since) = (now, Instant::now());
            }
        }
        bytes
    }

    /// Waits until the server has closed the connection, and returns what it said before: the text of its last `GOAWAY`.
    ///
    /// # Panics
    ///
    /// If it does not close it.
    pub fn wait_for_end(&mut self) -> Option<String> {
        self.socket.wait_for_end();
        let mut text = None;
        while let Some(frame) = self.read() {
            if frame.kind == kind::GOAWAY {
                text = Some(String::from_utf8(frame.body).expect("UTF-8"));
            }
        }
        text
    }

    /// Waits until the server has announced that it sleeps, and returns its sleep word.
    ///
    /// # Panics
    ///
    /// If it does not sleep.
    pub fn wait_until_asleep(&self) -> u32 {
        let mut word = 0;
        eventually("the server sleeps", || {
            word = self.theirs.load(Memory::SLEEP);
            word & 3 != 0
        });
        word
    }

    /// Returns `true` if the server has closed the connection.
    ///
    /// # Panics
    ///
    /// If the socket cannot be looked at.
    pub fn is_over(&self) -> bool {
        let socket = self.socket.as_fd();
        let mut looked = [rustix::event::PollFd::from_borrowed_fd(
            socket,
            rustix::event::PollFlags::RDHUP,
        )];
        let now = rustix::event::Timespec::default();
        rustix::event::poll(&mut looked, Some(&now)).expect("a socket") > 0
    }
}

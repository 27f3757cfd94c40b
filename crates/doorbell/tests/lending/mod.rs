//! What both sides of the tests of loans agree on, and the process at the other end.

pub(crate) mod serving;

use doorbell::{Client, Loaned, Message, MessageType, Payload, Upload, blocking};
use doorbell_testkit::{Child, PATIENCE, Place};
use serde::{Deserialize, Serialize};

macro_rules! message {
    ($name:ident(Loaned) = $number:literal -> $reply:ty) => {
        #[derive(Payload)]
        #[payload(loaned)]
        pub(crate) struct $name(pub(crate) Loaned);
        message!(@impl $name = $number -> $reply);
    };
    ($name:ident $fields:tt = $number:literal -> $reply:ty) => {
        #[derive(Serialize, Deserialize)]
        pub(crate) struct $name $fields;
        message!(@impl $name = $number -> $reply);
    };
    (@impl $name:ident = $number:literal -> $reply:ty) => {
        impl Message for $name {
            const TYPE: MessageType = MessageType::new($number);
            type Reply = $reply;
        }
    };
}

// Each byte comes back one higher.
message!(Shift(Loaned) = 1 -> Loaned);
// The server keeps the loan; answered with how many it has.
message!(Keep(Loaned) = 2 -> u32);
// The server drops all it has kept.
message!(Forget() = 3 -> ());
// A stream of so many loans of so many bytes.
message!(Produce(pub(crate) u32, pub(crate) u32) = 4 -> Loaned);
// Answered with the sum of the sizes of the items.
message!(Consume() = 5 -> u64);
// A notification, which is counted.
message!(Tell(Loaned) = 6 -> ());
message!(Look() = 7 -> Numbers);
// Taken as bytes that know nothing of loans.
message!(Plain(Loaned) = 8 -> Vec<u8>);

impl Upload for Consume {
    type Item = Loaned;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Numbers {
    pub(crate) loan_bytes: u64,
    pub(crate) refused: u64,
    pub(crate) told: u32,
}

/// The same type number as [`Plain`], read as a vector.
#[derive(Serialize, Deserialize)]
pub(crate) struct PlainBytes(pub(crate) Vec<u8>);

impl Message for PlainBytes {
    const TYPE: MessageType = MessageType::new(8);
    type Reply = Vec<u8>;
}

pub(crate) fn pattern(length: usize) -> Vec<u8> {
    (0..length)
        .map(|index| (index * 31 + length) as u8)
        .collect()
}

/// Returns what comes back of [`pattern`].
pub(crate) fn shifted(length: usize) -> Vec<u8> {
    pattern(length)
        .iter()
        .map(|byte| byte.wrapping_add(1))
        .collect()
}

pub(crate) struct Host {
    pub(crate) place: Place,
    pub(crate) child: Child,
}

impl Host {
    pub(crate) fn start(role: &str, max_loan_bytes: u64) -> Self {
        let place = Place::new();
        let child = Self::start_at(&place, role, max_loan_bytes);
        Self { place, child }
    }

    pub(crate) fn start_at(place: &Place, role: &str, max_loan_bytes: u64) -> Child {
        let (path, bytes) = (place.name(), max_loan_bytes.to_string());
        let in_place = if max_loan_bytes > 0 { "yes" } else { "no" };
        let settings = [
            ("path", path.as_str()),
            ("max_loan_bytes", bytes.as_str()),
            ("in_place", in_place),
        ];
        let child = Child::start("child_process", role, &settings);
        child.hear("READY");
        child
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.place.name()).await.unwrap()
    }

    pub(crate) fn blocking_client(&self) -> blocking::Client {
        blocking::Client::connect(self.place.name()).unwrap()
    }
}

pub(crate) async fn in_time<T>(test: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE * 2, test)
        .await
        .expect("the test hangs")
}

pub(crate) async fn filled(client: &Client, length: usize) -> Loaned {
    let mut loan = client.loan(length).await.unwrap();
    loan.copy_from_slice(&pattern(length));
    loan.into()
}

pub(crate) const MIB: usize = 1 << 20;
pub(crate) const ENOUGH: u64 = 64 << 20;
pub(crate) const SIZES: [usize; 8] = [0, 1, 63, 64, 65, 100_000, MIB, 5_000_001];

//! Loans between two processes: requests, replies, items and notifications that stay where they were written.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use doorbell::{
    Client, Context, Disconnected, ItemSender, ItemStream, LoanError, Loaned, Message, MessageType,
    Payload, Server, Status, Upload, blocking,
};
use doorbell_testkit::{
    Child, PATIENCE, Place, eventually, mappings, role, say, setting, wait_for_parent,
};
use serde::{Deserialize, Serialize};

macro_rules! message {
    ($name:ident(Loaned) = $number:literal -> $reply:ty) => {
        #[derive(Payload)]
        #[payload(loaned)]
        struct $name(Loaned);
        message!(@impl $name = $number -> $reply);
    };
    ($name:ident $fields:tt = $number:literal -> $reply:ty) => {
        #[derive(Serialize, Deserialize)]
        struct $name $fields;
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
message!(Produce(u32, u32) = 4 -> Loaned);
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
struct Numbers {
    loan_bytes: u64,
    refused: u64,
    told: u32,
}

/// The same type number as [`Plain`], read as a vector.
#[derive(Serialize, Deserialize)]
struct PlainBytes(Vec<u8>);

impl Message for PlainBytes {
    const TYPE: MessageType = MessageType::new(8);
    type Reply = Vec<u8>;
}

#[derive(Clone, Default)]
struct Shared {
    kept: Arc<Mutex<Vec<Loaned>>>,
    told: Arc<AtomicU32>,
}

impl Shared {
    fn keep(&self, loan: Loaned) -> u32 {
        let mut kept = self.kept.lock().unwrap();
        kept.push(loan);
        kept.len() as u32
    }

    fn forget(&self) {
        let kept = std::mem::take(&mut *self.kept.lock().unwrap());
        drop(kept);
    }
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length)
        .map(|index| (index * 31 + length) as u8)
        .collect()
}

/// Returns what comes back of [`pattern`].
fn shifted(length: usize) -> Vec<u8> {
    pattern(length)
        .iter()
        .map(|byte| byte.wrapping_add(1))
        .collect()
}

/// Fails the call if the loan was copied although that is not what the test wants.
fn in_place(loan: &Loaned) -> Result<(), Status> {
    let expected = setting("in_place") == "yes";
    if loan.is_in_place() == expected {
        return Ok(());
    }
    Err(Status::failed_precondition("it did not come as it should"))
}

fn shift(loan: &Loaned, mut reply: doorbell::Loan) -> Loaned {
    let bytes = loan.copy_to_vec();
    let higher: Vec<u8> = bytes.iter().map(|byte| byte.wrapping_add(1)).collect();
    reply.copy_from_slice(&higher);
    reply.into()
}

#[test]
#[ignore = "the body of the child processes"]
fn child_process() {
    match role().as_deref() {
        None => {}
        Some("tasks") => tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap()
            .block_on(serve()),
        Some("threads") => serve_with_threads(),
        Some("client") => keep_loans(),
        Some("burst of tasks") => tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap()
            .block_on(bursts()),
        Some("burst of threads") => bursts_of_threads(),
        Some(role) => panic!("no role {role}"),
    }
}

fn numbers(stats: doorbell::server::ServerStats, shared: &Shared) -> Numbers {
    Numbers {
        loan_bytes: stats.loan_bytes,
        refused: stats.loans_refused,
        told: shared.told.load(Ordering::SeqCst),
    }
}

async fn serve() {
    let shared = Shared::default();
    let [keeps, forgets, told, looks] = [(); 4].map(|()| shared.clone());
    let server = Server::builder(setting("path"))
        .max_loan_bytes(setting("max_loan_bytes").parse().unwrap())
        .on(|context: Context, Shift(loan): Shift| async move {
            in_place(&loan)?;
            let reply = context.loan(loan.len()).await?;
            Ok::<_, Status>(shift(&loan, reply))
        })
        .on(move |_: Context, Keep(loan): Keep| {
            let kept = keeps.keep(loan);
            async move { Ok::<_, Status>(kept) }
        })
        .on(move |_: Context, _: Forget| {
            forgets.forget();
            async { Ok::<_, Status>(()) }
        })
        .on(|_: Context, plain: PlainBytes| async move { Ok::<_, Status>(plain.0) })
        .on_stream(
            |context: Context, produce: Produce, mut out: ItemSender<Loaned>| async move {
                for _ in 0..produce.0 {
                    let mut loan = context.loan(produce.1 as usize).await?;
                    loan.copy_from_slice(&pattern(produce.1 as usize));
                    out.send(loan.into()).await?;
                }
                Ok::<_, Status>(())
            },
        )
        .on_upload(
            |_: Context, _: Consume, mut items: ItemStream<Loaned>| async move {
                let mut sum = 0;
                while let Some(item) = items.next().await {
                    let item = item.map_err(Status::from)?;
                    in_place(&item)?;
                    assert!(item.copy_to_vec() == pattern(item.len()));
                    sum += item.len() as u64;
                }
                Ok::<_, Status>(sum)
            },
        )
        .on_notify(move |_: Context, Tell(loan): Tell| {
            assert!(loan.copy_to_vec() == pattern(loan.len()));
            told.told.fetch_add(1, Ordering::SeqCst);
            async {}
        })
        .bind()
        .await
        .unwrap();
    let weak = server.clone();
    server.on(move |_: Context, _: Look| {
        let numbers = numbers(weak.stats(), &looks);
        async move { Ok::<_, Status>(numbers) }
    });
    say("READY");
    while tokio::task::spawn_blocking(wait_for_parent)
        .await
        .unwrap()
        .is_some()
    {}
}

fn serve_with_threads() {
    let shared = Shared::default();
    let [keeps, forgets, told, looks] = [(); 4].map(|()| shared.clone());
    let server = blocking::Server::builder(setting("path"))
        .max_loan_bytes(setting("max_loan_bytes").parse().unwrap())
        .on(|context: Context, Shift(loan): Shift| {
            in_place(&loan)?;
            let reply = context.try_loan(loan.len())?;
            Ok::<_, Status>(shift(&loan, reply))
        })
        .on(move |_: Context, Keep(loan): Keep| Ok::<_, Status>(keeps.keep(loan)))
        .on(move |_: Context, _: Forget| {
            forgets.forget();
            Ok::<_, Status>(())
        })
        .on_stream(
            |context: Context, produce: Produce, mut out: blocking::ItemSender<Loaned>| {
                for _ in 0..produce.0 {
                    let mut loan = context.wait_loan(produce.1 as usize)?;
                    loan.copy_from_slice(&pattern(produce.1 as usize));
                    out.send(loan.into())?;
                }
                Ok::<_, Status>(())
            },
        )
        .on_notify(move |_: Context, Tell(loan): Tell| {
            assert!(loan.copy_to_vec() == pattern(loan.len()));
            told.told.fetch_add(1, Ordering::SeqCst);
        })
        .bind()
        .unwrap();
    let weak = server.clone();
    server.on(move |_: Context, _: Look| Ok::<_, Status>(numbers(weak.stats(), &looks)));
    say("READY");
    while wait_for_parent().is_some() {}
}

/// A client that keeps a reply and a loan of its own until it is killed.
fn keep_loans() {
    let client = blocking::Client::connect(setting("path")).unwrap();
    let mut loan = client.loan(1 << 20, PATIENCE).unwrap();
    loan.copy_from_slice(&pattern(1 << 20));
    let _reply = client.call(Shift(loan.into())).wait().unwrap();
    let _unsent = client.loan(1 << 20, PATIENCE).unwrap();
    say("READY");
    while wait_for_parent().is_some() {}
}

/// Lends 8 MiB there and back whenever it is told to, and then does nothing.
async fn bursts() {
    let client = Client::connect(setting("path")).await.unwrap();
    client.call(Look()).await.unwrap();
    say("READY");
    while tokio::task::spawn_blocking(wait_for_parent)
        .await
        .unwrap()
        .is_some()
    {
        let lent = filled(&client, 8 * MIB).await;
        let reply = client.call(Shift(lent)).await.unwrap();
        assert!(client.call(Look()).await.unwrap().loan_bytes >= 16 * MIB as u64);
        drop(reply);
        say("DONE");
    }
}

fn bursts_of_threads() {
    let client = blocking::Client::connect(setting("path")).unwrap();
    client.call(Look()).wait().unwrap();
    say("READY");
    while wait_for_parent().is_some() {
        let mut loan = client.loan(8 * MIB, PATIENCE).unwrap();
        loan.copy_from_slice(&pattern(8 * MIB));
        let reply = client.call(Shift(loan.into())).wait().unwrap();
        assert!(client.call(Look()).wait().unwrap().loan_bytes >= 16 * MIB as u64);
        drop(reply);
        say("DONE");
    }
}

struct Host {
    place: Place,
    child: Child,
}

impl Host {
    fn start(role: &str, max_loan_bytes: u64) -> Self {
        let place = Place::new();
        let child = Self::start_at(&place, role, max_loan_bytes);
        Self { place, child }
    }

    fn start_at(place: &Place, role: &str, max_loan_bytes: u64) -> Child {
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

    async fn client(&self) -> Client {
        Client::connect(self.place.name()).await.unwrap()
    }

    fn blocking_client(&self) -> blocking::Client {
        blocking::Client::connect(self.place.name()).unwrap()
    }
}

async fn in_time<T>(test: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE * 2, test)
        .await
        .expect("the test hangs")
}

async fn filled(client: &Client, length: usize) -> Loaned {
    let mut loan = client.loan(length).await.unwrap();
    loan.copy_from_slice(&pattern(length));
    loan.into()
}

const MIB: usize = 1 << 20;
const ENOUGH: u64 = 64 << 20;
const SIZES: [usize; 8] = [0, 1, 63, 64, 65, 100_000, MIB, 5_000_001];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_and_replies_are_lent_between_tasks() {
    for kind in ["tasks", "threads"] {
        let host = Host::start(kind, ENOUGH);
        in_time(async {
            let client = host.client().await;
            for length in SIZES {
                let reply = client.call(Shift(filled(&client, length).await)).await;
                let reply = reply.unwrap();
                assert!(reply.is_in_place(), "{length} bytes were copied");
                assert!(reply.copy_to_vec() == shifted(length), "{length} bytes");
            }
        })
        .await;
    }
}

#[test]
fn requests_and_replies_are_lent_between_threads() {
    for kind in ["tasks", "threads"] {
        let host = Host::start(kind, ENOUGH);
        let client = host.blocking_client();
        for length in SIZES {
            let mut loan = client.loan(length, PATIENCE).unwrap();
            loan.copy_from_slice(&pattern(length));
            let reply = client.call(Shift(loan.into())).wait().unwrap();
            assert!(reply.is_in_place(), "{length} bytes were copied");
            assert!(reply.copy_to_vec() == shifted(length), "{length} bytes");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_block_comes_back_however_its_call_ends() {
    let host = Host::start("tasks", ENOUGH);
    in_time(async {
        let client = host.client().await;
        for round in 0..300 {
            let call = client.call(Shift(filled(&client, MIB / 4).await));
            match round % 4 {
                0 => drop(call),
                1 => drop(call.send().await.unwrap()),
                2 => drop(client.loan(MIB / 4).await.unwrap()),
                _ => drop(call.await.unwrap()),
            }
        }
        let numbers = client.call(Look()).await.unwrap();
        // 300 blocks each way are 75 MiB; a few are under way at once.
        assert!(
            numbers.refused == 0 && numbers.loan_bytes <= 8 * MIB as u64,
            "{numbers:?}"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loan_waits_for_what_the_server_keeps_and_fails_when_nothing_can_help() {
    let host = Host::start("tasks", MIB as u64);
    in_time(async {
        let client = host.client().await;
        let error = client.loan(2 * MIB).await.unwrap_err();
        assert!(matches!(error, LoanError::NoRoom { bytes } if bytes == 2 * MIB as u64));
        let loan = filled(&client, MIB).await;
        assert_eq!(client.call(Keep(loan)).await.unwrap(), 1);
        assert!(matches!(
            client.try_loan(MIB),
            Err(LoanError::NoRoom { .. })
        ));
        let waiting = tokio::spawn({
            let client = client.clone();
            async move { client.loan(MIB).await.map(|loan| loan.len()) }
        });
        let waited = tokio::time::timeout(Duration::from_millis(50), client.loan(MIB)).await;
        assert!(waited.is_err(), "there is no room");
        client.call(Forget()).await.unwrap();
        assert_eq!(waiting.await.unwrap().unwrap(), MIB);
        // And again from another task's loan that is dropped unsent.
        let loan = client.loan(MIB).await.unwrap();
        let waiting = tokio::spawn({
            let client = client.clone();
            async move { client.loan(MIB).await.map(|loan| loan.len()) }
        });
        drop(loan);
        assert_eq!(waiting.await.unwrap().unwrap(), MIB);
        assert!(client.call(Look()).await.unwrap().refused > 0);
    })
    .await;
}

#[test]
fn thread_waits_for_what_the_server_keeps_until_its_deadline() {
    let host = Host::start("threads", MIB as u64);
    let client = host.blocking_client();
    let mut loan = client.loan(MIB, PATIENCE).unwrap();
    loan.copy_from_slice(&pattern(MIB));
    assert_eq!(client.call(Keep(loan.into())).wait().unwrap(), 1);
    let short = Duration::from_millis(30);
    let error = client.loan(MIB, short).unwrap_err();
    assert!(matches!(error, LoanError::DeadlineExceeded), "{error}");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| client.loan(MIB, PATIENCE).map(|loan| loan.len()));
        client.call(Forget()).wait().unwrap();
        assert_eq!(waiting.join().unwrap().unwrap(), MIB);
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handler_waits_for_what_the_client_keeps() {
    for kind in ["tasks", "threads"] {
        let host = Host::start(kind, MIB as u64);
        in_time(async {
            let client = host.client().await;
            let half = MIB as u32 / 2;
            let mut items = client.stream(Produce(20, half)).await.unwrap();
            let mut before = None;
            for _ in 0..20 {
                let item = items.next().await.unwrap().unwrap();
                assert!(item.is_in_place());
                assert!(item.copy_to_vec() == pattern(half as usize));
                before = Some(item); // two fit, so that the handler waits for the one before
            }
            assert!(items.next().await.is_none());
            drop(before);
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn items_and_notifications_are_lent() {
    let host = Host::start("tasks", ENOUGH);
    in_time(async {
        let client = host.client().await;
        let mut upload = client.upload(Consume()).await.unwrap();
        for length in SIZES {
            upload.send(filled(&client, length).await).await.unwrap();
            upload.feed(filled(&client, length).await).await.unwrap();
        }
        let sum: usize = SIZES.iter().sum();
        assert_eq!(upload.finish().await.unwrap(), 2 * sum as u64);
        for _ in 0..10 {
            client.notify(Tell(filled(&client, MIB).await)).unwrap();
        }
        while client.call(Look()).await.unwrap().told < 10 {}
        // A stream that is dropped with items unread.
        for _ in 0..20 {
            let mut items = client.stream(Produce(8, MIB as u32)).await.unwrap();
            items.next().await.unwrap().unwrap();
        }
        let numbers = client.call(Look()).await.unwrap();
        assert_eq!(numbers.refused, 0, "{numbers:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_agreement_everything_works_and_is_copied() {
    let host = Host::start("tasks", 0);
    in_time(async {
        let client = host.client().await;
        for length in SIZES {
            let reply = client.call(Shift(filled(&client, length).await)).await;
            let reply = reply.unwrap();
            assert!(!reply.is_in_place());
            assert!(reply.copy_to_vec() == shifted(length), "{length} bytes");
        }
        let mut upload = client.upload(Consume()).await.unwrap();
        upload.send(filled(&client, MIB).await).await.unwrap();
        assert_eq!(upload.finish().await.unwrap(), MIB as u64);
        assert_eq!(client.call(Look()).await.unwrap().loan_bytes, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loan_for_a_type_that_knows_nothing_of_loans_is_copied_there() {
    let host = Host::start("tasks", ENOUGH);
    in_time(async {
        let client = host.client().await;
        let bytes = pattern(1000);
        let mut encoded = Vec::new();
        PlainBytes(bytes.clone()).encode(&mut encoded).unwrap();
        let mut loan = client.loan(encoded.len()).await.unwrap();
        std::io::Write::write_all(&mut loan, &encoded).unwrap();
        assert_eq!(client.call(Plain(loan.into())).await.unwrap(), bytes);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reply_outlives_its_connection_and_a_loan_travels_on_the_next() {
    let mut host = Host::start("tasks", ENOUGH);
    in_time(async {
        let client = host.client().await;
        let reply = client
            .call(Shift(filled(&client, MIB).await))
            .await
            .unwrap();
        let unsent = filled(&client, MIB).await;
        host.child.kill();
        let mut state = client.state();
        state
            .wait_for(|state| *state == doorbell::client::ConnectionState::Disconnected)
            .await
            .unwrap();
        assert!(reply.copy_to_vec() == shifted(MIB));
        host.child = Host::start_at(&host.place, "tasks", ENOUGH);
        // It lies in a segment that this server has never seen, so it is copied into the ring.
        assert_eq!(client.call(Keep(unsent)).await.unwrap(), 1);
        drop(reply);
        let reply = client
            .call(Shift(filled(&client, MIB).await))
            .await
            .unwrap();
        assert!(reply.is_in_place());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wait_for_room_ends_with_the_connection() {
    let mut host = Host::start("tasks", MIB as u64);
    in_time(async {
        let client = host.client().await;
        let loan = filled(&client, MIB).await;
        assert_eq!(client.call(Keep(loan)).await.unwrap(), 1);
        let waiting = tokio::spawn({
            let client = client.clone();
            async move { client.loan(MIB).await.map(drop) }
        });
        host.child.kill();
        let error = waiting.await.unwrap().unwrap_err();
        let LoanError::NotConnected(error) = error else {
            panic!("{error}")
        };
        assert!(
            matches!(
                &error,
                doorbell::CallError::Disconnected(Disconnected::PeerGone)
                    | doorbell::CallError::NotConnected(_)
            ),
            "{error}"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_of_a_client_that_is_killed_comes_back() {
    let host = Host::start("tasks", ENOUGH);
    let mut keeper = Host::start_at(&host.place, "client", ENOUGH);
    let looker = host.blocking_client();
    let looks = || looker.call(Look()).wait().unwrap().loan_bytes;
    assert!(looks() >= 2 * MIB as u64);
    keeper.kill();
    eventually("the segments are given up", || looks() == 0);
}

/// Other tests of this program run beside this one, so the client is a process of its own. Nobody calls meanwhile: what the looker sees
/// is what the connection gives up by itself.
#[test]
fn pool_shrinks_on_both_sides_when_the_connection_sleeps() {
    for kind in ["tasks", "threads"] {
        let host = Host::start(kind, ENOUGH);
        let looker = host.blocking_client();
        let looks = || looker.call(Look()).wait().unwrap().loan_bytes;
        for client in ["burst of tasks", "burst of threads"] {
            let mut client = Host::start_at(&host.place, client, ENOUGH);
            let regions = mappings(client.id());
            let of_server = mappings(host.child.id());
            client.tell("burst");
            client.hear("DONE");
            eventually("the server gives its segments up", || {
                looks() <= KEPT_BYTES && mappings(host.child.id()) <= of_server + 2
            });
            eventually("the client unmaps them", || {
                mappings(client.id()) <= regions + 2
            });
            client.tell("burst");
            client.hear("DONE");
            client.kill();
            eventually("nothing is left", || looks() == 0);
        }
    }
}

/// What a connection keeps: a small segment each way.
const KEPT_BYTES: u64 = 2 * 256 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn message_larger_than_the_server_accepts_is_no_loan() {
    let host = Host::start("tasks", ENOUGH);
    let client = host.client().await;
    let error = client.loan((64 << 20) + 1).await.unwrap_err();
    assert!(matches!(error, LoanError::TooLarge { .. }), "{error}");
}

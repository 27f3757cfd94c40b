//! What is kept of a pool of loans while nobody says anything.

use std::{
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use doorbell::{
    Client, Context, Loan, LoanError, Loaned, Message, MessageType, Payload, Server, Status,
    blocking,
};
use doorbell_testkit::{PATIENCE, Place, eventually};
use serde::{Deserialize, Serialize};

/// Answered with a loan of so many bytes, after so many milliseconds.
#[derive(Serialize, Deserialize)]
struct Lend(u32, u64);

impl Message for Lend {
    const TYPE: MessageType = MessageType::new(1);
    type Reply = Loaned;
}

/// Makes a loan of so many bytes, and drops it after so many milliseconds.
#[derive(Serialize, Deserialize)]
struct Waste(u32, u64);

impl Message for Waste {
    const TYPE: MessageType = MessageType::new(2);
    type Reply = ();
}

/// Keeps a small loan, and a large one for long.
#[derive(Payload)]
#[payload(loaned)]
struct Take(Loaned);

impl Message for Take {
    const TYPE: MessageType = MessageType::new(3);
    type Reply = ();
}

const MIB: u32 = 1 << 20;

/// What it takes a server to find that a connection is quiet, and to look again until there is nothing to do. Nothing shows when that is over.
const LONG_QUIET: Duration = Duration::from_millis(2500);

fn filled(loan: Result<Loan, LoanError>) -> Result<Loaned, Status> {
    let mut loan = loan?;
    let bytes = vec![7; loan.len()];
    loan.copy_from_slice(&bytes);
    Ok(loan.into())
}

async fn server_of_tasks(place: &Place, max_loan_bytes: u32) -> Server {
    Server::builder(place.name())
        .max_loan_bytes(max_loan_bytes.into())
        .on(|context: Context, Lend(length, millis): Lend| async move {
            if millis > 0 {
                tokio::time::sleep(Duration::from_millis(millis)).await;
            }
            filled(context.loan(length as usize).await)
        })
        .on(
            |context: Context, Waste(length, millis): Waste| async move {
                let loan = context.loan(length as usize).await?;
                tokio::time::sleep(Duration::from_millis(millis)).await;
                drop(loan);
                Ok::<_, Status>(())
            },
        )
        .bind()
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reply_that_is_dropped_after_a_long_quiet_leaves_no_segment() {
    for length in [1000, MIB] {
        let place = Place::new();
        let server = server_of_tasks(&place, 64 * MIB).await;
        let client = Client::connect(place.name()).await.unwrap();
        let reply = client.call(Lend(length, 0)).await.unwrap();
        assert!(reply.is_in_place());
        tokio::time::sleep(LONG_QUIET).await;
        drop(reply);
        eventually("nothing is kept", || server.stats().loan_bytes == 0);
    }
}

/// Its worker has gone to sleep, and made nothing itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reply_of_a_handler_that_takes_long_leaves_no_segment() {
    for length in [1000, MIB] {
        let place = Place::new();
        let server = server_of_tasks(&place, 64 * MIB).await;
        let client = Client::connect(place.name()).await.unwrap();
        let reply = client.call(Lend(length, 1500)).await.unwrap();
        assert!(reply.is_in_place());
        drop(reply);
        eventually("nothing is kept", || server.stats().loan_bytes == 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loan_that_a_handler_drops_late_leaves_no_segment() {
    for length in [1000, MIB] {
        let place = Place::new();
        let server = server_of_tasks(&place, 64 * MIB).await;
        let client = Client::connect(place.name()).await.unwrap();
        let millis = u64::try_from(LONG_QUIET.as_millis()).unwrap();
        client.call(Waste(length, millis)).await.unwrap();
        eventually("nothing is kept", || server.stats().loan_bytes == 0);
    }
}

#[test]
fn loan_that_a_client_drops_late_leaves_no_segment() {
    for length in [1000, MIB] {
        let place = Place::new();
        let server = blocking::Server::builder(place.name()).bind().unwrap();
        let client = blocking::Client::connect(place.name()).unwrap();
        let loan = client.loan(length as usize, PATIENCE).unwrap();
        thread::sleep(LONG_QUIET);
        drop(loan);
        eventually("nothing is kept", || server.stats().loan_bytes == 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loan_that_a_handler_gives_back_late_leaves_no_segment_beside_one_that_is_kept() {
    let place = Place::new();
    let kept = Arc::new(Mutex::new(Vec::new()));
    let keeps = Arc::clone(&kept);
    let server = Server::builder(place.name())
        .on(move |_: Context, Take(loan): Take| {
            let keeps = Arc::clone(&keeps);
            async move {
                if loan.len() < MIB as usize {
                    keeps.lock().unwrap().push(loan);
                } else {
                    tokio::time::sleep(LONG_QUIET).await;
                }
                Ok::<_, Status>(())
            }
        })
        .bind()
        .await
        .unwrap();
    let client = Client::connect(place.name()).await.unwrap();
    for length in [1000, MIB] {
        let loan = filled(client.loan(length as usize).await).unwrap();
        client.call(Take(loan)).await.unwrap();
    }
    eventually("what is not kept is given up", || {
        server.stats().loan_bytes <= 256 << 10
    });
}

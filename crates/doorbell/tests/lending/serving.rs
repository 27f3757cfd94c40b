//! What runs in the other process: servers of both kinds, and clients that keep or burst.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU32, Ordering},
};

use doorbell::{Client, Context, ItemSender, ItemStream, Loan, Loaned, Server, Status, blocking};
use doorbell_testkit::{PATIENCE, role, say, setting, wait_for_parent};

use super::*;

/// Does what the parent wants of this process.
pub(crate) fn run() {
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

/// Fails the call if the loan was copied although that is not what the test wants.
fn in_place(loan: &Loaned) -> Result<(), Status> {
    let expected = setting("in_place") == "yes";
    if loan.is_in_place() == expected {
        return Ok(());
    }
    Err(Status::failed_precondition("it did not come as it should"))
}

fn shift(loan: &Loaned, mut reply: Loan) -> Loaned {
    let bytes = loan.copy_to_vec();
    let higher: Vec<u8> = bytes.iter().map(|byte| byte.wrapping_add(1)).collect();
    reply.copy_from_slice(&higher);
    reply.into()
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

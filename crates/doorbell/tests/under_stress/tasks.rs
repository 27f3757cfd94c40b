//! Callers that are tasks.

use std::{
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
    time::Duration,
};

use doorbell::{CallError, Client, Code, NotifyError};

use super::{
    Deed, MOST_NOTIFICATIONS, Stress,
    board::Caller,
    lending::{Lend, Tell, check_reply, filled},
    random::Random,
    ring_capacity_bytes, spin,
};
use crate::support::messages::*;

/// Several callers over one connection, on a runtime with several threads.
pub(super) fn spawn_many(stress: &Stress, runtime: &tokio::runtime::Runtime, client: Client) {
    for _ in 0..4 {
        let caller = stress.board.join("a task");
        runtime.spawn(call_for_long(stress.clone(), client.clone(), caller));
    }
}

/// Several callers over one connection, on a runtime with one thread.
pub(super) fn spawn_on_a_thread(
    stress: &Stress,
    path: &str,
    random: &mut Random,
) -> JoinHandle<()> {
    let builder = Client::builder(path)
        .spin(spin(random))
        .ring_capacity_bytes(ring_capacity_bytes(random));
    let callers: [_; 3] = std::array::from_fn(|_| stress.board.join("a task of a single thread"));
    let stress = stress.clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let client = builder.connect().await.unwrap();
            let tasks = callers
                .map(|caller| tokio::spawn(call_for_long(stress.clone(), client.clone(), caller)));
            for task in tasks {
                task.await.unwrap();
            }
        });
    })
}

async fn call_for_long(stress: Stress, client: Client, caller: Arc<Caller>) {
    let mut random = Random::new(stress.seed, caller.number);
    loop {
        let deed = stress.next(&mut random);
        if !stress.board.begin(&caller, format!("{deed:?}")) {
            break;
        }
        call(deed, &client, &caller, &mut random).await;
        stress.board.end();
    }
    client.writable().await.unwrap(); // notifications that wait for room would be lost with the client
    stress.board.leave(&caller);
}

fn in_time_or_late<T>(result: Result<T, CallError>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            assert_eq!(error.code(), Code::DeadlineExceeded, "{error:?}");
            None
        }
    }
}

async fn call(deed: Deed, client: &Client, caller: &Caller, random: &mut Random) {
    match deed {
        Deed::Add => {
            let number = random.below(1000);
            assert_eq!(client.call(Add(number, 1)).await.unwrap(), number + 1);
        }
        Deed::Echo => {
            let bytes = pattern(random.size());
            assert!(client.call(Echo(bytes.clone())).await.unwrap().0 == bytes);
        }
        Deed::EchoWithDeadline => {
            let (bytes, timeout) = (
                pattern(random.size()),
                Duration::from_micros(random.below(3000).into()),
            );
            let echoed = client.call(Echo(bytes.clone())).timeout(timeout).await;
            assert!(in_time_or_late(echoed).is_none_or(|echoed| echoed.0 == bytes));
        }
        Deed::EchoDropped => {
            let pending = client.call(Echo(pattern(random.size()))).send().await;
            for _ in 0..random.below(4) {
                tokio::task::yield_now().await;
            }
            drop(pending.unwrap());
        }
        Deed::Many => {
            let mut pending = Vec::new();
            for number in 0..random.below(50) {
                pending.push(client.call(Add(number, 1)).send().await.unwrap());
            }
            for number in (0..pending.len() as u32).rev() {
                assert_eq!(pending.pop().unwrap().await.unwrap(), number + 1);
            }
        }
        Deed::Ping => drop(client.ping().await.unwrap()),
        Deed::Fail => {
            let error = client.call(Add(u32::MAX, 1)).await.unwrap_err();
            assert_eq!(error.code(), Code::OutOfRange, "{error:?}");
        }
        Deed::Notify => notify(client, caller, random).await,
        Deed::Lend => {
            let length = random.size();
            if let Some(loan) = filled(client.loan(length).await) {
                check_reply(client.call(Lend(loan)).await, length);
            }
        }
        Deed::LendDropped => {
            if let Some(loan) = filled(client.loan(random.size()).await) {
                let pending = client.call(Lend(loan)).send().await;
                for _ in 0..random.below(4) {
                    tokio::task::yield_now().await;
                }
                drop(pending.unwrap());
            }
        }
        Deed::Tell => {
            for _ in 0..random.below(20) {
                let Some(loan) = filled(client.loan(random.size()).await) else {
                    break;
                };
                let mut told = client.notify(Tell(loan));
                if let Err(NotifyError::Full { .. }) = told {
                    client.writable().await.unwrap();
                    told = Ok(()); // its block has gone back
                }
                told.unwrap();
            }
            client.ping().await.unwrap(); // each takes the place of a call until it has been heard
        }
        Deed::StuckWithDeadline => {
            let timeout = Duration::from_micros(random.below(5000).into());
            assert!(in_time_or_late(client.call(Stuck).timeout(timeout).await).is_none());
        }
        Deed::StuckDropped => {
            let pending = client.call(Stuck).send().await.unwrap();
            let limit = Duration::from_micros(random.below(2000).into());
            tokio::time::timeout(limit, pending).await.unwrap_err();
        }
        _ => stream(deed, client, random).await,
    }
}

async fn notify(client: &Client, caller: &Caller, random: &mut Random) {
    for _ in 0..random.below(500) {
        if caller.notified.load(Ordering::Relaxed) == MOST_NOTIFICATIONS {
            return;
        }
        while let Err(error) = client.notify(Remember(caller.next_notification())) {
            assert!(matches!(error, NotifyError::Full { .. }), "{error:?}");
            client.writable().await.unwrap();
        }
        caller.notified.fetch_add(1, Ordering::Relaxed);
    }
}

async fn stream(deed: Deed, client: &Client, random: &mut Random) {
    let count = random.below(2000);
    match deed {
        Deed::Stream | Deed::StreamDropped => {
            let wanted = match deed {
                Deed::Stream => count,
                _ => random.below(count + 1),
            };
            let mut numbers = client.stream(Count(count)).await.unwrap();
            for expected in 0..wanted {
                assert_eq!(numbers.next().await.unwrap().unwrap(), expected);
            }
            if wanted == count {
                assert!(numbers.next().await.is_none());
            }
        }
        Deed::Upload | Deed::UploadDropped => {
            let mut upload = client.upload(Sum).await.unwrap();
            for number in 0..count {
                upload.send(number).await.unwrap();
            }
            if matches!(deed, Deed::Upload) {
                let sum: u64 = (0..u64::from(count)).sum();
                assert_eq!(upload.finish().await.unwrap(), sum);
            }
        }
        Deed::Bidi | Deed::BidiDropped => {
            let (mut out, mut doubled) = client.bidi(Double).await.unwrap();
            for number in 0..count {
                out.send(number).await.unwrap();
                if number % 7 == 0 {
                    assert_eq!(doubled.next().await.unwrap().unwrap(), number / 7 * 2);
                }
            }
            if matches!(deed, Deed::BidiDropped) {
                return;
            }
            out.finish();
            for number in count.div_ceil(7)..count {
                assert_eq!(doubled.next().await.unwrap().unwrap(), number * 2);
            }
            assert!(doubled.next().await.is_none());
        }
        Deed::SlowReader => {
            let (count, bytes) = (random.below(40), random.below(30_000));
            let mut items = client.stream(Pour(count, bytes)).await.unwrap();
            for number in 0..count {
                assert!(items.next().await.unwrap().unwrap().0 == pattern(bytes as usize));
                if number % 8 == 0 {
                    tokio::time::sleep(Duration::from_millis(1)).await; // slow on purpose
                }
            }
            assert!(items.next().await.is_none());
        }
        Deed::StuckUpload => {
            let mut upload = client.upload(StuckUpload).await.unwrap();
            let limit = Duration::from_micros(random.below(5000).into());
            let sends = async { while upload.send(vec![1; 5000]).await.is_ok() {} };
            tokio::time::timeout(limit, sends).await.unwrap_err();
        }
        other => unreachable!("{other:?} is no stream"),
    }
}

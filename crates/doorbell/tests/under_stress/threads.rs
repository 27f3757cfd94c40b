//! Callers that are threads.

use std::{
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
    time::Duration,
};

use doorbell::{CallError, Code, blocking::Client};
use doorbell_testkit::PATIENCE;

use super::{
    Deed, MOST_NOTIFICATIONS, Stress,
    board::Caller,
    lending::{Lend, Tell, check_reply, filled},
    random::Random,
};
use crate::support::messages::*;

pub(super) fn spawn(stress: &Stress, client: Client) -> JoinHandle<()> {
    let (stress, caller) = (stress.clone(), stress.board.join("a thread"));
    std::thread::spawn(move || call_for_long(&stress, &client, &caller))
}

fn call_for_long(stress: &Stress, client: &Client, caller: &Arc<Caller>) {
    let mut random = Random::new(stress.seed, caller.number);
    loop {
        let deed = stress.next(&mut random);
        if !stress.board.begin(caller, format!("{deed:?}")) {
            break;
        }
        call(deed, client, caller, &mut random);
        stress.board.end();
    }
    stress.board.leave(caller);
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

fn call(deed: Deed, client: &Client, caller: &Caller, random: &mut Random) {
    match deed {
        Deed::Add => {
            let number = random.below(1000);
            assert_eq!(client.call(Add(number, 1)).wait().unwrap(), number + 1);
        }
        Deed::Echo => {
            let bytes = pattern(random.size());
            assert!(client.call(Echo(bytes.clone())).wait().unwrap().0 == bytes);
        }
        Deed::EchoWithDeadline => {
            let (bytes, timeout) = (
                pattern(random.size()),
                Duration::from_micros(random.below(3000).into()),
            );
            let echoed = client.call(Echo(bytes.clone())).timeout(timeout).wait();
            assert!(in_time_or_late(echoed).is_none_or(|echoed| echoed.0 == bytes));
        }
        Deed::EchoDropped => {
            let pending = client.call(Echo(pattern(random.size()))).send();
            for _ in 0..random.below(4) {
                std::thread::yield_now();
            }
            drop(pending.unwrap());
        }
        Deed::Many => {
            let mut pending = Vec::new();
            for number in 0..random.below(50) {
                pending.push(client.call(Add(number, 1)).send().unwrap());
            }
            for number in (0..pending.len() as u32).rev() {
                assert_eq!(pending.pop().unwrap().wait().unwrap(), number + 1);
            }
        }
        Deed::Ping => drop(client.ping(PATIENCE).unwrap()),
        Deed::Fail => {
            let error = client.call(Add(u32::MAX, 1)).wait().unwrap_err();
            assert_eq!(error.code(), Code::OutOfRange, "{error:?}");
        }
        Deed::Notify => notify(client, caller, random),
        Deed::Lend => {
            let length = random.size();
            if let Some(loan) = filled(client.loan(length, PATIENCE)) {
                check_reply(client.call(Lend(loan)).wait(), length);
            }
        }
        Deed::LendDropped => {
            if let Some(loan) = filled(client.loan(random.size(), PATIENCE)) {
                let pending = client.call(Lend(loan)).send();
                for _ in 0..random.below(4) {
                    std::thread::yield_now();
                }
                drop(pending.unwrap());
            }
        }
        Deed::Tell => {
            for _ in 0..random.below(20) {
                let Some(loan) = filled(client.loan(random.size(), PATIENCE)) else {
                    break;
                };
                client.notify(Tell(loan)).unwrap();
            }
            client.ping(PATIENCE).unwrap(); // each takes the place of a call until it has been heard
        }
        Deed::StuckWithDeadline => {
            let timeout = Duration::from_micros(random.below(5000).into());
            assert!(in_time_or_late(client.call(Stuck).timeout(timeout).wait()).is_none());
        }
        Deed::StuckDropped => {
            let pending = client.call(Stuck).send().unwrap();
            for _ in 0..random.below(100) {
                std::thread::yield_now();
            }
            drop(pending);
        }
        _ => stream(deed, client, random),
    }
}

fn notify(client: &Client, caller: &Caller, random: &mut Random) {
    for _ in 0..random.below(500) {
        if caller.notified.load(Ordering::Relaxed) == MOST_NOTIFICATIONS {
            return;
        }
        client.notify(Remember(caller.next_notification())).unwrap();
        caller.notified.fetch_add(1, Ordering::Relaxed);
    }
}

fn stream(deed: Deed, client: &Client, random: &mut Random) {
    let count = random.below(2000);
    match deed {
        Deed::Stream | Deed::StreamDropped => {
            let wanted = match deed {
                Deed::Stream => count,
                _ => random.below(count + 1),
            };
            let mut numbers = client.stream(Count(count)).open().unwrap();
            for expected in 0..wanted {
                assert_eq!(numbers.next().unwrap().unwrap(), expected);
            }
            if wanted == count {
                assert!(numbers.next().is_none());
            }
        }
        Deed::Upload | Deed::UploadDropped => {
            let mut upload = client.upload(Sum).open().unwrap();
            for number in 0..count {
                upload.send(number).unwrap();
            }
            if matches!(deed, Deed::Upload) {
                let sum: u64 = (0..u64::from(count)).sum();
                assert_eq!(upload.finish().unwrap(), sum);
            }
        }
        Deed::Bidi | Deed::BidiDropped => {
            let (mut out, mut doubled) = client.bidi(Double).open().unwrap();
            for number in 0..count {
                out.send(number).unwrap();
                if number % 7 == 0 {
                    assert_eq!(doubled.next().unwrap().unwrap(), number / 7 * 2);
                }
            }
            if matches!(deed, Deed::BidiDropped) {
                return;
            }
            out.finish();
            for number in count.div_ceil(7)..count {
                assert_eq!(doubled.next().unwrap().unwrap(), number * 2);
            }
            assert!(doubled.next().is_none());
        }
        Deed::SlowReader => {
            let (count, bytes) = (random.below(40), random.below(30_000));
            let mut items = client.stream(Pour(count, bytes)).open().unwrap();
            for number in 0..count {
                assert!(items.next().unwrap().unwrap().0 == pattern(bytes as usize));
                if number % 8 == 0 {
                    std::thread::sleep(Duration::from_millis(1)); // slow on purpose
                }
            }
            assert!(items.next().is_none());
        }
        Deed::StuckUpload => {
            let timeout = Duration::from_micros(random.below(5000).into());
            match client.upload(StuckUpload).timeout(timeout).open() {
                Ok(mut upload) => while upload.send(vec![1; 5000]).is_ok() {},
                Err(error) => assert_eq!(error.code(), Code::DeadlineExceeded, "{error:?}"),
            }
        }
        other => unreachable!("{other:?} is no stream"),
    }
}

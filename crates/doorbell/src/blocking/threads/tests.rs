//! Who runs what, and who leaves when.

use std::sync::mpsc;

use doorbell_testkit::{PATIENCE, eventually};

use super::*;

fn idle(threads: &Threads) -> usize {
    lock(&threads.shared.state).idle
}

/// Runs something that tells on which thread.
fn run(threads: &Threads) -> std::thread::ThreadId {
    let (tell, told) = mpsc::channel();
    let job = move || {
        let _ = tell.send(std::thread::current().id());
    };
    assert!(threads.run(job).is_ok());
    told.recv_timeout(PATIENCE).unwrap()
}

#[test]
fn idle_thread_takes_the_next_job_and_ends_after_a_while() {
    let threads = Threads::that_stay(2, Duration::from_secs(3600));
    let first = run(&threads);
    eventually("it is idle", || idle(&threads) == 1);
    assert_eq!(run(&threads), first);
    let threads = Threads::new(2);
    let first = run(&threads);
    eventually("it has ended", || Arc::strong_count(&threads.shared) == 1);
    assert_eq!(idle(&threads), 0);
    assert_ne!(run(&threads), first);
}

#[test]
fn idle_threads_end_with_their_server() {
    let threads = Threads::that_stay(2, Duration::from_secs(3600));
    let shared = Arc::downgrade(&threads.shared);
    run(&threads);
    eventually("it is idle", || idle(&threads) == 1);
    drop(threads);
    eventually("nobody has it", || shared.strong_count() == 0);
}

#[test]
fn no_more_run_than_the_limit_says_and_a_panic_costs_none() {
    let threads = Threads::that_stay(2, Duration::from_secs(3600));
    let (let_go, until) = mpsc::channel::<()>();
    let until = Arc::new(Mutex::new(until));
    for _ in 0..2 {
        let until = Arc::clone(&until);
        let job = move || {
            let _ = lock(&until).recv_timeout(PATIENCE);
        };
        assert!(threads.run(job).is_ok());
    }
    assert!(matches!(threads.run(|| ()), Err(Refused::Busy(2))));
    drop(let_go);
    eventually("both are idle", || idle(&threads) == 2);
    for _ in 0..4 {
        let job = || std::panic::resume_unwind(Box::new("a handler"));
        eventually("one is free", || threads.run(job).is_ok());
    }
    eventually("all are idle", || lock(&threads.shared.state).running == 0);
    run(&threads);
}

/// One of them is woken by whoever gives the jobs, the others by each other: each job waits until all are run.
#[test]
fn jobs_that_come_together_run_together() {
    const MANY: usize = 32;
    let threads = Threads::that_stay(MANY, Duration::from_secs(3600));
    for round in 0..100 {
        let (tell, told) = mpsc::channel();
        let all = Arc::new(std::sync::Barrier::new(MANY));
        for _ in 0..MANY {
            let (tell, all) = (tell.clone(), Arc::clone(&all));
            let job = move || {
                all.wait();
                let _ = tell.send(());
            };
            assert!(threads.run(job).is_ok());
        }
        for _ in 0..MANY {
            told.recv_timeout(PATIENCE)
                .unwrap_or_else(|_| panic!("a thread sleeps in round {round}"));
        }
        eventually("all are idle", || idle(&threads) == MANY);
    }
}

/// A thread that has waited for long enough looks once more: nothing is given to one that leaves.
#[test]
fn jobs_that_come_while_threads_leave_are_run() {
    let threads = Threads::new(64);
    let (let_go, until) = mpsc::channel::<()>();
    let until = Arc::new(Mutex::new(until));
    for _ in 0..8 {
        let until = Arc::clone(&until);
        let job = move || {
            let _ = lock(&until).recv_timeout(PATIENCE);
        };
        assert!(threads.run(job).is_ok());
    }
    drop(let_go);
    eventually("all have done", || lock(&threads.shared.state).running == 0);
    let (tell, told) = mpsc::channel();
    let mut given = 0;
    eventually("the first have left", || idle(&threads) < 8);
    while Arc::strong_count(&threads.shared) > 1 && given < 10_000 {
        let tell = tell.clone();
        let job = move || {
            let _ = tell.send(());
        };
        given += u32::from(threads.run(job).is_ok());
    }
    for _ in 0..given {
        told.recv_timeout(PATIENCE).expect("every job is run");
    }
}

/// A caller that has been answered calls again at once.
#[test]
fn place_is_free_when_the_answer_is_given() {
    let threads = Threads::new(1);
    for round in 0..1000 {
        let (tell, told) = mpsc::channel();
        let job = move || {
            leave_place();
            let _ = tell.send(());
            std::thread::yield_now();
        };
        assert!(threads.run(job).is_ok(), "in round {round}");
        told.recv_timeout(PATIENCE).unwrap();
    }
}

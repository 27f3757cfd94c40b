//! Doorbells and the peer's death for tasks.

#![cfg(feature = "tokio")]

mod sys_support;

use std::future::{Future, poll_fn};
use std::io::ErrorKind;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use doorbell_shm::sys::{AsyncDoorbell, AsyncPeer, ControlStream, Doorbell, DoorbellKind};
use sys_support::*;

#[test]
fn child_process() {
    let Some((_, stream)) = role() else { return };
    say(&stream, b'd');
    let _ = stream.wait_readable(in_time());
}

async fn within_limit<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future)
        .await
        .expect("not done in time")
}

async fn is_pending(future: impl Future) -> bool {
    tokio::time::timeout(SHORT, future).await.is_err()
}

fn pair(kind: DoorbellKind) -> (AsyncDoorbell, Doorbell) {
    let (listening, ringing) = Doorbell::pair(kind).unwrap();
    (AsyncDoorbell::new(listening).unwrap(), ringing)
}

#[tokio::test(flavor = "multi_thread")]
async fn notify_before_and_after_registration_is_seen() {
    for kind in BOTH_KINDS {
        let (listening, ringing) = Doorbell::pair(kind).unwrap();
        ringing.notify().unwrap();
        let listening = AsyncDoorbell::new(listening).unwrap();
        within_limit(listening.notified()).await.unwrap();
        ringing.notify().unwrap();
        within_limit(listening.notified()).await.unwrap();
        assert!(is_pending(listening.notified()).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_notify_wakes_a_task_that_waits() {
    for kind in BOTH_KINDS {
        let (there, back) = (pair(kind), pair(kind));
        let (listening, answer) = (there.0, back.1);
        let echo = tokio::spawn(async move {
            for _ in 0..1000 {
                listening.notified().await.unwrap();
                answer.notify().unwrap();
            }
        });
        for _ in 0..1000 {
            there.1.notify().unwrap();
            within_limit(back.0.notified()).await.unwrap();
        }
        within_limit(echo).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_wait_loses_no_notify() {
    for kind in BOTH_KINDS {
        let (listening, ringing) = pair(kind);
        for _ in 0..100 {
            {
                let mut waiting = pin!(listening.notified());
                let mut context = Context::from_waker(Waker::noop());
                assert!(waiting.as_mut().poll(&mut context).is_pending());
                ringing.notify().unwrap();
            }
            within_limit(listening.notified()).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn polled_notify_wakes_the_task() {
    for kind in BOTH_KINDS {
        let (listening, ringing) = pair(kind);
        let listening = Arc::new(listening);
        let polling = tokio::spawn({
            let listening = Arc::clone(&listening);
            async move { poll_fn(|cx| listening.poll_notified(cx)).await }
        });
        ringing.notify().unwrap();
        within_limit(polling).await.unwrap().unwrap();
        assert!(is_pending(poll_fn(|cx| listening.poll_notified(cx))).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn full_doorbell_wakes_once_and_then_again() {
    for kind in BOTH_KINDS {
        let (listening, ringing) = pair(kind);
        for _ in 0..3 {
            for _ in 0..2000 {
                ringing.notify().unwrap();
            }
            within_limit(listening.notified()).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ringer_that_is_gone_is_an_error_each_time() {
    let (listening, ringing) = pair(DoorbellKind::Socket);
    drop(ringing);
    for _ in 0..2 {
        let notified = within_limit(listening.notified()).await;
        assert_eq!(kind_of(notified), ErrorKind::UnexpectedEof);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn peer_that_closes_is_gone_and_one_that_only_speaks_is_not() {
    let (control, other) = ControlStream::pair().unwrap();
    let peer = AsyncPeer::new(Arc::new(control), None).unwrap();
    assert!(is_pending(peer.gone()).await);
    assert_eq!(peer.peer().unwrap().pid, std::process::id());
    drop(other);
    within_limit(peer.gone()).await;
    within_limit(peer.gone()).await;

    let (control, other) = ControlStream::pair().unwrap();
    let peer = AsyncPeer::new(Arc::new(control), None).unwrap();
    assert!(is_pending(peer.gone()).await);
    for _ in 0..2 {
        say(&other, b'x');
        assert!(is_pending(peer.gone()).await);
    }
    drop(other); // what it has said is still unread
    within_limit(peer.gone()).await;
    within_limit(peer.gone()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_tasks_learn_of_a_killed_peer() {
    let mut child = Peer::spawn("wait");
    hear(&child.stream, b'd');
    let process = child.stream.peer_process().unwrap();
    // A stream that does not end, as if a child of the peer had kept it: the process alone tells.
    let (control, _kept) = ControlStream::pair().unwrap();
    let peer = Arc::new(AsyncPeer::new(Arc::new(control), Some(process)).unwrap());
    let wait = || {
        let peer = Arc::clone(&peer);
        tokio::spawn(async move { peer.gone().await })
    };
    let (one, other) = (wait(), wait());
    assert!(is_pending(peer.gone()).await);
    child.kill();
    within_limit(one).await.unwrap();
    within_limit(other).await.unwrap();
    assert!(matches!(
        pin!(peer.gone()).poll(&mut Context::from_waker(Waker::noop())),
        Poll::Ready(())
    ));
}

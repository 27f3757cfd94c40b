//! Items that are lent, as many of them as may be with the peer at once, and more.

mod support;

use std::sync::{Mutex, mpsc};

use doorbell::{
    Client, Context, ItemError, Loaned, Message, MessageType, Status, Upload, blocking,
};
use doorbell_proto::limits::MAX_LOANS;
use doorbell_testkit::{PATIENCE, Place};
use serde::{Deserialize, Serialize};
use support::in_time;

/// Answered with nothing, when all items have been taken.
#[derive(Serialize, Deserialize)]
struct Keep;

impl Message for Keep {
    const TYPE: MessageType = MessageType::new(1);
    type Reply = ();
}

impl Upload for Keep {
    type Item = Loaned;
}

const ITEM_BYTES: usize = 1000;

/// Those beyond are copied, which costs more credit. A sender that pays for them as if they were lent sends more than it may.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn items_that_are_copied_because_too_many_are_lent_cost_what_a_copy_does() {
    in_time(async {
        let place = Place::new();
        let (go, gate) = mpsc::channel::<()>();
        let gate = Mutex::new(gate);
        let (counted, count) = mpsc::channel();
        let _server = blocking::Server::builder(place.name())
            .on_bidi(
                move |_: Context, _: Keep, items: blocking::ItemStream<Loaned>, _| {
                    let _ = gate.lock().unwrap().recv();
                    let mut taken = 0_usize;
                    for item in items {
                        let item = item.map_err(|error| Status::internal(error.to_string()))?;
                        assert_eq!(item.copy_to_vec(), [taken as u8; ITEM_BYTES]);
                        taken += 1;
                    }
                    counted.send(taken).unwrap();
                    Ok::<_, Status>(())
                },
            )
            .bind()
            .unwrap();
        let client = Client::connect(place.name()).await.unwrap();
        let (mut sender, mut answer) = client.bidi(Keep).await.unwrap();
        let mut sent = 0_usize;
        let refused = loop {
            let mut loan = client.loan(ITEM_BYTES).await.unwrap();
            loan.copy_from_slice(&[sent as u8; ITEM_BYTES]);
            match sender.try_send(&loan.into()) {
                Ok(()) => sent += 1,
                Err(refused) => break refused,
            }
        };
        assert!(matches!(refused, ItemError::Full), "{refused}");
        assert!(sent > MAX_LOANS, "{sent}");
        go.send(()).unwrap();
        drop(sender);
        assert!(answer.next().await.is_none(), "it ends in order");
        assert_eq!(count.recv_timeout(PATIENCE).unwrap(), sent);
    })
    .await;
}

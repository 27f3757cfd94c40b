use std::sync::mpsc;

use doorbell_proto::CallId;
use doorbell_testkit::{PATIENCE, Place, eventually};

use super::*;
use crate::{Context, MessageType, Status, blocking::Server};

/// Answers whether it seems to be cancelled.
#[derive(serde::Serialize, serde::Deserialize)]
struct AmICancelled;
impl Message for AmICancelled {
    const TYPE: MessageType = MessageType::new(1);
    type Reply = bool;
}

#[test]
fn call_with_the_number_of_one_that_was_given_up_long_ago_is_not_cancelled() {
    let place = Place::new();
    let (started, contexts) = mpsc::channel();
    let (go_on, gate) = mpsc::channel();
    let (started, gate) = (Mutex::new(started), Mutex::new(gate));
    let _server = Server::builder(place.name())
        .on(move |context: Context, _: AmICancelled| {
            started.lock().unwrap().send(context.clone()).unwrap();
            gate.lock().unwrap().recv_timeout(PATIENCE).unwrap();
            Ok::<_, Status>(context.is_cancelled())
        })
        .bind()
        .unwrap();
    let client = Client::connect(place.name()).unwrap();
    let own = client.dialer.current().unwrap();

    drop(client.call(AmICancelled).send().unwrap());
    let given_up = contexts.recv_timeout(PATIENCE).unwrap();
    eventually("the call is given up", || given_up.is_cancelled());
    go_on.send(()).unwrap();
    let peer = given_up.connection();
    for side in [peer, &*own] {
        eventually("the slot is free", || {
            own.read_what_is_there(); // before it has been quiet for so long that the words go back to the system
            side.set_generation(0, u32::MAX)
        });
    }

    for generation in [0, 1] {
        go_on.send(()).unwrap();
        let seems_cancelled = client.call(AmICancelled).timeout(PATIENCE).wait();
        assert!(!seems_cancelled.unwrap(), "generation {generation}");
        let context = contexts.recv_timeout(PATIENCE).unwrap();
        assert_eq!(context.id(), Some(CallId::new(0, generation)));
    }
    assert_eq!(given_up.id(), Some(CallId::new(0, 1)));
}

//! What an enemy has to tell.

use doorbell_testkit::by_hand::{Answer, HandClient, HandSocket};

/// Says in words what a server has answered to a hello; one that lets us in must serve us, too.
pub(crate) fn of_answer(socket: HandSocket, answer: Answer) -> String {
    match answer {
        Answer::Closed => "closed".to_owned(),
        Answer::Refused { reason, text } => {
            socket.wait_for_end();
            format!("refused {reason}: {text}")
        }
        Answer::Welcome(welcome, handles) => {
            let mut client = HandClient::new(socket, welcome, handles);
            client.ping();
            let rings = [
                welcome.server_ring_capacity_bytes,
                welcome.client_ring_capacity_bytes,
            ];
            assert!(
                rings
                    .iter()
                    .all(|ring| ring.is_power_of_two() && *ring >= 4096)
            );
            format!("served with rings of {} and {}", rings[0], rings[1])
        }
    }
}

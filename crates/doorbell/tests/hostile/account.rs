//! What an enemy has to tell.

use std::path::Path;

use doorbell_testkit::by_hand::{Answer, HandClient, HandSocket};

/// Connects, does something that costs the connection, and says what the server said about it.
pub(crate) fn of_the_end(path: &Path, wrong: impl FnOnce(&mut HandClient)) -> String {
    let mut client = HandClient::connect(path);
    client.ping();
    wrong(&mut client);
    match client.wait_for_end() {
        Some(text) => format!("told: {text}"),
        None => "thrown out".to_owned(),
    }
}

/// Connects, does something that is no offence, and is served all the same.
pub(crate) fn of_going_on(path: &Path, strange: impl FnOnce(&mut HandClient) -> String) -> String {
    let mut client = HandClient::connect(path);
    let account = strange(&mut client);
    client.ping();
    format!("served: {account}")
}

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

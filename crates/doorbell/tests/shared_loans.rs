//! A loan that several threads have: one of them sends it.

use std::{
    sync::{Arc, Barrier},
    thread,
};

use doorbell::{
    CallError, Context, DecodeError, EncodeError, Incoming, Loaned, Message, MessageType, Payload,
    Status, blocking,
};
use doorbell_testkit::{PATIENCE, Place};

/// Answered with its length.
#[derive(Clone)]
struct Shared(Arc<Loaned>);

impl Payload for Shared {
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.0.encode(out)
    }

    fn decode(bytes: Incoming<'_>) -> Result<Self, DecodeError> {
        Loaned::decode(bytes).map(|loaned| Self(Arc::new(loaned)))
    }

    fn decode_loaned(loaned: Loaned) -> Result<Self, DecodeError> {
        Ok(Self(Arc::new(loaned)))
    }

    fn as_loaned(&self) -> Option<&Loaned> {
        Some(&self.0)
    }
}

impl Message for Shared {
    const TYPE: MessageType = MessageType::new(1);
    type Reply = (u64, bool);
}

fn server(place: &Place) -> blocking::Server {
    blocking::Server::builder(place.name())
        .on(|_: Context, Shared(loaned): Shared| {
            let same = loaned.copy_to_vec().iter().all(|&byte| byte == 7);
            Ok::<_, Status>((
                if same { loaned.len() as u64 } else { 0 },
                loaned.is_in_place(),
            ))
        })
        .bind()
        .unwrap()
}

const BYTES: usize = 50_000;
const ROUNDS: usize = 500;

/// Lets each of the clients, on a thread of its own, send a loan of the first one at the same time, `ROUNDS` times. Returns for each time
/// what became of it.
fn send_at_once(clients: &[&blocking::Client]) -> Vec<Vec<Result<bool, CallError>>> {
    let begin = Barrier::new(clients.len());
    let round = || {
        let mut loan = clients[0].loan(BYTES, PATIENCE).unwrap();
        loan.copy_from_slice(&[7; BYTES]);
        let shared = Shared(Arc::new(loan.into()));
        thread::scope(|scope| {
            let senders = clients.iter().map(|client| {
                let (shared, begin) = (shared.clone(), &begin);
                scope.spawn(move || {
                    begin.wait();
                    let (length, is_in_place) = client.call(shared).timeout(PATIENCE).wait()?;
                    assert_eq!(length, BYTES as u64);
                    Ok(is_in_place)
                })
            });
            let senders: Vec<_> = senders.collect();
            let ended = senders.into_iter().map(|sender| sender.join().unwrap());
            ended.collect()
        })
    };
    (0..ROUNDS).map(|_| round()).collect()
}

fn assert_sent_once_at_most(outcomes: &[Result<bool, CallError>]) {
    for outcome in outcomes {
        let is_expected = matches!(outcome, Ok(_) | Err(CallError::Encode(_)));
        assert!(is_expected, "{outcome:?}");
    }
    let lent = outcomes
        .iter()
        .filter(|outcome| matches!(outcome, Ok(true)));
    assert!(lent.count() <= 1, "{outcomes:?}");
}

#[test]
fn loan_that_is_sent_by_several_threads_at_once_is_sent_by_one() {
    let place = Place::new();
    let _server = server(&place);
    let client = blocking::Client::connect(place.name()).unwrap();
    for outcomes in send_at_once(&[&client; 3]) {
        assert_sent_once_at_most(&outcomes);
        let sent = outcomes.iter().filter(|outcome| outcome.is_ok());
        assert_eq!(sent.count(), 1, "{outcomes:?}");
    }
}

#[test]
fn loan_that_is_sent_on_two_connections_at_once_is_lent_on_its_own_if_at_all() {
    let place = Place::new();
    let _server = server(&place);
    let [client, other] = [(); 2].map(|()| blocking::Client::connect(place.name()).unwrap());
    for outcomes in send_at_once(&[&client, &other]) {
        assert_sent_once_at_most(&outcomes);
        assert!(!matches!(outcomes[1], Ok(true)), "{outcomes:?}");
        assert!(outcomes.iter().any(Result::is_ok), "{outcomes:?}");
    }
}

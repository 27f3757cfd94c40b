//! Loans among everything else: messages, and handlers of servers of both kinds.

use doorbell::{
    Code, Context, Loan, LoanError, Loaned, Message, MessageType, Payload, Status, blocking, server,
};

use crate::support::messages::pattern;

/// Comes back in another loan.
#[derive(Payload)]
#[payload(loaned)]
pub(crate) struct Lend(pub(crate) Loaned);

impl Message for Lend {
    const TYPE: MessageType = MessageType::new(1001);
    type Reply = Loaned;
}

/// A notification.
#[derive(Payload)]
#[payload(loaned)]
pub(crate) struct Tell(pub(crate) Loaned);

impl Message for Tell {
    const TYPE: MessageType = MessageType::new(1002);
    type Reply = ();
}

pub(super) fn of_tasks(builder: server::Builder) -> server::Builder {
    builder
        .on(|context: Context, Lend(lent): Lend| async move {
            let reply = context.loan(lent.len()).await?;
            Ok::<_, Status>(copied(&lent, reply))
        })
        .on_notify(|_: Context, Tell(lent): Tell| async move { check(&lent) })
}

/// The handlers run on the I/O worker, which must not wait for a block: only it reads that one has come back.
pub(super) fn of_threads(builder: blocking::ServerBuilder) -> blocking::ServerBuilder {
    builder
        .on(|context: Context, Lend(lent): Lend| {
            let reply = context.try_loan(lent.len())?;
            Ok::<_, Status>(copied(&lent, reply))
        })
        .on_notify(|_: Context, Tell(lent): Tell| check(&lent))
}

/// Returns what can be sent of a loan, if there is room for one.
pub(super) fn filled(loan: Result<Loan, LoanError>) -> Option<Loaned> {
    match loan {
        Ok(mut loan) => {
            let bytes = pattern(loan.len());
            loan.copy_from_slice(&bytes);
            Some(loan.into())
        }
        Err(LoanError::NoRoom { .. }) => None,
        Err(error) => panic!("{error:?}"),
    }
}

/// Looks at what came back of [`filled`], unless the server had no room for it.
pub(super) fn check_reply(reply: Result<Loaned, doorbell::CallError>, length: usize) {
    match reply {
        Ok(reply) => {
            assert_eq!(reply.len(), length);
            check(&reply);
        }
        Err(error) => assert_eq!(error.code(), Code::ResourceExhausted, "{error:?}"),
    }
}

fn copied(lent: &Loaned, mut reply: Loan) -> Loaned {
    reply.copy_from_slice(&lent.copy_to_vec());
    reply.into()
}

fn check(lent: &Loaned) {
    assert!(lent.copy_to_vec() == pattern(lent.len()));
}

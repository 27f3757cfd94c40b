//! From the failure of a call to an [`io::Error`], for users who read and write bytes.

use std::io::{self, ErrorKind};

use doorbell_proto::{Code, Status};

use super::{CallError, Disconnected};

impl From<CallError> for io::Error {
    /// Keeps the error as the source and says of which kind it is: `ConnectionReset` if the peer ended the call or is gone,
    /// `ConnectionAborted` if this side ended the connection, `TimedOut` for a deadline, and what comes next to the code of a status.
    ///
    /// Never `Interrupted` or `WouldBlock`, which mean that the same can be tried again.
    fn from(error: CallError) -> Self {
        Self::new(kind(&error), error)
    }
}

fn kind(error: &CallError) -> ErrorKind {
    match error {
        CallError::Status(status) => kind_of_status(status),
        CallError::Encode(_) | CallError::TooLarge { .. } => ErrorKind::InvalidInput,
        CallError::Decode(_) => ErrorKind::InvalidData,
        CallError::TooManyCalls { .. } => ErrorKind::QuotaExceeded,
        CallError::NotConnected(_) => ErrorKind::NotConnected,
        CallError::GoingAway { .. } => ErrorKind::ConnectionRefused,
        CallError::DeadlineExceeded | CallError::DeadlineBeforeSend => ErrorKind::TimedOut,
        CallError::Disconnected(Disconnected::PeerGone) => ErrorKind::ConnectionReset,
        CallError::Disconnected(_) => ErrorKind::ConnectionAborted,
    }
}

fn kind_of_status(status: &Status) -> ErrorKind {
    match status.code() {
        Code::Unavailable if !status.was_executed() => ErrorKind::ConnectionRefused,
        Code::Cancelled | Code::Aborted | Code::Unavailable => ErrorKind::ConnectionReset,
        Code::DeadlineExceeded => ErrorKind::TimedOut,
        Code::NotFound => ErrorKind::NotFound,
        Code::AlreadyExists => ErrorKind::AlreadyExists,
        Code::PermissionDenied | Code::Unauthenticated => ErrorKind::PermissionDenied,
        Code::InvalidArgument | Code::OutOfRange => ErrorKind::InvalidInput,
        Code::Unimplemented => ErrorKind::Unsupported,
        Code::ResourceExhausted => ErrorKind::QuotaExceeded,
        Code::DataLoss => ErrorKind::InvalidData,
        Code::Ok | Code::Unknown | Code::FailedPrecondition | Code::Internal => ErrorKind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_keeps_the_call_error_as_its_source() {
        let error = io::Error::from(CallError::from(Status::not_found("no such file")));
        assert_eq!(error.kind(), ErrorKind::NotFound);
        let source = error
            .get_ref()
            .and_then(|source| source.downcast_ref::<CallError>());
        assert!(
            matches!(source, Some(CallError::Status(status)) if status.message() == "no such file")
        );
    }

    #[test]
    fn dead_peer_is_a_reset_and_our_own_end_is_none() {
        let of = |reason| io::Error::from(CallError::Disconnected(reason)).kind();
        assert_eq!(of(Disconnected::PeerGone), ErrorKind::ConnectionReset);
        assert_eq!(of(Disconnected::Closed), ErrorKind::ConnectionAborted);
    }
}

//! Who answers for what a connection takes up.

use std::any::Any;

use doorbell_proto::connection::Allowance;

use super::Spending;

/// What a server asks before a connection gets something.
pub(crate) struct Account {
    pub(crate) allowance: Option<Box<dyn Allowance>>,
    pub(crate) spending: Spending,
    /// What is given back when the memory of the connection is: when nobody has it any more, which may be long after its end.
    pub(crate) rent: Option<Box<dyn Any + Send + Sync>>,
}

impl Account {
    /// Returns that of a client, which asks nobody and makes no segments.
    pub(crate) fn none() -> Self {
        Self {
            allowance: None,
            spending: Spending::none(),
            rent: None,
        }
    }
}

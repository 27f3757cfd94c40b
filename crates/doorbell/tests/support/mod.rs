//! What the tests with two processes share: messages, a server for them, and the body of a child process.
#![allow(dead_code, reason = "every test uses a part of it")]

pub(crate) mod log;
pub(crate) mod messages;
pub(crate) mod roles;
pub(crate) mod service;
pub(crate) mod tunnel;

use std::{future::Future, time::Duration};

use doorbell::Client;
use doorbell_testkit::{Child, PATIENCE, Place};

use messages::{Seen, WaitFor};

/// A second process with a server in it.
pub(crate) struct Host {
    pub(crate) place: Place,
    pub(crate) child: Child,
}

impl Host {
    /// Starts a server with the service of [`service`] in a second process.
    pub(crate) fn start(role: &str, settings: &[(&str, &str)]) -> Self {
        let place = Place::new();
        let child = Self::start_child(&place, role, settings);
        Self { place, child }
    }

    /// Starts the server again, on the same path.
    pub(crate) fn restart(&mut self, role: &str) {
        self.child = Self::start_child(&self.place, role, &[]);
    }

    fn start_child(place: &Place, role: &str, settings: &[(&str, &str)]) -> Child {
        let name = place.name();
        let settings = [&[("path", name.as_str())], settings].concat();
        let child = Child::start("child_process", role, &settings);
        child.hear("READY");
        child
    }

    pub(crate) fn name(&self) -> String {
        self.place.name()
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.name())
            .await
            .expect("the server listens")
    }
}

/// Lets a test take so long and no longer.
pub(crate) async fn in_time<T>(test: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE * 2, test)
        .await
        .expect("the test hangs")
}

/// Waits until the server has seen at least so much.
pub(crate) async fn server_has_seen(client: &Client, seen: Seen) {
    let waited = client.call(WaitFor(seen)).timeout(PATIENCE).await;
    waited.unwrap_or_else(|error| panic!("the server has not seen {seen:?}: {error}"));
}

/// A length of time after which something that must not happen by itself would have been waited for in vain.
pub(crate) const SHORT: Duration = Duration::from_millis(50);

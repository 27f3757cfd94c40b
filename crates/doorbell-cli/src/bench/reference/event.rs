//! Doorbells only: each side sleeps on its own and rings the other's.
//!
//! Nothing is carried, so this is the least that waking a task through a descriptor can cost.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use doorbell_shm::sys::{Doorbell, DoorbellKind, Woken};

use super::Role;
use super::handover::{Giver, take};
use crate::bench::case::Setting;
use crate::bench::clock::closed_loop;
use crate::bench::peer;
use crate::bench::sample::Sample;

/// Times round trips of a notification.
///
/// # Errors
///
/// If the second process fails.
pub(crate) fn round_trips(setting: &Setting) -> anyhow::Result<Sample> {
    let peer = setting.start_peer(peer::Role::Reference(Role::Event))?;
    setting.pin_client()?;
    let mut handles = take(peer.path(), 2)?.into_iter();
    let mut next = || {
        let handle = handles.next().context("a doorbell is missing")?;
        Ok::<_, anyhow::Error>(Doorbell::from_handle(handle, DoorbellKind::default_kind())?)
    };
    let (ours, theirs) = (next()?, next()?);
    closed_loop(setting.limit, setting.size_bytes, || {
        theirs.notify()?;
        match ours.wait(Some(Instant::now() + PATIENCE))? {
            Woken::Notified => Ok(()),
            Woken::Deadline => bail!("the second process does not answer"),
        }
    })
}

/// Answers each notification with one.
pub(super) fn serve(path: &Path) -> anyhow::Result<impl FnOnce() -> anyhow::Result<()> + use<>> {
    let giver = Giver::listen(path)?;
    Ok(move || {
        let (client_end, client_ringer) = Doorbell::pair(DoorbellKind::default_kind())?;
        let (server_end, server_ringer) = Doorbell::pair(DoorbellKind::default_kind())?;
        giver.give(&[client_end.as_handle(), server_ringer.as_handle()])?;
        loop {
            server_end.wait(None)?;
            client_ringer.notify()?;
        }
    })
}

/// Longer than any wake-up takes.
const PATIENCE: Duration = Duration::from_secs(10);

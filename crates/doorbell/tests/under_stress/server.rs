//! The server's process.

use std::time::Duration;

use doorbell::Spin;
use doorbell_testkit::{say, setting, wait_for_parent};

use crate::support::service;

pub(crate) fn run() {
    let (path, spin) = (setting("path"), spin_of(&setting("spin")));
    if setting("kind") == "threads" {
        let _server = service::of_threads(&path).spin(spin).bind().unwrap();
        serve_until_told();
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_keep_alive(Duration::from_millis(10))
        .enable_all()
        .build()
        .unwrap();
    let bound = service::awaiting(&path).spin(spin).workers(2).bind();
    let _server = runtime.block_on(bound).unwrap();
    serve_until_told();
}

fn serve_until_told() {
    say("READY");
    while wait_for_parent().is_some() {}
}

pub(crate) fn spin_of(name: &str) -> Spin {
    match name {
        "never" => Spin::Never,
        "adaptive" => Spin::Adaptive,
        "always" => Spin::Always,
        other => panic!("no spin {other}"),
    }
}

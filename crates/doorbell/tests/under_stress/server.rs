//! The server's process.

use std::time::Duration;

use doorbell::{
    Spin,
    server::{Peer, SocketAccess},
};
use doorbell_testkit::{say, setting, wait_for_parent};

use super::lending;
use crate::support::service;

pub(crate) fn run() {
    let (path, spin) = (setting("path"), spin_of(&setting("spin")));
    if setting("kind") == "threads" {
        let builder = lending::of_threads(service::of_threads(&path));
        let builder = builder.socket_access(access()).admit(|_: &Peer| true);
        let _server = builder.spin(spin).bind().unwrap();
        serve_until_told();
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_keep_alive(Duration::from_millis(10))
        .enable_all()
        .build()
        .unwrap();
    let builder = lending::of_tasks(service::awaiting(&path));
    let builder = builder.socket_access(access()).admit(|_: &Peer| true);
    let bound = builder.spin(spin).workers(2).bind();
    let _server = runtime.block_on(bound).unwrap();
    serve_until_told();
}

fn access() -> SocketAccess {
    match setting("clients").as_str() {
        "own" => SocketAccess::default(),
        "of another user" => SocketAccess::Everyone,
        other => panic!("no clients {other}"),
    }
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

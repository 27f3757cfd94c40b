//! iceoryx2: services in shared memory with names.
//!
//! Request-response and publish-subscribe (one topic each way), on slices of bytes. A sender copies its message into a loaned
//! chunk; the receiver looks at it in place, which is what iceoryx2 is good at; the server copies from the request into the
//! response. *Polled* sides ask again and again and never sleep. iceoryx2 has no waiting of its own: *woken* sides follow its
//! documentation, a notification through an event service after each message and a listener that sleeps until then. One way,
//! the subscriber's buffer has 1024 places, and a publisher that finds it full tries again, which was faster than letting
//! iceoryx2 wait. Every measurement has a root path and a prefix of its own.

use std::hint::spin_loop;

use anyhow::{Context as _, bail, ensure};
use iceoryx2::prelude::*;

use self::wake::Wake;
use super::Mode;
use super::not_measured;
use crate::clock::{Counter, closed_loop};
use crate::part::{Part, Side, Work, say_ready};
use crate::payload::{self, Sequence, Turn};
use crate::sample::Figures;

mod loans;
mod wake;

type Link = ipc::Service;

/// Serves until the process is ended.
///
/// # Errors
///
/// If the services cannot be made.
pub(super) fn serve(part: &Part) -> anyhow::Result<()> {
    part.pin()?;
    let node = node(part)?;
    let wake = Wake::new(&node, part)?;
    match (part.mode, part.work) {
        (Mode::CallPolled | Mode::CallWoken, Work::Loaned) => loans::serve(&node, part, &wake),
        (Mode::CallPolled | Mode::CallWoken, _) => {
            let server = calls(&node, part)?
                .server_builder()
                .initial_max_slice_len(part.size_bytes)
                .create()?;
            say_ready()?;
            loop {
                while let Some(request) = server.receive()? {
                    let response = request.loan_slice_uninit(request.payload().len())?;
                    response.write_from_slice(request.payload()).send()?;
                    wake.notify()?;
                }
                wake.wait()?;
            }
        }
        (_, Work::OneWay) => {
            let publisher = publisher(&node, part, TO_CLIENT)?;
            say_ready()?;
            for number in 0_u64.. {
                let message = payload::message(part.size_bytes, number);
                send(&publisher, &message)?;
            }
            Ok(())
        }
        _ => {
            let subscriber = subscriber(&node, TO_SERVER)?;
            let publisher = publisher(&node, part, TO_CLIENT)?;
            say_ready()?;
            loop {
                while let Some(request) = subscriber.receive()? {
                    send(&publisher, request.payload())?;
                    wake.notify()?;
                }
                wake.wait()?;
            }
        }
    }
}

/// Measures as a client.
///
/// # Errors
///
/// If the server fails or answers something else than was sent.
pub(super) fn measure(part: &Part) -> anyhow::Result<Figures> {
    part.pin()?;
    let node = node(part)?;
    let wake = Wake::new(&node, part)?;
    match (part.mode, part.work) {
        (Mode::CallPolled | Mode::CallWoken, Work::RoundTrip) => call_by_call(&node, part, wake),
        (Mode::CallPolled | Mode::CallWoken, Work::Loaned) => {
            loans::round_trips(&node, part, &wake)
        }
        (Mode::CallPolled, Work::Pipelined { window }) => pipelined(&node, part, window),
        (Mode::TopicPolled | Mode::TopicWoken, Work::RoundTrip) => {
            message_by_message(&node, part, wake)
        }
        (Mode::TopicPolled, Work::OneWay) => one_way(&node, part),
        _ => not_measured(part),
    }
}

fn call_by_call(node: &Node<Link>, part: &Part, wake: Wake) -> anyhow::Result<Figures> {
    let client = client(node, part)?;
    let mut requests = Turn::new(|number| payload::message(part.size_bytes, number));
    closed_loop(part.limit, || {
        let request = requests.next();
        let pending = client
            .loan_slice_uninit(request.len())?
            .write_from_slice(request)
            .send()?;
        wake.notify()?;
        loop {
            if let Some(response) = pending.receive()? {
                return payload::check(response.payload(), request);
            }
            wake.wait()?;
        }
    })
}

fn pipelined(node: &Node<Link>, part: &Part, window: usize) -> anyhow::Result<Figures> {
    let window = window.min(MOST_UNDER_WAY);
    let client = client(node, part)?;
    let mut requests = Turn::new(|number| payload::message(part.size_bytes, number));
    let mut under_way = std::collections::VecDeque::with_capacity(window);
    let mut counter = Counter::start(part.limit);
    loop {
        while under_way.len() < window {
            let request = requests.next();
            let pending = client
                .loan_slice_uninit(request.len())?
                .write_from_slice(request)
                .send()?;
            under_way.push_back((payload::ends(request), pending));
        }
        let Some((sent, pending)) = under_way.pop_front() else {
            continue;
        };
        let response = loop {
            match pending.receive()? {
                Some(response) => break response,
                None => spin_loop(),
            }
        };
        ensure!(
            payload::ends(response.payload()) == sent,
            "the echo is not what was sent"
        );
        if !counter.add(1) {
            return Ok(counter.finish());
        }
    }
}

fn message_by_message(node: &Node<Link>, part: &Part, wake: Wake) -> anyhow::Result<Figures> {
    let publisher = publisher(node, part, TO_SERVER)?;
    let subscriber = subscriber(node, TO_CLIENT)?;
    let mut requests = Turn::new(|number| payload::message(part.size_bytes, number));
    closed_loop(part.limit, || {
        let request = requests.next();
        send(&publisher, request)?;
        wake.notify()?;
        loop {
            if let Some(answer) = subscriber.receive()? {
                return payload::check(answer.payload(), request);
            }
            wake.wait()?;
        }
    })
}

fn one_way(node: &Node<Link>, part: &Part) -> anyhow::Result<Figures> {
    let subscriber = subscriber(node, TO_CLIENT)?;
    let (mut counter, mut sequence) = (Counter::start(part.limit), Sequence::default());
    loop {
        match subscriber.receive()? {
            Some(item) => {
                sequence.handle(item.payload());
                if !counter.add(1) {
                    break;
                }
            }
            None => spin_loop(),
        }
    }
    sequence.finish()?;
    Ok(counter.finish())
}

fn node(part: &Part) -> anyhow::Result<Node<Link>> {
    set_log_level(LogLevel::Error);
    let mut config = Config::default();
    config.global.prefix = FileName::new(part.token.as_bytes())
        .ok()
        .context("the token is no file name")?;
    let root = part.directory.to_str().context("TMPDIR is not UTF-8")?;
    let root = Path::new(root.as_bytes())
        .ok()
        .context("TMPDIR is too long")?;
    config.global.set_root_path(&root);
    NodeBuilder::new()
        .config(&config)
        .signal_handling_mode(SignalHandlingMode::Disabled)
        .create::<Link>()
        .context("cannot make a node")
}

type Calls =
    iceoryx2::service::port_factory::request_response::PortFactory<Link, [u8], (), [u8], ()>;

fn calls(node: &Node<Link>, part: &Part) -> anyhow::Result<Calls> {
    let window = part.work.window().min(MOST_UNDER_WAY);
    Ok(node
        .service_builder(&"calls".try_into()?)
        .request_response::<[u8], [u8]>()
        .max_active_requests_per_client(window)
        .max_loaned_requests(window)
        .max_clients(1)
        .max_servers(1)
        .open_or_create()?)
}

type Client = iceoryx2::port::client::Client<Link, [u8], (), [u8], ()>;

fn client(node: &Node<Link>, part: &Part) -> anyhow::Result<Client> {
    Ok(calls(node, part)?
        .client_builder()
        .initial_max_slice_len(part.size_bytes)
        .create()?)
}

type Topic = iceoryx2::service::port_factory::publish_subscribe::PortFactory<Link, [u8], ()>;

fn topic(node: &Node<Link>, name: &str) -> anyhow::Result<Topic> {
    Ok(node
        .service_builder(&name.try_into()?)
        .publish_subscribe::<[u8]>()
        .enable_safe_overflow(false)
        .history_size(0)
        .subscriber_max_buffer_size(BUFFERED_MESSAGES)
        .max_publishers(1)
        .max_subscribers(1)
        .open_or_create()?)
}

type Publisher = iceoryx2::port::publisher::Publisher<Link, [u8], ()>;

fn publisher(node: &Node<Link>, part: &Part, name: &str) -> anyhow::Result<Publisher> {
    Ok(topic(node, name)?
        .publisher_builder()
        .initial_max_slice_len(part.size_bytes)
        .backpressure_strategy(BackpressureStrategy::DiscardData)
        .create()?)
}

type Subscriber = iceoryx2::port::subscriber::Subscriber<Link, [u8], ()>;

fn subscriber(node: &Node<Link>, name: &str) -> anyhow::Result<Subscriber> {
    Ok(topic(node, name)?.subscriber_builder().create()?)
}

/// Publishes until the subscriber has taken the message.
fn send(publisher: &Publisher, message: &[u8]) -> anyhow::Result<()> {
    for _ in 0..MOST_ATTEMPTS {
        let sample = publisher.loan_slice_uninit(message.len())?;
        if sample.write_from_slice(message).send()? == 1 {
            return Ok(());
        }
        spin_loop();
    }
    bail!("nobody takes a message")
}

const TO_SERVER: &str = "to-server";
const TO_CLIENT: &str = "to-client";

/// Calls under way in pipelined rows, however many the window allows. More were slower: with 16 a call took 1.8 µs, with 64
/// 2.2 µs and with 256 4.7 µs (median of batches of 64, far).
const MOST_UNDER_WAY: usize = 16;

/// Places in the buffer of a subscriber.
const BUFFERED_MESSAGES: usize = 1024;

/// Several seconds of attempts.
const MOST_ATTEMPTS: u32 = 50_000_000;

/// Returns the names of our event service and of that of the other side.
fn event_names(side: Side) -> (&'static str, &'static str) {
    match side {
        Side::Server => ("server-woken", "client-woken"),
        Side::Client | Side::Member => ("client-woken", "server-woken"),
    }
}

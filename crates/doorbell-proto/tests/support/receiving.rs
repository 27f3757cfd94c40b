//! What each application does with what arrives.

use super::{World, sender, side::Side};
use doorbell_proto::{
    CallId, CallKind, Connection, Descriptor, Destination, Event, FrameHeader, MessageType,
    Payload, Time, frame::DESCRIPTOR_BYTES,
};

impl World {
    pub(super) fn server_takes(&mut self, header: &FrameHeader, body: &[u8]) {
        let (side, peer) = (&mut self.server, &self.client);
        let event = take(&mut side.machine, self.now, header, body);
        side.note_loan(peer, header, body, &event);
        self.seen.insert(format!("server {}", name(&event)));
        match event {
            Event::None
            | Event::CreditAvailable { .. }
            | Event::ItemsEnded { .. }
            | Event::Notify { .. } => {}
            Event::Request {
                id, kind, payload, ..
            } => {
                check_payload(&payload);
                assert!(!side.ended.contains(&id), "{id} arrives twice");
                assert_eq!(side.open.insert(id, kind), None);
            }
            Event::Item {
                id,
                payload,
                cost_bytes,
            } => {
                check_payload(&payload);
                assert!(side.open.contains_key(&id));
                side.inbox.push((id, cost_bytes));
            }
            Event::Items {
                id,
                payloads,
                cost_bytes,
            } => {
                payloads.for_each(sender::check_pattern);
                assert!(side.open.contains_key(&id));
                side.inbox.push((id, cost_bytes));
            }
            Event::Notifies { payloads, .. } => payloads.for_each(sender::check_pattern),
            Event::Cancelled { id } | Event::Failed { id, .. } => {
                side.end(id);
                side.drop_call(id);
            }
            event if side.take_loan_event(&event) => {}
            event => panic!("{event:?} at the server"),
        }
    }

    pub(super) fn client_takes(&mut self, header: &FrameHeader, body: &[u8]) {
        let (side, peer) = (&mut self.client, &self.server);
        let event = take(&mut side.machine, self.now, header, body);
        side.note_loan(peer, header, body, &event);
        self.seen.insert(format!("client {}", name(&event)));
        let ended = match event {
            Event::None
            | Event::CreditAvailable { .. }
            | Event::Pong { .. }
            | Event::GoAway { .. } => return,
            Event::Response { id, payload, .. } => {
                check_payload(&payload);
                id
            }
            Event::Item {
                id,
                payload,
                cost_bytes,
            } => {
                check_payload(&payload);
                assert!(side.open.contains_key(&id));
                side.inbox.push((id, cost_bytes));
                return;
            }
            Event::Items {
                id,
                payloads,
                cost_bytes,
            } => {
                payloads.for_each(sender::check_pattern);
                assert!(side.open.contains_key(&id));
                side.inbox.push((id, cost_bytes));
                return;
            }
            Event::Failed { id, .. } | Event::ItemsEnded { id } => id,
            event if side.take_loan_event(&event) => return,
            event => panic!("{event:?} at the client"),
        };
        side.end(ended);
        if !self.stale_frames {
            side.drop_call(ended);
        }
    }
}

impl Side {
    /// Notes the block of a message that is lent. It is held if the application is told of the message, and given back at once otherwise.
    fn note_loan(&mut self, peer: &Side, header: &FrameHeader, body: &[u8], event: &Event<'_>) {
        if !header.is_loaned() {
            return;
        }
        let (_, descriptor) = body.split_at(body.len() - DESCRIPTOR_BYTES);
        let loan = Descriptor::decode(descriptor).unwrap();
        match event {
            Event::Request { payload, .. }
            | Event::Response { payload, .. }
            | Event::Item { payload, .. } => {
                assert!(matches!(payload, Payload::Loaned(found) if *found == loan));
                self.lending.hold(loan, &peer.lending);
            }
            _ => self.lending.refuse(loan, &peer.lending),
        }
    }
}

/// What lies in a segment has no bytes here.
fn check_payload(payload: &Payload<'_>) {
    if !matches!(payload, Payload::Loaned(_)) {
        sender::check_pattern(payload.as_slice());
    }
}

/// Hands a frame to a machine the way the bytes would arrive: through the codec, and continuations through their destination.
fn take<'a>(
    machine: &mut Connection,
    now: Time,
    header: &FrameHeader,
    body: &'a [u8],
) -> Event<'a> {
    let decoded =
        FrameHeader::decode(&header.encode()).expect("honest machines write valid headers");
    assert_eq!(decoded, *header);
    if let Some(event) = take_shortly(machine, header, body) {
        return event;
    }
    if !header.is_continuation() {
        return machine
            .handle_frame(now, header, body)
            .expect("honest machines keep to the protocol");
    }
    let mut destination = machine
        .take_destination(header)
        .expect("honest machines keep to the protocol");
    if let Destination::Buffer(buffer) = &mut destination {
        let address = buffer.as_ptr();
        buffer.extend_from_slice(body);
        assert_eq!(address, buffer.as_ptr(), "there was not enough room");
    }
    machine
        .handle_continuation(now, header, destination)
        .expect("honest machines keep to the protocol")
}

/// Returns the name of an event without its fields.
fn name(event: &Event<'_>) -> String {
    let text = format!("{event:?}");
    text.chars()
        .take_while(|character| character.is_alphabetic())
        .collect()
}

/// Takes the commonest frames the short way, if the machine lets them. What it says there is checked as any other event is.
fn take_shortly<'a>(
    machine: &mut Connection,
    header: &FrameHeader,
    body: &'a [u8],
) -> Option<Event<'a>> {
    let words = header.to_words(0);
    if let Some(id) = FrameHeader::bare_response(&words)
        && machine.take_reply(id, body.len())
    {
        return Some(Event::Response {
            id,
            metadata: None,
            payload: Payload::Borrowed(body),
        });
    }
    if let Some((id, message_type)) = FrameHeader::bare_call(&words)
        && machine.take_request(id, body.len())
    {
        return Some(request(id, message_type, Payload::Borrowed(body)));
    }
    if let Some(block) = FrameHeader::bare_release(&words) {
        return machine
            .take_back(block)
            .then_some(Event::Released { block });
    }
    let loan = Descriptor::decode(body)?;
    if let Some(id) = FrameHeader::bare_lent_response(&words)
        && machine.take_lent_reply(id, loan)
    {
        return Some(Event::Response {
            id,
            metadata: None,
            payload: Payload::Loaned(loan),
        });
    }
    let (id, message_type) = FrameHeader::bare_lent_call(&words)?;
    let takes = machine.take_lent_request(id, loan);
    takes.then(|| request(id, message_type, Payload::Loaned(loan)))
}

/// A unary request that is nothing but its payload.
fn request(id: CallId, message_type: MessageType, payload: Payload<'_>) -> Event<'_> {
    Event::Request {
        id,
        kind: CallKind::Unary,
        message_type,
        deadline: None,
        metadata: None,
        payload,
    }
}

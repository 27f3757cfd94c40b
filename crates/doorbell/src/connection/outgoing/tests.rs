use super::*;

const CALL: u64 = 0x1_0000_0002;

fn item() -> Small {
    Small {
        header: FrameHeader::new(FrameKind::Data, CALL, 0),
        body: vec![7],
    }
}

fn pong() -> FrameHeader {
    FrameHeader::new(FrameKind::Pong, CALL, 0)
}

/// The peer chooses that number, and the next answer replaces the one that waits.
#[test]
fn answer_to_a_ping_with_the_number_of_a_call_takes_no_frame_of_the_call_with_it() {
    let mut queue = Outgoing::default();
    queue.push_last(pong());
    assert!(queue.may_overtake(&item().header));
    queue.push_small(item(), 0);
    queue.push_last(pong());
    assert!(queue.first_small().is_some(), "the item still waits");
    queue.remove(CallId::from_raw(CALL));
    assert!(queue.has_large(), "the ping is still to be answered");
}

/// When the generations of slot 0 begin again, a call has the number 0, as notifications have, which belong to no call.
#[test]
fn frames_of_the_call_with_the_number_0_follow_its_large_message_and_notifications_do_not() {
    let of = |kind| FrameHeader::new(kind, 0, 0);
    let small = |kind| Small {
        header: of(kind),
        body: vec![7],
    };
    let mut queue = Outgoing::default();
    queue.push_large(Large::new(
        of(FrameKind::Call),
        Vec::new(),
        Bytes::from("large"),
    ));
    assert!(!queue.may_overtake(&of(FrameKind::Data)));
    queue.push_small(small(FrameKind::Data), 0);
    assert!(
        queue.first_small().is_none(),
        "the item waits behind its request"
    );
    assert!(queue.may_overtake(&of(FrameKind::Notify)));
    queue.push_small(small(FrameKind::Notify), 0);
    let first = queue.first_small().map(|small| small.header.kind);
    assert_eq!(first, Some(FrameKind::Notify));
}

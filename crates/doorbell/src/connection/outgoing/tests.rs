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

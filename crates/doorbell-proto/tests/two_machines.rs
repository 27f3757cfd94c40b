//! Two machines joined by an in-memory link, on a virtual clock: random operations, frames delayed at will but in order.

mod support;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use std::collections::BTreeSet;
use support::{Operation, World};

fn operation() -> impl Strategy<Value = Operation> {
    let size = prop_oneof![6 => 0..200usize, 3 => 200..5_000usize, 1 => 5_000..20_000usize];
    prop_oneof![
        6 => (0..4u8, size.clone(), proptest::option::of(0..200u64)).prop_map(|(kind, size, deadline)| Operation::Start { kind, size, deadline }),
        2 => (any::<u16>(), size.clone()).prop_map(|(pick, size)| Operation::Respond { pick, size }),
        2 => any::<u16>().prop_map(|pick| Operation::Fail { pick }),
        4 => (any::<u16>(), size.clone()).prop_map(|(pick, size)| Operation::ClientItem { pick, size }),
        4 => (any::<u16>(), size.clone()).prop_map(|(pick, size)| Operation::ServerItem { pick, size }),
        2 => any::<u16>().prop_map(|pick| Operation::EndItems { pick }),
        2 => any::<u16>().prop_map(|pick| Operation::Cancel { pick }),
        1 => size.prop_map(|size| Operation::Notify { size }),
        1 => any::<u64>().prop_map(|id| Operation::Ping { id }),
        3 => (0..100u64).prop_map(|nanos| Operation::Wait { nanos }),
        8 => (0..20usize).prop_map(|frames| Operation::DeliverToServer { frames }),
        8 => (0..20usize).prop_map(|frames| Operation::DeliverToClient { frames }),
        3 => (0..50_000u64).prop_map(|bytes| Operation::Consume { bytes }),
        4 => any::<(u16, u16)>().prop_map(|picks| Operation::GiveBack { picks }),
        1 => any::<(u16, u16)>().prop_map(|picks| Operation::Retire { picks }),
        1 => any::<(u16, u16)>().prop_map(|picks| Operation::AskToRetire { picks }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn honest_machines_end_every_call_exactly_once(
        operations in proptest::collection::vec(operation(), 1..250),
        go_away_at in proptest::option::of(0..250usize),
        stale_frames in any::<bool>(),
    ) {
        let mut world = World::new(stale_frames);
        for (step, operation) in operations.into_iter().enumerate() {
            if go_away_at == Some(step) {
                world.server_goes_away();
            }
            world.apply(operation);
            world.check_bounds();
        }
        world.drain();
        world.check_every_loan_ended();
        world.check_everything_ended();
    }

    #[test]
    fn honest_machines_closed_at_any_moment_report_each_open_call_once(
        operations in proptest::collection::vec(operation(), 1..100),
    ) {
        let mut world = World::new(false);
        for operation in operations {
            world.apply(operation);
        }
        world.close();
        world.check_everything_ended();
    }
}

/// The test above is worth nothing if its operations do not get anywhere.
#[test]
fn random_operations_reach_every_event() {
    let mut runner = TestRunner::deterministic();
    let strategy = proptest::collection::vec(operation(), 200);
    let mut seen = BTreeSet::new();
    for round in 0..100 {
        let mut world = World::new(round % 2 == 0);
        for (step, operation) in strategy
            .new_tree(&mut runner)
            .unwrap()
            .current()
            .into_iter()
            .enumerate()
        {
            if step == 180 {
                world.server_goes_away();
            }
            world.apply(operation);
        }
        world.drain();
        world.check_every_loan_ended();
        seen.extend(world.seen().iter().cloned());
    }
    let both = ["Released", "Retired", "RetireAsked"];
    let client = [
        "None",
        "Response",
        "Failed",
        "Item",
        "Items",
        "ItemsEnded",
        "CreditAvailable",
        "Pong",
        "GoAway",
        "Segment",
        "SegmentRefused",
    ];
    let server = [
        "None",
        "Request",
        "Notify",
        "Notifies",
        "Failed",
        "Item",
        "Items",
        "ItemsEnded",
        "CreditAvailable",
        "Cancelled",
        "SegmentWanted",
    ];
    let client = client
        .iter()
        .chain(&both)
        .map(|name| format!("client {name}"));
    let expected: BTreeSet<_> = server
        .iter()
        .chain(&both)
        .map(|name| format!("server {name}"))
        .chain(client)
        .collect();
    assert_eq!(seen, expected);
}

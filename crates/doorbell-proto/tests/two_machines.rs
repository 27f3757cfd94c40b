//! Two machines joined by an in-memory link, on a virtual clock: random operations, frames delayed at will but in order.

mod support;

use proptest::prelude::*;
use support::{Operation, World};

fn operation() -> impl Strategy<Value = Operation> {
    let size = prop_oneof![6 => 0..200usize, 3 => 200..5_000usize, 1 => 5_000..20_000usize];
    prop_oneof![
        6 => (0..4u8, size.clone(), proptest::option::of(0..200u64)).prop_map(|(kind, size, deadline)| Operation::Start { kind, size, deadline }),
        4 => (any::<u16>(), size.clone()).prop_map(|(pick, size)| Operation::Respond { pick, size }),
        2 => any::<u16>().prop_map(|pick| Operation::Fail { pick }),
        4 => (any::<u16>(), size.clone()).prop_map(|(pick, size)| Operation::ClientItem { pick, size }),
        4 => (any::<u16>(), size.clone()).prop_map(|(pick, size)| Operation::ServerItem { pick, size }),
        2 => any::<u16>().prop_map(|pick| Operation::EndItems { pick }),
        2 => any::<u16>().prop_map(|pick| Operation::Cancel { pick }),
        1 => size.prop_map(|size| Operation::Notify { size }),
        1 => any::<u64>().prop_map(|id| Operation::Ping { id }),
        3 => (0..100u64).prop_map(|nanos| Operation::Wait { nanos }),
        8 => (0..6usize).prop_map(|frames| Operation::DeliverToServer { frames }),
        8 => (0..6usize).prop_map(|frames| Operation::DeliverToClient { frames }),
        3 => (0..50_000u64).prop_map(|bytes| Operation::Consume { bytes }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

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

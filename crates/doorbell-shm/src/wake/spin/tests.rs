//! How the budget learns.

use super::*;

const SHORT: Duration = Duration::from_micros(60);

/// One whose budget has not grown yet.
fn adaptive() -> Spin {
    Spin {
        budget: START,
        ..Spin::new(SpinMode::Adaptive, 2)
    }
}

/// Spins in vain, as long as that is allowed at all, then sleeps.
fn miss_and_sleep(spin: &mut Spin, duration: Duration) {
    let mut turn = spin.start();
    turn.again();
    spin.missed(&turn);
    spin.slept(duration);
}

#[test]
fn first_wait_is_spun_for_as_long_as_any() {
    assert_eq!(Spin::new(SpinMode::Adaptive, 2).budget(), MAXIMUM);
}

#[test]
fn budget_grows_to_the_maximum_while_sleeps_are_short() {
    let mut spin = adaptive();
    assert_eq!(spin.budget(), START);
    miss_and_sleep(&mut spin, SHORT);
    assert_eq!(spin.budget(), 2 * START);
    miss_and_sleep(&mut spin, SHORT);
    assert_eq!(spin.budget(), MAXIMUM);
}

#[test]
fn budget_shrinks_to_nothing_while_sleeps_are_long_and_comes_back() {
    let mut spin = adaptive();
    for _ in 0..4 {
        miss_and_sleep(&mut spin, LONG_SLEEP);
    }
    assert_eq!(spin.budget(), Duration::ZERO);
    assert!(!spin.start().again());
    miss_and_sleep(&mut spin, SHORT);
    assert_eq!(spin.budget(), START);
}

#[test]
fn maximum_that_never_pays_is_given_up_for_a_while() {
    let mut spin = adaptive();
    for _ in 0..2 + MISSES {
        miss_and_sleep(&mut spin, SHORT);
    }
    assert_eq!(spin.budget(), Duration::ZERO);
    for _ in 0..REST_SLEEPS {
        miss_and_sleep(&mut spin, SHORT);
        assert_eq!(spin.budget(), Duration::ZERO);
    }
    miss_and_sleep(&mut spin, SHORT);
    assert_eq!(spin.budget(), START);
}

/// Sleeps until the budget is not zero, and returns how often.
fn sleeps_of_a_rest(spin: &mut Spin, duration: Duration) -> u32 {
    let mut sleeps = 0;
    while spin.budget().is_zero() {
        miss_and_sleep(spin, duration);
        sleeps += 1;
    }
    sleeps
}

#[test]
fn spin_that_keeps_the_answer_away_is_tried_ever_more_rarely() {
    let quick = QUICK_SLEEP / 4;
    let mut spin = adaptive();
    for _ in 0..2 + MISSES {
        miss_and_sleep(&mut spin, quick);
    }
    assert_eq!(sleeps_of_a_rest(&mut spin, quick), REST_SLEEPS + 1);
    miss_and_sleep(&mut spin, quick);
    assert_eq!(sleeps_of_a_rest(&mut spin, quick), 2 * REST_SLEEPS + 1);
    for _ in 0..8 {
        miss_and_sleep(&mut spin, quick);
        sleeps_of_a_rest(&mut spin, quick);
    }
    miss_and_sleep(&mut spin, quick);
    assert_eq!(sleeps_of_a_rest(&mut spin, quick), LONGEST_REST + 1);

    // What is there at once changes nothing.
    spin.paid(&spin.start());
    miss_and_sleep(&mut spin, quick);
    assert_eq!(sleeps_of_a_rest(&mut spin, quick), LONGEST_REST + 1);

    // A turn that pays does: all is as at first.
    let mut turn = spin.start();
    assert!(turn.again());
    spin.paid(&turn);
    miss_and_sleep(&mut spin, quick);
    assert_eq!(spin.budget(), 2 * START);
    for _ in 0..1 + MISSES {
        miss_and_sleep(&mut spin, quick);
    }
    assert_eq!(sleeps_of_a_rest(&mut spin, quick), REST_SLEEPS + 1);
}

#[test]
fn rest_is_short_again_once_a_spin_has_paid() {
    let quick = QUICK_SLEEP / 4;
    let mut spin = adaptive();
    for _ in 0..3 {
        while !spin.budget().is_zero() {
            miss_and_sleep(&mut spin, quick);
        }
        sleeps_of_a_rest(&mut spin, quick);
    }
    // Somewhere else sleeps are slow, and a spin pays that is longer than the trial.
    miss_and_sleep(&mut spin, quick);
    sleeps_of_a_rest(&mut spin, SHORT);
    miss_and_sleep(&mut spin, SHORT);
    assert_eq!(spin.budget(), 2 * START);
    let mut turn = spin.start();
    assert!(turn.again());
    spin.paid(&turn);
    spin.rest(LONG_REST);
    assert_eq!(sleeps_of_a_rest(&mut spin, SHORT), REST_SLEEPS + 1);
}

#[test]
fn sleeps_of_others_do_not_judge_a_spin_that_nobody_did() {
    let quick = QUICK_SLEEP / 4;
    let mut spin = adaptive();
    while !spin.budget().is_zero() {
        miss_and_sleep(&mut spin, quick);
    }
    sleeps_of_a_rest(&mut spin, quick);
    spin.slept(quick);
    assert!(!spin.budget().is_zero(), "given up without a try");
}

#[test]
fn spin_that_misses_although_sleeps_are_slow_is_tried_more_rarely_within_limits() {
    let mut spin = adaptive();
    let mut rests = Vec::new();
    for _ in 0..5 {
        for _ in 0..2 + MISSES {
            miss_and_sleep(&mut spin, SHORT);
        }
        rests.push(sleeps_of_a_rest(&mut spin, SHORT) - 1);
    }
    assert_eq!(rests, [32, 64, 128, LONG_REST, LONG_REST]);
}

#[test]
fn spins_that_others_interrupt_are_tried_ever_more_rarely() {
    let mut spin = adaptive();
    let mut rests = Vec::new();
    for _ in 0..9 {
        let turn = offer(&spin, TIME_SLICE);
        spin.missed(&turn);
        rests.push(sleeps_of_a_rest(&mut spin, QUICK_SLEEP / 2) - 1);
    }
    assert_eq!(rests[..3], [32, 64, 128]);
    assert_eq!(rests[7..], [LONGEST_REST, LONGEST_REST]);
}

#[test]
fn one_interrupted_turn_outweighs_many_that_pay() {
    let mut spin = adaptive();
    let mut rests = Vec::new();
    for paid in [PAY_BACK, PAY_BACK, PAY_BACK + 1, 0] {
        spin.missed(&offer(&spin, TIME_SLICE));
        rests.push(sleeps_of_a_rest(&mut spin, QUICK_SLEEP / 2) - 1);
        for _ in 0..paid {
            spin.paid(&offer(&spin, QUICK_SLEEP / 2));
        }
    }
    assert_eq!(rests, [32, 64, 128, 32]);
}

#[test]
fn rest_ends_after_a_while_however_few_sleeps_it_had() {
    let mut spin = adaptive();
    for _ in 0..9 {
        spin.missed(&offer(&spin, TIME_SLICE));
        sleeps_of_a_rest(&mut spin, SHORT);
    }
    let sleep = LONG_SLEEP / 2;
    spin.missed(&offer(&spin, TIME_SLICE));
    let sleeps = sleeps_of_a_rest(&mut spin, sleep) - 1;
    assert!(sleeps * sleep <= LONGEST_REST_TIME + sleep, "{sleeps}");
}

#[test]
fn wait_for_a_peer_on_an_idle_cpu_is_spun_through() {
    let wait = Duration::from_micros(120);
    let mut spin = adaptive();
    let mut sleeps = 0;
    while spin.budget() < wait {
        miss_and_sleep(&mut spin, 2 * wait);
        sleeps += 1;
    }
    assert_eq!(sleeps, 2, "doubled from {START:?}");
}

#[test]
fn pauses_longer_than_any_spin_cost_nothing_after_a_few() {
    let mut spin = adaptive();
    spin.budget = MAXIMUM;
    let mut spun = Duration::ZERO;
    for _ in 0..1000 {
        spun += spin.budget();
        miss_and_sleep(&mut spin, LONG_SLEEP);
    }
    assert!(spun < 2 * MAXIMUM, "{spun:?}");
}

#[test]
fn one_cpu_and_never_do_not_spin() {
    for spin in [
        Spin::new(SpinMode::Adaptive, 1),
        Spin::new(SpinMode::Never, 64),
    ] {
        assert!(!spin.start().again());
    }
}

#[test]
fn always_spins_with_one_cpu_too() {
    assert!(Spin::new(SpinMode::Always, 1).start().again());
}

#[test]
fn turn_ends_when_its_budget_is_used_up() {
    let spin = adaptive();
    let began = Instant::now();
    let mut turn = spin.start();
    let mut looks = 0_u32;
    while turn.again() {
        looks += 1;
    }
    assert!(looks > PAUSES);
    assert!(turn.stolen || began.elapsed() >= START);
    assert!(!turn.again(), "a turn that is over stays over");
}

#[test]
fn gap_between_two_looks_counts_as_stolen() {
    let mut spin = adaptive();
    let mut turn = spin.start();
    let now = Instant::now();
    assert!(turn.look_at_clock(now));
    assert!(!turn.look_at_clock(now + STOLEN * 2));
    spin.missed(&turn);
    assert_eq!(spin.budget(), Duration::ZERO);
}

/// Offers the CPU once, for `away`, at the beginning of a turn.
fn offer(spin: &Spin, away: Duration) -> SpinTurn {
    let mut turn = spin.start();
    let now = Instant::now();
    turn.clock = Some(Clock {
        started: now,
        began: now,
        looked: now,
        offer_at: now,
    });
    turn.offered(now, now + away);
    turn
}

#[test]
fn waits_soon_offer_the_cpu_while_somebody_takes_it() {
    let mut spin = adaptive();
    spin.paid(&offer(&spin, 2 * SWITCH));
    assert!(spin.is_shared);
    let mut turn = spin.start();
    assert!(!turn.has_paused(), "what is there at once teaches nothing");
    for _ in 0..PAUSES_BEFORE_OFFER {
        assert!(turn.again());
    }
    turn.again(); // offers the CPU; whether the turn goes on depends on when it comes back
    assert!(turn.clock.is_some(), "paused for long before the offer");

    spin.paid(&offer(&spin, SWITCH / 3));
    assert!(!spin.is_shared);
}

#[test]
fn time_for_which_others_had_the_cpu_is_not_part_of_the_turn() {
    let spin = adaptive();
    let turn = offer(&spin, 10 * START);
    let clock = turn.clock.unwrap();
    assert!(!turn.is_over(clock.looked));
    assert!(turn.is_over(clock.looked + START));
}

#[test]
fn offer_that_costs_a_time_slice_ends_spinning_for_a_while() {
    let mut spin = adaptive();
    let turn = offer(&spin, TIME_SLICE);
    assert!(turn.is_over(turn.clock.unwrap().looked));
    spin.missed(&turn);
    assert_eq!(spin.budget(), Duration::ZERO);
}

/// Lets an interrupted turn lead to a rest, in which each sleep takes so long.
fn after_a_rest_with_sleeps_of(duration: Duration) -> Spin {
    let mut spin = adaptive();
    spin.missed(&offer(&spin, TIME_SLICE));
    sleeps_of_a_rest(&mut spin, duration);
    spin
}

/// In a crowd of processes that spin, a sleep is not shorter than a spin that is interrupted now and then, and costs the peer a wake-up.
#[test]
fn interrupted_spin_is_no_reason_to_rest_while_waits_take_longer_asleep() {
    let asleep = Duration::from_micros(180);
    let mut spin = after_a_rest_with_sleeps_of(asleep);
    let pays = |spin: &mut Spin| {
        (0..16).for_each(|_| spin.paid(&offer(spin, asleep / 4)));
    };
    for _ in 0..1000 {
        pays(&mut spin);
        spin.missed(&offer(&spin, TIME_SLICE));
        assert!(!spin.budget().is_zero());
    }
    pays(&mut spin);
    spin.missed(&offer(&spin, 25 * TIME_SLICE));
    assert!(
        spin.budget().is_zero(),
        "that one took more than all were better"
    );
}

#[test]
fn interrupted_spin_leads_to_a_rest_where_sleeps_are_short() {
    let mut spin = after_a_rest_with_sleeps_of(QUICK_SLEEP);
    for _ in 0..16 {
        spin.paid(&offer(&spin, QUICK_SLEEP / 2));
    }
    spin.missed(&offer(&spin, TIME_SLICE));
    assert!(spin.budget().is_zero());
}

#[test]
fn sleep_after_a_spin_belongs_to_its_wait() {
    let mut spin = after_a_rest_with_sleeps_of(QUICK_SLEEP);
    for _ in 0..REMEMBERED {
        spin.paid(&offer(&spin, QUICK_SLEEP / 4));
        let turn = offer(&spin, QUICK_SLEEP / 4);
        spin.missed(&turn);
        spin.slept(2 * QUICK_SLEEP);
    }
    assert!(!spin.spun.is_less_than(&spin.asleep));
}

#!/usr/bin/env bash
# Runs the models of doorbell-shm under loom: each must pass as the code is, and the one that watches
# a place must fail when that place is weakened. The places and their models are explained in
# docs/orderings.md.
set -euo pipefail
cd "$(dirname "$0")/.."
source ci/common.sh

export CARGO_TARGET_DIR="$CARGO_TARGET_DIR/loom"
export RUSTFLAGS='--cfg loom'
export RUST_BACKTRACE=0

log=$(mktemp)
trap 'rm -f "$log"' EXIT
failed=0

models=$(cargo test --locked --quiet -p doorbell-shm --lib --release --no-run --message-format=json |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)

[ -x "$models" ] || { echo "the models do not build"; exit 1; }

run() { # $1: model, by the last part of its name
    name=$("$models" --list | sed -n 's/: test$//p' | grep "::$1\$") || { echo "no model $1"; exit 1; }
    timeout 400 "$models" --exact "$name" >"$log" 2>&1
}

must_pass() { # $1: model
    if run "$1"; then
        echo "pass   $1"
    else
        failed=1
        echo "BROKEN $1"
        cat "$log"
    fi
}

must_fail() { # $1: place, $2: model
    export DOORBELL_WEAKEN="$1"
    if run "$2"; then
        failed=1
        echo "MISSED $1: $2 passes without it"
    elif grep -q -e 'deadlock; threads' -e 'Causality violation' -e 'notified more often' -e 'for ever' -e 'is missing' -e 'is refused' -e 'old handler' "$log"; then
        echo "caught $1: $2"
    else
        failed=1
        echo "BROKEN $1: $2 fails for another reason"
        cat "$log"
    fi
    unset DOORBELL_WEAKEN
}

for model in $("$models" --list | sed -n 's/.*::\(loom_[a-z_]*\): test$/\1/p'); do
    must_pass "$model"
done

while read -r place model; do
    must_fail "$place" "$model"
done <<'PLACES'
filled-release    loom_published_records_are_read_whole_and_in_order
filled-acquire    loom_published_records_are_read_whole_and_in_order
consumed-release  loom_room_is_not_reused_before_it_was_read
consumed-acquire  loom_room_is_not_reused_before_it_was_read
consumed-release  loom_memory_is_not_given_back_before_it_was_read
consumed-acquire  loom_memory_is_not_given_back_before_it_was_read
announce-fence    loom_publish_racing_with_sleep_on_a_futex_wakes
announce-fence    loom_publish_racing_with_sleep_on_a_doorbell_wakes
announce-fence    loom_release_racing_with_sleep_for_space_on_a_futex_wakes
announce-fence    loom_two_sides_never_both_sleep_over_a_record
notify-fence      loom_publish_racing_with_sleep_on_a_futex_wakes
notify-fence      loom_publish_racing_with_sleep_on_a_doorbell_wakes
notify-fence      loom_release_racing_with_sleep_for_space_on_a_doorbell_wakes
notify-fence      loom_answer_and_room_under_one_fence_wake_the_client
look-once-more    loom_publish_racing_with_sleep_on_a_futex_wakes
look-once-more    loom_publish_racing_with_sleep_on_a_doorbell_wakes
look-once-more    loom_release_racing_with_sleep_for_space_on_a_doorbell_wakes
relieved-look-again loom_writer_that_finds_room_after_the_announcement_does_not_sleep
look-with-announce loom_driver_that_sleeps_for_what_another_thread_brings_is_kicked
announce-number   loom_each_sleep_is_notified_once
announce-space    loom_release_racing_with_sleep_for_space_on_a_futex_wakes
store-notified    loom_each_sleep_on_a_futex_is_notified_once
notify-once       loom_each_sleep_is_notified_once
kick-covered      loom_close_racing_with_sleep_ends_it
kick-covered      loom_two_kicks_are_seen_as_one_or_two
kicked-release    loom_close_racing_with_sleep_ends_it
kicked-acquire    loom_close_racing_with_sleep_ends_it
brake-fence       loom_work_that_ends_while_its_starter_is_held_lets_it_go_on
release-fence     loom_work_that_ends_while_its_starter_is_held_lets_it_go_on
brake-look-again  loom_work_that_ends_while_its_starter_is_held_lets_it_go_on
resume-set-first  loom_work_that_ends_while_what_is_held_moves_is_told_to_its_new_place
leave-release-first loom_waiter_racing_with_a_driver_that_leaves_drives
park-register-first loom_waiter_racing_with_a_driver_that_leaves_drives
leave-release-first loom_peer_that_goes_while_a_driver_leaves_ends_the_connection
leave-inside        loom_peer_that_goes_while_a_driver_leaves_with_the_state_ends_the_connection
arrival-look-again  loom_arrival_racing_with_a_stop_is_turned_away
stop-raise-first    loom_arrival_racing_with_a_stop_is_turned_away
resume-put-first    loom_connection_that_is_resumed_is_looked_at
register-with-look  loom_change_that_races_with_a_registration_wakes
register-with-look  loom_handler_that_looks_for_room_while_a_segment_goes_has_some
pay-with-look       loom_handler_that_looks_for_room_while_a_segment_goes_has_some
version-read-first  loom_handler_that_was_replaced_is_the_one_that_is_called
backlog-said        loom_frame_that_waits_when_the_worker_falls_asleep_is_written
announce-fence      loom_frame_that_waits_when_the_worker_falls_asleep_is_written
show-under-lock     loom_client_that_is_closed_shows_it
show-under-lock     loom_client_whose_connection_ends_at_once_shows_it
cancel-word-first   loom_cancel_word_is_seen_with_its_frame_and_means_one_call
cancel-release      loom_call_whose_cancel_word_is_overwritten_stays_cancelled
cancel-acquire      loom_call_whose_cancel_word_is_overwritten_stays_cancelled
complete-in-one     loom_reply_that_frees_its_slot_finds_its_caller
return-after-read   loom_block_is_read_before_it_is_written_again
unlent-held         loom_block_is_not_lent_while_it_is_read_here
unmap-then-free     loom_block_that_is_dropped_leaves_room_for_who_looks_or_waits
returns-clear-first loom_every_block_that_is_dropped_is_told_of
segment-send-first  loom_segment_has_been_sent_when_its_frame_is_read
quiet-told          loom_writer_without_room_wakes_the_reader_of_what_was_published_quietly
quiet-alone         loom_answer_that_is_published_with_a_returned_block_wakes_its_caller
shrink-with-announce loom_last_block_that_comes_back_while_the_worker_falls_asleep_is_acted_on
PLACES

exit "$failed"

//! What the store owes to whoever uses it, through its handle alone, in memory and in files.
//!
//! Each way to keep it has a [`provider::Provider`] and one line at the end of this file; every
//! case then runs against it. Nothing here sleeps:
//! a case goes on when the store has answered. Where it must find that nothing
//! starts, it relies on one thing beyond the documented contract, see
//! [`harness::StoreHarness::settle`].

mod attempts;
mod bulk;
mod checks;
mod counts;
mod ends;
mod harness;
mod lists;
mod order;
mod paging;
mod provider;
mod queues;
mod redrives;
mod requests;
mod restarts;
mod retention;
mod states;
mod submissions;
mod throttles;
mod work;
mod workers;

/// All cases, for one store.
macro_rules! store {
    ($store:ident, $provider:expr) => {
        cases! { $store, $provider,
            attempts: [
                every_attempt_is_remembered,
                the_latest_hundred_attempts_are_kept,
                attempt_numbers_are_never_used_twice,
            ],
            bulk: [
                tasks_are_cancelled_together_each_with_its_own_result,
                tasks_are_redriven_together_each_with_its_own_result,
                a_full_queue_takes_no_more_redriven_tasks,
                after_one_that_does_not_fit_none_of_its_queue_is_redriven,
                one_that_never_fits_keeps_nobody_out,
                only_tasks_in_the_states_that_are_meant_are_changed,
            ],
            counts: [
                counts_agree_with_lists_after_every_transition,
                an_overview_tells_what_waits_and_since_when,
                an_overview_tells_of_one_queue_or_of_none,
                what_went_through_is_measured,
            ],
            workers: [
                a_task_starts_on_a_worker_that_waits,
                a_retired_worker_that_waits_is_told_to_stop,
                a_retired_worker_that_is_busy_is_told_to_stop_at_its_next_turn,
                a_worker_that_comes_back_is_given_work,
                the_pool_has_events,
            ],
            ends: [
                waiting_tasks_are_cancelled_at_once,
                a_running_task_is_signalled_and_its_end_decides,
                a_crash_ends_a_task_that_was_to_be_cancelled,
                terminal_states_are_final,
                a_stale_report_changes_nothing,
            ],
            lists: [
                each_filter_finds_what_matches_it,
                a_list_goes_both_ways_from_anywhere,
                a_list_leaves_out_what_is_not_asked_for,
            ],
            order: [
                a_queue_starts_by_priority_then_due_time_then_submission,
                an_interrupted_task_goes_back_to_its_place,
                weights_share_the_starts,
                a_changed_weight_counts_from_then_on,
                a_queue_without_work_saves_no_turns_up,
                a_flood_does_not_starve_another_queue,
            ],
            paging: [
                pages_are_stable_while_tasks_move,
                pages_of_one_state_repeat_nothing_while_tasks_move,
            ],
            queues: [
                a_paused_queue_starts_nothing_and_the_others_go_on,
                what_runs_goes_on_in_a_paused_queue,
                a_pause_outlives_restarts_and_crashes,
                changed_settings_outlive_restarts_and_crashes,
                a_changed_limit_holds_at_the_gate,
                a_change_makes_no_queue_too_many,
            ],
            redrives: [
                a_redriven_task_lives_again,
                a_redriven_task_has_all_of_its_budget,
                only_tasks_that_failed_or_were_cancelled_are_redriven,
                a_redrive_outlives_a_crash,
            ],
            requests: [
                a_repeated_request_gets_the_same_task,
                a_request_is_known_over_restarts_crashes_and_redrives,
                a_task_that_was_never_taken_leaves_its_request_free,
            ],
            restarts: [
                what_waits_later_starts_after_a_restart,
                what_became_due_while_nobody_was_there_starts,
                a_drain_stops_the_pool_and_loses_nothing,
                a_closed_store_refuses_and_can_still_be_read,
                cursors_and_events_outlive_restarts_and_crashes,
            ],
            retention: [
                only_the_latest_ended_tasks_are_kept,
                failed_tasks_are_kept_by_a_rule_of_their_own,
                tasks_that_live_are_kept_whatever_the_rules,
                large_results_go_first_when_bytes_are_short,
                events_that_are_gone_are_said_to_be,
                numbers_are_not_used_again_when_all_is_gone,
            ],
            states: [
                what_is_submitted_is_kept_and_waits,
                a_result_ends_it,
                a_failure_is_tried_again_until_the_budget_is_used,
                a_permanent_failure_is_not_tried_again,
                a_drain_costs_no_attempt,
                a_crash_costs_no_attempt,
                too_many_crashes_in_a_row_fail_a_task,
                every_event_of_a_task_has_its_labels,
            ],
            submissions: [
                each_task_of_a_batch_has_its_own_result,
                a_batch_is_one_commit,
                an_atomic_batch_is_taken_as_a_whole,
                an_atomic_batch_is_refused_as_a_whole,
                nothing_to_do_is_done,
            ],
            throttles: [
                no_more_than_may_run_do,
                a_limit_of_running_tasks_counts_anew_after_a_crash,
                a_rate_lets_a_burst_through_and_holds_the_rest,
                a_rate_spreads_what_follows_the_burst,
            ],
        }
    };
}

macro_rules! cases {
    ($store:ident, $provider:expr, $($file:ident: [$($case:ident,)*],)*) => {
        mod $store {
            $(mod $file {
                $(
                    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
                    async fn $case() {
                        crate::store_conformance::$file::$case(&$provider).await;
                    }
                )*
            })*
        }
    };
}

store!(sqlite, crate::store_conformance::provider::Sqlite(taskyard::config::Durability::Os));
store!(
    sqlite_fsync,
    crate::store_conformance::provider::Sqlite(taskyard::config::Durability::Fsync)
);

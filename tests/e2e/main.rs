//! End-to-end tests: the real services as processes, on a real Apache Kafka and the real
//! ClickHouse engine, both started once for all tests. Each test has its own topic and database.
//!
//! Nothing here waits for a time to pass; what is waited for is named (`wait_until`). Logs of all
//! processes of a test are kept in `target/e2e/<test>/`.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod alerts;
mod back_pressure;
mod backup;
mod bad_input;
mod better_auth;
mod clickhouse_answers;
mod clocks;
mod containers;
mod deaths;
mod engine_faults;
mod erasure;
mod exactly_once;
mod freshness;
mod imports;
mod isolation;
mod kafka_faults;
mod kafka_security;
mod live;
mod local_stack;
mod migrations;
mod offsets_by_hand;
mod openapi;
mod reading;
mod reads;
mod recipes;
mod replicated_tables;
mod retention;
mod roles;
mod rolling_restart;
mod round_trip;
mod spool;
mod tls;
mod topics;
mod traces;
mod ways_out;

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Failed, Trial};

use audit_tests::process::descendants;
use audit_tests::stack::Stack;
use audit_tests::world::World;

/// How many tests run beside each other.
const TESTS_AT_A_TIME: usize = 4;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // A test waits most of its time, for sessions that time out and servers that start.
    arguments.test_threads.get_or_insert(TESTS_AT_A_TIME);
    if arguments.list {
        let stack = Arc::new(None);
        return libtest_mimic::run(&arguments, trials(&stack)).exit_code();
    }
    let stack = match Stack::start() {
        Ok(stack) => Arc::new(Some(stack)),
        Err(error) => {
            eprintln!("the stack for the end-to-end tests does not start: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let conclusion = libtest_mimic::run(&arguments, trials(&stack));
    drop(stack);
    match descendants(rustix::process::getpid()) {
        Ok(left) if left.is_empty() => conclusion.exit_code(),
        left => {
            eprintln!("processes were left over: {left:?}");
            ExitCode::FAILURE
        }
    }
}

macro_rules! trials {
    ($stack:expr, $($module:ident :: $test:ident),* $(,)?) => {
        vec![$({
            let stack = Arc::clone($stack);
            Trial::test(concat!(stringify!($module), "::", stringify!($test)), move || {
                run(stack.as_ref().as_ref(), stringify!($test), $module::$test)
            })
        }),*]
    };
}

#[expect(clippy::too_many_lines, reason = "a line for each test")]
fn trials(stack: &Arc<Option<Stack>>) -> Vec<Trial> {
    trials![
        stack,
        round_trip::every_event_comes_back_with_the_columns_of_its_contract,
        round_trip::a_retried_event_is_stored_once,
        round_trip::a_batch_is_answered_event_by_event,
        round_trip::the_producer_crate_reports_where_an_event_is,
        exactly_once::a_consumer_killed_again_and_again_loses_and_doubles_nothing,
        exactly_once::a_backlog_of_many_batches_is_drained,
        exactly_once::a_killed_engine_loses_and_doubles_nothing,
        exactly_once::members_that_come_and_go_lose_and_double_nothing,
        exactly_once::offsets_moved_by_hand_change_nothing,
        exactly_once::a_record_that_is_no_event_becomes_a_dead_letter_with_its_bytes,
        exactly_once::transaction_markers_are_written_down_as_absent,
        exactly_once::a_topic_created_anew_is_not_taken_for_the_old_one,
        exactly_once::a_row_taken_away_and_one_put_twice_are_found,
        ways_out::lost_records_are_skipped_on_purpose_and_written_down,
        ways_out::rows_taken_away_are_put_back_once,
        ways_out::a_replayed_dead_letter_is_one_row_however_often,
        ways_out::an_unchanged_topic_begins_no_new_life,
        backup::a_restored_backup_holds_every_event_after_refill,
        backup::tables_backed_up_at_different_moments_are_made_whole,
        backup::tables_that_are_lost_come_back_from_kafka,
        imports::an_exported_log_comes_back_as_it_was_and_once,
        imports::an_import_that_was_killed_or_stopped_is_run_again_and_stores_every_event_once,
        imports::an_event_that_kafka_does_not_take_stops_an_import_at_its_line,
        retention::what_is_old_goes_and_verify_tells_it_from_what_is_lost,
        retention::a_partition_whose_rows_are_all_gone_goes_on_and_is_not_stored_again,
        deaths::a_killed_broker_loses_and_doubles_nothing,
        deaths::broker_and_engine_killed_at_once_lose_and_double_nothing,
        deaths::consumer_and_engine_killed_at_once_lose_and_double_nothing,
        deaths::members_that_join_and_die_all_the_time_lose_and_double_nothing,
        deaths::a_member_that_wakes_up_while_its_successor_inserts_the_same_range_does_no_harm,
        clickhouse_answers::inserts_answered_500_are_made_up_for,
        clickhouse_answers::an_insert_whose_answer_is_lost_is_not_repeated,
        clickhouse_answers::an_insert_cut_half_way_is_made_up_for,
        clickhouse_answers::an_insert_answered_but_not_made_is_noticed,
        clickhouse_answers::an_insert_that_arrives_half_a_minute_later_does_no_harm,
        clickhouse_answers::an_insert_that_arrives_twice_does_no_harm,
        clickhouse_answers::an_insert_held_back_until_its_owner_is_replaced_does_no_harm,
        engine_faults::a_log_of_tokens_taken_away_between_attempts_doubles_nothing,
        engine_faults::a_part_whose_token_is_not_in_the_log_is_not_doubled,
        engine_faults::a_part_that_is_gone_while_its_token_is_in_the_log_is_sent_again,
        engine_faults::an_answered_part_that_is_gone_is_sent_again,
        engine_faults::a_full_disk_stops_nothing_for_good,
        clocks::a_clock_of_clickhouse_that_jumps_loses_and_doubles_nothing,
        clocks::a_clock_of_clickhouse_set_back_under_an_insert_in_doubt_doubles_nothing,
        clocks::a_clock_of_the_consumer_that_jumps_loses_and_doubles_nothing,
        containers::the_images_do_their_work_as_compose_starts_them,
        kafka_faults::the_leader_of_a_partition_killed_among_three_brokers_stops_nothing,
        kafka_faults::a_broker_replaced_by_an_empty_one_loses_and_doubles_nothing,
        kafka_security::events_travel_over_tls_under_every_kind_of_login,
        kafka_security::what_keeps_a_producer_from_kafka_is_named,
        kafka_security::a_wrong_password_is_said_once_and_events_wait_in_the_spool,
        kafka_faults::an_intent_that_lands_after_the_next_one_does_no_harm,
        spool::a_publisher_killed_while_kafka_comes_and_goes_keeps_every_promise,
        spool::a_frozen_kafka_costs_nothing_and_doubles_nothing,
        spool::ingest_takes_events_without_kafka_and_delivers_them_when_it_is_there,
        spool::what_a_full_spool_refuses_is_counted_and_reported_as_an_event,
        spool::an_event_repeated_through_another_instance_is_stored_once,
        erasure::an_erased_person_is_gone_for_good_and_nothing_else_changes,
        erasure::an_insert_under_way_when_its_person_is_erased_brings_nothing_back,
        tls::every_hop_is_encrypted_and_secrets_are_in_files,
        topics::a_topic_without_the_brokers_clock_is_refused_with_the_command_that_mends_it,
        topics::records_that_expired_unread_stop_their_partition_alone,
        topics::a_topic_created_anew_while_it_is_consumed_is_not_taken_for_the_old_one,
        topics::a_topic_created_anew_and_longer_behind_the_consumers_back_is_not_taken_for_the_old_one,
        migrations::tables_end_the_same_wherever_their_migration_died,
        migrations::migrations_at_the_same_time_do_no_harm,
        migrations::the_first_release_is_migrated_with_its_data,
        migrations::a_program_older_than_the_tables_goes_on_but_does_not_migrate_them,
        migrations::a_plan_changes_nothing_and_says_what_there_is,
        traces::a_trace_leads_from_a_request_to_its_insert,
        traces::by_default_nobody_is_told_of_a_trace,
        traces::a_collector_that_is_away_is_said_once_and_stops_nothing,
        replicated_tables::the_tables_of_a_cluster_are_registered_as_replicas_of_each_other,
        offsets_by_hand::a_group_deleted_by_hand_changes_nothing,
        offsets_by_hand::offsets_moved_while_the_consumer_runs_change_nothing,
        back_pressure::a_clickhouse_that_stands_still_costs_neither_memory_nor_partitions,
        freshness::a_partition_that_is_stuck_holds_its_watermark_and_no_other,
        alerts::every_alert_is_seen_to_fire_and_not_to_fire,
        alerts::a_killed_consumer_raises_its_alert_and_the_dashboard_has_answers,
        bad_input::what_ingest_is_sent_is_stored_or_refused_with_a_reason,
        bad_input::ten_thousand_idle_connections_keep_nobody_waiting,
        bad_input::what_the_query_api_is_asked_is_answered_or_refused_with_a_reason,
        isolation::a_project_sees_only_its_own_events,
        rolling_restart::a_rolling_restart_loses_no_event_and_fails_no_request,
        roles::the_services_need_no_more_rights_than_their_roles_have,
        reading::a_walk_by_cursor_sees_each_event_once_while_others_arrive,
        reading::an_event_is_found_under_both_its_names,
        openapi::the_document_makes_a_typed_client,
        openapi::schemathesis_finds_nothing,
        openapi::the_reference_page_shows_every_operation_without_asking_anybody_else,
        reads::reads_are_events_of_the_log_and_refused_ones_are_not,
        reads::a_file_taken_away_while_kafka_is_away_is_recorded_once_it_is_back,
        live::a_live_reader_sees_every_event_once_across_deaths,
        live::a_live_reader_that_stops_reading_is_cut_off_and_costs_no_memory,
        recipes::every_line_of_the_readme_about_reading_works,
        better_auth::a_real_better_auth_server_gets_its_events_back,
        local_stack::one_command_brings_up_a_stack_that_works,
        local_stack::nothing_is_left_when_it_is_killed,
    ]
}

/// Runs one test in a world of its own, and then the audit of that world.
fn run<F: Future<Output = anyhow::Result<()>>>(
    stack: Option<&Stack>,
    name: &'static str,
    test: impl FnOnce(Arc<World>) -> F,
) -> Result<(), Failed> {
    let stack = stack.ok_or("the stack is not there")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let world = Arc::new(World::new(stack, name)?);
    let ended = runtime.block_on(async {
        test(Arc::clone(&world)).await?;
        world.audit_in_the_end().await
    });
    ended.map_err(|error| format!("{error:#}\nlogs: {}", world.logs().display()).into())
}

//! End-to-end tests: the real services as processes, on a real Apache Kafka and the real
//! ClickHouse engine, both started once for all tests. Each test has its own topic and database.
//!
//! Nothing here waits for a time to pass; what is waited for is named (`wait_until`). Logs of all
//! processes of a test are kept in `target/e2e/<test>/`.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod bad_input;
mod better_auth;
mod exactly_once;
mod freshness;
mod isolation;
mod local_stack;
mod reading;
mod round_trip;

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Failed, Trial};

use audit_tests::stack::Stack;
use audit_tests::world::World;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
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
    match local_stack::descendants(rustix::process::getpid()) {
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
        freshness::a_partition_that_is_stuck_holds_its_watermark_and_no_other,
        bad_input::what_ingest_is_sent_is_stored_or_refused_with_a_reason,
        bad_input::what_the_query_api_is_asked_is_answered_or_refused_with_a_reason,
        isolation::a_project_sees_only_its_own_events,
        reading::a_walk_by_cursor_sees_each_event_once_while_others_arrive,
        reading::an_event_is_found_under_both_its_names,
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
        world.audit().await
    });
    ended.map_err(|error| format!("{error:#}\nlogs: {}", world.logs().display()).into())
}

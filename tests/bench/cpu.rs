//! What processes have used of the processors.

use anyhow::Context;
use audit_tests::process::{Process, descendants};

/// A tick is a hundredth of a second on every Linux we run on.
const TICKS: f64 = 100.0;

/// Seconds of a process and of all below it, such as the Java of a broker.
pub(crate) fn seconds(process: &Process) -> anyhow::Result<f64> {
    let mut seconds = 0.0;
    for process in descendants(process.id())?.into_iter().chain([process.id()]) {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero()))?;
        seconds += of_stat(&stat)?.1;
    }
    Ok(seconds)
}

/// Seconds of those threads of a process whose name begins with `name`.
pub(crate) fn of_threads(process: &Process, name: &str) -> anyhow::Result<f64> {
    let mut seconds = 0.0;
    let threads = format!("/proc/{}/task", process.id().as_raw_nonzero());
    for thread in std::fs::read_dir(threads)? {
        // A thread may have ended since its folder was named.
        let Ok(stat) = std::fs::read_to_string(thread?.path().join("stat")) else {
            continue;
        };
        let (found, used) = of_stat(&stat)?;
        if found.starts_with(name) {
            seconds += used;
        }
    }
    Ok(seconds)
}

/// Name, and seconds in user and kernel mode.
fn of_stat(stat: &str) -> anyhow::Result<(&str, f64)> {
    let (before, fields) = stat.rsplit_once(')').context("fields")?;
    let (_, name) = before.split_once('(').context("a name")?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse);
    let ticks: Vec<f64> = ticks.collect::<Result<_, _>>()?;
    Ok((name, ticks.iter().sum::<f64>() / TICKS))
}

//! The clock of a running process, moved as if somebody had set it: the time of day jumps for this
//! process alone, and its monotonic clock goes on.
//!
//! Programs read the clock without asking the kernel, through code that the kernel maps into each
//! of them (the vDSO). That code is replaced in one process by code that asks the kernel and adds
//! a number. A preloaded library cannot do it: the engine brings a clock of its own that looks for
//! that code itself. x86-64 only, as is the engine.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::process::wait_until;

/// What `clock_gettime` becomes. Its last eight bytes are the number that is added.
#[rustfmt::skip]
const CODE: [u8; 32] = [
    0xb8, 0xe4, 0, 0, 0,          // mov eax, 228: the system call
    0x0f, 0x05,                   // syscall
    0x85, 0xff,                   // test edi, edi: is it the time of day?
    0x75, 0x0a,                   // jne to the end
    0x48, 0x8b, 0x0d, 6, 0, 0, 0, // mov rcx, the number
    0x48, 0x01, 0x0e,             // add [rsi], rcx: the seconds
    0xc3,                         // ret
    0x90, 0x90,
    0, 0, 0, 0, 0, 0, 0, 0,
];

/// The clock of one process.
pub struct Clock {
    memory: File,
    /// Where the number is.
    number: u64,
}

impl Clock {
    /// Takes hold of the clock of `process`, which is frozen for a moment.
    pub async fn of(process: Pid) -> anyhow::Result<Self> {
        let folder = PathBuf::from(format!("/proc/{}", process.as_raw_nonzero()));
        let memory = File::options()
            .read(true)
            .write(true)
            .open(folder.join("mem"))?;
        let mapped = mapped_code(&folder)?;
        let mut code = vec![0; usize::try_from(mapped.end - mapped.start)?];
        memory.read_exact_at(&mut code, mapped.start)?;
        let (start, size) = symbol(&code, "__vdso_clock_gettime").context("a clock to replace")?;
        ensure!(
            size >= CODE.len() as u64,
            "the code to replace is too short"
        );
        let start = mapped.start + start;
        // No thread may stand in what is replaced.
        wait_until("a moment to replace the clock in", async || {
            kill_process(process, Signal::STOP)?;
            let stands = wait_until("all threads to stand still", async || stand(&folder)).await;
            let outside = stands.map(|stands| stands.iter().all(|at| !mapped.contains(at)));
            if matches!(outside, Ok(true)) {
                memory.write_all_at(&CODE, start)?;
            }
            kill_process(process, Signal::CONT)?;
            Ok(outside?.then_some(()))
        })
        .await?;
        let number = start + (CODE.len() - size_of::<i64>()) as u64;
        Ok(Self { memory, number })
    }

    /// Shows the process a time so many seconds from the true one.
    pub fn show(&self, seconds: i64) -> anyhow::Result<()> {
        let seconds = seconds.to_le_bytes();
        Ok(self.memory.write_all_at(&seconds, self.number)?)
    }
}

/// Where the kernel's code is in a process.
fn mapped_code(folder: &Path) -> anyhow::Result<Range<u64>> {
    let maps = std::fs::read_to_string(folder.join("maps"))?;
    let line = maps.lines().find(|line| line.ends_with("[vdso]"));
    let (start, rest) = line
        .and_then(|line| line.split_once('-'))
        .context("the kernel's code in the process")?;
    let end = rest.split(' ').next().context("where it ends")?;
    Ok(u64::from_str_radix(start, 16)?..u64::from_str_radix(end, 16)?)
}

/// Where each thread of a process stands, once all of them stand still.
fn stand(folder: &Path) -> anyhow::Result<Option<Vec<u64>>> {
    let mut stands = Vec::new();
    for thread in std::fs::read_dir(folder.join("task"))? {
        let call = std::fs::read_to_string(thread?.path().join("syscall"))?;
        let Some((_, at)) = call.trim_end().rsplit_once(" 0x") else {
            return Ok(None);
        };
        stands.push(u64::from_str_radix(at, 16)?);
    }
    Ok(Some(stands))
}

/// Place and size of a function in an ELF image as it lies in memory.
fn symbol(image: &[u8], wanted: &str) -> Option<(u64, u64)> {
    let number = |at: u64| -> Option<u64> {
        let at = usize::try_from(at).ok()?;
        Some(u64::from_le_bytes(image.get(at..at + 8)?.try_into().ok()?))
    };
    let short = |at: u64| number(at).map(|found| found & 0xffff);
    // The dynamic section (type 2) says where symbols (6) and their names (5) are.
    let (headers, count) = (number(32)?, short(56)?);
    let mut entry = (0..count)
        .map(|header| headers + 56 * header)
        .find(|header| number(*header).is_some_and(|kind| kind & 0xffff_ffff == 2))
        .and_then(|header| number(header + 8))?;
    let (mut symbols, mut names) = (0, 0);
    loop {
        match number(entry)? {
            0 => break,
            5 => names = number(entry + 8)?,
            6 => symbols = number(entry + 8)?,
            _ => {}
        }
        entry += 16;
    }
    // The names lie behind the symbols.
    (symbols..names).step_by(24).find_map(|symbol| {
        let name = names + (number(symbol)? & 0xffff_ffff);
        let name = image.get(usize::try_from(name).ok()?..)?;
        let found = name.starts_with(wanted.as_bytes()) && name.get(wanted.len()) == Some(&0);
        found.then_some((number(symbol + 8)?, number(symbol + 16)?))
    })
}

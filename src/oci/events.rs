//! `events`: what a container uses, and that it ran out of memory.

use std::time::{Duration, Instant};

use berth_runtime::cgroups::statistics::Statistics;
use berth_runtime::cgroups::{Cgroup, OomWatch};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;

use crate::arguments::{Arguments, Operands, Syntax};
use crate::exit_code::ExitCode;
use crate::failure::{Attempt, Failure, usage};
use crate::living::Living;
use crate::options::Global;
use crate::{log, output, time};

pub(crate) const SYNTAX: Syntax = Syntax {
    name: "events",
    flags: &["interval=TIME", "stats"],
    operands: (Operands::One, "ID"),
};

/// Between two reports, unless `--interval` says otherwise.
const INTERVAL: Duration = Duration::from_secs(5);

/// One line of output.
#[derive(Serialize)]
struct Event<'a> {
    r#type: &'a str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Statistics>,
}

/// Prints the usage once, or again and again, and memory running out as it happens, until the container has ended.
pub(crate) fn main(global: &Global, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let id = arguments.id()?;
    let interval = match arguments.text("interval")? {
        Some(text) => time::parse_duration(text).filter(|interval| !interval.is_zero()),
        None => Some(INTERVAL),
    };
    let interval = interval.ok_or_else(|| usage("--interval is a time above zero, such as 5s or 1m30s."))?;
    let container = Living::look(global, id, "watched")?;
    let cgroup = container.needed_cgroup()?;
    if arguments.switch("stats")? {
        report(id, container.unless_ended(cgroup.statistics())?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let watch = match cgroup.oom_watch() {
        Ok(watch) => Some(watch),
        Err(error) => {
            log::warning(global, &error.to_string());
            None
        }
    };
    follow(&container, &cgroup, watch.as_ref(), interval)?;
    Ok(ExitCode::SUCCESS)
}

fn report(id: &str, statistics: Statistics) -> Result<(), Failure> {
    output::json(&Event {
        r#type: "stats",
        id,
        data: Some(statistics),
    })
}

fn follow(
    container: &Living,
    cgroup: &Cgroup,
    watch: Option<&OomWatch>,
    interval: Duration,
) -> Result<(), Failure> {
    let id = container.state.id();
    let mut kills = cgroup.oom_kill_count().unwrap_or(0);
    let mut next = Instant::now() + interval;
    loop {
        let mut fds = vec![PollFd::new(&container.process, PollFlags::IN)];
        if let Some(watch) = watch {
            let flags = PollFlags::from_bits_retain(watch.interest().bits().unsigned_abs());
            fds.push(PollFd::new(watch, flags));
        }
        let left = next.saturating_duration_since(Instant::now());
        let left = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        match poll(&mut fds, Some(&left)) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other.attempt(|| "wait for events".to_owned())?,
        };
        let woken: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        if let (Some(watch), Some(true)) = (watch, woken.get(1)) {
            watch.acknowledge();
            kills = out_of_memory(id, cgroup, watch, kills)?;
        }
        let ended = woken[0];
        if ended {
            return Ok(());
        }
        if Instant::now() >= next {
            match cgroup.statistics() {
                Err(_) if container.has_ended() => return Ok(()),
                statistics => report(id, statistics?)?,
            }
            next += interval;
        }
    }
}

/// Reports what a wake-up is about, given the number of kills before it; returns their number now.
fn out_of_memory(id: &str, cgroup: &Cgroup, watch: &OomWatch, before: u64) -> Result<u64, Failure> {
    let Ok(now) = cgroup.oom_kill_count() else {
        // The group is gone, which wakes v1's watch too.
        return Ok(before);
    };
    let events = match watch {
        // v1 tells before it kills.
        OomWatch::EventFd(_) => 1,
        // v2 counts other things in the same file.
        OomWatch::Events(_) => now.saturating_sub(before),
    };
    for _ in 0..events {
        output::json(&Event {
            r#type: "oom",
            id,
            data: None,
        })?;
    }
    Ok(now)
}

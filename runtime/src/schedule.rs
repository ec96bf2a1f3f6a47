//! How a process is scheduled: its policy, its input and output, its processors.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::error::Doing;
use crate::number_list;
use crate::oci::{
    CpuAffinity, IoPriorityClass, LinuxIoPriority, LinuxSchedulerFlag, LinuxSchedulerPolicy, Process,
    Scheduler,
};
use crate::sys::{SchedulingAttributes, set_io_priority, set_scheduling, use_all_processors};
use crate::{Error, Result};

/// How a process is scheduled, checked and ready to be applied.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    policy: Option<SchedulingAttributes>,
    /// Class and priority.
    io: Option<(u16, u16)>,
}

impl Schedule {
    /// Reads the schedule from `process`.
    pub(crate) fn new(process: &Process) -> Result<Schedule> {
        Ok(Schedule {
            policy: process.scheduler.as_ref().map(attributes).transpose()?,
            io: process.io_priority.as_ref().map(io_priority).transpose()?,
        })
    }

    /// Has this process scheduled that way, which may take privileges.
    pub(crate) fn apply(&self) -> Result<()> {
        if let Some(attributes) = self.policy {
            set_scheduling(attributes).doing(|| refusal(attributes))?;
        }
        if let Some((class, priority)) = self.io {
            set_io_priority(class, priority)
                .doing(|| format!("set process.ioPriority to class {class}, priority {priority}"))?;
        }
        Ok(())
    }
}

fn refusal(attributes: SchedulingAttributes) -> String {
    let hint = if attributes.policy == DEADLINE {
        " (a deadline needs CAP_SYS_NICE, room for its bandwidth, and all processors: no cpuset around it)"
    } else {
        " (a real-time policy, and a nice value below the runtime's own, need CAP_SYS_NICE; where the kernel shares \
          real time out by cgroups, such a policy also needs linux.resources.cpu.realtimeRuntime)"
    };
    format!("set process.scheduler to policy {}{hint}", attributes.policy)
}

/// `SCHED_DEADLINE` of sched(7).
const DEADLINE: u32 = 6;

fn attributes(scheduler: &Scheduler) -> Result<SchedulingAttributes> {
    let invalid =
        |field: &str, reason: &str| Err(Error::invalid(format!("process.scheduler.{field}"), reason));
    let policy = match scheduler.policy {
        LinuxSchedulerPolicy::Other => 0,
        LinuxSchedulerPolicy::Fifo => 1,
        LinuxSchedulerPolicy::Rr => 2,
        LinuxSchedulerPolicy::Batch => 3,
        // The kernel has the number reserved and refuses it; so may a later one not.
        LinuxSchedulerPolicy::Iso => 4,
        LinuxSchedulerPolicy::Idle => 5,
        LinuxSchedulerPolicy::Deadline => DEADLINE,
    };
    if !(-20..=19).contains(&scheduler.nice) {
        return invalid("nice", "it must be between -20 and 19");
    }
    let is_real_time = matches!(
        scheduler.policy,
        LinuxSchedulerPolicy::Fifo | LinuxSchedulerPolicy::Rr
    );
    if scheduler.priority != 0 && !is_real_time {
        return invalid("priority", "it is for SCHED_FIFO and SCHED_RR only");
    }
    if is_real_time && !(1..=99).contains(&scheduler.priority) {
        return invalid(
            "priority",
            "it must be between 1 and 99 for SCHED_FIFO and SCHED_RR",
        );
    }
    let times = [
        ("runtime", scheduler.runtime),
        ("deadline", scheduler.deadline),
        ("period", scheduler.period),
    ];
    if policy != DEADLINE
        && let Some((field, _)) = times.iter().find(|(_, nanoseconds)| *nanoseconds != 0)
    {
        return invalid(field, "it is for SCHED_DEADLINE only");
    }
    Ok(SchedulingAttributes {
        policy,
        flags: scheduler.flags.iter().fold(0, |flags, flag| flags | bit(*flag)),
        nice: scheduler.nice,
        priority: scheduler.priority.unsigned_abs(),
        runtime: scheduler.runtime,
        deadline: scheduler.deadline,
        period: scheduler.period,
        ..SchedulingAttributes::default()
    })
}

/// The flag in `struct sched_attr`.
fn bit(flag: LinuxSchedulerFlag) -> u64 {
    match flag {
        LinuxSchedulerFlag::ResetOnFork => 0x01,
        LinuxSchedulerFlag::Reclaim => 0x02,
        LinuxSchedulerFlag::DeadlineOverrun => 0x04,
        LinuxSchedulerFlag::KeepPolicy => 0x08,
        LinuxSchedulerFlag::KeepParams => 0x10,
        LinuxSchedulerFlag::UtilClampMin => 0x20,
        LinuxSchedulerFlag::UtilClampMax => 0x40,
    }
}

fn io_priority(io: &LinuxIoPriority) -> Result<(u16, u16)> {
    let class = match io.class {
        IoPriorityClass::RealTime => 1,
        IoPriorityClass::BestEffort => 2,
        IoPriorityClass::Idle => 3,
    };
    match u16::try_from(io.priority) {
        Ok(priority @ 0..=7) => Ok((class, priority)),
        _ => Err(Error::invalid(
            "process.ioPriority.priority",
            "it must be between 0 and 7",
        )),
    }
}

/// The processors of a process that is added to a container: before it enters the container's cgroup, and from then on.
#[derive(Debug, Default)]
pub(crate) struct Affinity {
    initial: Option<CpuSet>,
    last: Option<CpuSet>,
}

impl Affinity {
    /// Reads `process.execCPUAffinity`.
    pub(crate) fn new(process: &Process) -> Result<Affinity> {
        let Some(CpuAffinity { initial, last }) = &process.exec_cpu_affinity else {
            return Ok(Affinity::default());
        };
        Ok(Affinity {
            initial: processors("initial", initial)?,
            last: processors("final", last)?,
        })
    }

    /// Moves this process, and with it the one that it is about to make, to the initial processors until dropped.
    pub(crate) fn begin(&self) -> Result<Option<OwnProcessors>> {
        let Some(initial) = &self.initial else {
            return Ok(None);
        };
        let own = sched_getaffinity(None).doing(|| "remember the runtime's processors".to_owned())?;
        set("initial", initial)?;
        Ok(Some(OwnProcessors(own)))
    }

    /// Moves this process, which is in the container's cgroup, to the final processors. Without any it stays where it
    /// began, and without an affinity at all it may be wherever the cgroup is.
    pub(crate) fn finish(&self) -> Result<()> {
        match (&self.initial, &self.last) {
            (_, Some(last)) => set("final", last),
            (Some(_), None) => Ok(()),
            (None, None) => {
                forget_processors();
                Ok(())
            }
        }
    }
}

/// The runtime may have been called with few processors, which says nothing about the container's: those are its
/// cgroup's.
pub(crate) fn forget_processors() {
    // A filter around the runtime may deny it, and a process that shares its cgroup's processors is no failure.
    let _ = use_all_processors();
}

fn set(field: &str, processors: &CpuSet) -> Result<()> {
    sched_setaffinity(None, processors).doing(|| {
        format!("move to the processors of process.execCPUAffinity.{field}, none of which may be available")
    })
}

fn processors(field: &str, list: &str) -> Result<Option<CpuSet>> {
    if list.is_empty() {
        return Ok(None);
    }
    let field = || format!("process.execCPUAffinity.{field}");
    let words = number_list::parse(list).map_err(|reason| Error::invalid(field(), reason))?;
    let mut set = CpuSet::new();
    if words.len() * 64 > CpuSet::MAX_CPU {
        let reason = format!("processors from {} on are not supported", CpuSet::MAX_CPU);
        return Err(Error::invalid(field(), reason));
    }
    for number in 0..words.len() * 64 {
        if words[number / 64] & (1 << (number % 64)) != 0 {
            set.set(number);
        }
    }
    Ok(Some(set))
}

/// The processors that this process goes back to when this is dropped.
pub(crate) struct OwnProcessors(CpuSet);

impl Drop for OwnProcessors {
    fn drop(&mut self) {
        // It ran there before.
        let _ = sched_setaffinity(None, &self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(json: &str) -> Process {
        crate::oci::from_slice(json.as_bytes()).unwrap()
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        for (json, field) in [
            (
                r#"{"scheduler":{"policy":"SCHED_OTHER","nice":20}}"#,
                "scheduler.nice",
            ),
            (
                r#"{"scheduler":{"policy":"SCHED_OTHER","priority":1}}"#,
                "scheduler.priority",
            ),
            (r#"{"scheduler":{"policy":"SCHED_FIFO"}}"#, "scheduler.priority"),
            (
                r#"{"scheduler":{"policy":"SCHED_RR","priority":100}}"#,
                "scheduler.priority",
            ),
            (
                r#"{"scheduler":{"policy":"SCHED_BATCH","period":1}}"#,
                "scheduler.period",
            ),
            (
                r#"{"ioPriority":{"class":"IOPRIO_CLASS_BE","priority":8}}"#,
                "ioPriority.priority",
            ),
            (
                r#"{"ioPriority":{"class":"IOPRIO_CLASS_BE","priority":-1}}"#,
                "ioPriority.priority",
            ),
        ] {
            let said = Schedule::new(&process(json)).unwrap_err().to_string();
            assert!(said.contains(field), "{field}: {said}");
        }
        for (json, field) in [
            (
                r#"{"execCPUAffinity":{"initial":"x"}}"#,
                "execCPUAffinity.initial",
            ),
            (
                r#"{"execCPUAffinity":{"final":"0-8000"}}"#,
                "execCPUAffinity.final",
            ),
        ] {
            let said = Affinity::new(&process(json)).unwrap_err().to_string();
            assert!(said.contains(field), "{field}: {said}");
        }
    }

    #[test]
    fn every_policy_and_flag_has_its_number() {
        let json = r#"{"scheduler":{"policy":"SCHED_DEADLINE","runtime":1,"deadline":2,"period":3,"flags":[
            "SCHED_FLAG_RESET_ON_FORK","SCHED_FLAG_RECLAIM","SCHED_FLAG_DL_OVERRUN","SCHED_FLAG_KEEP_POLICY",
            "SCHED_FLAG_KEEP_PARAMS","SCHED_FLAG_UTIL_CLAMP_MIN","SCHED_FLAG_UTIL_CLAMP_MAX"]}}"#;
        let policy = Schedule::new(&process(json)).unwrap().policy.unwrap();
        assert_eq!((policy.policy, policy.flags), (6, 0x7f));
        assert_eq!((policy.runtime, policy.deadline, policy.period), (1, 2, 3));
        for (name, number) in [("OTHER", 0), ("BATCH", 3), ("ISO", 4), ("IDLE", 5)] {
            let json = format!(r#"{{"scheduler":{{"policy":"SCHED_{name}"}}}}"#);
            assert_eq!(
                Schedule::new(&process(&json)).unwrap().policy.unwrap().policy,
                number
            );
        }
    }
}

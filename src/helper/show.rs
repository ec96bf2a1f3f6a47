//! What a process sees of itself and of its surroundings.

use std::fs;
use std::io;

use nix::unistd;

use crate::Outcome;
use crate::args::Args;

/// `env [NAME…]`: the whole environment, sorted, or the values of these.
pub(crate) fn env(args: Args) -> Outcome {
    let names = args.rest();
    if names.is_empty() {
        let mut all: Vec<String> = std::env::vars_os()
            .map(|(name, value)| format!("{}={}", name.to_string_lossy(), value.to_string_lossy()))
            .collect();
        all.sort();
        println!("{}", all.join("\n"));
        return Ok(0);
    }
    for name in names {
        match std::env::var_os(&name) {
            Some(value) => println!("{name}={}", value.to_string_lossy()),
            None => println!("{name} is not set"),
        }
    }
    Ok(0)
}

/// `id`: `uid=… gid=… groups=…`, effective ids; the group is also among the groups, as id(1) has it.
pub(crate) fn id(_: Args) -> Outcome {
    println!("{}", id_line()?);
    Ok(0)
}

pub(crate) fn id_line() -> Result<String, nix::Error> {
    let mut groups: Vec<u32> = unistd::getgroups()?
        .into_iter()
        .map(unistd::Gid::as_raw)
        .collect();
    groups.push(unistd::getegid().as_raw());
    groups.sort_unstable();
    groups.dedup();
    let groups: Vec<String> = groups.iter().map(u32::to_string).collect();
    Ok(format!(
        "uid={} gid={} groups={}",
        unistd::geteuid(),
        unistd::getegid(),
        groups.join(",")
    ))
}

/// `caps`: the capability, no_new_privs, seccomp and oom lines of `/proc/self`.
pub(crate) fn caps(_: Args) -> Outcome {
    for name in [
        "CapInh",
        "CapPrm",
        "CapEff",
        "CapBnd",
        "CapAmb",
        "NoNewPrivs",
        "Seccomp",
    ] {
        println!("{name}: {}", status_field(name)?);
    }
    Ok(0)
}

/// A field of `/proc/self/status`.
pub(crate) fn status_field(name: &str) -> io::Result<String> {
    let status = fs::read_to_string("/proc/self/status")?;
    let value = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    Ok(value.unwrap_or("").trim().to_owned())
}

/// Prints a file of `/proc/self`.
pub(crate) fn proc_file(_: Args, name: &str) -> Outcome {
    print!("{}", fs::read_to_string(format!("/proc/self/{name}"))?);
    Ok(0)
}

/// `proc NAME…`: files of `/proc/self`: `cgroup`, `status`, `oom_score_adj`, `uid_map`, …
pub(crate) fn proc(args: Args) -> Outcome {
    for name in args.rest() {
        proc_file(Args::new(Vec::new()), &name)?;
    }
    Ok(0)
}

/// `namespaces`: `/proc/self/ns/*`, one `name inode` a line.
pub(crate) fn namespaces(_: Args) -> Outcome {
    let mut lines = Vec::new();
    for entry in fs::read_dir("/proc/self/ns")? {
        let entry = entry?;
        let target = fs::read_link(entry.path())?;
        lines.push(format!("{} {}", entry.file_name().display(), target.display()));
    }
    lines.sort();
    println!("{}", lines.join("\n"));
    Ok(0)
}

/// `hostname`: as the kernel has it.
pub(crate) fn hostname(_: Args) -> Outcome {
    println!("{}", unistd::gethostname()?.to_string_lossy());
    Ok(0)
}

/// `sysctl NAME…`: `name = value`.
pub(crate) fn sysctl(args: Args) -> Outcome {
    for name in args.rest() {
        let value = fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/")))?;
        println!("{name} = {}", value.trim());
    }
    Ok(0)
}

/// `fds`: open descriptors and where they lead, one `N target` a line, without the one that lists them.
pub(crate) fn fds(_: Args) -> Outcome {
    for line in open_descriptors()? {
        println!("{line}");
    }
    Ok(0)
}

pub(crate) fn open_descriptors() -> io::Result<Vec<String>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        numbers.extend(entry?.file_name().to_string_lossy().parse::<u32>());
    }
    numbers.sort_unstable();
    let links = numbers.into_iter().filter_map(|number| {
        let target = fs::read_link(format!("/proc/self/fd/{number}")).ok()?;
        Some(format!("{number} {}", target.display()))
    });
    Ok(links.collect())
}

/// `ps`: every process that `/proc` shows: pid, parent, state, name.
pub(crate) fn ps(_: Args) -> Outcome {
    let mut processes = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Ok(pid) = entry?.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
            continue;
        };
        let Some((head, tail)) = stat.rsplit_once(") ") else {
            continue;
        };
        let name = head.split_once('(').map_or("", |(_, name)| name);
        let mut fields = tail.split(' ');
        let (state, parent) = (fields.next().unwrap_or("?"), fields.next().unwrap_or("?"));
        processes.push((pid, format!("{pid} {parent} {state} {name}")));
    }
    processes.sort();
    for (_, line) in processes {
        println!("{line}");
    }
    Ok(0)
}

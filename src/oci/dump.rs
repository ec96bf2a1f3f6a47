//! `dump`: writes a pod's container to files while it goes on. It is started by the engine, not by people.
//!
//! criu holds the container's processes by ptrace(2) for as long as it takes: no group is frozen, which would outlive
//! whoever was to thaw it. Once everything is written it prints `held`, and waits for a line of its standard input, during
//! which the engine copies what belongs to that very moment; the end of the input means that nobody wants the checkpoint
//! any more. Its standard output is criu's too: it ends when both have.
//!
//! criu drops the packets of the pod's network meanwhile. If something killed it, `dump --unlock-network` lets them
//! pass again.

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use berth_runtime::oci::Spec;

use crate::arguments::{Arguments, Operands, Syntax};
use crate::checkpoint::{LOG, external_mounts, remember_streams};
use crate::criu::{self, Criu, Directories, Message, Notification, Request, option};
use crate::exit_code::ExitCode;
use crate::failure::{Attempt, Failure, usage};
use crate::options::Global;
use crate::output;

pub(crate) const SYNTAX: Syntax = Syntax {
    name: "dump",
    flags: &[
        "bundle=DIR",
        "image-path=DIR",
        "work-path=DIR",
        "leave-running",
        "tcp-established",
        "ext-unix-sk",
        "file-locks",
        "link-remap",
        "unlock-network",
    ],
    operands: (Operands::One, "PID"),
};

/// The names by which namespaces of the pod are found again.
pub(crate) const NETWORK_KEY: &str = "extRootNetNS";
pub(crate) const PID_KEY: &str = "extRootPidNS";

/// Has criu write the container.
pub(crate) fn main(_: &Global, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let pid: i32 = arguments
        .id()?
        .parse()
        .map_err(|_| usage("The container's first process is not named by a number."))?;
    if arguments.switch("unlock-network")? {
        unlock_network(pid)?;
        return Ok(ExitCode::SUCCESS);
    }
    let bundle = arguments
        .path("bundle")
        .ok_or_else(|| usage("dump needs --bundle DIR."))?;
    let spec = load(&bundle)?;
    check_owner(pid, &spec)?;
    let directories = Directories::open(arguments)?;
    let mut options = Message::default();
    criu::common(arguments, &directories, LOG, &mut options)?
        .signed(option::PID, pid)
        .text_if_any(option::CONFIG_FILE, criu::configuration_file(&spec.annotations));
    external_namespaces(pid, &mut options)?;
    external_mounts(&spec, pid, &mut options);
    remember_streams(pid, &directories)?;
    let mut told = |notification: Notification| match notification.moment.as_str() {
        "post-dump" => wait_for_the_engine(),
        _ => Ok(()),
    };
    criu::run(Criu::start()?, Request::Dump, &options, &mut told)
        .map_err(|failure| directories.explain(failure, LOG))?;
    Ok(ExitCode::SUCCESS)
}

/// Reads a bundle's configuration.
pub(crate) fn load(bundle: &Path) -> Result<Spec, Failure> {
    let path = bundle.join("config.json");
    let text = std::fs::read(&path).attempt(|| format!("read {}", path.display()))?;
    serde_json::from_slice(&text)
        .map_err(|error| usage(format!("{} is no OCI configuration: {error}.", path.display())))
}

/// A number may have become another process's since the engine looked.
fn check_owner(pid: i32, spec: &Spec) -> Result<(), Failure> {
    let path = format!("/proc/{pid}/cgroup");
    let groups = std::fs::read_to_string(&path).attempt(|| format!("read {path}"))?;
    let group = spec
        .linux
        .as_ref()
        .map_or("", |linux| linux.cgroups_path.as_str());
    let is_there = |line: &str| {
        line.splitn(3, ':')
            .nth(2)
            .is_some_and(|path| path.ends_with(group))
    };
    if group.is_empty() || !groups.lines().any(is_there) {
        return Err(usage(format!(
            "The process {pid} is not in the container's cgroup {group:?} any more."
        )));
    }
    Ok(())
}

/// The pod's network is not written but found again, and so are its process ids if they are shared. What the container has
/// of the host criu finds to be its own, and leaves it out.
fn external_namespaces(pid: i32, options: &mut Message) -> Result<(), Failure> {
    let inode = |of: &str, kind: &str| -> Result<u64, Failure> {
        let path = format!("/proc/{of}/ns/{kind}");
        let metadata = std::fs::metadata(&path).attempt(|| format!("look at {path}"))?;
        Ok(metadata.ino())
    };
    for (kind, key) in [("net", NETWORK_KEY), ("pid", PID_KEY)] {
        let theirs = inode(&pid.to_string(), kind)?;
        let is_external = kind == "net" || !is_first(pid)?;
        if theirs != inode("self", kind)? && is_external {
            options.text(option::EXTERNAL, &format!("{kind}[{theirs}]:{key}"));
        }
    }
    Ok(())
}

/// Whether a process is the first of its PID namespace, which then is its container's own.
fn is_first(pid: i32) -> Result<bool, Failure> {
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&path).attempt(|| format!("read {path}"))?;
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    Ok(numbers.and_then(|numbers| numbers.split_whitespace().last()) == Some("1"))
}

fn wait_for_the_engine() -> Result<(), Failure> {
    output::line("held")?;
    let mut answer = [0];
    let read = std::io::stdin().lock().read(&mut answer);
    match read.attempt(|| "hear from the engine".to_owned())? {
        0 => Err(usage("The engine does not want the checkpoint any more.")),
        _ => Ok(()),
    }
}

/// Removes the firewall's chain by which criu drops packets, from the network of a process.
fn unlock_network(pid: i32) -> Result<(), Failure> {
    /// As often as criu can have been killed before this was done.
    const MOST: usize = 16;
    let path = format!("/proc/{pid}/ns/net");
    let network = std::fs::File::open(&path).attempt(|| format!("open {path}"))?;
    nix::sched::setns(network, nix::sched::CloneFlags::CLONE_NEWNET)
        .attempt(|| "enter the pod's network".to_owned())?;
    for program in ["iptables", "ip6tables"] {
        // Where the program is missing criu could not have locked anything.
        let run = |arguments: &[&str]| {
            let mut command = std::process::Command::new(program);
            let quiet = || std::process::Stdio::null();
            let command = command.arg("-w").args(arguments).stdout(quiet()).stderr(quiet());
            command.status().is_ok_and(|status| status.success())
        };
        for chain in ["INPUT", "OUTPUT"] {
            for _ in 0..MOST {
                if !run(&["-D", chain, "-j", "CRIU"]) {
                    break;
                }
            }
        }
        run(&["-F", "CRIU"]);
        run(&["-X", "CRIU"]);
    }
    Ok(())
}

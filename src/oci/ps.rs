//! `ps`: a container's processes, as the host numbers them.

use std::process::Command;

use berth_runtime::cgroups::Cgroup;

use crate::arguments::{Arguments, Operands, Syntax};
use crate::exit_code::ExitCode;
use crate::failure::{Attempt, Failure, usage};
use crate::list::format;
use crate::options::Global;
use crate::output;

pub(crate) const SYNTAX: Syntax = Syntax {
    name: "ps",
    flags: &["format,f=table|json"],
    operands: (Operands::OneAndRest, "ID [PS-OPTION ...]"),
};

/// Lists the processes: ps(1) does, with the options that follow the id, and the lines about others are left out.
pub(crate) fn main(global: &Global, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let json = format(arguments)?;
    let record = global.root.look(arguments.id()?)?.record()?;
    let pids = match Cgroup::open(&record.cgroup)? {
        Some(cgroup) => cgroup.pids()?,
        None => Vec::new(),
    };
    let mut pids: Vec<i32> = pids.iter().map(|pid| pid.as_raw()).collect();
    pids.sort_unstable();
    if json {
        output::json(&pids)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut options = arguments.rest()?;
    if options.is_empty() {
        options.push("-ef".to_owned());
    }
    let output = Command::new("ps")
        .args(&options)
        .output()
        .attempt(|| "run ps(1)".to_owned())?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(usage(format!("ps {}: {}", options.join(" "), said.trim())));
    }
    for line in lines_about(&pids, &String::from_utf8_lossy(&output.stdout))? {
        output::line(line)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The heading, and the lines whose PID is one of these.
fn lines_about<'a>(pids: &[i32], table: &'a str) -> Result<Vec<&'a str>, Failure> {
    let heading = table.lines().next().unwrap_or_default();
    let column = heading.split_whitespace().position(|title| title == "PID");
    let column = column.ok_or_else(|| usage("The output of ps has no column PID; ask for one."))?;
    let about = |line: &&str| {
        let pid = line
            .split_whitespace()
            .nth(column)
            .and_then(|field| field.parse().ok());
        pid.is_some_and(|pid: i32| pids.contains(&pid))
    };
    Ok(std::iter::once(heading)
        .chain(table.lines().skip(1).filter(about))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_about_others_are_left_out() {
        let table = "UID   PID CMD\nroot  7 a 8\nroot  8 b\n\nroot x y\n";
        assert_eq!(
            lines_about(&[8, 9], table).unwrap(),
            ["UID   PID CMD", "root  8 b"]
        );
        assert!(lines_about(&[8], "UID CMD\n").is_err());
        assert!(lines_about(&[8], "").is_err());
    }
}

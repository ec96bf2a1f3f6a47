//! `list`: all containers of a state root.

use std::process::ExitCode;

use lexopt::Arg;

use crate::failure::{Failure, usage};
use crate::options::{Global, flag, text};
use crate::state::{State, print, state};

/// Lists the containers as a table, as JSON, or their ids only.
pub(crate) fn main(global: &Global, mut parser: lexopt::Parser) -> Result<ExitCode, Failure> {
    let (mut json, mut quiet) = (false, false);
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("format") | Arg::Short('f') => json = format(&text(parser.value()?)?)?,
            Arg::Long("quiet") | Arg::Short('q') => quiet = flag(&mut parser)?,
            other => return Err(other.unexpected().into()),
        }
    }
    let ids = global.root.ids()?;
    if quiet {
        ids.iter().for_each(|id| println!("{id}"));
        return Ok(ExitCode::SUCCESS);
    }
    // One that is being made or deleted right now has no record.
    let states: Vec<State> = ids
        .iter()
        .filter_map(|id| {
            let directory = global.root.look(id).ok()?;
            let record = directory.record().ok()?;
            Some(state(&directory, record))
        })
        .collect();
    if json {
        print(&states)?;
    } else {
        table(&states);
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether a `--format` is JSON.
pub(crate) fn format(name: &str) -> Result<bool, Failure> {
    match name {
        "table" => Ok(false),
        "json" => Ok(true),
        other => Err(usage(format!("The format {other:?} is neither table nor json."))),
    }
}

fn table(states: &[State]) {
    let mut rows = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned)];
    rows.extend(states.iter().map(|s| {
        let bundle = s.bundle.display().to_string();
        [
            s.id.clone(),
            s.pid.to_string(),
            s.status.clone(),
            bundle,
            s.created.clone(),
            s.owner.clone(),
        ]
    }));
    let widths: Vec<usize> = (0..6)
        .map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0))
        .collect();
    for row in rows {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        println!("{}", cells.join("   ").trim_end());
    }
}

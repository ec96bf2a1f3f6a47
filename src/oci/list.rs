//! `list`: all containers of a state root.

use crate::arguments::{Arguments, Operands, Syntax};
use crate::exit_code::ExitCode;
use crate::failure::{Failure, usage};
use crate::options::Global;
use crate::state::{State, state};
use crate::{log, output};
use berth_runtime::Error;

pub(crate) const SYNTAX: Syntax = Syntax {
    name: "list",
    flags: &["format,f=table|json", "quiet,q"],
    operands: (Operands::None, ""),
};

/// Lists the containers as a table, as JSON, or their ids only. It waits for nobody: one that is being made or deleted
/// right now is left out, and one whose state is damaged is only named in a warning.
pub(crate) fn main(global: &Global, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let (json, quiet) = (format(arguments)?, arguments.switch("quiet")?);
    if let Some(root) = global.root_given.as_deref().filter(|root| !root.exists()) {
        // The usual place is there once there was a container; another one is probably misspelt.
        let root = root.display();
        return Err(usage(format!("The directory {root} of --root does not exist.")));
    }
    let mut states = Vec::new();
    for id in global.root.ids()? {
        match look(global, &id) {
            Ok(state) => states.extend(state),
            Err(error) => log::warning(global, &format!("The container {id} is not listed. {error}")),
        }
    }
    match (quiet, json) {
        (true, _) => states.iter().try_for_each(|state| output::line(&state.id))?,
        (false, true) => output::json(&states)?,
        (false, false) => table(&states)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn look(global: &Global, id: &str) -> Result<Option<State>, Error> {
    let directory = match global.root.look(id) {
        Err(Error::NoContainer(_)) => return Ok(None),
        other => other?,
    };
    match directory.record() {
        Ok(record) => {
            let mut state = state(&directory, record);
            state.owner = owner(directory.owner());
            Ok(Some(state))
        }
        // Its first act and its last are without a record.
        Err(_) if !directory.has_record() => Ok(None),
        Err(error) => Err(error),
    }
}

/// A user's name, or number.
fn owner(uid: u32) -> String {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| format!("#{uid}"))
}

/// Whether `--format` is JSON.
pub(crate) fn format(arguments: &Arguments) -> Result<bool, Failure> {
    match arguments.text("format")? {
        None | Some("table") => Ok(false),
        Some("json") => Ok(true),
        Some(other) => Err(usage(format!("The format {other:?} is neither table nor json."))),
    }
}

fn table(states: &[State]) -> Result<(), Failure> {
    /// Columns are at least so wide, with the space between them.
    const LEAST: usize = 12;
    const SPACE: usize = 3;
    let mut rows = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned)];
    rows.extend(states.iter().map(|s| {
        let bundle = s.bundle.display().to_string();
        let (pid, status, created) = (s.pid.to_string(), s.status.clone(), s.created.clone());
        [s.id.clone(), pid, status, bundle, created, s.owner.clone()]
    }));
    let widths: Vec<usize> = (0..6)
        .map(|column| {
            rows.iter()
                .map(|row| row[column].len() + SPACE)
                .max()
                .unwrap_or(0)
                .max(LEAST)
        })
        .collect();
    for row in rows {
        let cells = row[..5]
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        output::line(&format!("{}{}", cells.collect::<String>(), row[5]))?;
    }
    Ok(())
}

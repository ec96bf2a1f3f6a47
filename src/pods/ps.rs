//! `berth ps`: the pods of this node and who runs them.

use std::process::ExitCode;

use clap::Args;

use super::places;
use crate::root::Root;

/// List the pods of this node and who runs them
#[derive(Args, Debug)]
pub(crate) struct PsArgs {
    /// Also those that have ended
    #[arg(short, long)]
    all: bool,
}

/// Lists the pods. The error is a message for the person who typed the command.
pub(crate) fn ps(args: &PsArgs, root: &Root) -> Result<ExitCode, String> {
    print!(
        "{}",
        places(root).table(args.all).map_err(|error| error.to_string())?
    );
    Ok(ExitCode::SUCCESS)
}

//! `berth completion` and `berth man`: what shells and man(1) want to know of the command line.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Command};
use clap_complete::Shell;

/// Print completions for a shell, to be sourced or put where it looks for them
#[derive(Args, Debug)]
pub(crate) struct CompletionArgs {
    /// bash, zsh, fish, elvish or powershell
    shell: Shell,
}

/// Write the manual pages into a directory
#[derive(Args, Debug)]
pub(crate) struct ManArgs {
    /// For instance /usr/local/share/man/man1
    #[arg(value_name = "DIRECTORY")]
    directory: PathBuf,
}

/// Prints completions.
pub(crate) fn completion(args: &CompletionArgs, mut command: Command) -> Result<ExitCode, String> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "berth", &mut script);
    // A reader that has seen enough is no failure.
    let _ = io::stdout().write_all(&script);
    Ok(ExitCode::SUCCESS)
}

/// Writes the pages: `berth.1`, and one for each subcommand.
pub(crate) fn man(args: &ManArgs, command: Command) -> Result<ExitCode, String> {
    let failed = |error: io::Error| format!("{}: {error}.", args.directory.display());
    std::fs::create_dir_all(&args.directory).map_err(failed)?;
    clap_mangen::generate_to(command, &args.directory).map_err(failed)?;
    Ok(ExitCode::SUCCESS)
}

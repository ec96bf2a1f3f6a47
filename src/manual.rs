//! `berth completion` and `berth man`: what shells and man(1) want to know of the command line.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Command};
use clap_complete::Shell;
use clap_mangen::Man;

use crate::print::note;

/// Print completions for a shell, to be sourced or put where it looks for them
#[derive(Args, Debug)]
pub(crate) struct CompletionArgs {
    /// bash, zsh and fish complete names of pods, containers, images and fields, too
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
    match args.shell {
        Shell::Bash => script.extend_from_slice(include_bytes!("completion/berth.bash")),
        Shell::Zsh => script.extend_from_slice(include_bytes!("completion/berth.zsh")),
        Shell::Fish => script.extend_from_slice(include_bytes!("completion/berth.fish")),
        other => clap_complete::generate(other, &mut command, "berth", &mut script),
    }
    // A reader that has seen enough is no failure.
    let _ = io::stdout().write_all(&script).inspect_err(note);
    Ok(ExitCode::SUCCESS)
}

/// Writes the pages: `berth.1`, and one for each subcommand.
pub(crate) fn man(args: &ManArgs, command: Command) -> Result<ExitCode, String> {
    let failed = |error: io::Error| format!("{}: {error}.", args.directory.display());
    fs::create_dir_all(&args.directory).map_err(failed)?;
    let mut command = command.disable_help_subcommand(true);
    command.build();
    pages(&command, &args.directory).map_err(failed)?;
    Ok(ExitCode::SUCCESS)
}

fn pages(command: &Command, directory: &Path) -> io::Result<()> {
    for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set()) {
        pages(inner, directory)?;
    }
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    let mut page = Vec::new();
    Man::new(command.clone())
        .title(name.to_uppercase())
        .section("1")
        .source(concat!("berth ", env!("CARGO_PKG_VERSION")))
        .manual("berth")
        .render(&mut page)?;
    fs::write(
        directory.join(format!("{name}.1")),
        ascii(&with_usual_headings(&String::from_utf8_lossy(&page))),
    )
}

/// What stands after the options under the headings of man-pages(7).
fn with_usual_headings(page: &str) -> String {
    page.replace(".SH EXTRA\nExamples:\n", ".SH EXAMPLES\n.nf\n")
        .replace(".SH EXTRA\n", ".SH NOTES\n")
}

/// roff(7) is not UTF-8 everywhere: what is not ASCII is told by its number.
fn ascii(page: &str) -> String {
    let mut text = String::with_capacity(page.len());
    for letter in page.chars() {
        if letter.is_ascii() {
            text.push(letter);
        } else {
            text.push_str(&format!("\\[u{:04X}]", u32::from(letter)));
        }
    }
    text
}

//! `berth image`: the image store, by hand.

mod import;
mod inspect;
mod list;
mod progress;
mod prune;
mod pull;
mod remove;
mod text;

use std::fmt;
use std::io;
use std::process::ExitCode;

use berth_images::{Image, ImageError, Store, StoreOptions};

use crate::print::sentence;
use crate::root::Root;

/// Pull, import, list, inspect, prune and remove images.
#[derive(Debug, clap::Args)]
pub(crate) struct ImageArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Fetch images from their registries
    Pull(pull::PullArgs),
    /// Import images from an OCI layout (directory or archive) or from an archive of `docker save`
    Import(import::ImportArgs),
    /// List images
    #[command(alias = "list")]
    Ls(list::ListArgs),
    /// Show all that is known of images
    Inspect(inspect::InspectArgs),
    /// Remove images that no container uses
    Prune(prune::PruneArgs),
    /// Remove images, and the layers that no other image uses
    #[command(alias = "remove")]
    Rm(remove::RemoveArgs),
}

/// Runs a subcommand on the node's store. Exit code 1 if it failed, 130 if it was interrupted.
pub(crate) fn run(args: ImageArgs, root: &Root) -> ExitCode {
    match try_run(args.command, root) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Interrupted) => ExitCode::from(130),
        // Whoever reads has seen enough.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("berth: {}", sentence(&failure.to_string()));
            ExitCode::FAILURE
        }
    }
}

fn try_run(command: Command, root: &Root) -> Result<(), Failure> {
    let store = root.image_store(StoreOptions::default())?;
    match command {
        Command::Pull(args) => pull::run(&store, &args),
        Command::Import(args) => import::run(&store, args),
        Command::Ls(args) => list::run(&store, &args),
        Command::Inspect(args) => inspect::run(&store, &args),
        Command::Prune(args) => {
            let pinned = root.pinned_images().map_err(Failure::Configuration)?;
            prune::run(&store, &args, pinned)
        }
        Command::Rm(args) => remove::run(&store, &args),
    }
}

/// Why a subcommand failed.
#[derive(Debug)]
enum Failure {
    Image(ImageError),
    Output(std::io::Error),
    Configuration(String),
    Interrupted,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image(error) => error.fmt(f),
            Self::Output(error) => write!(f, "could not write to standard output: {error}"),
            Self::Configuration(error) => f.write_str(error),
            Self::Interrupted => f.write_str("interrupted"),
        }
    }
}

impl From<ImageError> for Failure {
    fn from(error: ImageError) -> Self {
        Self::Image(error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Output(error)
    }
}

fn required(store: &Store, name: &str) -> Result<Image, Failure> {
    let missing = || {
        ImageError::NotFound(format!(
            "there is no image {name}; `berth image ls` lists those there are"
        ))
    };
    Ok(store.find(name)?.ok_or_else(missing)?)
}

/// Names and id of an image that has just come.
fn announce(image: &Image) -> Result<(), Failure> {
    use std::io::Write;
    let names = if image.names.is_empty() {
        &image.digests
    } else {
        &image.names
    };
    let name = names.first().map_or("<none>", String::as_str);
    writeln!(
        std::io::stdout(),
        "{name} {} {}",
        text::short_id(&image.id),
        text::bytes(image.size)
    )?;
    Ok(())
}

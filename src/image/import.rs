//! `berth image import`

use std::path::PathBuf;

use berth_images::{ImportSource, Reference, Store};

use super::progress::Progress;
use super::{Failure, announce};

#[derive(Debug, clap::Args)]
pub(super) struct ImportArgs {
    /// An OCI layout directory, an OCI archive, an archive of `docker save` (also compressed), or - for standard input
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// Name for the image, instead of the ones that it brings along
    #[arg(short, long, value_name = "NAME")]
    tag: Option<String>,
    /// Print only the images, not how they come
    #[arg(short, long)]
    quiet: bool,
}

pub(super) fn run(store: &Store, args: ImportArgs) -> Result<(), Failure> {
    let name = args.tag.map(|tag| tag.parse::<Reference>()).transpose()?;
    let source = if args.path.as_os_str() == "-" {
        ImportSource::Stream(Box::new(std::io::stdin()))
    } else {
        ImportSource::Path(args.path)
    };
    let bars = Progress::new(args.quiet);
    bars.say(&format!("importing {source}"));
    let images = store.import(source, name.as_ref(), &|at| bars.update(&at))?;
    bars.finish();
    for image in &images {
        announce(image)?;
        if image.names.is_empty() {
            bars.say("this image brings no name along: import it with --tag NAME to give it one");
        }
    }
    Ok(())
}

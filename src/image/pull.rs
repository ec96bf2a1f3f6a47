//! `berth image pull`

use berth_images::{ImageError, Reference, Store};

use super::progress::Progress;
use super::{Failure, announce};

#[derive(Debug, clap::Args)]
pub(super) struct PullArgs {
    /// Names, as docker takes them: nginx, localhost:5000/team/app:1.2, registry.k8s.io/pause@sha256:…
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// Print only the images, not how they come
    #[arg(short, long)]
    quiet: bool,
}

pub(super) fn run(store: &Store, args: &PullArgs) -> Result<(), Failure> {
    let references = args
        .images
        .iter()
        .map(|name| name.parse())
        .collect::<Result<Vec<Reference>, _>>()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|e| ImageError::Io(format!("the pull could not be started: {e}")))?;
    // Dropping the runtime waits for the threads that unpack: after an interrupt they end at once, and clean up.
    runtime.block_on(async {
        tokio::select! {
            outcome = pull_all(store, &references, args.quiet) => outcome,
            _ = tokio::signal::ctrl_c() => Err(Failure::Interrupted),
        }
    })
}

async fn pull_all(store: &Store, references: &[Reference], quiet: bool) -> Result<(), Failure> {
    for reference in references {
        let bars = Progress::new(quiet);
        bars.say(&format!("pulling {reference}"));
        let image = store.pull(reference, &|at| bars.update(&at)).await?;
        bars.finish();
        announce(&image)?;
    }
    Ok(())
}

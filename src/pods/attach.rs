//! `berth attach`: the streams of a running container itself.

use std::path::Path;
use std::process::ExitCode;

use berth_kubelet::standalone;
use clap::Args;

use super::{PodArg, caller, exit_code, on_this_thread};
use crate::root::Root;

/// Attach to what a running container reads and writes from now on; ends with its exit code
#[derive(Args, Debug)]
pub(crate) struct AttachArgs {
    #[command(flatten)]
    pod: PodArg,

    /// Which container; without it that of the annotation kubectl.kubernetes.io/default-container, or the first
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,

    /// Pass standard input on; the container must have `stdin: true`
    #[arg(short = 'i', long)]
    stdin: bool,

    /// Use the container's terminal; it must have `tty: true`
    #[arg(short, long)]
    tty: bool,
}

/// Attaches.
pub(crate) fn attach(args: &AttachArgs, root: &Root, cgroup_root: &Path) -> Result<ExitCode, String> {
    let caller = caller(root, cgroup_root);
    let pod = args.pod.name();
    let chosen = caller.places().choose(&pod, args.container.as_deref());
    let chosen = chosen.map_err(|error| error.to_string())?;
    if let Some(notice) = chosen.notice {
        eprintln!("{notice}");
    }
    let name = chosen.container;
    let finished = on_this_thread(async {
        let mut streams = caller.attach(&pod, &name, args.stdin).await?;
        if args.tty && !streams.tty {
            eprintln!("Unable to use a TTY - container {name} did not allocate one");
        }
        if args.stdin && streams.stdin.is_none() {
            eprintln!("Container {name} has no standard input (stdin: true in its specification).");
        }
        streams.tty &= args.tty;
        eprintln!("If you don't see a command prompt, try pressing enter.");
        standalone::join(streams).await
    })?;
    exit_code(finished).map(ExitCode::from)
}

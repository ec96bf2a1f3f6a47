//! `berth cp`: files into containers and out of them.

use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;

use berth_kubelet::standalone::{self, Caller, RootOf, Side};
use clap::Args;

use super::{caller, in_namespace, on_this_thread};
use crate::root::Root;

/// Copy files and directories to and from running containers; none of the container's programs is needed
#[derive(Args, Debug)]
pub(crate) struct CpArgs {
    /// What to copy: PATH here, or POD:PATH or NAMESPACE/POD:PATH; DIRECTORY/. is what is in it
    from: String,

    /// Where to: a directory that is there, or a new name
    to: String,

    /// Which container; without it that of the annotation kubectl.kubernetes.io/default-container, or the first
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,

    /// The pod's namespace
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
}

/// One side of the copy.
enum Place<'a> {
    Here(&'a Path),
    There(RootOf, &'a Path),
}

/// Copies.
pub(crate) fn cp(args: &CpArgs, root: &Root, cgroup_root: &Path) -> Result<ExitCode, String> {
    let caller = caller(root, cgroup_root);
    if pod_of(&args.from).is_none() && pod_of(&args.to).is_none() {
        return Err("One of the two must be in a container: POD:PATH.".to_owned());
    }
    if args.from == "-" || args.to == "-" {
        return Err(
            "`-` is no place to copy; `berth exec` passes standard streams on (`berth exec POD -- cat FILE`), and ./- is a file of \
             that name."
                .to_owned(),
        );
    }
    on_this_thread(async {
        let from = place(args, &caller, &args.from).await?;
        let to = place(args, &caller, &args.to).await?;
        let mut warn = |text: &str| eprintln!("warning: {text}");
        standalone::copy(from.side(), to.side(), &mut warn).map_err(|error| error.to_string())
    })??;
    Ok(ExitCode::SUCCESS)
}

/// `POD:PATH`. A path of this machine with a colon begins with `.` or `/`.
fn pod_of(text: &str) -> Option<(&str, &str)> {
    text.split_once(':')
        .filter(|(pod, _)| !pod.starts_with(['.', '/']) && !pod.is_empty())
}

async fn place<'a>(args: &CpArgs, caller: &Caller, text: &'a str) -> Result<Place<'a>, String> {
    let Some((pod, path)) = pod_of(text) else {
        return Ok(Place::Here(Path::new(text)));
    };
    if path.is_empty() {
        return Err(format!("{text} has no path after its colon."));
    }
    let pod = in_namespace(pod, args.namespace.as_deref());
    let chosen = caller.places().choose(&pod, args.container.as_deref());
    let chosen = chosen.map_err(|error| error.to_string())?;
    if let Some(notice) = chosen.notice {
        eprintln!("{notice}");
    }
    let root = caller
        .root(&pod, &chosen.container)
        .await
        .map_err(|error| error.to_string())?;
    Ok(Place::There(root, Path::new(path)))
}

impl Place<'_> {
    fn side(&self) -> Side<'_> {
        match self {
            Self::Here(path) => Side::Host(path),
            Self::There(root, path) => Side::Container {
                root: root.directory.as_fd(),
                owner: (root.uid, root.gid),
                path,
            },
        }
    }
}

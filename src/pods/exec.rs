//! `berth exec`: a command in a running container.

use std::io::{self, IsTerminal};
use std::path::Path;
use std::process::ExitCode;

use berth_kubelet::standalone;
use clap::Args;

use super::{PodArg, caller, exit_code, on_this_thread};
use crate::root::Root;

/// Run a command in a running container; ends with its exit code
#[derive(Args, Debug)]
pub(crate) struct ExecArgs {
    #[command(flatten)]
    pod: PodArg,

    /// Which container; without it that of the annotation kubectl.kubernetes.io/default-container, or the first
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,

    /// Pass standard input on
    #[arg(short = 'i', long)]
    stdin: bool,

    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,

    /// Say nothing of its own but errors
    #[arg(short, long)]
    quiet: bool,

    /// The command and its arguments; `--` before it is needed only where it begins with a dash
    #[arg(trailing_var_arg = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Runs the command.
pub(crate) fn exec(args: &ExecArgs, root: &Root, cgroup_root: &Path) -> Result<ExitCode, String> {
    let mut tty = args.tty;
    if tty && !(args.stdin && io::stdin().is_terminal()) {
        if !args.quiet {
            eprintln!("Unable to use a TTY - input is not a terminal or the right kind of file");
        }
        tty = false;
    }
    let caller = caller(root, cgroup_root);
    let pod = args.pod.name();
    let chosen = caller.places().choose(&pod, args.container.as_deref());
    let chosen = chosen.map_err(|error| error.to_string())?;
    if let Some(notice) = chosen.notice.filter(|_| !args.quiet) {
        eprintln!("{notice}");
    }
    let finished = on_this_thread(async {
        let streams = caller
            .exec(&pod, &chosen.container, &args.command, args.stdin, tty)
            .await?;
        standalone::join(streams).await
    })?;
    exit_code(finished).map(ExitCode::from)
}

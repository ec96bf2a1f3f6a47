//! `berth debug`: an ephemeral container in a pod that runs.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ExitCode;

use berth_kubelet::defaulting::default_pull_policy;
use berth_kubelet::logs::Stream;
use berth_kubelet::standalone::{
    self, Bars, Caller, DebugContainer, DebugProfile, DebugState, LogOptions, PodLogLine,
};
use clap::Args;

use super::{PodArg, caller, exit_code, on_this_thread};
use crate::builtin_image;
use crate::print::{note, sentence};
use crate::root::Root;

/// Add a container to a pod that runs, to look into it; it runs once, and stays listed as long as the pod is there
#[derive(Args, Debug)]
pub(crate) struct DebugArgs {
    #[command(flatten)]
    pod: PodArg,

    /// The container's image; without one the small one inside berth, which has no shell
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,

    /// Always, IfNotPresent or Never
    #[arg(long, value_name = "POLICY", value_parser = ["Always", "IfNotPresent", "Never"])]
    image_pull_policy: Option<String>,

    /// What the container is to be called; without it debugger- and five letters
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,

    /// The container whose processes it is to see
    #[arg(long, value_name = "CONTAINER")]
    target: Option<String>,

    /// Environment variables: NAME=VALUE
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    env: Vec<(String, String)>,

    /// What it may do: general, baseline, restricted, netadmin or sysadmin
    #[arg(long, value_name = "PROFILE", default_value = "general")]
    profile: DebugProfile,

    /// Pass standard input on
    #[arg(short = 'i', long)]
    stdin: bool,

    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,

    /// Wait for its output and its end, also without --stdin
    #[arg(long)]
    attach: bool,

    /// Say nothing of its own but errors
    #[arg(short, long)]
    quiet: bool,

    /// Give what follows to the image's own program as arguments
    #[arg(long)]
    arguments_only: bool,

    /// The command and its arguments; without one, that of the image. `--` before it is needed only where it begins with a dash
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<String>,
}

fn variable(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("it is not like NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Adds the container, and goes through its streams if that is asked for.
pub(crate) fn debug(args: &DebugArgs, root: &Root, cgroup_root: &Path) -> Result<ExitCode, String> {
    let caller = caller(root, cgroup_root);
    let pod = args.pod.name();
    let container = container(args)?;
    let name = container.name.clone();
    let images = BTreeSet::from([container.image.clone()]);
    let say = |text: &str| {
        if !args.quiet {
            eprintln!("{text}");
        }
    };
    if args.container.is_none() {
        say(&format!("Defaulting debug container name to {name}."));
    }
    let added = on_this_thread(caller.debug(&pod, container))?;
    added.map_err(|error| error.to_string())?;
    if !(args.attach || args.stdin) {
        return Ok(ExitCode::SUCCESS);
    }
    let bars = Bars::on_terminal().filter(|_| !args.quiet);
    let begun = on_this_thread(async {
        let begun = caller.places().debug_begun(&pod, &name, |reason| {
            if reason != "ContainerCreating" {
                let warn = || say(&format!("warning: container {name}: {reason}"));
                bars.as_ref().map_or_else(warn, |bars| bars.around(warn));
            }
        });
        match &bars {
            Some(bars) => caller.with_pulls(&pod, images, bars, begun).await,
            None => begun.await,
        }
    })?;
    let begun = begun.map_err(|error| error.to_string())?;
    let begun = begun.map_err(|reason| format!("Container {name} can't be started: {reason}."))?;
    if args.stdin && begun == DebugState::Running {
        say("If you don't see a command prompt, try pressing enter.");
        let finished = on_this_thread(async {
            let mut streams = caller.attach(&pod, &name, true).await?;
            streams.tty &= args.tty;
            standalone::join(streams).await
        })?;
        return exit_code(finished).map(ExitCode::from);
    }
    // From its log nothing is missing, however short it ran.
    print_log(&caller, &pod, &name)?;
    ended(&caller, &pod, &name)
}

fn container(args: &DebugArgs) -> Result<DebugContainer, String> {
    let (image, policy) = match &args.image {
        Some(image) => (image.clone(), default_pull_policy(image)),
        None => (builtin_image::NAME.to_owned(), "Never"),
    };
    let policy = args
        .image_pull_policy
        .clone()
        .unwrap_or_else(|| policy.to_owned());
    let name = match &args.container {
        Some(name) => name.clone(),
        None => format!("debugger-{}", letters()?),
    };
    Ok(DebugContainer {
        name,
        image,
        image_pull_policy: policy,
        words: args.command.clone(),
        arguments_only: args.arguments_only,
        env: args.env.clone(),
        profile: args.profile,
        stdin: args.stdin,
        tty: args.tty,
        target: args.target.clone(),
    })
}

/// Five letters and digits that make no words, as kubectl's.
fn letters() -> Result<String, String> {
    const SOME: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut bytes = [0_u8; 5];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(|error| format!("The kernel gives no random numbers: {error}."))?;
    Ok(bytes
        .iter()
        .map(|byte| char::from(SOME[usize::from(*byte) % SOME.len()]))
        .collect())
}

fn print_log(caller: &Caller, pod: &str, name: &str) -> Result<(), String> {
    let options = LogOptions {
        container: Some(name.to_owned()),
        follow: true,
        ..LogOptions::default()
    };
    let print = |line: PodLogLine| {
        let written = match line.stream {
            Stream::Stdout => io::stdout().write_all(&line.text),
            Stream::Stderr => io::stderr().write_all(&line.text),
        };
        written.inspect_err(note)
    };
    let printed = on_this_thread(caller.places().logs(&[pod.to_owned()], &options, |_| {}, print))?;
    printed.map_err(|error| error.to_string())
}

/// What it ended with.
fn ended(caller: &Caller, pod: &str, name: &str) -> Result<ExitCode, String> {
    let state = on_this_thread(caller.places().debug_ended(pod, name))?;
    match state.map_err(|error| error.to_string())? {
        Some((code, why)) => {
            if let Some(why) = why {
                eprintln!("berth: Container {name} can't be started: {}", sentence(&why));
            }
            Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
        }
        None => Err(format!("How container {name} ended is not known.")),
    }
}

//! `berth`: a Kubernetes node in one program. This is its command line; one file for each subcommand.

#[macro_use]
mod print;

mod builtin_image;
mod complete;
mod cri;
mod daemon;
#[cfg(test)]
mod documents;
mod examples;
mod explain;
mod files;
mod image;
mod image_gc;
mod manual;
mod node_args;
mod pods;
mod preflight;
mod root;
mod rootless;
mod run;
mod runtime;
mod service_manager;
mod verbs;
mod volume;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use root::Root;
use rootless::Entry;

/// A Kubernetes node in one program.
#[derive(Parser, Debug)]
#[command(name = "berth", version, about, arg_required_else_help = true)]
struct Cli {
    /// Keep everything beneath this directory instead of /var/lib, /run and /var/log
    #[arg(long, global = true, value_name = "DIR", help_heading = "Global options")]
    root: Option<PathBuf>,

    /// The cgroup that `kubepods` is made in, relative to the root of each hierarchy
    #[arg(
        long,
        global = true,
        value_name = "CGROUP",
        default_value = "/",
        help_heading = "Global options"
    )]
    cgroup_root: PathBuf,

    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Run(run::RunArgs),
    Apply(pods::ApplyArgs),
    Validate(pods::ValidateArgs),
    Explain(explain::ExplainArgs),
    Cri(cri::CriArgs),
    Image(image::ImageArgs),
    Volume(volume::VolumeArgs),
    Ps(pods::PsArgs),
    Inspect(pods::InspectArgs),
    Status(pods::StatusArgs),
    Wait(pods::WaitArgs),
    Stats(pods::StatsArgs),
    Top(pods::TopArgs),
    Logs(pods::LogsArgs),
    Events(pods::EventsArgs),
    Exec(pods::ExecArgs),
    Attach(pods::AttachArgs),
    Debug(pods::DebugArgs),
    Cp(pods::CpArgs),
    PortForward(pods::PortForwardArgs),
    Restart(pods::RestartArgs),
    Stop(pods::StopArgs),
    Rm(pods::RmArgs),
    Daemon(daemon::DaemonArgs),
    Completion(manual::CompletionArgs),
    Man(manual::ManArgs),
    #[command(hide = true)]
    Complete(complete::CompleteArgs),
    #[command(hide = true)]
    RootlessKeeper(rootless::KeeperArgs),
    #[command(hide = true)]
    RootlessNetwork(rootless::GuardArgs),
    #[command(hide = true)]
    RootlessRelay(rootless::RelayArgs),
}

/// Where a command works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Wherever it is typed.
    Anywhere,
    /// Among the node's files and processes.
    Node,
    /// There, and in its network.
    Network,
}

impl Command {
    fn place(&self) -> Place {
        match self {
            Self::Validate(_)
            | Self::Explain(_)
            | Self::Cri(_)
            | Self::Completion(_)
            | Self::Man(_)
            | Self::Complete(_)
            | Self::RootlessKeeper(_)
            | Self::RootlessNetwork(_)
            | Self::RootlessRelay(_) => Place::Anywhere,
            // Registries and local ports are the machine's.
            Self::Image(_) | Self::PortForward(_) => Place::Node,
            _ => Place::Network,
        }
    }

    /// What it wants of an ordinary user's node.
    fn entry(&self, place: Place) -> Entry {
        Entry {
            network: place == Place::Network,
            starts_pods: matches!(
                self,
                Self::Run(_) | Self::Apply(_) | Self::Debug(_) | Self::Restart(_) | Self::Daemon(_)
            ),
        }
    }
}

fn main() -> ExitCode {
    // Plugins and other programs that are run begin with the signals that this one has.
    berth_cri::forget_starters_signals();
    let parsed = command().try_get_matches();
    let cli = match parsed.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) if error.kind() == ErrorKind::MissingSubcommand => return help_of_what_was_typed(),
        Err(error) => {
            let words: Vec<String> = std::env::args().skip(1).collect();
            let Some(instead) = verbs::instead(&error, &words, &command()) else {
                error.exit();
            };
            eprintln!("berth: {instead}");
            return ExitCode::from(2);
        }
    };
    match run(cli) {
        Ok(code) => match print::failure() {
            Some(why) => {
                eprintln!("berth: Standard output can't be written: {why}.");
                ExitCode::FAILURE
            }
            None => code,
        },
        Err(message) => {
            eprintln!("berth: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Who types `berth` or `berth image` and no more wants to know what there is.
fn help_of_what_was_typed() -> ExitCode {
    let mut command = command();
    command.build();
    let mut at = &command;
    for word in std::env::args().skip(1) {
        at = at.find_subcommand(&word).unwrap_or(at);
    }
    eprintln!("{}", at.clone().render_help());
    ExitCode::from(2)
}

/// The command line, with what its help and its manual pages show besides options.
fn command() -> clap::Command {
    examples::with_examples(Cli::command())
}

fn run(cli: Cli) -> Result<ExitCode, String> {
    let root = Root::new(cli.root.as_deref())?;
    let place = cli.command.place();
    if place != Place::Anywhere
        && let Some(code) = rootless::enter(&root, cli.command.entry(place))?
    {
        return Ok(code);
    }
    match cli.command {
        Command::Run(args) => run::run(&args, &root, &cli.cgroup_root),
        Command::Apply(args) => pods::apply(&args, &root, &cli.cgroup_root),
        Command::Validate(args) => pods::validate(&args, &root),
        Command::Explain(args) => explain::run(&args),
        Command::Cri(args) => cri::run(&args, &root),
        Command::Image(args) => Ok(image::run(args, &root)),
        Command::Volume(args) => volume::run(&args, &root),
        Command::Ps(args) => pods::ps(&args, &root),
        Command::Inspect(args) => pods::inspect(&args, &root),
        Command::Wait(args) => pods::wait(&args, &root),
        Command::Stats(args) => pods::stats(&args, &root, &cli.cgroup_root),
        Command::Top(args) => pods::top(&args, &root, &cli.cgroup_root),
        Command::Status(args) => pods::status(&args, &root),
        Command::Logs(args) => pods::logs(&args, &root),
        Command::Events(args) => pods::events(&args, &root),
        Command::Exec(args) => pods::exec(&args, &root, &cli.cgroup_root),
        Command::Attach(args) => pods::attach(&args, &root, &cli.cgroup_root),
        Command::Debug(args) => pods::debug(&args, &root, &cli.cgroup_root),
        Command::Cp(args) => pods::cp(&args, &root, &cli.cgroup_root),
        Command::PortForward(args) => pods::port_forward(&args, &root, &cli.cgroup_root),
        Command::Restart(args) => pods::restart(&args, &root, &cli.cgroup_root),
        Command::Stop(args) => pods::stop(&args, &root, &cli.cgroup_root),
        Command::Rm(args) => pods::rm(&args, &root, &cli.cgroup_root),
        Command::Completion(args) => manual::completion(&args, command()),
        Command::Complete(args) => Ok(complete::complete(&args, &root, command())),
        Command::Man(args) => manual::man(&args, command()),
        Command::Daemon(args) => daemon::run(&args, &root, &cli.cgroup_root),
        Command::RootlessKeeper(args) => Ok(rootless::keep(&args)),
        Command::RootlessNetwork(args) => Ok(rootless::guard(&args)),
        Command::RootlessRelay(args) => Ok(rootless::relay(&args)),
    }
}

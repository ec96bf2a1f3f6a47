//! `berth-oci`: an OCI runtime with runc's command line, and as `berth-oci shim` the process that serves a pod.

mod bundle;
mod create;
mod delete;
mod exec;
mod failure;
mod features;
mod foreground;
mod kill;
mod list;
mod log;
mod options;
mod pause;
mod ps;
mod resume;
mod run;
mod shim;
mod spec;
mod start;
mod state;
mod terminal;
mod time;
mod update;

use std::process::ExitCode;

use failure::{Failure, usage};
use lexopt::Arg;
use options::Global;

const USAGE: &str = "\
berth-oci: an OCI runtime

Usage: berth-oci [--root DIR] [--log FILE] [--log-format text|json] [--debug] COMMAND ...

  create   [--bundle DIR] [--console-socket PATH] [--pid-file FILE] [--preserve-fds N] [--no-pivot]
           [--no-new-keyring] ID
  start    ID
  run      [options of create] [--detach] [--keep] ID
  exec     [-t] [-d] [-e NAME=VALUE] [-u UID[:GID]] [--cwd DIR] [--process FILE] [--console-socket PATH]
           [--pid-file FILE] [--preserve-fds N] [--cap CAP] [--no-new-privs] ID [COMMAND [ARG ...]]
  kill     [--all] ID [SIGNAL]
  delete   [--force] ID
  state    ID
  list     [-f table|json] [-q]
  ps       [-f table|json] ID
  pause    ID
  resume   ID
  update   [-r FILE] [--memory N] [--memory-swap N] [--memory-reservation N] [--cpu-shares N] [--cpu-quota N]
           [--cpu-period N] [--cpuset-cpus LIST] [--cpuset-mems LIST] [--pids-limit N] ID
  spec     [--bundle DIR]
  features
  shim     DIR";

/// Every command but `shim` ends soon.
#[global_allocator]
static MEMORY: berth_runtime::Arena = berth_runtime::Arena::new();

fn main() -> ExitCode {
    let mut parser = lexopt::Parser::from_env();
    let (global, verb) = match options::parse(&mut parser) {
        Ok(parsed) => parsed,
        Err(failure) => return report(None, &failure),
    };
    match dispatch(&global, &verb, parser) {
        Ok(code) => code,
        Err(failure) => report(Some(&global), &failure),
    }
}

fn dispatch(global: &Global, verb: &str, parser: lexopt::Parser) -> Result<ExitCode, Failure> {
    match verb {
        "create" => create::main(global, parser),
        "start" => start::main(global, parser),
        "run" => run::main(global, parser),
        "exec" => exec::main(global, parser),
        "kill" => kill::main(global, parser),
        "delete" => delete::main(global, parser),
        "state" => state::main(global, parser),
        "list" => list::main(global, parser),
        "ps" => ps::main(global, parser),
        "pause" => pause::main(global, parser),
        "resume" => resume::main(global, parser),
        "update" => update::main(global, parser),
        "spec" => spec::main(parser),
        "features" => features::main(),
        "shim" => shim::main(parser),
        "help" => {
            println!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        "version" => {
            println!(
                "berth-oci version {}\nspec: {}",
                env!("CARGO_PKG_VERSION"),
                spec::VERSION
            );
            Ok(ExitCode::SUCCESS)
        }
        other => Err(usage(format!(
            "There is no command {other:?}; see berth-oci --help."
        ))),
    }
}

fn report(global: Option<&Global>, failure: &Failure) -> ExitCode {
    log::error(global, &failure.message);
    ExitCode::from(failure.exit_code)
}

/// The last argument of most commands: the container's id, and nothing after it.
fn only_id(parser: &mut lexopt::Parser) -> Result<String, Failure> {
    let mut id = None;
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Value(value) if id.is_none() => id = Some(options::text(value)?),
            other => return Err(other.unexpected().into()),
        }
    }
    id.ok_or_else(|| usage("The container's id is missing."))
}

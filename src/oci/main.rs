//! `berth-oci`: an OCI runtime with runc's command line, and as `berth-oci shim` the process that serves a pod.

#![cfg_attr(not(test), no_main)]

mod activation;
mod arguments;
mod bundle;
mod checkpoint;
mod create;
mod criu;
mod delete;
mod dump;
mod events;
mod exec;
mod exit_code;
mod failure;
mod features;
mod foreground;
mod handover;
mod kill;
mod limits;
mod list;
mod living;
mod log;
mod notify;
mod options;
mod output;
mod pause;
mod probe;
mod ps;
mod restore;
mod resume;
mod run;
mod shim;
mod spec;
mod start;
mod state;
mod terminal;
mod time;
mod update;

use arguments::{Arguments, Syntax};
use exit_code::ExitCode;
use failure::{Failure, unknown_command};
use options::{Global, Verb};

/// What carries a command out.
type Command = fn(&Global, &Arguments) -> Result<ExitCode, Failure>;

const COMMANDS: &[(&Syntax, Command)] = &[
    (&checkpoint::SYNTAX, checkpoint::main),
    (&create::SYNTAX, create::main),
    (&delete::SYNTAX, delete::main),
    (&events::SYNTAX, events::main),
    (&exec::SYNTAX, exec::main),
    (&features::SYNTAX, features::main),
    (&kill::SYNTAX, kill::main),
    (&list::SYNTAX, list::main),
    (&pause::SYNTAX, pause::main),
    (&ps::SYNTAX, ps::main),
    (&restore::SYNTAX, restore::main),
    (&resume::SYNTAX, resume::main),
    (&run::SYNTAX, run::main),
    (&spec::SYNTAX, spec::main),
    (&start::SYNTAX, start::main),
    (&state::SYNTAX, state::main),
    (&update::SYNTAX, update::main),
    (&dump::SYNTAX, dump::main),
    (&shim::SYNTAX, shim::main),
    (&probe::SYNTAX, probe::main),
];

/// Every command but `shim` ends soon.
#[global_allocator]
static MEMORY: berth_runtime::Arena = berth_runtime::Arena::new();

// A third of the program would be parts of the C library that never run. Unit tests have threads, and keep them.
#[cfg(not(test))]
berth_runtime::small_libc!();
#[cfg(not(test))]
berth_entry::entry!(run);

/// The whole program: from its arguments, the first of which is its name, to its exit code.
#[cfg_attr(test, expect(dead_code))]
fn run(arguments: berth_entry::Arguments) -> u8 {
    let mut global = Global::default();
    let outcome = dispatch(&mut global, lexopt::Parser::from_iter(arguments));
    let code = outcome.unwrap_or_else(|failure| {
        log::error(&global, &failure.message);
        ExitCode::from(failure.exit_code)
    });
    u8::from(code)
}

fn dispatch(global: &mut Global, mut parser: lexopt::Parser) -> Result<ExitCode, Failure> {
    let name = match options::parse(&mut parser, global)? {
        Verb::Command(name) => name,
        Verb::Help => return help(parser),
        Verb::Version => {
            let version = env!("CARGO_PKG_VERSION");
            output::line(&format!("berth-oci version {version}\nspec: {}", spec::VERSION))?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    let (syntax, command) = find(&name)?;
    let Some(arguments) = syntax.parse(parser)? else {
        output::line(&syntax.help())?;
        return Ok(ExitCode::SUCCESS);
    };
    log::debug(global, || format!("{name} {arguments:?}"));
    command(global, &arguments)
}

fn find(name: &str) -> Result<(&'static Syntax, Command), Failure> {
    let found = COMMANDS.iter().find(|(syntax, _)| syntax.name == name);
    found.copied().ok_or_else(|| unknown_command(name))
}

/// Of one command, or of all.
fn help(mut parser: lexopt::Parser) -> Result<ExitCode, Failure> {
    if let Ok(Some(lexopt::Arg::Value(name))) = parser.next() {
        output::line(&find(arguments::as_text(&name)?)?.0.help())?;
        return Ok(ExitCode::SUCCESS);
    }
    output::line(options::USAGE)?;
    for (syntax, _) in COMMANDS {
        output::line(&syntax.help())?;
    }
    Ok(ExitCode::SUCCESS)
}

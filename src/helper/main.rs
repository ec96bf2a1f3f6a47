//! The program inside berth's built-in image, and the container of most tests: many small commands in one static
//! file. The command is the name it was started by (`/bin/httpd` is a link to it) or its first argument.
//!
//! It may be PID 1 of a container, where the kernel ignores every signal that has no handler, so each command that
//! waits ends on SIGTERM and SIGINT by itself, unless it is there to show what a stubborn program does.

#![cfg_attr(not(test), no_main)]

mod args;
mod attack;
mod checks;
mod client;
mod files;
mod grpc_health;
mod httpd;
mod load;
mod output;
mod show;
mod signals;
mod sockets;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use args::Args;
use berth_entry::Arguments;

/// What a command comes to: its exit code, or a sentence and the exit code 1.
type Outcome = Result<u8, Box<dyn std::error::Error>>;

/// The commands, one a line and sorted: what the built-in image has in `/bin`.
const VERBS: &str = include_str!("verbs.txt");

// As a probe it starts every second in every pod.
#[cfg(not(test))]
berth_entry::entry!(start);

/// The whole program: from its arguments, the first of which is its name, to its end.
#[cfg_attr(test, expect(dead_code))]
fn start(arguments: Arguments) -> u8 {
    let name = arguments.clone().next().map_or(&[][..], OsStr::as_bytes);
    if name == b"true" || name.ends_with(b"/true") {
        // Half of its time would be pages of memory that are used for the first time.
        return 0;
    }
    // What is printed without a line's end is written here.
    std::process::exit(run_words(arguments).into())
}

/// Does what the name or the first argument says. Returns the exit code.
fn run_words(arguments: Arguments) -> u8 {
    let mut argv: Vec<String> = arguments
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    let started_as = argv
        .first()
        .map_or("", |path| path.rsplit('/').next().unwrap_or(path))
        .to_owned();
    if VERBS.lines().any(|verb| verb == started_as) {
        argv[0] = started_as;
    } else if !argv.is_empty() {
        argv.remove(0);
    }
    if argv.is_empty() {
        eprintln!(
            "berth-helper: say what to do, one of: {}",
            VERBS.lines().collect::<Vec<_>>().join(" ")
        );
        return 2;
    }
    perform(argv)
}

/// Runs one command line and returns its exit code.
fn perform(mut argv: Vec<String>) -> u8 {
    let verb = argv.remove(0);
    match dispatch(&verb, Args::new(argv)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{verb}: {error}");
            1
        }
    }
}

fn dispatch(verb: &str, args: Args) -> Outcome {
    match verb {
        "allocate" => load::allocate(args),
        "alone" => files::alone(args),
        "append" => files::append(args),
        "attempt" => attack::attempt(args),
        "caps" => show::caps(args),
        "cat" => files::cat(args),
        "checks" => checks::checks(args),
        "connect" => sockets::connect(args),
        "echo" => output::echo(args),
        "env" => show::env(args),
        "exists" => files::exists(args),
        "exit" => output::exit(args),
        "false" => Ok(1),
        "fds" => show::fds(args),
        "fill" => files::fill(args),
        "forkbomb" => load::forkbomb(args),
        "grandchild" => load::grandchild(args),
        "grpc-health" => grpc_health::grpc_health(args),
        "hold" => load::hold(args),
        "hostname" => show::hostname(args),
        "http-get" => client::http_get(args),
        "httpd" => httpd::httpd(args),
        "id" => show::id(args),
        "kill" => signals::kill(args),
        "limits" => show::proc_file(args, "limits"),
        "lines" => output::lines(args),
        "listen" => sockets::listen(args),
        "ls" => files::ls(args),
        "mkdir" => files::mkdir(args),
        "mounts" => show::proc_file(args, "mountinfo"),
        "namespaces" => show::namespaces(args),
        "open" => files::open(args),
        "proc" => show::proc(args),
        "ps" => show::ps(args),
        "ready" => files::exists(args),
        "rm" => files::rm(args),
        "run" => run(args),
        "self-exe" => attack::self_exe(args),
        "sleep" => signals::sleep(args),
        "spin" => load::spin(args),
        "stdin-echo" => output::stdin_echo(args),
        "symlink-race" => attack::symlink_race(args),
        "sysctl" => show::sysctl(args),
        "tick" => output::tick(args),
        "touch" => files::touch(args),
        "trap" => signals::trap(args),
        "true" => Ok(0),
        "verbs" => {
            print!("{VERBS}");
            Ok(0)
        }
        "wait-file" => files::wait_file(args),
        "write" => files::write(args),
        _ => {
            eprintln!("berth-helper: there is no command {verb:?}; `verbs` lists them");
            Ok(127)
        }
    }
}

/// `run CMD ARG… ';' CMD ARG…`: one after another in one process, until one fails.
fn run(args: Args) -> Outcome {
    let words = args.rest();
    for line in words.split(|word| word == ";").filter(|line| !line.is_empty()) {
        let code = perform(line.to_vec());
        if code != 0 {
            return Ok(code);
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_are_sorted_and_unique() {
        let verbs: Vec<&str> = VERBS.lines().collect();
        assert!(verbs.windows(2).all(|pair| pair[0] < pair[1]), "{verbs:?}");
    }

    #[test]
    fn run_stops_at_the_first_failure() {
        let line = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(perform(line("run true ; exit 3 ; exit 4")), 3);
        assert_eq!(perform(line("run true ; true")), 0);
        assert_eq!(perform(line("no-such-verb")), 127);
    }
}

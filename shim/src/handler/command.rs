//! What another runtime's program is told: the command line that runc, crun and youki share.

use std::ffi::OsString;
use std::path::Path;

use crate::protocol::RuntimeProgram;

/// What a runtime's program is to do with a container.
pub(super) enum Verb<'a> {
    /// Make it, up to its program.
    Create {
        bundle: &'a Path,
        pid_file: &'a str,
        console: Option<&'a str>,
    },
    /// Let its program run.
    Start,
    /// Send a signal to its first process.
    Kill(i32),
    /// Change its limits to those of a file.
    Update(&'a str),
    /// Start one more process.
    Exec {
        process: &'a str,
        pid_file: &'a str,
        console: Option<&'a str>,
        cgroup: Option<&'a str>,
    },
    /// Remove it, whatever it does.
    Delete,
}

/// Where a runtime's program keeps its state, and what it says.
pub(super) struct Places<'a> {
    pub(super) root: &'a Path,
    pub(super) log: &'a str,
    /// systemd makes the control groups.
    pub(super) systemd: bool,
}

/// The arguments for one verb. Names of files are relative to the directory that the program begins in: paths of sockets
/// have room for 107 bytes.
pub(super) fn arguments(
    program: &RuntimeProgram,
    places: &Places<'_>,
    verb: &Verb<'_>,
    container: &str,
) -> Vec<OsString> {
    let mut line: Vec<OsString> = program.args.iter().map(OsString::from).collect();
    line.extend(["--root".into(), places.root.into()]);
    let mut add = |words: &[&str]| line.extend(words.iter().map(OsString::from));
    add(&["--log", places.log, "--log-format", "json"]);
    if places.systemd {
        add(&["--systemd-cgroup"]);
    }
    match verb {
        Verb::Create {
            bundle,
            pid_file,
            console,
        } => {
            add(&["create", "--pid-file", pid_file]);
            if let Some(console) = console {
                add(&["--console-socket", console]);
            }
            line.extend(["--bundle".into(), bundle.into()]);
        }
        Verb::Start => add(&["start"]),
        Verb::Kill(_) => add(&["kill"]),
        Verb::Update(resources) => add(&["update", "--resources", resources]),
        Verb::Exec {
            process,
            pid_file,
            console,
            cgroup,
        } => {
            add(&["exec", "--detach", "--process", process, "--pid-file", pid_file]);
            if let Some(console) = console {
                add(&["--console-socket", console]);
            }
            if let Some(cgroup) = cgroup {
                add(&["--cgroup", cgroup]);
            }
        }
        Verb::Delete => add(&["delete", "--force"]),
    }
    line.push(container.into());
    if let Verb::Kill(signal) = verb {
        line.push(signal.to_string().into());
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(args: &[&str], verb: &Verb<'_>) -> String {
        let program = RuntimeProgram {
            name: "other".into(),
            path: "/bin/other".into(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            timeout_ms: 1,
            exec_cgroup: Default::default(),
        };
        let places = Places {
            root: Path::new("/s/runtime"),
            log: "log-7",
            systemd: args.contains(&"systemd"),
        };
        let words = arguments(&program, &places, verb, "c1");
        let words: Vec<_> = words.iter().map(|word| word.to_str().unwrap()).collect();
        words.join(" ")
    }

    #[test]
    fn each_verb_is_spelt_as_runc_has_it() {
        let global = "--root /s/runtime --log log-7 --log-format json";
        let create = |console| Verb::Create {
            bundle: Path::new("/s/b"),
            pid_file: "pid",
            console,
        };
        let exec = |console, cgroup| Verb::Exec {
            process: "p.json",
            pid_file: "p.pid",
            console,
            cgroup,
        };
        let table = [
            (create(None), "create --pid-file pid --bundle /s/b c1"),
            (
                create(Some("tty")),
                "create --pid-file pid --console-socket tty --bundle /s/b c1",
            ),
            (Verb::Start, "start c1"),
            (Verb::Kill(15), "kill c1 15"),
            (Verb::Update("r.json"), "update --resources r.json c1"),
            (
                exec(None, None),
                "exec --detach --process p.json --pid-file p.pid c1",
            ),
            (
                exec(Some("tty"), Some("freezer:e")),
                "exec --detach --process p.json --pid-file p.pid --console-socket tty --cgroup freezer:e c1",
            ),
            (Verb::Delete, "delete --force c1"),
        ];
        for (verb, expected) in table {
            assert_eq!(line(&[], &verb), format!("{global} {expected}"));
            assert_eq!(
                line(&["--debug", "--x=1"], &verb),
                format!("--debug --x=1 {global} {expected}")
            );
            assert_eq!(
                line(&["systemd"], &verb),
                format!("systemd {global} --systemd-cgroup {expected}")
            );
        }
    }
}

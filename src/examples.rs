//! What `--help` and the manual pages show besides options: the commands in groups, and examples of each.

use clap::Command;

/// The commands as somebody who looks for one has them in mind.
const GROUPS: [(&str, &[&str]); 6] = [
    ("Run pods", &["run", "apply", "stop", "restart", "rm"]),
    (
        "See what they do",
        &[
            "ps", "inspect", "status", "logs", "events", "stats", "top", "wait",
        ],
    ),
    (
        "Reach into them",
        &["exec", "attach", "debug", "cp", "port-forward"],
    ),
    ("Manifests", &["validate", "explain"]),
    ("Images and volumes", &["image", "volume"]),
    ("The node", &["daemon", "cri", "completion", "man"]),
];

/// A command's path and its examples, each a comment and a line to type.
const EXAMPLES: &[(&str, &[(&str, &str)])] = &[
    (
        "run",
        &[
            ("Run a pod until it ends or Ctrl-C ends it", "berth run pod.yaml"),
            ("Hand it to the daemon and return", "berth run --detach pod.yaml"),
            ("A manifest that another program writes", "berth run -"),
            ("Its last status, when it has ended", "berth run -o yaml job.yaml"),
        ],
    ),
    (
        "apply",
        &[
            (
                "Make a running pod what the file says now",
                "berth apply -f web.yaml",
            ),
            (
                "Only say what would change, and whether that makes it anew",
                "berth apply --dry-run web.yaml",
            ),
        ],
    ),
    (
        "validate",
        &[("Say what `berth run` would refuse", "berth validate pod.yaml")],
    ),
    (
        "explain",
        &[
            (
                "What a field is for, its default, its values",
                "berth explain pod.spec.containers.livenessProbe",
            ),
            (
                "All fields below one",
                "berth explain --recursive pod.spec.volumes",
            ),
            ("What can be said of a claim", "berth explain pvc.spec"),
        ],
    ),
    (
        "cri",
        &[("Serve kubelets and crictl on the usual socket", "berth cri")],
    ),
    (
        "cri config",
        &[("What a file of settings can have", "berth cri config default")],
    ),
    (
        "cri config default",
        &[("What a file of settings can have", "berth cri config default")],
    ),
    (
        "image",
        &[
            ("What there is", "berth image ls"),
            ("Fetch one before a pod needs it", "berth image pull nginx"),
            ("Make room", "berth image prune --all --older-than 72h"),
        ],
    ),
    (
        "image pull",
        &[
            ("From Docker Hub", "berth image pull nginx"),
            (
                "From another registry, by digest or tag",
                "berth image pull localhost:5000/team/app:1.2",
            ),
        ],
    ),
    (
        "image import",
        &[("What `docker save` wrote", "berth image import app.tar")],
    ),
    (
        "image ls",
        &[
            ("All images", "berth image ls"),
            ("What scripts want", "berth image ls -o jsonpath={.items[*].name}"),
        ],
    ),
    (
        "image inspect",
        &[
            ("All that is known of it", "berth image inspect nginx"),
            (
                "One part of that",
                "berth image inspect nginx -o jsonpath={.config.config.Entrypoint}",
            ),
        ],
    ),
    (
        "image prune",
        &[
            (
                "Images without a name that no container uses",
                "berth image prune",
            ),
            (
                "All that no container used for three days",
                "berth image prune --all --older-than 72h",
            ),
        ],
    ),
    (
        "image rm",
        &[(
            "Remove a name, and the image with its last one",
            "berth image rm nginx:1.25",
        )],
    ),
    (
        "volume",
        &[
            ("Where pods left their files", "berth volume ls"),
            ("Remove a claim with its files", "berth volume rm data"),
        ],
    ),
    ("volume ls", &[("Where pods left their files", "berth volume ls")]),
    (
        "volume rm",
        &[("Remove a claim with its files", "berth volume rm data")],
    ),
    (
        "ps",
        &[
            ("Pods that run or are to run", "berth ps"),
            ("Those that have ended, too", "berth ps --all"),
            (
                "Those of one namespace with one label, and their images",
                "berth ps -n shop -l app=web -o wide",
            ),
            ("Names to be typed again", "berth ps -q"),
        ],
    ),
    (
        "inspect",
        &[
            ("All of it", "berth inspect web"),
            ("Its address", "berth inspect web -o jsonpath={.status.podIP}"),
        ],
    ),
    (
        "status",
        &[("As `kubectl get pod -o yaml` shows it", "berth status web")],
    ),
    (
        "wait",
        &[
            (
                "Until it is ready, for a minute at most",
                "berth wait web --for=condition=Ready --timeout=1m",
            ),
            (
                "Until it has ended well",
                "berth wait job --for=jsonpath={.status.phase}=Succeeded --timeout=10m",
            ),
            ("Until nothing of it is left", "berth wait web --for=delete"),
        ],
    ),
    (
        "stats",
        &[
            ("All pods, until Ctrl-C", "berth stats"),
            ("Once", "berth stats --no-stream web"),
        ],
    ),
    ("top", &[("Processes, as the host numbers them", "berth top web")]),
    (
        "logs",
        &[
            ("Go on with what comes", "berth logs -f web"),
            (
                "All containers, each line with its origin",
                "berth logs --all-containers --prefix web",
            ),
            (
                "The container before the last restart",
                "berth logs web -c main --previous",
            ),
            (
                "The last lines of the last minutes",
                "berth logs --since 5m --tail 20 --timestamps web",
            ),
            (
                "Of all pods with a label, and on",
                "berth logs -l app=web -f --prefix --max-log-requests 20",
            ),
        ],
    ),
    (
        "events",
        &[
            (
                "What happened to all pods, and goes on to happen",
                "berth events -f",
            ),
            ("To one", "berth events web"),
        ],
    ),
    (
        "exec",
        &[
            ("A shell", "berth exec -it web -- sh"),
            (
                "In one of several containers",
                "berth exec web -c main -- cat /etc/hosts",
            ),
            ("With input", "berth exec -i web -- tee /tmp/file"),
        ],
    ),
    (
        "attach",
        &[
            ("See what it writes from now on", "berth attach web"),
            ("Type to it", "berth attach -it web -c main"),
        ],
    ),
    (
        "debug",
        &[
            (
                "A shell that sees the processes of container main",
                "berth debug -it web --target main --image busybox -- sh",
            ),
            (
                "A command that ends the debugging with its own code",
                "berth debug --attach web --image busybox -- nslookup db",
            ),
            (
                "May change the pod's network",
                "berth debug -it web --profile netadmin --image alpine",
            ),
        ],
    ),
    (
        "cp",
        &[
            ("Out of a container", "berth cp web:/etc/nginx ./nginx"),
            ("Into one", "berth cp page.html shop/web:/www/ -c main"),
        ],
    ),
    (
        "port-forward",
        &[
            (
                "Port 8080 here to the port that is named http there",
                "berth port-forward web 8080:http",
            ),
            (
                "Any free port, for every machine",
                "berth port-forward --address 0.0.0.0 web :80",
            ),
        ],
    ),
    (
        "restart",
        &[
            ("All containers that run", "berth restart web"),
            ("One of them", "berth restart web main"),
        ],
    ),
    (
        "stop",
        &[
            ("In its grace period", "berth stop web"),
            (
                "In ten seconds, and all of them",
                "berth stop --all --grace-period 10",
            ),
        ],
    ),
    (
        "rm",
        &[
            ("One that has ended", "berth rm job"),
            ("All that have ended", "berth rm --all"),
            ("One that runs", "berth rm --force web"),
        ],
    ),
    (
        "daemon",
        &[
            ("As a service does", "berth daemon"),
            (
                "For this boot, until its last pod is gone",
                "berth daemon --background",
            ),
        ],
    ),
    (
        "completion",
        &[
            ("For this shell", "source <(berth completion bash)"),
            (
                "For every fish",
                "berth completion fish > ~/.config/fish/completions/berth.fish",
            ),
        ],
    ),
    ("man", &[("For everybody", "berth man /usr/local/share/man/man1")]),
];

/// A command line with its groups and examples.
pub(crate) fn with_examples(command: Command) -> Command {
    let groups = groups(&command);
    let command = command.help_template(format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{groups}Options:\n{{options}}{{after-help}}"
    ));
    let command = command
        .subcommand_help_heading("Commands")
        .after_help("`berth COMMAND --help` tells more of a command, with examples; `berth explain pod.spec` of manifests.");
    EXAMPLES.iter().fold(command, |command, (path, examples)| {
        let path: Vec<&str> = path.split(' ').collect();
        at(command, &path, &text(examples))
    })
}

fn at(command: Command, path: &[&str], text: &str) -> Command {
    match path {
        [] => command.after_help(text.to_owned()),
        [first, rest @ ..] if command.find_subcommand(first).is_some() => {
            command.mut_subcommand(first, |inner| at(inner, rest, text))
        }
        _ => command,
    }
}

fn text(examples: &[(&str, &str)]) -> String {
    let mut text = "Examples:".to_owned();
    for (why, line) in examples {
        text.push_str(&format!("\n  # {why}\n  {line}\n"));
    }
    text.truncate(text.trim_end().len());
    text
}

fn groups(command: &Command) -> String {
    let mut text = String::new();
    for (heading, names) in GROUPS {
        text.push_str(&format!("{heading}:\n"));
        for name in names {
            let about = command.find_subcommand(name).and_then(Command::get_about);
            let about = about.map_or_else(String::new, ToString::to_string);
            // The first clause says what it is for; the rest is in its own help.
            let short = about.split([';', ':']).next().unwrap_or_default();
            text.push_str(&format!("  {name:<14}{short}\n"));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::Cli;

    fn all(command: &Command, path: &str, found: &mut Vec<String>) {
        let inner = command.get_subcommands().filter(|inner| !inner.is_hide_set());
        let inner: Vec<&Command> = inner.filter(|inner| inner.get_name() != "help").collect();
        if !path.is_empty() {
            found.push(path.to_owned());
        }
        for one in inner {
            let path = format!("{path} {}", one.get_name());
            all(one, path.trim_start(), found);
        }
    }

    #[test]
    fn every_command_has_a_group_and_examples_that_it_understands() {
        let command = Cli::command();
        let mut commands = Vec::new();
        all(&command, "", &mut commands);
        let mut shown: Vec<&str> = EXAMPLES.iter().map(|(path, _)| *path).collect();
        shown.sort_unstable();
        commands.sort_unstable();
        assert_eq!(shown, commands);
        for (path, examples) in EXAMPLES {
            for (_, line) in *examples {
                let line = line
                    .strip_prefix("source <(")
                    .map_or(*line, |line| line.trim_end_matches(')'));
                let line = line.split(" > ").next().unwrap();
                assert!(line.starts_with(&format!("berth {path}")), "{line}");
                let words = line.split_whitespace();
                Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}"));
            }
        }
        let mut grouped: Vec<&str> = GROUPS
            .iter()
            .flat_map(|(_, names)| names.iter().copied())
            .collect();
        let visible = command.get_subcommands().filter(|inner| !inner.is_hide_set());
        let mut visible: Vec<&str> = visible.map(Command::get_name).collect();
        grouped.sort_unstable();
        visible.sort_unstable();
        assert_eq!(grouped, visible);
    }
}

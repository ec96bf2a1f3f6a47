//! What a Tab gives in the shells themselves, those that are installed.

use std::path::Path;
use std::process::Command;

use berth_tests::{Node, Terminal, berth, container, eventually, pod};
use serde_json::json;

/// What is typed, and the line after a Tab.
const CASES: [(&str, &str); 9] = [
    ("berth port", "berth port-forward "),
    ("berth image pru", "berth image prune "),
    ("berth --root ROOT exec we", "berth --root ROOT exec web "),
    (
        "berth --root ROOT logs web -c si",
        "berth --root ROOT logs web -c side ",
    ),
    ("berth --root ROOT cp we", "berth --root ROOT cp web:"),
    ("berth ps -o jsonp", "berth ps -o jsonpath="),
    ("berth ps --output=ya", "berth ps --output=yaml "),
    ("berth run /etc/hostn", "berth run /etc/hostname "),
    ("berth exec web -- /etc/hostn", "berth exec web -- /etc/hostname "),
];

fn two_containers(node: &Node) {
    let containers = ["main", "side"].map(|name| container(name, &["sleep", "inf"], json!({})));
    let spec = json!({ "terminationGracePeriodSeconds": 0, "containers": containers });
    let file = node.file("web.yaml", &pod("web", spec));
    berth(node, &["run", "-d", &file.display().to_string()]).expect_code(0);
}

/// A shell with this program first in its path, and nobody's settings.
fn shell(node: &Node, name: &str, arguments: &[&str]) -> Command {
    let berth = node.berth([""; 0]);
    let directory = Path::new(berth.get_program()).parent().unwrap();
    let path = format!("{}:{}", directory.display(), std::env::var("PATH").unwrap());
    let mut command = Command::new(name);
    command
        .args(arguments)
        .env("PATH", path)
        .env("HOME", node.scratch())
        .env("PS1", "> ")
        .envs(berth.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .current_dir(node.scratch());
    command
}

fn is_installed(name: &str) -> bool {
    let found = Command::new(name).arg("--version").output().is_ok();
    if !found {
        eprintln!("{name} is not installed");
    }
    found
}

/// Types each line and a Tab, and looks at what the line is then: at Ctrl-X the shell writes it to a file.
fn completes(node: &Node, shell: &Command, begin: &str) {
    let root = node.root().display().to_string();
    let file = node.scratch().join("line");
    let mut terminal = Terminal::start(shell, 200, 40);
    terminal.types(&format!("{begin}; echo now it is re''ady\r"));
    terminal.shows("now it is ready");
    for (typed, expected) in CASES {
        let (typed, expected) = (typed.replace("ROOT", &root), expected.replace("ROOT", &root));
        // It may not be there.
        let _ = std::fs::remove_file(&file);
        terminal.types(&format!("{typed}\t\x18"));
        let line = eventually("the shell says what the line is", || {
            std::fs::read_to_string(&file)
                .ok()
                .filter(|line| line.ends_with('\n'))
        });
        assert_eq!(line.trim_end_matches('\n'), expected);
    }
    terminal.types("exit\r");
    terminal.wait();
}

fn end(node: Node) {
    berth(&node, &["rm", "--force", "web"]).expect_code(0);
    eventually("the daemon ends", || {
        let lock = node.daemon_lock();
        (!lock.exists()).then_some(())
    });
    node.finish();
}

#[test]
fn in_bash() {
    let node = Node::new();
    two_containers(&node);
    let show = r#"show() { echo "$READLINE_LINE" >line; READLINE_LINE=; }; bind -x '"\C-x":show'"#;
    let begin = format!("source <(berth completion bash); {show}");
    completes(&node, &shell(&node, "bash", &["--norc", "-i"]), &begin);
    end(node);
}

#[test]
fn in_zsh() {
    if !is_installed("zsh") {
        return;
    }
    let node = Node::new();
    two_containers(&node);
    let show = "show() { print -r -- \"$BUFFER\" >line; BUFFER= }; zle -N show; bindkey '^X' show";
    let begin = format!("autoload -U compinit; compinit -u -D; source <(berth completion zsh); {show}");
    completes(&node, &shell(&node, "zsh", &["-f", "-i"]), &begin);
    end(node);
}

#[test]
fn in_fish() {
    if !is_installed("fish") {
        return;
    }
    let node = Node::new();
    two_containers(&node);
    let root = node.root().display().to_string();
    for (typed, expected) in CASES {
        let (typed, expected) = (typed.replace("ROOT", &root), expected.replace("ROOT", &root));
        let script = "berth completion fish | source; complete -C \"$argv[1]\"";
        let output = shell(&node, "fish", &["--no-config", "-c", script, &typed])
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let words: Vec<&str> = said
            .lines()
            .map(|line| line.split('\t').next().unwrap())
            .collect();
        let expected = expected.trim_end().rsplit(' ').next().unwrap();
        assert_eq!(words, [expected], "{typed}");
    }
    end(node);
}

/// `make install` puts everything where shells, man(1) and systemd look for it, below the place that is asked for.
#[test]
fn what_is_installed_is_found() {
    let node = Node::new();
    let programs = node.berth([""; 0]);
    let programs = Path::new(programs.get_program()).parent().unwrap();
    let place = node.scratch().join("package");
    let made = Command::new("make")
        .args(["--no-print-directory", "-C"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap())
        .args(["install", "PREFIX=/opt/berth"])
        .arg(format!("RELEASE={}", programs.display()))
        .arg(format!("DESTDIR={}", place.display()))
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let inside = |path: &str| place.join("opt/berth").join(path);
    let version = Command::new(inside("bin/berth"))
        .arg("--version")
        .output()
        .unwrap();
    assert!(version.status.success());
    for file in [
        "bin/berth-oci",
        "share/man/man1/berth.1",
        "share/man/man1/berth-image-prune.1",
    ] {
        assert!(inside(file).is_file(), "{file}");
    }
    for (shell, script) in [
        ("bash", "share/bash-completion/completions/berth"),
        ("zsh", "share/zsh/site-functions/_berth"),
        ("fish", "share/fish/vendor_completions.d/berth.fish"),
    ] {
        let script = inside(script);
        assert!(script.is_file(), "{}", script.display());
        if is_installed(shell) {
            let read = Command::new(shell).arg("-n").arg(script).status().unwrap();
            assert!(read.success(), "{shell} does not understand its script");
        }
    }
    for unit in [
        "lib/systemd/system/berth.service",
        "lib/systemd/user/berth.service",
    ] {
        let unit = std::fs::read_to_string(inside(unit)).unwrap();
        assert!(
            unit.contains("\nExecStart=/opt/berth/bin/berth daemon\n"),
            "{unit}"
        );
    }
    node.finish();
}

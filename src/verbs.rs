//! Commands of kubectl, podman and docker that have another name here: who types one is told which.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// The words, and what does here what they do there.
const ELSEWHERE: [(&[&str], &str); 9] = [
    (
        &["get", "list", "ls"],
        "`berth ps` lists pods, and `berth status POD` prints one as `kubectl get -o yaml` does",
    ),
    (
        &["describe"],
        "`berth inspect POD` prints all that is known of a pod, and `berth events POD` what happened to it",
    ),
    (
        &["delete", "kill", "down"],
        "`berth stop POD` ends a pod and removes it, and `berth rm --force POD` kills it first",
    ),
    (
        &["create", "play", "kube", "start"],
        "`berth run FILE` runs the pods of a manifest, and `berth run --detach FILE` leaves them to the daemon",
    ),
    (
        &["edit", "patch", "set", "replace", "diff"],
        "`berth apply FILE` makes a running pod what its manifest says, and `berth apply --dry-run FILE` only says how",
    ),
    (&["images"], "`berth image ls` lists images"),
    (&["pull"], "`berth image pull IMAGE` gets an image"),
    (&["load"], "`berth image import FILE` takes an image from a file"),
    (&["rmi"], "`berth image rm IMAGE` removes an image"),
];

/// What to say of a command line that begins with such a word; `words` are those after `berth`.
pub(crate) fn instead(error: &clap::Error, words: &[String], command: &clap::Command) -> Option<String> {
    if error.kind() != ErrorKind::InvalidSubcommand || words.iter().any(|word| is_own(word, command)) {
        return None;
    }
    let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidSubcommand) else {
        return None;
    };
    let mut all = ELSEWHERE.iter();
    let (_, instead) = all.find(|(names, _)| names.contains(&word.as_str()))?;
    Some(format!("There is no command {word} here: {instead}."))
}

fn is_own(word: &str, command: &clap::Command) -> bool {
    command.find_subcommand(word).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(line: &str) -> Option<String> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let error = crate::command().try_get_matches_from(["berth".to_owned()].iter().chain(&words));
        instead(&error.unwrap_err(), &words, &crate::command())
    }

    #[test]
    fn words_of_other_tools_lead_to_those_here() {
        for (line, leads_to) in [
            ("get pods -A", "`berth ps`"),
            ("--root /x describe pod web", "`berth inspect POD`"),
            ("delete pod web", "`berth stop POD`"),
            ("play kube x.yaml", "`berth run FILE`"),
            ("images", "`berth image ls`"),
        ] {
            let said = said(line).unwrap_or_default();
            assert!(said.contains(leads_to), "{line}: {said}");
        }
        // What clap says of a misspelt word, a missing one, and one of a command's own.
        for line in ["pss", "image get", "ps --get", "stop"] {
            assert_eq!(said(line), None, "{line}");
        }
    }

    /// They would never be asked about.
    #[test]
    fn none_of_them_is_a_command() {
        for (names, _) in ELSEWHERE {
            for name in names {
                assert!(!is_own(name, &crate::command()), "{name}");
            }
        }
    }
}

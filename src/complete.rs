//! What could come next in a command line: the scripts of `berth completion` ask at each Tab.
//!
//! The command line itself is the source: subcommands, flags and their values are those that are parsed, and the names of
//! pods, containers, images and fields are looked up when they are asked for.

use std::process::ExitCode;

use berth_images::StoreOptions;
use berth_kubelet::claims::ClaimStore;
use berth_kubelet::manifest;
use berth_kubelet::standalone::Listing;
use clap::{Arg, Args, Command};

use crate::pods::places;
use crate::root::Root;

/// Say what could come next in a command line
#[derive(Args, Debug)]
pub(crate) struct CompleteArgs {
    /// The words after `berth`; the last one, which may be empty, is to be completed
    #[arg(last = true)]
    words: Vec<String>,
}

/// Prints a line for each candidate: the word and, after a tab, what it is. Nothing where files are meant, or nothing is
/// known.
pub(crate) fn complete(args: &CompleteArgs, root: &Root, mut command: Command) -> ExitCode {
    command.build();
    let (current, before) = match args.words.split_last() {
        Some((current, before)) => (current.as_str(), before),
        None => ("", &[][..]),
    };
    let Some(place) = Place::after(&command, before) else {
        return ExitCode::SUCCESS;
    };
    // That of the line that is being typed counts, not this program's own.
    let root = place
        .root
        .and_then(|root| Root::new(Some(root.as_ref())).ok())
        .unwrap_or_else(|| root.clone());
    for (word, about) in place.candidates(current, &root) {
        if word.starts_with(current) {
            println!("{word}\t{about}");
        }
    }
    ExitCode::SUCCESS
}

/// Where in a command line a word is to come.
struct Place<'a> {
    command: &'a Command,
    /// The option whose value it is.
    option: Option<&'a Arg>,
    /// What was given already that is no option.
    given: Vec<&'a str>,
    root: Option<&'a str>,
}

type Candidates = Vec<(String, String)>;

impl<'a> Place<'a> {
    /// `None` behind a `--`, where what comes is no business of berth's.
    fn after(command: &'a Command, words: &'a [String]) -> Option<Self> {
        let mut place = Place {
            command,
            option: None,
            given: Vec::new(),
            root: None,
        };
        for word in words {
            if let Some(option) = place.option.take() {
                if option.get_id() == "root" {
                    place.root = Some(word);
                }
            } else if word == "--" {
                return None;
            } else if let Some(long) = word.strip_prefix("--") {
                let option = place.long(long);
                place.option = option.filter(|option| takes_value(option) && !long.contains('='));
            } else if let Some(letters) = word.strip_prefix('-').filter(|letters| !letters.is_empty()) {
                place.option = place.short(letters);
            } else if let Some(inner) = place.command.find_subcommand(word) {
                (place.command, place.given) = (inner, Vec::new());
            } else {
                place.given.push(word);
            }
        }
        Some(place)
    }

    fn long(&self, text: &str) -> Option<&'a Arg> {
        let name = text.split('=').next().unwrap_or(text);
        let mut all = self.command.get_arguments();
        all.find(|arg| {
            let aliases = arg.get_visible_aliases().unwrap_or_default();
            arg.get_long() == Some(name) || aliases.contains(&name)
        })
    }

    /// The last of several letters may have its value in the next word.
    fn short(&self, letters: &str) -> Option<&'a Arg> {
        let last = letters.chars().last();
        let mut all = self.command.get_arguments();
        all.find(|arg| arg.get_short() == last && takes_value(arg))
    }

    fn candidates(&self, current: &str, root: &Root) -> Candidates {
        if let Some(option) = self.option {
            return self.values(option, root);
        }
        if let Some((name, _)) = current.split_once('=').filter(|_| current.starts_with("--")) {
            let option = self.long(name.trim_start_matches('-'));
            let values = option.map(|option| self.values(option, root)).unwrap_or_default();
            return values
                .into_iter()
                .map(|(value, about)| (format!("{name}={value}"), about))
                .collect();
        }
        if current.starts_with('-') {
            let options = self.command.get_arguments().filter(|arg| !arg.is_hide_set());
            return options
                .filter_map(|arg| Some((format!("--{}", arg.get_long()?), first_line(arg.get_help()))))
                .collect();
        }
        if self.command.has_subcommands() {
            let inner = self
                .command
                .get_subcommands()
                .filter(|inner| !inner.is_hide_set());
            return inner
                .map(|inner| (inner.get_name().to_owned(), first_line(inner.get_about())))
                .collect();
        }
        let mut positionals = self.command.get_positionals().collect::<Vec<_>>();
        positionals.sort_by_key(|arg| arg.get_index());
        // The last one may come again and again.
        let place = self.given.len().min(positionals.len().saturating_sub(1));
        match positionals.get(place) {
            Some(arg) if self.given.len() < positionals.len() || several(arg) => {
                let value = arg.get_value_names().and_then(<[_]>::first);
                match value.map(|name| name.as_str()) {
                    Some("FIELD") => fields(current),
                    _ => self.values(arg, root),
                }
            }
            _ => Vec::new(),
        }
    }

    /// What a value can be, by the name that the help gives it.
    fn values(&self, arg: &Arg, root: &Root) -> Candidates {
        let fixed: Candidates = arg
            .get_possible_values()
            .iter()
            .map(|value| (value.get_name().to_owned(), first_line(value.get_help())))
            .collect();
        if !fixed.is_empty() {
            return fixed;
        }
        let names = |all: Vec<String>| all.into_iter().map(|name| (name, String::new())).collect();
        let value = arg.get_value_names().and_then(<[_]>::first);
        match (arg.get_id().as_str(), value.map(|name| name.as_str())) {
            ("output", _) => names(
                [
                    "table",
                    "wide",
                    "name",
                    "json",
                    "yaml",
                    "jsonpath=",
                    "custom-columns=",
                ]
                .map(str::to_owned)
                .to_vec(),
            ),
            ("until", _) => names(
                [
                    "condition=Ready",
                    "condition=ContainersReady",
                    "delete",
                    "create",
                    "jsonpath=",
                ]
                .map(str::to_owned)
                .to_vec(),
            ),
            ("profile", _) => names(
                ["general", "baseline", "restricted", "netadmin", "sysadmin"]
                    .map(str::to_owned)
                    .to_vec(),
            ),
            ("namespace", _) => {
                let mut all: Vec<String> = self
                    .pods(root)
                    .into_iter()
                    .map(|(namespace, _)| namespace)
                    .collect();
                all.dedup();
                names(all)
            }
            (_, Some("POD")) | ("from" | "to", _) => {
                let given = |name: &String| self.given.contains(&name.as_str());
                let all = self
                    .pods(root)
                    .into_iter()
                    .map(|(namespace, name)| match namespace.as_str() {
                        "default" => name,
                        _ => format!("{namespace}/{name}"),
                    });
                let end = if value.is_none_or(|name| name == "POD") {
                    ""
                } else {
                    ":"
                };
                names(
                    all.filter(|name| !given(name))
                        .map(|name| format!("{name}{end}"))
                        .collect(),
                )
            }
            ("container" | "containers" | "container_name" | "target", _) => {
                let pod = self.given.first().and_then(|pod| places(root).pod(pod).ok());
                let spec = pod.and_then(|pod| pod.spec).unwrap_or_default();
                let inits = spec.init_containers.unwrap_or_default();
                let added = spec.ephemeral_containers.unwrap_or_default();
                let all = spec
                    .containers
                    .into_iter()
                    .chain(inits)
                    .map(|container| container.name);
                names(
                    all.chain(added.into_iter().map(|container| container.name))
                        .collect(),
                )
            }
            (_, Some("IMAGE")) if self.command.get_name() != "pull" => {
                let store = root.image_store(StoreOptions::default()).ok();
                let all = store.and_then(|store| store.list().ok()).unwrap_or_default();
                names(all.into_iter().flat_map(|image| image.names).collect())
            }
            (_, Some("CLAIM")) => {
                let all = ClaimStore::new(&root.kubelet).list().unwrap_or_default();
                names(all.iter().map(|claim| claim.name().to_owned()).collect())
            }
            _ => Vec::new(),
        }
    }

    /// Namespaces and names, in their order.
    fn pods(&self, root: &Root) -> Vec<(String, String)> {
        let listing = Listing {
            all: true,
            ..Listing::default()
        };
        // Whose pods can't be read has none to offer.
        let pods = places(root).list(&listing).unwrap_or_default();
        pods.into_iter()
            .map(|pod| {
                let namespace = pod.metadata.namespace.unwrap_or_else(|| "default".to_owned());
                (namespace, pod.metadata.name.unwrap_or_default())
            })
            .collect()
    }
}

/// The fields that a path such as `pod.spec.con` can go on with.
fn fields(current: &str) -> Candidates {
    let Some((above, _)) = current.rsplit_once('.') else {
        let kinds = [
            "pod",
            "configmap",
            "secret",
            "persistentvolumeclaim",
            "persistentvolume",
        ];
        return kinds.map(|kind| (kind.to_owned(), String::new())).to_vec();
    };
    let below = manifest::fields_below(above).into_iter();
    below
        .map(|(name, about)| (format!("{above}.{name}"), about.to_owned()))
        .collect()
}

fn takes_value(arg: &Arg) -> bool {
    arg.get_action().takes_values()
}

fn several(arg: &Arg) -> bool {
    matches!(arg.get_action(), clap::ArgAction::Append)
}

fn first_line(text: Option<&impl ToString>) -> String {
    let text = text.map(ToString::to_string).unwrap_or_default();
    text.lines().next().unwrap_or_default().to_owned()
}

//! Runtime handlers: what runs a pod's containers. `berth` is built in; others are OCI runtimes that the configuration
//! names. A pod keeps the handler that it began with, as it was configured then.

mod annotations;
mod leftovers;
mod probe;
mod refusals;

use std::collections::{BTreeMap, HashMap};
use std::env;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use berth_shim::protocol::RuntimeProgram;
use nix::unistd::{AccessFlags, access};
use serde::{Deserialize, Serialize};

use super::{Inner, LocalEngine, lock};
use crate::engine::EngineError;
use crate::types::{PodSandboxConfig, RuntimeHandler};

pub(super) use annotations::passed;
pub(super) use leftovers::remove as remove_leftovers;
use probe::{Features, Stamp};
pub(super) use refusals::{check_container, fit_spec};

/// The handler that is built in.
pub const BUILT_IN: &str = "berth";

/// An OCI runtime that pods can name: a program with the command line of runc, which crun, youki and others share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandlerConfig {
    /// The program; a name alone is looked up in `PATH`.
    pub program: PathBuf,
    /// What comes first on each command line.
    pub args: Vec<String>,
    /// How long it may take to do what it is asked; it is killed then.
    pub timeout: Duration,
    /// Which annotations of pods it is told: names, in which `*` is anything but `/`, `?` one character and `[a-z]` one of these.
    pub pod_annotations: Vec<String>,
    /// Which annotations of containers it is told.
    pub container_annotations: Vec<String>,
    /// Privileged containers get no devices of the host.
    pub privileged_without_host_devices: bool,
    /// They may make and use any device all the same.
    pub privileged_without_host_devices_all_devices_allowed: bool,
}

impl HandlerConfig {
    /// A program without anything special.
    #[must_use]
    pub fn new(program: PathBuf) -> Self {
        Self {
            program,
            args: Vec::new(),
            timeout: Duration::from_secs(60),
            pod_annotations: Vec::new(),
            container_annotations: Vec::new(),
            privileged_without_host_devices: false,
            privileged_without_host_devices_all_devices_allowed: false,
        }
    }

    /// What makes no sense, in a sentence.
    ///
    /// # Errors
    /// A pattern is not one, the program has no name, or no time.
    pub fn check(&self) -> Result<(), String> {
        if self.program.as_os_str().is_empty() {
            return Err("the path of its program is missing".to_owned());
        }
        if self.timeout.is_zero() {
            return Err("its timeout is at least 1 ms".to_owned());
        }
        if self.privileged_without_host_devices_all_devices_allowed && !self.privileged_without_host_devices {
            return Err(
                "privileged_without_host_devices_all_devices_allowed needs privileged_without_host_devices"
                    .to_owned(),
            );
        }
        let mut patterns = self.pod_annotations.iter().chain(&self.container_annotations);
        patterns.try_for_each(|pattern| annotations::check(pattern))
    }
}

/// The handler of a pod, as it was when the pod began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Handler {
    /// As the configuration calls it.
    pub(super) name: String,
    /// Its program is an absolute path.
    pub(super) config: HandlerConfig,
    features: Features,
}

impl Handler {
    /// What a shim is told.
    pub(super) fn program(&self) -> RuntimeProgram {
        RuntimeProgram {
            name: self.name.clone(),
            path: self.config.program.clone(),
            args: self.config.args.clone(),
            timeout_ms: u64::try_from(self.config.timeout.as_millis()).unwrap_or(u64::MAX),
            exec_cgroup: self.features.exec_cgroup,
        }
    }
}

/// What is known of programs that were asked for their features.
#[derive(Default)]
pub(super) struct Known(Mutex<HashMap<PathBuf, (Stamp, Features)>>);

/// The handler that a pod asks for; `None` is the built-in one.
pub(super) async fn choose(inner: &Inner, pod: &PodSandboxConfig) -> Result<Option<Handler>, EngineError> {
    let config = &inner.config;
    let name = match pod.runtime_handler.as_str() {
        "" => config.default_handler.as_str(),
        name => name,
    };
    if name == BUILT_IN {
        return Ok(None);
    }
    let Some(wanted) = config.handlers.get(name) else {
        return Err(EngineError::InvalidArgument(format!(
            "There is no runtime handler {name:?} for pod {}/{}: there is {}; others are configured as [runtimes.NAME].",
            pod.namespace,
            pod.name,
            names(&config.handlers)
        )));
    };
    let Some(program) = find(&wanted.program) else {
        return Err(EngineError::FailedPrecondition(format!(
            "Pod {}/{} can't be run by the runtime handler {name}: {}.",
            pod.namespace,
            pod.name,
            missing(&wanted.program)
        )));
    };
    let handler = with_features(inner, name, wanted, program).await;
    refusals::check_pod(&handler, pod)?;
    Ok(Some(handler))
}

/// All handlers with what they can do here; the one without a name is the default. One whose program is missing is none.
pub(super) async fn list(inner: &Inner, built_in: RuntimeHandler) -> Vec<RuntimeHandler> {
    let named = |name: &str, like: &RuntimeHandler| RuntimeHandler {
        name: name.to_owned(),
        ..like.clone()
    };
    let mut all = vec![named(BUILT_IN, &built_in)];
    for (name, config) in &inner.config.handlers {
        if let Some(program) = find(&config.program) {
            let features = with_features(inner, name, config, program).await.features;
            all.push(RuntimeHandler {
                name: name.clone(),
                recursive_read_only_mounts: features.recursive_read_only
                    && built_in.recursive_read_only_mounts,
                user_namespaces: features.has_user_namespaces() && built_in.user_namespaces,
            });
        }
    }
    let default = all
        .iter()
        .find(|handler| handler.name == inner.config.default_handler);
    if let Some(default) = default.map(|handler| named("", handler)) {
        all.insert(0, default);
    }
    all
}

/// Why no pod can be run by default, if none can.
pub(super) fn problem(config: &super::EngineConfig) -> Option<String> {
    let handler = config.handlers.get(&config.default_handler)?;
    let is_missing = find(&handler.program).is_none();
    is_missing.then(|| {
        format!(
            "The default runtime handler {} can't be used: {}.",
            config.default_handler,
            missing(&handler.program)
        )
    })
}

impl LocalEngine {
    /// Sentences for the person who runs the node: which runtime handlers can't be used, and why. Pods that name one are
    /// refused, others go on.
    pub fn handler_advice(&self) -> Vec<String> {
        let handlers = self.inner.config.handlers.iter();
        let unusable = handlers.filter(|(_, config)| find(&config.program).is_none());
        unusable
            .map(|(name, config)| {
                format!(
                    "The runtime handler {name} can't be used: {}.",
                    missing(&config.program)
                )
            })
            .collect()
    }
}

async fn with_features(inner: &Inner, name: &str, config: &HandlerConfig, program: PathBuf) -> Handler {
    let stamp = Stamp::of(&program);
    let known = lock(&inner.known_handlers.0).get(&program).cloned();
    let features = match known {
        Some((of, features)) if of == stamp => features,
        _ => {
            let features = probe::ask(&program, &config.args).await;
            let found = (stamp, features.clone());
            lock(&inner.known_handlers.0).insert(program.clone(), found);
            features
        }
    };
    Handler {
        name: name.to_owned(),
        config: HandlerConfig {
            program,
            ..config.clone()
        },
        features,
    }
}

fn names(handlers: &BTreeMap<String, HandlerConfig>) -> String {
    let others = handlers.keys().map(String::as_str);
    let all: Vec<&str> = std::iter::once(BUILT_IN).chain(others).collect();
    all.join(", ")
}

/// Where a program is, if it can be run.
fn find(program: &Path) -> Option<PathBuf> {
    let runs = |path: &PathBuf| path.is_file() && access(path, AccessFlags::X_OK).is_ok();
    if program.is_absolute() {
        return Some(program.to_owned()).filter(runs);
    }
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(program))
        .find(runs)
}

fn missing(program: &Path) -> String {
    let program_name = program.display();
    if program.is_absolute() {
        format!("its program {program_name} is missing, or can't be executed")
    } else {
        format!("its program {program_name} is not in PATH")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_by_path_or_name() {
        assert_eq!(find(Path::new("/bin/sh")), Some("/bin/sh".into()));
        assert!(find(Path::new("sh")).is_some_and(|path| path.is_absolute()));
        for none in ["/no/such/runtime", "no-such-runtime", "/etc", "/etc/passwd", ""] {
            assert_eq!(find(Path::new(none)), None, "{none}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let good = || HandlerConfig::new("runc".into());
        assert_eq!(good().check(), Ok(()));
        let table = [
            (HandlerConfig::new(PathBuf::new()), "path"),
            (
                HandlerConfig {
                    timeout: Duration::ZERO,
                    ..good()
                },
                "timeout",
            ),
            (
                HandlerConfig {
                    pod_annotations: vec!["a[".into()],
                    ..good()
                },
                "a[",
            ),
            (
                HandlerConfig {
                    privileged_without_host_devices_all_devices_allowed: true,
                    ..good()
                },
                "needs privileged_without_host_devices",
            ),
        ];
        for (config, named) in table {
            let error = config.check().unwrap_err();
            assert!(error.contains(named), "{error}");
        }
    }
}

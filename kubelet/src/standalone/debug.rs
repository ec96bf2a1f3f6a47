//! `berth debug`: an ephemeral container in a pod that runs.

use std::str::FromStr;

use k8s_openapi::api::core::v1::{
    Capabilities, ContainerState, EnvVar, EphemeralContainer, Pod, SeccompProfile, SecurityContext,
};

use super::inspect::{InspectError, Places};
use crate::defaults::TERMINATION_MESSAGE_PATH;
use crate::validation::validate_pod;
use crate::{spec, status};

/// What an ephemeral container may do, in kubectl's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DebugProfile {
    /// Look at other processes (CAP_SYS_PTRACE).
    #[default]
    General,
    /// What any container may.
    Baseline,
    /// Nothing, as nobody in particular.
    Restricted,
    /// Change the pod's network.
    Netadmin,
    /// Everything.
    Sysadmin,
}

impl FromStr for DebugProfile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "general" => Ok(Self::General),
            "baseline" => Ok(Self::Baseline),
            "restricted" => Ok(Self::Restricted),
            "netadmin" => Ok(Self::Netadmin),
            "sysadmin" => Ok(Self::Sysadmin),
            _ => Err("it is one of general, baseline, restricted, netadmin and sysadmin".to_owned()),
        }
    }
}

impl DebugProfile {
    /// The security context of a container with this profile.
    pub fn security_context(self) -> Option<SecurityContext> {
        let adding = |names: &[&str]| SecurityContext {
            capabilities: Some(Capabilities {
                add: Some(names.iter().map(|&name| name.to_owned()).collect()),
                drop: None,
            }),
            ..SecurityContext::default()
        };
        match self {
            Self::General => Some(adding(&["SYS_PTRACE"])),
            Self::Baseline => None,
            Self::Netadmin => Some(adding(&["NET_ADMIN", "NET_RAW"])),
            Self::Sysadmin => Some(SecurityContext {
                privileged: Some(true),
                ..SecurityContext::default()
            }),
            Self::Restricted => Some(SecurityContext {
                run_as_non_root: Some(true),
                allow_privilege_escalation: Some(false),
                capabilities: Some(Capabilities {
                    add: None,
                    drop: Some(vec!["ALL".to_owned()]),
                }),
                seccomp_profile: Some(SeccompProfile {
                    type_: "RuntimeDefault".to_owned(),
                    localhost_profile: None,
                }),
                ..SecurityContext::default()
            }),
        }
    }
}

/// An ephemeral container that somebody asks for.
#[derive(Clone, Debug)]
pub struct DebugContainer {
    /// Its name.
    pub name: String,
    /// Its image.
    pub image: String,
    /// `Always`, `IfNotPresent` or `Never`.
    pub image_pull_policy: String,
    /// Its command, or arguments; none for those of the image.
    pub words: Vec<String>,
    /// They are arguments.
    pub arguments_only: bool,
    /// Environment variables.
    pub env: Vec<(String, String)>,
    /// What it may do.
    pub profile: DebugProfile,
    /// It has an input.
    pub stdin: bool,
    /// It has a terminal.
    pub tty: bool,
    /// The container whose processes it is to see.
    pub target: Option<String>,
}

impl DebugContainer {
    /// As a pod has it.
    pub(super) fn ephemeral(self) -> EphemeralContainer {
        let words = (!self.words.is_empty()).then_some(self.words);
        let (command, args) = if self.arguments_only {
            (None, words)
        } else {
            (words, None)
        };
        let variable = |(name, value)| EnvVar {
            name,
            value: Some(value),
            value_from: None,
        };
        EphemeralContainer {
            name: self.name,
            image: Some(self.image),
            image_pull_policy: Some(self.image_pull_policy),
            command,
            args,
            env: (!self.env.is_empty()).then(|| self.env.into_iter().map(variable).collect()),
            security_context: self.profile.security_context(),
            stdin: Some(self.stdin),
            // What was typed ends when whoever typed it leaves.
            stdin_once: Some(self.stdin),
            tty: Some(self.tty),
            target_container_name: self.target,
            termination_message_path: Some(TERMINATION_MESSAGE_PATH.to_owned()),
            termination_message_policy: Some("File".to_owned()),
            ..EphemeralContainer::default()
        }
    }
}

/// The pod with one more ephemeral container.
///
/// # Errors
/// The pod can't have this one: a sentence.
pub(super) fn with(pod: &Pod, container: EphemeralContainer) -> Result<Pod, String> {
    let name = container.name.as_str();
    if spec::container(pod, name).is_some() || spec::is_ephemeral(pod, name) {
        return Err(format!(
            "The pod has a container {name} already; name another with --container."
        ));
    }
    if let Some(target) = container.target_container_name.as_deref()
        && spec::container(pod, target).is_none()
    {
        return Err(format!(
            "The pod has no container {target} whose processes could be seen."
        ));
    }
    let mut with = pod.clone();
    if let Some(spec) = &mut with.spec {
        spec.ephemeral_containers.get_or_insert_default().push(container);
    }
    // It has to keep to what any container of this pod has to.
    let mut alone = with.clone();
    let last = spec::ephemeral_containers(&with).pop();
    if let (Some(spec), Some((mut container, _))) = (&mut alone.spec, last) {
        container.restart_policy = None;
        spec.init_containers = None;
        spec.ephemeral_containers = None;
        spec.containers = vec![container];
    }
    match validate_pod(&alone).first() {
        Some(problem) => {
            let field = problem.path.trim_start_matches("spec.containers[0].");
            Err(format!("This is no container for the pod: {field}: {problem}."))
        }
        None => Ok(with),
    }
}

/// How far an ephemeral container is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DebugState {
    /// It runs.
    Running,
    /// It has ended, with this code.
    Ended(i32),
}

impl Places {
    /// Returns when an ephemeral container has ended, with its code, and why it could not even start if it could not; without
    /// them if its pod has ended before.
    ///
    /// # Errors
    /// There is no such pod, or the records can't be watched.
    pub async fn debug_ended(
        &self,
        pod: &str,
        name: &str,
    ) -> Result<Option<(i32, Option<String>)>, InspectError> {
        self.when(pod, |pod| {
            if let Some(ended) = ephemeral_state(pod, name).and_then(|state| state.terminated.as_ref()) {
                let reason = ended.reason.as_deref();
                let never_ran = matches!(reason, Some("ContainerCannotRun" | "StartError"));
                let why = ended.message.clone().filter(|why| never_ran && !why.is_empty());
                return Some(Some((ended.exit_code, why)));
            }
            has_ended(pod).then_some(None)
        })
        .await
    }

    /// Returns when an ephemeral container runs or has run; `said` is told why it does not yet, whenever that is something
    /// else. The error of one that never will is its reason.
    ///
    /// # Errors
    /// There is no such pod, or the records can't be watched.
    pub async fn debug_begun(
        &self,
        pod: &str,
        name: &str,
        mut said: impl FnMut(&str),
    ) -> Result<Result<DebugState, String>, InspectError> {
        let mut last = String::new();
        self.when(pod, |pod| {
            if has_ended(pod) {
                return Some(Err("the pod has ended".to_owned()));
            }
            match ephemeral_state(pod, name).cloned().map(reached).transpose() {
                Err(reason) => return Some(Err(reason)),
                Ok(Some(Reached::State(state))) => return Some(Ok(state)),
                Ok(Some(Reached::Waits(reason))) if reason != last => {
                    said(&reason);
                    last = reason;
                }
                Ok(_) => {}
            }
            None
        })
        .await
    }
}

fn ephemeral_state<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerState> {
    let all = pod
        .status
        .iter()
        .flat_map(|status| status.ephemeral_container_statuses.iter().flatten());
    all.filter(|status| status.name == name)
        .find_map(|status| status.state.as_ref())
}

fn has_ended(pod: &Pod) -> bool {
    pod.status.as_ref().is_some_and(status::has_ended)
}

enum Reached {
    State(DebugState),
    Waits(String),
}

fn reached(state: ContainerState) -> Result<Reached, String> {
    if state.running.is_some() {
        return Ok(Reached::State(DebugState::Running));
    }
    if let Some(terminated) = state.terminated {
        return Ok(Reached::State(DebugState::Ended(terminated.exit_code)));
    }
    let waiting = state.waiting.unwrap_or_default();
    let reason = waiting.reason.unwrap_or_default();
    let text = match waiting.message.filter(|message| !message.is_empty()) {
        Some(message) => format!("{reason}: {message}"),
        None => reason.clone(),
    };
    match reason.as_str() {
        "ErrImageNeverPull" | "InvalidImageName" | "CreateContainerConfigError" => Err(text),
        _ => Ok(Reached::Waits(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;

    fn debugger(name: &str) -> EphemeralContainer {
        EphemeralContainer {
            name: name.to_owned(),
            image: Some("tools:1".to_owned()),
            ..EphemeralContainer::default()
        }
    }

    #[test]
    fn an_ephemeral_container_has_to_fit_its_pod() {
        let before = pod(r#"{"hostUsers":false,"containers":[{"name":"a","image":"i"}]}"#);
        let once = with(&before, debugger("d")).unwrap();
        assert!(spec::is_ephemeral(&once, "d"));
        let twice = with(&once, debugger("e")).unwrap();
        assert_eq!(spec::ephemeral_containers(&twice).len(), 2);
        let aimed = |target: &str| EphemeralContainer {
            target_container_name: Some(target.to_owned()),
            ..debugger("f")
        };
        assert!(with(&once, aimed("a")).is_ok());
        let high = EphemeralContainer {
            security_context: Some(SecurityContext {
                run_as_user: Some(70_000),
                ..SecurityContext::default()
            }),
            ..debugger("f")
        };
        for (container, why) in [
            (debugger("a"), "a container a already"),
            (debugger("d"), "a container d already"),
            (debugger("Bad Name"), "name: Invalid value"),
            (aimed("none"), "no container none"),
            (aimed("d"), "no container d"),
            (high, "hostUsers"),
            (
                EphemeralContainer {
                    image: None,
                    ..debugger("f")
                },
                "image",
            ),
        ] {
            let found = with(&once, container).unwrap_err();
            assert!(found.contains(why), "{found}");
        }
    }

    #[test]
    fn profiles_are_kubectl_s() {
        let added = |profile: &str| {
            let context = profile.parse::<DebugProfile>().unwrap().security_context();
            context
                .and_then(|context| context.capabilities?.add)
                .unwrap_or_default()
                .join(",")
        };
        assert_eq!(added("general"), "SYS_PTRACE");
        assert_eq!(added("netadmin"), "NET_ADMIN,NET_RAW");
        assert_eq!(
            (added("baseline").as_str(), added("restricted").as_str()),
            ("", "")
        );
        assert_eq!(
            DebugProfile::Sysadmin.security_context().unwrap().privileged,
            Some(true)
        );
        assert!("legacy".parse::<DebugProfile>().is_err());
    }
}

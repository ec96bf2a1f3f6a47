//! The status of one container.

use std::path::Path;

use berth_cri::{ContainerState as EngineState, ContainerStatus as Record};
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, ContainerUser, LinuxContainerUser, PodStatus, VolumeMount, VolumeMountStatus,
};

use super::time;
use crate::plan::{
    HookKind, HookOutcome, Plan, Reason, Stage, Startup, View, Waiting, actual, exit_code, has_ended,
    is_running, round_of,
};
use crate::spec::Role;

/// What `containerID` begins with.
const RUNTIME: &str = "berth";

/// The container's entry in the pod's status.
/// `previous` is the pod's status before: it still knows of runs whose record is gone.
pub(super) fn status(
    view: &View<'_>,
    plan: &Plan,
    container: &Container,
    role: Role,
    previous: Option<&PodStatus>,
) -> ContainerStatus {
    let records = records(view, container);
    let newest = records.first().copied();
    let state = state(view, plan, container, role, newest);
    let waits = state.waiting.is_some();
    // A container that waits to be started again shows its end as the last state.
    let last_ended = records.iter().copied().filter(|record| has_ended(record));
    let last = if waits {
        last_ended.take(1).last()
    } else {
        last_ended.filter(|r| Some(*r) != newest).take(1).last()
    };
    let started = newest.is_some_and(|record| is_running(record) && is_started(view, container, record));
    ContainerStatus {
        name: container.name.clone(),
        image: shown_image(view, container),
        image_id: newest.map(|record| image_id(view, record)).unwrap_or_default(),
        container_id: newest.map(|record| format!("{RUNTIME}://{}", record.id)),
        restart_count: restart_count(previous, &container.name, newest),
        ready: is_ready(view, container, role, newest),
        started: Some(started),
        state: Some(state),
        last_state: Some(match last {
            Some(record) => terminated(view, record),
            None => remembered(previous, &container.name, newest).unwrap_or_default(),
        }),
        allocated_resources: container
            .resources
            .as_ref()
            .and_then(|resources| resources.requests.clone()),
        resources: actual(view, container).or_else(|| container.resources.clone()),
        user: newest.and_then(|record| record.user.as_ref()).map(user),
        volume_mounts: volume_mounts(container, newest),
        ..ContainerStatus::default()
    }
}

/// Who the container's first process began as.
fn user(user: &berth_cri::ContainerUser) -> ContainerUser {
    ContainerUser {
        linux: Some(LinuxContainerUser {
            uid: user.uid.into(),
            gid: user.gid.into(),
            supplemental_groups: Some(
                user.supplemental_groups
                    .iter()
                    .map(|gid| i64::from(*gid))
                    .collect(),
            ),
        }),
    }
}

/// How often it was made anew. What could not be made, or was cut off by the end of a daemon, leaves no record, but was
/// counted once.
fn restart_count(previous: Option<&PodStatus>, name: &str, newest: Option<&Record>) -> i32 {
    let now = newest.map_or(0, |record| {
        i32::try_from(record.config.attempt).unwrap_or(i32::MAX)
    });
    let before = previous.and_then(|previous| {
        let lists = [&previous.init_container_statuses, &previous.container_statuses];
        let mut all = lists.into_iter().flatten().flatten();
        all.find(|status| status.name == name)
            .map(|status| status.restart_count)
    });
    now.max(before.unwrap_or(0))
}

/// The end before the newest run, as the last status had it: of an init container that has done its work only one record
/// is kept.
fn remembered(previous: Option<&PodStatus>, name: &str, newest: Option<&Record>) -> Option<ContainerState> {
    let previous = previous?;
    let inits = previous.init_container_statuses.iter().flatten();
    let mut all = inits.chain(previous.container_statuses.iter().flatten());
    let last = all.find(|status| status.name == name)?.last_state.clone()?;
    let id = last.terminated.as_ref()?.container_id.as_deref()?;
    let shown = newest.map(|record| format!("{RUNTIME}://{}", record.id));
    (shown.as_deref() != Some(id)).then_some(last)
}

/// Newest first.
fn records<'a>(view: &View<'a>, container: &Container) -> Vec<&'a Record> {
    let mut records: Vec<&Record> = view.records(&container.name).collect();
    records.sort_by_key(|record| std::cmp::Reverse((record.config.attempt, record.created_at)));
    records
}

fn is_started(view: &View<'_>, container: &Container, record: &Record) -> bool {
    view.startup(container, record) == Startup::Started
}

/// An init container is ready when it succeeded.
fn is_ready(view: &View<'_>, container: &Container, role: Role, newest: Option<&Record>) -> bool {
    let Some(record) = newest.filter(|record| round_of(record) == view.round()) else {
        return false;
    };
    match role {
        Role::Init => record.state == EngineState::Exited && record.exit_code == 0,
        Role::Sidecar | Role::Main => view.is_ready(container, record),
    }
}

fn state(
    view: &View<'_>,
    plan: &Plan,
    container: &Container,
    role: Role,
    newest: Option<&Record>,
) -> ContainerState {
    let waiting = || {
        let reason = default_reason(view);
        let none = Waiting {
            reason,
            message: String::new(),
        };
        waiting_state(plan.waiting.get(&container.name).unwrap_or(&none))
    };
    let Some(record) = newest else { return waiting() };
    match record.state {
        EngineState::Created => waiting(),
        // A container whose postStart hook runs is not running yet.
        EngineState::Running if in_hook(view, container, record) && plan.stage == Stage::Syncing => waiting(),
        EngineState::Running if plan.stage == Stage::Syncing && hook_failure(view, record).is_some() => {
            waiting_state(&Waiting {
                reason: Reason::PostStartHookError,
                message: hook_failure(view, record).unwrap_or_default(),
            })
        }
        EngineState::Running => ContainerState {
            running: Some(ContainerStateRunning {
                started_at: time(record.started_at),
            }),
            ..ContainerState::default()
        },
        // It belongs to the pod before all containers were restarted.
        EngineState::Exited | EngineState::Unknown
            if plan.stage == Stage::Syncing && round_of(record) < view.round() =>
        {
            waiting()
        }
        EngineState::Exited | EngineState::Unknown if will_restart(view, plan, container, role, record) => {
            waiting()
        }
        EngineState::Exited | EngineState::Unknown => terminated(view, record),
    }
}

/// Why its postStart hook failed, for which it is being stopped.
fn hook_failure(view: &View<'_>, record: &Record) -> Option<String> {
    match view.hook(&record.id, HookKind::PostStart) {
        Some(HookOutcome::Failed(why)) => Some(why.clone()),
        _ => None,
    }
}

fn in_hook(view: &View<'_>, container: &Container, record: &Record) -> bool {
    view.startup(container, record) == Startup::InHook && view.hook(&record.id, HookKind::PostStart).is_none()
}

/// The plan holds it back, or is about to start it.
fn will_restart(view: &View<'_>, plan: &Plan, container: &Container, role: Role, record: &Record) -> bool {
    let has_reason = plan.waiting.get(&container.name).is_some_and(|waiting| {
        // A container that ended and is being started again still shows its end, as upstream does.
        !matches!(
            waiting.reason,
            Reason::ContainerCreating | Reason::PodInitializing
        )
    });
    plan.stage == Stage::Syncing && has_reason && view.restarts(container, role, exit_code(record))
}

fn default_reason(view: &View<'_>) -> Reason {
    match view.containers().any(|(_, role)| role != Role::Main) {
        true => Reason::PodInitializing,
        false => Reason::ContainerCreating,
    }
}

fn waiting_state(waiting: &Waiting) -> ContainerState {
    let message = (!waiting.message.is_empty()).then(|| waiting.message.clone());
    let waiting = ContainerStateWaiting {
        reason: Some(waiting.reason.to_string()),
        message,
    };
    ContainerState {
        waiting: Some(waiting),
        ..ContainerState::default()
    }
}

fn terminated(view: &View<'_>, record: &Record) -> ContainerState {
    let (code, reason) = match record.state {
        EngineState::Unknown => (137, "ContainerStatusUnknown"),
        _ if !record.reason.is_empty() => (record.exit_code, record.reason.as_str()),
        _ if record.exit_code == 0 => (0, "Completed"),
        _ => (record.exit_code, "Error"),
    };
    let written = view
        .observed
        .termination_messages
        .get(&record.id)
        .filter(|message| !message.is_empty());
    let message = written
        .cloned()
        .or_else(|| (!record.message.is_empty()).then(|| record.message.clone()));
    let terminated = ContainerStateTerminated {
        container_id: Some(format!("{RUNTIME}://{}", record.id)),
        exit_code: code,
        finished_at: time(record.finished_at),
        message,
        reason: Some(reason.to_owned()),
        signal: None,
        started_at: time(record.started_at),
    };
    ContainerState {
        terminated: Some(terminated),
        ..ContainerState::default()
    }
}

fn shown_image(view: &View<'_>, container: &Container) -> String {
    let asked = container.image.clone().unwrap_or_default();
    let image = view
        .observed
        .images
        .get(&asked)
        .and_then(|state| state.present.as_ref());
    image
        .and_then(|image| image.repo_tags.first().cloned())
        .unwrap_or(asked)
}

/// With a registry's digest where there is one.
fn image_id(view: &View<'_>, record: &Record) -> String {
    let state = view.observed.images.get(&record.config.user_specified_image);
    let image = state
        .and_then(|state| state.present.as_ref())
        .filter(|image| image.id == record.image_id);
    image
        .and_then(|image| image.repo_digests.first().cloned())
        .unwrap_or_else(|| record.image_id.to_string())
}

fn volume_mounts(container: &Container, record: Option<&Record>) -> Option<Vec<VolumeMountStatus>> {
    let mounts = container
        .volume_mounts
        .as_ref()
        .filter(|mounts| !mounts.is_empty())?;
    let statuses = mounts.iter().map(|mount| VolumeMountStatus {
        name: mount.name.clone(),
        mount_path: mount.mount_path.clone(),
        read_only: mount.read_only.filter(|read_only| *read_only),
        recursive_read_only: (mount.read_only == Some(true)).then(|| recursive_read_only(mount, record)),
        ..VolumeMountStatus::default()
    });
    Some(statuses.collect())
}

/// What the mount became, which with `IfPossible` is the node's choice.
fn recursive_read_only(mount: &VolumeMount, record: Option<&Record>) -> String {
    let place = Path::new("/").join(&mount.mount_path);
    let mounts = record.map_or(&[][..], |record| &record.config.mounts);
    let recursive = mounts
        .iter()
        .any(|made| made.container_path == place && made.recursive_read_only);
    if recursive { "Enabled" } else { "Disabled" }.to_owned()
}

//! A pod that is to run: volumes, images and sandbox at the same time, then containers in their order.

use berth_cri::{ContainerState, ContainerStatus, PodSandboxStatus};
use k8s_openapi::api::core::v1::Container;

use super::images::ready_image;
use super::outcome::deadline;
use super::start::start;
use super::termination::{
    Kill, push_unless_failed, remove_container, retry_at, stop_container, unknown_containers, wake,
};
use super::view::{Startup, View, exit_code, has_ended, is_running, round_of};
use super::{
    HookKind, HookOutcome, KillReason, Plan, PodCgroup, Reason, Stage, Step, StepKey, Waiting, post_start,
    probes, resize,
};
use crate::backoff::after;
use crate::config::to_sandbox_config;
use crate::defaults::{MAX_PER_POD_CONTAINER, MINIMUM_GRACE_PERIOD};
use crate::resources::{pod_milli_cpu, pod_resources};
use crate::spec::{self, Role};

/// Brings the pod to run, or keeps it running.
pub(crate) fn sync(view: &View<'_>, plan: &mut Plan) {
    plan.stage = Stage::Syncing;
    set_up_volumes(view, plan);
    fetch_images(view, plan);
    remove_old_records(view, plan);
    match view.sandbox() {
        Some(sandbox) => sync_containers(view, sandbox, plan),
        None => run_sandbox(view, plan),
    }
    resize::wake_for_pending(view, plan);
    wait_for_the_rest(view, plan);
    if let Some(deadline) = deadline(view) {
        wake(plan, deadline);
    }
}

fn set_up_volumes(view: &View<'_>, plan: &mut Plan) {
    if !view.observed.volumes_ready {
        push_unless_failed(view, Step::SetUpVolumes, plan);
    }
}

/// Images of containers that were never made are fetched at once, so that they are there when the turn comes.
fn fetch_images(view: &View<'_>, plan: &mut Plan) {
    for (container, _) in view.containers() {
        if view.latest(&container.name).is_none()
            && let Err(waiting) = ready_image(view, container, plan)
        {
            plan.waiting.insert(container.name.clone(), waiting);
        }
    }
}

fn run_sandbox(view: &View<'_>, plan: &mut Plan) {
    if view.observed.in_flight.contains(&StepKey::ResizePod) {
        // Both set the pod's group up, and whichever ended last would hold, the older wish perhaps.
        return;
    }
    let sandboxes = &view.observed.sandboxes;
    // One that is being made may show already, not ready yet: that is none to replace.
    let attempt = being_made(view).unwrap_or_else(|| {
        let attempts = sandboxes.iter().map(|sandbox| sandbox.config.attempt + 1);
        attempts.max().unwrap_or(0)
    });
    let earlier = sandboxes
        .iter()
        .filter(|sandbox| sandbox.config.attempt < attempt);
    let key = StepKey::RunSandbox(attempt);
    if let Some(at) = retry_at(view, &key) {
        return wake(plan, at);
    }
    let desired = view.desired;
    match to_sandbox_config(desired, attempt) {
        Ok(config) => {
            let cgroup = PodCgroup {
                path: config.cgroup_parent.clone(),
                resources: pod_resources(&desired.pod, &desired.node),
                milli_cpu: pod_milli_cpu(&desired.pod),
            };
            let replaces = earlier.map(|sandbox| sandbox.id.clone()).collect();
            plan.steps.push(Step::RunSandbox {
                config: Box::new(config),
                replaces,
                cgroup,
            });
        }
        Err(error) => {
            for (container, _) in view.containers() {
                let waiting = Waiting {
                    reason: Reason::FailedCreatePodSandBox,
                    message: error.to_string(),
                };
                plan.waiting.insert(container.name.clone(), waiting);
            }
        }
    }
}

/// The attempt of the sandbox that is being made now.
fn being_made(view: &View<'_>) -> Option<u32> {
    view.observed.in_flight.iter().find_map(|key| match key {
        StepKey::RunSandbox(attempt) => Some(*attempt),
        _ => None,
    })
}

/// Keeps one ended container of each name, and of the sandboxes those that are in use.
fn remove_old_records(view: &View<'_>, plan: &mut Plan) {
    for (container, _) in view.containers() {
        let mut ended: Vec<&ContainerStatus> = view
            .records(&container.name)
            .filter(|record| has_ended(record))
            .collect();
        ended.sort_by_key(|record| std::cmp::Reverse((record.config.attempt, record.created_at)));
        for record in ended.into_iter().skip(MAX_PER_POD_CONTAINER) {
            push_unless_failed(view, remove_container(record), plan);
        }
        remove_never_started(view, container, plan);
    }
    let Some(current) = view.sandbox() else { return };
    for sandbox in view
        .observed
        .sandboxes
        .iter()
        .filter(|sandbox| sandbox.id != current.id)
    {
        let mut inside = view
            .observed
            .containers
            .iter()
            .filter(|record| record.sandbox == sandbox.id);
        let (empty, running) = (inside.clone().next().is_none(), inside.any(is_running));
        if sandbox.ready || running {
            push_unless_failed(
                view,
                Step::StopSandbox {
                    id: sandbox.id.clone(),
                },
                plan,
            );
        } else if empty {
            push_unless_failed(
                view,
                Step::RemoveSandbox {
                    id: sandbox.id.clone(),
                },
                plan,
            );
        }
    }
}

/// One that was made before a restart of all containers and never started.
fn remove_never_started(view: &View<'_>, container: &Container, plan: &mut Plan) {
    let round = view.round();
    for record in view.records(&container.name) {
        let key = StepKey::StartContainer(container.name.clone(), record.config.attempt);
        let earlier = round_of(record) < round && !view.observed.in_flight.contains(&key);
        if earlier && record.state == ContainerState::Created {
            push_unless_failed(view, remove_container(record), plan);
        }
    }
}

fn sync_containers(view: &View<'_>, sandbox: &PodSandboxStatus, plan: &mut Plan) {
    for (container, target) in spec::ephemeral_containers(&view.desired.pod) {
        sync_ephemeral(view, &container, target.as_deref(), sandbox, plan);
    }
    let pod = &view.desired.pod;
    // What is of an earlier round is ended with that.
    let foreign = |record: &&ContainerStatus| {
        !spec::is_ephemeral(pod, &record.config.name) && round_of(record) >= view.round()
    };
    for record in unknown_containers(view).filter(foreign) {
        let kill = kill(
            view,
            record,
            KillReason::Orphaned,
            spec::grace_period(&view.desired.pod),
        );
        stop_container(view, record, &kill, plan);
    }
    resize::sync_group(view, &sandbox.id, plan);
    if end_earlier_round(view, plan) || !sync_init_containers(view, sandbox, plan) {
        return;
    }
    for main in spec::containers(&view.desired.pod) {
        sync_container(view, main, Role::Main, sandbox, plan);
    }
}

/// Starts an ephemeral container, once, as soon as there is a sandbox and, if it is to see another container's processes,
/// that container runs. It is no part of the pod's life: it holds nothing up, and its end means nothing.
fn sync_ephemeral(
    view: &View<'_>,
    container: &Container,
    target: Option<&str>,
    sandbox: &PodSandboxStatus,
    plan: &mut Plan,
) {
    let last = view.latest(&container.name);
    if last.is_some_and(|record| record.state != ContainerState::Created) {
        return;
    }
    let seen = target.map(|name| view.latest_here(name).filter(|record| is_running(record)));
    let Some(seen) = seen else {
        return start(view, container, Role::Main, sandbox, plan);
    };
    let Some(seen) = seen else { return };
    start(view, container, Role::Main, sandbox, plan);
    for step in &mut plan.steps {
        if let Step::StartContainer(step) = step
            && step.config.name == container.name
        {
            step.config.pid_target = Some(seen.id.clone());
        }
    }
}

/// Ends what is left of the round before a restart of all containers, without hooks and within the least time there is.
/// Nothing of the new round begins before that; returns whether there is something left.
fn end_earlier_round(view: &View<'_>, plan: &mut Plan) -> bool {
    let round = view.round();
    let mut left = false;
    for (container, _) in view.containers() {
        let earlier = view
            .records(&container.name)
            .filter(|record| round_of(record) < round);
        for record in earlier.filter(|record| is_running(record)) {
            left = true;
            probes::while_stopping(view, container, record, plan);
            let kill = kill(
                view,
                record,
                KillReason::RestartAllContainers,
                std::time::Duration::ZERO,
            );
            stop_container(view, record, &kill, plan);
        }
    }
    // They belong to no round, but do not outlive one.
    for record in unknown_containers(view).filter(|record| round_of(record) < round) {
        left = true;
        let kill = kill(
            view,
            record,
            KillReason::RestartAllContainers,
            std::time::Duration::ZERO,
        );
        stop_container(view, record, &kill, plan);
    }
    // A start that was begun before the restart was asked for may still succeed.
    let pending = view.restart_all_trigger().is_some();
    let starting = view.observed.in_flight.iter().any(|key| {
        let StepKey::StartContainer(name, attempt) = key else {
            return false;
        };
        let record = view
            .records(name)
            .find(|record| record.config.attempt == *attempt);
        record.map_or(pending, |record| round_of(record) < round)
    });
    left || starting
}

/// Init containers one after the other; a sidecar that has started lets the next one go. Returns whether the main
/// containers' turn has come.
fn sync_init_containers(view: &View<'_>, sandbox: &PodSandboxStatus, plan: &mut Plan) -> bool {
    let inits = spec::init_containers(&view.desired.pod);
    let initialized = view.is_initialized();
    // Whatever was made once has had its turn; those before it have done their part.
    let reached = inits
        .iter()
        .rposition(|init| view.latest_here(&init.name).is_some())
        .unwrap_or(0);
    for (index, init) in inits.iter().enumerate() {
        let passed = initialized || index < reached;
        let role = if spec::is_sidecar(init) {
            Role::Sidecar
        } else {
            Role::Init
        };
        if role == Role::Sidecar || !passed {
            sync_container(view, init, role, sandbox, plan);
        }
        if !passed && !view.has_done_its_part(init) {
            return false;
        }
    }
    true
}

/// Starts, restarts, keeps or ends one container whose turn has come.
fn sync_container(
    view: &View<'_>,
    container: &Container,
    role: Role,
    sandbox: &PodSandboxStatus,
    plan: &mut Plan,
) {
    let Some(record) = turn_of(view, container, role) else {
        return start(view, container, role, sandbox, plan);
    };
    match record.state {
        // In another sandbox it is stopped with that.
        ContainerState::Running if record.sandbox != sandbox.id => {}
        ContainerState::Running => keep(view, container, role, record, plan),
        ContainerState::Created => start(view, container, role, sandbox, plan),
        ContainerState::Exited | ContainerState::Unknown => {
            if view.is_restarted(record) || view.restarts(container, role, exit_code(record)) {
                start(view, container, role, sandbox, plan);
            }
        }
    }
}

/// The record that tells what is next. Init containers run again in a new sandbox, main containers go on.
fn turn_of<'a>(view: &View<'a>, container: &Container, role: Role) -> Option<&'a ContainerStatus> {
    match role {
        Role::Main => view.current(&container.name),
        Role::Init | Role::Sidecar => view.latest_here(&container.name),
    }
}

/// A running container: its hook, its probes, or its end.
fn keep(view: &View<'_>, container: &Container, role: Role, record: &ContainerStatus, plan: &mut Plan) {
    if let Some((reason, grace)) = kill_reason(view, container, role, record) {
        if reason == KillReason::Resize {
            resize::note_restart(plan);
        }
        if post_start::go_on(view, container, record, &reason, plan) {
            return;
        }
        probes::while_stopping(view, container, record, plan);
        return stop_container(view, record, &kill(view, record, reason, grace), plan);
    }
    // One that was told to end ends, whatever is wanted by now.
    let stopping = StepKey::StopContainer(record.id.clone());
    if !view.observed.in_flight.contains(&stopping) {
        plan.spared.push(record.id.clone());
    }
    resize::sync_container(view, container, role, record, plan);
    if view.startup(container, record) == Startup::InHook {
        return post_start::run(container, record, plan);
    }
    probes::while_running(view, container, record, plan);
}

fn kill_reason(
    view: &View<'_>,
    container: &Container,
    role: Role,
    record: &ContainerStatus,
) -> Option<(KillReason, std::time::Duration)> {
    let pod = &view.desired.pod;
    if let Some(HookOutcome::Failed(why)) = view.hook(&record.id, HookKind::PostStart) {
        return Some((KillReason::PostStartHook(why.clone()), spec::grace_period(pod)));
    }
    if resize::needs_restart(view, container, role, record) {
        return Some((KillReason::Resize, spec::grace_period(pod)));
    }
    if view.is_restarted(record) {
        return Some((KillReason::Restart, spec::grace_period(pod)));
    }
    let results = view.observed.probes.get(&record.id)?;
    if results.liveness == Some(false) && container.liveness_probe.is_some() {
        let grace = spec::probe_grace_period(pod, container.liveness_probe.as_ref());
        return Some((KillReason::LivenessProbe, grace));
    }
    if results.startup == Some(false) && container.startup_probe.is_some() {
        let grace = spec::probe_grace_period(pod, container.startup_probe.as_ref());
        return Some((KillReason::StartupProbe, grace));
    }
    None
}

/// The grace period counts from when the executor first heard of it.
fn kill(view: &View<'_>, record: &ContainerStatus, reason: KillReason, grace: std::time::Duration) -> Kill {
    let began = view
        .observed
        .kill_started
        .get(&record.id)
        .copied()
        .unwrap_or(view.now);
    Kill {
        reason,
        deadline: after(began, grace),
        least: MINIMUM_GRACE_PERIOD,
        at_once: false,
    }
}

/// A word for every container that does not run and has none yet. In a pod with init containers, upstream calls all
/// waiting `PodInitializing`.
fn wait_for_the_rest(view: &View<'_>, plan: &mut Plan) {
    let reason = if spec::init_containers(&view.desired.pod).is_empty() {
        Reason::ContainerCreating
    } else {
        Reason::PodInitializing
    };
    for (container, _) in view.containers() {
        let waiting = plan.waiting.entry(container.name.clone()).or_insert(Waiting {
            reason,
            message: String::new(),
        });
        if waiting.reason == Reason::ContainerCreating {
            waiting.reason = reason;
        }
    }
}

//! Which probes are to run.

use berth_cri::ContainerStatus;
use k8s_openapi::api::core::v1::Container;

use super::view::{Startup, View};
use super::{Plan, ProbeKind, ProbeWanted};

/// Probes of a running container that is to go on.
pub(crate) fn while_running(
    view: &View<'_>,
    container: &Container,
    record: &ContainerStatus,
    plan: &mut Plan,
) {
    match view.startup(container, record) {
        Startup::InHook => {}
        Startup::InProbe => want(record, ProbeKind::Startup, plan),
        Startup::Started => {
            if container.liveness_probe.is_some() {
                want(record, ProbeKind::Liveness, plan);
            }
            if container.readiness_probe.is_some() {
                want(record, ProbeKind::Readiness, plan);
            }
        }
    }
}

/// Probes of a running container that is being stopped: only whether it still takes work.
pub(crate) fn while_stopping(
    view: &View<'_>,
    container: &Container,
    record: &ContainerStatus,
    plan: &mut Plan,
) {
    if container.readiness_probe.is_some() && view.startup(container, record) == Startup::Started {
        want(record, ProbeKind::Readiness, plan);
    }
}

fn want(record: &ContainerStatus, kind: ProbeKind, plan: &mut Plan) {
    plan.probes.push(ProbeWanted {
        id: record.id.clone(),
        name: record.config.name.clone(),
        kind,
    });
}

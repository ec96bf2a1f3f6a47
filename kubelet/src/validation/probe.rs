//! The rules for probes and lifecycle hooks.

use k8s_openapi::api::core::v1::{
    Container, ExecAction, HTTPGetAction, LifecycleHandler, Probe, TCPSocketAction,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::container::{Place, port_number};
use super::{Errors, names};
use crate::defaults::DEFAULT_TERMINATION_GRACE_PERIOD_SECONDS;

pub(super) fn probes(container: &Container, place: &Place<'_>, errors: &mut Errors) {
    let kinds = [
        ("livenessProbe", &container.liveness_probe, true),
        ("readinessProbe", &container.readiness_probe, false),
        ("startupProbe", &container.startup_probe, true),
    ];
    for (name, found, kills) in kinds {
        let Some(found) = found else { continue };
        let path = place.field(name);
        probe(found, &path, container, errors);
        if kills && found.success_threshold.is_some_and(|number| number != 1) {
            let number = found.success_threshold.unwrap_or(0);
            errors.invalid_number(&format!("{path}.successThreshold"), number, "must be 1");
        }
        let grace = format!("{path}.terminationGracePeriodSeconds");
        match found.termination_grace_period_seconds {
            Some(_) if !kills => errors.invalid(&grace, "", "must not be set for readinessProbes"),
            Some(seconds) if seconds <= 0 => errors.invalid_number(&grace, seconds, "must be greater than 0"),
            _ => {}
        }
    }
}

fn probe(probe: &Probe, path: &str, container: &Container, errors: &mut Errors) {
    let handlers = Handlers {
        exec: probe.exec.as_ref(),
        http_get: probe.http_get.as_ref(),
        tcp_socket: probe.tcp_socket.as_ref(),
        other: usize::from(probe.grpc.is_some()),
    };
    handlers.check(path, container, errors);
    if let Some(grpc) = &probe.grpc {
        port_number(&format!("{path}.grpc.port"), grpc.port, errors);
    }
    let numbers = [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ];
    for (name, number) in numbers {
        errors.not_negative(&format!("{path}.{name}"), number);
    }
}

pub(super) fn lifecycle(container: &Container, place: &Place<'_>, errors: &mut Errors) {
    let Some(lifecycle) = &container.lifecycle else {
        return;
    };
    for (name, handler) in [
        ("postStart", &lifecycle.post_start),
        ("preStop", &lifecycle.pre_stop),
    ] {
        if let Some(handler) = handler {
            hook(
                handler,
                &place.field(&format!("lifecycle.{name}")),
                container,
                place,
                errors,
            );
        }
    }
    if let Some(signal) = lifecycle
        .stop_signal
        .as_deref()
        .filter(|signal| !is_signal(signal))
    {
        let why = "must be the name of a Linux signal: SIGTERM, SIGUSR1, SIGRTMIN+3, SIGRTMAX-1";
        errors.invalid(&place.field("lifecycle.stopSignal"), signal, why);
    }
    if lifecycle.stop_signal.is_some() && place.spec.os.as_ref().is_none_or(|os| os.name.is_empty()) {
        let why = "may not be set for containers with empty `spec.os.name`";
        errors.forbidden(&place.field("lifecycle.stopSignal"), why);
    }
}

/// The names that a pod may say a signal with; others have no meaning for a kubelet.
fn is_signal(name: &str) -> bool {
    const NAMES: [&str; 35] = [
        "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL",
        "PIPE", "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP",
        "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ", "RTMIN",
    ];
    let Some(name) = name.strip_prefix("SIG") else {
        return false;
    };
    let number_of = |text: &str| {
        let canonical = text
            .parse::<u8>()
            .ok()
            .filter(|number| number.to_string() == text);
        canonical.unwrap_or_default()
    };
    match (name.strip_prefix("RTMIN+"), name.strip_prefix("RTMAX-")) {
        (Some(above), _) => (1..=15).contains(&number_of(above)),
        (_, Some(below)) => (1..=14).contains(&number_of(below)),
        _ => name == "RTMAX" || NAMES.contains(&name),
    }
}

fn hook(
    handler: &LifecycleHandler,
    path: &str,
    container: &Container,
    place: &Place<'_>,
    errors: &mut Errors,
) {
    let handlers = Handlers {
        exec: handler.exec.as_ref(),
        http_get: handler.http_get.as_ref(),
        tcp_socket: handler.tcp_socket.as_ref(),
        other: usize::from(handler.sleep.is_some()),
    };
    handlers.check(path, container, errors);
    let grace = place
        .spec
        .termination_grace_period_seconds
        .unwrap_or(DEFAULT_TERMINATION_GRACE_PERIOD_SECONDS);
    if let Some(sleep) = handler
        .sleep
        .as_ref()
        .filter(|sleep| !(0..=grace).contains(&sleep.seconds))
    {
        let why = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
        errors.invalid_number(&format!("{path}.sleep.seconds"), sleep.seconds, why);
    }
}

/// What probes and hooks have in common.
struct Handlers<'a> {
    exec: Option<&'a ExecAction>,
    http_get: Option<&'a HTTPGetAction>,
    tcp_socket: Option<&'a TCPSocketAction>,
    other: usize,
}

impl Handlers<'_> {
    fn check(&self, path: &str, container: &Container, errors: &mut Errors) {
        let kinds = [
            self.exec.is_some(),
            self.http_get.is_some(),
            self.tcp_socket.is_some(),
        ];
        match kinds.into_iter().filter(|there| *there).count() + self.other {
            1 => {}
            0 => errors.required(path, "must specify a handler type"),
            _ => errors.forbidden(path, "may not specify more than 1 handler type"),
        }
        if self
            .exec
            .is_some_and(|exec| exec.command.as_ref().is_none_or(Vec::is_empty))
        {
            errors.required(&format!("{path}.exec.command"), "");
        }
        if let Some(get) = self.http_get {
            http_get(get, &format!("{path}.httpGet"), container, errors);
        }
        if let Some(socket) = self.tcp_socket {
            port(&socket.port, &format!("{path}.tcpSocket.port"), container, errors);
        }
    }
}

fn http_get(get: &HTTPGetAction, path: &str, container: &Container, errors: &mut Errors) {
    port(&get.port, &format!("{path}.port"), container, errors);
    errors.one_of(
        &format!("{path}.scheme"),
        get.scheme.as_deref(),
        &["HTTP", "HTTPS"],
    );
    for (index, header) in get.http_headers.iter().flatten().enumerate() {
        errors.check(
            &format!("{path}.httpHeaders[{index}].name"),
            &header.name,
            names::header_name(&header.name),
        );
    }
}

/// A number, or the name of one of the container's ports.
fn port(port: &IntOrString, path: &str, container: &Container, errors: &mut Errors) {
    match port {
        IntOrString::Int(number) => port_number(path, *number, errors),
        IntOrString::String(name) => {
            let broken = names::port_name(name);
            errors.check(path, name, broken);
            let known = container
                .ports
                .iter()
                .flatten()
                .any(|port| port.name.as_deref() == Some(name));
            // Upstream finds this only when it probes.
            if broken.is_none() && !known {
                errors.not_found(path, name);
            }
        }
    }
}

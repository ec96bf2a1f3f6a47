//! What a probe or a lifecycle hook is aimed at. Pure.

use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, GRPCAction, HTTPGetAction, Probe, TCPSocketAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::grpc::Grpc;
use super::http_get::HttpGet;

/// What one attempt does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Exec(Vec<String>),
    HttpGet(HttpGet),
    Grpc(Grpc),
    TcpSocket { host: String, port: u16 },
}

/// A probe of a container, ready to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) action: Action,
    pub(crate) timeout: Duration,
}

/// Aims a probe of `container` in a pod at `ip`. The error says what is wrong with it.
pub(crate) fn of_probe(probe: &Probe, container: &Container, ip: Option<IpAddr>) -> Result<Target, String> {
    let timeout = Duration::from_secs(
        u64::try_from(probe.timeout_seconds.unwrap_or(1))
            .unwrap_or(1)
            .max(1),
    );
    let action = if let Some(exec) = &probe.exec {
        Action::Exec(exec.command.clone().unwrap_or_default())
    } else if let Some(get) = &probe.http_get {
        Action::HttpGet(of_http_get(get, container, ip)?)
    } else if let Some(socket) = &probe.tcp_socket {
        of_tcp_socket(socket, container, ip)?
    } else if let Some(grpc) = &probe.grpc {
        of_grpc(grpc, container, ip)?
    } else {
        return Err(
            "the probe asks for nothing; exec, grpc, httpGet and tcpSocket are what there is".to_owned(),
        );
    };
    Ok(Target { action, timeout })
}

/// Aims an HTTP GET.
pub(crate) fn of_http_get(
    get: &HTTPGetAction,
    container: &Container,
    ip: Option<IpAddr>,
) -> Result<HttpGet, String> {
    let headers = get.http_headers.as_deref().unwrap_or_default();
    Ok(HttpGet {
        scheme: get.scheme.clone().unwrap_or_else(|| "HTTP".to_owned()),
        host: host(get.host.as_deref(), ip)?,
        port: port(&get.port, container)?,
        path: get.path.clone().unwrap_or_else(|| "/".to_owned()),
        headers: headers
            .iter()
            .map(|header| (header.name.clone(), header.value.clone()))
            .collect(),
    })
}

fn of_tcp_socket(
    socket: &TCPSocketAction,
    container: &Container,
    ip: Option<IpAddr>,
) -> Result<Action, String> {
    Ok(Action::TcpSocket {
        host: host(socket.host.as_deref(), ip)?,
        port: port(&socket.port, container)?,
    })
}

/// A gRPC server is asked at the pod's own address only, and at a port by number.
fn of_grpc(grpc: &GRPCAction, container: &Container, ip: Option<IpAddr>) -> Result<Action, String> {
    Ok(Action::Grpc(Grpc {
        host: host(None, ip)?,
        port: port(&IntOrString::Int(grpc.port), container)?,
        service: grpc.service.clone().unwrap_or_default(),
    }))
}

fn host(host: Option<&str>, ip: Option<IpAddr>) -> Result<String, String> {
    match (host.filter(|host| !host.is_empty()), ip) {
        (Some(host), _) => Ok(host.to_owned()),
        (None, Some(ip)) => Ok(ip.to_string()),
        (None, None) => Err("the pod has no address to probe".to_owned()),
    }
}

/// A port by number, by a container port's name, or by a number that came as text.
fn port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => container
            .ports
            .iter()
            .flatten()
            .find(|port| port.name.as_deref() == Some(name))
            .map(|port| port.container_port)
            .or_else(|| name.parse().ok()),
    };
    number
        .and_then(|number| u16::try_from(number).ok())
        .filter(|&number| number > 0)
        .ok_or_else(|| format!("container \"{}\" has no port {port:?}", container.name))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ContainerPort;

    use super::*;

    #[test]
    fn ports_are_found_by_name_and_number() {
        let named = ContainerPort {
            name: Some("web".into()),
            container_port: 8080,
            ..ContainerPort::default()
        };
        let container = Container {
            ports: Some(vec![named]),
            ..Container::default()
        };
        let text = |text: &str| IntOrString::String(text.to_owned());
        assert_eq!(port(&IntOrString::Int(80), &container), Ok(80));
        assert_eq!(port(&text("web"), &container), Ok(8080));
        assert_eq!(port(&text("81"), &container), Ok(81));
        for bad in [IntOrString::Int(0), IntOrString::Int(70000), text("none")] {
            assert!(port(&bad, &container).is_err());
        }
    }

    #[test]
    fn a_probe_s_target_is_all_that_it_says() {
        let probe: Probe = serde_json::from_str(
            r#"{"timeoutSeconds":7,"httpGet":{"host":"h","port":81,"path":"/p?q","scheme":"HTTPS",
                "httpHeaders":[{"name":"X-A","value":"1"},{"name":"X-A","value":"2"}]}}"#,
        )
        .unwrap();
        let target = of_probe(&probe, &Container::default(), None).unwrap();
        assert_eq!(target.timeout, Duration::from_secs(7));
        let pair = |value: &str| ("X-A".to_owned(), value.to_owned());
        let expected = HttpGet {
            scheme: "HTTPS".into(),
            host: "h".into(),
            port: 81,
            path: "/p?q".into(),
            headers: vec![pair("1"), pair("2")],
        };
        assert_eq!(target.action, Action::HttpGet(expected));
        let probe: Probe = serde_json::from_str(r#"{"tcpSocket":{"host":"h","port":"82"}}"#).unwrap();
        let target = of_probe(&probe, &Container::default(), None).unwrap();
        let expected = Action::TcpSocket {
            host: "h".into(),
            port: 82,
        };
        assert_eq!(
            (target.action, target.timeout),
            (expected, Duration::from_secs(1))
        );
    }

    #[test]
    fn the_pod_address_is_the_default_host() {
        let ip = "fd00::1".parse().ok();
        assert_eq!(host(None, ip), Ok("fd00::1".to_owned()));
        assert_eq!(host(Some(""), ip), Ok("fd00::1".to_owned()));
        assert_eq!(host(Some("name"), None), Ok("name".to_owned()));
        assert!(host(None, None).is_err());
    }
}

//! A pod's `/etc/hosts`.

use std::fmt::Write as _;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;

use super::sandbox::{domain, hostname};
use crate::plan::NodeFacts;
use crate::spec;

const HEADER: &str = "# Kubernetes-managed hosts file.\n\
127.0.0.1\tlocalhost\n\
::1\tlocalhost ip6-localhost ip6-loopback\n\
fe00::0\tip6-localnet\n\
fe00::0\tip6-mcastprefix\n\
fe00::1\tip6-allnodes\n\
fe00::2\tip6-allrouters\n";

/// The file's content. A pod with the host's network has the host's file.
pub fn hosts_file(pod: &Pod, pod_ips: &[IpAddr], node: &NodeFacts) -> String {
    let pod_spec = pod.spec.as_ref();
    let mut file = if pod_spec.is_some_and(spec::host_network) {
        format!(
            "# Kubernetes-managed hosts file (host network).\n{}",
            node.host_hosts
        )
    } else {
        own_file(pod, pod_ips, node)
    };
    let aliases = pod_spec
        .and_then(|spec| spec.host_aliases.as_deref())
        .unwrap_or_default();
    if !aliases.is_empty() {
        file.push_str("\n# Entries added by HostAliases.\n");
    }
    for alias in aliases {
        let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
        // Writing to a String can't fail.
        let _ = writeln!(file, "{}\t{names}", alias.ip);
    }
    file
}

fn own_file(pod: &Pod, pod_ips: &[IpAddr], node: &NodeFacts) -> String {
    let mut file = HEADER.to_owned();
    let host = hostname(pod);
    for ip in pod_ips {
        let _ = match domain(pod, node) {
            Some(domain) => writeln!(file, "{ip}\t{host}.{domain}\t{host}"),
            None => writeln!(file, "{ip}\t{host}"),
        };
    }
    file
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;

    #[test]
    fn a_pods_own_file() {
        let node = NodeFacts {
            cluster_domain: "cluster.local".into(),
            ..NodeFacts::default()
        };
        let pod = pod(
            r#"{"containers":[],"hostname":"h","subdomain":"s","hostAliases":[{"ip":"1.2.3.4","hostnames":["a","b"]}]}"#,
        );
        let file = hosts_file(&pod, &[IpAddr::from([10, 0, 0, 2])], &node);
        assert!(file.starts_with(HEADER));
        let rest = &file[HEADER.len()..];
        assert_eq!(
            rest,
            "10.0.0.2\th.s.default.svc.cluster.local\th\n\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"
        );
    }

    #[test]
    fn the_hosts_file_with_the_hosts_network() {
        let node = NodeFacts {
            host_hosts: "127.0.0.1 box\n".into(),
            ..NodeFacts::default()
        };
        let pod = pod(r#"{"containers":[],"hostNetwork":true}"#);
        assert_eq!(
            hosts_file(&pod, &[], &node),
            "# Kubernetes-managed hosts file (host network).\n127.0.0.1 box\n"
        );
    }
}

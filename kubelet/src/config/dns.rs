//! A pod's `/etc/resolv.conf`.

use berth_cri::DnsConfig;
use k8s_openapi::api::core::v1::{Pod, PodDNSConfig};

use crate::defaults::{MAX_DNS_NAMESERVERS, MAX_DNS_SEARCH_LIST_CHARS, MAX_DNS_SEARCH_PATHS};
use crate::plan::NodeFacts;
use crate::spec;

/// What the pod's `dnsPolicy` and `dnsConfig` come to; `None` is the host's file as it stands.
pub fn pod_dns(pod: &Pod, node: &NodeFacts) -> Option<DnsConfig> {
    let pod_spec = pod.spec.as_ref();
    let host_network = pod_spec.is_some_and(spec::host_network);
    let own = pod_spec.and_then(|spec| spec.dns_config.as_ref());
    let cluster = !node.cluster_dns.is_empty();
    let base = match pod_spec.and_then(|spec| spec.dns_policy.as_deref()) {
        Some("None") => Some(DnsConfig::default()),
        Some("ClusterFirstWithHostNet") if cluster => Some(cluster_dns(pod, node)),
        Some("ClusterFirst") | None if cluster && !host_network => Some(cluster_dns(pod, node)),
        _ => None,
    };
    let dns = match (base, own) {
        (None, None) => return None,
        (base, own) => merge(base.unwrap_or_else(|| node.host_dns.clone()), own),
    };
    Some(within_limits(dns))
}

fn cluster_dns(pod: &Pod, node: &NodeFacts) -> DnsConfig {
    let mut searches = Vec::new();
    if !node.cluster_domain.is_empty() {
        let domain = &node.cluster_domain;
        searches.push(format!("{}.svc.{domain}", spec::namespace(pod)));
        searches.push(format!("svc.{domain}"));
        searches.push(domain.clone());
    }
    add_new(&mut searches, &node.host_dns.searches);
    DnsConfig {
        servers: node.cluster_dns.iter().map(ToString::to_string).collect(),
        searches,
        options: vec!["ndots:5".to_owned()],
    }
}

fn merge(mut base: DnsConfig, own: Option<&PodDNSConfig>) -> DnsConfig {
    let Some(own) = own else { return base };
    add_new(&mut base.servers, own.nameservers.as_deref().unwrap_or_default());
    add_new(&mut base.searches, own.searches.as_deref().unwrap_or_default());
    for option in own.options.iter().flatten() {
        let Some(name) = option.name.as_deref() else {
            continue;
        };
        base.options.retain(|known| known.split(':').next() != Some(name));
        base.options.push(match option.value.as_deref() {
            Some(value) if !value.is_empty() => format!("{name}:{value}"),
            _ => name.to_owned(),
        });
    }
    base
}

fn add_new(list: &mut Vec<String>, more: &[String]) {
    for item in more {
        if !list.contains(item) {
            list.push(item.clone());
        }
    }
}

fn within_limits(mut dns: DnsConfig) -> DnsConfig {
    dns.servers.truncate(MAX_DNS_NAMESERVERS);
    dns.searches.truncate(MAX_DNS_SEARCH_PATHS);
    while dns.searches.join(" ").len() > MAX_DNS_SEARCH_LIST_CHARS {
        dns.searches.pop();
    }
    dns
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;

    fn node() -> NodeFacts {
        let host_dns = DnsConfig {
            servers: vec!["9.9.9.9".into()],
            searches: vec!["lan".into()],
            options: vec!["rotate".into()],
        };
        NodeFacts {
            host_dns,
            ..NodeFacts::default()
        }
    }

    fn dns(spec: &str, node: &NodeFacts) -> Option<DnsConfig> {
        pod_dns(&pod(&format!("{{\"containers\":[],{spec}}}")), node)
    }

    #[test]
    fn without_a_cluster_it_is_the_hosts() {
        assert_eq!(dns(r#""dnsPolicy":"ClusterFirst""#, &node()), None);
        assert_eq!(dns(r#""dnsPolicy":"Default""#, &node()), None);
        let found = dns(
            r#""dnsConfig":{"nameservers":["1.1.1.1"],"options":[{"name":"ndots","value":"2"},{"name":"rotate"}]}"#,
            &node(),
        );
        let found = found.unwrap();
        assert_eq!(found.servers, ["9.9.9.9", "1.1.1.1"]);
        assert_eq!(found.options, ["ndots:2", "rotate"]);
    }

    #[test]
    fn none_is_only_its_own() {
        let found = dns(
            r#""dnsPolicy":"None","dnsConfig":{"nameservers":["1","2","3","4"],"searches":["a","a"]}"#,
            &node(),
        )
        .unwrap();
        assert_eq!(found.servers, ["1", "2", "3"]);
        assert_eq!(found.searches, ["a"]);
    }

    #[test]
    fn with_a_cluster() {
        let node = NodeFacts {
            cluster_dns: vec![[10, 96, 0, 10].into()],
            cluster_domain: "cluster.local".into(),
            ..node()
        };
        let found = dns(r#""dnsPolicy":"ClusterFirst""#, &node).unwrap();
        assert_eq!(found.servers, ["10.96.0.10"]);
        assert_eq!(
            found.searches,
            [
                "default.svc.cluster.local",
                "svc.cluster.local",
                "cluster.local",
                "lan"
            ]
        );
        assert_eq!(found.options, ["ndots:5"]);
        assert_eq!(dns(r#""hostNetwork":true"#, &node), None);
        assert!(
            dns(
                r#""hostNetwork":true,"dnsPolicy":"ClusterFirstWithHostNet""#,
                &node
            )
            .is_some()
        );
    }
}

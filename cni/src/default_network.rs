//! The network that berth makes when none is configured.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::attachment::check_ifname;
use crate::conf::{self, NetConfList};
use crate::error::CniError;
use crate::firewall::short_hash;
use crate::lock::Lock;
use crate::netlink::{Netlink, UsedRoute};
use crate::result::PluginError;

/// Subnets to choose from, the first one that is free. They keep away from what others use by default: 10.42/16 and
/// 10.43/16 (k3s), 10.88/16 (podman), 10.96/12 (services), 10.244/16 (flannel), 172.16/12 (docker), 192.168/16 (homes).
const CANDIDATES: [&str; 8] = [
    "10.213.0.0/16",
    "10.197.0.0/16",
    "10.179.0.0/16",
    "10.151.0.0/16",
    "10.227.64.0/20",
    "172.31.192.0/20",
    "192.168.213.0/24",
    "100.127.208.0/20",
];

/// The network that berth makes when none is configured: a bridge with host-local addresses, masquerading and host
/// ports. It appears with the first pod and goes with the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefaultNetwork {
    /// The network's name.
    pub name: String,
    /// The bridge's interface name, unique in the host's network namespace.
    pub bridge: String,
    /// The nftables table's name, unique in the host's network namespace.
    pub table: String,
    /// The pods' subnets, at most one of each family. None: a free IPv4 subnet is chosen.
    pub subnets: Vec<IpNet>,
    /// The MTU of the pods' interfaces; `None` is 1500, or that of the host's default route if it is smaller.
    pub mtu: Option<u32>,
}

impl Default for DefaultNetwork {
    fn default() -> Self {
        DefaultNetwork {
            name: "berth".into(),
            bridge: "berth0".into(),
            table: "berth".into(),
            subnets: Vec::new(),
            mtu: None,
        }
    }
}

impl DefaultNetwork {
    /// Names for a node's state directory: the plain ones for the usual places, else such that several nodes on one
    /// machine don't meet on one bridge.
    pub fn for_state_dir(state_dir: &Path) -> Self {
        let usual = ["/var/lib/berth", "/run/berth"]
            .iter()
            .any(|dir| state_dir.starts_with(dir));
        if usual {
            return DefaultNetwork::default();
        }
        let suffix = short_hash(&state_dir.to_string_lossy(), 4);
        DefaultNetwork {
            bridge: format!("berth-{suffix}"),
            table: format!("berth-{suffix}"),
            ..DefaultNetwork::default()
        }
    }

    /// Checks the names and subnets.
    pub(crate) fn validate(&self) -> Result<(), CniError> {
        let wrong = |field: &str, problem: String| CniError::Config {
            file: source(),
            field: field.into(),
            problem,
        };
        check_ifname(&self.bridge).map_err(|e| wrong("bridge", e.to_string()))?;
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        let starts_well = self.table.starts_with(|c: char| c.is_ascii_alphabetic());
        if !starts_well || self.table.len() > 60 || !self.table.chars().all(legal) {
            return Err(wrong(
                "table",
                format!("{:?} is no name for an nftables table", self.table),
            ));
        }
        let families =
            [true, false].map(|v4| self.subnets.iter().filter(|s| s.addr().is_ipv4() == v4).count());
        if families.iter().any(|count| *count > 1) {
            return Err(wrong("subnets", "must have at most one of each family".into()));
        }
        for subnet in &self.subnets {
            if subnet.addr() != subnet.network() || subnet.max_prefix_len() - subnet.prefix_len() < 2 {
                return Err(wrong(
                    "subnets",
                    format!("{subnet} is no subnet that pods' addresses fit into"),
                ));
            }
        }
        Ok(())
    }

    /// The network's configuration for the next attachment. Chooses subnet and MTU, and remembers them, if the bridge is
    /// not there yet.
    pub(crate) fn prepare(&self, state_dir: &Path) -> Result<NetConfList, CniError> {
        let path = memory(state_dir);
        let lock_path = state_dir.join("default-network.lock");
        let _lock = Lock::exclusive(&lock_path).map_err(CniError::state("lock", &lock_path))?;
        let remembered: Option<Memory> = recall(&path)?;
        let unavailable = |e: PluginError| CniError::Unavailable(e.msg);
        let netlink = Netlink::open().map_err(unavailable)?;
        let bridge = || netlink.link(&self.bridge).map_err(unavailable);
        let mut remembered = remembered.filter(|memory| memory.bridge == self.bridge);
        let memory = match remembered.take_if(|_| matches!(bridge(), Ok(Some(_)))) {
            Some(memory) => memory,
            None => {
                let routes = netlink.routes().map_err(unavailable)?;
                // Whoever was told of the network before may have made the bridge meanwhile: its routes are no others'.
                let bridge = bridge()?;
                let memory = match remembered.filter(|_| bridge.is_some()) {
                    Some(memory) => memory,
                    None => self.decide(state_dir, &netlink, &routes, bridge.map(|link| link.index))?,
                };
                remember(&path, &memory)?;
                memory
            }
        };
        self.conf_list(&memory, state_dir)
    }

    fn decide(
        &self,
        state_dir: &Path,
        netlink: &Netlink,
        routes: &[UsedRoute],
        bridge: Option<u32>,
    ) -> Result<Memory, CniError> {
        let unavailable = |e: PluginError| CniError::Unavailable(e.msg);
        let foreign = routes
            .iter()
            .filter(|r| r.interface.is_none() || r.interface != bridge);
        let foreign: Vec<IpNet> = foreign.map(|r| r.dst).collect();
        let uplinks: Vec<u32> = routes
            .iter()
            .filter(|r| r.dst.prefix_len() == 0)
            .filter_map(|r| r.interface)
            .collect();
        // Packets that are too big for the way out would depend on messages that many networks drop.
        let mtu = match self.mtu {
            Some(mtu) => Some(mtu),
            None => {
                let links = netlink.links().map_err(unavailable)?;
                let narrow = links
                    .iter()
                    .filter(|link| uplinks.contains(&link.index))
                    .map(|link| link.mtu);
                narrow.filter(|mtu| (1280..1500).contains(mtu)).min()
            }
        };
        Ok(Memory {
            bridge: self.bridge.clone(),
            subnets: choose(&self.wanted(state_dir)?, &foreign)?,
            mtu,
        })
    }

    /// Remembers the subnets that the cluster gives to this node's pods (a node's `podCIDRs`), in place of those that are
    /// configured. They count from when the bridge is made next: pods that are there keep their addresses.
    ///
    /// # Errors
    /// They are no subnets for pods, or can't be written down.
    pub(crate) fn assign(&self, state_dir: &Path, pod_cidrs: &str) -> Result<(), CniError> {
        let wrong = |problem: String| CniError::Config {
            file: source(),
            field: "podCIDR".into(),
            problem,
        };
        let subnets = pod_cidrs
            .split(',')
            .map(|text| {
                text.trim()
                    .parse()
                    .map_err(|_| wrong(format!("{text:?} is no subnet")))
            })
            .collect::<Result<Vec<IpNet>, CniError>>()?;
        let assigned = DefaultNetwork {
            subnets,
            ..self.clone()
        };
        assigned.validate()?;
        let path = assignment(state_dir);
        if recall::<Vec<IpNet>>(&path)?.as_ref() == Some(&assigned.subnets) {
            return Ok(());
        }
        remember(&path, &assigned.subnets)
    }

    /// What the cluster has assigned, or what is configured.
    fn wanted(&self, state_dir: &Path) -> Result<Vec<IpNet>, CniError> {
        Ok(recall(&assignment(state_dir))?.unwrap_or_else(|| self.subnets.clone()))
    }

    /// The network's configuration as it was last prepared; `None` if it never was.
    pub(crate) fn last_prepared(&self, state_dir: &Path) -> Result<Option<NetConfList>, CniError> {
        let remembered = recall::<Memory>(&memory(state_dir))?.filter(|memory| memory.bridge == self.bridge);
        remembered
            .map(|memory| self.conf_list(&memory, state_dir))
            .transpose()
    }

    /// The network's configuration as it is or might be, without choosing anything.
    pub(crate) fn preview(&self, state_dir: &Path) -> Result<NetConfList, CniError> {
        match self.last_prepared(state_dir)? {
            Some(list) => Ok(list),
            None => {
                let subnets = choose(&self.wanted(state_dir)?, &[])?;
                let memory = Memory {
                    bridge: self.bridge.clone(),
                    subnets,
                    mtu: self.mtu,
                };
                self.conf_list(&memory, state_dir)
            }
        }
    }

    fn conf_list(&self, memory: &Memory, state_dir: &Path) -> Result<NetConfList, CniError> {
        let ranges: Vec<Value> = memory
            .subnets
            .iter()
            .map(|subnet| json!([{"subnet": subnet.to_string()}]))
            .collect();
        let list = json!({
            "cniVersion": "1.1.0",
            "name": self.name,
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": self.bridge,
                    "isDefaultGateway": true,
                    "ipMasq": true,
                    "hairpinMode": true,
                    "mtu": memory.mtu,
                    "ipam": {"type": "host-local", "ranges": ranges, "dataDir": state_dir.join("networks")},
                    "berth": {"table": self.table, "ephemeral": true, "owner": owner(state_dir)},
                },
                {
                    "type": "portmap",
                    "capabilities": {"portMappings": true},
                    "berth": {"table": self.table},
                },
            ],
        });
        conf::parse_list(list.to_string().as_bytes(), &source())
    }
}

/// What is written on the bridge; an interface's alias has at most 255 bytes.
fn owner(state_dir: &Path) -> String {
    let text = format!("berth {}", state_dir.display());
    match text.len() < 200 {
        true => text,
        false => format!("berth {}", short_hash(&text, 16)),
    }
}

fn source() -> PathBuf {
    PathBuf::from("of the default network")
}

#[derive(Serialize, Deserialize)]
struct Memory {
    bridge: String,
    #[serde(with = "as_text")]
    subnets: Vec<IpNet>,
    #[serde(default)]
    mtu: Option<u32>,
}

mod as_text {
    use super::{Deserialize, IpNet, Serialize};

    pub(super) fn serialize<S: serde::Serializer>(
        subnets: &[IpNet],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        subnets
            .iter()
            .map(IpNet::to_string)
            .collect::<Vec<_>>()
            .serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<IpNet>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        texts
            .iter()
            .map(|text| text.parse().map_err(serde::de::Error::custom))
            .collect()
    }
}

fn memory(state_dir: &Path) -> PathBuf {
    state_dir.join("default-network.json")
}

fn assignment(state_dir: &Path) -> PathBuf {
    state_dir.join("pod-cidr.json")
}

fn recall<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, CniError> {
    match fs::read(path) {
        // A file that can't be understood says as much as none.
        Ok(text) => Ok(serde_json::from_slice(&text).ok()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(CniError::state("read", path)(e)),
    }
}

fn remember<T: Serialize>(path: &Path, memory: &T) -> Result<(), CniError> {
    let temporary = path.with_extension("tmp");
    let text = serde_json::to_vec(memory).map_err(|e| CniError::state("encode", path)(e.into()))?;
    let written = File::create(&temporary).and_then(|mut file| {
        file.write_all(&text)?;
        fs::rename(&temporary, path)
    });
    written.map_err(CniError::state("write", path))
}

/// The subnets: those that are configured if they are free, else the first candidate that is.
fn choose(configured: &[IpNet], used: &[IpNet]) -> Result<Vec<IpNet>, CniError> {
    let collides = |subnet: &IpNet| {
        let meets = |net: &&IpNet| net.prefix_len() > 0 && (net.contains(subnet) || subnet.contains(*net));
        used.iter().find(meets).copied()
    };
    if let Some((subnet, net)) = configured.iter().find_map(|s| Some((s, collides(s)?))) {
        return Err(CniError::Unavailable(format!(
            "the pods' subnet {subnet} can't be used: the host has a route to {net}; choose another one"
        )));
    }
    if !configured.is_empty() {
        return Ok(configured.to_vec());
    }
    let candidates = CANDIDATES.iter().filter_map(|text| text.parse().ok());
    let free = candidates.into_iter().find(|subnet| collides(subnet).is_none());
    free.map(|subnet| vec![subnet]).ok_or_else(|| {
        CniError::Unavailable(format!(
            "no subnet is free for pods: the host has routes to all of {}; configure one that it has no route to",
            CANDIDATES.join(", ")
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_first_free_candidate_is_chosen() {
        let table: [(&[&str], &str); 5] = [
            (&[], "10.213.0.0/16"),
            (&["0.0.0.0/0", "192.168.1.0/24"], "10.213.0.0/16"),
            (&["10.213.7.0/24"], "10.197.0.0/16"),
            (&["10.213.0.1/32", "10.196.0.0/15"], "10.179.0.0/16"),
            (&["10.0.0.0/8"], "172.31.192.0/20"),
        ];
        for (used, expected) in table {
            assert_eq!(choose(&[], &nets(used)).unwrap(), nets(&[expected]), "{used:?}");
        }
        let all = choose(
            &[],
            &nets(&["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"]),
        );
        assert!(all.unwrap_err().to_string().contains("no subnet is free"));
    }

    #[test]
    fn the_cluster_s_subnets_go_before_the_configured_ones() {
        let directory = tempfile::tempdir().unwrap();
        let network = DefaultNetwork::default();
        let wanted = || network.wanted(directory.path()).unwrap();
        assert_eq!(wanted(), []);
        network
            .assign(directory.path(), "10.1.0.0/24, fd00:1::/64")
            .unwrap();
        let both: Vec<IpNet> = ["10.1.0.0/24", "fd00:1::/64"]
            .iter()
            .map(|s| s.parse().unwrap())
            .collect();
        assert_eq!(wanted(), both);
        for bad in [
            "10.1.0.0",
            "10.1.0.1/24",
            "10.1.0.0/24,10.2.0.0/24",
            "10.1.0.0/31",
            "",
        ] {
            assert!(network.assign(directory.path(), bad).is_err(), "{bad}");
        }
        assert_eq!(wanted(), both);
    }

    #[test]
    fn a_configured_subnet_that_collides_is_refused_by_name() {
        let error = choose(&nets(&["10.5.0.0/16"]), &nets(&["10.5.3.0/24"]))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("10.5.0.0/16") && error.contains("10.5.3.0/24"),
            "{error}"
        );
        assert_eq!(
            choose(&nets(&["10.5.0.0/16"]), &nets(&["10.6.0.0/16"])).unwrap(),
            nets(&["10.5.0.0/16"])
        );
    }

    #[test]
    fn nodes_in_unusual_places_get_names_of_their_own() {
        let usual = DefaultNetwork::for_state_dir(Path::new("/var/lib/berth/cni"));
        assert_eq!(usual, DefaultNetwork::default());
        let one = DefaultNetwork::for_state_dir(Path::new("/tmp/one"));
        let two = DefaultNetwork::for_state_dir(Path::new("/tmp/two"));
        assert!(one.bridge != two.bridge && one.table != two.table);
        one.validate().unwrap();
        two.validate().unwrap();
    }
}

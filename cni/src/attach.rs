//! Attaching a sandbox.

use serde_json::{Map, Value, json};

use crate::attachment::Attachment;
use crate::chain::{self, Chain};
use crate::conf::NetConfList;
use crate::error::CniError;
use crate::firewall;
use crate::netns::NetNs;
use crate::network::AddResult;
use crate::node::{Node, Selected, unusable};
use crate::record::{ContainerRecords, Record};

impl Node {
    /// The intent is on disk before the first effect. What fails is taken back.
    pub(crate) fn add(&self, attachment: Attachment) -> Result<AddResult, CniError> {
        attachment.validate()?;
        let sandbox = self.open_sandbox(&attachment.netns)?;
        let _adding = self.attaching()?;
        let records = self.records.lock(&attachment.container_id)?;
        let added = self.add_locked(attachment, &sandbox, &records);
        match added {
            Ok(added) => Ok(added),
            Err(e) => {
                let error = self.name_the_pod(e);
                // Gives the directory back, unless it holds what is left to be removed. If that can't be done, the
                // next removal does it; the first error matters more.
                let _ = records.close();
                Err(error)
            }
        }
    }

    fn add_locked(
        &self,
        attachment: Attachment,
        sandbox: &NetNs,
        records: &ContainerRecords,
    ) -> Result<AddResult, CniError> {
        let ifname = attachment.ifname.clone();
        for stale in records
            .all()?
            .iter()
            .filter(|record| record.attachment.ifname == ifname)
        {
            self.detach(stale, None)?;
            records.remove(&ifname)?;
            // The new interface may need the old one's place.
            self.site.background.finish();
        }
        let (list, mut record) = self.intent(attachment, sandbox)?;
        records.write_intent(&record)?;
        let chain = Chain::as_recorded(&self.site, &list, &record);
        let mut attach = || {
            chain::loopback(&self.site, sandbox)?;
            let (raw, result) = chain.add(&record)?;
            record.result = Some(raw.clone());
            records.write_result(&record)?;
            Ok((raw, result))
        };
        match attach() {
            Ok((raw, result)) => {
                let ips = result.sandbox_ips(&ifname);
                let network = list.name.clone();
                Ok(AddResult {
                    network,
                    ips,
                    dns: result.dns,
                    raw,
                })
            }
            Err(error) => {
                // What can't be taken back now stays recorded, and is by the next removal.
                if chain.del(&record, Some(&record.attachment.netns)).is_ok() {
                    records.remove(&ifname)?;
                }
                self.site.background.finish();
                Err(error)
            }
        }
    }

    /// What is going to be done, for the record.
    fn intent(&self, attachment: Attachment, netns: &NetNs) -> Result<(NetConfList, Record), CniError> {
        let Selected { list, is_default } = self.select(true)?;
        let built_in = Chain::choose(&self.site, &list, is_default).built_in()?;
        let netns_id = netns.id().map_err(|e| unusable(netns.path(), &e.to_string()))?;
        let record = Record {
            netns_id,
            network: list.to_json(),
            source: list.source.clone(),
            built_in,
            cni_args: cni_args(&attachment),
            capability_args: capability_args(&attachment),
            result: None,
            attachment,
        };
        Ok((list, record))
    }

    /// A port conflict with another pod is about pods, not about firewall elements.
    fn name_the_pod(&self, error: CniError) -> CniError {
        let CniError::PortConflict {
            port,
            protocol,
            taken_by,
        } = error
        else {
            return error;
        };
        let holder = self
            .records
            .container_ids()
            .unwrap_or_default()
            .iter()
            .flat_map(|id| self.records.peek(id))
            .find(|record| {
                let network = record.network["name"].as_str().unwrap_or_default();
                let Attachment {
                    container_id, ifname, ..
                } = &record.attachment;
                taken_by.ends_with(&format!(" {}", firewall::tag(network, container_id, ifname)))
            });
        let taken_by = match holder.map(|record| record.attachment) {
            Some(pod) => format!("the pod {}/{} has it", pod.pod_namespace, pod.pod_name),
            None => taken_by,
        };
        CniError::PortConflict {
            port,
            protocol,
            taken_by,
        }
    }
}

/// `CNI_ARGS` as Kubernetes runtimes fill it.
fn cni_args(attachment: &Attachment) -> String {
    format!(
        "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID={}",
        attachment.pod_namespace, attachment.pod_name, attachment.container_id, attachment.pod_uid
    )
}

/// What plugins with a capability are told (CNI conventions, "dynamic plugin specific fields").
fn capability_args(attachment: &Attachment) -> Map<String, Value> {
    let mut args = Map::new();
    if !attachment.port_mappings.is_empty() {
        args.insert("portMappings".into(), json!(attachment.port_mappings));
    }
    if let Some(dns) = &attachment.dns {
        let dns = json!({"servers": dns.nameservers, "searches": dns.search, "options": dns.options});
        args.insert("dns".into(), dns);
    }
    if let Some(bandwidth) = &attachment.bandwidth {
        args.insert("bandwidth".into(), json!(bandwidth));
    }
    args
}

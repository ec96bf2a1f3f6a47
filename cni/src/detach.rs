//! Detaching sandboxes, and finding what has no owner.

use std::collections::BTreeMap;
use std::path::Path;

use crate::attachment::check_container_id;
use crate::chain::Chain;
use crate::conf_dir;
use crate::error::CniError;
use crate::firewall::{Element, Firewall};
use crate::netns::NetNs;
use crate::node::Node;
use crate::record::Record;

impl Node {
    /// CHECK of all attachments of a sandbox.
    pub(crate) fn check(&self, container_id: &str) -> Result<(), CniError> {
        let records = self.records.lock(container_id)?;
        let all = records.all()?;
        if all.is_empty() {
            records.close()?;
            return Err(CniError::InvalidAttachment {
                field: "containerID",
                problem: format!("{container_id} has no attachment"),
            });
        }
        for record in &all {
            let list = record.network()?;
            Chain::as_recorded(&self.site, &list, record).check(record)?;
        }
        Ok(())
    }

    /// Whether there is anything to remove of a sandbox, by a look at the disk.
    pub(crate) fn has_attachments(&self, container_id: &str) -> Result<bool, CniError> {
        check_container_id(container_id)?;
        Ok(self.records.has(container_id))
    }

    /// Removes all attachments of a sandbox. None is fine.
    pub(crate) fn del(&self, container_id: &str, netns: Option<&Path>) -> Result<(), CniError> {
        self.del_locked(container_id, netns, &|_| false).map(drop)
    }

    /// True if there was anything to remove. The question is asked under the lock.
    fn del_locked(
        &self,
        container_id: &str,
        netns: Option<&Path>,
        is_live: &dyn Fn(&str) -> bool,
    ) -> Result<bool, CniError> {
        let _removing = self.attaching()?;
        let records = self.records.lock(container_id)?;
        if is_live(container_id) {
            return records.close().map(|()| false);
        }
        let mut outcome = Ok(());
        for record in records.all()? {
            let removed = self
                .detach(&record, netns)
                .and_then(|()| records.remove(&record.attachment.ifname));
            outcome = outcome.and(removed);
        }
        records.close()?;
        outcome.map(|()| true)
    }

    /// Takes an attachment away as its record says.
    pub(crate) fn detach(&self, record: &Record, netns: Option<&Path>) -> Result<(), CniError> {
        let list = record.network()?;
        let paths = netns.into_iter().chain([record.attachment.netns.as_path()]);
        // A path like /proc/4711/ns/net may belong to another process by now, or to the host: plugins that are sent
        // there would remove someone else's interface.
        let same = |path: &&Path| {
            let id = NetNs::open(path).and_then(|ns| ns.id());
            id.is_ok_and(|id| {
                id == record.netns_id && !NetNs::own().and_then(|ns| ns.id()).is_ok_and(|own| own == id)
            })
        };
        Chain::as_recorded(&self.site, &list, record).del(record, paths.into_iter().find(same))
    }

    /// Removes what has no live owner. Returns the sandboxes that were removed.
    pub(crate) fn reconcile(&self, is_live: &dyn Fn(&str) -> bool) -> Result<Vec<String>, CniError> {
        let mut removed = Vec::new();
        let mut outcome = Ok(());
        for id in self.records.container_ids()? {
            match self.del_locked(&id, None, is_live) {
                Ok(true) => removed.push(id),
                Ok(false) => {}
                Err(e) => outcome = outcome.and(Err(e)),
            }
        }
        let collected = self.collect_garbage();
        outcome.and(collected)?;
        Ok(removed)
    }

    /// GC of berth's own network and of the configured one, while no attachment is made or removed. Plugins that take long
    /// are called off when a pod comes or goes.
    fn collect_garbage(&self) -> Result<(), CniError> {
        let _collecting = self.collecting()?;
        let all = self.records.all()?;
        let of_network = |name: &str| {
            let of = all.iter().filter(|record| record.network["name"] == name);
            of.map(|record| record.attachment.clone()).collect::<Vec<_>>()
        };
        let own = self.config.default_network.as_ref();
        let own = own
            .map(|own| own.last_prepared(&self.config.state_dir))
            .transpose()?
            .flatten();
        let mut outcome = Ok(());
        if let Some(list) = own {
            outcome = Chain::choose(&self.site, &list, true).gc(&of_network(&list.name), &self.wanted());
        }
        // A directory that can't be read is for `status` to complain about.
        let configured = conf_dir::find(&self.config.conf_dir).map(|found| found.network);
        let called_off = matches!(outcome, Err(CniError::CalledOff { .. }));
        if let (Ok(Some(list)), false) = (configured, called_off) {
            let done = Chain::choose(&self.site, &list, false).gc(&of_network(&list.name), &self.wanted());
            outcome = outcome.and(done);
        }
        let restored = self.restore_firewall(&all);
        outcome.and(restored)
    }

    /// Puts elements back that someone else removed: reloading a host's firewall often begins with
    /// `flush ruleset`, which takes berth's table as well.
    fn restore_firewall(&self, all: &[Record]) -> Result<(), CniError> {
        let mut wanted: BTreeMap<String, Vec<Element>> = BTreeMap::new();
        for record in all.iter().filter(|record| record.result.is_some()) {
            let list = record.network()?;
            for (table, elements) in Chain::as_recorded(&self.site, &list, record).firewall(record)? {
                wanted.entry(table).or_default().extend(elements);
            }
        }
        for (table, elements) in wanted.iter().filter(|(_, elements)| !elements.is_empty()) {
            Firewall {
                table,
                script: self.site.firewall_script(),
            }
            .restore(elements)
            .map_err(|e| CniError::Unavailable(e.msg))?;
        }
        Ok(())
    }
}

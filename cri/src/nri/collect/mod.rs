//! What all plugins together want of a container that is being made, and of others.
//!
//! Plugins are asked one after the other, and each sees the container as those before it want it. A name that begins with
//! `-` takes away what it names.

mod linux;
mod others;

use std::collections::BTreeMap;

use super::NriError;
use super::api::{self, Container, ContainerAdjustment, CreateContainerResponse, Field, KeyValue};
use super::owners::Owners;

pub(super) use others::Others;

/// What a name that begins with `-` takes away.
pub(super) fn removed(name: &str) -> Option<&str> {
    name.strip_prefix('-')
}

/// The wishes of the plugins that were asked so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Wishes {
    /// The container as the next plugin sees it.
    pub(super) container: Container,
    pub(super) adjust: ContainerAdjustment,
    pub(super) others: Others,
}

impl Wishes {
    pub(super) fn new(container: Container) -> Self {
        Self {
            container,
            ..Default::default()
        }
    }

    /// Adds what a plugin wants.
    pub(super) fn add(&mut self, reply: CreateContainerResponse, plugin: &str) -> Result<(), NriError> {
        if let Some(adjust) = reply.adjust {
            self.adjust(adjust, plugin)?;
        }
        if reply
            .update
            .iter()
            .any(|update| update.container_id == self.container.id)
        {
            return Err(NriError::impossible(
                "an update of the container that is being made",
                format!("{plugin} has to adjust it instead"),
            ));
        }
        self.others.add(reply.update, plugin)?;
        self.others.evictions.extend(reply.evict);
        Ok(())
    }

    fn adjust(&mut self, adjust: ContainerAdjustment, plugin: &str) -> Result<(), NriError> {
        let id = self.container.id.clone();
        let owners = &mut self.others.owners;
        let mut claim = |field: Field| owners.claim(&id, field, plugin);
        if let Some(first) = adjust.args.first() {
            if first.is_empty() {
                // An empty first argument takes away what a plugin before has set.
                self.adjust.args.clear();
                self.others.owners.clear(&id, Field::Args, plugin);
                self.others.owners.claim(&id, Field::Args, plugin)?;
                self.adjust.args = adjust.args.iter().skip(1).cloned().collect();
            } else {
                claim(Field::Args)?;
                self.adjust.args.clone_from(&adjust.args);
            }
            self.container.args.clone_from(&self.adjust.args);
        }
        let owners = &mut self.others.owners;
        let mut merge = |field, from: &BTreeMap<String, String>, to, shown| {
            merge_map(owners, (&id, field, plugin), from, to, shown)
        };
        merge(
            Field::Annotations,
            &adjust.annotations,
            &mut self.adjust.annotations,
            &mut self.container.annotations,
        )?;
        self.adjust_env(&id, adjust.env, plugin)?;
        self.adjust_mounts(&id, adjust.mounts, plugin)?;
        if let Some(hooks) = adjust.hooks {
            self.adjust_hooks(&id, hooks, plugin);
        }
        for limit in adjust.rlimits {
            let owners = &mut self.others.owners;
            owners.claim_entry(&id, Field::Rlimits, &limit.r#type, plugin)?;
            self.container
                .rlimits
                .retain(|known| known.r#type != limit.r#type);
            self.container.rlimits.push(limit.clone());
            self.adjust.rlimits.push(limit);
        }
        for device in adjust.cdi_devices {
            let owners = &mut self.others.owners;
            owners.claim_entry(&id, Field::CdiDevices, &device.name, plugin)?;
            self.adjust.cdi_devices.push(device);
        }
        match adjust.linux {
            Some(linux) => self.adjust_linux(&id, linux, plugin),
            None => Ok(()),
        }
    }

    fn adjust_env(&mut self, id: &str, env: Vec<KeyValue>, plugin: &str) -> Result<(), NriError> {
        let (gone, set): (Vec<_>, Vec<_>) = env
            .into_iter()
            .partition(|variable| removed(&variable.key).is_some());
        let name = |variable: &String| {
            variable
                .split_once('=')
                .map_or_else(|| variable.clone(), |(name, _)| name.to_owned())
        };
        for variable in gone {
            let key = variable.key.trim_start_matches('-').to_owned();
            self.adjust
                .env
                .retain(|known| known.key != key && known.key != variable.key);
            self.container.env.retain(|known| name(known) != key);
            let owners = &mut self.others.owners;
            owners.clear_entry(id, Field::Env, &key, plugin);
            self.adjust.env.push(variable);
        }
        for variable in set {
            let owners = &mut self.others.owners;
            owners.claim_entry(id, Field::Env, &variable.key, plugin)?;
            self.container.env.retain(|known| name(known) != variable.key);
            self.container
                .env
                .push(format!("{}={}", variable.key, variable.value));
            self.adjust.env.push(variable);
        }
        Ok(())
    }

    fn adjust_mounts(&mut self, id: &str, mounts: Vec<api::Mount>, plugin: &str) -> Result<(), NriError> {
        let (gone, set): (Vec<_>, Vec<_>) = mounts
            .into_iter()
            .partition(|mount| removed(&mount.destination).is_some());
        for mount in gone {
            let target = removed(&mount.destination).unwrap_or_default().to_owned();
            self.adjust
                .mounts
                .retain(|known| known.destination != target && known.destination != mount.destination);
            self.container.mounts.retain(|known| known.destination != target);
            let owners = &mut self.others.owners;
            owners.clear_entry(id, Field::Mounts, &target, plugin);
            self.adjust.mounts.push(mount);
        }
        for mount in set {
            let owners = &mut self.others.owners;
            owners.claim_entry(id, Field::Mounts, &mount.destination, plugin)?;
            self.container
                .mounts
                .retain(|known| known.destination != mount.destination);
            self.container.mounts.push(mount.clone());
            self.adjust.mounts.push(mount);
        }
        Ok(())
    }

    fn adjust_hooks(&mut self, id: &str, hooks: api::Hooks, plugin: &str) {
        self.others.owners.join(id, Field::OciHooks, plugin);
        for target in [&mut self.adjust.hooks, &mut self.container.hooks] {
            let target = target.get_or_insert_default();
            target.prestart.extend(hooks.prestart.clone());
            target.create_runtime.extend(hooks.create_runtime.clone());
            target.create_container.extend(hooks.create_container.clone());
            target.start_container.extend(hooks.start_container.clone());
            target.poststart.extend(hooks.poststart.clone());
            target.poststop.extend(hooks.poststop.clone());
        }
    }
}

/// Merges a map of which a plugin sets and takes away entries. What is taken away stays in `to` by its marked name.
fn merge_map<T: Clone>(
    owners: &mut Owners,
    (id, field, plugin): (&str, Field, &str),
    from: &BTreeMap<String, T>,
    to: &mut BTreeMap<String, T>,
    shown: &mut BTreeMap<String, T>,
) -> Result<(), NriError> {
    for (marked, value) in from {
        if let Some(name) = removed(marked) {
            owners.clear_entry(id, field, name, plugin);
            to.remove(name);
            shown.remove(name);
            to.insert(marked.clone(), value.clone());
        }
    }
    for (name, value) in from {
        if removed(name).is_none() {
            owners.claim_entry(id, field, name, plugin)?;
            to.insert(name.clone(), value.clone());
            shown.insert(name.clone(), value.clone());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nri::api::{ContainerUpdate, LinuxResources};

    fn variable(key: &str, value: &str) -> KeyValue {
        KeyValue {
            key: key.into(),
            value: value.into(),
        }
    }

    fn reply(adjust: ContainerAdjustment) -> CreateContainerResponse {
        CreateContainerResponse {
            adjust: Some(adjust),
            ..Default::default()
        }
    }

    fn container() -> Container {
        Container {
            id: "c".into(),
            env: vec!["A=0".into(), "B=0".into()],
            ..Default::default()
        }
    }

    #[test]
    fn the_next_plugin_sees_what_the_one_before_wants() {
        let mut wishes = Wishes::new(container());
        let adjust = ContainerAdjustment {
            env: vec![variable("A", "1"), variable("-B", "")],
            annotations: [("k".to_owned(), "v".to_owned())].into(),
            ..Default::default()
        };
        wishes.add(reply(adjust), "00-a").unwrap();
        assert_eq!(wishes.container.env, ["A=1"]);
        assert_eq!(wishes.container.annotations["k"], "v");
        let again = ContainerAdjustment {
            env: vec![variable("A", "2")],
            ..Default::default()
        };
        let error = wishes
            .clone()
            .add(reply(again.clone()), "10-b")
            .unwrap_err()
            .to_string();
        assert!(error.contains("10-b and 00-a"), "{error}");
        let replaced = ContainerAdjustment {
            env: vec![variable("-A", ""), variable("A", "2")],
            ..Default::default()
        };
        wishes.add(reply(replaced), "10-b").unwrap();
        assert_eq!(wishes.container.env, ["A=2"]);
        let left: Vec<&str> = wishes.adjust.env.iter().map(|env| env.key.as_str()).collect();
        assert_eq!(left, ["-B", "-A", "A"]);
    }

    #[test]
    fn updates_of_one_container_become_one() {
        let limit = |bytes| ContainerUpdate {
            container_id: "other".into(),
            linux: Some(api::LinuxContainerUpdate {
                resources: Some(LinuxResources {
                    memory: Some(api::LinuxMemory {
                        limit: Some(api::OptionalInt64 { value: bytes }),
                        ..Default::default()
                    }),
                    ..Default::default()
                }),
            }),
            ignore_failure: false,
        };
        let mut others = Others::default();
        others.add(vec![limit(1)], "00-a").unwrap();
        let error = others.add(vec![limit(2)], "10-b").unwrap_err().to_string();
        assert!(error.contains("MemLimit"), "{error}");
        let forgiving = ContainerUpdate {
            ignore_failure: true,
            ..limit(3)
        };
        others.add(vec![forgiving], "10-b").unwrap();
        assert_eq!(others.updates, [limit(1)]);
        let mut wishes = Wishes::new(container());
        let own = ContainerUpdate {
            container_id: "c".into(),
            ..Default::default()
        };
        let reply = CreateContainerResponse {
            update: vec![own],
            ..Default::default()
        };
        wishes.add(reply, "00-a").unwrap_err();
    }
}

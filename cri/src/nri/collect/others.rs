//! What plugins want of containers that are there.

use crate::nri::api::{ContainerEviction, ContainerUpdate, LinuxResources};
use crate::nri::owners::Owners;
use crate::nri::{NriError, limits};

/// Changes of other containers.
#[derive(Clone, Debug, Default)]
pub(in crate::nri) struct Others {
    pub(in crate::nri) updates: Vec<ContainerUpdate>,
    pub(in crate::nri) evictions: Vec<ContainerEviction>,
    pub(in crate::nri) owners: Owners,
}

impl Others {
    /// Adds what a plugin wants of containers that are there. What conflicts and may fail is left out.
    pub(in crate::nri) fn add(
        &mut self,
        updates: Vec<ContainerUpdate>,
        plugin: &str,
    ) -> Result<(), NriError> {
        for update in updates {
            let empty = LinuxResources::default();
            let resources = update
                .linux
                .as_ref()
                .and_then(|linux| linux.resources.as_ref())
                .unwrap_or(&empty);
            let mut owners = self.owners.clone();
            match limits::claim(&mut owners, resources, &update.container_id, plugin) {
                Err(_) if update.ignore_failure => continue,
                claimed => claimed?,
            }
            self.owners = owners;
            let known = self
                .updates
                .iter_mut()
                .find(|known| known.container_id == update.container_id);
            match known {
                Some(known) => {
                    known.ignore_failure &= update.ignore_failure;
                    let linux = known.linux.get_or_insert_default();
                    limits::merge(resources, linux.resources.get_or_insert_default());
                }
                None => self.updates.push(update),
            }
        }
        Ok(())
    }
}

//! A container that is about to be made: what plugins want of it, and those that have the last word.

use std::sync::Arc;

use prost::Message as _;

use super::NriError;
use super::api::{self, Container, Event};
use super::collect::Wishes;
use super::notify::Exit;
use super::plugin::Plugin;
use super::registry::{Hub, Nri, Phase};

impl Nri {
    /// A container is about to be made. Returns what plugins want of it; what they want of others is done.
    ///
    /// # Errors
    /// A plugin says no, or two want different things. All have been told that the container is gone.
    pub(crate) async fn create(&self, container: Container) -> Result<api::ContainerAdjustment, NriError> {
        let wishes = {
            let mut hub = self.hub.lock().await;
            let id = container.id.clone();
            hub.add_container(&container, Phase::Created);
            match hub.wishes(container).await {
                Ok(wishes) => {
                    hub.keep_container(&wishes.container);
                    wishes
                }
                Err(error) => {
                    // What they want of others falls with the container.
                    let _ = hub.stop(&id, Exit::default()).await;
                    hub.remove(&id).await;
                    return Err(error);
                }
            }
        };
        self.apply(wishes.others).await;
        Ok(wishes.adjust)
    }
}

impl Hub {
    async fn wishes(&mut self, container: Container) -> Result<Wishes, NriError> {
        let pod = self.pod(&container.pod_sandbox_id).unwrap_or_default();
        let pristine = container.clone();
        let mut wishes = Wishes::new(container);
        let plugins = self.asked();
        for plugin in &plugins {
            let request = api::CreateContainerRequest {
                pod: Some(pod.clone()),
                container: Some(wishes.container.clone()),
            };
            let reply = plugin
                .ask::<api::CreateContainerResponse>(Event::CreateContainer, &request.encode_to_vec())
                .await?;
            wishes.add(reply.unwrap_or_default(), &plugin.name())?;
        }
        self.validate(pod, pristine, &wishes, &plugins).await?;
        Ok(wishes)
    }

    /// Asks the plugins that guard what others want.
    async fn validate(
        &self,
        pod: api::PodSandbox,
        pristine: Container,
        wishes: &Wishes,
        plugins: &[Arc<Plugin>],
    ) -> Result<(), NriError> {
        let instance = |plugin: &Arc<Plugin>| api::PluginInstance {
            name: plugin.base.clone(),
            index: plugin.index.clone(),
        };
        let request = api::ValidateContainerAdjustmentRequest {
            pod: Some(pod),
            container: Some(pristine),
            adjust: Some(wishes.adjust.clone()),
            update: wishes.others.updates.clone(),
            owners: Some(wishes.others.owners.0.clone()),
            plugins: plugins.iter().map(instance).collect(),
        };
        let event = Event::ValidateContainerAdjustment;
        for plugin in plugins
            .iter()
            .filter(|plugin| plugin.wants(event) && !plugin.is_gone())
        {
            let reply: Option<api::ValidateContainerAdjustmentResponse> =
                plugin.ask(event, &request.encode_to_vec()).await?;
            let reason = match reply {
                Some(reply) if !reply.reject => continue,
                Some(reply) if reply.reason.is_empty() => "it gives no reason".to_owned(),
                Some(reply) => reply.reason,
                // Unlike the others, a plugin that guards is not done without.
                None => "it did not answer".to_owned(),
            };
            return Err(NriError::Refused {
                plugin: plugin.name(),
                request: "ValidateContainerAdjustment",
                reason,
            });
        }
        Ok(())
    }
}

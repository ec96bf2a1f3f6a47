//! What a plugin is told first: all pods and containers that there are.

use prost::Message as _;

use super::api;
use super::frame::MAX_BODY;
use super::plugin::Plugin;

/// What a request adds to the message in it.
const REQUEST_OVERHEAD: usize = 4 << 10;

impl Plugin {
    /// Tells the plugin of all pods and containers, in as many messages as that takes, and returns what it wants changed.
    ///
    /// # Errors
    /// A sentence on what the plugin did wrong.
    pub(super) async fn synchronize(
        &self,
        pods: Vec<api::PodSandbox>,
        containers: Vec<api::Container>,
    ) -> Result<Vec<api::ContainerUpdate>, String> {
        let deadline = tokio::time::Instant::now() + self.timeouts.registration;
        let mut pages = pages(pods, containers);
        let last = pages.pop().unwrap_or_default();
        for mut page in pages {
            page.more = true;
            let reply = self.send_page(page, deadline).await?;
            if !reply.more || !reply.update.is_empty() {
                return Err(format!("{} does not take a state in several parts.", self.name()));
            }
        }
        Ok(self.send_page(last, deadline).await?.update)
    }

    async fn send_page(
        &self,
        page: api::SynchronizeRequest,
        deadline: tokio::time::Instant,
    ) -> Result<api::SynchronizeResponse, String> {
        let left = deadline.saturating_duration_since(tokio::time::Instant::now());
        self.call("Synchronize", page.encode_to_vec(), left)
            .await
            .map_err(|error| format!("{} could not be synchronized: {error}.", self.name()))
    }
}

/// Pods first, in messages that each fit the protocol.
fn pages(pods: Vec<api::PodSandbox>, containers: Vec<api::Container>) -> Vec<api::SynchronizeRequest> {
    let mut pages = vec![api::SynchronizeRequest::default()];
    let mut size = 0;
    // A field of a message: a byte of tag and at most five of length.
    let mut room = |pages: &mut Vec<api::SynchronizeRequest>, length: usize| {
        size += length + 6;
        if size > MAX_BODY - REQUEST_OVERHEAD {
            pages.push(api::SynchronizeRequest::default());
            size = length + 6;
        }
    };
    for pod in pods {
        room(&mut pages, pod.encoded_len());
        if let Some(page) = pages.last_mut() {
            page.pods.push(pod);
        }
    }
    for container in containers {
        room(&mut pages, container.encoded_len());
        if let Some(page) = pages.last_mut() {
            page.containers.push(container);
        }
    }
    pages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_cut_into_messages_that_fit() {
        let pods: Vec<api::PodSandbox> = (0..500)
            .map(|number| api::PodSandbox {
                id: number.to_string(),
                name: "x".repeat(30_000),
                ..Default::default()
            })
            .collect();
        let containers = vec![api::Container::default(); 10];
        let pages = pages(pods.clone(), containers);
        assert!(pages.len() > 3);
        assert!(pages.iter().all(|page| page.encoded_len() <= MAX_BODY));
        let sent: Vec<api::PodSandbox> = pages.iter().flat_map(|page| page.pods.clone()).collect();
        assert_eq!(sent, pods);
        assert_eq!(pages.last().unwrap().containers.len(), 10);
        assert_eq!(super::pages(Vec::new(), Vec::new()).len(), 1);
    }
}

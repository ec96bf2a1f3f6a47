//! One plugin: how it registers, what it wants to know, and how it is told.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use prost::Message;
use tokio::net::UnixStream;
use tokio::sync::oneshot;

use super::api::{self, Event};
use super::connection::{CallError, Connection, Service, Status};
use super::frame::MAX_BODY;
use super::{NriError, Runtime, Timeouts, lock};

/// What a request adds to the message in it.
const REQUEST_OVERHEAD: usize = 4 << 10;
/// The release of NRI that this is.
const NRI_VERSION: &str = "v0.12.0";

/// A plugin that has registered and been configured.
#[derive(Debug)]
pub(super) struct Plugin {
    /// Two digits: plugins are asked in this order.
    pub(super) index: String,
    /// Its name without the index.
    pub(super) base: String,
    /// One bit for each event that it wants to know of.
    events: i32,
    /// It is from before NRI 0.11, which has one method for most events.
    old: AtomicBool,
    connection: Connection,
    timeouts: Timeouts,
}

/// Who a plugin is, if the runtime knows that before it registers.
#[derive(Clone, Debug, Default)]
pub(super) struct Identity {
    pub(super) index: String,
    pub(super) base: String,
    /// Handed to the plugin as it is.
    pub(super) config: String,
}

/// What a plugin calls.
struct Face {
    /// Gone once the plugin has registered.
    registration: Mutex<Option<oneshot::Sender<api::RegisterPluginRequest>>>,
    runtime: Arc<dyn Runtime>,
}

#[async_trait]
impl Service for Face {
    async fn serve(&self, method: &str, payload: &[u8]) -> Result<Vec<u8>, Status> {
        match method {
            "RegisterPlugin" => self.register(read(payload)?),
            "UpdateContainers" => self.update(read(payload)?).await,
            _ => Err(Status::new(
                Status::UNIMPLEMENTED,
                format!("There is no method {method:?}."),
            )),
        }
    }
}

fn read<T: Message + Default>(payload: &[u8]) -> Result<T, Status> {
    T::decode(payload)
        .map_err(|error| Status::new(Status::INVALID_ARGUMENT, format!("That is no request: {error}.")))
}

impl Face {
    fn register(&self, request: api::RegisterPluginRequest) -> Result<Vec<u8>, Status> {
        let Some(registration) = lock(&self.registration).take() else {
            return Err(Status::new(
                Status::FAILED_PRECONDITION,
                "The plugin has registered already.",
            ));
        };
        // Whoever waits may have given up; the socket is closed then.
        let _ = registration.send(request);
        Ok(api::Empty {}.encode_to_vec())
    }

    async fn update(&self, request: api::UpdateContainersRequest) -> Result<Vec<u8>, Status> {
        if lock(&self.registration).is_some() {
            return Err(Status::new(
                Status::FAILED_PRECONDITION,
                "A plugin registers before it updates containers.",
            ));
        }
        let failed = self.runtime.update(request.update).await;
        self.runtime.evict(request.evict).await;
        Ok(api::UpdateContainersResponse { failed }.encode_to_vec())
    }
}

impl Plugin {
    /// Waits for a plugin to register and configures it.
    ///
    /// # Errors
    /// A sentence on what the plugin did wrong. It is closed then.
    pub(super) async fn register(
        socket: UnixStream,
        runtime: Arc<dyn Runtime>,
        given: Option<Identity>,
        timeouts: Timeouts,
    ) -> Result<Self, String> {
        let (sender, registered) = oneshot::channel();
        let face = Face {
            registration: Mutex::new(Some(sender)),
            runtime,
        };
        let connection = Connection::open(socket, Arc::new(face));
        let registered = tokio::select! {
            registered = tokio::time::timeout(timeouts.registration, registered) => registered,
            () = connection.closed() => return Err("It left before it registered.".to_owned()),
        };
        let request = registered
            .map_err(|_| {
                format!(
                    "It did not register within {} ms.",
                    timeouts.registration.as_millis()
                )
            })?
            .map_err(|_| "It left before it registered.".to_owned())?;
        let identity = given.unwrap_or(Identity {
            index: request.plugin_idx,
            base: request.plugin_name,
            config: String::new(),
        });
        check_name(&identity)?;
        let mut plugin = Self {
            index: identity.index,
            base: identity.base,
            events: 0,
            old: AtomicBool::new(false),
            connection,
            timeouts,
        };
        plugin.configure(identity.config).await?;
        Ok(plugin)
    }

    async fn configure(&mut self, config: String) -> Result<(), String> {
        let millis = |timeout: Duration| i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX);
        let request = api::ConfigureRequest {
            config,
            runtime_name: "berth".to_owned(),
            runtime_version: env!("CARGO_PKG_VERSION").to_owned(),
            registration_timeout: millis(self.timeouts.registration),
            request_timeout: millis(self.timeouts.request),
            nri_version: NRI_VERSION.to_owned(),
        };
        let timeout = self.timeouts.request;
        let reply: api::ConfigureResponse = self
            .call("Configure", request.encode_to_vec(), timeout)
            .await
            .map_err(|error| format!("{} could not be configured: {error}.", self.name()))?;
        let all = (1 << (Event::Last as i32 - 1)) - 1;
        if reply.events & !all != 0 {
            return Err(format!(
                "{} asks for events that there are not: {:#x}.",
                self.name(),
                reply.events & !all
            ));
        }
        // Upstream's rule: who asks for nothing gets everything.
        self.events = if reply.events == 0 { all } else { reply.events };
        Ok(())
    }

    /// Index and name, as the plugin's file would be called.
    pub(super) fn name(&self) -> String {
        format!("{}-{}", self.index, self.base)
    }

    pub(super) fn wants(&self, event: Event) -> bool {
        self.events & (1 << (event as i32 - 1)) != 0
    }

    pub(super) fn is_gone(&self) -> bool {
        self.connection.is_closed()
    }

    pub(super) fn close(&self) {
        self.connection.close();
    }

    /// Returns when the plugin is gone.
    pub(super) fn gone(&self) -> impl Future<Output = ()> + Send + use<> {
        self.connection.closed()
    }

    async fn call<R: Message + Default>(
        &self,
        method: &str,
        payload: Vec<u8>,
        timeout: Duration,
    ) -> Result<R, CallError> {
        let reply = self.connection.call(method, payload, timeout).await?;
        R::decode(reply.as_slice()).map_err(|error| {
            self.close();
            CallError::Unreadable(error)
        })
    }

    /// Asks the plugin about an event that it wants to know of. `None` from one that does not, that is gone, or that
    /// took too long and is closed: a plugin that fails must not keep pods from running.
    ///
    /// # Errors
    /// The plugin says no.
    pub(super) async fn ask<R: Message + Default>(
        &self,
        event: Event,
        payload: &[u8],
    ) -> Result<Option<R>, NriError> {
        if !self.wants(event) || self.is_gone() {
            return Ok(None);
        }
        let reply = self
            .call(method(event), payload.to_vec(), self.timeouts.request)
            .await;
        self.judge(event, reply)
    }

    /// Tells the plugin of an event that has no answer, in the way that it knows.
    ///
    /// # Errors
    /// The plugin says no.
    pub(super) async fn tell(&self, event: Event, notice: &Notice) -> Result<(), NriError> {
        if !self.wants(event) || self.is_gone() {
            return Ok(());
        }
        let timeout = self.timeouts.request;
        if !self.old.load(Ordering::Relaxed) {
            let reply = self
                .call::<api::Empty>(method(event), notice.request(), timeout)
                .await;
            match reply {
                Err(CallError::Refused(status)) if status.code == Status::UNIMPLEMENTED => {
                    self.old.store(true, Ordering::Relaxed);
                }
                reply => return self.judge(event, reply).map(|_| ()),
            }
        }
        let reply = self
            .call::<api::Empty>("StateChange", notice.state_change(event), timeout)
            .await;
        self.judge(event, reply).map(|_| ())
    }

    fn judge<R>(&self, event: Event, reply: Result<R, CallError>) -> Result<Option<R>, NriError> {
        match reply {
            Ok(reply) => Ok(Some(reply)),
            Err(CallError::Refused(status)) => Err(NriError::Refused {
                plugin: self.name(),
                request: method(event),
                reason: status.message,
            }),
            Err(error) => {
                tracing::warn!(
                    "The NRI plugin {} is closed; it failed to handle {}: {error}.",
                    self.name(),
                    method(event)
                );
                self.close();
                Ok(None)
            }
        }
    }

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

    /// Tells the plugin that the runtime goes away.
    pub(super) async fn shut_down(&self) {
        let timeout = self.timeouts.request;
        let _ = self
            .call::<api::Empty>("Shutdown", api::Empty {}.encode_to_vec(), timeout)
            .await;
        self.close();
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

/// What an event is about.
#[derive(Clone, Debug, Default)]
pub(super) struct Notice {
    pub(super) pod: api::PodSandbox,
    pub(super) container: Option<api::Container>,
}

impl Notice {
    /// The requests of all events that have no answer look alike: 1 is the pod, 2 the container if there is one.
    fn request(&self) -> Vec<u8> {
        let request = api::StartContainerRequest {
            pod: Some(self.pod.clone()),
            container: self.container.clone(),
        };
        request.encode_to_vec()
    }

    fn state_change(&self, event: Event) -> Vec<u8> {
        let request = api::StateChangeEvent {
            event: event.into(),
            pod: Some(self.pod.clone()),
            container: self.container.clone(),
        };
        request.encode_to_vec()
    }
}

fn method(event: Event) -> &'static str {
    match event {
        Event::RunPodSandbox => "RunPodSandbox",
        Event::StopPodSandbox => "StopPodSandbox",
        Event::RemovePodSandbox => "RemovePodSandbox",
        Event::CreateContainer => "CreateContainer",
        Event::PostCreateContainer => "PostCreateContainer",
        Event::StartContainer => "StartContainer",
        Event::PostStartContainer => "PostStartContainer",
        Event::UpdateContainer => "UpdateContainer",
        Event::PostUpdateContainer => "PostUpdateContainer",
        Event::StopContainer => "StopContainer",
        Event::RemoveContainer => "RemoveContainer",
        Event::UpdatePodSandbox => "UpdatePodSandbox",
        Event::PostUpdatePodSandbox => "PostUpdatePodSandbox",
        Event::ValidateContainerAdjustment => "ValidateContainerAdjustment",
        Event::Unknown | Event::Last => "StateChange",
    }
}

/// Upstream's rules for names: two digits, and what a file can be called.
pub(super) fn check_name(identity: &Identity) -> Result<(), String> {
    let digits = |text: &str| text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(&identity.index) {
        return Err(format!(
            "A plugin's index is two digits, not {:?}.",
            identity.index
        ));
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte);
    if identity.base.is_empty() || !identity.base.bytes().all(plain) {
        return Err(format!(
            "A plugin's name is made of letters, digits and -_.+, not {:?}.",
            identity.base
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let name = |index: &str, base: &str| Identity {
            index: index.into(),
            base: base.into(),
            config: String::new(),
        };
        for good in [name("00", "a"), name("99", "logger_1.0+x-y")] {
            check_name(&good).unwrap();
        }
        for bad in [
            name("0", "a"),
            name("0a", "a"),
            name("000", "a"),
            name("00", ""),
            name("00", "a b"),
        ] {
            check_name(&bad).unwrap_err();
        }
    }

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

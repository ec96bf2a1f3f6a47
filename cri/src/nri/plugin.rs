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
use super::identity::Identity;
use super::notice::{Notice, method};
use super::{NriError, Runtime, Timeouts, lock};

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
    pub(super) timeouts: Timeouts,
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
        identity.check()?;
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

    pub(super) async fn call<R: Message + Default>(
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

    /// Tells the plugin that the runtime goes away.
    pub(super) async fn shut_down(&self) {
        let timeout = self.timeouts.request;
        let _ = self
            .call::<api::Empty>("Shutdown", api::Empty {}.encode_to_vec(), timeout)
            .await;
        self.close();
    }
}

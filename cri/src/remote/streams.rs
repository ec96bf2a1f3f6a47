//! Exec, attach and port-forward: the runtime gives a URL, and the streams are behind it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::link::ask;
use super::{Inner, Result};
use crate::engine::{EngineError, EventStream};
use crate::session::{Session, StreamOptions};
use crate::streaming::client::{self, Failure, Transport};
use crate::types::{ContainerId, ContainerState, EngineEventKind, SandboxId};
use crate::v1;

/// How much later than the end of its streams a container's end may be known.
const END_IS_KNOWN: Duration = Duration::from_secs(10);

impl Inner {
    /// WebSocket first, and SPDY where the server does not have what is needed of it. Each attempt needs a URL of its own.
    async fn stream<T, U, C>(
        &self,
        verb: &str,
        url: impl Fn() -> U,
        connect: impl Fn(String, Transport) -> C,
    ) -> Result<T>
    where
        U: Future<Output = Result<String>>,
        C: Future<Output = std::result::Result<T, Failure>>,
    {
        let failed = |failure: Failure| {
            EngineError::Unavailable(format!(
                "{verb} by way of {} failed: {}.",
                self.link.who(),
                failure.message()
            ))
        };
        if !self.spdy_only.load(Ordering::Relaxed) {
            match connect(url().await?, Transport::WebSocket).await {
                Ok(connected) => return Ok(connected),
                Err(Failure::Refused(why)) => {
                    tracing::debug!("SPDY takes the place of WebSocket: {why}");
                    self.spdy_only.store(true, Ordering::Relaxed);
                }
                Err(failure) => return Err(failed(failure)),
            }
        }
        connect(url().await?, Transport::Spdy).await.map_err(failed)
    }
}

/// A command in a running container, to be talked to.
pub(super) async fn exec(
    inner: &Arc<Inner>,
    id: &ContainerId,
    command: Vec<String>,
    options: StreamOptions,
) -> Result<Session> {
    options.validate()?;
    let url = || async {
        let message = v1::ExecRequest {
            container_id: id.0.clone(),
            cmd: command.clone(),
            tty: options.tty,
            stdin: options.stdin,
            stdout: options.stdout,
            stderr: options.stderr,
        };
        Ok(ask!(inner.link, "Exec", runtime.exec(message)).await?.url)
    };
    let connect = |url: String, transport| async move {
        client::session((&url, &inner.trust), options, transport, async { Ok(0) }.boxed()).await
    };
    inner.stream("Exec", url, connect).await
}

/// The streams of a running container itself.
pub(super) async fn attach(inner: &Arc<Inner>, id: &ContainerId, options: StreamOptions) -> Result<Session> {
    let (status, _) = inner.container_status(id, false).await?;
    if matches!(status.state, ContainerState::Exited | ContainerState::Unknown) {
        return Err(EngineError::FailedPrecondition(format!(
            "Container {id} does not run."
        )));
    }
    let options = StreamOptions {
        // A terminal has one output, whatever the caller believes.
        stderr: options.stderr && !status.config.tty,
        tty: status.config.tty,
        // Who has none gets no input, whatever the caller would say.
        stdin: options.stdin && status.config.stdin,
        ..options
    };
    options.validate()?;
    let url = || async {
        let message = v1::AttachRequest {
            container_id: id.0.clone(),
            tty: options.tty,
            stdin: options.stdin,
            stdout: options.stdout,
            stderr: options.stderr,
        };
        Ok(ask!(inner.link, "Attach", runtime.attach(message)).await?.url)
    };
    let connect = |url: String, transport| async move {
        let end = end_of(Arc::clone(inner), id.clone(), inner.subscribe());
        client::session((&url, &inner.trust), options, transport, end).await
    };
    inner.stream("Attach", url, connect).await
}

/// The exit code of a container whose streams have ended.
fn end_of(inner: Arc<Inner>, id: ContainerId, mut events: EventStream) -> BoxFuture<'static, Result<i32>> {
    async move {
        let code = async || -> Result<Option<i32>> {
            let (status, _) = inner.container_status(&id, false).await?;
            let ended = matches!(status.state, ContainerState::Exited | ContainerState::Unknown);
            Ok(ended.then_some(status.exit_code))
        };
        if let Some(code) = code().await? {
            return Ok(code);
        }
        let exited = EngineEventKind::ContainerExited(id.clone());
        let known = async { while events.recv().await.is_some_and(|event| event.kind != exited) {} };
        let _ = timeout(END_IS_KNOWN, known).await;
        code().await?.ok_or_else(|| {
            EngineError::Unavailable(format!(
                "{} closed the streams of container {id}, which goes on.",
                inner.link.who()
            ))
        })
    }
    .boxed()
}

/// A TCP port of a sandbox's loopback.
pub(super) async fn port_forward(inner: &Arc<Inner>, id: &SandboxId, port: u16) -> Result<TcpStream> {
    let url = || async {
        let message = v1::PortForwardRequest {
            pod_sandbox_id: id.0.clone(),
            port: vec![port.into()],
        };
        Ok(ask!(inner.link, "PortForward", runtime.port_forward(message))
            .await?
            .url)
    };
    let connect =
        |url: String, transport| async move { client::forward((&url, &inner.trust), port, transport).await };
    inner.stream("PortForward", url, connect).await
}

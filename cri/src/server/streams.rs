//! From CRI's Exec, Attach and PortForward to the streaming server's URLs.

use tonic::Status;

use super::failure::status;
use super::lookup;
use crate::engine::{Engine, EngineError};
use crate::session::StreamOptions;
use crate::streaming::{AttachRequest, ExecRequest, PortForwardRequest, StreamingServer};
use crate::v1;

/// The URL of a command.
pub(super) async fn exec(
    engine: &dyn Engine,
    streaming: &StreamingServer,
    request: v1::ExecRequest,
) -> Result<v1::ExecResponse, Status> {
    let request = ExecRequest {
        container: lookup::container(engine, &request.container_id).await?,
        command: request.cmd,
        options: StreamOptions {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            tty: request.tty,
            // The client says so on the connection.
            size: None,
        },
    };
    let url = streaming.exec_url(request).await.map_err(status)?;
    Ok(v1::ExecResponse { url })
}

/// The URL of a container.
pub(super) async fn attach(
    engine: &dyn Engine,
    streaming: &StreamingServer,
    request: v1::AttachRequest,
) -> Result<v1::AttachResponse, Status> {
    let request = AttachRequest {
        container: lookup::container(engine, &request.container_id).await?,
        options: StreamOptions {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            tty: request.tty,
            // The client says so on the connection.
            size: None,
        },
    };
    let url = streaming.attach_url(request).await.map_err(status)?;
    Ok(v1::AttachResponse { url })
}

/// The URL of a sandbox's ports.
pub(super) async fn port_forward(
    engine: &dyn Engine,
    streaming: &StreamingServer,
    request: v1::PortForwardRequest,
) -> Result<v1::PortForwardResponse, Status> {
    let ports = request.port.into_iter().map(|port| match u16::try_from(port) {
        Ok(port @ 1..) => Ok(port),
        _ => Err(status(EngineError::InvalidArgument(format!(
            "port: {port} is not a port."
        )))),
    });
    let request = PortForwardRequest {
        sandbox: lookup::sandbox(engine, &request.pod_sandbox_id).await?,
        ports: ports.collect::<Result<_, _>>()?,
    };
    let url = streaming.port_forward_url(request).await.map_err(status)?;
    Ok(v1::PortForwardResponse { url })
}

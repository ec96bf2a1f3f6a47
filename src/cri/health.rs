//! `/healthz` and `/metrics`.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use berth_cri::Engine;
use berth_cri::server::Metrics;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

/// Prometheus' text format, as it wants to be called.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves both until the daemon ends.
///
/// # Errors
/// The address is taken, or not this machine's.
pub(super) async fn listen(
    address: SocketAddr,
    engine: Arc<dyn Engine>,
    metrics: Arc<Metrics>,
) -> Result<SocketAddr, String> {
    let failed = |error| format!("The metrics address {address} can't be listened on: {error}.");
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    tokio::spawn(async move {
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors or memory: later there may be some again.
                    tracing::warn!("A connection to {address} can't be taken: {error}.");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (engine, metrics) = (Arc::clone(&engine), Arc::clone(&metrics));
            tokio::spawn(async move {
                let service = service_fn(move |request| {
                    let (engine, metrics) = (Arc::clone(&engine), Arc::clone(&metrics));
                    async move { Ok::<_, Infallible>(answer(&request, engine.as_ref(), &metrics).await) }
                });
                // A client that goes away is no error of the daemon.
                let _ = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(std::time::Duration::from_secs(10))
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    Ok(bound)
}

async fn answer(
    request: &Request<Incoming>,
    engine: &dyn Engine,
    metrics: &Metrics,
) -> Response<Full<Bytes>> {
    match request.uri().path() {
        "/healthz" => match unhealthy(engine).await {
            None => text(StatusCode::OK, "text/plain; charset=utf-8", "ok".to_owned()),
            Some(why) => text(StatusCode::SERVICE_UNAVAILABLE, "text/plain; charset=utf-8", why),
        },
        "/metrics" => text(StatusCode::OK, OPENMETRICS, metrics.text(engine).await),
        _ => text(
            StatusCode::NOT_FOUND,
            "text/plain; charset=utf-8",
            "There is /healthz and /metrics.\n".to_owned(),
        ),
    }
}

/// Why the runtime can't run pods; a network that is not ready is the kubelet's to tell.
async fn unhealthy(engine: &dyn Engine) -> Option<String> {
    match engine.status(false).await {
        Ok(status) => status
            .conditions
            .into_iter()
            .find(|condition| condition.kind == "RuntimeReady" && !condition.status)
            .map(|condition| condition.message),
        Err(error) => Some(error.to_string()),
    }
}

fn text(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}

//! HTTP as far as to the upgrade: who asks with which token, and what is spoken from then on.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::activity::Activity;
use super::handshake::{self, Refusal};
use super::serve;
use super::{Shared, StreamRequest};

/// How long a client has for its TLS handshake, and for its request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// A request's head may not be longer, in bytes.
const MAX_HEAD: usize = 64 << 10;
/// How long to wait before accepting again when the system is out of something.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// A connection on which HTTP has ended.
pub(super) type Io = TokioIo<Upgraded>;

/// Accepts connections for as long as it is polled.
pub(super) async fn accept(shared: Arc<Shared>, listener: TcpListener, tls: Option<TlsAcceptor>) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("The streaming server can't accept a connection: {error}.");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        // Keystrokes are not to wait for more.
        let _ = stream.set_nodelay(true);
        let activity = match Activity::of(&stream) {
            Ok(activity) => activity,
            Err(error) => {
                tracing::warn!("The streaming server can't watch a connection: {error}.");
                continue;
            }
        };
        let (shared, tls) = (Arc::clone(&shared), tls.clone());
        tokio::spawn(async move {
            let mut stopping = shared.stopping.subscribe();
            let served = async {
                let Some(tls) = tls else {
                    return serve_http(shared, stream, activity).await;
                };
                match tokio::time::timeout(HEAD_TIMEOUT, tls.accept(stream)).await {
                    Ok(Ok(stream)) => serve_http(shared, stream, activity).await,
                    Ok(Err(error)) => tracing::debug!("A streaming client speaks no TLS: {error}."),
                    Err(_) => tracing::debug!("A streaming client was too slow to speak TLS."),
                }
            };
            tokio::select! {
                () = served => {}
                _ = stopping.wait_for(|stopping| *stopping) => {}
            }
        });
    }
}

async fn serve_http<T>(shared: Arc<Shared>, stream: T, activity: Activity)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| {
        let answer = handle(&shared, request, &activity);
        async move { Ok::<_, Infallible>(answer) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!("A streaming client's request failed: {error}.");
    }
}

fn handle(
    shared: &Arc<Shared>,
    mut request: Request<Incoming>,
    activity: &Activity,
) -> Response<Full<Bytes>> {
    let Some(wanted) = find(shared, &request) else {
        return refuse(Refusal {
            status: StatusCode::NOT_FOUND,
            message: "404 page not found".to_owned(),
            headers: HeaderMap::new(),
        });
    };
    let upgrade = hyper::upgrade::on(&mut request);
    let query = request.uri().query().unwrap_or_default().to_owned();
    let (method, version, headers) = (request.method(), request.version(), request.headers());
    let agreed = match wanted {
        StreamRequest::PortForward(wanted) => {
            handshake::port_forward(method, version, headers).and_then(|(protocol, answer)| {
                let work = serve::port_forward(Arc::clone(shared), wanted, protocol, &query)?;
                go_on(shared, upgrade, activity, work);
                Ok(answer)
            })
        }
        StreamRequest::Exec(wanted) => {
            handshake::remote_command(method, version, headers).map(|(protocol, answer)| {
                go_on(
                    shared,
                    upgrade,
                    activity,
                    serve::exec(Arc::clone(shared), wanted, protocol),
                );
                answer
            })
        }
        StreamRequest::Attach(wanted) => {
            handshake::remote_command(method, version, headers).map(|(protocol, answer)| {
                go_on(
                    shared,
                    upgrade,
                    activity,
                    serve::attach(Arc::clone(shared), wanted, protocol),
                );
                answer
            })
        }
    };
    match agreed {
        Ok(headers) => respond(StatusCode::SWITCHING_PROTOCOLS, headers, Bytes::new()),
        Err(refusal) => refuse(*refusal),
    }
}

/// The request of the path's token, which can't be used again.
fn find(shared: &Shared, request: &Request<Incoming>) -> Option<StreamRequest> {
    if !matches!(*request.method(), Method::GET | Method::POST) {
        return None;
    }
    let path = request.uri().path().strip_prefix(&shared.prefix)?;
    let (kind, token) = path.split_once('/')?;
    let wanted = shared.tokens.take(token)?;
    let fits = match &wanted {
        StreamRequest::Exec(_) => kind == "exec",
        StreamRequest::Attach(_) => kind == "attach",
        StreamRequest::PortForward(_) => kind == "portforward",
    };
    fits.then_some(wanted)
}

/// Does the work on the connection once HTTP has ended on it, until the server stops.
fn go_on<W, F>(shared: &Shared, upgrade: OnUpgrade, activity: &Activity, work: W)
where
    W: FnOnce(Io, Activity) -> F + Send + 'static,
    F: Future<Output = ()> + Send,
{
    let mut stopping = shared.stopping.subscribe();
    let activity = activity.clone();
    tokio::spawn(async move {
        // What came before was the handshake.
        activity.touch();
        let upgraded = match upgrade.await {
            Ok(upgraded) => upgraded,
            Err(error) => {
                tracing::debug!("A streaming client left before the upgrade: {error}.");
                return;
            }
        };
        tokio::select! {
            () = work(TokioIo::new(upgraded), activity) => {}
            _ = stopping.wait_for(|stopping| *stopping) => {}
        }
    });
}

fn refuse(mut refusal: Refusal) -> Response<Full<Bytes>> {
    tracing::debug!("A streaming client is refused: {}.", refusal.message);
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    refusal.headers.insert(CONTENT_TYPE, plain);
    refusal.message.push('\n');
    respond(refusal.status, refusal.headers, refusal.message.into())
}

fn respond(status: StatusCode, headers: HeaderMap, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

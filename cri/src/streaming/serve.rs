//! What is done on a connection on which HTTP has ended: a client's streams are opened, and led to the engine.

use std::collections::HashMap;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::activity::Activity;
use super::handshake::{Features, PortForward, Refusal, RemoteCommand, bad_request};
use super::http::Io;
use super::port_forward::{Forward, fail};
use super::remote_command::{self, Channels, FINISH, Target};
use super::spdy::{self, Stream};
use super::stream::{Input, Output};
use super::websocket::{self, Codec};
use super::{AttachRequest, ExecRequest, PortForwardRequest, Shared};
use crate::engine::EngineError;
use crate::session::{Session, StreamOptions};
use crate::types::SandboxId;

/// What is done on a connection.
pub(super) type Work = Box<dyn FnOnce(Io, Activity) -> BoxFuture<'static, ()> + Send>;

/// WebSocket channels of exec and attach.
pub(super) mod channel {
    pub(in crate::streaming) const STDIN: u8 = 0;
    pub(in crate::streaming) const STDOUT: u8 = 1;
    pub(in crate::streaming) const STDERR: u8 = 2;
    pub(in crate::streaming) const ERROR: u8 = 3;
    pub(in crate::streaming) const RESIZE: u8 = 4;
}

/// WebSocket clients can name so many ports: each has two channels, numbered by a byte, or by one character.
const MAX_PORTS: usize = 64;

/// Begins a session, given the options with what the client has said of its terminal by then.
type Start = Box<dyn FnOnce(StreamOptions) -> BoxFuture<'static, Result<Session, EngineError>> + Send>;

/// A session that a client wants.
struct Wanted {
    options: StreamOptions,
    target: Target,
    start: Start,
}

/// Serves a client of exec.
pub(super) fn exec(shared: Arc<Shared>, request: ExecRequest, protocol: RemoteCommand) -> Work {
    let ExecRequest {
        container,
        command,
        options,
    } = request;
    let (engine, target) = (Arc::clone(&shared.engine), Target::Command(command.clone()));
    let start: Start =
        Box::new(move |options| async move { engine.exec(&container, command, options).await }.boxed());
    remote_command(
        shared,
        protocol,
        Wanted {
            options,
            target,
            start,
        },
    )
}

/// Serves a client of attach.
pub(super) fn attach(shared: Arc<Shared>, request: AttachRequest, protocol: RemoteCommand) -> Work {
    let AttachRequest { container, options } = request;
    let engine = Arc::clone(&shared.engine);
    let start: Start =
        Box::new(move |options| async move { engine.attach(&container, options).await }.boxed());
    let target = Target::Container;
    remote_command(
        shared,
        protocol,
        Wanted {
            options,
            target,
            start,
        },
    )
}

fn remote_command(shared: Arc<Shared>, protocol: RemoteCommand, wanted: Wanted) -> Work {
    Box::new(move |io, activity| match protocol {
        RemoteCommand::WebSocket(codec, features) => {
            by_websocket(shared, (io, activity), codec, features, wanted).boxed()
        }
        RemoteCommand::Spdy(features) => by_spdy(shared, (io, activity), features, wanted).boxed(),
    })
}

/// Works until the client leaves. Once all is said it has some time for that; a connection on which nothing happens is
/// left by us.
async fn until_it_leaves(
    work: impl Future<Output = ()>,
    left: impl Future<Output = ()>,
    activity: &Activity,
    idle_timeout: Duration,
) {
    let work = async {
        work.await;
        tokio::time::sleep(FINISH).await;
    };
    tokio::select! {
        () = left => {}
        () = work => tracing::debug!("A streaming client did not leave when all was said."),
        () = activity.abandoned() => tracing::debug!("A streaming client has left what it sent unread."),
        () = activity.idle_for(idle_timeout) => {
            tracing::info!("A streaming connection was idle for {} s and is closed.", idle_timeout.as_secs());
        }
    }
}

async fn by_websocket(
    shared: Arc<Shared>,
    (io, activity): (Io, Activity),
    codec: Codec,
    features: Features,
    wanted: Wanted,
) {
    let Wanted {
        options,
        target,
        start,
    } = wanted;
    let readable = [options.stdin, false, false, false, true];
    let mut connection = websocket::Connection::new(io, codec, &readable, activity.clone()).await;
    let output = |wanted: bool, number| wanted.then(|| Output::WebSocket(connection.output(number)));
    let (stdout, stderr) = (
        output(options.stdout, channel::STDOUT),
        output(options.stderr, channel::STDERR),
    );
    let error = Output::WebSocket(connection.output(channel::ERROR));
    // As upstream, an empty message tells that the connection stands.
    let first = stdout.as_ref().or(stderr.as_ref()).unwrap_or(&error);
    let _ = first.write(Bytes::new()).await;
    let channels = Channels {
        stdout,
        stderr,
        error,
        stdin: connection.input(channel::STDIN),
        resize: connection.input(channel::RESIZE),
        json_status: features.json_status,
        refusals: Vec::new(),
    };
    let work = async {
        remote_command::serve(|size| start(StreamOptions { size, ..options }), target, channels).await;
        connection.close().await;
    };
    until_it_leaves(work, connection.closed(), &activity, shared.idle_timeout).await;
}

async fn by_spdy(shared: Arc<Shared>, (io, activity): (Io, Activity), features: Features, wanted: Wanted) {
    let Wanted {
        options,
        target,
        start,
    } = wanted;
    let mut connection = spdy::Connection::new(io, activity.clone());
    let streams = open_streams(&mut connection, options, features);
    let channels = match tokio::time::timeout(shared.creation_timeout, streams).await {
        Ok(Some(channels)) => channels,
        Ok(None) => return,
        Err(_) => {
            tracing::warn!("A streaming client did not open the streams that it said it would.");
            return;
        }
    };
    connection.refuse_streams();
    let work = remote_command::serve(|size| start(StreamOptions { size, ..options }), target, channels);
    until_it_leaves(work, connection.closed(), &activity, shared.idle_timeout).await;
}

/// Waits for the streams that the client said it wants; `None` if it leaves before.
async fn open_streams(
    connection: &mut spdy::Connection,
    options: StreamOptions,
    features: Features,
) -> Option<Channels> {
    let mut wanted: HashMap<&str, Option<(Input, Output)>> = HashMap::from([("error", None)]);
    for (name, is_wanted) in [
        ("stdin", options.stdin),
        ("stdout", options.stdout),
        ("stderr", options.stderr),
        ("resize", options.tty && features.resize),
    ] {
        if is_wanted {
            wanted.insert(name, None);
        }
    }
    while wanted.values().any(Option::is_none) {
        let stream = connection.next_stream().await?;
        let kind = stream.headers.get("streamtype").unwrap_or_default().to_owned();
        match wanted.get_mut(kind.as_str()) {
            Some(place @ None) => *place = Some(stream.accept()),
            Some(Some(_)) | None => {
                tracing::debug!("A streaming client's stream of type {kind:?} is refused.");
                stream.refuse();
            }
        }
    }
    let mut take = |name: &str| wanted.remove(name).flatten().unzip();
    let (stdin, resize) = (take("stdin"), take("resize"));
    Some(Channels {
        stdin: stdin.0,
        stdout: take("stdout").1,
        stderr: take("stderr").1,
        resize: resize.0,
        error: take("error").1?,
        json_status: features.json_status,
        refusals: [stdin.1, resize.1].into_iter().flatten().collect(),
    })
}

/// Serves a client of port-forward.
///
/// # Errors
/// It does not say which ports it wants, where it has to.
pub(super) fn port_forward(
    shared: Arc<Shared>,
    wanted: PortForwardRequest,
    protocol: PortForward,
    query: &str,
) -> Result<Work, Box<Refusal>> {
    let PortForwardRequest { sandbox, mut ports } = wanted;
    if let PortForward::WebSocket(_) = protocol {
        if ports.is_empty() {
            ports = ports_of(query).map_err(bad_request)?;
        }
        if ports.is_empty() || ports.len() > MAX_PORTS {
            return Err(bad_request(format!(
                "query parameter \"port\" is required, with 1 to {MAX_PORTS} ports"
            )));
        }
    }
    Ok(Box::new(move |io, activity| match protocol {
        PortForward::WebSocket(codec) => {
            forward_by_websocket(shared, (io, activity), sandbox, ports, codec).boxed()
        }
        PortForward::Spdy => forward_by_spdy(shared, (io, activity), sandbox).boxed(),
        PortForward::Tunnel => forward_by_tunnel(shared, (io, activity), sandbox).boxed(),
    }))
}

/// The ports of `port=80&port=443`, or `ports=80,443`.
fn ports_of(query: &str) -> Result<Vec<u16>, String> {
    let values = query
        .split('&')
        .filter_map(|pair| pair.strip_prefix("port=").or_else(|| pair.strip_prefix("ports=")));
    values
        .flat_map(|value| value.split(','))
        .map(|port| match port.parse() {
            Ok(port @ 1..) => Ok(port),
            _ => Err(format!("unable to parse {port:?} as a port")),
        })
        .collect()
}

async fn forward_by_websocket(
    shared: Arc<Shared>,
    (io, activity): (Io, Activity),
    sandbox: SandboxId,
    ports: Vec<u16>,
    codec: Codec,
) {
    let readable: Vec<bool> = ports.iter().flat_map(|_| [true, false]).collect();
    let mut connection = websocket::Connection::new(io, codec, &readable, activity.clone()).await;
    let mut forwards = Vec::new();
    for (port, data) in ports.into_iter().zip((0_u8..).step_by(2)) {
        let output = Output::WebSocket(connection.output(data));
        let error = Output::WebSocket(connection.output(data + 1));
        for output in [&output, &error] {
            let _ = output.write(Bytes::copy_from_slice(&port.to_le_bytes())).await;
        }
        let Some(input) = connection.input(data) else {
            continue;
        };
        forwards.push(Forward {
            sandbox: sandbox.clone(),
            port,
            input,
            output,
            error,
        });
    }
    let engine = Arc::clone(&shared.engine);
    let work = async {
        join_all(forwards.into_iter().map(|forward| forward.run(&*engine))).await;
        connection.close().await;
    };
    until_it_leaves(work, connection.closed(), &activity, shared.idle_timeout).await;
}

async fn forward_by_tunnel(shared: Arc<Shared>, (io, activity): (Io, Activity), sandbox: SandboxId) {
    let (inside, pump) = websocket::tunnel(io, websocket::Role::Server).await;
    // The pump ends when the client or the connection inside does.
    tokio::join!(pump, forward_by_spdy(shared, (inside, activity), sandbox));
}

async fn forward_by_spdy<T>(shared: Arc<Shared>, (io, activity): (T, Activity), sandbox: SandboxId)
where
    T: AsyncRead + AsyncWrite + Send + 'static,
{
    let mut connection = spdy::Connection::new(io, activity.clone());
    let left = connection.closed();
    let work = Forwarder {
        shared: Arc::clone(&shared),
        sandbox,
        pairs: HashMap::new(),
        running: JoinSet::new(),
    };
    until_it_leaves(work.run(&mut connection), left, &activity, shared.idle_timeout).await;
}

/// The forwarded connections of one SPDY connection: each has a pair of streams.
struct Forwarder {
    shared: Arc<Shared>,
    sandbox: SandboxId,
    pairs: HashMap<String, Pair>,
    running: JoinSet<()>,
}

/// A pair of which a stream is missing.
struct Pair {
    since: Instant,
    error: Option<Output>,
    data: Option<(u16, Input, Output)>,
}

impl Forwarder {
    async fn run(mut self, connection: &mut spdy::Connection) {
        loop {
            let oldest = self.pairs.values().map(|pair| pair.since).min();
            let expiry = async {
                match oldest {
                    Some(since) => sleep_until(since + self.shared.creation_timeout).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                stream = connection.next_stream() => match stream {
                    Some(stream) => self.take(stream).await,
                    None => return,
                },
                () = expiry => self.expire().await,
                Some(_) = self.running.join_next() => {}
            }
        }
    }

    async fn take(&mut self, stream: Stream) {
        let port = stream.headers.get("port").and_then(|port| port.parse().ok());
        let kind = stream.headers.get("streamtype").unwrap_or_default().to_owned();
        let (Some(port @ 1..), "error" | "data") = (port, kind.as_str()) else {
            tracing::debug!("A port-forward client's stream of type {kind:?} is refused.");
            return stream.refuse();
        };
        let is_data = kind == "data";
        let id = match stream.headers.get("requestid") {
            Some(id) if !id.is_empty() => id.to_owned(),
            // Old clients open the error stream of a pair first, and the other one right after it.
            _ if is_data => stream.id.saturating_sub(2).to_string(),
            _ => stream.id.to_string(),
        };
        let pair = self.pairs.entry(id.clone()).or_insert_with(|| Pair {
            since: Instant::now(),
            error: None,
            data: None,
        });
        let taken = if is_data {
            pair.data.is_some()
        } else {
            pair.error.is_some()
        };
        if taken {
            tracing::debug!("A port-forward client's second {kind} stream of request {id} is refused.");
            return stream.refuse();
        }
        let (input, output) = stream.accept();
        if is_data {
            pair.data = Some((port, input, output));
        } else {
            pair.error = Some(output);
        }
        if pair.data.is_some()
            && pair.error.is_some()
            && let Some(pair) = self.pairs.remove(&id)
        {
            self.forward(pair);
        }
    }

    fn forward(&mut self, pair: Pair) {
        let (Some((port, input, output)), Some(error)) = (pair.data, pair.error) else {
            return;
        };
        let forward = Forward {
            sandbox: self.sandbox.clone(),
            port,
            input,
            output,
            error,
        };
        let engine = Arc::clone(&self.shared.engine);
        self.running.spawn(async move { forward.run(&*engine).await });
    }

    /// Gives up on pairs whose other stream does not come.
    async fn expire(&mut self) {
        let now = Instant::now();
        let late = self.shared.creation_timeout;
        for (id, pair) in self.pairs.extract_if(|_, pair| pair.since + late <= now) {
            tracing::debug!("A port-forward client did not open both streams of request {id}.");
            if let Some((_, _, output)) = pair.data {
                let _ = output.reset().await;
            }
            if let Some(error) = pair.error {
                fail(&error, format!("(request={id}) timed out waiting for streams")).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_found_in_a_query() {
        assert_eq!(ports_of("port=80&x=1&port=443").unwrap(), [80, 443]);
        assert_eq!(ports_of("ports=80,8080").unwrap(), [80, 8080]);
        assert!(ports_of("x=1").unwrap().is_empty());
        for bad in ["port=0", "port=", "port=65536", "port=80,"] {
            assert!(ports_of(bad).is_err(), "{bad}");
        }
    }
}

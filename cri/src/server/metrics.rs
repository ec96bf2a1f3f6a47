//! What the daemon counts of itself, for Prometheus.

use std::fmt::Write;
use std::fs;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use tonic::codegen::Service;
use tonic::codegen::http::{Request, Response};

use crate::engine::Engine;
use crate::types::ContainerState;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Verb {
    operation: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    operation: String,
    code: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    state: &'static str,
}

/// What the daemon counts.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    operations: Family<Outcome, Counter>,
    durations: Family<Verb, Histogram>,
    sandboxes: Family<State, Gauge>,
    containers: Family<State, Gauge>,
    resident: Gauge,
    descriptors: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("berth_cri");
        let operations = Family::default();
        // From a tenth of a millisecond to some 26 seconds.
        let durations = Family::<Verb, Histogram>::new_with_constructor(|| {
            Histogram::new(exponential_buckets(1e-4, 2.0, 19))
        });
        let (sandboxes, containers) = (Family::default(), Family::default());
        let (resident, descriptors) = (Gauge::default(), Gauge::default());
        registry.register(
            "operations",
            "Calls that have ended, by gRPC code",
            operations.clone(),
        );
        registry.register_with_unit(
            "operation_duration",
            "How long calls take",
            Unit::Seconds,
            durations.clone(),
        );
        registry.register("sandboxes", "Pod sandboxes", sandboxes.clone());
        registry.register("containers", "Containers", containers.clone());
        registry.register_with_unit(
            "resident_memory",
            "The daemon's own memory",
            Unit::Bytes,
            resident.clone(),
        );
        registry.register("open_fds", "The daemon's open descriptors", descriptors.clone());
        Self {
            registry,
            operations,
            durations,
            sandboxes,
            containers,
            resident,
            descriptors,
        }
    }
}

impl Metrics {
    /// All of it in the OpenMetrics text format, with the engine's objects as they are now.
    pub async fn text(&self, engine: &dyn Engine) -> String {
        self.count_objects(engine).await;
        self.resident.set(resident_memory());
        let open = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        self.descriptors.set(i64::try_from(open).unwrap_or(i64::MAX));
        let mut text = String::new();
        if encode(&mut text, &self.registry).is_err() {
            let _ = write!(text, "# EOF");
        }
        text
    }

    async fn count_objects(&self, engine: &dyn Engine) {
        let sandboxes = engine.list_pod_sandboxes(None).await.unwrap_or_default();
        for (state, ready) in [("ready", true), ("notready", false)] {
            let count = sandboxes.iter().filter(|sandbox| sandbox.ready == ready).count();
            self.sandboxes
                .get_or_create(&State { state })
                .set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        let containers = engine.list_containers(None).await.unwrap_or_default();
        for (state, wanted) in [
            ("created", ContainerState::Created),
            ("running", ContainerState::Running),
            ("exited", ContainerState::Exited),
            ("unknown", ContainerState::Unknown),
        ] {
            let count = containers
                .iter()
                .filter(|container| container.state == wanted)
                .count();
            self.containers
                .get_or_create(&State { state })
                .set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    fn ended(&self, path: &str, code: &str, began: Instant) {
        // `/runtime.v1.RuntimeService/RunPodSandbox`; what is no verb of ours makes no series of its own.
        let known = path
            .strip_prefix("/runtime.v1.RuntimeService/")
            .or_else(|| path.strip_prefix("/runtime.v1.ImageService/"))
            .filter(|_| code != "12");
        let operation = known.unwrap_or("unknown").to_owned();
        let code = code.to_owned();
        self.durations
            .get_or_create(&Verb {
                operation: operation.clone(),
            })
            .observe(began.elapsed().as_secs_f64());
        self.operations.get_or_create(&Outcome { operation, code }).inc();
    }
}

/// proc(5): `VmRSS` of this process, in bytes.
fn resident_memory() -> i64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<i64>().ok());
    kibibytes.unwrap_or_default() * 1024
}

/// Counts the calls of a service.
#[derive(Clone, Debug)]
pub(super) struct Counted {
    metrics: Arc<Metrics>,
}

impl Counted {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics }
    }
}

impl<S> tower_layer::Layer<S> for Counted {
    type Service = CountedService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        CountedService {
            inner,
            metrics: Arc::clone(&self.metrics),
        }
    }
}

/// A service whose calls are counted.
#[derive(Clone, Debug)]
pub(super) struct CountedService<S> {
    inner: S,
    metrics: Arc<Metrics>,
}

impl<S, I, O> Service<Request<I>> for CountedService<S>
where
    S: Service<Request<I>, Response = Response<O>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<I>) -> Self::Future {
        let (began, path) = (Instant::now(), request.uri().path().to_owned());
        let metrics = Arc::clone(&self.metrics);
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            // An error comes in the head; a success in the trailers, after the message.
            let code = answer
                .headers()
                .get("grpc-status")
                .and_then(|code| code.to_str().ok());
            metrics.ended(&path, code.unwrap_or("0"), began);
            Ok(answer)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_verb_and_code() {
        let metrics = Metrics::default();
        let began = Instant::now();
        metrics.ended("/runtime.v1.RuntimeService/Version", "0", began);
        metrics.ended("/runtime.v1.RuntimeService/Version", "5", began);
        metrics.ended("/runtime.v1.ImageService/PullImage", "0", began);
        metrics.ended("/anything/at/all", "12", began);
        let mut text = String::new();
        encode(&mut text, &metrics.registry).unwrap();
        for line in [
            r#"berth_cri_operations_total{operation="Version",code="0"} 1"#,
            r#"berth_cri_operations_total{operation="Version",code="5"} 1"#,
            r#"berth_cri_operations_total{operation="PullImage",code="0"} 1"#,
            r#"berth_cri_operations_total{operation="unknown",code="12"} 1"#,
            r#"berth_cri_operation_duration_seconds_count{operation="Version"} 2"#,
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}

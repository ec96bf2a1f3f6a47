//! Lifecycle hooks: what a container asks to be done right after its start and right before its end.

use std::net::IpAddr;
use std::time::Duration;

use berth_cri::{ContainerId, Engine, EngineError};
use k8s_openapi::api::core::v1::{Container, LifecycleHandler};

use crate::defaults::{LIFECYCLE_USER_AGENT, MAX_PROBE_OUTPUT};
use crate::plan::HookOutcome;
use crate::prober::{HttpGet, NO_TLS, Outcome, http_get_attempt, of_http_get};

/// A hook of a running container.
#[derive(Clone, Debug)]
pub(crate) struct Hook {
    pub(crate) id: ContainerId,
    pub(crate) container: Container,
    pub(crate) handler: LifecycleHandler,
    /// The pod's address.
    pub(crate) ip: Option<IpAddr>,
}

/// Runs a hook to its end. `limit` is how long it may take; `None` is for ever. The caller may give up at any time by
/// dropping the future; a command is then ended by its own limit. `fell_back` is told of a request without TLS that took the
/// place of one with it.
pub(crate) async fn run(
    hook: &Hook,
    engine: &dyn Engine,
    limit: Option<Duration>,
    fell_back: &(dyn Fn(String) + Sync),
) -> HookOutcome {
    let handler = &hook.handler;
    if let Some(exec) = &handler.exec {
        run_command(hook, engine, exec.command.clone().unwrap_or_default(), limit).await
    } else if let Some(get) = &handler.http_get {
        match of_http_get(get, &hook.container, hook.ip) {
            Ok(get) => request(get, limit, fell_back).await,
            Err(message) => HookOutcome::Failed(message),
        }
    } else if let Some(sleep) = &handler.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
        HookOutcome::Succeeded
    } else {
        HookOutcome::Failed(
            "the hook is of a kind that is not supported; exec, httpGet and sleep are".to_owned(),
        )
    }
}

/// Any answer will do, as upstream has it; only the lack of one is a failure. A server without TLS that was to be asked with
/// it is asked once more without, but for the header that is a secret.
async fn request(
    mut get: HttpGet,
    limit: Option<Duration>,
    fell_back: &(dyn Fn(String) + Sync),
) -> HookOutcome {
    let is = |name: &str, header: &str| name.eq_ignore_ascii_case(header);
    if !get.headers.iter().any(|(name, _)| is(name, "user-agent")) {
        let agent = ("User-Agent".to_owned(), LIFECYCLE_USER_AGENT.to_owned());
        get.headers.push(agent);
    }
    let limit = limit.unwrap_or(Duration::MAX);
    match http_get_attempt(&get, limit).await {
        Outcome::Failure(message) if message.ends_with(NO_TLS) => {
            get.scheme = "HTTP".to_owned();
            get.headers.retain(|(name, _)| !is(name, "authorization"));
            let outcome = answered(http_get_attempt(&get, limit).await);
            if outcome == HookOutcome::Succeeded {
                fell_back(format!(
                    "request to HTTPS lifecycle hook {}:{} got HTTP response, retry with HTTP succeeded",
                    get.host, get.port
                ));
                return outcome;
            }
            HookOutcome::Failed(message)
        }
        outcome => answered(outcome),
    }
}

fn answered(outcome: Outcome) -> HookOutcome {
    match outcome {
        Outcome::Failure(message) if !message.starts_with("HTTP probe failed") => {
            HookOutcome::Failed(message)
        }
        _ => HookOutcome::Succeeded,
    }
}

async fn run_command(
    hook: &Hook,
    engine: &dyn Engine,
    command: Vec<String>,
    limit: Option<Duration>,
) -> HookOutcome {
    let shown = command.join(" ");
    match engine
        .exec_sync(
            &hook.id,
            command,
            limit.unwrap_or(Duration::ZERO),
            MAX_PROBE_OUTPUT,
        )
        .await
    {
        Ok(output) if output.exit_code == 0 => HookOutcome::Succeeded,
        Ok(output) => {
            let said = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
            let said = String::from_utf8_lossy(&said);
            HookOutcome::Failed(format!(
                "command '{shown}' exited with {}: {:?}",
                output.exit_code,
                said.trim()
            ))
        }
        Err(EngineError::DeadlineExceeded(_)) => {
            HookOutcome::Failed(format!("command '{shown}' did not end in time and was killed"))
        }
        Err(error) => HookOutcome::Failed(format!("command '{shown}' could not be run: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::worker::Clock;
    use crate::worker::fake::{Behaviour, FakeEngine};

    /// Answers what begins like HTTP, and closes on all else after saying so in HTTP. Returns what it was asked.
    async fn plain_server(connections: usize) -> (u16, tokio::task::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let served = tokio::spawn(async move {
            let mut asked = Vec::new();
            for _ in 0..connections {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = [0; 1024];
                let length = stream.read(&mut head).await.unwrap();
                asked.push(String::from_utf8_lossy(&head[..length]).to_lowercase());
                stream
                    .write_all(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
                    .await
                    .unwrap();
            }
            asked
        });
        (port, served)
    }

    fn get(scheme: &str, port: u16) -> HttpGet {
        let headers = [("Authorization", "secret"), ("X-Own", "1")];
        HttpGet {
            scheme: scheme.to_owned(),
            host: "127.0.0.1".to_owned(),
            port,
            path: "/bye".to_owned(),
            headers: headers
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
        }
    }

    #[tokio::test]
    async fn a_server_without_tls_is_asked_without_and_learns_no_secret() {
        let (port, served) = plain_server(2).await;
        let told = Mutex::new(Vec::new());
        let outcome = request(get("HTTPS", port), None, &|text| told.lock().unwrap().push(text)).await;
        assert_eq!(outcome, HookOutcome::Succeeded);
        assert_eq!(
            *told.lock().unwrap(),
            [format!(
                "request to HTTPS lifecycle hook 127.0.0.1:{port} got HTTP response, retry with HTTP succeeded"
            )]
        );
        let asked = served.await.unwrap();
        assert!(asked[1].starts_with("get /bye http/1.1"), "{asked:?}");
        assert!(asked[1].contains("x-own: 1"), "{asked:?}");
        assert!(asked[1].contains("user-agent: kube-lifecycle/"), "{asked:?}");
        assert!(!asked[1].contains("authorization"), "{asked:?}");
    }

    #[tokio::test]
    async fn any_answer_will_do_and_none_is_a_failure() {
        let nothing = |text: String| panic!("{text}");
        let (port, served) = plain_server(1).await;
        assert_eq!(
            request(get("HTTP", port), None, &nothing).await,
            HookOutcome::Succeeded
        );
        assert!(served.await.unwrap()[0].contains("authorization: secret"));
        // Nobody listens there any more.
        let outcome = request(get("HTTPS", port), None, &nothing).await;
        assert!(matches!(outcome, HookOutcome::Failed(_)), "{outcome:?}");
    }

    /// A hook of a container that is not there, in a pod that has no address yet.
    async fn outcome_of(handler: serde_json::Value, engine: &dyn Engine, id: &str) -> HookOutcome {
        let hook = Hook {
            id: ContainerId(id.to_owned()),
            container: Container::default(),
            handler: serde_json::from_value(handler).unwrap(),
            ip: None,
        };
        run(&hook, engine, Some(Duration::from_secs(5)), &|text| {
            panic!("{text}")
        })
        .await
    }

    #[tokio::test(start_paused = true)]
    async fn what_could_not_be_done_has_failed() {
        let engine = FakeEngine::new(Clock::system());
        for (handler, why) in [
            (
                serde_json::json!({ "exec": { "command": ["a", "b"] } }),
                "command 'a b' could not be run: ",
            ),
            (
                serde_json::json!({ "httpGet": { "port": 80 } }),
                "the pod has no address",
            ),
            (
                serde_json::json!({}),
                "the hook is of a kind that is not supported",
            ),
        ] {
            match outcome_of(handler, &engine, "c-0").await {
                HookOutcome::Failed(message) => assert!(message.starts_with(why), "{message}"),
                HookOutcome::Succeeded => panic!("{why}"),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_command_is_killed_when_its_time_is_over() {
        let (engine, id) = crate::testing::engine_with_container().await;
        for (takes, expected) in [
            (4, HookOutcome::Succeeded),
            (
                100,
                HookOutcome::Failed("command 'x' did not end in time and was killed".into()),
            ),
        ] {
            let behaviour = Behaviour {
                exec_takes: Duration::from_secs(takes),
                ..Behaviour::default()
            };
            engine.behave("c", behaviour);
            let handler = serde_json::json!({ "exec": { "command": ["x"] } });
            assert_eq!(outcome_of(handler, &engine, &id.0).await, expected);
        }
    }
}

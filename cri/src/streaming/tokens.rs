//! Requests that wait for the client whose URL they are: each can be taken once, and not for long.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::StreamRequest;
use crate::engine::EngineError;

/// How long a URL can be used.
pub(super) const LIFETIME: Duration = Duration::from_secs(60);
/// So many requests wait at most.
pub(super) const MAX_IN_FLIGHT: usize = 1000;

/// The requests that wait, by token.
#[derive(Debug, Default)]
pub(super) struct Tokens(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    requests: HashMap<String, StreamRequest>,
    /// When they expire, the earliest first. Some have been taken meanwhile.
    expiries: VecDeque<(Instant, String)>,
}

impl Waiting {
    fn expire(&mut self, now: Instant) {
        while let Some((expiry, token)) = self.expiries.front()
            && *expiry <= now
        {
            self.requests.remove(token);
            self.expiries.pop_front();
        }
    }
}

impl Tokens {
    /// Keeps a request, and tells its token.
    ///
    /// # Errors
    /// Too many wait already.
    pub(super) fn insert(&self, request: StreamRequest) -> Result<String, EngineError> {
        let token = random()?;
        let now = Instant::now();
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.expire(now);
        if waiting.requests.len() >= MAX_IN_FLIGHT {
            return Err(EngineError::Unavailable(format!(
                "maximum number of in-flight requests exceeded: {MAX_IN_FLIGHT} streaming URLs have not been used; \
                 each expires {} s after it was given out.",
                LIFETIME.as_secs()
            )));
        }
        waiting.expiries.push_back((now + LIFETIME, token.clone()));
        waiting.requests.insert(token.clone(), request);
        Ok(token)
    }

    /// Takes the request of a token: once, and in time.
    pub(super) fn take(&self, token: &str) -> Option<StreamRequest> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.expire(Instant::now());
        let request = waiting.requests.remove(token)?;
        waiting.expiries.retain(|(_, known)| known != token);
        Some(request)
    }
}

/// 32 random hexadecimal digits.
fn random() -> Result<String, EngineError> {
    let mut bytes = [0; 16];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| EngineError::Internal(format!("The kernel gives no random numbers: {error}.")))?;
    Ok(bytes.iter().fold(String::new(), |mut token, byte| {
        // Writing to a string can't fail.
        let _ = write!(token, "{byte:02x}");
        token
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::streaming::PortForwardRequest;
    use crate::types::SandboxId;

    fn request(port: u16) -> StreamRequest {
        StreamRequest::PortForward(PortForwardRequest {
            sandbox: SandboxId("s".into()),
            ports: vec![port],
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_good_once_and_for_a_minute() {
        let tokens = Tokens::default();
        let (first, second) = (
            tokens.insert(request(1)).unwrap(),
            tokens.insert(request(2)).unwrap(),
        );
        assert_ne!(first, second);
        assert_eq!(tokens.take(&first), Some(request(1)));
        assert_eq!(tokens.take(&first), None);
        tokio::time::advance(LIFETIME - Duration::from_secs(1)).await;
        let third = tokens.insert(request(3)).unwrap();
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(tokens.take(&second), None);
        assert_eq!(tokens.take(&third), Some(request(3)));
    }

    #[tokio::test(start_paused = true)]
    async fn there_are_only_so_many_and_room_comes_back() {
        let tokens = Tokens::default();
        let first = tokens.insert(request(0)).unwrap();
        for _ in 1..MAX_IN_FLIGHT {
            tokens.insert(request(1)).unwrap();
        }
        let error = tokens.insert(request(2)).unwrap_err().to_string();
        assert!(error.contains("maximum number of in-flight requests"), "{error}");
        tokens.take(&first).unwrap();
        tokens.insert(request(3)).unwrap();
        assert!(tokens.insert(request(4)).is_err());
        tokio::time::advance(LIFETIME).await;
        tokens.insert(request(5)).unwrap();
    }
}

//! Where exec, attach and port-forward are served: the configuration's `[streaming]`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use berth_cri::{StreamingConfig, TlsFiles};
use serde::Deserialize;

/// The table of the configuration. Empty texts are what is not given.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(super) struct Streaming {
    address: SocketAddr,
    base_url: String,
    tls_certificate: PathBuf,
    tls_key: PathBuf,
    idle_timeout: u64,
}

impl Streaming {
    /// What the streaming server is started with.
    ///
    /// # Errors
    /// Half a certificate, no time at all, or a network that could read along.
    pub(super) fn config(&self) -> Result<StreamingConfig, String> {
        let given = |path: &PathBuf| (!path.as_os_str().is_empty()).then(|| path.clone());
        let tls = match (given(&self.tls_certificate), given(&self.tls_key)) {
            (Some(certificate), Some(key)) => Some(TlsFiles { certificate, key }),
            (None, None) => None,
            _ => {
                return Err(
                    "streaming.tls_certificate and streaming.tls_key belong together: give both.".to_owned(),
                );
            }
        };
        if tls.is_none() && !self.address.ip().is_loopback() {
            return Err(format!(
                "streaming.address = \"{}\" would send what is typed into containers over the network as it is: give \
                 streaming.tls_certificate and streaming.tls_key, or a loopback address.",
                self.address
            ));
        }
        if self.idle_timeout == 0 {
            return Err("streaming.idle_timeout is at least 1 second.".to_owned());
        }
        Ok(StreamingConfig {
            address: self.address,
            base_url: (!self.base_url.is_empty()).then(|| self.base_url.clone()),
            tls,
            idle_timeout: Duration::from_secs(self.idle_timeout),
            ..StreamingConfig::default()
        })
    }
}

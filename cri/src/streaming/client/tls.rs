//! TLS with a streaming server.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::engine::EngineError;

/// A connection, with TLS or without.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Whose certificates are believed. By default nobody's: those of runtimes are of no authority that a machine knows.
#[derive(Clone, Default)]
pub(crate) struct Trust(Option<TlsConnector>);

impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Trust").field(&self.0.is_some()).finish()
    }
}

impl Trust {
    /// The authorities of a file in PEM, and no others.
    pub(crate) fn of_file(file: &Path) -> Result<Self, EngineError> {
        let unusable = |why: String| {
            EngineError::InvalidArgument(format!(
                "The certificate authorities of the runtime's streaming server, {}, can't be used: {why}.",
                file.display()
            ))
        };
        let certificates = CertificateDer::pem_file_iter(file)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| unusable(error.to_string()))?;
        if certificates.is_empty() {
            return Err(unusable("there is no certificate in the file".to_owned()));
        }
        let mut roots = RootCertStore::empty();
        for certificate in certificates {
            roots
                .add(certificate)
                .map_err(|error| unusable(error.to_string()))?;
        }
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(Some(TlsConnector::from(Arc::new(config)))))
    }

    /// Begins TLS with the host of that name. The error is a clause.
    pub(super) async fn begin(&self, host: String, stream: TcpStream) -> Result<Box<dyn Stream>, String> {
        let Some(connector) = &self.0 else {
            return Err(
                "wants TLS, and nobody's certificates are believed: name the file of its authority with \
                 --container-runtime-streaming-ca, or let it listen on a loopback address without TLS"
                    .to_owned(),
            );
        };
        let name = ServerName::try_from(host).map_err(|error| format!("has a strange name: {error}"))?;
        match connector.connect(name, stream).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => Err(format!("can't be trusted: {error}")),
        }
    }
}

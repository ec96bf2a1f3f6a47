//! TLS as a host's configuration wants it.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::http::roots;
use crate::hosts::Tls;

/// The client's side of TLS with a host. The error is a clause.
pub(super) fn config(tls: &Tls) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS can't be set up: {error}"))?;
    let builder = if tls.skip_verify {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(TakeAny(provider)))
    } else if tls.authorities.is_empty() {
        builder.with_root_certificates(Arc::clone(roots()))
    } else {
        let verifier = WebPkiServerVerifier::builder_with_provider(authorities(tls)?, provider)
            .build()
            .map_err(|error| format!("its certificate authorities can't be used: {error}"))?;
        builder.with_webpki_verifier(verifier)
    };
    let Some((certificate, key)) = &tls.client else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = certificates(certificate)?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(key, &error))?;
    builder.with_client_auth_cert(chain, secret).map_err(|error| {
        format!(
            "the client certificate {} can't be used: {error}",
            certificate.display()
        )
    })
}

/// The machine's authorities and the host's own.
fn authorities(tls: &Tls) -> Result<Arc<RootCertStore>, String> {
    let mut all = RootCertStore::clone(roots());
    for file in &tls.authorities {
        for certificate in certificates(file)? {
            all.add(certificate)
                .map_err(|error| format!("a certificate in {} can't be used: {error}", file.display()))?;
        }
    }
    Ok(Arc::new(all))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let all = read.map_err(|error| unreadable(file, &error))?;
    if all.is_empty() {
        return Err(format!("there is no certificate in {}", file.display()));
    }
    Ok(all)
}

fn unreadable(file: &Path, error: &dyn std::fmt::Display) -> String {
    format!("the file {} can't be read as PEM: {error}", file.display())
}

/// `skip_verify`: whoever answers is believed to be the host.
#[derive(Debug)]
struct TakeAny(Arc<CryptoProvider>);

impl ServerCertVerifier for TakeAny {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

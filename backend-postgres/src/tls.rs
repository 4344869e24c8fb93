//! TLS by rustls, as far as libpq's `sslmode` asks for it.

use std::path::Path;
use std::sync::Arc;

use litefleet::{Error, Result};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::{PostgresConfig, Verify};

/// Looks at less of a certificate than the usual: its signatures always, its authority unless nothing is verified, its
/// name never.
#[derive(Debug)]
struct Lenient {
    provider: Arc<CryptoProvider>,
    /// `None` when nothing is verified.
    authority: Option<Arc<WebPkiServerVerifier>>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(authority) = &self.authority else { return Ok(ServerCertVerified::assertion()) };
        match authority.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The name comes last: all else was right.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            outcome => outcome,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// What makes TLS connections. `None` with `sslmode=disable`.
pub(crate) fn connector(config: &PostgresConfig) -> Result<Option<MakeRustlsConnect>> {
    if config.server.get_ssl_mode() == SslMode::Disable {
        return Ok(None);
    }
    // Named here, not the process's default: the application may have another, or none.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let authority = match config.verify {
        Verify::Nothing => None,
        Verify::Authority | Verify::Full => {
            let roots = Arc::new(roots(config.root_certificates.as_deref())?);
            let built = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider)).build();
            Some(built.map_err(|e| tls_error("the authorities of sslrootcert cannot be used", e))?)
        }
    };
    let verifier: Arc<dyn ServerCertVerifier> = match (config.verify, authority) {
        (Verify::Full, Some(strict)) => strict,
        (_, authority) => Arc::new(Lenient { provider: Arc::clone(&provider), authority }),
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| tls_error("TLS cannot be set up", e))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut client = match &config.client_certificate {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = certificates("sslcert", certificate)?;
            let key = PrivateKeyDer::from_pem_file(key)
                .map_err(|e| tls_error(&format!("sslkey {} cannot be read", key.display()), e))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|e| tls_error("sslcert and sslkey do not fit each other", e))?
        }
    };
    // What `sslnegotiation=direct` needs, and servers that do not know it ignore.
    client.alpn_protocols = vec![b"postgresql".to_vec()];
    Ok(Some(MakeRustlsConnect::new(client)))
}

fn roots(file: Option<&Path>) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    if let Some(file) = file {
        for certificate in certificates("sslrootcert", file)? {
            roots
                .add(certificate)
                .map_err(|e| tls_error(&format!("sslrootcert {} has no certificate in it", file.display()), e))?;
        }
        return Ok(roots);
    }
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let reasons: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        return Err(Error::invalid(format!(
            "this system has no list of certificate authorities ({}): name a file with sslrootcert",
            reasons.join("; ")
        )));
    }
    Ok(roots)
}

fn certificates(parameter: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let unreadable = |e| tls_error(&format!("{parameter} {} cannot be read", file.display()), e);
    let found: Vec<_> = CertificateDer::pem_file_iter(file)
        .map_err(unreadable)?
        .collect::<Result<_, _>>()
        .map_err(unreadable)?;
    if found.is_empty() {
        return Err(Error::invalid(format!("{parameter} {} has no certificate in it", file.display())));
    }
    Ok(found)
}

fn tls_error(what: &str, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::invalid(format!("{what}: {error}")).with_source(error)
}

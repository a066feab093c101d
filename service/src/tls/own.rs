//! A client of the service's own listener, on its own machine.
//!
//! It takes the certificate that stands in the listener's file, and no other: not what an authority
//! signed, and whatever names and dates it has. Where clients need a certificate, it shows the same.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::version::{TLS12, TLS13};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme};

use super::{Tls, TlsError, certificates, clients, pair, private_key};

/// A client of the listener that has `tls`, which is on.
///
/// If the listener asks clients for certificates, an own one that it would refuse is an error
/// here: after a handshake of TLS 1.3 the reason for a refusal may be lost with the connection.
pub(crate) fn own_client(tls: &Tls) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let chain = certificates(&tls.certificate)?;
    let Some((own, between)) = chain.split_first() else {
        return Err(pair(tls, rustls::Error::NoCertificatesPresented));
    };
    let only = Only {
        certificate: own.clone(),
        algorithms: provider.signature_verification_algorithms,
    };
    let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|source| pair(tls, source))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(only));
    let Some(admitted) = clients(tls, provider)? else {
        return Ok(client.with_no_client_auth());
    };
    let verified = admitted.verify_client_cert(own, between, UnixTime::now());
    verified.map_err(|source| TlsError::OwnRefused {
        client_ca: tls.client_ca.clone(),
        certificate: tls.certificate.clone(),
        source,
    })?;
    client
        .with_client_auth_cert(chain, private_key(&tls.key)?)
        .map_err(|source| pair(tls, source))
}

/// Takes one certificate, from whoever has its key.
#[derive(Debug)]
struct Only {
    certificate: CertificateDer<'static>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Only {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _between: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if *shown == self.certificate {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

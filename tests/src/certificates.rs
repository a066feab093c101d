//! Certificates for one test: an authority, and what it signs.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// An authority of one's own.
pub struct Authority {
    /// The file of its certificate.
    pub file: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, as PEM.
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// The key.
    pub key: String,
}

impl Authority {
    /// An authority of this name; its certificate is kept in `folder`.
    pub fn new(name: &str, folder: &Path) -> anyhow::Result<Self> {
        let mut params = CertificateParams::new([name.to_owned()])?;
        // A certificate is taken for one that signed itself if it bears its issuer's name.
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        let file = folder.join(format!("{name}.pem"));
        std::fs::write(&file, params.self_signed(&key)?.pem())?;
        Ok(Self {
            file,
            issuer: Issuer::new(params, key),
        })
    }

    /// A certificate for this machine, whose owner is `owner`.
    pub fn sign(&self, owner: &str) -> anyhow::Result<Pair> {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, owner);
        let key = KeyPair::generate()?;
        Ok(Pair {
            certificate: params.signed_by(&key, &self.issuer)?.pem(),
            key: key.serialize_pem(),
        })
    }
}

impl Pair {
    /// Writes both to `folder` and gives their files.
    pub fn keep(&self, folder: &Path, name: &str) -> anyhow::Result<[PathBuf; 2]> {
        let files = ["crt", "key"].map(|kind| folder.join(format!("{name}.{kind}")));
        let [certificate, key] = &files;
        std::fs::write(certificate, &self.certificate)?;
        std::fs::write(key, &self.key)?;
        Ok(files)
    }
}

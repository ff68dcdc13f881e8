//! A Redis server that speaks TLS and asks its clients for certificates, and the certificates.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::redis::Redis;

/// Certificates of an authority of their own.
#[derive(Debug)]
pub struct Certificates {
    folder: TempDir,
}

impl Certificates {
    /// Makes them, for 127.0.0.1 and two days.
    ///
    /// # Panics
    /// When `openssl` is not there or does not do it.
    #[must_use]
    pub fn make() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let names = folder.path().join("names");
        std::fs::write(&names, "subjectAltName=IP:127.0.0.1\n").expect("the temporary folder can be written to");
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
        openssl(folder.path(), &format!("req -x509 {key} -keyout ca.key -out ca.pem -days 2 -subj /CN=ca"));
        openssl(folder.path(), &format!("req {key} -keyout key.pem -out request -subj /CN=server"));
        let sign =
            "x509 -req -in request -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out cert.pem";
        openssl(folder.path(), sign);
        Self { folder }
    }

    /// The authority's certificate.
    #[must_use]
    pub fn authority(&self) -> String {
        self.file("ca.pem")
    }

    /// A certificate that the authority has signed.
    #[must_use]
    pub fn certificate(&self) -> String {
        self.file("cert.pem")
    }

    /// The key of that certificate.
    #[must_use]
    pub fn key(&self) -> String {
        self.file("key.pem")
    }

    fn file(&self, name: &str) -> String {
        let path: PathBuf = self.folder.path().join(name);
        path.to_str().expect("temporary folders are UTF-8").to_owned()
    }
}

fn openssl(folder: &Path, words: &str) {
    let output = Command::new("openssl").args(words.split(' ')).current_dir(folder).output();
    let output = output.unwrap_or_else(|error| panic!("openssl does not start ({error}): apt-get install openssl"));
    assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Starts a server that listens with these certificates on a second port, which is given too.
#[must_use]
pub fn start(certificates: &Certificates) -> (Redis, u16) {
    let port = crate::free_port();
    let (authority, certificate, key) = (certificates.authority(), certificates.certificate(), certificates.key());
    let tls = ["--tls-port", &port.to_string(), "--tls-ca-cert-file", &authority]
        .into_iter()
        .chain(["--tls-cert-file", &certificate, "--tls-key-file", &key])
        .map(str::to_owned)
        .collect::<Vec<_>>();
    (Redis::with(&tls.iter().map(String::as_str).collect::<Vec<_>>()), port)
}

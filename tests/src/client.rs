//! The docker command outside a host, reaching in.

use std::path::Path;

use tempfile::TempDir;

use crate::command::{Call, Ended};

/// A docker client outside the host: an endpoint, and the folder of the certificates it shows, if any.
#[derive(Debug)]
pub struct Client {
    endpoint: String,
    certificates: Option<TempDir>,
    /// An empty configuration, so that the contexts and certificates of whoever runs the tests play no part.
    config: TempDir,
}

impl Client {
    /// A client that speaks plain TCP.
    pub fn plain(endpoint: &str) -> Self {
        Self { endpoint: endpoint.into(), certificates: None, config: folder() }
    }

    /// A client that speaks TLS with the `ca.pem`, `cert.pem` and `key.pem` in this folder.
    pub fn with_certificates(endpoint: &str, certificates: TempDir) -> Self {
        Self { endpoint: endpoint.into(), certificates: Some(certificates), config: folder() }
    }

    /// The folder of its certificates.
    ///
    /// # Panics
    /// For a client that speaks plain TCP.
    pub fn certificates(&self) -> &Path {
        self.certificates.as_ref().expect("a plain client has no certificates").path()
    }

    /// Its certificates, for a client at another endpoint.
    ///
    /// # Panics
    /// For a client that speaks plain TCP.
    pub fn into_certificates(self) -> TempDir {
        self.certificates.expect("a plain client has no certificates")
    }

    /// Runs `docker` with these arguments, as after `export DOCKER_HOST= DOCKER_TLS_VERIFY= DOCKER_CERT_PATH=`.
    #[track_caller]
    pub fn docker<S: AsRef<str>>(&self, args: impl IntoIterator<Item = S>) -> Ended {
        self.call().args(args).run()
    }

    /// The same, to be completed by the test.
    pub fn call(&self) -> Call {
        self.call_of("docker")
    }

    /// Another program with the same variables.
    pub fn call_of(&self, program: &str) -> Call {
        let call = Call::new(program).env("DOCKER_HOST", &self.endpoint).env_remove("DOCKER_CONTEXT");
        let call = call.env("DOCKER_CONFIG", self.config.path());
        match &self.certificates {
            Some(folder) => call.env("DOCKER_TLS_VERIFY", "1").env("DOCKER_CERT_PATH", folder.path()),
            None => call.env_remove("DOCKER_TLS_VERIFY").env_remove("DOCKER_CERT_PATH"),
        }
    }
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder for a client's files can be made")
}

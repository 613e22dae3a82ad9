//! The words that the image and its tools share: environment variables, paths, ports, exit codes and the
//! status document. No I/O and no policy lives here, so that every program of the project can depend on it.

pub mod exit;
pub mod ground;
pub mod labels;
pub mod paths;
pub mod status;
pub mod store;
pub mod variables;

pub use ground::{Diagnosis, Finding, Verdict};
pub use status::Status;

/// TCP port of the Docker API (mutual TLS, or plain with `DIND_TLS=off`).
pub const API_PORT: u16 = 2376;

/// TCP port on which plain clients look for the Docker API; open only with `DIND_TLS=off`.
pub const PLAIN_PORT: u16 = 2375;

/// Group id that may read the client certificates' key. It is fixed, so that a user outside the host can join it.
pub const CLIENT_GROUP: u32 = 2376;

//! What the end-to-end tests share: hosts on a real Docker engine, driven with the docker command as a user would.
//!
//! * Every command and every wait has a deadline, and says what it was about when the deadline passes.
//! * Everything a test makes carries the label [`LABEL`] and is removed by a guard, even when the test fails.
//!   What a killed test process leaves behind, the next run sweeps away.
//! * A missing engine, image, busybox or registry fails the test with the command that brings it. Nothing is ever skipped, but
//!   for tests that need another machine: they name the command that brings one.

mod appliance;
mod archive;
mod binary;
pub mod campaign;
mod certificates;
mod client;
mod command;
mod compose;
mod dind;
mod engine;
mod enter;
mod host;
mod hostile;
mod http;
mod image;
mod inside;
mod log;
mod nested;
mod network;
mod options;
mod questions;
mod refusals;
mod registry;
mod sealed;
mod server;
pub mod shelf;
mod ssh;
mod terminal;
mod userland;
mod vic;
mod volume;
mod wait;

pub use appliance::BuiltImage;
pub use binary::Binary;
pub use certificates::{Authority, Identity};
pub use client::Client;
pub use command::{Call, Ended};
pub use compose::Compose;
pub use dind::Dind;
pub use engine::{LABEL, docker};
pub use host::Host;
pub use hostile::{Answers, EARLIER, Home, Hostile};
pub use image::busybox;
pub use inside::Process;
pub use log::Line;
pub use nested::{POLITE, STUBBORN};
pub use network::{Neighbour, Network};
pub use options::{HostOptions, RUN_OPTIONS, appliance_image, image, ssh_image};
pub use questions::{Question, ask};
pub use refusals::Refusals;
pub use registry::{REGISTRY, REGISTRY_PORT, Registry};
pub use sealed::{Baked, Baking, local_image};
pub use ssh::{Session, SshClient};
pub use terminal::Terminal;
pub use vic::{Lacking, Refusal, Request, Source, Vic};
pub use volume::Volume;
pub use wait::{patience, until, until_equal};

//! A stand-in for a VIC endpoint (vSphere Integrated Containers), in front of the engine that the tests run on.
//!
//! It speaks the API of 2017, answers for itself as VIC does, refuses what VIC refuses with VIC's words, and passes over in
//! silence what VIC passes over; each with the place in VIC's source or documentation that says so ([`Source`]). A container
//! that a client makes is given what a virtual machine of VIC's has by nature: every capability a host needs, and a size.
//!
//! No real vSphere was at hand: see `docs/vic.md`.

mod answers;
mod connection;
mod create;
mod decision;
mod real;
mod record;
mod routes;
mod shared;
mod source;

use std::sync::Arc;

pub use record::{Lacking, Refusal, Request};
pub use source::Source;

use crate::engine::{self, docker};
use crate::server::Server;
use real::{Real, is_newer};
use shared::Shared;

/// A VIC endpoint, or what passes for one. What was made through it goes with it.
#[derive(Debug)]
pub struct Vic {
    server: Server,
    shared: Arc<Shared>,
}

impl Vic {
    /// Begins to listen, on the loopback interface alone.
    ///
    /// # Panics
    /// When there is no engine, or nothing can be listened on.
    #[track_caller]
    #[allow(clippy::new_without_default, reason = "a default value that listens would surprise")]
    pub fn start() -> Self {
        engine::prepare();
        let real = Real::find().expect("the engine says which API it speaks");
        let shared = Arc::new(Shared::new(real, engine::label_pairs().into()));
        let (serving, failing) = (Arc::clone(&shared), Arc::clone(&shared));
        let server = Server::start(
            move |connection| connection::serve(connection, &serving),
            move |error| failing.trouble(format!("a connection failed: {error}")),
        );
        Self { server, shared }
    }

    /// What `DOCKER_HOST` is for it.
    pub fn docker_host(&self) -> String {
        format!("tcp://{}", self.server.address())
    }

    /// Everything that it was asked.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.state().requests.clone()
    }

    /// What it refused.
    pub fn refusals(&self) -> Vec<Refusal> {
        self.shared.state().refusals.clone()
    }

    /// What was sent that VIC takes no notice of.
    pub fn lacking(&self) -> Vec<Lacking> {
        self.shared.state().lacking.clone()
    }

    /// Asserts that nothing was sent that the endpoint lacks: nothing was refused, everything had an effect, no path named a
    /// newer API.
    #[track_caller]
    pub fn assert_content(&self) {
        let state = self.shared.state();
        let refusals = state.refusals.iter().map(ToString::to_string);
        let newer = state.requests.iter().filter(|request| {
            request.version.as_deref().is_some_and(|version| is_newer(version, answers::VERSION))
        });
        let newer = newer.map(|request| format!("{request}: {:?} is a newer API", request.version));
        let lacking = state.lacking.iter().map(ToString::to_string);
        let all: Vec<String> =
            refusals.chain(newer).chain(lacking).chain(state.troubles.iter().cloned()).collect();
        assert!(all.is_empty(), "a VIC endpoint was asked for what it lacks:\n{}", all.join("\n"));
    }
}

impl Drop for Vic {
    fn drop(&mut self) {
        self.server.end();
        let (containers, volumes) = self.shared.take();
        for container in containers {
            let _ = docker(["rm", "-fv", &container]);
        }
        for volume in volumes {
            let _ = docker(["volume", "rm", "-f", &volume]);
        }
    }
}

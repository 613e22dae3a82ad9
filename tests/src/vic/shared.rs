//! What the connections share: the real engine, what was asked, what was made.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use super::answers::Made;
use super::decision::NoEffect;
use super::real::Real;
use super::record::{Lacking, Refusal, Refused, Request};

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) real: Real,
    /// The labels by which the tests' sweep finds what a client has made. VIC does not show them.
    labels: Vec<(String, String)>,
    state: Mutex<State>,
}

/// What has happened.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) requests: Vec<Request>,
    pub(super) refusals: Vec<Refusal>,
    pub(super) lacking: Vec<Lacking>,
    pub(super) troubles: Vec<String>,
    containers: HashMap<String, Made>,
    volumes: Vec<String>,
}

impl Shared {
    pub(super) fn new(real: Real, labels: Vec<(String, String)>) -> Self {
        Self { real, labels, state: Mutex::default() }
    }

    /// What has happened until now.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn asked(&self, request: &Request, no_effect: Vec<NoEffect>) {
        let mut state = self.state();
        state.requests.push(request.clone());
        let named = |(what, value, source)| Lacking { request: request.clone(), what, value, source };
        state.lacking.extend(no_effect.into_iter().map(named));
    }

    pub(super) fn refused(&self, request: &Request, Refused { status, text, source }: Refused) {
        self.state().refusals.push(Refusal { request: request.clone(), status, text, source });
    }

    pub(super) fn trouble(&self, what: String) {
        self.state().troubles.push(what);
    }

    /// Marks something to be made as the tests' own.
    pub(super) fn label(&self, body: &mut Value) {
        let mut labels = body["Labels"].as_object().cloned().unwrap_or_default();
        labels.extend(self.labels.iter().map(|(name, value)| (name.clone(), value.as_str().into())));
        body["Labels"] = labels.into();
    }

    pub(super) fn hidden(&self) -> Vec<&str> {
        self.labels.iter().map(|(name, _)| name.as_str()).collect()
    }

    pub(super) fn made(&self, id: &str, made: Made) {
        self.state().containers.insert(id.into(), made);
    }

    pub(super) fn made_volume(&self, name: &str) {
        self.state().volumes.push(name.into());
    }

    pub(super) fn find(&self, id: &str) -> Option<Made> {
        self.state().containers.get(id).cloned()
    }

    /// Takes the containers and volumes that were made.
    pub(super) fn take(&self) -> (Vec<String>, Vec<String>) {
        let mut state = self.state();
        (state.containers.drain().map(|(id, _)| id).collect(), std::mem::take(&mut state.volumes))
    }
}

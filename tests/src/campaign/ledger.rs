//! What an engine has acknowledged, to be compared with what is there later.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use time::OffsetDateTime;

use super::content::Payload;

/// How something came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// An image, by `docker load`.
    Load,
    /// An image, by `docker pull`.
    Pull,
    /// An image, by `docker import`.
    Import,
    /// An image, by `docker commit`.
    Commit,
    /// An image, by `docker build` with the classic builder.
    Classic,
    /// An image, by `docker build` with BuildKit.
    #[serde(rename = "buildkit")]
    BuildKit,
    /// An image, which was in the store of a sealed appliance.
    Sealed,
    /// A second name of an image.
    Tag,
    /// A volume.
    Volume,
    /// What a container, run to its end, has written to a volume.
    Content,
    /// A container.
    Container,
    /// A row of a database, by its commit.
    DatabaseRow,
}

impl Kind {
    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Load => "load",
            Kind::Pull => "pull",
            Kind::Import => "import",
            Kind::Commit => "commit",
            Kind::Classic => "classic build",
            Kind::BuildKit => "BuildKit build",
            Kind::Sealed => "sealed",
            Kind::Tag => "tag",
            Kind::Volume => "volume",
            Kind::Content => "volume's content",
            Kind::Container => "container",
            Kind::DatabaseRow => "database row",
        }
    }
}

/// What was acknowledged.
#[derive(Debug, Clone)]
pub(super) enum Thing {
    /// An image with this in it, by the claim's name.
    Image(Arc<Payload>),
    /// A volume.
    Volume,
    /// A file in a volume, with this SHA-256.
    Content {
        /// The volume.
        volume: String,
        /// The SHA-256, in hexadecimal.
        checksum: String,
    },
    /// A container.
    Container {
        /// Whether a restart policy keeps it running.
        runs: bool,
    },
}

/// Something that an engine has acknowledged.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    /// How it came to be.
    pub(super) kind: Kind,
    /// Its name; of a content its file.
    pub(super) name: String,
    /// The names under which the engine's events tell of it.
    pub(super) subjects: Vec<String>,
    /// What it is.
    pub(super) thing: Thing,
    /// When the client had the engine's answer.
    pub(super) seen: OffsetDateTime,
    /// Whether it was found whole after an earlier cut or kill: then it is on the disk for sure.
    pub(super) was_kept: bool,
    /// Whether its removal was asked for: then it may be there or not, but whole.
    pub(super) may_go: bool,
}

/// All that was acknowledged and not removed again.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// What was acknowledged.
    pub(super) claims: Vec<Claim>,
    /// What images may hold, by [`Payload::id`]: also those that were not acknowledged.
    pub(super) payloads: HashMap<String, Arc<Payload>>,
    named: u32,
}

impl Ledger {
    /// A name that was not used before.
    pub(super) fn name(&mut self, prefix: &str) -> String {
        self.named += 1;
        format!("{prefix}-{}", self.named)
    }

    /// Notes what the engine has just acknowledged; its place among the claims.
    pub(super) fn acknowledge(&mut self, kind: Kind, name: &str, thing: Thing, subjects: &[&str]) -> usize {
        let subjects = subjects.iter().copied().chain([name]).map(str::to_owned).collect();
        let seen = OffsetDateTime::now_utc();
        self.claims.push(Claim {
            kind,
            name: name.into(),
            subjects,
            thing,
            seen,
            was_kept: false,
            may_go: false,
        });
        self.claims.len() - 1
    }

    /// Notes one more name of a claim for the engine's events.
    pub(super) fn also_known_as(&mut self, claim: usize, subject: String) {
        self.claims[claim].subjects.push(subject);
    }

    /// The images that were acknowledged and that nobody wanted to remove.
    pub(super) fn images(&self) -> Vec<(String, Arc<Payload>)> {
        let stay = self.claims.iter().filter(|claim| !claim.may_go);
        stay.filter_map(|claim| match &claim.thing {
            Thing::Image(payload) => Some((claim.name.clone(), Arc::clone(payload))),
            _ => None,
        })
        .collect()
    }

    /// The names of what was acknowledged in this way and that nobody wanted to remove.
    pub(super) fn names(&self, kind: Kind) -> Vec<String> {
        let claims = self.claims.iter().filter(|claim| claim.kind == kind && !claim.may_go);
        claims.map(|claim| claim.name.clone()).collect()
    }

    /// Notes that the removal of these is being asked for.
    pub(super) fn let_go(&mut self, goes: impl Fn(&Claim) -> bool) {
        for claim in self.claims.iter_mut().filter(|claim| goes(claim)) {
            claim.may_go = true;
        }
    }

    /// The size of everything that images hold.
    pub(super) fn bytes(&self) -> u64 {
        self.payloads.values().map(|payload| payload.bytes).sum()
    }
}

/// The ledger, shared by those who work.
#[derive(Debug, Default, Clone)]
pub(super) struct Shared(Arc<Mutex<Ledger>>);

impl Shared {
    /// The ledger, for a moment.
    pub(super) fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

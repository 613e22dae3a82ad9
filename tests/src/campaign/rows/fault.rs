//! One fault, and what the data root lies on meanwhile.

use anyhow::Result;

use super::super::disk::{Disk, Place};
use super::super::engine::{Engine, Way};
use super::super::random::Random;
use super::super::victim::Victim;
use super::{Database, Faults, Scenario};
use crate::volume::Volume;

/// One fault.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    Kill(Victim),
    /// SIGKILL to the database itself, with which its container ends.
    Database,
    /// SIGKILL to one of the processes that it has forked.
    Child,
    Cut,
}

impl Fault {
    pub(super) fn choose(scenario: Scenario, random: &mut Random) -> Self {
        match scenario.faults {
            Faults::PowerCuts => Self::Cut,
            // Another init changes nothing for the database alone.
            Faults::Kills if scenario.way == Way::HostUnderInit || random.chance(70) => {
                Self::Kill(Victim::choose(scenario.way, random))
            }
            Faults::Kills if scenario.database == Database::Postgres && random.chance(50) => Self::Child,
            Faults::Kills => Self::Database,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Kill(victim) => victim.name(),
            Self::Database => "the database",
            Self::Child => "a child of the database",
            Self::Cut => "power cut",
        }
    }

    /// Whether the database's container is started anew. It outlives containerd, and a child that it can replace.
    pub(super) fn restarts_the_container(self) -> bool {
        !matches!(self, Self::Child | Self::Kill(Victim::Containerd))
    }

    /// Whether the host begins anew, and has to call its last stop unclean.
    pub(super) fn ends_the_host(self) -> bool {
        match self {
            Self::Kill(victim) => victim.is_whole_host() || victim == Victim::Init,
            Self::Cut => true,
            Self::Database | Self::Child => false,
        }
    }

    /// Makes it.
    pub(super) fn strike(self, database: Database, engine: &Engine, storage: &Storage) -> Result<()> {
        match self {
            Self::Kill(victim) => victim.kill(engine),
            Self::Database => database.kill(engine, false),
            Self::Child => database.kill(engine, true),
            Self::Cut => {
                if let Storage::Disk(disk) = storage {
                    disk.cut()?;
                }
                engine.kill()
            }
        }
    }
}

/// What the data root lies on.
pub(super) enum Storage {
    Volume(Volume),
    Disk(Disk),
}

impl Storage {
    pub(super) fn new(faults: Faults, place: &Place) -> Result<Self> {
        Ok(match faults {
            Faults::Kills => Self::Volume(Volume::new()),
            Faults::PowerCuts => Self::Disk(Disk::new(place)?),
        })
    }

    /// As `docker run --volume` names it.
    pub(super) fn source(&self) -> String {
        match self {
            Self::Volume(volume) => volume.name().to_owned(),
            Self::Disk(disk) => disk.path().to_string_lossy().into_owned(),
        }
    }
}

//! The subcommands, a file each.

pub(crate) mod bake;
pub(crate) mod build;
pub(crate) mod context;
pub(crate) mod doctor;
pub(crate) mod env;
pub(crate) mod exec;
pub(crate) mod inspect;
pub(crate) mod logs;
pub(crate) mod ls;
pub(crate) mod prune;
pub(crate) mod run;
pub(crate) mod ssh;
pub(crate) mod stop;
pub(crate) mod up;

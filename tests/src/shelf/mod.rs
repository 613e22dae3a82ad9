//! The images of `tests/images`: they behave as the official images of their names do, and stand in hosts by these names.
//!
//! [`examine`] runs one on the engine of the machine and in a host, does with it what users do, and says where the two
//! differ from each other or from what its `image.yaml` says.

mod archive;
mod cells;
mod container;
mod facts;
mod place;
mod redis;
mod table;

pub use archive::{archive, local_name, names};
pub use facts::{Facts, Kept, Stop};
pub use place::run;
pub use redis::REDIS_USER;
pub use table::{Column, Row, draw, examine, require};

/// The images that `tests/images/build` builds where none is named, and that `./check` runs.
pub const CHECKED: [&str; 4] = ["postgres", "redis", "nginx", "python"];

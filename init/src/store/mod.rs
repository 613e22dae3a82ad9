//! The store of a sealed appliance (`dind_contract::store`): images that are there without being unpacked.
//!
//! Each layer is a file system of its own in the appliance's image. A host mounts them read-only and gives the engine's records links to
//! them, so the engine has the images when it starts, whatever their size. Where that cannot be, the engine loads them.

mod canonical;
mod check;
mod extract;
mod load;
mod make;
mod mount;
mod seed;
mod start;

use std::io;
use std::path::{Path, PathBuf};

use dind_contract::{paths, store as format};

use crate::layers;

pub(crate) use check::{read, verify};
pub(crate) use load::load;
pub(crate) use make::make;
pub(crate) use start::{Answer, is_wanted, prepare, start, unmount};

/// A store whose manifest is the one that was sealed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Store {
    /// Where it is.
    pub(crate) folder: PathBuf,
    /// `sha256:…` of the manifest's text.
    pub(crate) digest: String,
    pub(crate) manifest: format::Manifest,
}

impl Store {
    /// The erofs of a layer.
    fn files(&self, layer: &format::Layer) -> PathBuf {
        self.of_layer(&layer.diff_id).join(format::FILES)
    }

    /// How the tar of a layer is put together.
    fn tar_split(&self, diff_id: &str) -> PathBuf {
        self.of_layer(diff_id).join(format::TAR_SPLIT)
    }

    fn of_layer(&self, diff_id: &str) -> PathBuf {
        self.folder.join(format::LAYERS).join(digits(diff_id))
    }

    /// The configuration of an image.
    fn config(&self, image: &format::Image) -> PathBuf {
        self.folder.join(format::IMAGES).join(format!("{}.json", digits(&image.id)))
    }

    /// The names of its images, for a line.
    pub(crate) fn names(&self) -> String {
        let all: Vec<&str> = self
            .manifest
            .images
            .iter()
            .map(|image| image.names.first().unwrap_or(&image.id).as_str())
            .collect();
        all.join(", ")
    }
}

/// Where the files of a layer are mounted.
fn place(diff_id: &str) -> PathBuf {
    Path::new(paths::STORE_MOUNTS).join(digits(diff_id))
}

/// What follows `sha256:`.
fn digits(digest: &str) -> &str {
    digest.strip_prefix("sha256:").unwrap_or(digest)
}

/// The chain ids of layers with these DiffIDs, the lowest first: 64 digits each.
fn chains(diff_ids: &[String]) -> Vec<String> {
    let mut chains: Vec<String> = Vec::new();
    for diff in diff_ids {
        chains.push(layers::chain_id(chains.last().map(String::as_str), digits(diff)));
    }
    chains
}

/// An error with the file in front.
fn at(path: &Path) -> impl Fn(io::Error) -> String {
    move |e| format!("{}: {e}", path.display())
}

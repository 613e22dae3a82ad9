//! The store of a sealed appliance: image layers as file systems of their own, that nobody has to unpack. `dind bake` makes it,
//! the host mounts it.
//!
//! ```text
//! /usr/lib/dind/store/
//!   manifest.json                    a [`Manifest`]
//!   digest                           `sha256:…` of that file, and a line break
//!   application                      the same of the Compose file, as Compose has understood it
//!   images/HEX.json                  an image's configuration, HEX being its id
//!   layers/HEX/files.erofs           the files of the layer whose DiffID is HEX, as an erofs without compression
//!   layers/HEX/tar-split.json.gz     how its tar is put together from them (vbatts/tar-split), as the engine keeps it
//! ```
//!
//! HEX are 64 hexadecimal digits. The folder of a layer is opaque (`.wh..wh..opq`): overlay then looks for it no deeper. Each folder in `layers` depends on nothing but the layer's tar, so two stores share it.

use serde::{Deserialize, Serialize};

/// The version of the format that this text describes.
pub const VERSION: u32 = 1;
/// Folder of the store in an appliance's image.
pub const FOLDER: &str = "/usr/lib/dind/store";
/// In it: what is in the store.
pub const MANIFEST: &str = "manifest.json";
/// In it: the digest of the manifest.
pub const DIGEST: &str = "digest";
/// In it: the digest of the Compose file. It may be missing.
pub const APPLICATION: &str = "application";
/// In it: a file for each image.
pub const IMAGES: &str = "images";
/// In it: a folder for each layer.
pub const LAYERS: &str = "layers";
/// In a layer's folder: its files.
pub const FILES: &str = "files.erofs";
/// In a layer's folder: how its tar is put together.
pub const TAR_SPLIT: &str = "tar-split.json.gz";

/// What is in a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`VERSION`].
    pub version: u32,
    /// For which machines its images are, as `linux/amd64` or `linux/arm/v7`.
    pub platform: String,
    /// The images, by id.
    pub images: Vec<Image>,
    /// Every layer of theirs once, by DiffID.
    pub layers: Vec<Layer>,
}

/// An image of a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// `sha256:…` of its configuration.
    pub id: String,
    /// Names that it has, each with a tag, in full as the engine keeps them: `docker.io/library/nginx:1.27` is `nginx:1.27`.
    pub names: Vec<String>,
    /// What registries call it: `NAME@sha256:…`. None, if it comes from no registry.
    pub digests: Vec<String>,
    /// DiffIDs of its layers, the lowest first.
    pub layers: Vec<String>,
}

/// A layer of a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layer {
    /// `sha256:…` of its tar.
    pub diff_id: String,
    /// Bytes of content in its files, as the engine counts them.
    pub size: u64,
    /// Its [`FILES`].
    pub files: Content,
    /// Its [`TAR_SPLIT`].
    pub tar_split: Content,
}

/// A file of a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Content {
    /// Its length in bytes.
    pub size: u64,
    /// `sha256:…` of it.
    pub digest: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_is_read_as_it_was_written_and_nothing_else_is() {
        let content = |size| Content { size, digest: format!("sha256:{size:064}") };
        let manifest = Manifest {
            version: VERSION,
            platform: "linux/amd64".to_owned(),
            images: vec![Image {
                id: format!("sha256:{:064}", 1),
                names: vec!["web:1".to_owned()],
                digests: Vec::new(),
                layers: vec![format!("sha256:{:064}", 2)],
            }],
            layers: vec![Layer {
                diff_id: format!("sha256:{:064}", 2),
                size: 7,
                files: content(4096),
                tar_split: content(99),
            }],
        };
        let text = serde_json::to_string(&manifest).unwrap();
        assert_eq!(serde_json::from_str::<Manifest>(&text).unwrap(), manifest);
        assert!(
            serde_json::from_str::<Manifest>(&text.replacen("\"version\"", "\"extra\":1,\"version\"", 1))
                .is_err()
        );
    }
}

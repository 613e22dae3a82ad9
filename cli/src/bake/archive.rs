//! Archives in the layout of the OCI's image specification, for an engine that loads those of `docker save`.
//!
//! Both keep the same files; what the engine asks for beside them is a `manifest.json` that lists configurations, layers and names. It is
//! made here and put behind the archive's own entries, so that nothing is unpacked and nothing is copied.
//! <https://github.com/opencontainers/image-spec/blob/main/image-layout.md>

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom};

use serde::Deserialize;
use serde_json::json;

use super::appliance::padded;
use super::names::{Name, check_tag};
use crate::hash;

/// Of a file that describes others; more is no description.
const SMALL: u64 = 4 * 1024 * 1024;
/// An index names other indexes at most so deep.
const DEPTH: u8 = 4;

/// How an archive is made one that the engine loads.
#[derive(Debug)]
pub(crate) struct Completion {
    /// So many bytes of the archive are passed on,
    pub(crate) length: u64,
    /// and then these.
    pub(crate) rest: Vec<u8>,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
    platform: Option<Platform>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Platform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

#[derive(Deserialize)]
struct Manifest {
    config: Content,
    layers: Vec<Content>,
}

#[derive(Deserialize)]
struct Content {
    digest: String,
}

/// What is to be done to the archive for its images of `platform` (`linux/amd64`); nothing if it is of another kind.
///
/// # Errors
/// It is in the layout, and incomplete, damaged, or without an image of that platform.
pub(crate) fn completion(
    archive: &mut (impl Read + Seek),
    platform: &str,
) -> Result<Option<Completion>, String> {
    // What is no tar at all is the engine's to judge, which knows compressed ones, too.
    let Ok(mut layout) = Layout::read(archive) else { return Ok(None) };
    if layout.is_cut {
        return Err("it is cut short".to_owned());
    }
    if layout.files.contains_key("manifest.json") {
        return Ok(None);
    }
    if !layout.files.contains_key("oci-layout") {
        // Who writes the layout may write this file last.
        let has_blobs = layout.files.keys().any(|path| path.starts_with("blobs/"));
        return if has_blobs { Err("it has no oci-layout".to_owned()) } else { Ok(None) };
    }
    let index: Index = layout.json("index.json")?;
    let mut images = Vec::new();
    for descriptor in &index.manifests {
        if let Some(manifest) = layout.manifest(descriptor, platform, DEPTH)? {
            let layers: Vec<String> = manifest
                .layers
                .iter()
                .map(|layer| layout.present(&layer.digest))
                .collect::<Result<_, _>>()?;
            // Of a layer the engine knows what is in it; a configuration it takes as it is.
            let (config, _) = layout.whole(&manifest.config.digest)?;
            images.push(json!({
                "Config": config,
                "RepoTags": name(&descriptor.annotations).into_iter().collect::<Vec<_>>(),
                "Layers": layers,
            }));
        }
    }
    if images.is_empty() {
        return Err(format!("it has no image for {platform}"));
    }
    let rest = entry("manifest.json", json!(images).to_string().as_bytes()).map_err(|e| e.to_string())?;
    Ok(Some(Completion { length: layout.end, rest }))
}

/// What an image is called: in full by BuildKit and containerd, or as skopeo and podman were told.
fn name(annotations: &BTreeMap<String, String>) -> Option<String> {
    ["io.containerd.image.name", "org.opencontainers.image.ref.name"]
        .iter()
        .filter_map(|key| annotations.get(*key))
        .find(|name| check_tag(name).is_ok())
        .map(|name| Name::parse(name).sealed)
}

/// The end of an archive: one file.
fn entry(name: &str, content: &[u8]) -> io::Result<Vec<u8>> {
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o644);
    header.set_size(content.len() as u64);
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_data(&mut header, name, content)?;
    archive.into_inner()
}

/// The files of an archive.
struct Layout<'a, R> {
    archive: &'a mut R,
    /// Where each one's content is, and how long.
    files: BTreeMap<String, (u64, u64)>,
    /// Where the last entry ends.
    end: u64,
    /// The archive ends before it.
    is_cut: bool,
}

impl<'a, R: Read + Seek> Layout<'a, R> {
    fn read(archive: &'a mut R) -> io::Result<Self> {
        let length = archive.seek(SeekFrom::End(0))?;
        archive.rewind()?;
        let (mut files, mut end) = (BTreeMap::new(), 0);
        let mut tar = tar::Archive::new(&mut *archive);
        for entry in tar.entries_with_seek()? {
            let entry = entry?;
            let (at, size) = (entry.raw_file_position(), entry.size());
            end = at + padded(size);
            let path = entry.path()?;
            let path = path.strip_prefix("./").unwrap_or(&path).to_string_lossy().into_owned();
            if entry.header().entry_type().is_file() {
                files.insert(path, (at, size));
            }
        }
        Ok(Self { archive, files, end, is_cut: end > length })
    }

    /// The file of a digest, as the archive calls it.
    fn present(&self, digest: &str) -> Result<String, String> {
        let path = format!("blobs/{}", digest.replacen(':', "/", 1));
        if self.files.contains_key(&path) {
            Ok(path)
        } else {
            Err(format!("it lacks {digest}, which its index names"))
        }
    }

    fn small(&mut self, path: &str) -> Result<Vec<u8>, String> {
        let Some((at, size)) = self.files.get(path).copied().filter(|(_, size)| *size <= SMALL) else {
            return Err(format!("it has no {path}"));
        };
        let mut content = Vec::new();
        self.archive
            .seek(SeekFrom::Start(at))
            .and_then(|_| self.archive.by_ref().take(size).read_to_end(&mut content))
            .map_err(|e| format!("{path} in it cannot be read: {e}"))?;
        Ok(content)
    }

    /// The file of a digest, and what is in it, which is what the digest says.
    fn whole(&mut self, digest: &str) -> Result<(String, Vec<u8>), String> {
        let path = self.present(digest)?;
        let content = self.small(&path)?;
        if digest != format!("sha256:{}", hash::sha256(&content)) {
            return Err(format!("{path} in it is not what its name says"));
        }
        Ok((path, content))
    }

    fn json<T: for<'de> Deserialize<'de>>(&mut self, path: &str) -> Result<T, String> {
        parse(path, &self.small(path)?)
    }

    /// The manifest that a descriptor leads to, unless that is for another platform.
    fn manifest(
        &mut self,
        descriptor: &Descriptor,
        wanted: &str,
        depth: u8,
    ) -> Result<Option<Manifest>, String> {
        if descriptor.platform.as_ref().is_some_and(|platform| !platform.is(wanted)) {
            return Ok(None);
        }
        let (path, content) = self.whole(&descriptor.digest)?;
        if let Ok(manifest) = serde_json::from_slice(&content) {
            return Ok(Some(manifest));
        }
        let index: Index = parse(&path, &content)?;
        for descriptor in index.manifests {
            if depth > 0
                && let Some(manifest) = self.manifest(&descriptor, wanted, depth - 1)?
            {
                return Ok(Some(manifest));
            }
        }
        Ok(None)
    }
}

impl Platform {
    fn is(&self, wanted: &str) -> bool {
        let mut words = wanted.split('/');
        words.next() == Some(&self.os)
            && words.next() == Some(&self.architecture)
            && words.next().is_none_or(|variant| self.variant.as_deref() == Some(variant))
    }
}

fn parse<T: for<'de> Deserialize<'de>>(path: &str, content: &[u8]) -> Result<T, String> {
    serde_json::from_slice(content).map_err(|e| format!("{path} in it is damaged: {e}"))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use serde_json::Value;

    use super::*;

    fn tar_of(files: &[(String, Vec<u8>)]) -> Vec<u8> {
        let mut all: Vec<u8> = files
            .iter()
            .flat_map(|(name, content)| {
                let mut bytes = entry(name, content).unwrap();
                bytes.truncate(bytes.len() - 1024);
                bytes
            })
            .collect();
        all.extend(vec![0; 1024]);
        all
    }

    fn blob(files: &mut Vec<(String, Vec<u8>)>, content: &[u8]) -> String {
        let digits = hash::sha256(content);
        files.push((format!("blobs/sha256/{digits}"), content.to_vec()));
        format!("sha256:{digits}")
    }

    /// An archive with one image, on `platform` of an index in its index.
    fn layout(platform: &Value, annotations: &Value) -> Vec<(String, Vec<u8>)> {
        let mut files = vec![("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec())];
        let config = blob(&mut files, b"{}");
        let layer = blob(&mut files, &[7; 700]);
        let manifest =
            json!({"config": {"digest": config}, "layers": [{"digest": layer}, {"digest": layer}]});
        let manifest = blob(&mut files, manifest.to_string().as_bytes());
        let inner = json!({"manifests": [{"digest": manifest, "platform": platform}]});
        let inner = blob(&mut files, inner.to_string().as_bytes());
        let index = json!({"manifests": [{"digest": inner, "annotations": annotations}]});
        files.push(("./index.json".to_owned(), index.to_string().into_bytes()));
        files
    }

    fn amd64() -> Value {
        json!({"os": "linux", "architecture": "amd64"})
    }

    #[test]
    fn an_archive_gets_the_list_that_engines_ask_for() {
        let names = json!({"org.opencontainers.image.ref.name": "shop/web"});
        let bytes = tar_of(&layout(&amd64(), &names));
        let made = completion(&mut Cursor::new(&bytes), "linux/amd64").unwrap().unwrap();
        let mut whole = bytes[..usize::try_from(made.length).unwrap()].to_vec();
        assert_eq!(whole.len(), bytes.len() - 1024);
        whole.extend(&made.rest);
        let mut archive = tar::Archive::new(whole.as_slice());
        let list =
            archive.entries().unwrap().map(Result::unwrap).find(|it| &*it.path_bytes() == b"manifest.json");
        let list: Value = serde_json::from_reader(list.unwrap()).unwrap();
        assert_eq!(list[0]["RepoTags"], json!(["shop/web:latest"]));
        assert_eq!(list[0]["Layers"].as_array().unwrap().len(), 2);
        // It is one of both kinds now.
        assert!(completion(&mut Cursor::new(whole), "linux/amd64").unwrap().is_none());
    }

    #[test]
    fn what_is_no_layout_is_left_to_the_engine() {
        for bytes in
            [Vec::new(), b"no archive".to_vec(), vec![0x1f; 2048], tar_of(&[("a".to_owned(), vec![1])])]
        {
            assert!(completion(&mut Cursor::new(bytes), "linux/amd64").unwrap().is_none());
        }
    }

    #[test]
    fn what_is_wrong_with_a_layout_is_said() {
        let refused =
            |bytes: Vec<u8>, platform: &str| completion(&mut Cursor::new(bytes), platform).unwrap_err();
        let good = layout(&amd64(), &json!({}));
        assert_eq!(refused(tar_of(&good), "linux/arm64"), "it has no image for linux/arm64");
        let named = |name: &str| good.iter().position(|(found, _)| found.contains(name)).unwrap();
        let mut bad = good.clone();
        bad.remove(named("index.json"));
        assert_eq!(refused(tar_of(&bad), "linux/amd64"), "it has no index.json");
        let mut bad = good.clone();
        bad.remove(2);
        assert!(refused(tar_of(&bad), "linux/amd64").starts_with("it lacks sha256:"));
        // Its configuration, and its manifest.
        for number in [1, 3] {
            let mut bad = good.clone();
            bad[number].1.push(b' ');
            assert!(refused(tar_of(&bad), "linux/amd64").ends_with("is not what its name says"));
        }
        let mut bad = good.clone();
        bad.remove(0);
        assert_eq!(refused(tar_of(&bad), "linux/amd64"), "it has no oci-layout");
        let mut bad = good.clone();
        bad[named("index.json")].1 = b"{".to_vec();
        assert!(refused(tar_of(&bad), "linux/amd64").starts_with("index.json in it is damaged"));
        let mut bytes = tar_of(&good);
        bytes.truncate(bytes.len() - 1024 - 512);
        assert_eq!(refused(bytes, "linux/amd64"), "it is cut short");
    }

    #[test]
    fn names_that_images_can_have() {
        let name = |pairs: &[(&str, &str)]| {
            name(&pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
        };
        let (full, short) = ("io.containerd.image.name", "org.opencontainers.image.ref.name");
        assert_eq!(
            name(&[(short, "1.4"), (full, "docker.io/library/shop:1.4")]).as_deref(),
            Some("shop:1.4")
        );
        assert_eq!(name(&[(short, "h:5000/shop")]).as_deref(), Some("h:5000/shop:latest"));
        assert_eq!(name(&[(short, "Not Good")]), None);
        assert_eq!(name(&[]), None);
    }
}

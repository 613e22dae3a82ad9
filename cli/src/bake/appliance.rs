//! The image of an appliance, as the archive that an engine loads: the base's layers, a layer for each of the store, and one with the
//! application.
//!
//! It is put together here and not by a build, whose layers would depend on the time: of the same inputs the same image is made, and two
//! versions of an appliance have in common whatever their images have in common.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use dind_contract::store::{self as format, Manifest};
use dind_contract::{labels, paths};
use ring::digest::{Context, SHA256};
use serde_json::{Value, json};
use tar::{EntryType, Header};

use super::project::FOLDER;
use crate::hash::sha256;

/// The most layers that an image may have: overlay takes no more lower directories by one mount(2).
const MOST_LAYERS: usize = 125;
/// An archive's own files are small; what is larger is a layer.
const SMALL: u64 = 4 * 1024 * 1024;
/// How long an application may take before anybody calls its host unhealthy, as in dind-compose-static: ten minutes.
const START_PERIOD: u64 = 600_000_000_000;
const BLOCK: u64 = 512;

/// What an appliance is made of, beside its base and its store.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Its name.
    pub(crate) tag: String,
    /// The store's manifest, as it was written.
    pub(crate) manifest: String,
    /// The Compose file.
    pub(crate) compose: String,
    /// Whether the endpoint looks for layers that it has before it looks for their files: then the base's need not be sent.
    pub(crate) has_base: bool,
    /// The folder of the application here, and what of it goes in.
    pub(crate) folder: PathBuf,
    pub(crate) carried: BTreeSet<PathBuf>,
}

/// What comes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sealed {
    /// The image's id.
    pub(crate) id: String,
    /// How many layers of the store share one of the image's, because it may have no more.
    pub(crate) bundled: usize,
}

/// Writes the archive. `base`: what `docker save` says of the base; `store`: the folder `store` as an archive of the engine's; `told` hears how
/// many bytes have been read.
///
/// # Errors
/// An archive is not what it should be, a file of the application cannot be read, or there is no room for a temporary file.
pub(crate) fn assemble(
    base: impl Read,
    store: impl Read,
    plan: &Plan,
    to: impl Write,
    told: impl Fn(u64),
) -> io::Result<Sealed> {
    let manifest: Manifest = serde_json::from_str(&plan.manifest)?;
    let mut image = Archive { to, layers: Vec::new() };
    let told = &told;
    let (mut config, base_layers) = copy_base(base, &mut image, plan.has_base, told)?;
    let room = MOST_LAYERS.saturating_sub(base_layers.len() + 1);
    let small = bundle(&manifest, room);
    let mut bundled = Spool::new()?;
    let mut images: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut open: Option<Writer> = None;
    let mut archive = tar::Archive::new(store);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let Ok(inside) = path.strip_prefix("store") else { continue };
        let parts: Vec<String> = inside.iter().map(|part| part.to_string_lossy().into_owned()).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let size = entry.header().entry_size()?;
        match parts.as_slice() {
            [format::IMAGES, name] => {
                let mut text = Vec::new();
                entry.by_ref().take(SMALL).read_to_end(&mut text)?;
                images.insert((*name).to_owned(), text);
            }
            [format::LAYERS, layer, name @ (format::FILES | format::TAR_SPLIT)] => {
                let file = format!("{}/{name}", of_layer(layer));
                if small.contains(*layer) {
                    if *name == format::FILES {
                        let folder = of_layer(layer);
                        bundled.folders(&[&folder])?;
                        bundled.file(&opaque(&folder), 0o644, 0, &mut io::empty())?;
                    }
                    bundled.file(&file, 0o644, size, &mut entry)?;
                } else {
                    if open.as_ref().is_none_or(|writer| writer.layer != *layer) {
                        image.finish(&mut open)?;
                        let wanted = manifest.layers.iter().find(|it| it.diff_id.ends_with(*layer));
                        let wanted = wanted.ok_or_else(|| {
                            io::Error::other(format!(
                                "the store has a layer {layer} that its manifest has not"
                            ))
                        })?;
                        let mut writer = image.layer(layer, length(wanted, layer))?;
                        let folder = of_layer(layer);
                        let written = writer.entries.folders(&[&folder], &mut image.to)?
                            + writer.entries.file(
                                &opaque(&folder),
                                0o644,
                                0,
                                &mut io::empty(),
                                &mut image.to,
                            )?;
                        writer.count(written)?;
                        open = Some(writer);
                    }
                    if let Some(writer) = &mut open {
                        let written = writer.entries.file(&file, 0o644, size, &mut entry, &mut image.to)?;
                        writer.count(written)?;
                    }
                }
                told(size);
            }
            _ => {}
        }
        if open.is_some() && matches!(parts.as_slice(), [format::LAYERS, _, format::TAR_SPLIT]) {
            image.finish(&mut open)?;
        }
    }
    image.finish(&mut open)?;
    if !small.is_empty() {
        image.spooled("small", bundled)?;
    }
    image.spooled("application", application(plan, &images)?)?;
    complete(&mut config, &image.layers, plan, &manifest, &images);
    let config = serde_json::to_vec(&config)?;
    let id = sha256(&config);
    let names: Vec<String> =
        base_layers.into_iter().chain(image.layers.iter().map(|layer| layer.name.clone())).collect();
    let index =
        json!([{ "Config": format!("{id}.json"), "RepoTags": [plan.tag], "Layers": names }]).to_string();
    image.entry(&format!("{id}.json"), &config)?;
    image.entry("manifest.json", index.as_bytes())?;
    image.to.write_all(&[0; 2 * 512])?;
    image.to.flush()?;
    Ok(Sealed { id: format!("sha256:{id}"), bundled: small.len() })
}

/// Passes the base's archive on, but for what says what is in it; its configuration, and what its layers are called.
fn copy_base<W: Write>(
    base: impl Read,
    image: &mut Archive<W>,
    has_base: bool,
    told: &impl Fn(u64),
) -> io::Result<(Value, Vec<String>)> {
    let mut small: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut archive = tar::Archive::new(base);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = entry.path()?.to_string_lossy().into_owned();
        let size = entry.header().entry_size()?;
        let is_ours = ["manifest.json", "repositories", "index.json", "oci-layout"].contains(&name.as_str());
        if entry.header().entry_type() == EntryType::Regular && size <= SMALL {
            let mut content = Vec::new();
            entry.read_to_end(&mut content)?;
            if !is_ours {
                image.raw(entry.header(), &mut content.as_slice(), size)?;
            }
            small.insert(name, content);
        } else {
            let mut header = entry.header().clone();
            let is_layer = header.entry_type() == EntryType::Regular;
            if has_base && is_layer {
                io::copy(&mut entry, &mut io::sink())?;
                header.set_size(0);
                header.set_cksum();
                image.raw(&header, &mut io::empty(), 0)?;
            } else {
                image.raw(&header, &mut entry, size)?;
            }
        }
        told(size);
    }
    let missing = |what: &str| io::Error::other(format!("the archive of the base image has no {what}"));
    let index: Value =
        serde_json::from_slice(small.get("manifest.json").ok_or_else(|| missing("manifest.json"))?)?;
    let first = index.get(0).ok_or_else(|| missing("image"))?;
    let config = first.get("Config").and_then(Value::as_str).and_then(|name| small.get(name));
    let layers = first.get("Layers").and_then(Value::as_array).ok_or_else(|| missing("list of layers"))?;
    let layers = layers.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect();
    Ok((serde_json::from_slice(config.ok_or_else(|| missing("configuration"))?)?, layers))
}

/// Layers of the store that share one of the image's: the smallest, where there are more than it has room for.
fn bundle(manifest: &Manifest, room: usize) -> BTreeSet<&str> {
    let mut by_size: Vec<(u64, &str)> = manifest
        .layers
        .iter()
        .map(|layer| (layer.files.size, layer.diff_id.strip_prefix("sha256:").unwrap_or(&layer.diff_id)))
        .collect();
    if by_size.len() <= room {
        return BTreeSet::new();
    }
    by_size.sort_unstable();
    let alone = room.saturating_sub(1);
    by_size.truncate(by_size.len() - alone);
    by_size.into_iter().map(|(_, layer)| layer).collect()
}

/// The layer with the application, and what is in the store but for its layers.
fn application(plan: &Plan, images: &BTreeMap<String, Vec<u8>>) -> io::Result<Spool> {
    let mut layer = Spool::new()?;
    let (store, marker) = (relative(format::FOLDER), relative(paths::APPLIANCE));
    let (application, images_folder) = (relative(FOLDER), format!("{store}/{}", format::IMAGES));
    layer.folders(&[&application])?;
    layer.text(&format!("{application}/docker-compose.yml"), plan.compose.as_bytes())?;
    for path in &plan.carried {
        carry(&mut layer, &application, &plan.folder, path)?;
    }
    layer.folders(&["etc/dind"])?;
    layer.text(&marker, b"sealed\n")?;
    layer.folders(&[&images_folder])?;
    for (name, text) in images {
        layer.text(&format!("{images_folder}/{name}"), text)?;
    }
    layer.text(&format!("{store}/{}", format::MANIFEST), plan.manifest.as_bytes())?;
    for (name, text) in [(format::DIGEST, &plan.manifest), (format::APPLICATION, &plan.compose)] {
        let digest = format!("sha256:{}\n", sha256(text.as_bytes()));
        layer.text(&format!("{store}/{name}"), digest.as_bytes())?;
    }
    Ok(layer)
}

/// Adds a file, a link or a folder of the application.
fn carry(layer: &mut Spool, application: &str, folder: &Path, path: &Path) -> io::Result<()> {
    let here = folder.join(path);
    let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", here.display()));
    let found = here.symlink_metadata().map_err(named)?;
    let mut above = PathBuf::from(application);
    for part in path.parent().into_iter().flatten() {
        above.push(part);
        layer.folders(&[&above.to_string_lossy()])?;
    }
    let name = format!("{application}/{}", path.display());
    let mode = found.permissions().mode() & 0o7777;
    if found.is_dir() {
        layer.folder(&name, mode)?;
        let mut names: Vec<PathBuf> = fs::read_dir(&here)?
            .map(|entry| Ok(path.join(entry?.file_name())))
            .collect::<io::Result<_>>()
            .map_err(named)?;
        names.sort();
        names.iter().try_for_each(|path| carry(layer, application, folder, path))
    } else if found.is_symlink() {
        layer.link(&name, &here.read_link().map_err(named)?)
    } else if found.is_file() {
        layer.file(&name, mode, found.len(), &mut File::open(&here).map_err(named)?)
    } else {
        Err(named(io::Error::other("it is no file, folder or link")))
    }
}

/// Makes the base's configuration the appliance's.
fn complete(
    config: &mut Value,
    layers: &[Layer],
    plan: &Plan,
    manifest: &Manifest,
    images: &BTreeMap<String, Vec<u8>>,
) {
    let created = |text: &[u8]| {
        let config: Value = serde_json::from_slice(text).ok()?;
        config.get("created")?.as_str().map(str::to_owned)
    };
    // As old as its youngest part: the same parts make the same image.
    let of_base = config.get("created").and_then(Value::as_str).map(str::to_owned);
    let newest = images.values().filter_map(|text| created(text)).chain(of_base).max();
    let newest = newest.unwrap_or_else(|| "1970-01-01T00:00:00Z".to_owned());
    config["created"] = json!(newest);
    for key in ["container", "container_config", "id", "parent"] {
        if let Some(config) = config.as_object_mut() {
            config.remove(key);
        }
    }
    for layer in layers {
        let history = json!({ "created": newest, "created_by": format!("dind bake: {}", layer.name), "comment": "dind" });
        push(config, "/history", history);
        push(config, "/rootfs/diff_ids", json!(layer.diff_id));
    }
    let store = format!("sha256:{}", sha256(plan.manifest.as_bytes()));
    let inside = &mut config["config"];
    inside["Labels"][labels::STORE] = json!(store);
    inside["Labels"][labels::SEALED] = json!(serde_json::to_string(&manifest.images).unwrap_or_default());
    // Not its name: what an image is called is not part of it.
    inside["Labels"]["org.opencontainers.image.title"] = json!("dind-compose-sealed");
    if inside["Healthcheck"].is_object() {
        inside["Healthcheck"]["StartPeriod"] = json!(START_PERIOD);
    }
}

fn push(config: &mut Value, place: &str, value: Value) {
    if let Some(list) = config.pointer_mut(place).and_then(Value::as_array_mut) {
        list.push(value);
    }
}

/// The folder of a layer of the store.
fn of_layer(digits: &str) -> String {
    format!("{}/{}/{digits}", relative(format::FOLDER), format::LAYERS)
}

/// The mark of a folder of which the layers below have nothing. Without it overlay would look for it in each of them.
fn opaque(folder: &str) -> String {
    format!("{folder}/.wh..wh..opq")
}

/// A path as archives have it.
fn relative(path: &str) -> String {
    path.trim_start_matches('/').to_owned()
}

/// The length of a file's content in an archive, which has whole blocks.
pub(super) fn padded(size: u64) -> u64 {
    size.div_ceil(BLOCK) * BLOCK
}

/// The length of the layer that has one layer of the store: folders, two files, and the end.
fn length(layer: &format::Layer, digits: &str) -> u64 {
    let folder = of_layer(digits);
    let folders = above(&folder).len() as u64 * BLOCK + long(&opaque(&folder)) + BLOCK;
    let file = |name: &str, content: &format::Content| {
        long(&format!("{folder}/{name}")) + BLOCK + padded(content.size)
    };
    folders + file(format::FILES, &layer.files) + file(format::TAR_SPLIT, &layer.tar_split) + 2 * BLOCK
}

/// How many bytes a path takes before its entry: none, where it fits into the entry's head.
fn long(path: &str) -> u64 {
    if path.len() > LONGEST { BLOCK + padded(path.len() as u64 + 1) } else { 0 }
}

/// The folders that an entry at this path needs, which the base may not have, the highest first. Those of the system are there.
fn above(path: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut at = PathBuf::new();
    for part in Path::new(path) {
        at.push(part);
        let text = at.to_string_lossy().into_owned();
        if !["usr", "usr/lib", "etc"].contains(&text.as_str()) {
            all.push(text);
        }
    }
    all
}

/// The head of an entry, with nothing in it that is not the same everywhere.
fn head(path: &str, kind: EntryType, mode: u32, size: u64) -> io::Result<Header> {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_path(path)?;
    header.set_cksum();
    Ok(header)
}

/// A layer of the image.
struct Layer {
    name: String,
    diff_id: String,
}

/// The image's archive.
struct Archive<W> {
    to: W,
    layers: Vec<Layer>,
}

impl<W: Write> Archive<W> {
    fn raw(&mut self, header: &Header, content: &mut impl Read, size: u64) -> io::Result<()> {
        self.to.write_all(header.as_bytes())?;
        copy(content, &mut self.to, size)
    }

    fn entry(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        let size = content.len() as u64;
        self.raw(&head(name, EntryType::Regular, 0o644, size)?, &mut &*content, size)
    }

    /// Begins a layer of this length.
    fn layer(&mut self, layer: &str, length: u64) -> io::Result<Writer> {
        self.to.write_all(head(&format!("{layer}.tar"), EntryType::Regular, 0o644, length)?.as_bytes())?;
        Ok(Writer { layer: layer.to_owned(), left: length, entries: Entries::new() })
    }

    /// Ends the layer that was begun, if there is one.
    fn finish(&mut self, open: &mut Option<Writer>) -> io::Result<()> {
        let Some(mut writer) = open.take() else { return Ok(()) };
        let written = writer.entries.end(&mut self.to)?;
        writer.count(written)?;
        if writer.left != 0 {
            return Err(io::Error::other(format!(
                "the layer {} is shorter than its manifest says",
                writer.layer
            )));
        }
        self.layers.push(Layer { name: format!("{}.tar", writer.layer), diff_id: writer.entries.digest() });
        Ok(())
    }

    /// Adds a layer that was written to a temporary file.
    fn spooled(&mut self, name: &str, mut spool: Spool) -> io::Result<()> {
        spool.entries.end(&mut spool.file)?;
        let length = spool.file.stream_position()?;
        spool.file.seek(SeekFrom::Start(0))?;
        let name = format!("{name}.tar");
        let header = head(&name, EntryType::Regular, 0o644, length)?;
        let mut file = spool.file;
        self.raw(&header, &mut file, length)?;
        self.layers.push(Layer { name, diff_id: spool.entries.digest() });
        Ok(())
    }
}

/// A layer that is written into the image's archive at once.
struct Writer {
    /// The digits of the store's layer.
    layer: String,
    /// Bytes that are still to come.
    left: u64,
    entries: Entries,
}

impl Writer {
    fn count(&mut self, written: u64) -> io::Result<()> {
        self.left = self.left.checked_sub(written).ok_or_else(|| {
            io::Error::other(format!("the layer {} is longer than its manifest says", self.layer))
        })?;
        Ok(())
    }
}

/// A layer whose length is not known before it is written: in a file that nobody else sees.
struct Spool {
    file: File,
    entries: Entries,
}

impl Spool {
    fn new() -> io::Result<Self> {
        Ok(Self { file: tempfile::tempfile()?, entries: Entries::new() })
    }

    fn folders(&mut self, paths: &[&str]) -> io::Result<()> {
        self.entries.folders(paths, &mut self.file).map(drop)
    }

    fn folder(&mut self, path: &str, mode: u32) -> io::Result<()> {
        self.entries.folder(path, mode, &mut self.file).map(drop)
    }

    fn file(&mut self, path: &str, mode: u32, size: u64, content: &mut impl Read) -> io::Result<()> {
        self.entries.file(path, mode, size, content, &mut self.file).map(drop)
    }

    fn text(&mut self, path: &str, text: &[u8]) -> io::Result<()> {
        self.file(path, 0o644, text.len() as u64, &mut &*text)
    }

    fn link(&mut self, path: &str, target: &Path) -> io::Result<()> {
        let mut header = head(path, EntryType::Symlink, 0o777, 0)?;
        header.set_link_name(target)?;
        header.set_cksum();
        self.entries.write(header.as_bytes(), &mut self.file)
    }
}

/// The entries of a layer, and the digest of all.
struct Entries {
    context: Context,
    /// Folders that are in it already.
    folders: BTreeSet<String>,
}

impl Entries {
    fn new() -> Self {
        Self { context: Context::new(&SHA256), folders: BTreeSet::new() }
    }

    fn write(&mut self, bytes: &[u8], to: &mut impl Write) -> io::Result<()> {
        self.context.update(bytes);
        to.write_all(bytes)
    }

    /// Folders with all above them; how many bytes they take.
    fn folders(&mut self, paths: &[&str], to: &mut impl Write) -> io::Result<u64> {
        let mut written = 0;
        for path in paths.iter().flat_map(|path| above(path)) {
            written += self.folder(&path, 0o755, to)?;
        }
        Ok(written)
    }

    fn folder(&mut self, path: &str, mode: u32, to: &mut impl Write) -> io::Result<u64> {
        if !self.folders.insert(path.to_owned()) {
            return Ok(0);
        }
        self.long(path, to)?;
        self.write(head_of(path, EntryType::Directory, mode, 0)?.as_bytes(), to)?;
        Ok(long(path) + BLOCK)
    }

    fn file(
        &mut self,
        path: &str,
        mode: u32,
        size: u64,
        content: &mut impl Read,
        to: &mut impl Write,
    ) -> io::Result<u64> {
        self.long(path, to)?;
        self.write(head_of(path, EntryType::Regular, mode, size)?.as_bytes(), to)?;
        let mut both = Both { entries: self, to };
        copy(content, &mut both, size)?;
        Ok(long(path) + BLOCK + padded(size))
    }

    /// A path that is too long for an entry's head goes before it, as GNU tar does it.
    fn long(&mut self, path: &str, to: &mut impl Write) -> io::Result<()> {
        if path.len() <= LONGEST {
            return Ok(());
        }
        let size = path.len() as u64 + 1;
        self.write(head("././@LongLink", EntryType::GNULongName, 0o644, size)?.as_bytes(), to)?;
        let mut text = path.as_bytes().to_vec();
        text.resize(usize::try_from(padded(size)).unwrap_or_default(), 0);
        self.write(&text, to)
    }

    fn end(&mut self, to: &mut impl Write) -> io::Result<u64> {
        self.write(&[0; 2 * 512], to)?;
        Ok(2 * BLOCK)
    }

    fn digest(self) -> String {
        let digits: String =
            self.context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("sha256:{digits}")
    }
}

/// The longest path in an entry's head, in bytes.
const LONGEST: usize = 100;

/// The head of an entry whose path may be too long for it.
fn head_of(path: &str, kind: EntryType, mode: u32, size: u64) -> io::Result<Header> {
    let end = (0..=path.len().min(LONGEST)).rev().find(|&end| path.is_char_boundary(end)).unwrap_or_default();
    head(path.get(..end).unwrap_or(path), kind, mode, size)
}

/// What is written is also taken into the digest.
struct Both<'a, W> {
    entries: &'a mut Entries,
    to: &'a mut W,
}

impl<W: Write> Write for Both<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.entries.write(bytes, self.to).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Copies exactly so many bytes, and fills up the last block.
fn copy(from: &mut impl Read, to: &mut impl Write, size: u64) -> io::Result<()> {
    let copied = io::copy(&mut from.take(size), to)?;
    if copied != size {
        return Err(io::Error::other(format!("an archive ended after {copied} bytes of {size}")));
    }
    to.write_all(&vec![0; usize::try_from(padded(size) - size).unwrap_or_default()])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        let config = json!({"created": "2020-01-01T00:00:00Z", "config": {"Labels": {"a": "b"}}, "history": [{}], "rootfs": {"diff_ids": ["sha256:x"]}}).to_string();
        let index = json!([{"Config": "c.json", "RepoTags": null, "Layers": ["l/layer.tar"]}]).to_string();
        for (name, content) in
            [("l/layer.tar", "layer"), ("c.json", config.as_str()), ("manifest.json", index.as_str())]
        {
            let header = head(name, EntryType::Regular, 0o644, content.len() as u64).unwrap();
            archive.append(&header, content.as_bytes()).unwrap();
        }
        archive.into_inner().unwrap()
    }

    /// A store of so many layers, of which each has another length.
    fn store(layers: usize) -> (String, Vec<u8>) {
        let mut archive = tar::Builder::new(Vec::new());
        let mut all = Vec::new();
        let mut add = |name: String, content: &[u8]| {
            let mut header = Header::new_gnu();
            header.set_size(content.len() as u64);
            archive.append_data(&mut header, name, content).unwrap();
        };
        add("store/images/i.json".to_owned(), br#"{"created":"2021-01-01T00:00:00Z"}"#);
        for number in 0..layers {
            let layer = format!("{number:064}");
            let files = vec![b'f'; number + 1];
            add(format!("store/layers/{layer}/files.erofs"), &files);
            add(format!("store/layers/{layer}/tar-split.json.gz"), b"list");
            let content = |size: usize| json!({"size": size, "digest": "sha256:0"});
            all.push(json!({"diff_id": format!("sha256:{layer}"), "size": 1, "files": content(files.len()), "tar_split": content(4)}));
        }
        let manifest =
            json!({"version": 1, "platform": "linux/amd64", "images": [], "layers": all}).to_string();
        (manifest, archive.into_inner().unwrap())
    }

    fn made(layers: usize) -> (Sealed, Vec<u8>) {
        let folder = tempfile::tempdir().unwrap();
        let long = "x".repeat(120);
        fs::create_dir(folder.path().join("conf")).unwrap();
        fs::write(folder.path().join("conf").join(&long), "long").unwrap();
        let (manifest, store) = store(layers);
        let plan = Plan {
            tag: "shop:1".to_owned(),
            has_base: false,
            manifest,
            compose: "services: {}\n".to_owned(),
            folder: folder.path().to_owned(),
            carried: BTreeSet::from([PathBuf::from("conf")]),
        };
        let mut image = Vec::new();
        let sealed = assemble(base().as_slice(), store.as_slice(), &plan, &mut image, |_| ()).unwrap();
        (sealed, image)
    }

    /// Every file of an archive.
    fn files(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut archive = tar::Archive::new(archive);
        let all = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            (entry.path().unwrap().to_string_lossy().into_owned(), content)
        });
        all.collect()
    }

    #[test]
    fn an_image_has_a_layer_for_each_of_the_store_and_one_with_the_application() {
        let (sealed, image) = made(3);
        let files = files(&image);
        let config: Value = serde_json::from_slice(&files[&format!("{}.json", &sealed.id[7..])]).unwrap();
        assert_eq!(config["created"], "2021-01-01T00:00:00Z");
        assert_eq!(config["config"]["Labels"]["a"], "b");
        let index: Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
        let layers = index[0]["Layers"].as_array().unwrap();
        let diff_ids = config["rootfs"]["diff_ids"].as_array().unwrap();
        assert_eq!((layers.len(), diff_ids.len(), config["history"].as_array().unwrap().len()), (5, 5, 5));
        for (name, diff_id) in layers.iter().zip(diff_ids).skip(1) {
            let layer = &files[name.as_str().unwrap()];
            assert_eq!(format!("sha256:{}", sha256(layer)), diff_id.as_str().unwrap());
        }
        let application = self::files(&files["application.tar"]);
        assert_eq!(application["etc/dind/appliance"], b"sealed\n");
        assert_eq!(application[&format!("compose/conf/{}", "x".repeat(120))], b"long");
        let first = self::files(&files[&format!("{:064}.tar", 0)]);
        assert_eq!(first[&format!("usr/lib/dind/store/layers/{:064}/files.erofs", 0)], b"f");
    }

    #[test]
    fn the_same_is_made_of_the_same_and_layers_are_shared() {
        let (one, first) = made(3);
        let (two, second) = made(3);
        assert!(one == two && first == second);
        let (_, third) = made(4);
        let name = format!("{:064}.tar", 2);
        assert_eq!(files(&first)[&name], files(&third)[&name]);
    }

    #[test]
    fn what_is_too_much_for_an_image_is_bundled() {
        let (sealed, image) = made(200);
        // 125 with the base's one, the bundle, and the application's.
        assert_eq!(sealed.bundled, 200 - 122);
        let files = files(&image);
        let index: Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
        assert_eq!(index[0]["Layers"].as_array().unwrap().len(), MOST_LAYERS);
        let bundle = self::files(&files["small.tar"]);
        assert!(bundle.contains_key(&format!("usr/lib/dind/store/layers/{:064}/files.erofs", 0)));
        assert!(!bundle.contains_key(&format!("usr/lib/dind/store/layers/{:064}/files.erofs", 199)));
    }
}

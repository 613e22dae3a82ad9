//! How a store is made: `dind-init helper make-store`, in a host whose engine has the images.
//!
//! The tar of each layer is put together from the engine's own records and must have the digest that the image names. It goes through
//! `mkfs.erofs`, which keeps everything that a tar can say, also what takes something of a lower layer away. The same tar gives the same
//! bytes: the times are the files' own, and what identifies the file system is made of the layer's digest.
#![allow(clippy::disallowed_methods, reason = "an ordinary program, which looks after its own children")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use dind_contract::store::{self as format, Content, Image, Layer, Manifest};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use ring::digest::{Context, SHA256};
use serde::Deserialize;

use super::{canonical, chains, digits};
use crate::failure::Failure;
use crate::layers::{self, sha256};
use crate::{ask, ground};

/// In the target: the layers of this store and of earlier ones, each in a folder of its own.
const CACHE: &str = "cache";
/// In the target: the store, whose layers are the same files.
const STORE: &str = "store";
/// In a layer's folder, when it is whole: what the manifest says of it.
const MADE: &str = "layer.json";
/// The graph driver whose layers are read.
const DRIVER: &str = "overlay2";

/// What is asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    platform: String,
    images: Vec<Wanted>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    id: String,
    names: Vec<String>,
    digests: Vec<String>,
}

/// A layer of the engine's.
struct Source {
    diff_id: String,
    /// Name of an image that has it.
    image: String,
    size: u64,
    tar_split: PathBuf,
    files: PathBuf,
}

/// Makes the store `target/store` of the images that the file `request` names. Layers of earlier stores are in `target/cache`, and not made
/// again.
///
/// # Errors
/// An image is not there or damaged, a program is missing, or the disk is full.
pub(crate) fn make(data_root: &Path, request: &Path, target: &Path) -> Result<ExitCode, Failure> {
    let engine_root = ground::engine_root(data_root);
    let text = fs::read(request).map_err(|e| {
        Failure::usage(
            format!("cannot read {}: {e}", request.display()),
            "name the file that dind bake has written",
        )
    })?;
    let mut request: Request = serde_json::from_slice(&text).map_err(|e| {
        Failure::usage(format!("{}: {e}", request.display()), "use dind and dind-init of the same version")
    })?;
    request.images.sort_by(|one, other| one.id.cmp(&other.id));
    let cannot_write = |path: &Path, e: &io::Error| full(path, e);
    let (cache, store) = (target.join(CACHE), target.join(STORE));
    let _ = fs::remove_dir_all(&store);
    for folder in [cache.clone(), store.join(format::LAYERS), store.join(format::IMAGES)] {
        fs::create_dir_all(&folder).map_err(|e| cannot_write(&folder, &e))?;
    }
    let mut images = Vec::new();
    let mut sources: BTreeMap<String, Source> = BTreeMap::new();
    for wanted in request.images {
        let (image, config, found) = look(&engine_root, wanted)?;
        let file = store.join(format::IMAGES).join(format!("{}.json", digits(&image.id)));
        fs::write(&file, config).map_err(|e| cannot_write(&file, &e))?;
        for source in found {
            sources.entry(source.diff_id.clone()).or_insert(source);
        }
        images.push(image);
    }
    let of = sources.len();
    let mut layers = Vec::new();
    for (number, source) in sources.values().enumerate() {
        let (layer, reused) = layer(source, &cache)?;
        let (made, folder) =
            (cache.join(digits(&layer.diff_id)), store.join(format::LAYERS).join(digits(&layer.diff_id)));
        fs::create_dir(&folder).map_err(|e| cannot_write(&folder, &e))?;
        for name in [format::FILES, format::TAR_SPLIT] {
            fs::hard_link(made.join(name), folder.join(name)).map_err(|e| cannot_write(&folder, &e))?;
        }
        let said = serde_json::json!({
            "layer": layer.diff_id, "number": number + 1, "of": of, "bytes": layer.files.size, "reused": reused,
        });
        ask::print(&format!("{said}\n"));
        layers.push(layer);
    }
    let bytes: u64 = layers.iter().map(|layer| layer.files.size + layer.tar_split.size).sum();
    let manifest = Manifest { version: format::VERSION, platform: request.platform, images, layers };
    let text = serde_json::to_string_pretty(&manifest).unwrap_or_default() + "\n";
    let digest = format!("sha256:{}", sha256(text.as_bytes()));
    for (name, content) in [(format::MANIFEST, &text), (format::DIGEST, &format!("{digest}\n"))] {
        let file = store.join(name);
        fs::write(&file, content).map_err(|e| cannot_write(&file, &e))?;
    }
    ask::print(&format!("{}\n", serde_json::json!({"manifest": digest, "bytes": bytes})));
    Ok(ExitCode::SUCCESS)
}

/// Finds an image and its layers among the engine's records.
fn look(engine_root: &Path, wanted: Wanted) -> Result<(Image, Vec<u8>, Vec<Source>), Failure> {
    #[derive(Deserialize)]
    struct Config {
        rootfs: RootFs,
    }
    #[derive(Deserialize)]
    struct RootFs {
        #[serde(default)]
        diff_ids: Vec<String>,
    }
    let name = wanted.names.first().unwrap_or(&wanted.id).clone();
    let records = engine_root.join("image").join(DRIVER);
    let broken = |what: String| {
        Failure::unavailable(
            format!("the image {name} cannot be sealed: {what}"),
            "pull or build it again: docker volume rm dind-bake, then bake again",
        )
    };
    let file = records.join("imagedb/content/sha256").join(digits(&wanted.id));
    let config = fs::read(&file).map_err(|e| {
        Failure::unavailable(
            format!("the image {name} is not among those of the storage driver {DRIVER} ({e})"),
            "the engine that images are sealed in must use overlay2: see dind doctor",
        )
    })?;
    if sha256(&config) != digits(&wanted.id) {
        return Err(broken(format!("its configuration is not {}", wanted.id)));
    }
    let parsed: Config = serde_json::from_slice(&config).map_err(|e| broken(e.to_string()))?;
    let diff_ids = parsed.rootfs.diff_ids;
    let mut sources = Vec::new();
    for (diff_id, chain) in diff_ids.iter().zip(chains(&diff_ids)) {
        let record = records.join("layerdb/sha256").join(&chain);
        let read = |what: &str| {
            fs::read_to_string(record.join(what))
                .map_err(|e| broken(format!("its layer {diff_id}: {what}: {e}")))
        };
        let cache_id = read("cache-id")?;
        if !layers::is_name(&cache_id) {
            return Err(broken(format!("its layer {diff_id} has no good cache-id")));
        }
        sources.push(Source {
            diff_id: diff_id.clone(),
            image: name.clone(),
            size: read("size")?
                .trim()
                .parse()
                .map_err(|_| broken(format!("its layer {diff_id} has no size")))?,
            tar_split: record.join("tar-split.json.gz"),
            files: engine_root.join(DRIVER).join(cache_id).join("diff"),
        });
    }
    let image = Image { id: wanted.id, names: wanted.names, digests: wanted.digests, layers: diff_ids };
    Ok((image, config, sources))
}

/// Makes a layer's folder, or finds the one that was made before; what the manifest says of it, and whether it was there.
fn layer(source: &Source, cache: &Path) -> Result<(Layer, bool), Failure> {
    let name = digits(&source.diff_id);
    let folder = cache.join(name);
    let made = folder.join(MADE);
    if let Some(layer) = fs::read(&made).ok().and_then(|text| serde_json::from_slice::<Layer>(&text).ok())
        && has_size(&folder.join(format::FILES), layer.files.size)
        && has_size(&folder.join(format::TAR_SPLIT), layer.tar_split.size)
    {
        return Ok((layer, true));
    }
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir(&folder).map_err(|e| full(&folder, &e))?;
    let (files, tar_split) = (folder.join(format::FILES), folder.join(format::TAR_SPLIT));
    rewrite(&source.tar_split, &tar_split).map_err(|e| full(&tar_split, &e))?;
    file_system(source, &tar_split, &files)?;
    let content = |path: &Path| content(path).map_err(|e| full(path, &e));
    let layer = Layer {
        diff_id: source.diff_id.clone(),
        size: source.size,
        files: content(&files)?,
        tar_split: content(&tar_split)?,
    };
    // Last: what is there with this file is whole.
    let text = serde_json::to_vec(&layer).unwrap_or_default();
    crate::sync::write_durably(&made, &text).map_err(|e| full(&made, &e))?;
    Ok((layer, false))
}

fn has_size(path: &Path, size: u64) -> bool {
    path.metadata().is_ok_and(|it| it.is_file() && it.len() == size)
}

/// Compresses a list anew, so that its bytes depend on no engine's gzip.
fn rewrite(from: &Path, to: &Path) -> io::Result<()> {
    let mut list = GzDecoder::new(BufReader::new(File::open(from)?));
    let mut writer = GzEncoder::new(BufWriter::new(File::create(to)?), Compression::default());
    io::copy(&mut list, &mut writer)?;
    writer.finish()?.into_inner()?.sync_all()
}

/// Makes the erofs of a layer.
fn file_system(source: &Source, list: &Path, to: &Path) -> Result<(), Failure> {
    let mut child = mkfs(&source.diff_id, to).map_err(|e| {
        Failure::unavailable(
            format!("mkfs.erofs cannot be started: {e}"),
            "bake on an image with erofs-utils 1.8 or newer, such as dind-debian",
        )
    })?;
    let stdin = child.stdin.take();
    let moved = AtomicU64::new(0);
    let is_over = AtomicBool::new(false);
    let (digest, output) = thread::scope(|scope| {
        let pid = child.id();
        let watched = scope.spawn({
            let (moved, is_over) = (&moved, &is_over);
            move || watch(pid, moved, is_over)
        });
        let digest = stdin.map(|stdin| pass(source, list, stdin, &moved));
        let output = child.wait_with_output();
        is_over.store(true, Ordering::SeqCst);
        watched.thread().unpark();
        (digest, output)
    });
    let said =
        output.as_ref().map(|it| String::from_utf8_lossy(&it.stderr).trim().to_owned()).unwrap_or_default();
    let failed = |mut what: String| {
        // After a write that fails for that, mkfs.erofs may go on, and in the end find fault with its input.
        let full = is_full(to);
        if full && !what.contains("No space left") {
            what = format!("No space left on device ({what})");
        }
        let help = if full || format!("{what} {said}").contains("No space left") {
            ROOM
        } else {
            "bake again with --no-cache; if that does not help, report this with the line above"
        };
        let (diff_id, image) = (&source.diff_id, &source.image);
        Failure::unavailable(
            format!("the layer {diff_id} of the image {image} cannot be sealed: {what}"),
            help,
        )
    };
    match output {
        Ok(output) if output.status.success() => {}
        Ok(_) => return Err(failed(format!("mkfs.erofs: {}", said.lines().next().unwrap_or("it failed")))),
        Err(e) => return Err(failed(format!("mkfs.erofs: {e}"))),
    }
    match digest {
        Some(Ok(digest)) if digest == digits(&source.diff_id) => Ok(()),
        Some(Ok(digest)) => {
            Err(failed(format!("its files are not what was unpacked: they make sha256:{digest}")))
        }
        Some(Err(e)) => Err(failed(e.to_string())),
        None => Err(failed("mkfs.erofs has no input".to_owned())),
    }
}

/// Passes the layer's tar on, written in one way; the digest of the tar as it was.
fn pass(source: &Source, list: &Path, to: impl Write, moved: &AtomicU64) -> io::Result<String> {
    let (read, write) = io::pipe()?;
    thread::scope(|scope| {
        let assembling = scope.spawn(move || {
            let writer = BufWriter::with_capacity(1 << 20, write);
            let mut tar = Digesting { writer, context: Context::new(&SHA256) };
            layers::assemble(list, &source.files, &mut tar).and_then(|()| tar.finish())
        });
        let mut read = BufReader::with_capacity(1 << 20, read);
        let to = Counting { writer: BufWriter::with_capacity(1 << 20, to), moved };
        let written = canonical::write(&mut read, to);
        // What follows the end of a tar belongs to its digest.
        let rest = written.as_ref().map(|()| io::copy(&mut read, &mut io::sink()));
        let rest = rest.map_or(Ok(0), |rest| rest);
        drop(read);
        let digest = assembling
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the layer's tar cannot be put together")));
        match (written, digest) {
            // Where nobody reads any more, the reason is there.
            (Err(e), Err(other)) if other.kind() == io::ErrorKind::BrokenPipe => Err(e),
            (_, Err(e)) | (Err(e), _) => Err(e),
            (Ok(()), Ok(digest)) => rest.map(|_| digest),
        }
    })
}

/// How long `mkfs.erofs` may do nothing that can be seen: of some tars it never comes to an end.
const PATIENCE: Duration = Duration::from_secs(120);

/// Ends a program that takes nothing any more.
fn watch(pid: u32, moved: &AtomicU64, is_over: &AtomicBool) {
    let (mut seen, mut since) = (moved.load(Ordering::SeqCst), Instant::now());
    while !is_over.load(Ordering::SeqCst) {
        thread::park_timeout(Duration::from_secs(1));
        let now = moved.load(Ordering::SeqCst);
        if now != seen {
            (seen, since) = (now, Instant::now());
        } else if since.elapsed() > PATIENCE && !is_over.load(Ordering::SeqCst) {
            if let Ok(pid) = i32::try_from(pid) {
                crate::process::send(pid, nix::sys::signal::Signal::SIGKILL);
            }
            return;
        }
    }
}

/// A writer that counts what goes through it, for whoever watches.
struct Counting<'a, W> {
    writer: W,
    moved: &'a AtomicU64,
}

impl<W: Write> Write for Counting<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.writer.write(bytes)?;
        self.moved.fetch_add(written as u64, Ordering::SeqCst);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// `-T` with `--mkfs-time`: the time of the file system is fixed, the files keep theirs, which needs the larger inodes.
fn mkfs(diff_id: &str, to: &Path) -> io::Result<Child> {
    let mut command = Command::new("mkfs.erofs");
    command.args(["--quiet", "--tar=f", "--aufs", "-Eforce-inode-extended", "-T0", "--mkfs-time", "-U"]);
    command.arg(uuid(digits(diff_id))).arg(to);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()
}

/// The first digits of the layer's digest as an UUID.
fn uuid(digits: &str) -> String {
    let part = |from: usize, to: usize| digits.get(from..to).unwrap_or_default();
    format!("{}-{}-{}-{}-{}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32))
}

/// A writer that takes the digest of what goes through it.
struct Digesting<W> {
    writer: W,
    context: Context,
}

impl<W: Write> Write for Digesting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.writer.write(bytes)?;
        self.context.update(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

impl<W: Write> Digesting<W> {
    /// The digest, as 64 digits.
    fn finish(mut self) -> io::Result<String> {
        self.flush()?;
        Ok(self.context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// Length and digest of a file.
pub(super) fn content(path: &Path) -> io::Result<Content> {
    let mut file = File::open(path)?;
    let mut digesting = Digesting { writer: io::sink(), context: Context::new(&SHA256) };
    let mut piece = vec![0; 1 << 20];
    let mut size = 0;
    loop {
        match file.read(&mut piece)? {
            0 => break,
            length => {
                digesting.write_all(piece.get(..length).unwrap_or_default())?;
                size += u64::try_from(length).unwrap_or_default();
            }
        }
    }
    Ok(Content { size, digest: format!("sha256:{}", digesting.finish()?) })
}

/// What to do where the disk is full.
const ROOM: &str = "make room on the disk of the endpoint's engine: docker system df shows what takes it, docker volume rm dind-bake dind-bake-store what earlier bakes left";

/// Whether the disk of this file has no room for another of its blocks.
fn is_full(file: &Path) -> bool {
    nix::sys::statvfs::statvfs(file).is_ok_and(|disk| disk.blocks_free() == 0)
}

fn full(path: &Path, e: &io::Error) -> Failure {
    let help = if e.raw_os_error() == Some(libc::ENOSPC) {
        ROOM
    } else {
        "look at the disk of the endpoint's engine"
    };
    Failure::unavailable(format!("cannot write {}: {e}", path.display()), help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_uuid_is_made_of_the_digest() {
        assert_eq!(uuid(&"0123456789abcdef".repeat(4)), "01234567-89ab-cdef-0123-456789abcdef");
    }

    #[test]
    fn length_and_digest_of_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "abc").unwrap();
        let expected = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(content(file.path()).unwrap(), Content { size: 3, digest: expected.to_owned() });
    }
}

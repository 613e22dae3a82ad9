//! Payloads in the forms in which images travel: archives for `docker load` and `docker import`, build contexts, and what a
//! registry stores.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ring::digest::{Context, SHA256};
use serde_json::{Value, json};
use tar::{Builder, Header};
use tempfile::TempDir;

use super::content::{LABEL, Layer, Payload, checksum, hexadecimal};
use crate::image;

/// A file in a folder of its own, gone when this is dropped.
#[derive(Debug)]
pub(super) struct Packed {
    path: PathBuf,
    _folder: TempDir,
}

impl Packed {
    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// A file in the registry's or the archive's terms: named by its digest.
#[derive(Debug)]
pub(super) struct Blob {
    pub(super) path: PathBuf,
    /// SHA-256, in hexadecimal.
    pub(super) digest: String,
    pub(super) bytes: u64,
}

/// An image as it is put into archives and registries: its layers, the base's first, and its configuration.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) layers: Vec<Blob>,
    pub(super) config: Blob,
}

impl Image {
    /// Writes layers and configuration into this folder.
    pub(super) fn write(payload: &Payload, folder: &Path) -> io::Result<Self> {
        let base = folder.join("layer-0.tar");
        let base_tar = image::busybox();
        fs::write(&base, &base_tar)?;
        let mut layers = vec![Blob { path: base, digest: checksum(&base_tar), bytes: base_tar.len() as u64 }];
        for (number, layer) in payload.layers.iter().enumerate() {
            let path = folder.join(format!("layer-{}.tar", number + 1));
            let mut writer =
                Hashing { file: BufWriter::new(File::create(&path)?), so_far: Context::new(&SHA256) };
            append_layer(&mut Builder::new(&mut writer), layer)?;
            writer.flush()?;
            let bytes = fs::metadata(&path)?.len();
            layers.push(Blob { path, digest: hexadecimal(writer.so_far.finish().as_ref()), bytes });
        }
        let diff_ids: Vec<String> = layers.iter().map(|blob| format!("sha256:{}", blob.digest)).collect();
        let history: Vec<Value> = layers.iter().map(|_| json!({"created_by": "a campaign"})).collect();
        let config = json!({
            "architecture": architecture(),
            "os": "linux",
            "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"], "Labels": {LABEL: payload.id}},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": history,
        });
        let text = config.to_string();
        let path = folder.join("config.json");
        fs::write(&path, &text)?;
        let config = Blob { path, digest: checksum(text.as_bytes()), bytes: text.len() as u64 };
        Ok(Self { layers, config })
    }
}

/// An archive for `docker load`, which gives the image this name.
pub(super) fn for_load(payload: &Payload, name: &str, scratch: &Path) -> io::Result<Packed> {
    let folder = TempDir::new_in(scratch)?;
    let image = Image::write(payload, folder.path())?;
    let config = format!("{}.json", image.config.digest);
    let names: Vec<String> = (0..image.layers.len()).map(|number| format!("layer-{number}.tar")).collect();
    let manifest = json!([{"Config": config, "RepoTags": [name], "Layers": names}]).to_string();
    pack(folder, |archive| {
        archive.append_path_with_name(&image.config.path, &config)?;
        for (blob, name) in image.layers.iter().zip(&names) {
            archive.append_path_with_name(&blob.path, name)?;
            fs::remove_file(&blob.path)?;
        }
        append(archive, "manifest.json", manifest.as_bytes())
    })
}

/// An archive of a whole file system, for `docker import`: all in one layer, the base too.
pub(super) fn for_import(payload: &Payload, scratch: &Path) -> io::Result<Packed> {
    pack(TempDir::new_in(scratch)?, |archive| {
        append(archive, "bin/busybox", &image::busybox_program())?;
        payload.layers.iter().try_for_each(|layer| append_layer(archive, layer))
    })
}

/// An archive of these layers' files alone.
pub(super) fn files(layers: &[Arc<Layer>], scratch: &Path) -> io::Result<Packed> {
    pack(TempDir::new_in(scratch)?, |archive| {
        layers.iter().try_for_each(|layer| append_layer(archive, layer))
    })
}

/// A context for `docker build`: the Dockerfile, and the files of the layers.
pub(super) fn for_build(layers: &[Arc<Layer>], dockerfile: &str, scratch: &Path) -> io::Result<Packed> {
    pack(TempDir::new_in(scratch)?, |archive| {
        append(archive, "Dockerfile", dockerfile.as_bytes())?;
        append(archive, "bin/busybox", &image::busybox_program())?;
        layers.iter().try_for_each(|layer| append_layer(archive, layer))
    })
}

fn pack(
    folder: TempDir,
    fill: impl FnOnce(&mut Builder<BufWriter<File>>) -> io::Result<()>,
) -> io::Result<Packed> {
    let path = folder.path().join("packed.tar");
    let mut archive = Builder::new(BufWriter::new(File::create(&path)?));
    fill(&mut archive)?;
    archive.into_inner()?.flush()?;
    Ok(Packed { path, _folder: folder })
}

fn append_layer<W: Write>(archive: &mut Builder<W>, layer: &Layer) -> io::Result<()> {
    layer.each(|path, content| append(archive, path, content))
}

fn append<W: Write>(archive: &mut Builder<W>, path: &str, content: &[u8]) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_mode(0o755);
    header.set_size(content.len() as u64);
    archive.append_data(&mut header, path, content)
}

/// This machine's architecture as images name it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Writes, and computes the SHA-256 of what was written.
struct Hashing {
    file: BufWriter<File>,
    so_far: Context,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.so_far.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

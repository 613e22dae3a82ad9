//! Gives the engine the images of a store where links cannot: each as the archive that `docker save` would have written, put together from
//! the files of the layers while it is sent. An ordinary program does it, before Compose starts the application
//! (`dind-init helper load-store`).

use std::fs;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::ExitCode;

use dind_contract::store::{self as format, Image};

use super::extract::Extracted;
use super::{Store, check, digits, place};
use crate::appliance::Engine;
use crate::failure::Failure;
use crate::{ask, layers};

/// Size of a block of a tar, in bytes.
const BLOCK: usize = 512;

/// Loads what the engine lacks; what it does is said, a line each.
///
/// # Errors
/// The engine does not take an image, or the store is damaged.
pub(crate) fn load(data_root: &Path) -> Result<ExitCode, Failure> {
    let failed = |cause: String| {
        Failure::unavailable(cause, "look whether the data root has room; dind-init verify checks the store")
    };
    let Some(store) = check::read(Path::new(format::FOLDER)).map_err(failed)? else {
        return Ok(ExitCode::SUCCESS);
    };
    let engine = Engine::own();
    let missing = missing(&engine, &store)
        .map_err(|e| failed(format!("the engine cannot say which images it has: {e}")))?;
    for image in missing {
        let name = image.names.first().unwrap_or(&image.id);
        ask::print(&format!("the image {name} is loaded from the store\n"));
        let sent = engine.load(|body| archive(&store, image, data_root, body));
        sent.map_err(|e| failed(format!("the image {name} cannot be loaded from the store: {e}")))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Which images of the store an engine lacks.
///
/// # Errors
/// It does not say.
fn missing<'a>(engine: &Engine<'_>, store: &'a Store) -> io::Result<Vec<&'a Image>> {
    let mut missing = Vec::new();
    for image in &store.manifest.images {
        // containerd's image store calls an image by another digest, so what it is made of is compared, too.
        let is_it = |found: &crate::appliance::Seen| {
            found.id == image.id || (found.layers == image.layers && found.created == created(store, image))
        };
        for name in &image.names {
            if !engine.image(name)?.is_some_and(|found| is_it(&found)) {
                missing.push(image);
                break;
            }
        }
    }
    Ok(missing)
}

/// When an image says that it was made.
fn created(store: &Store, image: &Image) -> Option<String> {
    let config: serde_json::Value = serde_json::from_slice(&fs::read(store.config(image)).ok()?).ok()?;
    config.get("created")?.as_str().map(str::to_owned)
}

/// Writes the archive of an image (docker image specification v1.2, "Combined Image JSON + Filesystem Changeset Format").
fn archive(store: &Store, image: &Image, data_root: &Path, to: &mut dyn Write) -> io::Result<()> {
    let mut to = BufWriter::with_capacity(1 << 20, to);
    let mut names: Vec<String> = Vec::new();
    for diff_id in &image.layers {
        let name = format!("{}.tar", digits(diff_id));
        // A layer may lie in an image twice.
        if !names.contains(&name) {
            layer(store, diff_id, &name, data_root, &mut to)?;
        }
        names.push(name);
    }
    let config = fs::read(store.config(image))?;
    let config_name = format!("{}.json", digits(&image.id));
    let manifest =
        serde_json::json!([{ "Config": config_name, "RepoTags": image.names, "Layers": names }]).to_string();
    for (name, content) in [(config_name.as_str(), config.as_slice()), ("manifest.json", manifest.as_bytes())]
    {
        entry(&mut to, name, content.len() as u64)?;
        to.write_all(content)?;
        pad(&mut to, content.len() as u64)?;
    }
    to.write_all(&[0; 2 * BLOCK])?;
    to.flush()
}

fn layer(store: &Store, diff_id: &str, name: &str, data_root: &Path, to: &mut impl Write) -> io::Result<()> {
    let list = store.tar_split(diff_id);
    let mounted = place(diff_id);
    let extracted = match is_mounted(&mounted) {
        true => None,
        false => Some(Extracted::new(&store.of_layer(diff_id).join(format::FILES), data_root)?),
    };
    let files = extracted.as_ref().map_or(mounted.as_path(), |extracted| extracted.0.as_path());
    let size = layers::tar_size(&list)?;
    entry(to, name, size)?;
    layers::assemble(&list, files, to)?;
    pad(to, size)
}

/// Whether something is mounted on a folder: then it is on another device than the folder around it.
fn is_mounted(folder: &Path) -> bool {
    let device = |path: &Path| path.metadata().map(|it| it.dev()).ok();
    let around = folder.parent().and_then(device);
    device(folder).is_some_and(|device| Some(device) != around)
}

/// Writes the head of an entry (POSIX ustar; a size that does not fit into eleven octal digits as GNU tar writes it).
fn entry(to: &mut impl Write, name: &str, size: u64) -> io::Result<()> {
    let mut head = [0_u8; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(place) = head.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    };
    put(0, name.as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    if size < 1 << 33 {
        put(124, format!("{size:011o}\0").as_bytes());
    } else {
        put(124, &[0x80, 0, 0, 0]);
        put(128, &size.to_be_bytes());
    }
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
    if let Some(place) = head.get_mut(148..156) {
        place.copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    to.write_all(&head)
}

fn pad(to: &mut impl Write, size: u64) -> io::Result<()> {
    let over = usize::try_from(size % BLOCK as u64).unwrap_or_default();
    if over == 0 { Ok(()) } else { to.write_all(&vec![0; BLOCK - over]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_one_that_tar_reads() {
        let mut archive = Vec::new();
        entry(&mut archive, "a.json", 3).unwrap();
        archive.extend_from_slice(b"abc");
        pad(&mut archive, 3).unwrap();
        archive.extend_from_slice(&[0; 2 * BLOCK]);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.tar");
        fs::write(&file, &archive).unwrap();
        #[expect(clippy::disallowed_methods, reason = "a test is an ordinary program")]
        let output = std::process::Command::new("tar").arg("-xOf").arg(&file).output().unwrap();
        assert_eq!(
            (String::from_utf8_lossy(&output.stdout).as_ref(), output.status.success()),
            ("abc", true)
        );
    }
}

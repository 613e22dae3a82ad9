//! Layers, in a made-up data root that looks as the engine's does.

use std::fs;
use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;

/// Writes a layer with this diff id and these files; its chain id.
pub(crate) fn write_layer(root: &Path, diff: &str, parent: Option<&str>, files: &[(&str, &[u8])]) -> String {
    let chain = chain_id(parent, diff);
    let records = root.join("image/overlay2/layerdb/sha256").join(&chain);
    fs::create_dir_all(&records).unwrap();
    let cache_id = format!("cache-{}", &chain[..8]);
    fs::write(records.join("cache-id"), &cache_id).unwrap();
    fs::write(records.join("diff"), format!("sha256:{diff}")).unwrap();
    fs::write(records.join("size"), "1").unwrap();
    if let Some(parent) = parent {
        fs::write(records.join("parent"), format!("sha256:{parent}")).unwrap();
    }
    let place = root.join("overlay2").join(&cache_id);
    fs::create_dir_all(place.join("diff")).unwrap();
    fs::create_dir_all(root.join("overlay2/l")).unwrap();
    fs::write(place.join("link"), format!("L{}", &chain[..8])).unwrap();
    std::os::unix::fs::symlink(
        format!("../{cache_id}/diff"),
        root.join(format!("overlay2/l/L{}", &chain[..8])),
    )
    .unwrap();
    let list = File::create(records.join("tar-split.json.gz")).unwrap();
    let mut list = GzEncoder::new(list, Compression::fast());
    for (name, content) in files {
        let sum = base64::Engine::encode(
            &base64::engine::general_purpose::STANDARD,
            CHECKSUM.checksum(content).to_be_bytes(),
        );
        writeln!(list, r#"{{"type":1,"name":"{name}","size":{},"payload":"{sum}"}}"#, content.len()).unwrap();
        let path = place.join("diff").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    list.finish().unwrap();
    chain
}

pub(crate) fn chain(digit: char) -> String {
    digit.to_string().repeat(64)
}

#[test]
fn the_checksum_is_the_engines() {
    // From Go's hash/crc64 with its ISO table: the bytes "123456789".
    assert_eq!(CHECKSUM.checksum(b"123456789"), 0xb909_56c7_75a4_1001);
}

#[test]
fn a_layer_is_whole_or_its_first_damage_is_named() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    write_layer(root, &chain('a'), None, &[("bin/sh", b"program"), ("etc/x", b"text")]);
    let layer = all(root).remove(0);
    assert_eq!(layer.check(root), Ok(Checked { files: 2, bytes: 11 }));
    let file = layer.files(root).unwrap().join("bin/sh");
    for (content, wrong) in [
        (&b""[..], "bin/sh: has 0 bytes instead of 7"),
        (b"progra", "bin/sh: has 6 bytes instead of 7"),
        (b"\0\0\0\0\0\0\0", "bin/sh: does not have the content that was unpacked"),
    ] {
        fs::write(&file, content).unwrap();
        assert_eq!(layer.check(root), Err(Wrong::Damaged(wrong.to_owned())));
    }
    fs::remove_file(&file).unwrap();
    assert!(
        matches!(layer.check(root), Err(Wrong::Damaged(why)) if why.starts_with("bin/sh: cannot be opened"))
    );
    // A link out of the layer leads nowhere: it is resolved in the layer.
    std::os::unix::fs::symlink("/etc/hostname", &file).unwrap();
    assert!(
        matches!(layer.check(root), Err(Wrong::Damaged(why)) if why.starts_with("bin/sh: cannot be opened"))
    );
    // A pipe in its place does not hold up the check.
    fs::remove_file(&file).unwrap();
    nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(layer.check(root).is_err());
}

#[test]
fn records_that_are_damaged_are_damage() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    for (record, content) in [
        ("cache-id", &b""[..]),
        ("cache-id", b"../../etc"),
        ("diff", b""),
        ("size", b"\n"),
        ("tar-split.json.gz", b""),
        ("tar-split.json.gz", b"\x1f\x8b"),
    ] {
        let _ = fs::remove_dir_all(root.join("overlay2"));
        write_layer(root, &chain('a'), None, &[("x", b"x")]);
        fs::write(all(root).remove(0).records.join(record), content).unwrap();
        assert!(all(root).remove(0).check(root).is_err(), "{record}");
    }
}

#[test]
fn a_layer_that_is_unpacked_again_is_another() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    write_layer(root, &chain('a'), None, &[]);
    let before = known(root);
    fs::write(all(root).remove(0).records.join("cache-id"), "other").unwrap();
    assert_ne!(known(root), before);
}

//! Acknowledged means kept: syncs while the engine runs, and what a start after an unclean stop does about damage. That power
//! cuts are survived is shown by `campaigns.rs`, with real ones; here, what users see of it.

use dind_tests::{Host, POLITE, Volume, until};
use serde_json::Value;

/// What stands for the loss of everything that was written since the last sync: the list of what is on disk is gone, and the
/// layers' files are empty.
const LOSE: &str = "rm /var/lib/docker/dind.synced && find /var/lib/docker/overlay2/*/diff -name busybox -exec truncate -s 0 {} +";

/// Waits for a sync that began after this one.
fn wait_for_sync_after(host: &Host, before: &Value) -> Value {
    until("a sync of the data root", 20, || {
        let last = host.status()["last_sync"].clone();
        // RFC 3339 in UTC: later texts are later times.
        (last.as_str() > before.as_str()).then_some(last)
    })
}

#[test]
fn each_acknowledgement_is_followed_by_a_sync() {
    let host = Host::options().start();
    let mut last = wait_for_sync_after(&host, &Value::Null);
    host.load_busybox();
    last = wait_for_sync_after(&host, &last);
    for acknowledged in [
        &["tag", "busybox", "other"][..],
        &["volume", "create", "kept"],
        &["create", "--name", "made", "busybox"],
        &["commit", "made", "committed"],
    ] {
        host.docker(acknowledged.iter().copied()).ok();
        last = wait_for_sync_after(&host, &last);
    }
    host.build("built", "FROM scratch\nLABEL built=yes\n");
    last = wait_for_sync_after(&host, &last);
    // Listened to again after a restart of the engine.
    host.shell("pkill -9 -x dockerd").ok();
    until("dockerd to be started again", 30, || (host.service("dockerd")["restarts"] == 1).then_some(()));
    host.wait();
    last = wait_for_sync_after(&host, &last);
    host.docker(["tag", "busybox", "another"]).ok();
    wait_for_sync_after(&host, &last);
    host.stop();
    host.assert_exited(0);
}

#[test]
fn without_syncs_there_is_only_the_one_at_the_stop() {
    let data = Volume::new();
    let host = Host::options().volume(&data, "/var/lib/docker").env("DIND_SYNC", "off").start();
    host.load_busybox();
    host.assert_runs_containers();
    assert_eq!(host.status()["last_sync"], Value::Null);
    assert!(!data.listing().contains("dind.synced"));
    host.stop();
    host.assert_exited(0);
    assert!(data.listing().contains("dind.synced"));
}

#[test]
fn a_damaged_image_is_set_aside_by_name_and_comes_back_whole() {
    let host = Host::options().start();
    host.load_busybox();
    host.build("app:1", "FROM busybox\nRUN echo whole > /app\n");
    host.run_nested("worker", &["--restart", "always"], POLITE);
    host.docker(["volume", "create", "kept"]).ok();
    host.docker(["volume", "create", "kept"]).ok();
    host.exec(["dind-init", "verify"]).ok();
    host.signal("KILL");
    host.ends();
    host.start();
    assert!(host.logs().contains(" layers are younger than the last sync"), "{}", host.logs());
    assert!(!host.logs().contains("set aside"), "nothing was damaged by a kill alone: {}", host.logs());

    // No sync may write the list anew: the last one has begun after the last that is acknowledged.
    let now = host.shell("date -u +%FT%T.%NZ").ok();
    host.docker(["tag", "busybox", "busybox"]).ok();
    wait_for_sync_after(&host, &Value::String(now));
    host.shell(LOSE).ok();
    let verified = host.exec(["dind-init", "verify"]).exits(70).stdout;
    assert!(verified.contains("app:1") && verified.contains("busybox: has 0 bytes instead of"), "{verified}");
    assert!(verified.contains("docker pull app:1"), "{verified}");
    host.signal("KILL");
    host.ends();
    host.start();
    let said: Vec<String> = host.alarms().into_iter().map(|line| line.message).collect();
    for what in ["the image app:1 ", "the image busybox:latest ", "the container worker "] {
        assert!(
            said.iter().any(|line| line.starts_with(what) && line.contains("set aside")),
            "{what}: {said:?}"
        );
    }
    assert_eq!(host.docker(["images", "-q"]).ok(), "", "nothing damaged is listed");
    assert_eq!(host.docker(["ps", "-aq"]).ok(), "");
    assert_eq!(host.docker(["volume", "ls", "-q"]).ok(), "kept");
    host.exec(["dind-init", "verify"]).ok();
    host.load_busybox();
    host.assert_runs_containers();
    // The builder does not take the damaged layer from its cache.
    host.build("app:1", "FROM busybox\nRUN echo whole > /app\n");
    assert_eq!(host.docker(["run", "--rm", "app:1", "cat", "/app"]).ok(), "whole");
    host.exec(["dind-init", "verify"]).ok();
    host.stop();
    host.assert_exited(0);
}

/// Puts in a layer's place what overlay writes where the kernel is set to `metacopy` and `redirect_dir`, as BuildKit makes
/// layers there: `LOWER` prepares what lies below, `CHANGE` is done through the mount.
const THROUGH_OVERLAY: &str =
    "set -e; layer=$(ls -d /var/lib/docker/overlay2/*/diff); mkdir /var/lib/docker/overlay;
    cd /var/lib/docker/overlay; cp -a $layer lower; mkdir upper work merged; cd lower; LOWER; cd ..;
    mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work,metacopy=on,redirect_dir=on overlay merged;
    cd merged; CHANGE; cd ..; umount merged; rm -r $layer; mv upper $layer; rm -r ../overlay";

#[test]
fn what_overlay_leaves_to_the_layer_below_is_no_damage() {
    for (lower, change) in [(":", "chmod 700 bin/busybox"), ("mv bin other", "mv other bin")] {
        let host = Host::options().start();
        host.load_busybox();
        host.shell(&THROUGH_OVERLAY.replace("LOWER", lower).replace("CHANGE", change)).ok();
        host.exec(["dind-init", "verify"]).ok();
        // The same without overlay's mark is damage.
        host.shell("cd /var/lib/docker/overlay2/*/diff && rm -r bin && mkdir bin").ok();
        host.exec(["dind-init", "verify"]).exits(70);
    }
}

#[test]
fn halves_of_containers_do_not_stay() {
    let host = Host::options().start();
    host.load_busybox();
    host.run_nested("worker", &["--restart", "always"], POLITE);
    let half = "1234567890abcdef".repeat(4);
    host.shell(&format!("mkdir -p /var/lib/docker/containers/{half}/checkpoints")).ok();
    host.signal("KILL");
    host.ends();
    host.start();
    assert!(host.logs().contains("1 containers whose making or removal was cut off"), "{}", host.logs());
    assert!(!host.logs().contains("failed to load container"), "{}", host.logs());
    host.wait_for_nested("worker");
}

#[test]
fn verify_reads_a_data_root_that_no_host_uses() {
    let data = Volume::new();
    data.run("dind-init", &["verify", "/volume"])
        .exits(69)
        .says(&["no images of an engine in /volume", "help: "]);
    let host = Host::options().volume(&data, "/var/lib/docker").start();
    host.load_busybox();
    host.stop();
    let whole = data.run("dind-init", &["verify", "/volume"]).ok();
    assert!(
        whole.starts_with("1 images, 1 layers, 1 files, ") && whole.ends_with(" read: all whole"),
        "{whole}"
    );
    data.run("sh", &["-c", "echo > $(ls -d overlay2/*/diff)/bin/busybox"]).ok();
    let damaged = data.run("dind-init", &["verify", "--json", "/volume"]).exits(70).stdout;
    let damaged: Value = serde_json::from_str(&damaged).unwrap();
    assert!(damaged["damaged"][0].as_str().unwrap().contains("busybox:latest"), "{damaged}");
}

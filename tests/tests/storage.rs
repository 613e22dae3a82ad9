//! Where images live: each way is chosen because the others are made impossible, and by name; it then builds, runs and keeps.
//! Not here, because no machine of ours has them: data roots on NFS and on virtiofs.

use std::fs;

use dind_tests::{Host, HostOptions, RUN_OPTIONS, Volume, docker, until, until_equal};
use serde_json::Value;

/// A data root on the root of the host's container, which is overlay or fuse-overlayfs itself.
const DATA_ROOT: [&str; 2] = ["-e", "DOCKER_OPTS=--data-root /data"];

/// What a host says about its storage.
#[track_caller]
fn storage(host: &Host) -> Value {
    let doctor: Value = serde_json::from_str(&host.exec(["dind-init", "doctor", "--json"]).ok()).unwrap();
    let findings = doctor["findings"].as_array().unwrap();
    findings.iter().find(|finding| finding["subject"] == "storage").unwrap().clone()
}

/// Asserts what a host chose, and that it says so: in doctor, in status and in its log; and that dockerd does it.
#[track_caller]
fn assert_chose(host: &Host, verdict: &str, chosen: &str, driver: &str) {
    let storage = storage(host);
    assert_eq!(storage["verdict"], verdict, "{storage}");
    let said = storage["chosen"].as_str().unwrap();
    assert!(said.starts_with(chosen), "{storage}");
    assert!(host.status()["ground"].as_array().unwrap().contains(&storage));
    assert!(host.logs().contains(&format!("storage: {said}")), "{}", host.logs());
    assert_eq!(host.docker(["info", "-f", "{{.Driver}}"]).ok(), driver);
}

/// An image of four layers: one deletes a file, one replaces a folder.
const LAYERS: &str = "FROM busybox\nRUN mkdir /d && echo old > /d/old && echo 1 > /gone && echo 2 > /kept\n\
                      RUN rm /gone && rm -r /d && mkdir /d && echo new > /d/new\nRUN echo 3 >> /kept\n\
                      CMD [\"sh\", \"-c\", \"cat /kept; echo /d/*; ls /gone\"]\n";

#[track_caller]
fn build(host: &Host) {
    host.load_busybox();
    host.build("layers", LAYERS);
}

#[track_caller]
fn assert_works(host: &Host) {
    let ran = host.docker(["run", "--rm", "layers"]).exits(1);
    assert_eq!(ran.stdout, "2\n3\n/d/new\n", "{ran}");
    assert_eq!(
        host.docker(["run", "-v", "kept:/v", "--rm", "busybox", "sh", "-c", "echo x >>/v/x"]).ok(),
        ""
    );
}

/// Asserts that it builds and runs images, and keeps them over a stop and a kill.
#[track_caller]
fn assert_keeps(host: &Host) {
    build(host);
    assert_works(host);
    host.stop();
    host.assert_exited(0);
    host.start();
    assert_eq!(host.status()["last_stop"], "clean");
    assert_works(host);
    host.signal("KILL");
    assert_eq!(host.ends(), 137);
    host.start();
    assert_eq!(host.status()["last_stop"], "unclean");
    assert_works(host);
    assert_eq!(host.docker(["run", "-v", "kept:/v", "--rm", "busybox", "cat", "/v/x"]).ok(), "x\nx\nx");
    assert_eq!(host.shell("ls -d /data/dind-probe* /var/lib/docker/dind-probe* 2>/dev/null; true").ok(), "");
}

/// A host whose entrypoint does something first.
fn after(script: &str) -> HostOptions {
    let script = format!("set -e; {script}\nexec dind-init \"$@\"");
    Host::options().run(["--entrypoint", "sh"]).arguments(["-c", &script, "dind-init"])
}

/// A script that mounts an ext4 of its own on the data root, of this size and made with these options.
fn ext4(size: &str, options: &str) -> String {
    format!(
        "[ -e /dev/loop-control ] || mknod /dev/loop-control c 10 237\n\
         for n in $(seq 0 63); do [ -e /dev/loop$n ] || mknod /dev/loop$n b 7 $n; done\n\
         [ -e /image ] || {{ truncate -s {size} /image; mkfs.ext4 -q -F {options} /image; }}\n\
         mkdir -p /data; mount -o loop /image /data"
    )
}

/// The files under loop devices of this machine, as the kernel calls them.
fn loop_files() -> Vec<String> {
    let devices = fs::read_dir("/sys/block").unwrap().flatten();
    devices.filter_map(|device| fs::read_to_string(device.path().join("loop/backing_file")).ok()).collect()
}

/// A folder name that no other test has in the name of a file under a loop device.
fn unique(host: &str) -> [String; 2] {
    ["-e".to_owned(), format!("DOCKER_OPTS=--data-root /data/{host}-{}", std::process::id())]
}

#[test]
fn overlay_is_chosen_where_it_works() {
    for options in [&[][..], &["--tmpfs", "/var/lib/docker"]] {
        let host = Host::options().run(options).start();
        let storage = storage(&host);
        // Overlay on tmpfs takes a kernel that knows user.* attributes there (6.6).
        if storage["found"].as_str().unwrap().contains("overlay works on it") {
            assert_chose(&host, "good", "overlay2", "overlay2");
            assert_eq!(host.alarms(), []);
        } else {
            assert_ne!(options, [""; 0], "a volume of this machine cannot have overlay: {storage}");
        }
        build(&host);
        assert_works(&host);
    }
}

#[test]
fn a_data_root_on_the_containers_own_root_gets_a_disk_of_its_own() {
    let place = unique("own");
    let host = Host::options().run(&place).start();
    let root = place[1].rsplit(' ').next().unwrap();
    assert_chose(&host, "fallback", "overlay2 on an ext4 image of ", "overlay2");
    let storage = storage(&host);
    let better = storage["better"].as_str().unwrap();
    assert!(better.contains(&format!("-v NAME:{root}")), "{storage}");
    assert_eq!(host.docker(["info", "-f", "{{.DockerRootDir}}"]).ok(), format!("{root}/disk"));
    assert_eq!(host.shell(&format!("findmnt -n -o FSTYPE {root}/disk")).ok(), "ext4");
    assert_keeps(&host);
    assert_eq!(host.shell(&format!("ls {root} | grep -v '^dind.sync'")).ok(), "dind.ext4\ndind.lock\ndisk");
    // What is deleted gives its room back.
    let used = || -> u64 { host.shell(&format!("du -k {root}/dind.ext4 | cut -f 1")).ok().parse().unwrap() };
    let before = used();
    let fill = "dd if=/dev/urandom of=/v/fill bs=1M count=64 2>/dev/null; sync";
    host.shell(&format!("mkdir {root}/disk/x; {}", fill.replace("/v", &format!("{root}/disk/x")))).ok();
    assert!(used() > before + 50_000);
    host.shell(&format!("rm -r {root}/disk/x; sync")).ok();
    until_equal("the room to come back", 20, true, || used() < before + 30_000);
    // No device outlives its host.
    let ours = || loop_files().iter().filter(|file| file.contains(root)).count();
    assert_eq!(ours(), 1);
    host.stop();
    host.assert_exited(0);
    assert_eq!(ours(), 0);
    host.start();
    host.signal("KILL");
    assert_eq!(host.ends(), 137);
    until_equal("the kernel to let go of the device", 20, 0, ours);
}

#[test]
fn overlay_under_the_data_root_cannot_carry_overlay() {
    let script = "mkdir -p /base /data; mount -t tmpfs base /base; mkdir /base/lower /base/upper /base/work
        mount -t overlay overlay -o lowerdir=/base/lower,upperdir=/base/upper,workdir=/base/work /data";
    let host = after(script).run(DATA_ROOT).env("DIND_STORAGE_SIZE", "1G").start();
    assert_chose(&host, "fallback", "overlay2 on an ext4 image of 1 GiB", "overlay2");
    assert!(storage(&host)["found"].as_str().unwrap().starts_with("overlay with "));
    build(&host);
    assert_works(&host);
    host.stop();
    host.assert_exited(0);
}

/// Without mkfs there is no disk, without entry types no overlay, and fuse-overlayfs needs neither.
#[test]
fn fuse_overlayfs_is_next() {
    let script = format!("{}; rm -f $(command -v mkfs.ext4)", ext4("2G", "-O ^filetype"));
    let host = after(&script).run(DATA_ROOT).start();
    assert_chose(&host, "fallback", "fuse-overlayfs", "fuse-overlayfs");
    let storage = storage(&host);
    let why = storage["why"].as_str().unwrap();
    assert!(why.contains("d_type") && why.contains("loop: mkfs.ext4 is in no folder of PATH"), "{storage}");
    assert_keeps(&host);
    // A database under its own user, on files that a process of root serves.
    host.load_image("redis");
    host.run_redis("db", &["--restart", "always"]);
    assert_eq!(host.count_up("db"), 1);
    host.stop();
    host.start();
    host.wait_healthy("db");
    assert_eq!(host.count_up("db"), 2);
    host.assert_redis_owns_its_data("db");
}

/// On overlay, no layer can delete a file without a disk; a plain copy can.
#[test]
fn plain_copies_are_the_last() {
    let table = [
        ("rm $(command -v mkfs.ext4)", "loop: mkfs.ext4 is in no folder of PATH"),
        ("mknod /dev/loop-control c 99 99", "loop: no loop device can be used: /dev/loop-control: "),
    ];
    for (script, reason) in table {
        let script = format!("[ -e /done ] || {{ {script}; touch /done; }}");
        let host = after(&script).run(DATA_ROOT).start();
        assert_chose(&host, "fallback", "vfs", "vfs");
        let storage = storage(&host);
        assert!(storage["why"].as_str().unwrap().contains(reason), "{storage}");
        if reason.contains("mkfs") {
            assert_keeps(&host);
        }
    }
}

/// Without the devices' rule nothing but plain copies is left there, and the reason is the kernel's.
#[test]
fn without_devices_there_is_no_disk() {
    let options = Host::options().instead(&RUN_OPTIONS[..RUN_OPTIONS.len() - 2]);
    let host = options.run(DATA_ROOT).start();
    assert_chose(&host, "fallback", "vfs", "vfs");
    let why = storage(&host)["why"].as_str().unwrap().to_owned();
    assert!(why.contains("/dev/loop-control: Operation not permitted"), "{why}");
    build(&host);
    assert_works(&host);
    // A volume needs no devices.
    let host = Host::options().instead(&RUN_OPTIONS[..RUN_OPTIONS.len() - 2]).start();
    assert_chose(&host, "good", "overlay2", "overlay2");
}

#[track_caller]
fn assert_can_be_asked_for(way: &str, chosen: &str, driver: &str) {
    let host = Host::options().env("DIND_STORAGE", way).start();
    assert_chose(&host, "good", chosen, driver);
    assert_keeps(&host);
    assert_eq!(host.alarms().iter().filter(|line| line.message.starts_with("storage")).count(), 0);
}

#[test]
fn overlay_can_be_asked_for() {
    assert_can_be_asked_for("overlay2", "overlay2", "overlay2");
}

#[test]
fn a_disk_can_be_asked_for() {
    assert_can_be_asked_for("loop", "overlay2 on an ext4 image of ", "overlay2");
}

#[test]
fn fuse_overlayfs_can_be_asked_for() {
    assert_can_be_asked_for("fuse-overlayfs", "fuse-overlayfs", "fuse-overlayfs");
}

#[test]
fn plain_copies_can_be_asked_for() {
    assert_can_be_asked_for("vfs", "vfs", "vfs");
}

#[test]
fn a_way_that_does_not_work_is_refused() {
    let refused = |options: HostOptions, texts: &[&str]| {
        let _ = options.run(DATA_ROOT).refused(69, texts);
    };
    refused(
        Host::options().env("DIND_STORAGE", "overlay2"),
        &["storage: ", "; overlay2 does not work here: ", "DIND_STORAGE=auto"],
    );
    refused(Host::options().env("DIND_STORAGE", "fuse-overlayfs"), &["fuse-overlayfs does not work here: "]);
    let no_mkfs = after("rm -f $(command -v mkfs.ext4)").env("DIND_STORAGE", "loop");
    refused(no_mkfs, &["does not work here: mkfs.ext4 is in no folder of PATH"]);
    refused(
        Host::options().arguments(["-s", "overlay2"]),
        &["overlay2, as dockerd's options say does not work here"],
    );
}

#[test]
fn a_driver_among_dockerds_options_is_taken() {
    let host = Host::options().arguments(["--storage-driver", "vfs"]).start();
    assert_chose(&host, "good", "vfs, as dockerd's options say", "vfs");
    drop(host);
    let config = r#"{"storage-driver": "vfs"}"#;
    let host = Host::options().file("/etc/docker/daemon.json", 0o644, config).start();
    assert_chose(&host, "good", "vfs, as dockerd's options say", "vfs");
}

/// The next host goes on where the images are, though it could do better, and one that is told otherwise says what it hides.
#[track_caller]
fn assert_followed(way: &str, chosen: &str, driver: &str) {
    let data = Volume::new();
    let host = |way: &str| Host::options().volume(&data, "/var/lib/docker").env("DIND_STORAGE", way).start();
    let first = host(way);
    build(&first);
    first.stop();
    drop(first);
    let second = host("auto");
    assert_chose(&second, "fallback", chosen, driver);
    assert_works(&second);
    second.stop();
    drop(second);
    let hidden = host("overlay2");
    let better = storage(&hidden)["better"].as_str().unwrap().to_owned();
    assert!(better.contains("not visible now, but still in the data root: "), "{better}");
    assert_eq!(hidden.docker(["images", "-q"]).ok(), "");
}

#[test]
fn plain_copies_are_followed() {
    assert_followed("vfs", "vfs", "vfs");
}

#[test]
fn fuse_overlayfs_is_followed() {
    assert_followed("fuse-overlayfs", "fuse-overlayfs", "fuse-overlayfs");
}

#[test]
fn a_disk_is_followed() {
    assert_followed("loop", "overlay2 on an ext4 image of ", "overlay2");
}

#[test]
fn a_disk_grows_when_more_is_asked_for() {
    let data = Volume::new();
    let size = |size: &str| {
        let options = Host::options().volume(&data, "/var/lib/docker").env("DIND_STORAGE", "loop");
        options.env("DIND_STORAGE_SIZE", size).start()
    };
    let mebibytes = |host: &Host| -> u64 {
        host.shell("df -BM --output=size /var/lib/docker/disk | tail -n 1 | tr -d ' M'").ok().parse().unwrap()
    };
    let host = size("300M");
    build(&host);
    assert!((250..=300).contains(&mebibytes(&host)));
    host.signal("KILL");
    assert_eq!(host.ends(), 137);
    drop(host);
    let host = size("2G");
    assert!(mebibytes(&host) > 1800, "{}", mebibytes(&host));
    assert!(host.logs().contains("grown to 2 GiB"), "{}", host.logs());
    assert_works(&host);
    host.stop();
    drop(host);
    let host = size("1G");
    assert!(mebibytes(&host) > 1800, "it never shrinks");
    assert_chose(&host, "good", "overlay2 on an ext4 image of 2 GiB", "overlay2");
    assert_works(&host);
}

#[test]
fn a_damaged_disk_is_named_and_left_alone() {
    let data = Volume::new();
    data.run("sh", &["-c", "printf nonsense >dind.ext4"]).ok();
    let host = || Host::options().volume(&data, "/var/lib/docker");
    let _ = host().refused(69, &["/var/lib/docker/dind.ext4, cannot be mounted: e2fsck", "DIND_STORAGE"]);
    assert_eq!(data.run("cat", &["dind.ext4"]).ok(), "nonsense");
    let other = host().env("DIND_STORAGE", "overlay2").start();
    assert_chose(&other, "fallback", "overlay2", "overlay2");
}

/// The disk turns read-only, the stop does not call itself clean, and with room again all is there that was synced.
#[test]
fn a_full_disk_under_the_disk_costs_no_image() {
    let script = format!(
        "{}; if [ -e /room ]; then rm -f /data/filler; else fallocate -l 300M /data/filler; fi",
        ext4("800M", "-m0")
    );
    let host =
        after(&script).run(DATA_ROOT).env("DIND_STORAGE", "loop").env("DIND_STORAGE_SIZE", "2G").start();
    build(&host);
    assert_works(&host);
    host.stop();
    host.assert_exited(0);
    host.start();
    let fill = "/bin/busybox dd if=/dev/urandom of=/v/fill bs=1M count=700; /bin/busybox sync";
    let _ = host.docker(["run", "-v", "fill:/v", "busybox", "sh", "-c", fill]);
    until_equal("the disk to be read-only", 30, false, || {
        host.shell("touch /data/disk/x && sync -f /data/disk/x").code == Some(0)
    });
    host.stop();
    host.assert_exited(70);
    host.put(&[("/room".into(), 0o644, Vec::new())]);
    host.start();
    assert_eq!(host.status()["last_stop"], "unclean");
    assert_works(&host);
}

/// What a killed host leaves mounted where it was not PID 1 is used again, and never by a second device.
#[test]
fn a_disk_that_is_still_mounted_is_used_again() {
    let options = Host::options().run(["--init", "--entrypoint", "sleep"]).arguments(["infinity"]);
    let host = options.run(unique("again")).create();
    let root = host.inspect("{{range .Config.Env}}{{println .}}{{end}}");
    let root = root.lines().find_map(|line| line.strip_prefix("DOCKER_OPTS=--data-root ")).unwrap();
    docker(["start", host.name()]).ok();
    let run = || {
        docker(["exec", "-d", host.name(), "sh", "-c", "exec dind-init >>/log 2>&1"]).ok();
        host.wait();
    };
    let log = || host.shell("cat /log").ok();
    run();
    build(&host);
    host.shell("pkill -9 -x dind-init").ok();
    until_equal("the engine to end with its host", 20, "", || {
        host.shell("pgrep -x 'dockerd|containerd'; true").ok()
    });
    run();
    assert!(log().contains("disk: still mounted, as a killed host left it"), "{}", log());
    assert_works(&host);
    // Somebody has detached it, and a process still uses it: its device is the one to use.
    host.shell("pkill -9 -x dind-init").ok();
    until_equal("the engine to end with its host", 20, "", || {
        host.shell("pgrep -x 'dockerd|containerd'; true").ok()
    });
    docker(["exec", "-d", "-w", &format!("{root}/disk"), host.name(), "tail", "-f", "/dev/null"]).ok();
    host.shell(&format!("umount -l {root}/disk")).ok();
    run();
    let devices = || loop_files().iter().filter(|file| file.contains(root)).count();
    assert_eq!(devices(), 1);
    assert_works(&host);
    // A clean stop takes it down.
    host.shell("pkill -x tail; pkill -TERM -x dind-init").ok();
    until_equal("the host to end", 30, "", || host.shell("pgrep -x dind-init; true").ok());
    assert!(log().contains("stopped, exit code 0"), "{}", log());
    assert_eq!(devices(), 0);
}

#[test]
fn what_a_killed_probe_left_is_removed() {
    let data = Volume::new();
    data.run(
        "sh",
        &["-c", "mkdir -p dind-probe.7/overlay/top dind-probe.x keep && touch dind-probe.7/overlay/top/f"],
    )
    .ok();
    let host = Host::options().volume(&data, "/var/lib/docker").start();
    assert_eq!(host.shell("cd /var/lib/docker && ls -d dind-probe* keep").ok(), "dind-probe.x\nkeep");
}

/// A doctor beside no host leaves nothing behind, and names the same choice.
#[test]
fn doctor_says_it_before_a_host_runs() {
    let options = Host::options().run(["--entrypoint", "dind-init"]).run(DATA_ROOT).arguments(["doctor"]);
    let host = options.create();
    let doctor = host.run_to_its_end();
    let doctor = doctor.ok();
    assert!(doctor.contains("! storage\n") && doctor.contains("overlay2 on an ext4 image of "), "{doctor}");
    let changes = docker(["diff", host.name()]).ok();
    assert!(!changes.contains("probe") && !changes.contains("/data"), "{changes}");
}

/// A file system that takes long to be checked holds up the start, and not those who ask how the host is.
#[test]
fn a_host_that_waits_for_its_disk_says_so() {
    let script = "e2fsck=$(command -v e2fsck); [ -e $e2fsck.real ] || mv $e2fsck $e2fsck.real; \
        printf '#!/bin/sh\nuntil [ -e /go ]; do sleep 0.1; done; exec %s.real \"$@\"\n' $e2fsck >$e2fsck; chmod 755 $e2fsck";
    let host = after(script).env("DIND_STORAGE", "loop").env("DIND_STORAGE_SIZE", "300M").start();
    host.stop();
    docker(["start", host.name()]).ok();
    until("the host to wait for its disk", 30, || {
        host.exec(["dind-init", "status"])
            .stdout
            .contains("still waiting for the disk of the data root")
            .then_some(())
    });
    host.exec(["dind-init", "health"]).exits(70).says(&["the host is starting: containerd is waiting"]);
    host.exec(["dind-init", "wait", "--timeout", "1"]).exits(124).says(&["the host is still starting"]);
    // A wish to stop waits, too: what is being repaired would not stand the end of the program that does it.
    host.signal("TERM");
    host.shell("touch /go").ok();
    assert_eq!(host.ends(), 0);
    assert!(host.logs().contains("because of SIGTERM"), "{}", host.logs());
    host.start();
    assert_eq!(host.status()["last_stop"], "clean");
}

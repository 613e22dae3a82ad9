//! Copies of a warm data root (`dind-init helper copy-data-root`): like their source, or refused, and never taken for whole when
//! they are not.

use std::process::Command;

use dind_tests::{Call, Ended, Host, HostOptions, Volume, docker, image, until};
use tar::{Builder, EntryType, Header};

/// What a copy needs: the attributes in which overlay keeps what it must know are root's.
const NEEDS: [&str; 2] = ["--cap-add", "SYS_ADMIN"];

/// A container that copies `source`, mounted read-only, to `target`.
fn copy(source: &Volume, target: &Volume) -> HostOptions {
    bare(&NEEDS).volume(source, "/source:ro").volume(target, "/target")
}

/// One with these options and no volumes.
fn bare(options: &[&str]) -> HostOptions {
    let words = ["helper", "copy-data-root", "/source", "/target"];
    Host::options().instead(options).run(["--entrypoint", "dind-init"]).arguments(words)
}

/// Has it done; what it says.
#[track_caller]
fn copied(source: &Volume, target: &Volume) -> String {
    said(&copy(source, target).create().run_to_its_end().ok())
}

/// Asserts that a copy is reported as it should be, in one line.
#[track_caller]
fn said(line: &str) -> String {
    let words: Vec<&str> = line.split([' ', ',']).filter(|word| !word.is_empty()).collect();
    let ["copied", files, "files", bytes, "bytes", "in", ms, "ms", how @ ..] = words.as_slice() else {
        panic!("{line:?}");
    };
    for number in [files, bytes, ms] {
        number.parse::<u64>().unwrap_or_else(|_| panic!("{line:?}"));
    }
    assert!(matches!(how, ["reflinked"] | ["without", "reflinks"]), "{line:?}");
    line.to_owned()
}

/// Runs a line of shell in the image, in a volume, with the capability without which attributes are not seen.
#[track_caller]
fn within(volume: &Volume, line: &str, input: &[u8]) -> Ended {
    let mount = format!("{}:/volume", volume.name());
    let run = ["run", "--rm", "-i", "-v", &mount, "-w", "/volume", "--entrypoint", "sh"];
    Call::new("docker").args(run).args(NEEDS).args([image(), "-c", line]).stdin(input).run()
}

/// What tells one data root from another: names, bytes, owners, modes, times, links, devices and attributes of all but the lock.
/// With it, how often each of these is in its archive, so that nothing is compared that is not there.
#[track_caller]
fn fingerprint(volume: &Volume) -> (String, [usize; 4]) {
    let archive = "ls -A | grep -vx dind.lock | tar --xattrs --xattrs-include='*' --sort=name --format=posix \
        --pax-option=delete=atime,delete=ctime --numeric-owner -cf /tmp/all -T -";
    let count = "tar -tvf /tmp/all | grep -c '^c.* 0,0 '; tar -tvf /tmp/all | grep -c ' link to '
        grep -ac SCHILY.xattr.security.capability /tmp/all; grep -ac SCHILY.xattr.trusted.overlay.opaque /tmp/all; true";
    let all = within(volume, &format!("{archive} && sha256sum </tmp/all && {count}"), &[]).ok();
    let mut lines = all.lines();
    let sum = lines.next().unwrap().to_owned();
    let counts: Vec<usize> = lines.map(|line| line.parse().unwrap()).collect();
    (sum, counts.try_into().unwrap_or_else(|_| panic!("{all}")))
}

#[track_caller]
fn mark(volume: &Volume) -> String {
    volume.run("cat", &["dind.lock"]).ok()
}

/// `CAP_NET_RAW`, permitted and effective (capability.h, `struct vfs_cap_data`).
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Adds a file with this attribute to an archive.
fn add(
    archive: &mut Builder<Vec<u8>>,
    path: &str,
    kind: EntryType,
    content: &[u8],
    attribute: (&str, &[u8]),
) {
    let (name, value) = (format!("SCHILY.xattr.{}", attribute.0), attribute.1);
    archive.append_pax_extensions([(name.as_str(), value)]).unwrap();
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_600_000_000);
    header.set_size(content.len() as u64);
    archive.append_data(&mut header, path, content).unwrap();
}

/// Brings an image into a host whose layers have a file with a capability, hard links, files that are deleted and a folder that is
/// replaced.
#[track_caller]
fn warm(host: &Host) {
    host.load_busybox();
    let mut archive = Builder::new(Vec::new());
    add(&mut archive, "ping", EntryType::Regular, b"\x7fELF, nearly", ("security.capability", &CAPABILITY));
    let import = ["exec", "-i", host.name(), "docker", "import", "-", "capable"];
    Call::new("docker").args(import).stdin(archive.into_inner().unwrap()).run().ok();
    host.build(
        "layers",
        "FROM busybox\nRUN mkdir /d && echo old >/d/old && echo 1 >/gone && echo 2 >/kept && /bin/busybox ln /kept /twin\n\
         RUN rm /gone && rm -r /d && mkdir /d && echo new >/d/new\nRUN echo 3 >>/kept\n\
         COPY --from=capable /ping /ping\nCMD [\"sh\", \"-c\", \"cat /kept; echo /d/*; ls /gone\"]\n",
    );
    assert_warm(host);
}

/// Asserts that the image is what it was; the checksums of everything that its archive has of it.
#[track_caller]
fn assert_warm(host: &Host) -> String {
    let ran = host.docker(["run", "--rm", "layers"]).exits(1);
    assert_eq!(ran.stdout, "2\n3\n/d/new\n", "{ran}");
    // Of the archive itself the times of folders are those of its making.
    let sums = "cd $(mktemp -d) && docker save layers capable | tar -x && find blobs -type f -exec sha256sum {} + | sort";
    host.shell(sums).ok()
}

#[test]
fn a_host_on_a_copy_has_the_same_images_and_its_source_is_as_it_was() {
    let (source, target) = (Volume::new(), Volume::new());
    let on = |volume: &Volume| Host::options().volume(volume, "/var/lib/docker").start();
    let host = on(&source);
    warm(&host);
    host.load_image("redis");
    host.run_redis("db", &["--restart", "always"]);
    assert_eq!(host.count_up("db"), 1);
    let saved = assert_warm(&host);
    host.stop();
    drop(host);
    let (before, counts) = fingerprint(&source);
    assert!(counts.iter().all(|count| *count > 0), "whiteouts, hard links, capability, opaque: {counts:?}");
    // A lost+found is what a new disk has in it.
    target.run("mkdir", &["lost+found"]).ok();
    copied(&source, &target);
    target.run("rmdir", &["lost+found"]).ok();
    assert_eq!(fingerprint(&source), (before.clone(), counts));
    assert_eq!(fingerprint(&target), (before, counts));
    assert_eq!((mark(&source), mark(&target)), ("clean".to_owned(), "clean".to_owned()));
    for volume in [&target, &source] {
        let host = on(volume);
        assert_eq!(host.status()["last_stop"], "clean");
        assert_eq!(assert_warm(&host), saved);
        host.exec(["dind-init", "verify"]).ok();
        host.wait_healthy("db");
        assert_eq!(host.count_up("db"), 2);
        host.assert_redis_owns_its_data("db");
        assert_eq!(host.alarms(), []);
        host.stop();
        host.assert_exited(0);
    }
}

#[test]
fn a_data_root_with_a_disk_in_it_stays_sparse() {
    let (source, target) = (Volume::new(), Volume::new());
    let on = |volume: &Volume| {
        let options = Host::options().volume(volume, "/var/lib/docker");
        options.env("DIND_STORAGE", "loop").env("DIND_STORAGE_SIZE", "4G").start()
    };
    let host = on(&source);
    warm(&host);
    host.stop();
    drop(host);
    copied(&source, &target);
    let used = |volume: &Volume| -> u64 {
        let du = volume.run("du", &["-k", "dind.ext4"]).ok();
        du.split_whitespace().next().unwrap().parse().unwrap()
    };
    let (ours, theirs) = (used(&source), used(&target));
    assert!(theirs < ours + 10_000 && ours < 1_000_000, "{theirs} KiB of {ours}");
    let host = on(&target);
    assert_eq!(host.status()["last_stop"], "clean");
    assert_eq!(host.docker(["info", "-f", "{{.DockerRootDir}}"]).ok(), "/var/lib/docker/disk");
    assert_warm(&host);
}

/// A data root that no host has used, with something of each kind in it, and not much of it.
#[track_caller]
fn synthetic() -> Volume {
    let volume = Volume::new();
    let mut archive = Builder::new(Vec::new());
    add(&mut archive, "overlay2/ping", EntryType::Regular, b"program", ("security.capability", &CAPABILITY));
    add(&mut archive, "overlay2/opaque/", EntryType::Directory, b"", ("trusted.overlay.opaque", b"y"));
    let more = "mknod overlay2/gone c 0 0; mknod overlay2/disk b 7 3; mkfifo overlay2/pipe; ln -s nowhere overlay2/link
        ln overlay2/ping overlay2/twin; ln overlay2/gone overlay2/gone-too; mkdir overlay2/a\\ b dind-damaged lost+found
        chown 1000:1001 overlay2/pipe overlay2/opaque; chown -h 5:6 overlay2/link; chmod 4755 overlay2/a\\ b
        echo x >\"$(printf 'overlay2/\\377')\"; truncate -s 64M overlay2/sparse; chmod 710 .; chown 0:42 .";
    let script = format!("set -e; tar --xattrs --xattrs-include='*' -xf -; {more}");
    within(&volume, &script, &archive.into_inner().unwrap()).ok();
    volume
}

#[test]
fn every_kind_of_file_is_copied_with_all_that_belongs_to_it() {
    let (source, target) = (synthetic(), Volume::new());
    // It is mounted read-only, and there is no lock file to hold yet.
    copy(&source, &target).create().refuses(69, &["the data root /source cannot be locked", "without `:ro`"]);
    assert_eq!(target.listing(), "");
    let writable = bare(&NEEDS).volume(&source, "/source").volume(&target, "/target");
    let line = said(&writable.create().run_to_its_end().ok());
    assert!(line.starts_with("copied 9 files, 8192 bytes, "), "{line}");
    source.run("rmdir", &["dind-damaged", "lost+found"]).ok();
    let (sum, counts) = fingerprint(&source);
    // In the archive, not on the disk, a second name of a device is another one.
    assert_eq!(counts, [2, 1, 1, 1], "whiteouts, hard links, capability, opaque");
    assert_eq!(target.run("stat", &["-c", "%h", "overlay2/gone"]).ok(), "2");
    assert_eq!(fingerprint(&target), (sum, counts));
    assert_eq!(target.run("stat", &["-c", "%a %u:%g", "."]).ok(), "710 0:42");
    assert_eq!(target.run("du", &["-k", "overlay2/sparse"]).ok().split('\t').next(), Some("0"));
    assert_eq!(mark(&target), "", "no host has used it");
}

#[test]
fn what_a_copy_loses_is_an_error() {
    for (spoil, lost) in [
        // As a cp does that was built without attributes, or may not see them.
        ("set -- $(echo \"$@\" | sed s/,xattr//); /bin/cp \"$@\"", "its attribute "),
        ("set -- $(echo \"$@\" | sed s/links,//); /bin/cp \"$@\"", "its hard links differ"),
        ("/bin/cp \"$@\"; chown 7 /target/image/file", "its owner differs"),
        (
            "/bin/cp \"$@\"; rm /target/image/node; mknod /target/image/node c 0 1; touch -r /source/image /target/image",
            "/source/image/node: its device number",
        ),
    ] {
        let (source, target) = (Volume::new(), Volume::new());
        let mut archive = Builder::new(Vec::new());
        add(&mut archive, "image/file", EntryType::Regular, b"", ("security.capability", &CAPABILITY));
        let script = "tar --xattrs --xattrs-include='*' -xf -; ln image/file image/twin; mknod image/node c 0 0; touch dind.lock";
        within(&source, script, &archive.into_inner().unwrap()).ok();
        let script = format!("#!/bin/sh\n{spoil}\n");
        let host = copy(&source, &target).file("/usr/local/sbin/cp", 0o755, script).create();
        host.refuses(69, &["the copy of /source in /target is not like it: /source/image/", lost]);
        Host::options().volume(&target, "/var/lib/docker").refused(69, &["a copy that was cut off"]);
    }
    // cp's own complaints are passed on.
    let source = Volume::new();
    source.run("touch", &["dind.lock"]).ok();
    source.run("dd", &["if=/dev/zero", "of=file", "bs=64k", "count=1"]).ok();
    let full = bare(&NEEDS).volume(&source, "/source").run(["--tmpfs", "/target:size=4k"]);
    full.refused(69, &["cannot copy /source to /target: cp: error writing", "No space left on device"]);
}

/// A cp that has done its work and waits until it may end.
const HELD: &str = "#!/bin/sh\n/bin/cp \"$@\" || exit\ntouch /held\nuntil [ -e /go ]; do sleep 0.1; done\n";

/// A copy whose cp has done its work and not ended.
#[track_caller]
fn held(source: &Volume, target: &Volume) -> Host {
    let host = copy(source, target).file("/usr/local/sbin/cp", 0o755, HELD).create();
    docker(["start", host.name()]).ok();
    until("cp to have done its work", 20, || (host.shell("ls /held").code == Some(0)).then_some(()));
    host
}

/// A data root that a host has left clean.
#[track_caller]
fn left_clean() -> Volume {
    let volume = Volume::new();
    let host = Host::options().volume(&volume, "/var/lib/docker").start();
    host.load_busybox();
    host.stop();
    host.assert_exited(0);
    volume
}

#[test]
fn copies_are_made_at_once_and_no_host_starts_on_their_source_meanwhile() {
    let (source, first, second) = (left_clean(), Volume::new(), Volume::new());
    let copies = [held(&source, &first), held(&source, &second)];
    let on = |volume: &Volume| Host::options().volume(volume, "/var/lib/docker");
    on(&source).refused(69, &["/var/lib/docker is in use by another host, or is being copied"]);
    on(&first).refused(69, &["/var/lib/docker is becoming a copy of another, which is not done yet"]);
    let third = Volume::new();
    copy(&source, &first).refused(69, &["/target is a copy that was cut off, or is not done yet"]);
    copy(&first, &third).refused(69, &["/source is itself a copy in the making"]);
    assert_eq!(third.listing(), "");
    for copy in copies {
        copy.shell("touch /go").ok();
        assert_eq!(copy.ends(), 0, "{}", copy.logs());
        said(copy.logs().trim_end());
    }
    // Each is on its own now.
    let hosts = [&source, &first, &second].map(|volume| on(volume).start());
    for host in hosts {
        host.assert_runs_containers();
        assert_eq!(host.status()["last_stop"], "clean");
    }
}

#[test]
fn a_data_root_that_a_host_uses_or_has_left_unclean_is_refused() {
    let (source, target) = (Volume::new(), Volume::new());
    let host = Host::options().volume(&source, "/var/lib/docker").start();
    copy(&source, &target)
        .refused(69, &["the data root /source is in use by a host", "docker ps --filter volume="]);
    host.load_busybox();
    host.assert_runs_containers();
    host.signal("KILL");
    assert_eq!(host.ends(), 137);
    copy(&source, &target).refused(69, &["the last stop of a host on the data root /source was not clean"]);
    assert_eq!(target.listing(), "");
    // As the help says.
    host.start();
    host.stop();
    copied(&source, &target);
}

#[test]
fn half_a_copy_is_never_started_on() {
    let (source, target) = (left_clean(), Volume::new());
    let copy_held = held(&source, &target);
    copy_held.signal("KILL");
    assert_eq!(copy_held.ends(), 137);
    let on = |volume: &Volume| Host::options().volume(volume, "/var/lib/docker");
    let text = "/var/lib/docker is a copy that was cut off before it was whole";
    on(&target).refused(69, &[text, "copy again into an empty one"]);
    copy(&source, &target).refused(69, &["the data root /target is a copy that was cut off"]);
    copy(&target, &Volume::new()).refused(69, &["the data root /source is a copy that was cut off"]);
    // Who asks it to end need not wait.
    let other = Volume::new();
    let stopped = held(&source, &other);
    stopped.stop();
    stopped.assert_exited(143);
    on(&other).refused(69, &[text]);
    on(&source).start().assert_runs_containers();
}

#[test]
fn what_cannot_be_copied_to_is_left_alone() {
    let (source, target) = (Volume::new(), Volume::new());
    source.run("touch", &["dind.lock", "file"]).ok();
    bare(&[])
        .volume(&source, "/source")
        .volume(&target, "/target")
        .refused(69, &["may not write overlay's attributes (trusted.*) in /target", "--cap-add SYS_ADMIN"]);
    assert_eq!(target.run("find", &[".", "-mindepth", "1", "-printf", "%p %s"]).ok(), "./dind.lock 0");
    copied(&source, &target);
    let full = target.listing();
    copy(&source, &target).refused(69, &["the folder /target is not empty: there is \"file\" in it"]);
    assert_eq!(target.listing(), full);
    copy(&source, &source).refused(64, &["/target is the data root /source, or one is in the other"]);
    bare(&NEEDS).volume(&source, "/source").refused(64, &["there is no folder /target", "-v NAME:/target"]);
    bare(&NEEDS).volume(&target, "/target").refused(64, &["there is no folder /source"]);
}

/// On a file system that can share the extents of files, which the test makes for itself.
#[test]
fn a_copy_shares_extents_where_the_file_system_can() {
    let source = left_clean();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("disk");
    std::fs::File::create(&file).unwrap().set_len(1 << 30).unwrap();
    let made = Command::new("mkfs.xfs").args(["-q", "-m", "reflink=1"]).arg(&file).status();
    assert!(
        made.is_ok_and(|made| made.success()),
        "no mkfs.xfs\n  help: apt-get install xfsprogs, or run ./check"
    );
    let script = "set -e; [ -e /dev/loop-control ] || mknod /dev/loop-control c 10 237
        for n in $(seq 0 63); do [ -e /dev/loop$n ] || mknod /dev/loop$n b 7 $n; done
        mkdir /data; mount -o loop /disk /data; mkdir /data/first /data/second
        dind-init helper copy-data-root /warm /data/first
        dd if=/dev/urandom of=/data/first/large bs=1M count=200 2>/dev/null; sync
        used() { sync -f /data; df -k --output=used /data | tail -n 1; }
        before=$(used); dind-init helper copy-data-root /data/first /data/second; after=$(used)
        cmp /data/first/large /data/second/large; echo grew by $((after - before)) KiB
        exec dind-init --data-root /data/second";
    let mount = format!("{}:/disk", file.display());
    let options = Host::options().volume(&source, "/warm:ro").run(["-v", &mount, "--entrypoint", "sh"]);
    let host = options.arguments(["-c", script]).start();
    let logs = host.logs();
    let hows: Vec<&str> = logs.lines().filter(|line| line.starts_with("copied ")).collect();
    assert!(
        matches!(hows[..], [first, second] if first.ends_with("without reflinks") && second.ends_with("reflinked"))
    );
    let grew = logs.lines().find_map(|line| line.strip_prefix("grew by ")?.strip_suffix(" KiB")).unwrap();
    assert!(grew.parse::<i64>().unwrap() < 50_000, "{grew} KiB for a copy of more than 200 MB");
    host.assert_runs_containers();
    assert_eq!(host.status()["last_stop"], "clean");
}
